"""report: an executed notebook as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import experiment_options
from .replays import complete_target
from .runs import journal_of

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from ..journal import RunRecord


@click.command("report")
@click.argument("target", metavar="[RUN|NOTEBOOK]", default="last", shell_complete=complete_target)
@experiment_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes (default: out/NAME.html beside the notebook).",
)
def report_command(target: str, file: Path | None, instance: str | None, output: Path | None) -> None:
    """Write a run's notebook as one page, with the topology, a timeline and all that its cells showed.

    The page needs nothing beside it: no network, no kernel, no environment. RUN is the end of a run's id, `last`, or `last~1` for the
    one before that; NOTEBOOK a notebook, whose last run it is, or an executed one.

    \b
    wardian report
    wardian report study.ipynb -o study.html
    wardian report 4d161934 -o page.html
    """
    from ..replay import page

    document, name, record, folder = _found(target, file, instance)
    path = output or folder / f"{name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.to_html(document, name, record), encoding="utf-8")
    click.echo(str(path))


def _found(target: str, file: Path | None, instance: str | None) -> tuple[NotebookNode, str, RunRecord | None, Path]:
    """The executed notebook, its name, its run, and the folder where pages of it go."""
    from ..environment.live import experiment_of
    from ..errors import RunError
    from ..replay import page
    from ..replay.runner import read_notebook

    path = Path(target)
    if path.suffix != ".ipynb" and not path.is_file():
        journal, experiment = journal_of(file, instance)
        with journal:
            record: RunRecord | None = journal.show(target, experiment=experiment)
        assert record is not None  # noqa: S101 (a run that is none is an error)
        notebook = Path(record.run.detail["notebook"])
        return page.of_run(record), notebook.stem, record, _folder(notebook)
    document = read_notebook(path)
    record = None
    if (beside := file or experiment_of(path)) is not None:
        journal, _ = journal_of(beside, instance)
        with journal:
            record = page.recorded(journal, path)
    executed = any(cell.get("outputs") for cell in document.cells)
    if record is not None and not executed:
        document = page.of_run(record)
    elif record is None and not executed:
        raise RunError(f"{path}: it has no outputs, and no run of it is recorded", remedy=f"`wardian run {path}`")
    return document, path.stem, record, path.parent if executed else _folder(path)


def _folder(notebook: Path) -> Path:
    return notebook.parent / "out"
