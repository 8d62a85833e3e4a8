"""Which way packets go in an environment, what the file says that happens to them there, and which pairs of nodes show all of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ...experiment.resources import ObservedResource, Resource

Key = tuple[str, str]
Resources = Mapping[Key, ObservedResource]

MOST_HOPS = 64
DEFAULT_MTU = 1500
SHAPES = {"uniform": (0.0, 3**-0.5, 1.0), "normal": (0.0, 1.0, 1.349), "pareto": (-0.277, 0.737, 0.562)}
"""{distribution: (median, standard deviation, distance of the quartiles)} of a jitter of 1; none is off by more than four."""
SMALL = 60
"""Nodes up to which every pair of them is thought of."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """One direction of a link or access link. way: "there" or "back" of a link, "up" or "down" of an access link."""

    kind: str
    name: str
    way: str

    @property
    def key(self) -> Key:
        return self.kind, self.name

    def __str__(self) -> str:
        return f"{self.name} {self.way}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What happens to a packet on a path. Seconds, fractions, bits a second; None where nothing is said.

    jitter: that of the one stretch that has some, with its distribution; of several, the deviation of all together, as if normal.
    deviation: standard deviation of the delay. bursts: how many times the variance of a count of losses is that of independent ones.
    queue: SHAPE's queue of the slowest stretch. lost_before: what share is lost before it comes to that
    stretch. traced: parts that follow a trace somewhere on the path.
    """

    delay: float
    jitter: float
    distribution: str
    deviation: float
    loss: float
    bursts: float
    duplicate: float
    reorder: float
    rate: float | None
    queue: Mapping[str, Any] | None
    lost_before: float
    mtu: int | None
    traced: frozenset[str]


def path(resources: Resources, source: str, target: str) -> list[Stretch] | None:
    """The stretches that a packet from one node to another crosses, in order; None where there is no way."""
    here, address = resources["node", source], _address_for(resources, source, target)
    stretches: list[Stretch] = []
    node: str = source
    for _ in range(MOST_HOPS):
        network = _network_of(here.spec, address)
        if network is not None:
            stretches.append(Stretch("access", f"{node}/{network}", "up"))
            stretches.append(Stretch("access", f"{target}/{network}", "down"))
            return stretches
        route = _route(here.spec["routes"], address)
        if route is None:
            return None
        network = _network_of(here.spec, ipaddress.IPv4Address(route["via"]))
        if network is None:
            return None
        stretches.append(Stretch("access", f"{node}/{network}", "up"))
        onward = _through(resources, network, ipaddress.IPv4Address(route["via"]), address, target)
        if onward is None:
            return None
        more, arrived, router = onward
        stretches += more
        if arrived:
            return stretches
        node, here = router, resources["node", router]
    return None


def expected(stretches: Iterable[Stretch], shapes: Mapping[Key, Mapping[str, Any]]) -> Expected:
    """What stretches one after the other do. shapes: {(kind, name): spec of a link or access link}."""
    delay = 0.0
    jitters: list[tuple[float, str]] = []
    kept = before = single = 1.0
    bursts, reorder, traced = 1.0, 0.0, set()
    rate: float | None = None
    queue: Mapping[str, Any] | None = None
    mtus: list[int] = []
    for stretch in stretches:
        spec = shapes.get(stretch.key, {})
        shape = spec.get(stretch.way, {})
        delay += shape.get("delay", 0.0)
        if shape.get("jitter"):
            jitters.append((shape["jitter"], shape.get("distribution", "uniform")))
        bursts = max(bursts, dispersion(shape))
        single *= 1 - shape.get("duplicate", 0.0)
        reorder = 1 - (1 - reorder) * (1 - shape.get("reorder", 0.0))
        if "rate" in shape and (rate is None or shape["rate"] < rate):
            rate, queue, before = shape["rate"], shape.get("queue") or {}, kept
        # a stretch loses what its rate has let through
        kept *= 1 - shape.get("loss", 0.0)
        mtus += [spec["mtu"]] if "mtu" in spec else []
        if "trace" in shape:
            traced.update(shape["trace"]["steps"][0][1])
    deviation = sum((jitter * SHAPES[distribution][1]) ** 2 for jitter, distribution in jitters) ** 0.5
    jitter, distribution = jitters[0] if len(jitters) == 1 else (deviation, "normal")
    return Expected(
        delay=delay,
        jitter=jitter,
        distribution=distribution,
        deviation=deviation,
        loss=1 - kept,
        bursts=bursts,
        duplicate=1 - single,
        reorder=reorder,
        rate=rate,
        queue=queue,
        lost_before=1 - before,
        mtu=min([*mtus, DEFAULT_MTU]) if mtus and min(mtus) < DEFAULT_MTU else None,
        traced=frozenset(traced),
    )


