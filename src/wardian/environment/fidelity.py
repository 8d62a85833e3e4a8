"""The fidelity watch: what of this host saturates while an experiment runs, and so puts its numbers in doubt.

An emulated network keeps its promises only as long as the host has time for them. Sampled once a second: the processors (proc(5),
/proc/stat), who waits for them and for memory (/proc/pressure), the relays, and packets that the host itself dropped before any queue
of the experiment (/proc/net/softnet_stat).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..journal import Journal
from ..journal.records import DOUBT
from ..providers.base import Provider

INTERVAL = 1.0
"""Seconds from one sample to the next."""

BUSY, WAITING, STALLED = 0.95, 0.2, 0.1
"""Shares of an interval: processors in use, while somebody waited for one that long; everybody waited for memory that long."""

RELAY = 0.9
"""The share of one processor at which a relay, which has but one thread, is as good as late."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why numbers of a time are in doubt. began, ended: seconds since the epoch."""

    why: str
    began: float
    ended: float

    def __str__(self) -> str:
        first, last = (time.strftime("%H:%M:%S", time.localtime(moment)) for moment in (self.began, self.ended))
        return f"{self.why}, from {first} to {last}"


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters of the host at one moment. Each but `time` only grows.

    processors: seconds of all together; idle: of those, seconds not used. waiting, stalled: seconds that somebody waited for a processor,
    and that everybody waited for memory; None where the kernel does not tell. relays: {process: seconds of a processor}.
    dropped: packets.
    """

    time: float
    processors: float
    idle: float
    waiting: float | None
    stalled: float | None
    relays: Mapping[int, float]
    dropped: int


@dataclass
class Watch:
    """Gathers doubts from samples. doubts: those that are over; `finish` ends those that are not."""

    doubts: list[Doubt] = field(default_factory=list)
    _before: Sample | None = None
    _open: dict[str, Doubt] = field(default_factory=dict)

    def add(self, sample: Sample) -> list[Doubt]:
        """Take in the next sample. Gives the doubts that it ends."""
        before, self._before = self._before, sample
        if before is None or sample.time <= before.time:
            return []
        found = causes(before, sample)
        for cause, why in found.items():
            began = self._open[cause].began if cause in self._open else before.time
            self._open[cause] = Doubt(why, began, sample.time)
        return self._close([cause for cause in self._open if cause not in found])

    def finish(self) -> list[Doubt]:
        """There are no more samples. Gives the doubts that had not ended."""
        return self._close(list(self._open))

    def _close(self, causes_: list[str]) -> list[Doubt]:
        ended = [self._open.pop(cause) for cause in causes_]
        self.doubts += ended
        return ended


def causes(before: Sample, after: Sample) -> dict[str, str]:
    """What saturated between two samples: {cause: in words}."""
    elapsed, found = after.time - before.time, {}
    total = after.processors - before.processors
    busy = 1 - (after.idle - before.idle) / total if total > 0 else 0.0
    waited = None if after.waiting is None or before.waiting is None else (after.waiting - before.waiting) / elapsed
    if busy >= BUSY and (waited is None or waited >= WAITING):
        found["processors"] = f"this host's processors were busy to {busy:.0%}"
    if after.stalled is not None and before.stalled is not None and (after.stalled - before.stalled) / elapsed >= STALLED:
        found["memory"] = "this host's memory was short"
    for process, used in after.relays.items():
        share = (used - before.relays.get(process, used)) / elapsed
        if share >= RELAY:
            found[f"relay {process}"] = f"the relay of the links used {share:.0%} of a processor"
    if after.dropped > before.dropped:
        found["dropped"] = f"this host dropped {after.dropped - before.dropped} packets outside of the experiment's queues"
    return found


def sample(relays: Mapping[int, None] | list[int], root: Path = Path("/proc")) -> Sample:
    """Read the host's counters. relays: processes to be watched."""
    ticks = os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already
    times = [int(word) for word in (root / "stat").read_text().partition("\n")[0].split()[1:9]]
    used = {process: seconds for process in relays if (seconds := _used(root, process, ticks)) is not None}
    dropped = sum(int(line.split()[1], 16) for line in (root / "net" / "softnet_stat").read_text().splitlines())
    return Sample(
        time=time.time(),
        processors=sum(times) / ticks,
        idle=(times[3] + times[4]) / ticks,
        waiting=_pressure(root / "pressure" / "cpu", "some"),
        stalled=_pressure(root / "pressure" / "memory", "full"),
        relays=used,
        dropped=dropped,
    )


@asynccontextmanager
async def watch(
    provider: Provider, environment: str, journal: Journal, *, kind: str = DOUBT, run: str | None = None, interval: float = INTERVAL
) -> AsyncIterator[Watch]:
    """Watch this host meanwhile. Each doubt goes to the journal as an event of this kind when it is over; `doubts` has all at the end."""
    found = Watch()

    def record(doubts: list[Doubt]) -> None:
        for doubt in doubts:
            detail = {"summary": str(doubt), "why": doubt.why, "from": doubt.began, "to": doubt.ended}
            journal.event(environment=environment, run=run, kind=kind, detail=detail)

    relays = await provider.keep(environment)
    watching = asyncio.create_task(_sample_on(found, relays, interval, record))
    try:
        yield found
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        record(found.add(sample(relays)))
        record(found.finish())


async def _sample_on(found: Watch, relays: list[int], interval: float, record: Callable[[list[Doubt]], None]) -> None:
    while True:
        record(found.add(sample(relays)))
        await asyncio.sleep(interval)


def _used(root: Path, process: int, ticks: int) -> float | None:
    try:
        fields = (root / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / ticks


def _pressure(path: Path, line: str) -> float | None:
    try:
        text = path.read_text()
    except OSError:
        return None
    total = next((part.rpartition("total=")[2] for part in text.splitlines() if part.startswith(line)), None)
    return int(total) / 1e6 if total else None
