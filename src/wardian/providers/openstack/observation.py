"""Reading an environment back from its cloud: one list of each kind, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...experiment.resources import EnvironmentRecord, Observed, ObservedResource
from .cloud import Cloud
from .index import Entry
from .names import belongs, name, node_of

ROUTER_INTERFACE = "network:router_interface"


@dataclass(frozen=True)
class Snapshot:
    """What there is of one environment, as openstacksdk's objects; networks by their names on the cloud."""

    servers: list[Any] = field(default_factory=list)
    networks: dict[str, Any] = field(default_factory=dict)
    ports: list[Any] = field(default_factory=list)
    routers: list[Any] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)

    def servers_of(self, node: str) -> list[Any]:
        """The servers of a node: more than one only where two processes made it at once."""
        return [server for server in self.servers if (node_of(server.metadata) or ("", {}))[0] == node]

    def ports_of(self, environment: str, hostname: str) -> list[Any]:
        """The ports of a node."""
        return [port for port in self.ports if port.name == name(environment, f"{hostname}-port")]

    def interfaces(self, network: Any) -> list[Any]:
        """The ports by which routers are on a network."""
        return [port for port in self.ports if port.network_id == network.id and port.device_owner == ROUTER_INTERFACE]


async def servers(cloud: Cloud, environment: str) -> list[Any]:
    """The servers of an environment, by one request; those being deleted are not there any more."""
    pattern = f"^{name(environment)}-"
    found = await cloud.all("servers", lambda connection: connection.compute.servers(details=True, name=pattern))
    return [server for server in found if belongs(environment, server.name) and server.status != "DELETED"]


async def snapshot(cloud: Cloud, environment: str) -> Snapshot:
    """What the cloud has of an environment now."""
    asked = (
        servers(cloud, environment),
        cloud.all("networks", lambda connection: connection.network.networks()),
        cloud.all("ports", lambda connection: connection.network.ports()),
        cloud.all("routers", lambda connection: connection.network.routers(name=name(environment))),
        cloud.all("security groups", lambda connection: connection.network.security_groups(name=name(environment))),
        cloud.all("key pairs", lambda connection: connection.compute.keypairs()),
    )
    found, networks, ports, routers, groups, keys = await asyncio.gather(*asked)
    ours = {network.name: network for network in networks if belongs(environment, network.name)}
    on = {network.id for network in ours.values()}
    return Snapshot(
        servers=found,
        networks=ours,
        ports=[port for port in ports if port.network_id in on],
        routers=routers,
        groups=groups,
        keys=[key for key in keys if key.name == name(environment)],
    )


def observed(environment: str, seen: Snapshot, entry: Entry | None) -> Observed:
    """All of an environment. entry: what is written down of it here."""
    if entry is None and not (seen.groups or seen.servers or seen.networks):
        return Observed()
    record = entry.record if entry else _record(environment, seen)
    resources = [_environment(record, seen, entry is not None)]
    kept = entry.resources if entry else {}
    for found, network in seen.networks.items():
        what = found.removeprefix(name(environment, "") + "-")
        spec = kept["network", what].spec if ("network", what) in kept else {}
        complete = bool(network.subnet_ids) and bool(spec) and (spec["gateway"] is None or bool(seen.interfaces(network)))
        detail = "" if complete else "its making was cut short"
        resources.append(ObservedResource("network", what, spec, "ready" if complete else "incomplete", detail))
    for server in seen.servers:
        if known := node_of(server.metadata):
            resources.append(ObservedResource("node", *known, *state(server)))
    resources += [
        ObservedResource(item.kind, item.name, item.spec) for item in kept.values() if item.kind not in ("network", "environment")
    ]
    return Observed.collect(record, resources)


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
    complete = bool(seen.groups and seen.keys)
    return ObservedResource(
        "environment", record.name, record.spec, *(("ready", "") if complete else ("incomplete", "its making was cut short"))
    )


def _record(environment: str, seen: Snapshot) -> EnvironmentRecord:
    said = seen.groups[0].description if seen.groups else ""
    return EnvironmentRecord(environment, said, "", "", "openstack", "", "", 0.0)
