"""log, doctor: what happened, and what this host can do."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import environment, experiment_options, json_option, print_json, style, wait

if TYPE_CHECKING:
    from ..journal import Journal


@click.command("log")
@experiment_options
@json_option
@click.option("-n", "--last", type=click.IntRange(min=1), default=50, show_default=True, help="How many entries.")
@click.option("--node", metavar="NAME", help="Only what concerns this node.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="operation, run, cell, transfer or event; may be repeated.")
@click.option("--run", metavar="ID", help="Only what belongs to this run.")
@click.option("--cell", metavar="ID", help="What a cell printed: its id, the end of that, or last (of those on nodes).")
def log_command(
    file: Path | None,
    instance: str | None,
    as_json: bool,
    last: int,
    node: str | None,
    kinds: tuple[str, ...],
    run: str | None,
    cell: str | None,
) -> None:
    """Show the journal: operations, cells, transfers and events, oldest first.

    \b
    wardian log -n 20
    wardian log --kind cell --node 'client[0]'
    wardian log --cell last
    """
    target = environment(file, instance, gone=True)
    if cell is not None:
        _show_cell(target.journal, cell, as_json)
        target.close()
        return
    entries = target.journal.entries(kinds=list(kinds) or None, node=node, run=run, limit=last)
    target.close()
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    colours = {"failed": "red", "interrupted": "yellow", "cancelled": "yellow"}
    for entry in entries:
        when = time.strftime("%F %T", time.localtime(entry.started))
        took = f"{entry.seconds:8.2f} s" if entry.seconds is not None else " " * 10
        status = style(f"{entry.status:<11}", fg=colours.get(entry.status))
        click.echo(f"{when} {took}  {entry.kind:<9} {status} {entry.summary}")
    if not entries:
        click.echo("The journal is empty.")


def _show_cell(journal: Journal, cell: str, as_json: bool) -> None:
    from ..kernel.record import playback

    entry = journal.find_cell(cell)
    outputs = journal.outputs(entry.id)
    if as_json:
        print_json({**asdict(entry), "outputs": [asdict(output) for output in outputs]})
        return
    click.echo(style(playback.title(entry), bold=True), err=True)
    for text in playback.as_text(entry, outputs):
        click.echo(text, nl=False)


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> int:
    """Try what providers need on this host, and say what works and what to change.

    Exits with 1 when something needed was missing.

    \b
    wardian doctor
    wardian doctor --json
    """
    from ..providers import registry

    findings = {name: wait(registry.make(name).diagnose()) for name in registry.names()}
    missing = any(finding.state == "missing" for found in findings.values() for finding in found)
    if as_json:
        print_json({
            name: [
                {"what": item.what, "state": item.state, "detail": item.detail, "remedy": item.remedy, "page": item.page} for item in found
            ]
            for name, found in findings.items()
        })  # fmt: skip
        return int(missing)
    marks = {"ok": style("ok     ", fg="green"), "limited": style("limited", fg="yellow"), "missing": style("missing", fg="red")}
    for name, found in findings.items():
        click.echo(style(f"provider {name}", bold=True))
        for item in found:
            click.echo(f"  {marks[item.state]}  {item.what}: {item.detail}")
            if item.remedy:
                click.echo(f"           {item.remedy}")
            if item.state != "ok":
                click.echo(style(f"           more: {item.page}", dim=True))
    return int(missing)
