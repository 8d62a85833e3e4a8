"""What a file asks for that machines which are there already do not give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...experiment import containers
from ...experiment.plan import compact
from ...experiment.resources import Caveat, Resource
from ..local import qdiscs
from . import shaping
from .marker import Facts
from .routes import WAYS, Routes, Way
from .shaping import Look


def of(
    desired: Sequence[Resource],
    facts: Mapping[str, Facts],
    routes: Routes,
    seen: Mapping[str, Look],
    unlimited: Mapping[str, Mapping[str, str]],
) -> Iterator[Caveat]:
    """Everything that cannot be honoured.

    facts: {node: what its host says of itself}; seen: traffic control of those that would shape; unlimited: {node: {field: why its host
    cannot limit it}}.
    """
    nodes = [item for item in desired if item.kind == "node"]
    if asking := [node.name for node in nodes if node.spec["image"] is not None]:
        yield Caveat(f"node {compact(asking)}", "image", "a host is not changed", "all that the host has")
    yield from _limits(nodes, unlimited)
    for field in containers.KEYS:
        if asking := [node.name for node in nodes if field in node.spec]:
            yield Caveat(f"node {compact(asking)}", field, "means something to nodes of the provider docker only")
    if asking := [node.name for node in nodes if node.spec["routes_between"]]:
        yield Caveat(f"node {compact(asking)}", "routes", "what a host forwards is its own affair")
    networks = [item.name for item in desired if item.kind == "network"]
    if len(networks) > 1:
        yield Caveat(f"network {compact(networks)}", "networks", "nothing keeps hosts of different networks apart")
    yield from links(desired, routes, seen)
    unnamed = [node for node, host in facts.items() if not host.names]
    if unnamed and len(facts) > 1:
        yield Caveat(f"node {compact(unnamed)}", "names", "names of nodes do not resolve there: /etc/hosts may not be written")


def _limits(nodes: Sequence[Resource], unlimited: Mapping[str, Mapping[str, str]]) -> Iterator[Caveat]:
    groups: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        for field, reason in unlimited.get(node.name, {}).items():
            if node.spec[field] is not None:
                groups.setdefault((field, reason), []).append(node.name)
    for (field, reason), names in groups.items():
        yield Caveat(f"node {compact(names)}", field, f"its host cannot limit it: {reason}", "all that the host has")


def links(desired: Sequence[Resource], routes: Routes, seen: Mapping[str, Look]) -> Iterator[Caveat]:
    """Parts of links that are not as written, one caveat for each reason."""
    senders, wanted = routes.senders(), routes.wanted()
    groups: dict[tuple[str, str, str, str | None], list[str]] = {}
    for item in desired:
        shapes = {way: item.spec[way] for way in WAYS.get(item.kind, ())}
        looks = {way: {node: seen[node] for node in nodes if node in seen} for way, nodes in senders.get(item.key, {}).items()}
        for parts, reason, stand_in in _lacking(shapes, looks, wanted):
            groups.setdefault((item.kind, ", ".join(parts), reason, stand_in), []).append(item.name)
        if item.spec.get("mtu") is not None:
            groups.setdefault((item.kind, "mtu", "the interfaces of hosts are as they are", None), []).append(item.name)
    for (kind, fields, reason, stand_in), names in groups.items():
        yield Caveat(f"{kind} {compact(names)}", fields, reason, stand_in)


def _lacking(
    shapes: Mapping[str, Mapping[str, Any]], looks: Mapping[str, Mapping[str, Look]], wanted: Mapping[str, Mapping[str, Way]]
) -> Iterator[tuple[list[str], str, str | None]]:
    """Parts of one link that are not honoured: which, why, and what stands in. looks: {direction: {node: its host}} of who sends so."""
    asked = list(dict.fromkeys(part for shape in shapes.values() for part in shape))
    everyone = {node: look for nodes in looks.values() for node, look in nodes.items()}
    reasons: dict[str, list[str]] = {}
    for node, look in everyone.items():
        reason = look.reason or next((found for there in look.interfaces.values() if (found := shaping.taken(there, look))), "")
        if reason:
            reasons.setdefault(reason, []).append(node)
    for reason, nodes in reasons.items():
        yield list(asked), f"not shaped by {compact(nodes)}: {reason}", None
    able = {node: look.able for node, look in everyone.items() if not any(node in nodes for nodes in reasons.values())}
    impaired = [part for part in asked if part in (*qdiscs.IMPAIRMENTS, "distribution", "loss_burst")]
    for kind, parts in (("netem", impaired), ("tbf", [part for part in asked if part in ("rate", "queue")])):
        if parts and (lacking := [node for node, kinds in able.items() if kind not in kinds]):
            yield parts, f"the kernel of {compact(lacking)} has no {kind}", None
    if "duplicate" in asked and (
        crowded := [node for node, kinds in able.items() if "netem" in kinds and _crowded(everyone[node], wanted[node])]
    ):
        yield ["duplicate"], f"the kernel of {compact(crowded)} has no netem that duplicates beside others", None
    for discipline in sorted({(shape.get("queue") or {}).get("discipline", "fifo") for shape in shapes.values()} - {"fifo"}):
        if lacking := [node for node, kinds in able.items() if discipline not in kinds]:
            yield ["queue"], f"the kernel of {compact(lacking)} has no {discipline}", "first in, first out, in a queue of the same length"
    if "trace" in asked:
        yield ["trace"], "nobody plays it on hosts", "what it begins with"
    if any("rate" in shape and len(able.keys() & looks.get(way, {}).keys()) > 1 for way, shape in shapes.items()):
        yield ["rate"], "what several hosts send over it shares no queue", "each host has that rate for itself"


def _crowded(look: Look, ways: Mapping[str, Way]) -> bool:
    """Whether a host can duplicate nothing of what is asked for, since it does more to packets than that."""
    kept = (way for those in look.by_interface(ways).values() for way in those.values())
    return any("duplicate" in way.shape for way in ways.values()) and not any("duplicate" in way.shape for way in kept)
