"""run: a notebook from start to end, without a browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import console, environment, experiment_options, growth_options, json_option, print_json, settings_option, style, wait

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..environment.environment import Environment
    from ..replay.bundle.unpacking import Unpacked
    from ..replay.runner import Reporter


class Source(click.ParamType[str]):
    """A notebook, a bundle, or the address of a repository; completed as files are."""

    name = "source"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return click.Path(dir_okay=False).shell_complete(ctx, param, incomplete)


@click.command("run")
@click.argument("source", metavar="NOTEBOOK|BUNDLE|URL", type=Source())
@experiment_options
@growth_options
@settings_option
@json_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the executed notebook goes (default: out/NOTEBOOK beside it).")
@click.option("--html", "as_html", is_flag=True, help="Write a page with the results beside the output, too.")
@click.option("--verify", is_flag=True, help="Measure what links do before the first cell, and record it; a replay then does so, too.")
@click.option("--keep", is_flag=True, help="Leave the environment up afterwards.")
@click.option("--allow-errors", is_flag=True, help="Go on after a cell that fails.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Longest that one cell may take.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Where a bundle or repository goes.")
@click.option("--notebook", "which", metavar="PATH", help="Which notebook of a bundle or repository.")
def run_command(
    source: str,
    file: Path | None,
    instance: str | None,
    parameters: dict[str, str],
    provider: str | None,
    settings: dict[str, object],
    as_json: bool,
    output: Path | None,
    as_html: bool,
    verify: bool,
    keep: bool,
    allow_errors: bool,
    timeout: float | None,
    into: Path | None,
    which: str | None,
) -> None:
    """Grow the experiment, run every cell of NOTEBOOK on the node it is bound to, collect, and tear down.

    The output notebook is always written, also when a cell fails. A bundle (`wardian pack`) or a repository of git's (https, ssh or file,
    with @REF or #REF) becomes a folder here first.

    \b
    wardian run study.ipynb
    wardian run study.ipynb -p clients=20 -o out/20.ipynb --keep
    wardian run study.crate.zip --provider docker
    wardian run https://example.org/ada/study.git@v1.2 --into study
    """
    from ..environment.live import experiment_of
    from ..replay.runner import run_notebook

    notebook, unpacked = _brought(source, into, which)
    known = unpacked.experiment if unpacked else experiment_of(notebook)
    target = environment(file or known, instance, provider=provider, settings=settings)
    reporter = shown_run()
    try:
        if unpacked:
            take_images(target, unpacked)
        outcome = wait(
            run_notebook(
                notebook,
                target,
                parameters=parameters,
                output=output,
                as_html=as_html,
                keep=keep,
                allow_errors=allow_errors,
                timeout=timeout,
                verify=verify,
                reporter=reporter,
            )
        )
    finally:
        reporter.close()
        target.close()
    if as_json:
        doubts, files = [str(doubt) for doubt in outcome.doubts], [str(made) for made in outcome.files]
        caveats = [str(caveat) for caveat in outcome.caveats]
        print_json({"run": outcome.run, "seconds": outcome.seconds, "files": files, "doubts": doubts, "caveats": caveats})
        return
    click.echo(style("done", fg="green", bold=True) + f" in {outcome.seconds:.1f} s, run {outcome.run}")
    for caveat in outcome.caveats:
        click.echo(style("not honoured: ", fg="magenta", bold=True) + str(caveat))
    for doubt in outcome.doubts:
        click.echo(style("in doubt: ", fg="yellow", bold=True) + str(doubt))
    for made in outcome.files:
        click.echo(f"  {made}")


def _brought(source: str, into: Path | None, which: str | None) -> tuple[Path, Unpacked | None]:
    """The notebook, and what was unpacked to have it."""
    from ..journal.redact import redact_text
    from ..replay.bundle.origin import fetch, is_elsewhere

    if not is_elsewhere(source):
        if into or which:
            raise click.UsageError("--into and --notebook are for bundles and repositories")
        return Path(source), None
    if not source.endswith(".zip"):
        click.echo(f"fetching {redact_text(source)}", err=True)
    return fetch(source, into, which)


def take_images(target: Environment, unpacked: Unpacked) -> list[str]:
    """Give the environment's provider the images of a bundle that it lacks, and say which."""
    from ..replay.bundle import images

    loaded = wait(images.load(target, unpacked.folder, unpacked.images))
    for name in loaded:
        click.echo(f"loaded image {name}", err=True)
    return loaded


def shown_run() -> Reporter:
    """Who shows how a run goes on, on standard error."""
    return _Board() if sys.stderr.isatty() else _Lines()


class _Lines:
    """One line for each thing that begins or ends."""

    def phase(self, text: str) -> None:
        click.echo(text, err=True)

    def cell_started(self, number: int, count: int, where: str, first_line: str) -> None:
        """Nothing: the line comes when the cell has ended."""

    def cell_ended(self, number: int, count: int, where: str, first_line: str, seconds: float, ok: bool) -> None:
        mark = style("ok", fg="green") if ok else style("failed", fg="red")
        click.echo(f"  [{number}/{count}] {mark} {seconds:6.1f} s  {where:<16} {first_line[:70]}", err=True)

    def close(self) -> None:
        """Nothing is held."""


class _Board(_Lines):
    """The same, and what runs now, in place."""

    def __init__(self) -> None:
        self.status = console(stderr=True).status("")

    def phase(self, text: str) -> None:
        self.status.update(text)
        self.status.start()

    def cell_started(self, number: int, count: int, where: str, first_line: str) -> None:
        self.status.update(f"[{number}/{count}] {where}: {first_line[:70]}".replace("[", r"\["))

    def cell_ended(self, number: int, count: int, where: str, first_line: str, seconds: float, ok: bool) -> None:
        self.status.stop()
        super().cell_ended(number, count, where, first_line, seconds, ok)
        self.status.start()

    def close(self) -> None:
        self.status.stop()
