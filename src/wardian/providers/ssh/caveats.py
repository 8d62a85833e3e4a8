"""What a file asks for that machines which are there already do not give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...experiment import containers
from ...experiment.plan import compact
from ...experiment.resources import Caveat, Resource
from .marker import Facts

_OF_MACHINES = ("image", "cpus", "memory")
_WAYS = {"access": ("up", "down"), "link": ("there", "back")}


def of(desired: Sequence[Resource], facts: Mapping[str, Facts]) -> Iterator[Caveat]:
    """Everything that cannot be honoured. facts: {node: what its host says of itself}."""
    nodes = [item for item in desired if item.kind == "node"]
    for field in _OF_MACHINES:
        if asking := [node.name for node in nodes if node.spec[field] is not None]:
            yield Caveat(f"node {compact(asking)}", field, "a host is not changed", "all that the host has")
    for field in containers.KEYS:
        if asking := [node.name for node in nodes if field in node.spec]:
            yield Caveat(f"node {compact(asking)}", field, "means something to nodes of the provider docker only")
    if asking := [node.name for node in nodes if node.spec["routes_between"]]:
        yield Caveat(f"node {compact(asking)}", "routes", "what a host forwards is its own affair")
    networks = [item.name for item in desired if item.kind == "network"]
    if len(networks) > 1:
        yield Caveat(f"network {compact(networks)}", "networks", "nothing keeps hosts of different networks apart")
    yield from _links(desired)
    unnamed = [node for node, host in facts.items() if not host.names]
    if unnamed and len(facts) > 1:
        yield Caveat(f"node {compact(unnamed)}", "names", "names of nodes do not resolve there: /etc/hosts may not be written")


def _links(desired: Sequence[Resource]) -> Iterator[Caveat]:
    groups: dict[tuple[str, str], list[str]] = {}
    for item in desired:
        ways = _WAYS.get(item.kind, ())
        asked = list(dict.fromkeys(part for way in ways for part in item.spec[way]))
        if item.spec.get("mtu") is not None:
            asked.append("mtu")
        if asked:
            groups.setdefault((item.kind, ", ".join(asked)), []).append(item.name)
    for (kind, fields), names in groups.items():
        yield Caveat(f"{kind} {compact(names)}", fields, "links of hosts are as they are")
