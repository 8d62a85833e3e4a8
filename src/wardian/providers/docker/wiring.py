"""How the containers of an environment are joined: by this host's kernel, or by networks of the Engine's.

"host": where the Engine runs on this machine and we are root. Networks, gateways, links and what shapes them are those of a `local`
environment in a state folder of its own, whose nodes are the containers: each comes into being without a network, is written down there,
and its namespace gets the interfaces of a local node. So equal subnets stand side by side, and links are as good as there.

"engine": everywhere else. A network is an internal bridge network of the Engine's, with the subnet and the addresses as written; there
are no links.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ProviderError
from ...experiment.resources import Caveat, ObservedResource, Resource
from ..base import Channel, Fault, Progress
from ..local.kernel import process_identity
from ..local.provider import IN_PLACE as LOCAL_IN_PLACE
from ..local.provider import LocalProvider, LocalSettings
from ..local.state import write_json
from .engine import Engine, EngineError
from .names import ENVIRONMENT, KIND, NAME, SPEC, Identity, carries, filters, labels, network_name
from .uplink import make_way

Key = tuple[str, str]


class Wiring(ABC):
    """What joins the containers of environments. Kinds: environment, network, link, access."""

    in_place: frozenset[Key] = frozenset()
    """What of networks, links and nodes can change without making them anew."""

    # What a wiring need not do

    async def update(self, identity: Identity, resources: Sequence[Resource], progress: Progress) -> None:
        """Bring them to another spec."""
        return

    async def part(self, environment: str, nodes: Sequence[str]) -> None:
        """Remove what is left of the way to nodes whose containers are gone."""
        return

    async def rejoin(self, identity: Identity, node: str, container: str, pid: int, spec: Mapping[str, Any]) -> None:
        """As `join`, of a container that was joined and started anew since."""
        return

    async def change(self, environment: str, node: str, spec: Mapping[str, Any]) -> None:
        """Bring the routes and the forwarding of a node to this spec."""
        return

    async def keep(self, environment: str) -> list[int]:
        """As `Provider.keep`."""
        return []

    async def inflict(self, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
        """As `Provider.inflict`, of the kinds "partition" and "flap"."""
        if faults:
            raise ProviderError(f"the Engine's own networks cannot suffer {kind}", remedy="Run Wardian as root on the Engine's machine.")

    # What each has to

    @abstractmethod
    async def caveats(self, desired: Sequence[Resource]) -> list[Caveat]:
        """What it cannot honour."""

    @abstractmethod
    async def create(self, identity: Identity, resources: Sequence[Resource], progress: Progress) -> None:
        """Make these, all of one kind."""

    @abstractmethod
    async def delete(self, environment: str, keys: Sequence[Key], progress: Progress) -> None:
        """Remove these."""

    @abstractmethod
    async def destroy(self, environment: str, progress: Progress) -> None:
        """Remove all of it."""

    @abstractmethod
    async def observe(self, environment: str) -> dict[Key, ObservedResource]:
        """What exists; of nodes, where it knows more of them than that their containers run."""

    @abstractmethod
    def endpoint(self, identity: Identity, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What of a node's network its container is created with: {"NetworkMode", "Endpoints"}."""

    @abstractmethod
    async def join(self, identity: Identity, node: str, container: str, pid: int, spec: Mapping[str, Any]) -> None:
        """Join a container that runs, whose first process this is, to the networks of its node."""


