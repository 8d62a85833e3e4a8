"""Which way packets go in an environment, and what all that they cross does to them together: pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .resources import ObservedResource

Key = tuple[str, str]
Resources = Mapping[Key, ObservedResource]

MOST_HOPS = 64
SHAPES = {"uniform": (0.0, 3**-0.5, 1.0), "normal": (0.0, 1.0, 1.349), "pareto": (-0.277, 0.737, 0.562)}
"""{distribution: (median, standard deviation, distance of the quartiles)} of a jitter of 1; none is off by more than four."""


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


def address(resources: Resources, source: str, target: str) -> str:
    """The target's address as the source reaches it."""
    written, node = _address_for(resources, source, target), resources["node", target]
    network = _network_of(node.spec, written)
    return node.addresses.get(network, str(written)) if network is not None else str(written)


def together(shapes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One SHAPE that does what these do one after the other, as far as one can.

    Delays add up, and so do the variances of jitters, as if normal; what each lets through goes on; the slowest has the rate and the queue;
    losses of several come in rows as long as those of the one that loses most.
    """
    whole: dict[str, Any] = {}
    jitters: list[tuple[float, str]] = []
    kept: dict[str, float] = {}
    worst = 0.0
    for shape in shapes:
        if shape.get("delay"):
            whole["delay"] = whole.get("delay", 0.0) + shape["delay"]
        if shape.get("jitter"):
            jitters.append((shape["jitter"], shape.get("distribution", "uniform")))
        for part in ("loss", "duplicate", "reorder"):
            if shape.get(part):
                kept[part] = kept.get(part, 1.0) * (1 - shape[part])
        if shape.get("loss", 0.0) > worst:
            worst = shape["loss"]
            whole.pop("loss_burst", None)
            whole |= {"loss_burst": shape["loss_burst"]} if shape.get("loss_burst") else {}
        if shape.get("rate") and shape["rate"] < whole.get("rate", float("inf")):
            whole.pop("queue", None)
            whole |= {part: shape[part] for part in ("rate", "queue") if shape.get(part)}
    if len(jitters) == 1:
        whole |= {"jitter": jitters[0][0], "distribution": jitters[0][1]}
    elif jitters:
        whole |= {"jitter": sum((size * SHAPES[kind][1]) ** 2 for size, kind in jitters) ** 0.5, "distribution": "normal"}
    return whole | {part: 1 - share for part, share in kept.items()}


def _through(
    resources: Resources, network: str, via: ipaddress.IPv4Address | None, address: ipaddress.IPv4Address, target: str
) -> tuple[list[Stretch], bool, str] | None:
    """On from a network by the next hop `via`: (stretches, whether they lead to the target, else the node that routes on)."""
    stretches: list[Stretch] = []
    for _ in range(MOST_HOPS):
        if ("network", network) not in resources:
            return None
        spec = resources["network", network].spec
        if via is not None and str(via) != spec["gateway"]:
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
        if ("link", route["link"]) not in resources:
            return None
        first, second = resources["link", route["link"]].spec["networks"]
        stretches.append(Stretch("link", route["link"], "there" if first == network else "back"))
        # a link leads to the gateway of the network at its other end
        network, via = (second if first == network else first), None
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
