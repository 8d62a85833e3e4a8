"""fault: what an experiment inflicts on its environment, and how that ends."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .common import environment, experiment_options, json_option, print_json, style, table, wait
from .links import complete_link
from .nodes import complete_selector

if TYPE_CHECKING:
    from ..environment.environment import Environment
    from ..environment.faults import InForce
    from ..environment.inflicting import Faults, Inflicted, Inflicting

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def complete_fault(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the faults in force, for tab completion."""
    from ..errors import WardianError

    try:
        found = wait(environment(context.params.get("file"), context.params.get("instance")).fault.in_force())
    except WardianError:
        return []
    return [item.id for item in found if item.id.startswith(incomplete)]


def _fault_options(command: Decorated) -> Decorated:
    command = click.option("--wait", "stay", is_flag=True, help="Stay until it is over; Ctrl-C undoes it, and so does our death.")(command)
    command = click.option("--for", "duration", metavar="DURATION", help="Undo it after this long, such as 30s; else `fault undo` does.")(
        command
    )
    return experiment_options(json_option(command))


@click.group("fault")
def fault_command() -> None:
    """Break things on purpose, for a time, and have them mended.

    A fault ends after `--for`, by `wardian fault undo`, and with `wardian down`. The journal says from when to when it was in force.

    \b
    wardian fault pause server --for 5s
    wardian fault partition client server
    wardian fault undo
    """


@fault_command.command("partition")
@_fault_options
@click.argument("sides", nargs=-1, required=True, metavar="SELECTOR...", shell_complete=complete_selector)
def partition_command(
    file: Path | None, instance: str | None, as_json: bool, duration: str | None, stay: bool, sides: tuple[str, ...]
) -> None:
    """Have nodes hear nothing from each other, though all their links work.

    Each SELECTOR is one side; with a single one, each of its nodes is a side of its own. What would cross is dropped without a word.

    \b
    wardian fault partition client server --for 30s
    wardian fault partition a,b
    wardian fault partition 'client[0]' '!client[0]' --wait
    """
    _run(environment(file, instance), lambda fault: fault.partition(*sides, duration=duration), as_json, stay)


@fault_command.command("pause")
@_fault_options
@click.argument("selector", shell_complete=complete_selector)
def pause_command(file: Path | None, instance: str | None, as_json: bool, duration: str | None, stay: bool, selector: str) -> None:
    """Have everything on nodes stand still, and go on later as if nothing were.

    \b
    wardian fault pause server --for 5s
    """
    _run(environment(file, instance), lambda fault: fault.pause(selector, duration=duration), as_json, stay)


@fault_command.command("slow")
@_fault_options
@click.option("--cpu", required=True, metavar="SHARE", help="Share of the processors that is left to it, such as 20%.")
@click.argument("selector", shell_complete=complete_selector)
def slow_command(file: Path | None, instance: str | None, as_json: bool, duration: str | None, stay: bool, cpu: str, selector: str) -> None:
    """Leave nodes only a share of the processors that they otherwise have (their `cpus`, or all of the host's).

    \b
    wardian fault slow server --cpu 20% --for 1min
    """
    _run(environment(file, instance), lambda fault: fault.slow(selector, cpu=cpu, duration=duration), as_json, stay)


@fault_command.command("flap")
@_fault_options
@click.option("--every", required=True, metavar="DURATION", help="From one loss of the carrier to the next, such as 2s.")
@click.option("--down", required=True, metavar="DURATION", help="How long it is lost each time, such as 500ms.")
@click.argument("link", shell_complete=complete_link)
def flap_command(
    file: Path | None, instance: str | None, as_json: bool, duration: str | None, stay: bool, every: str, down: str, link: str
) -> None:
    """Have links lose their carrier again and again, the first time at once. LINK is as for `wardian link`.

    \b
    wardian fault flap wan --every 2s --down 500ms --for 1min
    wardian fault flap 'client[0]/west' --every 10s --down 3s
    """
    _run(environment(file, instance), lambda fault: fault.flap(link, every=every, down=down, duration=duration), as_json, stay)


@fault_command.command("kill")
@experiment_options
@json_option
@click.option("--for", "duration", metavar="DURATION", help="Make them anew after this long, such as 30s; else `wardian up` does.")
@click.argument("selector", shell_complete=complete_selector)
def kill_command(file: Path | None, instance: str | None, as_json: bool, duration: str | None, selector: str) -> None:
    """End all that runs on nodes at once, as a power cut does. They are made anew, as they were and with their services.

    \b
    wardian fault kill server --for 30s
    wardian fault kill server && sleep 10 && wardian up -y
    """
    target = environment(file, instance)
    try:
        killed = wait(target.fault.kill(selector, duration=duration))
    finally:
        target.close()
    if as_json:
        print_json({"killed": killed})
    else:
        them = "it" if len(killed) == 1 else "them"
        anew = f"`wardian up` makes {them} anew" if duration is None else f"made anew after {duration}"
        click.echo(f"killed {', '.join(killed)}; {anew}")


@fault_command.command("undo")
@experiment_options
@json_option
@click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=complete_fault)
def undo_command(file: Path | None, instance: str | None, as_json: bool, ids: tuple[str, ...]) -> None:
    """Undo faults by their ids; without any, all that are in force.

    \b
    wardian fault undo
    wardian fault undo 3fa2c1
    """
    target = environment(file, instance)

    async def work() -> list[InForce]:
        if not ids:
            return await target.fault.undo()
        return [item for id_ in ids for item in await target.fault.undo(id_)]

    try:
        ended = wait(work())
    finally:
        target.close()
    if as_json:
        print_json([_plain(item) for item in ended])
        return
    for item in ended:
        click.echo(f"{item.id} {style('undone', fg='green')}: {item.text()}")
    if not ended:
        click.echo("Nothing to undo.")


@fault_command.command("ls")
@experiment_options
@json_option
def ls_command(file: Path | None, instance: str | None, as_json: bool) -> None:
    """List the faults that are in force.

    \b
    wardian fault ls
    wardian fault ls --json
    """
    target = environment(file, instance)
    found = wait(target.fault.in_force())
    if as_json:
        print_json([_plain(item) for item in found])
    elif found:
        table([[item.id, item.text(), _clock(item.began), _end(item), item.by] for item in found], ["ID", "FAULT", "SINCE", "UNTIL", "BY"])
    else:
        click.echo("No fault is in force.")


def _run(target: Environment, make: Callable[[Faults], Inflicting], as_json: bool, stay: bool) -> None:
    """Inflict a fault and say so; with `stay`, until it is over."""

    def say(inflicted: Inflicted) -> None:
        fault = inflicted.fault
        if as_json:
            print_json(_plain(fault))
        else:
            click.echo(f"{style(fault.id, bold=True)}: {fault.text()}, until {_end(fault)}")

    async def work() -> None:
        if not stay:
            say(await make(target.fault))
            return
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        async with make(target.fault) as inflicted:
            say(inflicted)
            until = inflicted.fault.until
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), None if until is None else max(0.0, until - time.time()))
        if not as_json:
            click.echo(f"{inflicted.id} {style('undone', fg='green')}")

    try:
        wait(work())
    finally:
        target.close()


def _plain(item: InForce) -> dict[str, Any]:
    return {"id": item.id, "text": item.text(), **item.note()}


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def _end(item: InForce) -> str:
    if item.until is not None:
        return _clock(item.until)
    return f"process {item.holder['pid']} ends" if item.holder else f"`wardian fault undo {item.id}`"
