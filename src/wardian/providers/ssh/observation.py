"""Reading an environment back from its hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...experiment.resources import Observed, ObservedResource
from . import marker
from .hosts import each
from .index import Entry, Placed
from .marker import Marker
from .refusals import HostError


async def observe(entry: Entry) -> Observed:
    """Everything that exists of the environment."""
    record = entry.record
    found = _kept(entry)

    async def read(item: tuple[str, Placed]) -> Marker | None:
        name, placed = item
        return next((found for found in await marker.read(placed.host, record.id) if found.name == name), None)

    nodes = list(entry.nodes.items())
    for (name, placed), outcome in zip(nodes, await each(nodes, read), strict=True):
        if outcome is not None:
            found.append(_node(name, placed, outcome))
    return Observed.collect(record, found)


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
    return _resource(name, placed, outcome.spec, "ready", f"on {placed.host}")


def _resource(name: str, placed: Placed, spec: Mapping[str, Any], state: str, detail: str) -> ObservedResource:
    addresses = {part["network"]: placed.address for part in spec.get("interfaces", ()) if placed.address}
    return ObservedResource("node", name, spec, state, detail, addresses)
