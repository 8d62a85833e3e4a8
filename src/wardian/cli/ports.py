"""forward: ports of nodes on this machine."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from .common import environment, experiment_options, json_option, print_json, wait
from .nodes import complete_selector


@click.command("forward")
@experiment_options
@json_option
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="Our port; otherwise the node's own if it is free, else any.")
@click.argument("target", metavar="NODE:PORT", shell_complete=complete_selector)
def forward_command(file: Path | None, instance: str | None, as_json: bool, port: int | None, target: str) -> None:
    """Open a port of a node on this machine, on loopback, until Ctrl-C.

    \b
    wardian forward server:8080
    wardian forward 'client[0]:5000' --port 9000
    """
    from ..errors import SelectorError
    from ..nodes.ports import Forward, parse_target

    asked = parse_target(target)
    place = environment(file, instance)

    async def work() -> None:
        live = await place.live()
        names = live.select(asked.selector)
        if port is not None and len(names) != 1:
            raise SelectorError(f"{asked.selector!r} is {len(names)} nodes, which cannot share one port here", remedy="leave out --port")
        opened: list[Forward] = []
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        try:
            for name in names:
                opened.append(await Forward.open(live.channel(name), name, asked.port, port))
            if as_json:
                print_json([{"node": forward.node, "port": forward.port, "here": forward.here} for forward in opened])
            else:
                for forward in opened:
                    click.echo(f"{forward.node}:{forward.port} → http://127.0.0.1:{forward.here}/")
            await ended.wait()
        finally:
            await asyncio.gather(*(forward.close() for forward in opened))

    try:
        wait(work())
    finally:
        place.close()
