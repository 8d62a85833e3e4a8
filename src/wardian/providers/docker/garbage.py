"""Finding what dead processes, and reboots, left behind."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import BusyError, ProviderError
from ..base import Progress
from .engine import Engine
from .names import ENVIRONMENT, OWNER, PREFIX, carries, filters, owner
from .observation import Snapshot, snapshot
from .wiring import HostWiring

if TYPE_CHECKING:
    from .provider import DockerProvider


async def collect(provider: DockerProvider, progress: Progress) -> list[str]:
    """Remove what no environment owns, and environments none of whose nodes can come back; one line for each."""
    removed = []
    addresses = dict.fromkeys(place for place, _ in provider.memory.all())
    with suppress(ProviderError):
        addresses[provider.engine.address] = None
    for address in addresses:
        # what is on an Engine that does not answer waits there
        with suppress(ProviderError):
            removed += await _collect_at(provider, Engine(address), progress)
    if os.geteuid() == 0 and (provider.folder / "environments").is_dir():
        removed += await HostWiring(provider.folder).collect_garbage(progress)
    return removed


async def _collect_at(provider: DockerProvider, engine: Engine, progress: Progress) -> list[str]:
    known = {record.id: record for record in await provider.environments()}
    here = [identity for identity in known if provider.memory.engine(identity) in (None, engine.address)]
    removed = []
    for identity in here:
        seen = await snapshot(engine, identity)
        reason = _reason(seen)
        if reason is None or seen.identity is None:
            continue
        record = seen.identity.record
        try:
            async with provider.lock(record.file, record.instance, "removing what is left of it"):
                if (reason := _reason(await snapshot(engine, identity))) is not None:
                    await provider.destroy(identity, progress)
                    removed.append(f"environment {identity}: {reason}")
        except BusyError:
            continue
    return removed + await _leftovers(engine, set(known))


def _reason(seen: Snapshot) -> str | None:
    if not seen.recorded:
        return "it has no record"
    if seen.containers and not any(item.runs for item in seen.containers):
        return "none of its nodes runs any more"
    return None


async def _leftovers(engine: Engine, known: set[str]) -> list[str]:
    """Networks of environments that nothing else is left of, and containers that a `setup:` ran in."""
    mine = f"{OWNER}={owner()}"
    networks, builders = await asyncio.gather(
        engine.get("/networks", filters=filters(mine)), engine.get("/containers/json", all=True, filters=filters(f"{PREFIX}setup", mine))
    )
    removed = []
    for item in networks:
        environment = item["Labels"][ENVIRONMENT]
        if environment not in known and carries(item["Labels"], mine):
            await engine.delete(f"/networks/{item['Id']}")
            removed.append(f"network {item['Name']}, which no environment owns")
    for item in builders:
        if item["State"] != "running" and carries(item["Labels"], f"{PREFIX}setup", mine):
            await engine.delete(f"/containers/{item['Id']}", force=True, v=True)
            removed.append("a container that setup ran in")
    return removed
