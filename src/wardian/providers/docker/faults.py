"""Faults inflicted on containers. What concerns networks and links is the wiring's, and there as on `local`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from ...errors import NodeDownError
from ..base import Fault
from ..concurrency import all_of
from . import container
from .engine import Engine, EngineError
from .observation import Container, Snapshot, snapshot

GONE, ALREADY = 404, 409

FREEZINGS = 5
"""How often a node is to be paused before that is an error."""

ATTEMPTS, PAUSE = 20, 0.1
"""How often the Engine is asked anew what has become of a container, and seconds between."""


async def inflict(engine: Engine, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
    """Have these nodes suffer just these faults of that kind, "pause" or "slow"."""
    seen = await snapshot(engine, environment)
    running = [item for item in seen.containers if item.node in targets and item.runs]
    suffered = {item.node: [fault for fault in faults if item.node in fault.targets] for item in running}
    if kind == "pause":
        await all_of(_pause(engine, item, paused=bool(suffered[item.node])) for item in running)
    else:
        await all_of(_slow(engine, item, seen, suffered[item.node]) for item in running)


async def kill(engine: Engine, environment: str, nodes: Sequence[str]) -> None:
    """End all that runs on these nodes, on each at once."""
    seen = await snapshot(engine, environment)
    for node in nodes:
        item = seen.container(node)
        if item is None or not item.runs:
            raise NodeDownError(node, "the node is not running", remedy="`wardian up` makes it anew.")
    await all_of(_kill(engine, item) for item in seen.containers if item.node in nodes)


async def _pause(engine: Engine, item: Container, *, paused: bool) -> None:
    if paused == (item.state == "paused"):
        return
    for left in reversed(range(FREEZINGS)):
        try:
            await engine.post(f"/containers/{item.id}/{'pause' if paused else 'unpause'}")
        except EngineError as error:
            # it ended, or somebody else was faster
            if error.status in (GONE, ALREADY) or await _comes_to(engine, item.id, paused=paused):
                return
            # runc gives up where processes of a busy node do not stand still at once
            if not left or "unable to freeze" not in error.message:
                raise
        else:
            return


async def _comes_to(engine: Engine, identity: str, *, paused: bool) -> bool:
    """Whether a container that cannot be paused, or let go on, is so already: what the Engine says of it can be late by an event."""
    for _ in range(ATTEMPTS):
        await asyncio.sleep(PAUSE)
        if (await engine.get(f"/containers/{identity}/json"))["State"]["Paused"] == paused:
            return True
    return False


async def _slow(engine: Engine, item: Container, seen: Snapshot, faults: Sequence[Fault]) -> None:
    spec = seen.specs()[item.node]
    cpus = spec["cpus"]
    if faults:
        cpus = min(fault.values["cpu"] for fault in faults) * (cpus or os.cpu_count() or 1)
    await container.limit(engine, item.id, {**spec, "cpus": cpus})


async def _kill(engine: Engine, item: Container) -> None:
    ended = asyncio.ensure_future(engine.post(f"/containers/{item.id}/wait"))
    try:
        await engine.post(f"/containers/{item.id}/kill")
    except EngineError as error:
        if error.status not in (GONE, ALREADY):
            ended.cancel()
            raise
    await ended
