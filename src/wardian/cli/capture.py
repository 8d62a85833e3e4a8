"""capture: packets of a node or a link, in a file here."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from .common import environment, experiment_options, json_option, print_json, style, wait
from .links import complete_link
from .nodes import complete_selector
from .progress import show_words

if TYPE_CHECKING:
    from ..environment.capture import Captured


def complete_place(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of nodes and links, for tab completion."""
    return [*complete_selector(context, parameter, incomplete), *complete_link(context, parameter, incomplete)]


@click.command("capture")
@experiment_options
@json_option
@click.option("-w", "--write", "target", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), required=True,
              help="The pcap file to write; - for standard output.")  # fmt: skip
@click.option("--for", "duration", metavar="DURATION", help="End after this long, such as 10s; else Ctrl-C does.")
@click.option("-c", "--count", type=click.IntRange(min=1), help="End after this many packets.")
@click.option("--filter", "wanted", default="", metavar="EXPRESSION", help="Only these packets, as tcpdump has it: 'tcp port 80'.")
@click.option("-i", "--interface", metavar="NAME", help="Of the node; all of them unless given.")
@click.argument("place", metavar="NODE|NODE/NETWORK|LINK", shell_complete=complete_place)
def capture_command(
    file: Path | None,
    instance: str | None,
    as_json: bool,
    target: Path,
    duration: str | None,
    count: int | None,
    wanted: str,
    interface: str | None,
    place: str,
) -> None:
    """Write the packets that a node, one of its interfaces or a link sees to a file here, while they come.

    Nothing has to be installed on the node: where there is no tcpdump or dumpcap, its Python serves. Ctrl-C ends it with a whole file.

    \b
    wardian capture server --for 10s -w server.pcap
    wardian capture 'client[0]/west' --filter 'udp port 5000' -c 100 -w udp.pcap
    wardian capture wan -w - | wireshark -k -i -
    """
    from ..environment.capture import capture, vantage
    from ..errors import PlanError
    from ..experiment.units import parse_duration

    try:
        seconds = parse_duration(duration) if duration is not None else None
    except ValueError as error:
        raise PlanError(f"--for: {duration!r} is not {error}") from None
    here = environment(file, instance)

    async def work() -> Captured:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        live = await here.live()
        seen = vantage(live, place, interface)
        with _opened(target) as sink, show_words(quiet=as_json) as say:

            def write(data: bytes) -> None:
                # whoever reads our output may leave when it has seen enough
                try:
                    sink.write(data)
                    sink.flush()
                except BrokenPipeError:
                    stop.set()

            def listen(packets: int, size: int) -> None:
                say(f"{packets} packets, {size} bytes")

            found = await capture(seen, write, wanted=wanted, seconds=seconds, most=count, stop=stop, listen=listen)
        detail = {
            **asdict(found),
            "file": str(target),
            "filter": wanted,
            "summary": f"{found.packets} packets of {found.where} in {target}",
        }
        here.journal.event(environment=live.record.id, kind="capture", node=seen.node if seen.node in live.nodes else None, detail=detail)
        return found

    try:
        found = wait(work())
    finally:
        here.close()
    if str(target) == "-":
        # a reader that has left is no failure of ours
        with suppress(OSError):
            sys.stdout.flush()
    elif as_json:
        print_json({**asdict(found), "file": str(target)})
    if not as_json:
        lost = style(f", {found.dropped} missed", fg="yellow") if found.dropped else ""
        click.echo(f"{found.packets} packets of {found.where}{lost}, {found.bytes} bytes in {target}", err=True)


@contextmanager
def _opened(target: Path) -> Iterator[BinaryIO]:
    """Standard output, or the file, which is not left behind empty."""
    if str(target) == "-":
        yield sys.stdout.buffer
        return
    with target.open("wb") as sink:
        try:
            yield sink
        finally:
            if not sink.tell():
                target.unlink()
