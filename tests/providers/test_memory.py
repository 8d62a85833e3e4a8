"""The in-memory provider keeps the contract, and its faults are those that it was told to have."""

import asyncio

import pytest

from wardian.errors import ProviderError
from wardian.experiment.resources import Capabilities, Caveat, Observed, Resource
from wardian.providers.memory import MemoryCloud, MemoryProvider
from wardian.providers.testing import ProviderContract, create, new_id, quiet, run, small_environment, states

NODES = [resource for resource in small_environment() if resource.kind == "node"]


@pytest.fixture
def cloud():
    with MemoryCloud() as cloud:
        yield cloud


@pytest.fixture
def provider(cloud):
    return MemoryProvider(cloud=cloud)


class TestContract(ProviderContract):
    """The suite that every provider passes."""

    @pytest.fixture
    def provider(self, cloud):
        return MemoryProvider(cloud=cloud)

    def fresh(self, provider):
        return MemoryProvider(cloud=provider.cloud)

    async def stop_node(self, provider, environment, node):
        provider.cloud.stop(environment, node)


async def grow(provider):
    environment = new_id()
    await create(provider, environment, small_environment())
    return environment


async def test_a_create_fails_halfway(provider, cloud):
    """A create told to fail after half of its resources leaves the first ready, the next incomplete, the last unmade."""
    environment = new_id()
    await create(provider, environment, small_environment()[:3])
    cloud.fail("create", share=0.5, message="no room for ferns")
    with pytest.raises(ProviderError, match=r"node client\[0\]: no room for ferns"):
        await provider.create(environment, NODES, quiet)
    found = states(await provider.observe(environment))
    assert {key: state for key, state in found.items() if key[0] == "node"} == {
        ("node", "server"): "ready",
        ("node", "client[0]"): "incomplete",
    }


async def test_the_nth_call_of_a_kind_fails(provider, cloud):
    """Only the call that was told to fail does, counted among those of its operation and kind."""
    environment = await grow(provider)
    cloud.fail("delete", nth=2, kind="node")
    await provider.delete(environment, [("access", "server/east")], quiet)
    await provider.delete(environment, [("node", "server")], quiet)
    with pytest.raises(ProviderError, match=r"client\[0\]"):
        await provider.delete(environment, [("node", "client[0]")], quiet)
    await provider.delete(environment, [("node", "client[0]")], quiet)
    assert [item.name for item in (await provider.observe(environment)).of("node")] == ["client[1]"]


async def test_a_failed_update_changes_nothing(provider, cloud):
    """A resource whose update fails keeps its spec."""
    environment = await grow(provider)
    link = next(resource for resource in small_environment() if resource.kind == "link")
    cloud.fail("update")
    with pytest.raises(ProviderError, match="link wan"):
        await provider.update(environment, [Resource(*link.key, {**link.spec, "there": {}})], quiet)
    assert (await provider.observe(environment)).resources[link.key].spec == link.spec


async def test_a_failed_destroy_can_be_repeated(provider, cloud):
    """A destroy that fails halfway still lists the environment, and finishes when repeated."""
    environment = await grow(provider)
    cloud.fail("destroy", share=0.5)
    with pytest.raises(ProviderError):
        await provider.destroy(environment, quiet)
    assert [record.id for record in await provider.environments()] == [environment]
    await provider.destroy(environment, quiet)
    assert await provider.observe(environment) == Observed()
    assert await provider.environments() == []


async def test_a_gate_makes_it_slow(provider, cloud):
    """While the gate is closed resources stay incomplete; once it opens they become ready."""
    environment = new_id()
    await create(provider, environment, small_environment()[:3])
    cloud.gate = asyncio.Event()
    begun = asyncio.Event()
    making = asyncio.create_task(provider.create(environment, NODES, lambda name, state: begun.set()))
    await begun.wait()
    assert states(await provider.observe(environment))["node", "server"] == "incomplete"
    cloud.gate.set()
    await making
    assert {item.state for item in (await provider.observe(environment)).of("node")} == {"ready"}


async def test_a_resource_can_be_left_incomplete(provider, cloud):
    """A resource that was cut is observed as incomplete, with the reason."""
    environment = await grow(provider)
    cloud.cut(environment, "link", "wan")
    link = (await provider.observe(environment)).resources["link", "wan"]
    assert link.state == "incomplete"
    assert link.detail


async def test_only_what_is_declared_changes_in_place(cloud):
    """An update of a key that is not declared in place is refused and changes nothing; capabilities are those given."""
    cloud.capabilities = Capabilities(frozenset({("link", "there")}), (Caveat("link wan", "loss", "no loss here"),))
    provider = MemoryProvider(cloud=cloud)
    environment = await grow(provider)
    link = next(resource for resource in small_environment() if resource.kind == "link")
    with pytest.raises(ProviderError, match="back cannot change in place"):
        await provider.update(environment, [Resource(*link.key, {**link.spec, "there": {}, "back": {}})], quiet)
    assert (await provider.observe(environment)).resources[link.key].spec == link.spec
    assert (await provider.capabilities([link])).caveats == cloud.capabilities.caveats


async def test_what_exists_cannot_be_created(provider):
    """Creating what exists, or something of an environment that does not, is an error naming the resource."""
    environment = await grow(provider)
    with pytest.raises(ProviderError, match="node server: it exists already"):
        await provider.create(environment, NODES, quiet)
    with pytest.raises(ProviderError, match="node server: there is no environment"):
        await provider.create(new_id(), NODES, quiet)


async def test_clouds_are_apart(provider):
    """Two clouds share nothing."""
    await grow(provider)
    with MemoryCloud() as other:
        assert await MemoryProvider(cloud=other).environments() == []


async def test_specs_are_copies(provider):
    """Changing a spec after the call, or what was observed, does not reach into the cloud."""
    environment = new_id()
    resources = small_environment()
    await create(provider, environment, resources)
    resources[1].spec["subnet"] = "changed"
    (await provider.observe(environment)).resources["network", "west"].spec["subnet"] = "changed"
    assert {item.spec["subnet"] for item in (await provider.observe(environment)).of("network")} == {"10.61.0.0/24", "10.62.0.0/24"}


async def test_garbage_is_an_environment_without_a_living_node(provider, cloud):
    """An environment all of whose nodes are stopped is removed and named; another is not."""
    dead, alive = await grow(provider), await grow(provider)
    for node in NODES:
        cloud.stop(dead, node.name)
    cloud.stop(alive, "server")
    assert await provider.collect_garbage(quiet) == [f"environment {dead}"]
    assert [record.id for record in await provider.environments()] == [alive]


async def test_closing_the_cloud_ends_its_processes(provider, cloud):
    """Nothing that was started on a node outlives the cloud."""
    environment = await grow(provider)
    process = await provider.channel(environment, "server").start(["sleep", "600"])
    folder = cloud.folder(environment, "server")
    assert (await run(provider, environment, "server", "pwd"))[1].decode().strip() == str(folder)
    cloud.close()
    with pytest.raises(Exception, match="went away"):
        await process.wait()
    await process.close()
    assert not folder.exists()
