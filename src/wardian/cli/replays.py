"""replay: run a notebook again, and say whether the same comes out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import environment, experiment_options, growth_options, json_option, print_json, settings_option, style, table, wait
from .notebooks import shown_run

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..environment.environment import Environment
    from ..replay.compare import CellComparison, Verdict
    from ..replay.replaying import Replay

DIFFERENT, UNHONOURED = 10, 11
"""Exit codes."""
_FINDINGS = 6
"""Most findings shown of one cell."""
_LINES = 20
"""Most differences shown of the environments."""
_ASKED = ("parameter ", "link ", "experiment file", "provider")
"""What differences of environments begin with that are reason enough for other results."""


def complete_target(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Notebooks here, and ids of recorded runs."""
    from click.shell_completion import CompletionItem

    found = [path.name for path in sorted(Path.cwd().glob("*.ipynb")) if path.name.startswith(incomplete)]
    return [*map(CompletionItem, found), *_complete_run(context, parameter, incomplete)]


def _complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The last part of ids of recorded runs, which the journal knows them by."""
    from click.shell_completion import CompletionItem

    from ..errors import WardianError

    try:
        target = environment(context.params.get("file"), context.params.get("instance"), gone=True)
        if not (target.folder / ".wardian").is_dir():
            return []
        runs = target.journal.runs(limit=20)
        target.close()
    except (WardianError, OSError):
        return []
    return [CompletionItem(run.id[-8:], help=run.summary) for run in reversed(runs) if run.id[-8:].startswith(incomplete)]


@click.command("replay")
@click.argument("target", metavar="NOTEBOOK|RUN", shell_complete=complete_target)
@experiment_options
@growth_options
@settings_option
@click.option(
    "--against", multiple=True, metavar="RUN", shell_complete=_complete_run, help="Compare with this recorded run; may be repeated."
)
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=1, show_default=True, help="Run it so often, each time in a fresh environment."
)
@click.option("--tolerance", metavar="HOW", help="Accept numbers that far apart where none is declared: 5%, 2ms, or several with commas.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Where the page with the comparison goes.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Longest that one cell may take.")
@json_option
def replay_command(
    target: str,
    file: Path | None,
    instance: str | None,
    parameters: dict[str, str],
    provider: str | None,
    settings: dict[str, object],
    against: tuple[str, ...],
    repeat: int,
    tolerance: str | None,
    report: Path | None,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Run a notebook again in a fresh environment, and compare what comes out with what is recorded, cell by cell.

    It is compared with the last recorded run that went well (and those before it that ran the same), or with RUN. The page goes to
    out/replay/ beside the notebook unless --report says otherwise, and the same as JSON beside it.

    Exits with 0 when all is identical or equal, 10 when something is different, and 11 when results differ in an environment that could
    not be honoured here.

    \b
    wardian replay study.ipynb
    wardian replay study.ipynb --repeat 5 --provider docker
    wardian replay study.ipynb --tolerance 5%,2ms --against 1b2c3d4e
    wardian replay 1b2c3d4e --report report.html
    """
    from ..replay import report as reports
    from ..replay.compare.numbers import parse_tolerances
    from ..replay.replaying import replay_notebook

    if tolerance is not None:
        try:
            parse_tolerances(tolerance)
        except ValueError as error:
            raise click.BadParameter(f"{tolerance!r} is not {error}", param_hint="--tolerance") from None
    notebook, surroundings, given, runs = _target(target, file, instance, provider, settings, against)
    reporter = shown_run()
    try:
        found = wait(
            replay_notebook(
                notebook,
                surroundings,
                parameters=given | parameters,
                against=runs,
                repeat=repeat,
                tolerance=tolerance,
                timeout=timeout,
                reporter=reporter,
            )
        )
    finally:
        reporter.close()
        surroundings.close()
    written = reports.write(found, report or notebook.parent / "out" / "replay" / f"{notebook.stem}.html")
    if as_json:
        print_json(reports.to_json(found))
    else:
        _print(found, tolerance)
        for path in (*found.files, *written):
            click.echo(f"  {path}")
    return _exit_code(found.comparison.verdict)


def _exit_code(verdict: Verdict) -> int:
    from ..replay.compare import Verdict

    if verdict.fine:
        return 0
    return UNHONOURED if verdict is Verdict.UNHONOURED else DIFFERENT


