"""`settings.reserve`: what a site's reservation service (Blazar) is to hold for an experiment, and what that costs there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt

from ...experiment.fields import Duration, Size
from ...experiment.resources import Resource
from .properties import parse

NOW, FIRST_FREE = "now", "first-free"
TIME = "%Y-%m-%d %H:%M"
"""As Blazar reads and writes times, always UTC."""


def minute(text: str) -> int:
    """A time as `TIME` has it, in minutes since the epoch."""
    return int(datetime.strptime(text[:16].replace("T", " "), TIME).replace(tzinfo=UTC).timestamp()) // 60


def said(when: int) -> str:
    """Minutes since the epoch as `TIME` has them."""
    return datetime.fromtimestamp(when * 60, UTC).strftime(TIME)


def _start(value: object) -> object:
    if value in (NOW, FIRST_FREE):
        return value
    try:
        given = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"{NOW}, {FIRST_FREE}, or a time such as 2026-12-01 09:00 (UTC unless it says otherwise)") from None
    return (given.replace(tzinfo=given.tzinfo or UTC)).astimezone(UTC).strftime(TIME)


def _expression(value: str) -> str:
    parse(value)
    return value


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Expression = Annotated[str, AfterValidator(_expression)]


class Hosts(_Model):
    """Whole machines. Nodes are servers on them."""

    on: str = Field(default="all", description="selector of the nodes that they are for")
    count: PositiveInt | None = Field(default=None, description="how many; without it one for each of these nodes")
    properties: Expression = Field(default="", description="which: `node_type == compute_skylake and memory_mb >= 65536`")


class Instances(_Model):
    """Room for servers of one size."""

    on: str = Field(default="all", description="selector of the nodes that they are for: one each")
    cpus: PositiveInt = Field(description="processors of each")
    memory: Size = Field(description="memory of each")
    disk: Size = Field(default=10 * 2**30, description="disk of each")
    properties: Expression = Field(default="", description="on which hosts")
    apart: bool = Field(default=False, description="each on a host of its own")


class Segment(_Model):
    """What a network is made on: a VLAN, as Chameleon's Blazar gives it out."""

    properties: Expression = Field(default="", description="which: `stitch_provider == fabric and segment_id == 3305`")
    description: str = Field(default="", description="the network's description on the cloud, by which some sites take parameters")


class Reserve(_Model):
    """What one lease of the site's reservation service holds, all of it from the same start for `lease.duration`."""

    start: Annotated[str, BeforeValidator(_start)] = Field(default=NOW, description="now, first-free, or a time in UTC")
    hosts: tuple[Hosts, ...] = Field(default=(), description="whole machines")
    instances: tuple[Instances, ...] = Field(default=(), description="room for servers")
    floating_ips: dict[str, PositiveInt] = Field(default={}, description="addresses out of networks outside: {network: how many}")
    networks: dict[str, Segment] = Field(default={}, description="networks of the experiment that the service makes: {network: on what}")
    gap: Duration = Field(default=0.0, description="time that the site leaves between two leases of a host; for `first-free` and slots")
    patience: Duration = Field(default=900.0, description="longest that the lease may take from its start until it is ACTIVE")


class Rates(_Model):
    """What a site charges, by the hour."""

    currency: str = Field(default="SU", description="in what")
    host: float = Field(default=0.0, ge=0, description="a reserved host")
    floating_ip: float = Field(default=0.0, ge=0, description="a reserved address")
    flavors: dict[str, Annotated[float, Field(ge=0)]] = Field(default={}, description="a server that is on no reserved host, by flavour")
    server: float = Field(default=0.0, ge=0, description="such a server of any other flavour, or in a reservation of instances")


def reservations(reserve: Reserve) -> list[dict[str, Any]]:
    """The reservations of its lease as plain values, but for how many each has: of a lease's spec."""
    result: list[dict[str, Any]] = [{"type": "host", "on": item.on, "properties": item.properties} for item in reserve.hosts]
    result += [
        {
            "type": "instance",
            "on": item.on,
            "properties": item.properties,
            "cpus": item.cpus,
            "memory": item.memory,
            "disk": item.disk,
            "apart": item.apart,
        }
        for item in reserve.instances
    ]
    result += [{"type": "floating_ip", "network": network} for network in reserve.floating_ips]
    return result + [{"type": "network", "network": network, **segment.model_dump()} for network, segment in reserve.networks.items()]


Room = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""By a node's spec, the reservation of instances whose size its server has, in place of a flavour."""


def reserved(desired: Sequence[Resource]) -> Room:
    """Which nodes are in room that is reserved."""
    kinds: Sequence[Mapping[str, Any]] = next((item.spec["reservations"] for item in desired if item.kind == "lease"), [])

    def find(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
        position = node.get("reservation")
        held = kinds[position] if position is not None and position < len(kinds) else None
        return held if held and held["type"] == "instance" else None

    return find


def counts(reserve: Reserve, picked: Mapping[int, int]) -> list[int]:
    """How many each of `reservations` has. picked: {position of a reservation with `on`: how many nodes that picks}."""
    whole = [item.count or picked[position] for position, item in enumerate(reserve.hosts)]
    room = [picked[len(whole) + position] for position in range(len(reserve.instances))]
    return [*whole, *room, *reserve.floating_ips.values(), *(1 for _ in reserve.networks)]
