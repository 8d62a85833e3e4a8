"""Environments of containers on the tests' Engine, and what tests do with them."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from wardian.experiment.plan import reconcile
from wardian.experiment.resources import Resource
from wardian.providers.docker import DockerProvider, within
from wardian.providers.docker.wiring import HostWiring
from wardian.providers.testing import small_environment


class Grown:
    """An environment on the tests' Engine, and what a test does with it."""

    def __init__(self, provider: DockerProvider, folder: Path) -> None:
        self.provider = provider
        self.folder = folder
        self.id = f"t{uuid.uuid4().hex[:10]}"
        self.told: list[tuple[str, str]] = []

    async def create(self, *resources: Resource) -> None:
        for _, group in groupby(resources, key=lambda resource: resource.kind):
            await self.provider.create(self.id, list(group), lambda name, state: self.told.append((name, state)))

    def environment(self) -> Resource:
        made = small_environment(provider="docker")[0]
        return Resource(made.kind, made.name, {**made.spec, "file": str(self.folder / "experiment.yaml")})

    async def grow(self, *nodes: Resource) -> None:
        """An environment with a network `lan`, and these nodes."""
        await self.create(self.environment(), Resource("network", "lan", {"subnet": "10.74.0.0/24", "gateway": None, "routes": []}), *nodes)

    async def sh(self, node: str, script: str) -> str:
        """Output of a script that has to succeed, without the last line's end."""
        process = await self.provider.channel(self.id, node).start(["sh", "-c", script], stderr=asyncio.subprocess.STDOUT)
        try:
            assert process.stdout is not None
            output = (await process.stdout.read()).decode()
            assert await process.wait() == 0, output
            return output.rstrip("\n")
        finally:
            await process.close()

    async def init(self, node: str) -> Path:
        """Where the process 1 of a node is written down, once that takes requests: it takes a moment to begin."""
        process = HostWiring(self.provider.folder).process(self.id, node)
        while (connection := await within.connection(node, process)) is None:
            await asyncio.sleep(0.01)
        connection.close()
        return process

    async def states(self) -> dict[tuple[str, str], tuple[str, str]]:
        return {key: (item.state, item.detail) for key, item in (await self.provider.observe(self.id)).resources.items()}

    async def plan(self, *desired: Resource) -> str:
        """What would be done to come to these, as people read it."""
        capabilities = await self.provider.capabilities(desired)
        return str(reconcile(desired, await self.provider.observe(self.id), replace(capabilities, caveats=())))

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        return await self.provider.engine.request(method, path, body=body, query=query)

    async def left(self) -> list[str]:
        """What carries the environment's name on the Engine."""
        found = [item["Names"][0] for item in await self.ask("GET", "/containers/json", all=True)]
        found += [item["Name"] for item in await self.ask("GET", "/networks")]
        found += [item["Name"] for item in (await self.ask("GET", "/volumes"))["Volumes"] or ()]
        return [name for name in found if self.id in name]


def node(name: str, *addresses: str, **spec: Any) -> Resource:
    """A node on the network `lan`, at 10.74.0.2 unless told otherwise."""
    interfaces = [{"name": "eth0", "network": "lan", "address": f"{address}/24"} for address in addresses or ("10.74.0.2",)]
    base: dict[str, Any] = {"hostname": name, "group": name, "index": None, "roles": [], "site": None, "image": None, "cpus": None}
    base |= {"memory": None, "env": {}, "setup": None, "internet": False, "routes_between": False, "interfaces": interfaces, "routes": []}
    return Resource("node", name, base | spec)
