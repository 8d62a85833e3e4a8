"""The provider `openstack` against the testbed that runs: `scripts/openstack-testbed start`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openstack
import pytest

from wardian.errors import ProviderError
from wardian.providers.openstack import OpenStackProvider, OpenStackSettings
from wardian.providers.testing import create, new_id, quiet, small_environment

from .kept import Kept

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800), pytest.mark.usefixtures("place")]


@pytest.fixture
def cloud() -> Iterator[Any]:
    """The cloud, past the provider."""
    connection = openstack.connect(cloud="testbed")
    yield connection
    connection.close()


SETTINGS = OpenStackSettings(cloud="testbed", image="tiny", flavor="small", external="public", ready="active")


class TestOpenStackProvider(Kept):
    """What is seen of resources through the cloud's own services."""

    settings = SETTINGS


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
        with pytest.raises(ProviderError, match=r"network west.*[Mm][Tt][Uu].*\(4\d\d\); request req-"):
            await create(provider, environment, [type(resources[2])("network", "west", {**resources[2].spec, "mtu": 65000})])
        lacking = OpenStackProvider(OpenStackSettings(cloud="testbed", image="nothing", ready="active"))
        with pytest.raises(ProviderError, match=r"no image nothing\n.*there are: tiny"):
            await lacking.create(environment, [resources[3]], quiet)
    finally:
        await provider.destroy(environment, quiet)
