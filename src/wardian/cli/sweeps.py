"""sweep: a notebook for every combination of parameters."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import console, environment, experiment_options, growth_options, json_option, print_json, style, table, wait

if TYPE_CHECKING:
    from ..replay.sweep import Point, Run


@click.command("sweep")
@click.argument("notebook", type=click.Path(path_type=Path, dir_okay=False))
@experiment_options
@growth_options
@json_option
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True, help="How often each combination is run.")
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at once, each in an environment of its own."
)
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path, file_okay=False), help="Folder for all of it (default: out/NOTEBOOK-sweep)."
)
@click.option("--fresh", is_flag=True, help="Run all of it again, also what has been run.")
@click.option("--fail-fast", is_flag=True, help="Begin no further run after one has failed.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Longest that one cell may take.")
@click.option("--dry-run", is_flag=True, help="List the runs and stop.")
def sweep_command(
    notebook: Path,
    file: Path | None,
    instance: str | None,
    parameters: dict[str, str],
    provider: str | None,
    as_json: bool,
    repeat: int,
    jobs: int,
    folder: Path | None,
    fresh: bool,
    fail_fast: bool,
    timeout: float | None,
    dry_run: bool,
) -> int:
    """Run NOTEBOOK once for each combination of parameters, and gather what the runs wrote down with `wardian.record(…)`.

    -p takes several values: `-p clients=5,10`, or as a list where they hold commas: `-p 'mix=["a,b", c]'`. Each run grows an environment
    of its own and tears it down. Interrupted or killed, the same command goes on where it was; runs that failed are run again. More values
    or repeats may be added. The folder then has results.csv (and .parquet), figures, and every run's notebook and log.

    \b
    wardian sweep study.ipynb -p clients=5,10,20 -p delay=10ms,80ms --repeat 3
    wardian sweep study.ipynb -p clients=5,10,20 --jobs 2 --provider docker
    """
    from ..environment.live import experiment_of
    from ..errors import MissingToolError, RunError
    from ..replay.runner import check_parameters
    from ..replay.sweep import Sweep, figures, grid, results, values

    if instance is not None:
        raise click.UsageError("each run of a sweep has an instance of its own: leave out -e")
    try:
        varied = {name: values(text) for name, text in parameters.items()}
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="-p") from None
    points = grid(varied, repeat)
    target = environment(file or experiment_of(notebook), "sweep", provider=provider)
    check_parameters(notebook, target, [dict(point.parameters) for point in points if point.repeat == 1])
    target.close()
    where = folder or notebook.parent / "out" / f"{notebook.stem}-sweep"
    sweep = Sweep(notebook, target.file, where, points, provider=provider, arguments=["--timeout", str(timeout)] if timeout else [])
    if fresh:
        sweep.forget()
    if dry_run:
        _list(sweep.points, {} if fresh else sweep.done(), as_json)
        return 0
    sweep.open()
    ready = sum(run.status == "ok" for run in sweep.done().values())
    if ready and not as_json:
        click.echo(f"{ready} of {len(points)} runs are done already", err=True)
    with _Board(len(points), ready, quiet=as_json) as board:
        runs = wait(sweep.run(board, jobs=jobs, fail_fast=fail_fast))
    rows = results.gather(sweep.folder, runs)
    made = results.write(rows, sweep.folder)
    try:
        known = [*varied, *results.ABOUT]
        made += figures.draw(rows, [name for name, several in varied.items() if len(several) > 1], known, sweep.folder / "figures")
    except MissingToolError as error:
        click.echo(f"no figures: {error.message}; {error.remedy}", err=True)
    failed = [run for run in runs if run.status != "ok"]
    if as_json:
        print_json({"folder": str(sweep.folder), "runs": [asdict(run) for run in runs], "files": [str(path) for path in made]})
    else:
        click.echo(f"{len(runs) - len(failed)} of {len(points)} runs are done, {len(rows)} rows")
        for path in made:
            click.echo(f"  {path}")
    if failed:
        first = failed[0]
        raise RunError(
            f"{len(failed)} of {len(points)} runs failed; the first: {first.error}",
            remedy=f"{sweep.folder}/runs has their notebooks and logs; the same command runs those again",
        )
    return 0


def _list(points: Sequence[Point], done: dict[Point, Run], as_json: bool) -> None:
    states = [done[point].status if point in done else "to be run" for point in points]
    if as_json:
        print_json(
            [
                {"parameters": dict(point.parameters), "repeat": point.repeat, "status": state}
                for point, state in zip(points, states, strict=True)
            ]
        )
        return
    names = [name for name, _ in points[0].parameters]
    table(
        [[*(value for _, value in point.parameters), str(point.repeat), state] for point, state in zip(points, states, strict=True)],
        [*(name.upper() for name in names), "REPEAT", "STATUS"],
    )


class _Board:
    """One line for each run that ended, and on a terminal what those under way do now."""

    def __init__(self, total: int, ready: int, *, quiet: bool) -> None:
        self.total, self.ready, self.quiet = total, ready, quiet
        self.now: dict[Point, tuple[float, str]] = {}
        self.status = console(stderr=True).status("") if sys.stderr.isatty() and not quiet else None

    def __enter__(self) -> _Board:
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *details: object) -> None:
        if self.status:
            self.status.stop()

    def started(self, point: Point) -> None:
        self.said(point, "begins")

    def said(self, point: Point, line: str) -> None:
        begun, _ = self.now.get(point, (time.monotonic(), ""))
        self.now[point] = begun, line
        if self.status:
            lines = [f"{point}  {time.monotonic() - begun:.0f} s  {words[:80]}" for point, (begun, words) in self.now.items()]
            self.status.update("\n  ".join(lines).replace("[", r"\["))

    def ended(self, run: Run) -> None:
        from ..replay.sweep import Point

        point = Point(tuple(run.parameters.items()), run.repeat)
        self.now.pop(point, None)
        self.ready += 1
        if self.quiet:
            return
        mark = style(run.status, fg="green" if run.status == "ok" else "red")
        doubt = style(" (in doubt)", fg="yellow") if run.doubts else ""
        why = f": {run.error}" if run.error else ""
        if self.status:
            self.status.stop()
        click.echo(f"[{self.ready}/{self.total}] {mark} {run.seconds:7.1f} s  {point}{doubt}{why}", err=True)
        if self.status:
            self.status.start()
