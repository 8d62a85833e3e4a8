"""Packets of a node or a link, as a pcap file here: by tcpdump or dumpcap on the node, else by our own reader (`sniffer.py`)."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import CommandError, MissingToolError, NodeDownError, SelectorError
from ..nodes.link import PYTHONS
from ..providers.base import Channel, Process
from . import links
from .live import LiveEnvironment

SNIFFER = Path(__file__).with_name("sniffer.py")

# what each is called with ends at SIGINT, and writes each packet as it comes; those of the SSH connection that brings packets here would
# bring about further ones without end, and are left out
SCRIPT = """
interface=$1 filter=$2 program=$3 source=$4; shift 4
others() {
  [ $# = 4 ] || return
  printf '%s' "${filter:+($filter) and }not (tcp and host ${1%%\\%*} and port $2 and host ${3%%\\%*} and port $4)"
}
all=$(others ${SSH_CONNECTION:-}); all=${all:-$filter}
if command -v tcpdump >/dev/null 2>&1; then exec tcpdump -n -s 0 -U --immediate-mode -w - -i "$interface" -- "$all"; fi
if command -v dumpcap >/dev/null 2>&1; then exec dumpcap -q -P -s 0 -w - -i "$interface" -f "$all"; fi
if [ -n "$filter" ] && [ -z "$program" ]; then exit 96; fi
for python in "$@"; do command -v "$python" >/dev/null 2>&1 && exec "$python" -c "$source" "$interface" "$program"; done
exit 97
"""
NO_FILTER, NO_PROGRAM = 96, 97

GRACE = 5.0
"""Longest that the program on the node may take to end once told to, seconds."""

LARGEST = 1 << 20
"""A record longer than this, in bytes, is none: what the program wrote is no pcap file."""


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture gave. where: node and interface. dropped: packets that the kernel saw and the program missed, if it says so."""

    where: str
    packets: int
    bytes: int
    dropped: int | None


@dataclass(frozen=True, slots=True)
class Vantage:
    """Where packets are seen: a channel, the node it is to (or what it is to), and the interface there."""

    channel: Channel
    node: str
    interface: str


def vantage(live: LiveEnvironment, name: str, interface: str | None = None) -> Vantage:
    """Where the packets of something are seen.

    name: one node; NODE/NETWORK for its interface there; or a link. interface: of a node; all of them unless given.
    Raises SelectorError naming what exists, and ProviderError where links cannot be looked into.
    """
    if "/" in name or name in {item.name for item in live.observed.of("link")}:
        items = links.pick(live, name)
        if len(items) != 1:
            raise SelectorError(f"{name} is {len(items)} links, and a capture is of one", remedy=f"such as {items[0].name}")
        spec = items[0].spec
        if items[0].kind == "link":
            channel, inside = live.provider.vantage(live.record.id, items[0].name)
            return Vantage(channel, name, inside)
        name = spec["node"]
        interfaces = live.observed.resources["node", name].spec["interfaces"]
        interface = next(item["name"] for item in interfaces if item["network"] == spec["network"])
    nodes = live.select(name)
    if len(nodes) != 1:
        raise SelectorError(f"{name!r} is {len(nodes)} nodes, and a capture is of one", remedy=f"such as {nodes[0]}")
    return Vantage(live.channel(nodes[0]), nodes[0], interface or "any")


async def capture(
    place: Vantage,
    write: Callable[[bytes], object],
    *,
    wanted: str = "",
    seconds: float | None = None,
    most: int | None = None,
    stop: asyncio.Event | None = None,
    listen: Callable[[int, int], None] | None = None,
) -> Captured:
    """Write a pcap file of what is seen there, whole records only, so that it is a whole file whenever this ends.

    wanted: a filter as tcpdump has them. seconds (from when packets are seen), most packets: when to end. stop: set to end.
    listen: told packets and bytes so far.
    Raises CommandError with the program's own words, MissingToolError, NodeDownError.
    """
    source = SNIFFER.read_text()
    program = await _compiled(wanted, place.interface) if wanted else ""
    argv = ["/bin/sh", "-c", SCRIPT, "sh", place.interface, wanted, program, source, *PYTHONS]
    process = await place.channel.start(argv, stdin=asyncio.subprocess.DEVNULL)
    records, said, begun = Records(), b"", asyncio.Event()

    async def errors() -> None:
        nonlocal said
        while process.stderr is not None and (data := await process.stderr.read(4096)):
            said = (said + data)[-8192:]

    async def packets() -> None:
        while process.stdout is not None and (data := await process.stdout.read(1 << 18)):
            whole = records.feed(data, most)
            if records.begun:
                begun.set()
            if whole:
                write(whole)
            if listen is not None:
                listen(records.packets, records.bytes)
            if most is not None and records.packets >= most:
                return

    listening, reading = asyncio.create_task(errors()), asyncio.create_task(packets())
    stopping, beginning = asyncio.create_task((stop or asyncio.Event()).wait()), asyncio.create_task(begun.wait())
    try:
        await asyncio.wait([reading, stopping, beginning], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([reading, stopping], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        ended = reading.done() and (most is None or records.packets < most)
        if not ended:
            await process.signal(signal.SIGINT)
        # what is on the way, up to the end of the file
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(reading, listening), GRACE)
        if ended:
            await _explain(process, place, wanted, said.decode(errors="replace"))
    finally:
        tasks = (stopping, beginning, reading, listening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await process.close()
    dropped = re.search(rb"(\d+) packets dropped by kernel", said) or re.search(rb"dropped on interface.*?: \d+/(\d+)", said)
    return Captured(f"{place.node} {place.interface}", records.packets, records.bytes, int(dropped[1]) if dropped else None)


class Records:
    """Takes a pcap file as it comes, and gives it on in whole records. packets, bytes: what was given on so far."""

    def __init__(self) -> None:
        self.packets = self.bytes = 0
        self._rest = b""
        self._order: str | None = None

    @property
    def begun(self) -> bool:
        """Whether the file's header has come, and so packets are seen."""
        return self._order is not None

    def feed(self, data: bytes, most: int | None = None) -> bytes:
        """The whole records that this ends, at most so many in all. Raises ValueError for what is no pcap file."""
        self._rest += data
        end = 0
        if self._order is None:
            if len(self._rest) < 24:
                return b""
            self._order = {0xD4: "<", 0x4D: "<", 0xA1: ">"}.get(self._rest[0])
            if self._order is None:
                raise ValueError("no pcap file")
            end = 24
        while len(self._rest) >= end + 16 and (most is None or self.packets < most):
            (size,) = struct.unpack_from(f"{self._order}I", self._rest, end + 8)
            if size > LARGEST:
                raise ValueError(f"a packet of {size} bytes")
            if len(self._rest) < end + 16 + size:
                break
            end += 16 + size
            self.packets += 1
        whole, self._rest = self._rest[:end], self._rest[end:]
        self.bytes += len(whole)
        return whole


async def _compiled(wanted: str, interface: str) -> str:
    """A filter as our own reader takes it, by a tcpdump here; empty where there is none, or for all interfaces at once."""
    if shutil.which("tcpdump") is None or interface == "any":
        return ""
    argv = ["tcpdump", "-y", "EN10MB", "-ddd", "--", wanted]
    made = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    code, _ = await made.communicate()
    # what is wrong with it is said by the program on the node
    return code.decode().strip().replace("\n", ",") if made.returncode == 0 else ""


async def _explain(process: Process, place: Vantage, wanted: str, said: str) -> None:
    """Raise what ended the program before its time."""
    code = await process.wait()
    if code == NO_PROGRAM:
        message = "there is neither tcpdump, dumpcap nor Python there to see packets with"
        raise MissingToolError(message, resource=f"node {place.node}", remedy="Have its `setup:` install tcpdump.")
    if code == NO_FILTER:
        remedy = "Install tcpdump there; or here, and name one interface: NODE/NETWORK."
        raise MissingToolError(f"the filter {wanted!r} takes tcpdump", resource=f"node {place.node}", remedy=remedy)
    if code == 128 + signal.SIGKILL:
        raise NodeDownError(place.node, "the node went away while its packets were captured")
    lines = [line for line in said.splitlines() if line.strip() and "listening on" not in line]
    what = f"the capture of {wanted!r} ended" if wanted else "the capture ended"
    raise CommandError(place.node, f"{what}: {lines[-1] if lines else f'exit code {code}'}")
