"""Clocks of nodes: measured through their agents, and in the journal."""

from __future__ import annotations

import asyncio

import pytest

from wardian.environment import clocks
from wardian.environment.clocks import Offset
from wardian.nodes.link import AgentLink
from wardian.providers.memory import MemoryProvider


@pytest.fixture(autouse=True)
async def no_agents_left(environment, cloud):
    """Agents are processes of their own: they are asked to end."""
    yield
    live = await environment.live()
    for node, view in live.nodes.items():
        if view.state == "ready":
            link = await AgentLink.open(live.channel(node), node)
            await link.request("agent.stop")
            await link.close()


def apart(monkeypatch):
    """Have the provider say that nodes have clocks of their own."""

    async def own_clocks(self, environment):
        return True

    monkeypatch.setattr(MemoryProvider, "own_clocks", own_clocks)


async def test_one_clock(environment):
    """Where nodes have this host's clock nothing is measured, and the journal says so."""
    await environment.up()
    offsets = await environment.clocks()
    assert [(item.node, item.offset, item.error) for item in offsets] == [(node, 0.0, 0.0) for node in ("client[0]", "client[1]", "server")]
    assert environment.journal.entries(kinds=["event"])[-1].summary == "clocks: all nodes have this host's clock"


async def test_measured_at_up(environment, monkeypatch):
    """Where nodes have their own, `up` asks the agents; what is 0 comes out as 0 within the error that is told."""
    apart(monkeypatch)
    await environment.up()
    (event,) = [entry for entry in environment.journal.entries(kinds=["event"]) if entry.summary.startswith("clocks")]
    found = [Offset(**item) for item in event.detail["offsets"]]
    assert len(found) == 3
    for item in found:
        assert item.offset is not None, item.reason
        # the two clocks of this host that are compared may be set apart by a microsecond
        assert abs(item.offset) <= item.error + 0.0001
    # everything runs already: no node is new
    await environment.up()
    assert len([entry for entry in environment.journal.entries(kinds=["event"]) if entry.summary.startswith("clocks")]) == 1


async def test_offset_is_found(environment, monkeypatch):
    """A clock that is ahead is told as ahead, and by how much."""
    apart(monkeypatch)
    await environment.up()
    now = clocks.time.time
    monkeypatch.setattr(clocks.time, "time", lambda: now() - 2.5)
    offsets = await environment.clocks()
    for item in offsets:
        assert item.offset == pytest.approx(2.5, abs=item.error + 0.001)


async def test_node_that_does_not_answer(environment, monkeypatch):
    """A node that stands still is told as not measured, and holds up nobody for longer than is meant."""
    await environment.up()
    apart(monkeypatch)
    monkeypatch.setattr(clocks, "PATIENCE", 0.05)

    class Silent:
        @staticmethod
        async def open(channel, node):
            await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(clocks, "AgentLink", Silent)
    assert {(item.offset, item.reason) for item in await environment.clocks()} == {(None, "no answer within 0.05 s")}


async def test_node_that_is_down(environment, cloud, monkeypatch):
    """A node that cannot be asked is told with the reason; the others are measured."""
    await environment.up()
    apart(monkeypatch)
    cloud.stop((await environment.live()).record.id, "server")
    found = {item.node: item for item in await environment.clocks()}
    assert found["server"].offset is None
    assert found["server"].reason
    assert found["client[0]"].offset is not None
