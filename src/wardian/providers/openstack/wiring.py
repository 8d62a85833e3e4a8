"""An environment's networks, and the way to its servers: who may reach whom, routers, the floating IP."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence, Set
from typing import Any

from ...errors import ProviderError
from ...experiment.resources import Resource
from ..base import Progress
from ..concurrency import all_of
from .cloud import Cloud
from .names import access, bastion, name
from .observation import Snapshot
from .settings import OpenStackSettings

RANGES = ("10.255.240.0/22", "172.31.240.0/22", "192.168.240.0/22")
"""Of addresses by which servers are reached: the first that no network of the experiment has part of."""


class Wiring:
    """Work on what joins one environment's servers. said: what every description says."""

    def __init__(self, cloud: Cloud, settings: OpenStackSettings, environment: str, said: str, progress: Progress) -> None:
        self._cloud = cloud
        self._settings = settings
        self._environment = environment
        self._said = said
        self._progress = progress
        self._about = f"environment {environment}"

    # Who may reach whom

    async def create_groups(self) -> dict[str, Any]:
        """Security groups, by name: servers hear one another, and from elsewhere SSH alone, at the bastion alone."""
        ours, outer = called = name(self._environment), bastion(self._environment)
        asked = [{"name": each, "description": self._said} for each in called]

        def create(cloud: Any) -> dict[str, Any]:
            from openstack.network.v2.security_group import SecurityGroup

            return {item.name: item for item in SecurityGroup.bulk_create(cloud.network, asked)}

        def find(cloud: Any) -> list[dict[str, Any]]:
            there = {item.name: item for each in called for item in cloud.network.security_groups(name=each)}
            return [there] if len(there) == len(called) else []

        made: dict[str, Any] = await self._cloud.make(self._about, create, find)
        inward = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
        among = [{"remote_group_id": made[ours].id}]
        into = [{"remote_ip_prefix": who, **inward} for who in self._settings.admit]
        await all_of(self._create_rules(made[called], rules) for called, rules in ((ours, among), (outer, into)) if rules)
        return made

    async def _create_rules(self, group: Any, rules: Sequence[dict[str, Any]]) -> None:
        wanted = [{"security_group_id": group.id, "direction": "ingress", "ethertype": "IPv4", **rule} for rule in rules]
        try:
            # all of them or none
            await self._cloud.ask(self._about, lambda cloud: list(cloud.network.create_security_group_rules(wanted)))
        except ProviderError as error:
            if getattr(error, "status", None) != 409 or "already exists" not in error.message:
                raise

    # Networks

    async def create_networks(self, resources: Sequence[Resource], seen: Snapshot) -> None:
        """Networks and subnets, and the router that joins those that links join. What is made is in `seen` from then on.

        Those that are reserved were made with their lease, which has to be ACTIVE. Raises ProviderError where one of them is not there.
        """
        router: Any = None
        if any(resource.spec["gateway"] for resource in resources):
            router = await self._router(name(self._environment), seen)
        await all_of(self._create_network(resource, router, seen) for resource in resources)

    async def _create_network(self, resource: Resource, router: Any, seen: Snapshot) -> None:
        self._progress(resource.name, "creating")
        spec = resource.spec
        mtu = {"mtu": spec["mtu"]} if "mtu" in spec else {}
        # a second default route would lead away from the one to the outside
        routes = [{"destination": route["to"], "nexthop": route.get("via") or spec["gateway"]} for route in spec.get("routes", ())]
        subnet = {"cidr": spec["subnet"], "gateway_ip": None, "host_routes": routes, "allocation_pools": [_spare(spec["subnet"])]}
        called = name(self._environment, resource.name)
        reserved = await self._reserved(called, str(resource), mtu) if "lease" in spec else None
        network = seen.networks[called] = await self._network(called, str(resource), mtu, subnet, reserved)
        if spec["gateway"]:
            await self._join(str(resource), router, network, spec["gateway"])
        self._progress(resource.name, "ready")

    async def _reserved(self, called: str, about: str, mtu: dict[str, Any]) -> Any:
        """A network that was made with its lease, and has no subnet."""
        found = await self._cloud.all(about, lambda cloud: cloud.network.networks(name=called))
        if not found:
            remedy = "`wardian down`, and `wardian up` asks for another lease; if that has none either, ask the site."
            raise ProviderError(f"its lease is ACTIVE, and there is no network {called}", resource=about, remedy=remedy)
        return await self._cloud.ask(about, lambda cloud: cloud.network.update_network(found[0], **mtu)) if mtu else found[0]

    async def _network(self, called: str, about: str, network: dict[str, Any], subnet: dict[str, Any], there: Any = None) -> Any:
        """A network with its subnet. there: the network, where it lacks that alone."""
        made = there or await self._cloud.make(
            about,
            lambda cloud: cloud.network.create_network(name=called, description=self._said, **network),
            lambda cloud: cloud.network.networks(name=called),
        )
        within = await self._cloud.make(
            about,
            lambda cloud: cloud.network.create_subnet(name=called, network_id=made.id, ip_version=4, **subnet),
            lambda cloud: cloud.network.subnets(network_id=made.id),
        )
        made.subnet_ids = [within.id]
        return made

    async def _router(self, called: str, seen: Snapshot, **outward: Any) -> Any:
        if called not in seen.routers:
            seen.routers[called] = await self._cloud.make(
                self._about,
                lambda cloud: cloud.network.create_router(name=called, description=self._said, **outward),
                lambda cloud: cloud.network.routers(name=called),
            )
        return seen.routers[called]

    async def _join(self, about: str, router: Any, network: Any, address: str | None = None) -> None:
        """Put a router on a network, at this address, else at that of the subnet's gateway."""
        way = {"subnet_id": network.subnet_ids[0]}
        if address:
            wanted = {"name": network.name, "network_id": network.id, "fixed_ips": [{**way, "ip_address": address}]}
            port = await self._cloud.make(
                about,
                lambda cloud: cloud.network.create_port(**wanted),
                lambda cloud: cloud.network.ports(network_id=network.id, name=network.name),
            )
            way = {"port_id": port.id}
        try:
            await self._cloud.ask(about, lambda cloud: cloud.network.add_interface_to_router(router, **way))
        except ProviderError:
            # asked for twice, since the first answer was lost
            if not await self._cloud.all(about, lambda cloud: cloud.network.ports(network_id=network.id, device_id=router.id)):
                raise

    async def delete_networks(self, called: Sequence[str], seen: Snapshot, reserved: Set[str] = frozenset()) -> None:
        """Networks with all that is on them; of those that are reserved only that, since they go with their lease."""
        await all_of(self._delete_network(what, seen, what in reserved) for what in called)

    async def _delete_network(self, called: str, seen: Snapshot, reserved: bool) -> None:
        network = seen.networks.get(called)
        if network is None:
            return
        for port in seen.ports:
            if port.network_id != network.id:
                continue
            if port in seen.interfaces(network):
                await self._gone(called, lambda cloud, port=port: cloud.network.remove_interface_from_router(port.device_id, None, port.id))
            elif not (port.device_owner or "").startswith("network:"):
                await self._gone(called, lambda cloud, port=port: cloud.network.delete_port(port.id))
        if not reserved:
            await self._gone(called, lambda cloud: cloud.network.delete_network(network.id))
            return
        for subnet in network.subnet_ids or ():
            await self._gone(called, lambda cloud, subnet=subnet: cloud.network.delete_subnet(subnet))

    # The way in

    async def create_access(self, seen: Snapshot, subnets: Iterable[str]) -> Any:
        """The network by which servers are reached: the one that is named, or one that leads outside through a router of its own.

        subnets: those of the experiment's own networks.
        """
        if chosen := self._settings.access:
            found = await self._cloud.all(self._about, lambda cloud: cloud.network.networks())
            return _only("access", chosen, [item for item in found if chosen in (item.name, item.id)], found, self._about)
        called = access(self._environment)
        there = seen.networks.get(called)
        if there is not None and there.subnet_ids and seen.interfaces(there):
            return there
        if there is not None:
            await self.delete_networks([called], seen)
        outside = await self._external() if self._settings.floating or self._settings.external else None
        outward = {"external_gateway_info": {"network_id": outside.id}} if outside else {}
        router = await self._router(called, seen, **outward)
        taken = [ipaddress.IPv4Network(each) for each in subnets]
        subnet = next(item for item in map(ipaddress.IPv4Network, RANGES) if not any(map(item.overlaps, taken)))
        made = await self._network(called, self._about, {}, {"cidr": str(subnet), "gateway_ip": str(subnet[1])})
        await self._join(self._about, router, made)
        return made

    async def _external(self) -> Any:
        chosen = self._settings.external
        found = await self._cloud.outside()
        return _only("external", chosen, [item for item in found if chosen in (None, item.name, item.id)], found, self._about)

    async def create_floating(self, server: Any, network: Any, seen: Snapshot, reserved: Set[str]) -> tuple[Any, Any]:
        """A server's port on the network by which it is reached, and the address at which it is from outside.

        That is made, moved there, or one that is reserved, known by these tags.
        """
        ours = name(self._environment)
        ports = await self._cloud.all(self._about, lambda cloud: cloud.network.ports(device_id=server.id))
        port = next((item for item in ports if item.network_id == network.id), None)
        if port is None:
            raise ProviderError(f"server {server.name} is not on network {network.name}", resource=self._about)
        if seen.floating:
            floating = seen.floating[0]
            if floating.port_id != port.id:
                floating = await self._cloud.ask(self._about, lambda cloud: cloud.network.update_ip(seen.floating[0].id, port_id=port.id))
            return port, floating
        outside = await self._external()
        listed = await self._cloud.all(self._about, lambda cloud: cloud.network.ips(floating_network_id=outside.id)) if reserved else []
        if free := [item.id for item in listed if item.port_id is None and reserved & set(item.tags or ())]:
            moved = {"port_id": port.id, "description": ours}
            return port, await self._cloud.ask(self._about, lambda cloud: cloud.network.update_ip(free[0], **moved))
        return port, await self._cloud.make(
            self._about,
            lambda cloud: cloud.network.create_ip(floating_network_id=outside.id, port_id=port.id, description=ours),
            lambda cloud: cloud.network.ips(description=ours),
        )

    async def delete_access(self, seen: Snapshot) -> None:
        """The way in, and all that belongs to no network and no node; servers and networks have to be gone."""
        await all_of(self._gone(self._about, lambda cloud, item=item: cloud.network.delete_ip(item.id)) for item in seen.floating)
        ways = [called for called, network in seen.networks.items() if network.name == access(self._environment)]
        await self.delete_networks(ways, seen)
        await all_of(
            self._gone(self._about, lambda cloud, item=item: cloud.network.delete_router(item.id)) for item in seen.routers.values()
        )
        groups = seen.groups.values()
        await all_of(self._gone(self._about, lambda cloud, item=item: cloud.network.delete_security_group(item.id)) for item in groups)

    async def delete_doubles(self, seen: Snapshot) -> None:
        """What is there twice, since a request that was believed to be lost was done after it had been sent again."""
        await self.delete_networks([called for called, item in seen.networks.items() if called != item.name], seen)
        for called, item in seen.routers.items():
            if called != item.name:
                await self._gone(self._about, lambda cloud, item=item: cloud.network.delete_router(item.id))
        for called, item in seen.groups.items():
            if called != item.name:
                await self._gone(self._about, lambda cloud, item=item: cloud.network.delete_security_group(item.id))

    async def _gone(self, about: str, request: Any) -> None:
        await self._cloud.gone(about, request)


def _spare(subnet: str) -> dict[str, str]:
    """What of a subnet the cloud may use itself, for its DHCP servers: the upper end, since nodes are numbered from the lower one."""
    network = ipaddress.IPv4Network(subnet)
    room = min(16, max(1, network.num_addresses // 8))
    return {"start": str(network[-1 - room]), "end": str(network[-2])}


def _only(setting: str, chosen: str | None, matching: Sequence[Any], found: Sequence[Any], about: str) -> Any:
    if len(matching) == 1:
        return matching[0]
    there = ", ".join(sorted(item.name for item in found)) or "none"
    message = (
        f"{len(matching) or 'no'} networks are {chosen or 'external'}"
        if len(matching) > 1 or not chosen
        else f"there is no network {chosen}"
    )
    raise ProviderError(message, resource=about, remedy=f"Name one by `{setting}:`; there are: {there}.")
