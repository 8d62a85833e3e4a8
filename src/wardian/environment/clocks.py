"""Clocks: how far those of the nodes are from this host's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import NodeError
from ..journal import Journal
from ..nodes.link import AgentLink
from .live import LiveEnvironment

SAMPLES = 8
"""Exchanges with a node; the quickest is the one that counts, for it leaves the least in doubt."""

CONCURRENCY = 16

PATIENCE = 30.0
"""How long a node may take to answer, seconds: one that is paused never does."""


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a node's clock is ahead of this host's, seconds; None where it could not be asked, with the reason.

    error: half the exchange's round trip, seconds: as much as the offset may be wrong.
    """

    node: str
    offset: float | None
    error: float
    reason: str = ""

    def text(self) -> str:
        """As in "+2500.041 ms ± 0.215"."""
        return "unknown" if self.offset is None else f"{1000 * self.offset:+.3f} ms ± {1000 * self.error:.3f}"


async def measure(live: LiveEnvironment, nodes: Sequence[str] | None = None) -> list[Offset]:
    """Ask the nodes' agents for their time, as NTP does (RFC 5905, section 8). Nodes of a provider whose clock is this host's are 0 off."""
    names = list(live.nodes) if nodes is None else list(nodes)
    if not await live.provider.own_clocks(live.record.id):
        return [Offset(node, 0.0, 0.0, "it has this host's clock") for node in names]
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(node: str) -> Offset:
        async with gate:
            return await _measure(live, node)

    return list(await asyncio.gather(*(one(node) for node in names)))


def record(journal: Journal, environment: str, offsets: Sequence[Offset], run: str | None = None) -> None:
    """Put offsets in the journal."""
    known = [item for item in offsets if item.offset is not None]
    if known and all(item.reason and not item.offset for item in known):
        said = "all nodes have this host's clock"
    else:
        worst = max(known, key=lambda item: abs(item.offset or 0.0), default=None)
        said = f"{len(known)} of {len(offsets)} nodes measured"
        if worst is not None:
            said += f"; the farthest is {worst.node}, {worst.text()}"
    detail: dict[str, Any] = {"summary": said, "offsets": [asdict(item) for item in offsets]}
    journal.event(environment=environment, run=run, kind="clocks", detail=detail)


async def _measure(live: LiveEnvironment, node: str) -> Offset:
    try:
        async with asyncio.timeout(PATIENCE):
            link = await AgentLink.open(live.channel(node), node)
            try:
                trip, offset = min([await _exchange(link) for _ in range(SAMPLES)])
            finally:
                await link.close()
    except TimeoutError:
        return Offset(node, None, 0.0, f"no answer within {PATIENCE:g} s")
    except NodeError as error:
        return Offset(node, None, 0.0, error.message)
    return Offset(node, offset, trip / 2)


async def _exchange(link: AgentLink) -> tuple[float, float]:
    """(round trip, offset), seconds."""
    # in this order, or a pause of this process between the two would be an error that the round trip does not show
    begun, sent = time.perf_counter(), time.time()
    there = (await link.request("agent.clock"))["time"] / 1e9
    trip = time.perf_counter() - begun
    return trip, there - (sent + trip / 2)
