"""`wardian verify`: whether links do what the file says, measured between nodes.

`paths` finds out which way packets go and which pairs of nodes show everything; `measure` has them probe each other (`probe` is what
runs there); `report` says between what a result is accepted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from ...errors import NodeDownError, PlanError
from ...experiment import routes
from ...experiment.resources import Resource
from ...experiment.routes import Key, Stretch
from ..live import LiveEnvironment
from . import paths
from .measure import Direction, End, NoPython, Pair, Probe, ping
from .report import Check, Report

__all__ = ["Check", "Report", "verify"]

TOGETHER = 3
"""Pairs that are measured at once, if their paths have nothing in common."""

Listen = Callable[[str], None]
"""Told in words what is being measured."""


async def verify(
    live: LiveEnvironment,
    desired: Sequence[Resource],
    *,
    only: Iterable[Key] | None = None,
    all_pairs: bool = False,
    seconds: float = 5.0,
    listen: Listen | None = None,
) -> Report:
    """Measure the links of an environment between pairs of its nodes, and compare with what is desired.

    only: links and access links of interest; all of which something is written, unless given. all_pairs: between every two nodes, not
    only between as few as show everything. seconds: longest for counting the losses of one pair.
    What comes out wrong is measured once more before it counts. Raises NodeDownError, and PlanError where there is nothing to measure.
    """
    begun, clock = time.time(), time.monotonic()
    resources = live.observed.resources
    shapes, real = paths.shapes_of(desired), paths.shapes_of(resources.values())
    for name, view in live.nodes.items():
        if view.state != "ready":
            raise NodeDownError(name, "it is not running", remedy="`wardian up` brings it back")
    pairs = _pairs(live, shapes, real, only, all_pairs)
    if not pairs:
        raise PlanError(
            "there is nothing to measure: no two nodes can reach each other", remedy="put nodes on a common network, or link theirs"
        )
    checks: list[Check] = []
    for together in _rounds(live, pairs):
        checks += await _measure(live, together, shapes, seconds, listen or (lambda words: None))
    changed = tuple(key[1] for key in {**real, **shapes} if real.get(key, {}) != shapes.get(key, {}))
    return Report(live.record.id, tuple(checks), changed, begun, time.monotonic() - clock)


def _pairs(
    live: LiveEnvironment,
    shapes: Mapping[Key, Mapping[str, Any]],
    real: Mapping[Key, Mapping[str, Any]],
    only: Iterable[Key] | None,
    all_pairs: bool,
) -> list[tuple[str, str]]:
    resources = live.observed.resources
    if all_pairs:
        nodes = [name for name in live.nodes if live.nodes[name].addresses]
        every = [(first, second) for position, first in enumerate(nodes) for second in nodes[position + 1 :]]
        return [pair for pair in every if routes.path(resources, *pair) and routes.path(resources, *pair[::-1])]
    wanted = list(only) if only is not None else list({**shapes, **real})
    found = paths.cover(resources, wanted)
    if found or wanted:
        return found
    # nothing is written of any link: then nothing is what they should do
    return next(
        ([pair] for pair in paths.candidates(resources) if routes.path(resources, *pair) and routes.path(resources, *pair[::-1])), []
    )


def _rounds(live: LiveEnvironment, pairs: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """The pairs in groups that can be measured at once, since nothing is on the way of two of them."""
    rounds: list[tuple[set[Key], list[tuple[str, str]]]] = []
    for pair in pairs:
        ways = [routes.path(live.observed.resources, *nodes) or [] for nodes in (pair, pair[::-1])]
        crossed = {stretch.key for way in ways for stretch in way}
        for used, group in rounds:
            if len(group) < TOGETHER and not used & crossed:
                used |= crossed
                group.append(pair)
                break
        else:
            rounds.append((crossed, [pair]))
    return [group for _, group in rounds]


async def _measure(
    live: LiveEnvironment, group: Sequence[tuple[str, str]], shapes: Mapping[Key, Mapping[str, Any]], seconds: float, listen: Listen
) -> list[Check]:
    resources = live.observed.resources
    async with AsyncExitStack() as stack:
        measured: list[list[Check]] = []
        pairs: list[Pair] = []
        for first, second in group:
            ends = _end(live, first, second), _end(live, second, first)
            there, back = (_direction(resources, shapes, *nodes) for nodes in ((first, second), (second, first)))
            try:
                probes = [await _started(end, stack) for end in ends]
            except NoPython:
                listen(f"{first} - {second}: ping")
                measured.append(await ping(*ends, there, back))
            else:
                pairs.append(Pair(probes[0], probes[1], there, back, seconds))
        measured += await _run(pairs, listen)
    return [check for checks in measured for check in checks]


async def _run(pairs: Sequence[Pair], listen: Listen) -> list[list[Check]]:
    """All phases of pairs, at once where they do not want the machine for themselves."""
    alone = asyncio.Lock()
    shared = asyncio.Semaphore(TOGETHER)
    found: dict[int, list[Check]] = {number: [] for number in range(len(pairs))}
    names = list(dict.fromkeys(name for pair in pairs for name, _, _ in pair.phases))

    async def phase(number: int, pair: Pair, name: str) -> None:
        for called, exclusive, work in pair.phases:
            if called == name:
                async with alone if exclusive else shared:
                    listen(f"{pair.there.source} - {pair.there.target}: {name}")
                    checks = await work()
                    if any(check.ok is False for check in checks):
                        listen(f"{pair.there.source} - {pair.there.target}: {name} once more")
                        checks = await work()
                    found[number] += checks

    for name in names:
        async with asyncio.TaskGroup() as tasks:
            for number, pair in enumerate(pairs):
                tasks.create_task(phase(number, pair, name))
    return list(found.values())


async def _started(end: End, stack: AsyncExitStack) -> Probe:
    probe = await Probe.start(end)
    stack.push_async_callback(probe.close)
    return probe


def _end(live: LiveEnvironment, node: str, other: str) -> End:
    return End(node, live.channel(node), routes.address(live.observed.resources, other, node))


def _direction(resources: routes.Resources, shapes: Mapping[Key, Mapping[str, Any]], source: str, target: str) -> Direction:
    stretches: list[Stretch] = routes.path(resources, source, target) or []
    written = [stretch for stretch in stretches if shapes.get(stretch.key, {}).get(stretch.way) or "mtu" in shapes.get(stretch.key, {})]
    return Direction(source, target, tuple(written), paths.expected(stretches, shapes))
