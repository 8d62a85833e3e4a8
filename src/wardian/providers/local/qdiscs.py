"""From a shape to the kernel's queueing disciplines: a token bucket with its queue, then netem; and the sizes that they take."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping
from math import sqrt
from statistics import NormalDist
from typing import Any

from . import netlink, traces

Shape = Mapping[str, Any]
Qdisc = tuple[str, bytes]
"""Kind and options."""

HEADER = 14
"""Bytes of an Ethernet header, which count against a rate."""
DEFAULT_QUEUE = 0.1
"""Seconds that the queue in front of a rate holds where none is written, at least ten frames."""
BURST = 0.001
"""Seconds of a rate that may pass at once after a pause; a timer that fires this late costs no throughput."""
SMALLEST_BURST, LARGEST_BURST = 2, 43
"""The same in full frames. A kernel's large segments are cut to frames where they exceed the burst."""
PEAK = 1e12
"""Bits a second: a peak rate that holds nothing up, but whose own burst of one frame has the bucket cut all large segments to frames."""
UNLIMITED = 10e9
NETEM_LARGEST = 2**31 - 1
QUANTILES = 1024
SCALE = 8192
"""What netem takes for one jitter in its tables."""

WAITING = {"pfifo": 0x20000, "bfifo": 0x30000, "codel": 0x40000, "fq_codel": 0x50000, "pie": 0x60000}
"""{kind of a bucket's queue: its handle}. One of another kind needs another handle to take its place."""
MANAGED = {"codel": 1000, "fq_codel": 10240, "pie": 1000}
"""Packets that these hold at most where nothing is written; the kernel's own choice."""
BUCKET = 0x10000
"""The handle of an interface's outermost discipline; the class of a bucket is the one after it."""

IMPAIRMENTS = ("delay", "jitter", "loss", "duplicate", "reorder")
"""The parts of a shape that are netem's, or the relay's."""


def limits(shape: Shape) -> bool:
    """Whether it has a rate, now or at some time of its trace."""
    return bool(shape.get("rate")) or "rate" in traces.columns(shape)


def impairs(shape: Shape) -> bool:
    """Whether it holds, loses or doubles packets, now or at some time of its trace."""
    return any(shape.get(part) for part in IMPAIRMENTS) or not traces.columns(shape).isdisjoint(IMPAIRMENTS)


def bucket(shape: Shape, mtu: int) -> Qdisc:
    """The token bucket for its rate."""
    peak: dict[str, Any] = {"mtu": mtu + HEADER, "peak": PEAK} if _counts_packets(shape) else {}
    return "tbf", netlink.tbf(shape["rate"], burst=burst_bytes(shape, mtu), limit=queue_bytes(shape, mtu), **peak)


def waiting(shape: Shape, mtu: int) -> Qdisc:
    """What waits in the token bucket, and who goes first."""
    queue = shape.get("queue") or {}
    discipline = queue.get("discipline", "fifo")
    if discipline != "fifo":
        size = queue_bytes(shape, mtu) // (mtu + HEADER) if "bytes" in queue else queue.get("packets", MANAGED[discipline])
        return discipline, netlink.managed(size)
    if "packets" in queue:
        return "pfifo", netlink.fifo(int(queue["packets"]))
    return "bfifo", netlink.fifo(queue_bytes(shape, mtu))


def impairment(shape: Shape, mtu: int) -> Qdisc:
    """The netem for everything but its rate."""
    jitter = shape.get("jitter", 0.0)
    options = netlink.netem(
        limit=netem_limit(shape, mtu),
        delay=shape.get("delay", 0.0),
        jitter=jitter,
        # always told which, since it keeps an earlier one
        distribution=quantiles(shape.get("distribution", "uniform")) if jitter else (),
        loss=shape.get("loss", 0.0),
        burst=shape.get("loss_burst"),
        duplicate=shape.get("duplicate", 0.0),
        reorder=shape.get("reorder", 0.0),
    )
    return "netem", options


def queue_bytes(shape: Shape, mtu: int) -> int:
    """How many bytes wait in front of a direction's rate before frames are dropped, if all are full."""
    frame, queue = mtu + HEADER, shape.get("queue") or {}
    if "packets" in queue:
        return int(queue["packets"]) * frame
    if "bytes" in queue:
        return max(int(queue["bytes"]), frame)
    return max(int(shape["rate"] / 8 * DEFAULT_QUEUE), 10 * frame)


def burst_bytes(shape: Shape, mtu: int) -> int:
    """How many bytes pass at once after a pause."""
    frame = mtu + HEADER
    return min(max(int(shape["rate"] / 8 * BURST), SMALLEST_BURST * frame), max(LARGEST_BURST * 1514, SMALLEST_BURST * frame))


def netem_limit(shape: Shape, mtu: int) -> int:
    """Packets that netem must hold so that it never drops one: the rate's packets under way, as if all were small, and their burst."""
    rate = traces.largest(shape, "rate")
    octets = (rate or UNLIMITED) / 8 * longest(shape)
    smallest = 64 if rate else mtu
    waits = queue_bytes({**shape, "rate": rate}, mtu) // smallest if rate else 0
    copies = 2 if shape.get("duplicate") else 1
    return min(copies * (int(octets / smallest * 1.25) + waits + 1000), NETEM_LARGEST)


def longest(shape: Shape) -> float:
    """Seconds that a packet may be held, apart from its time in the queue."""
    return traces.largest(shape, "delay") + 4 * traces.largest(shape, "jitter")


@functools.cache
def quantiles(distribution: str) -> tuple[int, ...]:
    """A distribution with mean 0 at equal steps, in 8192ths of the jitter, none beyond four of it.

    uniform: as likely anywhere up to the jitter either way. normal, and pareto (of shape 3): with the jitter as standard deviation.
    """
    steps = [(number + 0.5) / QUANTILES for number in range(QUANTILES)]
    inverses: dict[str, Callable[[float], float]] = {
        "uniform": lambda u: 2 * u - 1,
        "normal": NormalDist().inv_cdf,
        "pareto": lambda u: ((1 - u) ** (-1 / 3) - 1.5) / sqrt(0.75),
    }
    return tuple(min(round(inverses[distribution](u) * SCALE), 4 * SCALE - 1) for u in steps)


def essence(kind: str, options: bytes) -> tuple[Any, ...]:
    """What of a queueing discipline's options the kernel gives back as it was set."""
    if kind == "tbf":
        parameters = _attribute(options, 1, bytes(36))
        (rate,), (peak,), (limit,) = (struct.unpack_from("=I", parameters, offset) for offset in (8, 20, 24))
        return kind, rate, bool(peak), limit
    if kind == "netem":
        latency, limit, loss, gap, duplicate, jitter = struct.unpack_from("=IIIIII", options)
        burst = _attribute(_attribute(options[24:], 5), 2, bytes(16))
        return kind, round(latency / 4), limit, loss, gap, duplicate, round(jitter / 4), _attribute(options[24:], 3, bytes(8))[:4], burst
    if kind in ("codel", "fq_codel", "pie"):
        return kind, _attribute(options, 2)
    return kind, options


def _counts_packets(shape: Shape) -> bool:
    queue = shape.get("queue") or {}
    return "packets" in queue or "discipline" in queue


def _attribute(options: bytes, wanted: int, default: bytes = b"") -> bytes:
    offset = 0
    while offset + 4 <= len(options):
        length, kind = struct.unpack_from("=HH", options, offset)
        if kind & 0x3FFF == wanted:
            return options[offset + 4 : offset + length]
        offset += max((length + 3) & ~3, 4)
    return default
