"""runs, show, diff: what was run, what ran where, and what is otherwise between two runs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..journal import telling
from .common import confirm, environment, experiment_options, json_option, print_json, style, table

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..journal import Journal, LogEntry, RunRecord
    from ..journal.differences import Difference

COLOURS = {"ok": "green", "failed": "red", "interrupted": "yellow", "cancelled": "yellow", "running": "cyan"}
SHORT = 8
"""Of a run's id this much is shown: its end."""


def complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ends of the ids of runs, the latest first, for tab completion."""
    from click.shell_completion import CompletionItem

    from ..errors import WardianError

    try:
        journal, _ = journal_of(context.params.get("file"), context.params.get("instance"))
        with journal:
            runs = journal.runs(limit=50)[::-1]
    except WardianError:
        return []
    items = [
        CompletionItem(run.id[-SHORT:], help=f"{telling.when(run.started)} {run.status} {Path(run.detail['notebook']).name}")
        for run in runs
    ]
    return [item for item in [CompletionItem("last"), *items] if item.value.startswith(incomplete)]


@click.group("runs", invoke_without_command=True)
@experiment_options
@json_option
@click.option("-n", "--last", type=click.IntRange(min=1), default=50, show_default=True, help="How many, the latest.")
@click.option("--status", type=click.Choice(list(COLOURS)), help="Only runs that are so.")
@click.option("--notebook", metavar="TEXT", help="Only runs of notebooks whose path has this in it.")
@click.option("--provider", metavar="NAME", help="Only runs on this provider.")
@click.option("--user", metavar="NAME", help="Only runs of this user; of use in a journal that a team shares.")
@click.option("--since", metavar="DURATION", help="Only runs begun since then, such as 12h or 7d.")
@click.pass_context
def runs_command(
    context: click.Context,
    file: Path | None,
    instance: str | None,
    as_json: bool,
    last: int,
    status: str | None,
    notebook: str | None,
    provider: str | None,
    user: str | None,
    since: str | None,
) -> None:
    """List the runs of notebooks, oldest first.

    \b
    wardian runs
    wardian runs --status failed --since 7d
    wardian runs rm --keep 20
    """
    if context.invoked_subcommand is not None:
        return
    journal, _ = journal_of(file, instance)
    with journal:
        begun = None if since is None else time.time() - _seconds(since)
        found = journal.runs(last, since=begun, status=status, notebook=notebook, provider=provider, user=user)
    if as_json:
        print_json([asdict(run) for run in found])
    elif found:
        rows = [[run.id[-SHORT:], telling.when(run.started), telling.took(run), run.status, *_what(run)] for run in found]
        table(rows, ["RUN", "STARTED", "TOOK", "STATUS", "PROVIDER", "USER", "NOTEBOOK", "PARAMETERS"])
    else:
        click.echo("There is no such run.")


@runs_command.command("rm")
@experiment_options
@json_option
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_run)
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Remove all but the latest N.")
@click.option("--older", metavar="DURATION", help="Remove those begun longer ago than this, such as 30d.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rm_command(
    file: Path | None, instance: str | None, as_json: bool, runs: tuple[str, ...], keep: int | None, older: str | None, yes: bool
) -> None:
    """Remove runs from the journal, with their cells, output and facts, and the contents that nothing else names.

    Runs that go on are left. With --keep and --older, only what both would remove is.

    \b
    wardian runs rm 4d161934
    wardian runs rm --older 30d --keep 20 -y
    """
    if not runs and keep is None and older is None:
        raise click.UsageError("say which runs: their ids, --keep N or --older DURATION")
    journal, experiment = journal_of(file, instance)
    with journal:
        doomed = [journal.show(run, experiment=experiment).run for run in runs]
        if not runs:
            every = [run for run in journal.runs() if experiment in (None, run.detail["experiment"])]
            before = time.time() - _seconds(older) if older is not None else None
            doomed = [run for run in (every[: len(every) - keep] if keep is not None else every) if before is None or run.started < before]
        doomed = [run for run in doomed if run.status != "running"]
        if doomed and not confirm(f"Remove {len(doomed)} of the journal's runs?", yes):
            return
        removed = journal.remove_runs([run.id for run in doomed]) if doomed else None
    if as_json:
        print_json({"runs": [run.id for run in doomed], "removed": asdict(removed) if removed else None})
    elif removed:
        click.echo(f"removed {removed.runs} runs, and {removed.contents} contents ({removed.bytes / 1e6:.1f} MB) that only they named")
    else:
        click.echo("There is nothing to remove.")


@click.command("show")
@experiment_options
@json_option
@click.argument("run", default="last", shell_complete=complete_run)
@click.option("--packages", is_flag=True, help="List the packages of each node, too.")
@click.option("--prov", is_flag=True, help="Write it as W3C PROV-JSON instead.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where --prov goes, in place of standard output.")
def show_command(file: Path | None, instance: str | None, as_json: bool, run: str, packages: bool, prov: bool, output: Path | None) -> None:
    """Show a run: what was asked for, what ran where, how it ended, and what its nodes were.

    RUN is the end of a run's id, `last`, or `last~1` for the one before that.

    \b
    wardian show
    wardian show 4d161934 --json
    wardian show last --prov -o run.prov.json
    """
    if output is not None and not prov:
        raise click.UsageError("-o is for --prov")
    journal, experiment = journal_of(file, instance)
    with journal:
        record = journal.show(run, experiment=experiment)
    if prov:
        from ..journal.prov import document

        if output is None:
            print_json(document(record))
        else:
            import json

            output.write_text(json.dumps(document(record), indent=2) + "\n")
    elif as_json:
        print_json(asdict(record))
    else:
        _show(record, packages)


@click.command("diff")
@experiment_options
@json_option
@click.argument("before", metavar="RUN", shell_complete=complete_run)
@click.argument("after", metavar="RUN", default="last", shell_complete=complete_run)
def diff_command(file: Path | None, instance: str | None, as_json: bool, before: str, after: str) -> int:
    """Show what differs between two runs: file, parameters, versions, nodes, packages, cells, outputs.

    Without a second RUN, the last one is meant. Exits with 1 when something differs; durations alone do not count.

    \b
    wardian diff last~1
    wardian diff 4d161934 9be05e06 --json
    """
    from ..journal.differences import differences

    journal, experiment = journal_of(file, instance)
    with journal:
        one, other = (journal.show(run, experiment=experiment) for run in (before, after))
    found = differences(one, other)
    different = any(item.matters for item in found)
    if as_json:
        print_json({"runs": [one.run.id, other.run.id], "differ": different, "differences": [asdict(item) for item in found]})
    else:
        _tell(one, other, found)
    return int(different)


def journal_of(file: Path | None, instance: str | None) -> tuple[Journal, str | None]:
    """The journal, and the experiment file whose last runs are meant; None where only a shared database is named."""
    from ..environment.live import experiment_file
    from ..journal import Journal

    shared = os.environ.get("WARDIAN_JOURNAL", "")
    if "://" in shared and file is None and experiment_file(Path.cwd()) is None:
        return Journal.open(shared), None
    target = environment(file, instance, gone=True)
    return target.journal, str(target.file)


def _what(run: LogEntry) -> list[str]:
    detail, doubt = run.detail, " (in doubt)" if run.summary.endswith("(in doubt)") else ""
    return [detail["provider"] or "-", detail["user"], Path(detail["notebook"]).name, telling.assignments(detail["parameters"]) + doubt]


def _show(record: RunRecord, packages: bool) -> None:
    run = record.run
    took = f" after {telling.took(run)}" if run.ended else ""
    click.echo(style(f"run {run.id}", bold=True) + f": {style(run.status, fg=COLOURS[run.status])}{took}")
    rows = list(telling.head(record))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"  {name:<{width}}  {value}")
    clocks = _clocks(record)
    nodes = [telling.node(record, node) + ([clocks.get(node, "-")] if clocks else []) for node in (None, *record.nodes())]
    _titled("Nodes", nodes, telling.NODE + (["CLOCK"] if clocks else []))
    _titled("Cells", [_cell(entry) for entry in record.of("cell")], ["CELL", "STATUS", "TOOK", "WHERE", "FIRST LINE"])
    for title, lines in (
        ("What happened", [f"{time.strftime('%T', time.localtime(entry.started))}  {entry.summary}" for entry in record.of("event")]),
        ("Files copied", [f"{entry.summary}  {(entry.detail['sha256'] or '')[:12]}" for entry in record.of("transfer")]),
        ("Files read", [f"{path}  {digest[:12]}" for path, digest in (record.fact("read") or {}).items()]),
        ("Files written", [f"{path}  {digest[:12]}" for path, digest in (record.fact("written") or {}).items()]),
    ):
        if lines:
            click.echo(style(f"\n{title}", bold=True))
            for line in lines:
                click.echo(f"  {line}")
    if packages:
        for fact in record.facts:
            if fact.name.startswith("packages."):
                click.echo(style(f"\n{fact.node or 'home'}: {fact.name.removeprefix('packages.')}", bold=True))
                click.echo("\n".join(f"  {name} {version}" for name, version in sorted(fact.value.items())))


def _clocks(record: RunRecord) -> dict[str | None, str]:
    """How far the nodes' clocks were from this host's, as it was measured last; empty where they had the same."""
    from ..environment.clocks import Offset

    measured = [entry.detail["offsets"] for entry in record.of("event") if "offsets" in entry.detail]
    offsets = [Offset(**item) for item in measured[-1]] if measured else []
    return {item.node: item.text() for item in offsets if item.offset is None or item.error}


def _cell(entry: LogEntry) -> list[str]:
    from ..experiment.plan import compact

    first = next((line for line in entry.detail["source"].splitlines() if line.strip() and not line.startswith("%%")), "")
    return [entry.detail["cell"] or entry.id[-SHORT:], entry.status, telling.took(entry), compact(entry.nodes) or "here", first[:60]]


def _titled(title: str, rows: list[list[str]], header: list[str]) -> None:
    if rows:
        click.echo(style(f"\n{title}", bold=True))
        table(rows, header)


def _tell(one: RunRecord, other: RunRecord, found: Sequence[Difference]) -> None:
    for sign, record in (("-", one), ("+", other)):
        click.echo(f"{sign} {record.run.id[-SHORT:]}  {telling.when(record.run.started)}  {record.run.status}  {record.run.summary}")
    part = ""
    for item in found:
        if item.part != part:
            part = item.part
            click.echo(style(f"\n{part}", bold=True))
        _tell_one(item)
    if not any(item.matters for item in found):
        click.echo("\nNothing differs" + (", but for how long it took." if found else "."))


def _tell_one(item: Difference) -> None:
    from ..journal.differences import lines

    name = ": ".join(filter(None, (item.where, item.what)))
    before, after = item.before, item.after
    if isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
        click.echo(f"  {name}")
        for line in lines(before, after):
            click.echo("    " + style(line, fg={"-": "red", "+": "green"}.get(line[:1])))
        return
    texts = ["none" if value is None else _brief(value) for value in (before, after)]
    click.echo(f"  {name}: {style(texts[0], fg='red')} → {style(texts[1], fg='green')}")


def _brief(value: Any, most: int = 100) -> str:
    import json

    text = (value if isinstance(value, str) else json.dumps(value, default=str)).strip().replace("\n", "⏎")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _seconds(duration: str) -> float:
    from ..experiment.units import parse_duration

    days = duration.removesuffix("d")
    try:
        return float(days) * 86400 if days != duration else parse_duration(duration)
    except ValueError as error:
        raise click.BadParameter(f"{duration!r} is not {error}") from None