class HostWiring(Wiring):
    """Made by this host's kernel. folder: the state folder for it."""

    in_place = frozenset(
        pair
        for pair in LOCAL_IN_PLACE
        if pair[0] in ("network", "access", "link") or pair in (("node", "routes"), ("node", "routes_between"))
    )

    def __init__(self, folder: Path) -> None:
        self._local = LocalProvider(LocalSettings(state=folder, isolation="namespaces"))

    async def caveats(self, desired: Sequence[Resource]) -> list[Caveat]:
        shaped = [resource for resource in desired if resource.kind in ("link", "access")]
        return list((await self._local.capabilities(shaped)).caveats)

    async def create(self, identity: Identity, resources: Sequence[Resource], progress: Progress) -> None:
        await self._local.create(identity.record.id, resources, progress)

    async def update(self, identity: Identity, resources: Sequence[Resource], progress: Progress) -> None:
        await self._local.update(identity.record.id, resources, progress)

    async def delete(self, environment: str, keys: Sequence[Key], progress: Progress) -> None:
        await self._local.delete(environment, keys, progress)

    async def destroy(self, environment: str, progress: Progress) -> None:
        await self._local.destroy(environment, progress)

    async def observe(self, environment: str) -> dict[Key, ObservedResource]:
        return dict((await self._local.observe(environment)).resources)

    async def keep(self, environment: str) -> list[int]:
        return await self._local.keep(environment)

    async def inflict(self, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
        await self._local.inflict(environment, kind, targets, faults)

    async def traffic(self, environment: str) -> Mapping[str, Mapping[str, int]]:
        """As `Provider.traffic`."""
        return await self._local.traffic(environment)

    async def traffic_matrix(self, environment: str, *, counting: bool = True) -> Mapping[tuple[str, str], int]:
        """As `Provider.traffic_matrix`."""
        return await self._local.traffic_matrix(environment, counting=counting)

    def vantage(self, environment: str, link: str) -> tuple[Channel, str]:
        """As `Provider.vantage`."""
        return self._local.vantage(environment, link)

    def process(self, environment: str, node: str) -> Path:
        """Where the first process of a container that was joined is written down."""
        return self._local.state.environment(environment).resource("node", node).path / "process.json"

    async def collect_garbage(self, progress: Progress) -> list[str]:
        """Remove what dead processes left of environments that nobody knows."""
        return await self._local.collect_garbage(progress)

    def endpoint(self, identity: Identity, spec: Mapping[str, Any]) -> dict[str, Any]:
        return {"NetworkMode": "none", "Endpoints": {}}

    async def join(self, identity: Identity, node: str, container: str, pid: int, spec: Mapping[str, Any]) -> None:
        # what a container of that name before it left
        await self._local.delete(identity.record.id, [("node", node)], _quiet)
        await asyncio.to_thread(self._join, identity.record.id, node, pid, _known(spec))

    rejoin = join

    async def part(self, environment: str, nodes: Sequence[str]) -> None:
        await self._local.delete(environment, [("node", node) for node in nodes], _quiet)

    async def change(self, environment: str, node: str, spec: Mapping[str, Any]) -> None:
        await self._local.update(environment, [Resource("node", node, _known(spec))], _quiet)

    def _join(self, environment: str, node: str, pid: int, spec: Mapping[str, Any]) -> None:
        from ..local.fabric import Fabric

        known = self._local.state.environment(environment)
        fabric, folder = known.fabric_pid(), known.resource("node", node)
        if fabric is None:
            remedy = "Run `wardian up` again to make it anew."
            raise ProviderError("the process that holds its networks is not running", resource=f"environment {environment}", remedy=remedy)
        folder.begin(spec)
        try:
            write_json(self.process(environment, node), process_identity(pid))
            with Fabric(fabric) as wires:
                make_way(pid)
                wires.add_nodes([(node, pid, spec)], fresh=False)
        except OSError as error:
            raise ProviderError(f"its interfaces cannot be made: {error.strerror or error}", resource=f"node {node}") from error
        folder.complete(spec)


class EngineWiring(Wiring):
    """Made by the Engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def caveats(self, desired: Sequence[Resource]) -> list[Caveat]:
        here = "the Engine's own networks have none; they need an Engine on this machine, and root"
        found = []
        for resource in desired:
            if resource.kind in ("link", "access"):
                found.append(Caveat(str(resource), "delay, loss, rate" if resource.kind == "access" else "between", here))
            elif resource.kind == "node" and any(route["via"] for route in resource.spec["routes"]):
                found.append(Caveat(str(resource), "routes", "routes to other networks are not set on the Engine's own networks"))
        return found

    async def create(self, identity: Identity, resources: Sequence[Resource], progress: Progress) -> None:
        for resource in resources:
            if resource.kind == "network":
                progress(resource.name, "creating")
                await self._create_network(identity, resource)
                progress(resource.name, "ready")

    async def delete(self, environment: str, keys: Sequence[Key], progress: Progress) -> None:
        for kind, name in keys:
            if kind == "network":
                await self._engine.delete(f"/networks/{network_name(environment, name)}")
                progress(name, "gone")

    async def destroy(self, environment: str, progress: Progress) -> None:
        await self.delete(environment, [*await self.observe(environment)], progress)

    async def observe(self, environment: str) -> dict[Key, ObservedResource]:
        wanted = (f"{ENVIRONMENT}={environment}", f"{KIND}=network")
        found = [item for item in await self._engine.get("/networks", filters=filters(*wanted)) if carries(item["Labels"], *wanted)]
        made = [ObservedResource("network", item["Labels"][NAME], json.loads(item["Labels"][SPEC])) for item in found]
        return {item.key: item for item in made}

    def endpoint(self, identity: Identity, spec: Mapping[str, Any]) -> dict[str, Any]:
        if not spec["interfaces"]:
            return {"NetworkMode": "none", "Endpoints": {}}
        first = spec["interfaces"][0]
        name = network_name(identity.record.id, first["network"])
        return {"NetworkMode": name, "Endpoints": {name: _address(first)}}

    async def join(self, identity: Identity, node: str, container: str, pid: int, spec: Mapping[str, Any]) -> None:
        # one after the other, since the Engine names interfaces in the order in which they come
        for item in spec["interfaces"][1:]:
            path = f"/networks/{network_name(identity.record.id, item['network'])}/connect"
            await self._engine.post(path, {"Container": container, "EndpointConfig": _address(item)})

    async def _create_network(self, identity: Identity, resource: Resource) -> None:
        body = {
            "Name": network_name(identity.record.id, resource.name),
            "Driver": "bridge",
            "Internal": True,
            "CheckDuplicate": True,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": resource.spec["subnet"]}]},
            "Labels": labels(identity, "network", resource.name, resource.spec),
        }
        try:
            await self._engine.post("/networks/create", body)
        except EngineError as error:
            remedy = None
            if "overlap" in error.message:
                remedy = f"Another network of this Engine uses {resource.spec['subnet']} (`docker network ls`): write another subnet."
            raise ProviderError(error.message, resource=str(resource), remedy=remedy or error.remedy) from error


def _address(interface: Mapping[str, Any]) -> dict[str, Any]:
    return {"IPAMConfig": {"IPv4Address": interface["address"].partition("/")[0]}}


def _known(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a node's spec is the wiring's: its limits and its way out are the Engine's."""
    return {**spec, "cpus": None, "memory": None, "internet": False, "env": {}}


def _quiet(name: str, state: str) -> None:
    """Who makes the container tells of it."""
