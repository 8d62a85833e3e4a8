"""lease: how long an environment is held."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import environment, experiment_options, json_option, print_json, wait

if TYPE_CHECKING:
    from ..environment.environment import Environment


@click.group("lease")
def lease_command() -> None:
    """Hold an environment for longer or less than its file says. `wardian status` shows when its lease ends; `wardian down` ends it now.

    \b
    wardian lease extend 30min
    wardian lease shrink 1h
    """


@lease_command.command("extend")
@experiment_options
@json_option
@click.argument("duration")
def extend_command(file: Path | None, instance: str | None, as_json: bool, duration: str) -> None:
    """Add DURATION, such as 30min, to what is left of the lease. The next `wardian up` brings it back to the file.

    \b
    wardian lease extend 2h -e second
    """
    target = environment(file, instance)
    _change(target, target.extend_lease(duration), as_json)


@lease_command.command("shrink")
@experiment_options
@json_option
@click.argument("duration")
def shrink_command(file: Path | None, instance: str | None, as_json: bool, duration: str) -> None:
    """Take DURATION, such as 30min, off what is left of the lease. The next `wardian up` brings it back to the file.

    \b
    wardian lease shrink 30min
    """
    target = environment(file, instance)
    _change(target, target.shrink_lease(duration), as_json)


def _change(target: Environment, work: Coroutine[Any, Any, float], as_json: bool) -> None:
    try:
        end = wait(work)
    finally:
        target.close()
    if as_json:
        print_json({"lease_end": end})
    else:
        click.echo(f"held until {time.strftime('%F %T', time.localtime(end))}")
