"""snapshot, reboot, rebuild: nodes as the machines that they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import environment, experiment_options, json_option, print_json, style, wait
from .nodes import complete_selector
from .progress import show_states, watch

if TYPE_CHECKING:
    from ..environment.environment import Environment
    from ..experiment.plan import Plan


@click.command("snapshot")
@experiment_options
@json_option
@click.argument("node", shell_complete=complete_selector)
@click.argument("name")
def snapshot_command(file: Path | None, instance: str | None, as_json: bool, node: str, name: str) -> None:
    """Make NODE's disk, as it is now, an image called NAME.

    `image: NAME` in an experiment file makes nodes from it. Where that is done depends on the provider: an image of the cloud, of the
    Docker Engine, or of `wardian image`. What runs on the node is not part of it, nor are its memory, /run and /tmp.

    \b
    wardian snapshot server built:1
    wardian snapshot 'client[0]' client-ready --json
    """
    target = environment(file, instance)
    try:
        with show_states(quiet=as_json) as report:
            made = wait(target.snapshot(node, name, report=report))
    finally:
        target.close()
    if as_json:
        print_json(asdict(made))
    else:
        click.echo(f"{made.node} is {style(f'image {made.name}', bold=True)} after {made.seconds:.1f} s: {made.digest or 'no digest'}")


@click.command("reboot")
@experiment_options
@json_option
@click.option("--hard", is_flag=True, help="As a power cut does; else services are stopped first.")
@click.argument("selector", shell_complete=complete_selector)
def reboot_command(file: Path | None, instance: str | None, as_json: bool, hard: bool, selector: str) -> None:
    """Reboot nodes. They keep their disks, and get their links, files and services again as the file said when they grew.

    Cells and commands that run there end with an error. Faults that concern the nodes end.

    \b
    wardian reboot server
    wardian reboot 'client[0:4]' --hard
    """
    target = environment(file, instance)
    _renew(target, as_json, lambda **told: target.reboot(selector, hard=hard, **told))


@click.command("rebuild")
@experiment_options
@json_option
@click.option("--image", metavar="IMAGE", help="Make them from this one, in place of their own, until they are made anew again.")
@click.argument("selector", shell_complete=complete_selector)
def rebuild_command(file: Path | None, instance: str | None, as_json: bool, image: str | None, selector: str) -> None:
    """Make nodes anew from their image. What was on their disks is lost; addresses, links, files and services are as before.

    On OpenStack a server keeps its host, its lease and its addresses. Nothing is asked: see `wardian snapshot` for what shall be kept.

    \b
    wardian rebuild client
    wardian rebuild server --image built:1
    """
    target = environment(file, instance)
    _renew(target, as_json, lambda **told: target.rebuild(selector, image=image, **told))


def _renew(target: Environment, as_json: bool, work: Callable[..., Coroutine[Any, Any, Plan]]) -> None:
    """Do it, and say what: before, while and after."""

    def announce(plan: Plan) -> None:
        if not as_json:
            for operation in plan.operations:
                click.echo(operation)

    begun = time.monotonic()
    try:
        with watch(quiet=as_json) as listen:
            plan = wait(work(announce=announce, listen=listen))
    finally:
        target.close()
    if as_json:
        print_json(plan.to_json())
    else:
        click.echo(style("done", fg="green", bold=True) + f" in {time.monotonic() - begun:.1f} s")
