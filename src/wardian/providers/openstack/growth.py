"""Making an environment's resources on a cloud, and removing them."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ProviderError
from ...experiment.resources import Resource
from ..base import Progress
from ..docker.concurrency import all_of
from .cloud import Cloud
from .index import Index
from .names import metadata, name
from .observation import Snapshot, fault, servers, snapshot
from .settings import OpenStackSettings

INTERVAL = 1.0
"""Between two looks at servers that are being made or removed, seconds: one request for all of them."""


class Growth:
    """Work on one environment, by who holds its lock."""

    def __init__(self, cloud: Cloud, index: Index, settings: OpenStackSettings, environment: str, progress: Progress) -> None:
        self._cloud = cloud
        self._index = index
        self._settings = settings
        self._environment = environment
        self._progress = progress

    # The environment itself

    async def create_environment(self, resource: Resource) -> None:
        """Its security group, whose members hear one another and nobody else, and its key."""
        ours = name(self._environment)
        said = f"{resource.spec['name']} ({resource.spec['instance']}) of {resource.spec['user']} on {resource.spec['host']}"[:255]
        group = await self._ask(resource, lambda cloud: cloud.network.create_security_group(name=ours, description=said))
        inward = {"security_group_id": group.id, "direction": "ingress", "ethertype": "IPv4", "remote_group_id": group.id}
        await self._ask(resource, lambda cloud: cloud.network.create_security_group_rule(**inward))
        public = self._key()
        await self._ask(resource, lambda cloud: cloud.compute.create_keypair(name=ours, public_key=public))

    async def delete_environment(self, seen: Snapshot) -> None:
        """What belongs to no network and no node."""
        about = f"environment {self._environment}"
        await all_of(self._gone(about, lambda cloud, item=item: cloud.network.delete_router(item.id)) for item in seen.routers)
        await all_of(self._gone(about, lambda cloud, item=item: cloud.network.delete_security_group(item.id)) for item in seen.groups)
        await all_of(self._gone(about, lambda cloud, item=item: cloud.compute.delete_keypair(item.name)) for item in seen.keys)

    # Networks

    async def create_networks(self, resources: Sequence[Resource]) -> None:
        """Networks and subnets, and the router that joins those that links join."""
        router: Any = None
        if any(resource.spec["gateway"] for resource in resources):
            seen = await snapshot(self._cloud, self._environment)
            ours = name(self._environment)
            router = (
                seen.routers[0] if seen.routers else await self._ask(resources[0], lambda cloud: cloud.network.create_router(name=ours))
            )
        await all_of(self._create_network(resource, router) for resource in resources)

    async def _create_network(self, resource: Resource, router: Any) -> None:
        self._progress(resource.name, "creating")
        ours, spec = name(self._environment, resource.name), resource.spec
        mtu = {"mtu": spec["mtu"]} if "mtu" in spec else {}
        network = await self._ask(resource, lambda cloud: cloud.network.create_network(name=ours, **mtu))
        wanted = {"name": ours, "network_id": network.id, "ip_version": 4, "cidr": spec["subnet"], "gateway_ip": spec["gateway"]}
        subnet = await self._ask(resource, lambda cloud: cloud.network.create_subnet(**wanted))
        if spec["gateway"]:
            await self._ask(resource, lambda cloud: cloud.network.add_interface_to_router(router, subnet.id))
        self._progress(resource.name, "ready")

    async def delete_networks(self, names: Sequence[str], seen: Snapshot) -> None:
        """Networks with all that is on them."""
        await all_of(self._delete_network(what, seen) for what in names)

    async def _delete_network(self, what: str, seen: Snapshot) -> None:
        network = seen.networks.get(name(self._environment, what))
        if network is None:
            return
        about = f"network {what}"
        for port in seen.interfaces(network):
            await self._gone(about, lambda cloud, port=port: cloud.network.remove_interface_from_router(port.device_id, None, port.id))
        await self._gone(about, lambda cloud: cloud.network.delete_network(network.id))
        self._progress(what, "gone")

    # Nodes

    async def create_nodes(self, resources: Sequence[Resource]) -> None:
        """Ports with their addresses by one request, a server each, and one look a second at all of them until they are ready."""
        seen = await snapshot(self._cloud, self._environment)
        # of an attempt that was cut short between its ports and its servers
        await self.delete_ports([port for item in resources for port in seen.ports_of(self._environment, item.spec["hostname"])])
        flavors, image = await asyncio.gather(self._cloud.all("flavours", lambda cloud: cloud.compute.flavors()), self._image(resources[0]))
        ports = await self._create_ports(resources, seen)
        await all_of(self._create_server(resource, ports[resource.name], flavors, image) for resource in resources)
        await self._wait({resource.name: name(self._environment, resource.spec["hostname"]) for resource in resources})

    async def _create_ports(self, resources: Sequence[Resource], seen: Snapshot) -> dict[str, list[Any]]:
        wanted, owners = [], []
        for resource in resources:
            for interface in resource.spec["interfaces"]:
                network = seen.networks.get(name(self._environment, interface["network"]))
                if network is None or not network.subnet_ids:
                    raise ProviderError(f"there is no network {interface['network']}", resource=str(resource))
                address = interface["address"].partition("/")[0]
                wanted.append(
                    {
                        "name": name(self._environment, f"{resource.spec['hostname']}-port"),
                        "network_id": network.id,
                        "fixed_ips": [{"subnet_id": network.subnet_ids[0], "ip_address": address}],
                        "security_groups": [group.id for group in seen.groups],
                    }
                )
                owners.append(resource.name)
        made: dict[str, list[Any]] = {resource.name: [] for resource in resources}
        if wanted:
            created = await self._cloud.all("ports", lambda cloud: cloud.network.create_ports(wanted))
            for owner, port in zip(owners, created, strict=True):
                made[owner].append(port)
        return made

    async def _create_server(self, resource: Resource, ports: Sequence[Any], flavors: Sequence[Any], default: Any) -> None:
        self._progress(resource.name, "creating")
        spec = resource.spec
        image = default if spec["image"] is None else await self._image(resource)
        wanted = {
            "name": name(self._environment, spec["hostname"]),
            "image_id": image.id,
            "flavor_id": self._flavor(resource, flavors).id,
            "networks": [{"port": port.id} for port in ports] or "none",
            "key_name": name(self._environment),
            "metadata": metadata(resource.name, spec),
            "user_data": base64.b64encode(_user_data(spec).encode()).decode(),
        }
        await self._ask(resource, lambda cloud: cloud.compute.create_server(**wanted))

    async def _wait(self, wanted: Mapping[str, str]) -> None:
        """Until these servers, {node: name}, are ACTIVE. Raises ProviderError with Nova's reason as soon as one is in ERROR."""
        end = time.monotonic() + self._settings.patience
        told: dict[str, str] = {}
        while True:
            found = {server.name: server for server in await servers(self._cloud, self._environment)}
            states = {node: found[server].status if server in found else "gone" for node, server in wanted.items()}
            for node, now in states.items():
                if told.get(node) != now:
                    self._progress(node, "ready" if now == "ACTIVE" else now)
            told = states
            for node, now in states.items():
                if now not in ("ACTIVE", "BUILD"):
                    reason = fault(found[wanted[node]]) if now == "ERROR" else ""
                    raise ProviderError(f"its server is {now}{f': {reason}' if reason else ''}", resource=f"node {node}")
            if all(now == "ACTIVE" for now in states.values()):
                return
            if time.monotonic() > end:
                late = next(node for node, now in states.items() if now != "ACTIVE")
                raise ProviderError(
                    f"its server is still {states[late]}", resource=f"node {late}", remedy="Give `patience` more, or try again."
                )
            await asyncio.sleep(INTERVAL)

    async def delete_nodes(self, nodes: Sequence[str], seen: Snapshot) -> None:
        """Servers, then their ports: also those of nodes whose server was never made."""
        doomed = [server for node in nodes for server in seen.servers_of(node)]
        await all_of(self._gone(f"server {item.name}", lambda cloud, item=item: cloud.compute.delete_server(item.id)) for item in doomed)
        left = {server.id for server in doomed}
        end = time.monotonic() + self._settings.patience
        while left:
            left &= {server.id for server in await servers(self._cloud, self._environment)}
            if left and time.monotonic() > end:
                raise ProviderError(f"servers {', '.join(sorted(left))} do not go away", resource=f"environment {self._environment}")
            if left:
                await asyncio.sleep(INTERVAL)
        hostnames = [node.replace("[", "-").rstrip("]") for node in nodes]
        await self.delete_ports([port for hostname in hostnames for port in seen.ports_of(self._environment, hostname)])
        for node in nodes:
            self._progress(node, "gone")

    async def delete_ports(self, ports: Sequence[Any]) -> None:
        """Ports of servers that are gone, or were never made."""
        await all_of(self._gone(f"port {item.name}", lambda cloud, item=item: cloud.network.delete_port(item.id)) for item in ports)

    # What servers are made from

    def _flavor(self, resource: Resource, flavors: Sequence[Any]) -> Any:
        chosen = self._settings.flavor
        if chosen is not None:
            found = [item for item in flavors if chosen in (item.name, item.id)]
        else:
            cpus, memory = resource.spec["cpus"] or 0, (resource.spec["memory"] or 0) / 2**20
            found = sorted((item for item in flavors if item.vcpus >= cpus and item.ram >= memory), key=lambda item: (item.vcpus, item.ram))
        if not found:
            there = ", ".join(sorted(item.name for item in flavors))
            raise ProviderError(f"no flavour is {chosen or 'large enough'}", resource=str(resource), remedy=f"There are: {there}.")
        return found[0]

    async def _image(self, resource: Resource) -> Any:
        chosen = resource.spec["image"] or self._settings.image
        found = await self._cloud.all("images", lambda cloud: cloud.image.images(status="active"))
        matching = [item for item in found if chosen in (item.name, item.id)]
        if not matching:
            there = ", ".join(sorted({item.name for item in found})) or "none"
            remedy = f"Set `image`; there are: {there}."
            raise ProviderError(f"there is no image {chosen}" if chosen else "no image is named", resource=str(resource), remedy=remedy)
        return max(matching, key=lambda item: item.created_at)

    def _key(self) -> str:
        """The public half of the environment's key; the private one is kept here."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        path = self._index.key(self._environment)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate()
        text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text)
        return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()

    async def _ask(self, resource: Resource, request: Any) -> Any:
        return await self._cloud.ask(str(resource), request)

    async def _gone(self, about: str, request: Any) -> None:
        await self._cloud.gone(about, request)


def _user_data(spec: Mapping[str, Any]) -> str:
    return f"#cloud-config\nhostname: {spec['hostname']}\nmanage_etc_hosts: true\n"
