"""The provider `openstack` against the testbed that runs: `scripts/openstack-testbed start`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openstack
import pytest
import pytest_asyncio
from openstack_testbed.layout import Layout

from wardian.errors import ProviderError
from wardian.providers.base import Provider
from wardian.providers.openstack import OpenStackProvider, OpenStackSettings
from wardian.providers.testing import ResourceContract, create, new_id, quiet, small_environment

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", autouse=True)
def place(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All tests have one state folder, apart from the user's, and are told of the cloud by a variable."""
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("WARDIAN_STATE", str(tmp_path_factory.mktemp("state")))
        variables.setenv("OS_CLIENT_CONFIG_FILE", str(layout.clouds))
        yield


@pytest.fixture(scope="module")
def kept(place: None) -> Iterator[str]:
    """The id of an environment that goes from test to test: on a cloud that others use as well, a new one takes minutes."""
    environment = new_id()
    yield environment
    asyncio.run(OpenStackProvider(SETTINGS).destroy(environment, quiet))


@pytest.fixture
def cloud() -> Iterator[Any]:
    """The cloud, past the provider."""
    connection = openstack.connect(cloud="testbed")
    yield connection
    connection.close()


SETTINGS = OpenStackSettings(cloud="testbed", image="tiny", flavor="small", external="public", ready="active")


class TestOpenStackProvider(ResourceContract):
    """What is seen of resources through the cloud's own services."""

    pause = 1.0

    @pytest.fixture
    def provider(self) -> Provider:
        return OpenStackProvider(SETTINGS)

    @pytest_asyncio.fixture
    async def grown(self, provider: Provider, kept: str) -> str:
        """The environment that is kept, with what the test before did to it undone."""
        seen = (await provider.observe(kept)).resources
        there = {key: item for key, item in seen.items() if item.state == "ready"}
        missing = [resource for resource in self.resources() if resource.key not in there]
        for resource in reversed([resource for resource in missing if resource.key in seen]):
            await provider.delete(kept, [resource.key], quiet)
        await create(provider, kept, missing)
        for resource in self.resources():
            if resource.key in there and there[resource.key].spec != resource.spec:
                await provider.update(kept, [resource], quiet)
        for node, notes in (await provider.notes(kept)).items():
            for note in notes:
                await provider.note(kept, node, note, None)
        return kept

    async def stop_node(self, provider: Provider, environment: str, node: str) -> None:
        connection = openstack.connect(cloud="testbed")
        server = connection.compute.find_server(f"wardian-{environment}-{node.replace('[', '-').rstrip(']')}")
        connection.compute.stop_server(server.id)
        connection.compute.wait_for_server(connection.compute.get_server(server.id), status="SHUTOFF", wait=300)


async def test_a_cloud_without_a_trace(cloud: Any) -> None:
    """What is made has the addresses of its specs and the identity of its environment; destroyed, nothing of any kind is left."""
    provider, environment = OpenStackProvider(SETTINGS), new_id()
    try:
        await create(provider, environment, small_environment())
        servers = {server.name: server for server in cloud.compute.servers() if environment in server.name}
        assert {
            name: server.addresses[f"wardian-{environment}-{net}"][0]["addr"]
            for name, server, net in (
                (f"wardian-{environment}-server", servers[f"wardian-{environment}-server"], "east"),
                (f"wardian-{environment}-client-1", servers[f"wardian-{environment}-client-1"], "west"),
            )
        } == {f"wardian-{environment}-server": "10.61.0.2", f"wardian-{environment}-client-1": "10.62.0.3"}
        assert {server.metadata["wardian-node"] for server in servers.values()} == {"server", "client[0]", "client[1]"}
    finally:
        await OpenStackProvider(SETTINGS).destroy(environment, quiet)
    kinds = (
        cloud.compute.servers,
        cloud.compute.keypairs,
        *(getattr(cloud.network, kind) for kind in ("networks", "subnets", "ports", "routers", "security_groups")),
    )
    assert [item.name for kind in kinds for item in kind() if environment in item.name] == []


async def test_a_refusal_is_in_the_services_own_words() -> None:
    """An error carries the reason that the service gave, and the request's number; what names nothing says what there is."""
    provider, environment = OpenStackProvider(SETTINGS), new_id()
    resources = small_environment()
    try:
        await create(provider, environment, resources[:2])
        with pytest.raises(ProviderError, match=r"network west.*\(4\d\d\); request req-") as caught:
            await create(provider, environment, [type(resources[2])("network", "west", {**resources[2].spec, "subnet": "10.62.0.0/33"})])
        assert "10.62.0.0/33" in str(caught.value)
        lacking = OpenStackProvider(OpenStackSettings(cloud="testbed", image="nothing", ready="active"))
        with pytest.raises(ProviderError, match=r"no image nothing\n.*there are: tiny"):
            await lacking.create(environment, [resources[3]], quiet)
    finally:
        await provider.destroy(environment, quiet)
