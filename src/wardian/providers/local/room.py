"""For how many nodes this host has room, and what ends first."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...descriptors import ENOUGH, PER_NODE
from ...experiment.resources import Caveat, Resource
from ..base import Finding

MEMORY = 28 << 20
"""Bytes that a node takes with an agent, a shell and a Python kernel, as measured with 200 of them."""

THREADS = 16
"""Of such a node."""

PLENTY = 4096
"""Pairs of neighbours that suffice for what fits on one host otherwise."""

_NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
_SYSCTL = "sysctl -w net.ipv4.neigh.default.gc_thresh2=32768 net.ipv4.neigh.default.gc_thresh3=65536"


def findings() -> Iterator[Finding]:
    """How many nodes there can be at once, and how many of them can talk at once."""
    room = _room()
    first = min(room, key=lambda what: room[what])
    remedy = {
        "memory": "Nodes without a Python kernel take a tenth of it: write `%%on NODE --lang bash`, or use a host with more.",
        "open files": f"Raise the hard limit of open files before Jupyter starts: ulimit -Hn {ENOUGH}.",
        "process numbers": "sysctl -w kernel.pid_max=4194304",
    }[first]
    few = room[first] < 50
    said = f"about {room[first]} with a Python kernel each, limited by {first}"
    yield Finding("nodes at once", "limited" if few else "ok", said, remedy if few else None)
    pairs = _number(_NEIGHBOURS)
    if pairs is not None:
        said = f"the kernel remembers {pairs} pairs of them, of all environments together; packets to others are lost without a word"
        few = pairs < PLENTY
        yield Finding("nodes that talk at once (ARP)", "limited" if few else "ok", said, f"Raise it: {_SYSCTL}" if few else None)


def caveats(desired: Sequence[Resource]) -> Iterator[Caveat]:
    """Where one node that talks to all others would be too much for the kernel's memory of neighbours."""
    pairs = _number(_NEIGHBOURS)
    wanted = 2 * sum(len(resource.spec["interfaces"]) for resource in desired if resource.kind == "node")
    if pairs is not None and wanted > pairs:
        said = f"the kernel remembers {pairs} pairs of neighbours, and {wanted} are needed where one node talks to all; {_SYSCTL}"
        yield Caveat("environment", "nodes", said, "packets between nodes may be lost")


def _room() -> dict[str, int]:
    """{what: how many nodes it is good for}."""
    room = {"memory": _available() // MEMORY}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        room["open files"] = min(hard, ENOUGH) // PER_NODE
    if pids := _number(Path("/proc/sys/kernel/pid_max")):
        room["process numbers"] = pids // THREADS
    return room


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