def dispersion(shape: Mapping[str, Any]) -> float:
    """How many times the variance of a count of losses is that of independent ones: they come in bursts (Gilbert's model)."""
    loss, burst = shape.get("loss", 0.0), shape.get("loss_burst")
    if not burst or not 0 < loss < 1:
        return 1.0
    stays = 1 - 1 / burst - loss / burst / (1 - loss)
    return (1 + stays) / (1 - stays) if stays < 1 else 1.0


def cover(resources: Resources, wanted: Iterable[Key]) -> list[tuple[str, str]]:
    """Few pairs of nodes between which packets, both ways, cross all of these links and access links as far as any do."""
    lacking = set(wanted)
    crossed = {pair: keys for pair in candidates(resources) if (keys := _crossed(resources, pair) & lacking)}
    chosen: list[tuple[str, str]] = []
    while crossed and lacking:
        pair = max(crossed, key=lambda item: len(crossed[item] & lacking))
        if not crossed[pair] & lacking:
            break
        chosen.append(pair)
        lacking -= crossed.pop(pair)
    return chosen


def candidates(resources: Resources) -> list[tuple[str, str]]:
    """Pairs of nodes that may be measured: all, or in a large environment each node with the first one of each network."""
    nodes = [name for kind, name in resources if kind == "node" and resources["node", name].spec.get("interfaces")]
    if len(nodes) <= SMALL:
        return list(combinations(nodes, 2))
    first: dict[str, str] = {}
    for node in nodes:
        for interface in resources["node", node].spec["interfaces"]:
            first.setdefault(interface["network"], node)
    return list(dict.fromkeys((min(pair), max(pair)) for node in nodes for other in first.values() if len(set(pair := (node, other))) == 2))


def shapes_of(resources: Iterable[Resource | ObservedResource]) -> dict[Key, Mapping[str, Any]]:
    """{(kind, name): spec} of the links and access links among these."""
    return {(item.kind, item.name): item.spec for item in resources if item.kind in ("link", "access") and item.spec}


def _crossed(resources: Resources, pair: tuple[str, str]) -> set[Key]:
    ways: Sequence[list[Stretch] | None] = (path(resources, *pair), path(resources, *pair[::-1]))
    return {stretch.key for way in ways if way is not None for stretch in way} if None not in ways else set()


def _through(
    resources: Resources, network: str, via: ipaddress.IPv4Address, address: ipaddress.IPv4Address, target: str
) -> tuple[list[Stretch], bool, str] | None:
    """On from a network by the next hop `via`: (stretches, whether they lead to the target, else the node that routes on)."""
    stretches: list[Stretch] = []
    for _ in range(MOST_HOPS):
        spec = resources["network", network].spec
        if str(via) != spec["gateway"]:
            router = _holder(resources, network, via)
            if router is None:
                return None
            return [*stretches, Stretch("access", f"{router}/{network}", "down")], False, router
        if address in ipaddress.IPv4Network(spec["subnet"]):
            return [*stretches, Stretch("access", f"{target}/{network}", "down")], True, ""
        route = _route(spec["routes"], address)
        if route is None:
            return None
        if "via" in route:
            via = ipaddress.IPv4Address(route["via"])
            continue
        first, second = resources["link", route["link"]].spec["networks"]
        stretches.append(Stretch("link", route["link"], "there" if first == network else "back"))
        network = second if first == network else first
        via = ipaddress.IPv4Address(resources["network", network].spec["gateway"])
    return None


def _address_for(resources: Resources, source: str, target: str) -> ipaddress.IPv4Address:
    """The target's address that its name resolves to at the source: on a network that they share, else its first."""
    joined = {interface["network"] for interface in resources["node", source].spec["interfaces"]}
    interfaces = resources["node", target].spec["interfaces"]
    chosen = next((interface for interface in interfaces if interface["network"] in joined), interfaces[0])
    return ipaddress.IPv4Interface(chosen["address"]).ip


def _network_of(spec: Mapping[str, Any], address: ipaddress.IPv4Address) -> str | None:
    """The network of a node on which an address lies."""
    for interface in spec["interfaces"]:
        if address in ipaddress.IPv4Interface(interface["address"]).network:
            return str(interface["network"])
    return None


def _holder(resources: Resources, network: str, address: ipaddress.IPv4Address) -> str | None:
    for name, interface in _interfaces(resources):
        if interface["network"] == network and ipaddress.IPv4Interface(interface["address"]).ip == address:
            return name
    return None


def _interfaces(resources: Resources) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for (kind, name), item in resources.items():
        if kind == "node":
            yield from ((name, interface) for interface in item.spec.get("interfaces", ()))


def _route(routes: Iterable[Mapping[str, str]], address: ipaddress.IPv4Address) -> Mapping[str, str] | None:
    return next((route for route in routes if address in ipaddress.IPv4Network(route["to"])), None)


def address(resources: Resources, source: str, target: str) -> str:
    """The target's address as the source reaches it."""
    return str(_address_for(resources, source, target))
