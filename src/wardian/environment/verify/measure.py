"""Measuring between two nodes, with a probe on each, or with `ping` where a node has no Python."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import CommandError, NodeDownError, NodeError
from ...experiment.routes import SHAPES, Stretch
from ...nodes.run import run
from ...providers.base import Channel, Process
from ...providers.local.qdiscs import DEFAULT_QUEUE
from . import report
from .paths import Expected
from .report import Check

SOURCE = Path(__file__).with_name("probe.py")
PYTHONS = ("python3", "python", "/usr/libexec/platform-python")
FIND_PYTHON = (
    'source=$1; address=$2; shift 2; for python in ${WARDIAN_PYTHON:+"$WARDIAN_PYTHON"} "$@"; do '
    'command -v "$python" >/dev/null 2>&1 && exec "$python" -c "$source" "$address"; done; exit 127'
)

HEADERS = 42
"""Bytes of the Ethernet, IP and UDP headers around a payload; they count against a rate."""
IP_HEADERS = 28
SMALL_PACKET = 64
"""Payload of the packets that are timed and counted, bytes."""
PACE = 4000
"""Packets a second at most, in one train: what an ordinary Python on a busy host sends and answers without loss of its own."""
GENTLE = 0.25
"""The share of a path's rate that trains take at most, so that they never wait for one another."""
HICCUP = 0.04
"""Seconds that a busy host may keep packets back, to let them go all at once."""
TIMED, TIMED_JITTERED = 50, 400
FLOOD, FAST_FLOOD, FAST = 1.3, 1.1, 2e8
"""How much of a rate is offered when it is measured, and how much of one beyond so many bits a second, where each packet costs the host."""
FLOOD_SECONDS, FLOOD_PACKETS = 1.5, 150
FASTEST = 3e9
"""Bits a second that a probe can offer at all; where the file has more, less is offered."""
ENOUGH = 1.05
"""How much of a rate has to have been offered for its measurement to count."""
KEPT_SHORT = 0.005
"""Seconds of waiting below which no discipline brings a queue."""
PINGS = 50
MTU_BEYOND = 1


@dataclass(frozen=True, slots=True)
class End:
    """A node of a pair: the way to it, and its address as the other one reaches it."""

    node: str
    channel: Channel
    address: str


class NoPython(Exception):
    """A node has no Python to run a probe with."""


class Probe:
    """A probe that runs on a node."""

    def __init__(self, end: End, process: Process) -> None:
        self.node, self.address = end.node, end.address
        self._process = process
        self.port = 0
        self.clock: str | None = None

    @classmethod
    async def start(cls, end: End) -> Probe:
        """Start one. Raises NoPython, or NodeError."""
        argv = ["/bin/sh", "-c", FIND_PYTHON, "sh", SOURCE.read_text(encoding="utf-8"), end.address, *PYTHONS]
        probe = cls(end, await end.channel.start(argv, stderr=asyncio.subprocess.DEVNULL))
        try:
            hello = await probe._read()
        except BaseException:
            await probe.close()
            raise
        probe.port, probe.clock = hello["port"], hello["clock"]
        return probe

    async def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Have it do something. Raises NodeError when it ended."""
        assert self._process.stdin is not None  # noqa: S101 (started with pipes)
        self._process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        with suppress(ConnectionError):
            await self._process.stdin.drain()
        return await self._read()

    async def close(self) -> None:
        """End it."""
        await self._process.close()

    async def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 (started with pipes)
        line = await self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = await self._process.wait()
        if code == 127:
            raise NoPython
        raise CommandError(self.node, f"the probe ended with exit code {code}", remedy="it needs Python 3.8 or newer on the node")


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a pair: what lies between, and what is expected of it."""

    source: str
    target: str
    stretches: tuple[Stretch, ...]
    expected: Expected

    def check(self, what: str, expected: float | None, measured: float | None, **more: Any) -> Check:
        """A check of this direction; without a verdict of its own, whether the measured value lies within the bounds."""
        low, high = more.get("low"), more.get("high")
        if "ok" not in more and measured is not None:
            more["ok"] = (low is None or measured >= low) and (high is None or measured <= high)
        if what in self.expected.traced:
            more |= {"ok": None, "note": "follows a trace"}
        return Check(self.source, self.target, tuple(map(str, self.stretches)), what, expected, measured, **more)


