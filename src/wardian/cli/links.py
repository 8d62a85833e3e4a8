"""link and verify: what links do, changing it, and measuring whether they do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .common import environment, experiment_options, json_option, print_json, style, table, wait
from .progress import show_words

if TYPE_CHECKING:
    from ..experiment.plan import Plan

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

PARTS = {
    "delay": "One-way delay, such as 30ms.",
    "jitter": "How much the delay varies.",
    "distribution": "Of the jitter: uniform, normal or pareto.",
    "loss": "Share of packets lost, such as 0.5%.",
    "loss-burst": "How many packets in a row are lost, on average.",
    "duplicate": "Share of packets that arrive twice.",
    "reorder": "Share of packets that do not wait for the delay.",
    "rate": "Bits a second, such as 100mbit.",
    "queue": "Longest queue: packets (100), a size (64KiB) or a discipline (codel).",
    "trace": "CSV file with values as they change over time.",
    "mtu": "Largest packet, bytes; of both directions.",
}


def complete_link(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of links, for tab completion."""
    from ..errors import WardianError

    try:
        found = wait(environment(context.params.get("file"), context.params.get("instance")).links())
    except WardianError:
        return []
    return [view.name for view in found if view.name.startswith(incomplete)]


@click.group("link")
def link_command() -> None:
    """Show and change what links do.

    NAME is a link of the file (`wan`, also with `*`), or SELECTOR/NETWORK for access links of nodes: `client[0]/west`, `all/*`.

    \b
    wardian link show
    wardian link set wan --delay 80ms --loss 1%
    """


@link_command.command("show")
@experiment_options
@json_option
@click.option("-a", "--all", "everything", is_flag=True, help="Access links of which nothing is set, too.")
@click.argument("name", required=False, shell_complete=complete_link)
def show_command(file: Path | None, instance: str | None, as_json: bool, everything: bool, name: str | None) -> None:
    """Show what links do now, each way.

    \b
    wardian link show
    wardian link show wan --json
    """
    from ..environment import links

    live = wait(environment(file, instance).live())
    names = {item.name for item in links.pick(live, name)} if name else None
    found = [view for view in links.views(live.observed) if (everything or not view.plain if names is None else view.name in names)]
    if as_json:
        print_json([asdict(view) for view in found])
        return
    rows = []
    for view in found:
        for way in view.ways:
            first, second = view.ends if way in ("there", "up") else view.ends[::-1]
            rows.append([view.name, way, f"{first} -> {second}", view.state, view.text(way)])
    if rows:
        table(rows, ["LINK", "WAY", "FROM -> TO", "STATE", "SHAPE"])
    else:
        click.echo("Nothing is set of any link." if name is None else "Nothing is set of it.")


def _shape_options(command: Decorated) -> Decorated:
    for part, words in reversed(PARTS.items()):
        command = click.option(f"--{part}", metavar="VALUE", help=words)(command)
    return command


@link_command.command("set")
@experiment_options
@json_option
@_shape_options
@click.option(
    "--way", type=click.Choice(["there", "back", "up", "down"]), help="One direction: there or back of links, up or down of access links."
)
@click.argument("name", shell_complete=complete_link)
def set_command(file: Path | None, instance: str | None, as_json: bool, way: str | None, name: str, **parts: str | None) -> None:
    """Change what links do, under traffic that goes on. VALUE is as in the file, or `none`.

    It lasts until the next `wardian up`, which brings links back to what the file says.

    \b
    wardian link set wan --delay 80ms --loss 1%
    wardian link set wan --way back --rate 5mbit --queue 64KiB
    wardian link set 'client/west' --jitter none
    """
    changes = {part: None if value == "none" else value for part, value in parts.items() if value is not None}
    if not changes:
        raise click.UsageError("nothing to change: give at least one of " + ", ".join(f"--{part}" for part in PARTS))
    target = environment(file, instance)
    try:
        plan = wait(target.set_link(name, way=way, **changes))
    finally:
        target.close()
    _print_change(plan, as_json)


@link_command.command("restart")
@experiment_options
@json_option
@click.argument("name", shell_complete=complete_link)
def restart_command(file: Path | None, instance: str | None, as_json: bool, name: str) -> None:
    """Have the traces of links begin again from their start, now.

    \b
    wardian link restart wan
    """
    target = environment(file, instance)
    try:
        plan = wait(target.restart_traces(name))
    finally:
        target.close()
    _print_change(plan, as_json)


def _print_change(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(plan.to_json())
        return
    for operation in plan.operations:
        click.echo(style(str(operation), fg="yellow"))
    for caveat in plan.caveats:
        click.echo(style(f"! {caveat}", fg="magenta"))
    if not plan:
        click.echo("Nothing to do: it is so already.")


@click.command("verify")
@experiment_options
@json_option
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), help="Draw it, too: a .svg, .png or .pdf file.")
@click.option("--all-pairs", is_flag=True, help="Between every two nodes, not only between as few as show every link.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Longest for counting the losses of two nodes."
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_link)
def verify_command(
    file: Path | None, instance: str | None, as_json: bool, figure: Path | None, all_pairs: bool, seconds: float, names: tuple[str, ...]
) -> int:
    """Measure whether links do what the file says.

    Nodes send each other packets: delay, jitter, loss, rate, queue and MTU, each way, as far as the file writes them. NAME is as for
    `wardian link`. Exits with 1 when something is outside of what is accepted; the journal keeps the result.

    \b
    wardian verify
    wardian verify wan --seconds 30 --figure wan.svg
    """
    from ..environment.verify.report import HEADER
    from ..errors import WardianError

    if figure is not None and figure.suffix not in (".svg", ".png", ".pdf"):
        raise WardianError(f"{figure}: a figure is no {figure.suffix or 'file without an ending'}", remedy="name it .svg, .png or .pdf")
    target = environment(file, instance)
    try:
        with show_words(quiet=as_json) as listen:
            report = wait(target.verify(*names, all_pairs=all_pairs, seconds=seconds, listen=listen))
    finally:
        target.close()
    if figure is not None:
        report.figure(str(figure))
    if as_json:
        print_json(report.to_json())
    else:
        table([check.row() for check in report.checks], HEADER)
        click.echo()
        click.echo(style(report.summary(), fg="green" if report.ok else "red"))
    return 0 if report.ok else 1
