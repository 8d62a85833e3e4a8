"""Reading an environment back from its cloud: one list of each kind, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...experiment.resources import EnvironmentRecord, Observed, ObservedResource
from ..ssh.index import Entry
from .cloud import Cloud
from .names import access, belongs, name, node_of

ROUTER_INTERFACES = ("network:router_interface", "network:router_interface_distributed", "network:ha_router_replicated_interface")


@dataclass(frozen=True)
class Snapshot:
    """What there is of one environment, as openstacksdk's objects; networks, routers and groups by their names on the cloud.

    Of several of one name, which a request leaves that was believed to be lost, the one in use has it; others have their id behind it.
    """

    servers: list[Any] = field(default_factory=list)
    networks: dict[str, Any] = field(default_factory=dict)
    ports: list[Any] = field(default_factory=list)
    routers: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    keys: list[Any] = field(default_factory=list)
    floating: list[Any] = field(default_factory=list)

    def servers_of(self, node: str) -> list[Any]:
        """The servers of a node: more than one only where a request was done twice."""
        return [server for server in self.servers if (node_of(server.metadata) or ("", {}))[0] == node]

    def interfaces(self, network: Any) -> list[Any]:
        """The ports by which routers are on a network."""
        return [port for port in self.ports if port.network_id == network.id and port.device_owner in ROUTER_INTERFACES]


async def servers(cloud: Cloud, environment: str) -> list[Any]:
    """The servers of an environment, by one request; those that are deleted are not there any more."""
    pattern = f"^{name(environment)}-"
    found = await cloud.all("servers", lambda connection: connection.compute.servers(details=True, name=pattern))
    return [server for server in found if belongs(environment, server.name) and server.status not in ("DELETED", "SOFT_DELETED")]


async def snapshot(cloud: Cloud, environment: str) -> Snapshot:
    """What the cloud has of an environment now."""
    asked = (
        servers(cloud, environment),
        cloud.all("networks", lambda connection: connection.network.networks()),
        cloud.all("ports", lambda connection: connection.network.ports()),
        cloud.all("routers", lambda connection: connection.network.routers()),
        cloud.all("security groups", lambda connection: connection.network.security_groups()),
        cloud.all("key pairs", lambda connection: connection.compute.keypairs()),
        cloud.all("floating IPs", lambda connection: connection.network.ips(description=name(environment))),
    )
    found, networks, ports, routers, groups, keys, floating = await asyncio.gather(*asked)

    def ours(items: list[Any], parts: Callable[[Any], int]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for item in sorted(items, key=lambda item: (-parts(item), item.created_at or "", item.id)):
            if belongs(environment, item.name):
                named[f"{item.name} {item.id}" if item.name in named else item.name] = item
        return named

    return Snapshot(
        found,
        ours(networks, lambda network: len(network.subnet_ids or ())),
        ports,
        ours(routers, lambda router: sum(port.device_id == router.id for port in ports)),
        ours(groups, lambda group: len(group.security_group_rules or ())),
        [key for key in keys if key.name == name(environment)],
        floating,
    )


def observed(environment: str, seen: Snapshot, entry: Entry | None) -> Observed:
    """All of an environment. entry: what is written down of it here."""
    if entry is None and not (seen.groups or seen.servers or seen.networks):
        return Observed()
    record = entry.record if entry else EnvironmentRecord(environment, "", "", "", "openstack", "", "", 0.0)
    resources = [_environment(record, seen, entry is not None)]
    kept = entry.resources if entry else {}
    for found, network in seen.networks.items():
        if network.name == access(environment):
            continue
        what = found.removeprefix(f"{name(environment)}-")
        spec = kept["network", what].spec if ("network", what) in kept else {}
        complete = bool(network.subnet_ids) and bool(spec) and (spec["gateway"] is None or bool(seen.interfaces(network)))
        resources.append(ObservedResource("network", what, spec, *_made(complete)))
    # of several of one node, the one that is kept comes last
    for server in sorted(seen.servers, key=preference, reverse=True):
        if known := node_of(server.metadata):
            resources.append(ObservedResource("node", *known, *state(server)))
    kinds = ("network", "environment", "node", "lease")
    resources += [ObservedResource(item.kind, item.name, item.spec) for item in kept.values() if item.kind not in kinds]
    return Observed.collect(record, resources)


def preference(server: Any) -> tuple[int, str, str]:
    """Of several servers of one node, the smallest is kept: one that runs, then one that may come to run, then the oldest."""
    return {"ACTIVE": 0, "BUILD": 1}.get(server.status, 2), str(server.created_at or ""), str(server.id)


def state(server: Any) -> tuple[str, str]:
    """A server's state as ours, and in the cloud's own words."""
    if server.status == "ACTIVE":
        return "ready", ""
    if server.status in ("BUILD", "REBUILD", "REBOOT", "HARD_REBOOT"):
        return "incomplete", f"its server is {server.status}"
    reason = fault(server)
    detail = f"its server is {server.status}{f': {reason}' if reason else ''}"
    return ("incomplete" if server.status == "ERROR" else "stopped"), detail


def fault(server: Any) -> str:
    """Why a server is in ERROR, as Nova says."""
    said: Mapping[str, Any] = server.fault or {}
    return str(said.get("message", ""))


def _environment(record: EnvironmentRecord, seen: Snapshot, recorded: bool) -> ObservedResource:
    if not recorded:
        return ObservedResource("environment", record.name, record.spec, "incomplete", "its record is not on this machine")
    return ObservedResource("environment", record.name, record.spec, *_made(bool(name(record.id) in seen.groups and seen.keys)))


def _made(complete: bool) -> tuple[str, str]:
    return ("ready", "") if complete else ("incomplete", "its making was cut short")