class Pair:
    """Two nodes with a probe each. there: from the first to the second; seconds: longest for counting losses."""

    _trains = itertools.count(1)

    def __init__(self, first: Probe, second: Probe, there: Direction, back: Direction, seconds: float) -> None:
        self.first, self.second, self.there, self.back, self.seconds = first, second, there, back, seconds

    @property
    def phases(self) -> list[tuple[str, bool, Callable[[], Awaitable[list[Check]]]]]:
        """(name, whether it wants the machine for itself, the measuring) one after the other."""
        wanted: list[tuple[str, bool, Callable[[], Awaitable[list[Check]]]]] = [
            ("delay", False, self.time),
            ("loss", False, self.count),
        ]
        if self.there.expected.rate or self.back.expected.rate:
            wanted.append(("rate", True, self.flood))
        if self.there.expected.mtu or self.back.expected.mtu:
            wanted.append(("mtu", False, self.measure_mtu))
        return wanted

    async def time(self) -> list[Check]:
        """Delay and jitter, by packets far enough apart not to meet."""
        jittered = any(way.expected.jitter for way in self._ways)
        count = TIMED_JITTERED if jittered else TIMED
        interval = max(0.004 if jittered else 0.01, 2 * self._gap)
        sent, arrived = await self._train(count, interval)
        if self.first.clock is None or self.first.clock != self.second.clock:
            return [self._round_trip(sent)]
        return [
            check for way, found in ((self.there, arrived["there"]), (self.back, sent["back"])) for check in _timed(way, found["delay"])
        ]

    async def count(self) -> list[Check]:
        """Losses, doubles and those that overtake, over as many packets as tell their share, or as time allows."""
        wanted = max(report.packets_for(way.expected.loss, way.expected.bursts) for way in self._ways)
        wanted = max(wanted, *(report.packets_for(share) for way in self._ways for share in (way.expected.duplicate, way.expected.reorder)))
        interval = max(1 / PACE, self._gap)
        count = max(min(wanted, int(self.seconds / interval)), 50)
        sent, arrived = await self._train(count, interval)
        there, back = arrived["there"], sent["back"]
        return [*_counted(self.there, there, count, arrived["overflows"]), *_counted(self.back, back, there["unique"], 0)]

    async def flood(self) -> list[Check]:
        """Rate and queue of each direction that has a rate, by sending more than fits."""
        checks = []
        for way, source, target in ((self.there, self.first, self.second), (self.back, self.second, self.first)):
            if way.expected.rate:
                checks += await self._flood(way, source, target)
        return checks

    async def measure_mtu(self) -> list[Check]:
        """The largest packet that goes there and back whole."""
        sizes = [way.expected.mtu for way in self._ways if way.expected.mtu]
        smallest = min(sizes)
        answer = await self.first.ask(
            "largest", train=self._number(), to=[self.second.address, self.second.port], sizes=[smallest, smallest + MTU_BEYOND]
        )
        passed = max(answer["passed"], default=0)
        note = "" if passed == smallest else "larger ones pass, too" if passed else "none of that size passes"
        return [self.there.check("mtu", smallest, passed or None, low=smallest, high=smallest, ok=passed == smallest, note=note)]

    @property
    def _ways(self) -> tuple[Direction, Direction]:
        return self.there, self.back

    @property
    def _gap(self) -> float:
        """Seconds between small packets that leave most of the rates unused, and a queue unfilled if all of a moment come together."""
        frame = SMALL_PACKET + HEADERS
        gaps = [0.0]
        for way in self._ways:
            if way.expected.slowest:
                queue = way.expected.queue or {}
                room = queue.get("packets", queue.get("bytes", math.inf) / frame)
                gaps += [frame * 8 / (GENTLE * way.expected.slowest), HICCUP / room]
        return max(gaps)

    @property
    def _longest(self) -> float:
        """Seconds until an answer has come back if it comes at all."""
        return sum(way.expected.delay + 6 * way.expected.jitter for way in self._ways)

    def _number(self) -> int:
        """A number for a train; the probes have those up to the next one to themselves."""
        return next(self._trains) * 100

    async def _train(self, count: int, interval: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the sender and the receiver say of one train with echoes."""
        number, to = self._number(), [self.second.address, self.second.port]
        linger = 2 * self._longest + 0.5
        sent = await self.first.ask(
            "send", train=number, to=to, count=count, interval=interval, size=SMALL_PACKET, echo=True, linger=linger
        )
        return sent, await self.second.ask("report", train=number)

    async def _flood(self, way: Direction, source: Probe, target: Probe) -> list[Check]:
        rate = way.expected.rate or 0.0
        size = (min(way.expected.mtu or 1500, 1500) if rate >= 1e6 else 300) - IP_HEADERS
        frame, fills, flood = size + HEADERS, _queue_seconds(way.expected), FLOOD if rate < FAST else FAST_FLOOD
        seconds = max(FLOOD_SECONDS, FLOOD_PACKETS * frame * 8 / rate, 3 * fills / (flood - 1))
        before = max(1 - way.expected.lost_before, 0.01)
        interval = frame * 8 / min(flood * rate / before, FASTEST)
        count, number = math.ceil(seconds / interval), self._number()
        linger = way.expected.delay + 4 * way.expected.jitter + fills + 0.3
        lasts = max(_backlog_seconds(way.expected), 2 * interval)
        sent = await source.ask("send", train=number, to=[target.address, target.port], count=count, interval=interval, size=size,
                                echo=False, linger=linger, lasts=lasts)  # fmt: skip
        answer = await target.ask("report", train=number)
        found = answer["there"]
        offered = before * sent["sent"] * frame * 8 / sent["seconds"]
        after = max(1 - way.expected.loss, 1e-9) / before
        measured = None if found["rate"] is None else found["rate"] * frame / size / after
        low, high = report.around(rate, report.RATE_RELATIVE)
        verdict: dict[str, Any] = {}
        if measured is not None and measured < low:
            short = ""
            if answer["overflows"]:
                short = "the receiving node could take no more"
            elif offered < ENOUGH * rate:
                short = f"only {report.WRITTEN['rate'](offered)} could be offered"
            elif measured >= low * (1 - sent["missed"] / sent["seconds"]):
                short = f"the queue ran empty for {sent['missed'] / sent['seconds']:.0%} of the time, as the sending node was held up"
            verdict = {"ok": None, "note": short} if short else {}
        checks = [way.check("rate", rate, measured, low=low, high=high, count=found["count"], **verdict)]
        full = fills * frame / (1500 + 14) if "packets" in (way.expected.queue or {}) else fills
        if full and source.clock and source.clock == target.clock and found["late_delay"] is not None and checks[0].ok is not None:
            low, high = report.around(full, report.QUEUE_RELATIVE, report.QUEUE_ABSOLUTE)
            waited = max(found["late_delay"] - way.expected.delay, 0.0)
            checks.append(way.check("queue", full, waited, low=low, high=high, count=found["count"]))
        return checks

    def _round_trip(self, sent: Mapping[str, Any]) -> Check:
        trip = sent["round_trip"]
        expected = self.there.expected.delay + self.back.expected.delay
        deviation = math.hypot(*(way.expected.deviation for way in self._ways))
        low, high = report.delay_bounds(expected, deviation, trip["count"])
        return self.there.check("round trip", expected, trip["median"], low=low, high=high, count=trip["count"], note="two clocks")


def _timed(way: Direction, delay: Mapping[str, Any]) -> Iterator[Check]:
    wanted = way.expected
    low, high = report.delay_bounds(wanted.delay, wanted.deviation, delay["count"])
    if not delay["count"]:
        yield way.check("delay", wanted.delay, None, note="nothing came")
        return
    # medians and quartiles, since a host that is busy now and then spoils means
    median, _, spread = SHAPES[wanted.distribution]
    middle = delay["median"] - median * wanted.jitter
    yield way.check("delay", wanted.delay, middle, low=low, high=high, count=delay["count"])
    if wanted.jitter and not wanted.reorder:
        low, high = report.around(wanted.jitter, report.JITTER_RELATIVE, report.JITTER_ABSOLUTE)
        measured = (delay["upper"] - delay["lower"]) / spread
        yield way.check("jitter", wanted.jitter, measured, low=low, high=high, count=delay["count"])


def _counted(way: Direction, found: Mapping[str, Any], sent: int, overflows: int) -> Iterator[Check]:
    wanted = way.expected
    if not sent:
        yield way.check("loss", wanted.loss, None, note="nothing came, so nothing could be sent back", ok=wanted.loss == 1 or None)
        return
    lost = max(sent - found["unique"] - overflows, 0) / sent
    low, high = report.interval(sent, wanted.loss, wanted.bursts)
    yield way.check("loss", wanted.loss, lost, low=low, high=high, count=sent)
    if wanted.duplicate:
        low, high = report.interval(found["unique"], wanted.duplicate)
        doubled = (found["count"] - found["unique"]) / max(found["unique"], 1)
        yield way.check("duplicate", wanted.duplicate, doubled, low=low, high=high, count=found["unique"])
    if wanted.reorder and not wanted.jitter:
        # those that go at once overtake all that wait, but for the last ones, which have nobody behind
        low, high = report.interval(found["unique"], wanted.reorder)
        overtook = found["overtook"] / max(found["unique"], 1)
        yield way.check("reorder", wanted.reorder, overtook, low=low * 0.95, high=high, count=found["unique"])


def _queue_seconds(wanted: Expected) -> float:
    """How long the full queue of a path's slowest stretch takes to empty, in full frames; 0 where it is none of plain length."""
    queue = wanted.queue or {}
    if not wanted.rate or "discipline" in queue:
        return 0.0
    if "packets" in queue:
        return float(queue["packets"]) * 1514 * 8 / wanted.rate
    return float(queue["bytes"]) * 8 / wanted.rate if "bytes" in queue else 0.0


def _backlog_seconds(wanted: Expected) -> float:
    """How long what waits for a path's slowest stretch keeps that busy while more than its rate is sent, at least."""
    return _queue_seconds(wanted) or (KEPT_SHORT if "discipline" in (wanted.queue or {}) else DEFAULT_QUEUE)


async def ping(first: End, second: End, there: Direction, back: Direction) -> list[Check]:
    """What `ping` on one of two nodes tells: the round trip, and losses both ways together."""
    for end, other, way, reverse in ((first, second, there, back), (second, first, back, there)):
        argv = ["ping", "-q", "-c", str(PINGS), "-i", "0.2", "-W", "5", other.address]
        try:
            said = (await run(end.channel, end.node, argv, timeout=PINGS + 30)).stdout
        except NodeDownError:
            raise
        except NodeError:
            continue
        if counts := re.search(r"(\d+) packets transmitted, (\d+) (?:packets )?received", said):
            return list(_pinged(way, reverse, said, int(counts[1]), int(counts[2])))
    note = "neither Python nor ping on either node"
    return [there.check("delay", there.expected.delay, None, note=note), there.check("loss", there.expected.loss, None, note=note)]


def _pinged(way: Direction, reverse: Direction, said: str, sent: int, received: int) -> Iterator[Check]:
    both = replace(way, stretches=way.stretches + reverse.stretches)
    expected, deviation = way.expected.delay + reverse.expected.delay, math.hypot(way.expected.deviation, reverse.expected.deviation)
    low, high = report.delay_bounds(expected, deviation, received)
    times: Sequence[str] = re.findall(r"= [\d.]+/([\d.]+)/", said)
    measured = float(times[0]) / 1e3 if times else None
    yield both.check("round trip", expected, measured, low=low, high=high, count=received, note="by ping")
    loss = 1 - (1 - way.expected.loss) * (1 - reverse.expected.loss)
    low, high = report.interval(sent, loss, max(way.expected.bursts, reverse.expected.bursts))
    yield both.check("loss both ways", loss, 1 - received / sent, low=low, high=high, count=sent, note="by ping")
