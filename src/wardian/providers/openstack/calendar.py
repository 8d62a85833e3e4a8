"""When enough hosts are free at once: arithmetic on who holds which host, and until when. Times are minutes since the epoch.

Pure. A host is free for a lease where nobody holds it from the lease's start to its end; ends may touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Period = tuple[int, int]
"""From, until: the latter is not part of it."""


@dataclass(frozen=True, slots=True)
class Need:
    """Hosts that a lease takes: so many of these, each for itself."""

    count: int
    hosts: frozenset[str]


def windows(needs: Sequence[Need], held: Mapping[str, Sequence[Period]], duration: int, within: Period) -> list[Period]:
    """All times, first to last minute, at which a lease of `duration` may start within a period, as long as nobody else takes them.

    held: {host: when others hold it}. Hosts that are not in it are held by nobody.
    """
    begin, until = within
    blocked = {host: [(start - duration, end) for start, end in periods] for host, periods in held.items()}
    # who is free changes only where a host's holder comes too near or leaves
    edges = {start + 1 for periods in blocked.values() for start, _ in periods} | {
        end for periods in blocked.values() for _, end in periods
    }
    steps = sorted({begin} | {edge for edge in edges if begin < edge < until})
    result: list[Period] = []
    for step, following in zip(steps, [*steps[1:], until], strict=True):
        free = {host for need in needs for host in need.hosts if not any(start < step < end for start, end in blocked.get(host, ()))}
        if step >= until or not enough(needs, free):
            continue
        if result and result[-1][1] == step - 1:
            result[-1] = (result[-1][0], following - 1)
        else:
            result.append((step, following - 1))
    return result


def enough(needs: Iterable[Need], free: set[str]) -> bool:
    """Whether all needs can be met at once by hosts that are free, none of which serves two (augmenting paths)."""
    owners: dict[str, int] = {}
    slots = [need.hosts & free for need in needs for _ in range(need.count)]

    def give(slot: int, tried: set[str]) -> bool:
        for host in sorted(slots[slot] - tried):
            tried.add(host)
            if host not in owners or give(owners[host], tried):
                owners[host] = slot
                return True
        return False

    return all(give(slot, set()) for slot in range(len(slots)))
