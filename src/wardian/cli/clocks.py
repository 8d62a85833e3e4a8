"""clocks: how far the nodes' clocks are from this host's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from .common import environment, experiment_options, json_option, print_json, table, wait


@click.command("clocks")
@experiment_options
@json_option
def clocks_command(file: Path | None, instance: str | None, as_json: bool) -> None:
    """Measure how far the nodes' clocks are ahead of this host's, through their agents. The journal has it, too.

    \b
    wardian clocks
    wardian clocks --json
    """
    target = environment(file, instance)
    try:
        found = wait(target.clocks())
    finally:
        target.close()
    if as_json:
        print_json([asdict(item) for item in found])
    else:
        table([[item.node, item.text(), item.reason] for item in found], ["NODE", "CLOCK", ""])
