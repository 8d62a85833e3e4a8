"""lease: how long an environment is held."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .common import environment, experiment_options, json_option, print_json, wait


@click.group("lease")
def lease_command() -> None:
    """Hold an environment for longer than its file says. `wardian status` shows when its lease ends.

    \b
    wardian lease extend 30min
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
    try:
        end = wait(target.extend_lease(duration))
    finally:
        target.close()
    if as_json:
        print_json({"lease_end": end})
    else:
        click.echo(f"held until {time.strftime('%F %T', time.localtime(end))}")
