"""What the links of an experiment mean between hosts: one shape for all that one node sends to another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from ...experiment import routes
from ...experiment.resources import ObservedResource, Resource
from ...experiment.routes import Key, Stretch
from ..local import traces
from ..local.qdiscs import Shape

WAYS = {"access": ("up", "down"), "link": ("there", "back")}


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to packets on one way. over: the direction of a link that has the rate, and so one queue for all that crosses it."""

    shape: Shape
    over: str = ""


class Routes:
    """The ways between nodes. resources: networks, links and access links; nodes: {name: (spec, addresses of its host)}."""

    def __init__(self, resources: Iterable[Resource], nodes: Mapping[str, tuple[Mapping[str, Any], Sequence[str]]]) -> None:
        listed = list(resources)
        self.shapes = {item.key: item.spec for item in listed if item.kind in WAYS}
        self.addresses = {name: tuple(addresses) for name, (_, addresses) in nodes.items()}
        found = [ObservedResource(item.kind, item.name, item.spec) for item in listed]
        found += [ObservedResource("node", name, spec) for name, (spec, _) in nodes.items()]
        self._resources = {item.key: item for item in found}
        self._connected = [name for name, (spec, addresses) in nodes.items() if addresses and spec.get("interfaces")]

    def wanted(self) -> dict[str, dict[str, Way]]:
        """{node: {address of another: what happens to what it sends there}}, without those where nothing does."""
        result: dict[str, dict[str, Way]] = {}
        for source, target, stretches in self.ways() if any(_asks(spec) for spec in self.shapes.values()) else ():
            shapes = {str(stretch): self._shape(stretch) for stretch in stretches}
            shape = routes.together(shapes.values())
            if shape and self.addresses[source] != self.addresses[target]:
                slowest = min(shapes, key=lambda name: shapes[name].get("rate", float("inf")))
                way = Way(shape, slowest if "rate" in shape else "")
                result.setdefault(source, {}).update(dict.fromkeys(self.addresses[target], way))
        return result

    def ways(self) -> Iterator[tuple[str, str, list[Stretch]]]:
        """Every two nodes, in both directions, and what lies between them."""
        for source, target in permutations(self._connected, 2):
            if stretches := routes.path(self._resources, source, target):
                yield source, target, stretches

    def senders(self) -> dict[Key, dict[str, list[str]]]:
        """{link or access link: {direction: nodes whose packets cross it}}, where it shapes them."""
        result: dict[Key, dict[str, list[str]]] = {}
        for source, _, stretches in self.ways():
            for stretch in stretches:
                nodes = result.setdefault(stretch.key, {}).setdefault(stretch.way, [])
                if self._shape(stretch) and source not in nodes:
                    nodes.append(source)
        return result

    def across(self, link: str) -> dict[str, set[str]]:
        """{node: addresses of those that it talks to over a link or access link, named as faults name it}."""
        key = ("access" if "/" in link else "link", link)
        result: dict[str, set[str]] = {}
        for source, target, stretches in self.ways():
            if any(stretch.key == key for stretch in stretches):
                result.setdefault(source, set()).update(self.addresses[target])
                result.setdefault(target, set()).update(self.addresses[source])
        return result

    def concerned(self, source: str, addresses: Iterable[str]) -> set[Key]:
        """The links and access links that shape what a node sends to these addresses."""
        wanted = set(addresses)
        return {
            stretch.key
            for node, target, stretches in self.ways()
            if node == source and not wanted.isdisjoint(self.addresses[target])
            for stretch in stretches
            if self._shape(stretch)
        }

    def _shape(self, stretch: Stretch) -> Shape:
        shape = self.shapes.get(stretch.key, {}).get(stretch.way, {})
        # nobody plays a trace there; its beginning stands for it
        return {part: value for part, value in traces.at(shape, 0.0).items() if part != "trace"}


def _asks(spec: Mapping[str, Any]) -> bool:
    return any(spec.get(way) for ways in WAYS.values() for way in ways)
