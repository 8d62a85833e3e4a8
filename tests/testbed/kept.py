"""An environment that goes from test to test: on a cloud that others use as well, and where machines boot, a new one takes minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import ClassVar

import openstack
import pytest
import pytest_asyncio

from wardian.providers.base import Provider
from wardian.providers.openstack import OpenStackProvider, OpenStackSettings
from wardian.providers.testing import ResourceContract, create, new_id, quiet


class Kept(ResourceContract):
    """The part of a suite that has its environment kept. settings: how it is grown."""

    settings: ClassVar[OpenStackSettings]
    pause = 1.0

    @pytest.fixture
    def provider(self) -> Provider:
        return OpenStackProvider(self.settings)

    @pytest.fixture(scope="class")
    def kept(self, place: None) -> Iterator[str]:
        """Its id."""
        environment = new_id()
        yield environment
        asyncio.run(OpenStackProvider(self.settings).destroy(environment, quiet))

    @pytest_asyncio.fixture
    async def grown(self, provider: Provider, kept: str) -> str:
        """The environment, with what the test before did to it undone."""
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
        with openstack.connect(cloud="testbed") as cloud:
            server = cloud.compute.find_server(f"wardian-{environment}-{node.replace('[', '-').rstrip(']')}")
            cloud.compute.stop_server(server.id)
            cloud.compute.wait_for_server(cloud.compute.get_server(server.id), status="SHUTOFF", wait=300)
