"""Reading an environment back from its cloud: one list of each kind, all at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...experiment.resources import EnvironmentRecord, Observed, ObservedResource
from ..ssh.index import Entry
from .cloud import Cloud
from .names import access, belongs, name, node_of

INTERVAL = 1.0
"""Between two looks at servers that are being made or removed, seconds, at least: one request for all of them."""

SHARE = 1 / 2
"""Of the time, at most, that is spent on looks: a cloud that is long in answering is busy with what one waits for."""

CHANGING = ("BUILD", "REBUILD", "REBOOT", "HARD_REBOOT")
"""What servers are on their way to ACTIVE."""

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


class Look:
    """How the servers of an environment are, for several who wait for them at once: one request a second for all, or fewer."""

    def __init__(self, cloud: Cloud, environment: str) -> None:
        self._cloud = cloud
        self._environment = environment
        self._gate = asyncio.Lock()
        self._begun = self._next = -math.inf
        self._listed: list[Any] = []

    async def after(self, moment: float) -> list[Any]:
        """As they were at some time after `moment`, of time.monotonic()."""
        async with self._gate:
            if self._begun < moment:
                await asyncio.sleep(self._next - time.monotonic())
                self._begun = time.monotonic()
                self._listed = await servers(self._cloud, self._environment)
                self._next = self._begun + max(INTERVAL, (time.monotonic() - self._begun) / SHARE)
            return self._listed


async def has_key(cloud: Cloud, environment: str) -> bool:
    """Whether the key pair of an environment is there."""
    found = await cloud.all("key pairs", lambda connection: connection.compute.keypairs())
    return any(key.name == name(environment) for key in found)


async def snapshot(cloud: Cloud, environment: str, *, listed: Sequence[Any] | None = None) -> Snapshot:
    """What the cloud has of an environment now. listed: its servers, where they are known."""

    async def known() -> list[Any]:
        return await servers(cloud, environment) if listed is None else list(listed)

    asked = (
        known(),
        cloud.all("networks", lambda connection: connection.network.networks()),
        cloud.all("ports", lambda connection: connection.network.ports()),
        cloud.all("routers", lambda connection: connection.network.routers()),
        cloud.all("security groups", lambda connection: connection.network.security_groups()),
        cloud.all("floating IPs", lambda connection: connection.network.ips(description=name(environment))),
    )
    found, networks, ports, routers, groups, floating = await asyncio.gather(*asked)

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
        floating,
    )


def observed(environment: str, seen: Snapshot, entry: Entry | None, *, key: bool) -> Observed:
    """All of an environment. entry: what is written down of it here; key: whether both halves of its key are there."""
    if entry is None and not (seen.groups or seen.servers or seen.networks):
        return Observed()
    record = entry.record if entry else EnvironmentRecord(environment, "", "", "", "openstack", "", "", 0.0)
    group = seen.groups.get(name(record.id))
    # its rules are made after it
    heard = group is not None and any(rule["direction"] == "ingress" for rule in group.security_group_rules or ())
    resources = [_environment(record, key and heard, entry is not None)]
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
    if server.status in CHANGING:
        return "incomplete", f"its server is {server.status}"
    reason = fault(server)
    detail = f"its server is {server.status}{f': {reason}' if reason else ''}"
    return ("incomplete" if server.status == "ERROR" else "stopped"), detail


def fault(server: Any) -> str:
    """Why a server is in ERROR, as Nova says."""
    said: Mapping[str, Any] = server.fault or {}
    return str(said.get("message", ""))


def _environment(record: EnvironmentRecord, complete: bool, recorded: bool) -> ObservedResource:
    if not recorded:
        return ObservedResource("environment", record.name, record.spec, "incomplete", "its record is not on this machine")
    return ObservedResource("environment", record.name, record.spec, *_made(complete))


def _made(complete: bool) -> tuple[str, str]:
    return ("ready", "") if complete else ("incomplete", "its making was cut short")
