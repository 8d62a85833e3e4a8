"""Nodes rebooted and made anew: what hangs on them goes with them, and nothing else is touched."""

from __future__ import annotations

import dataclasses

import pytest

from wardian.environment import keeper
from wardian.errors import ProviderError, SelectorError
from wardian.providers.memory import MemoryProvider


@pytest.fixture(autouse=True)
def no_keeper(monkeypatch):
    """A keeper is another process, for which this memory is not there."""

    async def nothing(*_):
        return None

    monkeypatch.setattr(keeper, "ensure", nothing)
    monkeypatch.setattr(keeper, "revive", nothing)


@pytest.fixture
async def up(environment, rewrite):
    """The environment, up: server, client[0], client[1], of which the clients have access links that delay."""
    rewrite("networks: [west]", "networks: {west: {delay: 5ms}}")
    await environment.up()
    return environment


async def test_rebuilt_with_all_that_hangs_on_it(up, cloud):
    """A node that is rebuilt is announced with what hangs on it, faults that concern it end, and the environment is as the file says."""
    await up.fault.partition("server", "client", duration=60)
    await up.fault.slow("client[1]", cpu=0.5)
    said = []
    plan = await up.rebuild("client[0]", announce=said.append)
    assert said == [plan]
    assert plan.text().splitlines() == [
        "- access      client[0]/west  (rebuild of node client[0])",
        "~ node        client[0]  (from its image; its disk is lost)",
        "+ access      client[0]/west  (rebuild of node client[0])",
        "",
        "1 to create, 0 to change, 1 to delete, 1 to rebuild",
    ]
    assert [fault.fault.kind for fault in await up.fault.in_force()] == ["slow"]
    assert not await up.plan()
    done = {(entry.detail["action"], entry.detail["kind"]) for entry in up.journal.entries(kinds=["operation"])}
    assert ("rebuild", "node") in done


async def test_what_failed_is_finished_by_up(up, cloud):
    """A rebuild that fails half-way leaves what `up` finishes, with all that hangs on the node."""
    cloud.fail("create", kind="node", message="no room")
    with pytest.raises(ProviderError, match="no room"):
        await up.rebuild("client")
    plan = await up.up()
    assert {name for item in plan.operations for name in item.names} == {"client[0]", "client[1]", "client[0]/west", "client[1]/west"}
    assert not await up.plan()


async def test_what_cannot_be(up, cloud, monkeypatch):
    """What a provider cannot do to nodes, and an image that is not there, are errors before anything is touched."""
    before = list(cloud.operations)
    with pytest.raises(ProviderError, match=r"memory does not reboot nodes\n.*on the host"):
        await up.reboot("server")
    with pytest.raises(ProviderError, match="memory makes no images of nodes"):
        await up.snapshot("server", "moss")
    with pytest.raises(ProviderError, match="image moss: memory makes no nodes from images"):
        await up.rebuild("server", image="moss")
    with pytest.raises(SelectorError, match="no node, group or role is called 'moss'"):
        await up.rebuild("moss")
    monkeypatch.setattr(MemoryProvider, "treatments", frozenset({"snapshot"}))
    with pytest.raises(SelectorError, match="'client' is 2 nodes, and an image is of one"):
        await up.snapshot("client", "moss")
    assert cloud.operations == before
    assert not await up.plan()


async def test_a_hard_reboot_asks_no_service(up, cloud, monkeypatch):
    """The plan of a reboot stops the node's services first, and that of a hard one leaves their end to the node's."""
    from wardian.experiment.plan import renewing
    from wardian.experiment.resources import ObservedResource

    observed = (await up.live()).observed
    service = ObservedResource("service", "web@client[0]", {"node": "client[0]", "service": "web"})
    observed = dataclasses.replace(observed, resources={**observed.resources, service.key: service})
    steps = {
        hard: [(item.action, item.kind) for item in renewing("reboot", ["client[0]"], observed, "why", {"hard": hard}).operations]
        for hard in (False, True)
    }
    assert steps[False][0] == ("delete", "service")
    assert (
        steps[False][1:]
        == steps[True]
        == [
            ("delete", "access"),
            ("reboot", "node"),
            ("create", "access"),
            ("create", "service"),
        ]
    )
