"""Reading an environment back from its hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...experiment.resources import Observed, ObservedResource
from ...experiment.routes import Key
from . import marker, shaping
from .hosts import each
from .index import Entry, Placed
from .marker import Marker
from .refusals import HostError


async def observe(entry: Entry) -> Observed:
    """Everything that exists of the environment."""
    record = entry.record
    nodes = list(entry.nodes.items())

    async def read(item: tuple[str, Placed]) -> Marker | None:
        name, placed = item
        return next((found for found in await marker.read(placed.host, record.id) if found.name == name), None)

    outcomes, adrift = await asyncio.gather(each(nodes, read), _adrift(entry))
    found = [replace(item, state="stopped", detail=adrift[item.key]) if item.key in adrift else item for item in _kept(entry)]
    found += [_node(*item, outcome) for item, outcome in zip(nodes, outcomes, strict=True) if outcome is not None]
    return Observed.collect(record, found)


async def _adrift(entry: Entry) -> dict[Key, str]:
    """{link or access link: in words} of those that a host does not shape as they ask for, and could."""
    routes = entry.routes()
    wanted = {node: shapes for node, shapes in routes.wanted().items() if entry.nodes[node].able}

    async def look(node: str) -> dict[str, str]:
        placed, shapes = entry.nodes[node], wanted[node]
        seen = await shaping.look(placed.host, marker.place(entry.record.id, node), list(shapes), frozenset(placed.able))
        return shaping.drift(seen, shapes) if seen.able else dict.fromkeys(shapes, seen.reason)

    found: dict[Key, str] = {}
    for node, outcome in zip(wanted, await each(wanted, look), strict=True):
        # of a host that does not answer, its node says so
        for address, words in () if isinstance(outcome, HostError) else outcome.items():
            keys = routes.concerned(node, [address]) or routes.concerned(node, wanted[node])
            found |= dict.fromkeys(keys, f"host {entry.nodes[node].host}: {words}")
    return found


async def notes(entry: Entry) -> dict[str, dict[str, dict[str, Any]]]:
    """All notes of hosts that answer: {node: {name: value}}."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for outcome in await each([placed.host for placed in entry.nodes.values()], lambda host: marker.read(host, entry.record.id)):
        if not isinstance(outcome, HostError):
            found |= {item.name: dict(item.notes) for item in outcome if item.notes}
    return found


def glance(entry: Entry) -> Observed:
    """The same without asking the hosts."""
    nodes = [_resource(name, placed, placed.spec, "ready", f"on {placed.host}") for name, placed in entry.nodes.items()]
    return Observed.collect(entry.record, [*_kept(entry), *nodes])


def _kept(entry: Entry) -> list[ObservedResource]:
    """What is no machine."""
    record = entry.record
    others = [ObservedResource(item.kind, item.name, item.spec) for item in entry.resources.values()]
    return [ObservedResource("environment", record.name, record.spec), *others]


def _node(name: str, placed: Placed, outcome: Marker | HostError) -> ObservedResource:
    if isinstance(outcome, HostError):
        # what it was made from is written down there; what was last written stands for it
        state = "stopped" if outcome.kind == "refused" else "unreachable"
        return _resource(name, placed, placed.spec, state, f"host {placed.host}: {outcome.bare}")
    if not outcome.complete:
        return _resource(name, placed, outcome.spec, "incomplete", "its making was cut short")
    if outcome.killed:
        return _resource(name, placed, outcome.spec, "stopped", f"it was killed on {placed.host}")
    return _resource(name, placed, outcome.spec, "ready", f"on {placed.host}")


def _resource(name: str, placed: Placed, spec: Mapping[str, Any], state: str, detail: str) -> ObservedResource:
    addresses = {part["network"]: placed.address for part in spec.get("interfaces", ()) if placed.address and not placed.wired}
    return ObservedResource("node", name, spec, state, detail, addresses)