def _target(
    target: str,
    file: Path | None,
    instance: str | None,
    provider: str | None,
    settings: dict[str, object],
    against: tuple[str, ...],
) -> tuple[Path, Environment, dict[str, str], tuple[str, ...]]:
    """The notebook, its environment, the parameters of a recorded run, and what to compare with."""
    from ..environment.live import experiment_of
    from ..errors import RunError
    from ..replay.replaying import INSTANCE, parameters_of

    path = Path(target)
    if path.suffix == ".ipynb" or path.exists():
        return path, environment(file or experiment_of(path), instance or INSTANCE, provider=provider, settings=settings), {}, against
    surroundings = environment(file, instance or INSTANCE, provider=provider, settings=settings)
    try:
        record = surroundings.journal.show(target)
        notebook = Path(record.run.detail["notebook"])
        if not notebook.exists():
            raise RunError(f"run {record.run.id[-8:]} is of {notebook}, which is gone", remedy="put the notebook back, or name another")
    except BaseException:
        surroundings.close()
        raise
    return notebook, surroundings, parameters_of(record), against or (record.run.id,)


def _print(found: Replay, tolerance: str | None) -> None:
    from ..replay.recorded import gathered

    comparison = found.comparison
    rows = [[str(cell.number or "-"), _verdict(cell), _took(cell), cell.title[:70]] for cell in comparison.cells]
    table(rows, ["cell", "verdict", "recorded → now", ""])
    for cell in comparison.cells:
        if not cell.verdict.fine:
            _print_cell(cell)
    for title, lines in (
        ("The environments differ:", [f"{item.what}: {item.old} → {item.new}" for item in gathered(comparison.environment)]),
        ("Could not be honoured here:", list(comparison.unhonoured)),
        ("In doubt:", found.doubts),
        ("Ended early:", list(found.failed)),
    ):
        if lines:
            click.echo("\n" + style(title, bold=True))
            for line in lines[:_LINES]:
                click.echo(f"  {line}")
            if len(lines) > _LINES:
                click.echo(f"  and {len(lines) - _LINES} more, which the report has")
    click.echo("\n" + style(comparison.verdict.value, fg="green" if comparison.verdict.fine else "red", bold=True) + f": {_against(found)}")
    if advice := _advice(found):
        click.echo(advice)


def _print_cell(cell: CellComparison) -> None:
    click.echo("\n" + style(f"cell {cell.number or '-'}: {cell.title[:100]}", bold=True) + (f"\n  {cell.words}" if cell.words else ""))
    for line in cell.edited.splitlines()[2:]:
        click.echo("    " + style(line, fg={"+": "green", "-": "red"}.get(line[:1])))
    if cell.in_doubt:
        click.echo(style("  in doubt: ", fg="yellow") + f"it was {cell.doubts}")
    shown = [item for item in cell.findings if not item.verdict.fine]
    for item in shown[:_FINDINGS]:
        click.echo(f"  {item}")
    if len(shown) > _FINDINGS:
        click.echo(f"  and {len(shown) - _FINDINGS} more, which the report has")


def _verdict(cell: CellComparison) -> str:
    return cell.verdict.value + (" (in doubt)" if cell.in_doubt else "")


def _took(cell: CellComparison) -> str:
    from statistics import median

    times = cell.times.get(None)
    if times is None:
        return ""
    was, now = (f"{median(values):.1f} s" if values else "-" for values in (times.old, times.new))
    return f"{was} → {now}"


def _against(found: Replay) -> str:
    counts = ", ".join(f"{number} {verdict}" for verdict, number in found.comparison.count().items())
    recorded = ", ".join(record.run.id[-8:] for record in found.recorded)
    new = ", ".join(record.run.id[-8:] for record in found.new)
    return f"{counts or 'no cells'}; recorded {recorded}, now {new}"


def _advice(found: Replay) -> str:
    """What helps where the host may be why something differs, or where only numbers differ that nothing is known of."""
    wrong = [cell for cell in found.comparison.cells if not cell.verdict.fine]
    same = not any(item.what.startswith(_ASKED) for item in found.comparison.environment)
    if wrong and same and all(cell.in_doubt for cell in wrong):
        again = "record" if all(cell.doubts.old for cell in wrong) else "replay"
        command = f"wardian {'run' if again == 'record' else 'replay'} {found.notebook.name}"
        return f"All that differs was measured while a host was saturated: {again} it again when that is quiet (`{command}`)."
    bad = [item for cell in found.comparison.cells for item in cell.findings if not item.verdict.fine]
    others = any(not cell.verdict.fine and (cell.edited or cell.moved or not cell.findings) for cell in found.comparison.cells)
    if not bad or others or any(item.kind != "number" or item.tolerances or item.test for item in bad):
        return ""
    return (
        f"Only numbers differ ({len(bad)}), and how much they vary is not known. If they are measured, declare what you accept\n"
        "(`#| tolerance: 5%` on top of the cell, or --tolerance), or let their spread be seen: --repeat 5, or more recorded runs."
    )
