"""What this host cannot do of what an experiment asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...experiment import containers, units
from ...experiment.plan import compact
from ...experiment.resources import Caveat, Resource
from . import ceiling, internet, mounts, qdiscs, room, shaping, traces
from .cgroups import Cgroups

WAYS = {"access": ("up", "down"), "link": ("there", "back")}


def caveats(desired: Sequence[Resource], state: Path) -> list[Caveat]:
    """One caveat for each thing that cannot be honoured here as written. state: the folder where what was measured is kept."""
    return [
        *_limit_caveats(desired),
        *_link_caveats(desired, state),
        *container_caveats(desired),
        *internet.caveats(desired),
        *room.caveats(desired),
    ]


def _limit_caveats(desired: Iterable[Resource]) -> Iterator[Caveat]:
    held = Cgroups.find().controllers()
    for field, controller in (("cpus", "cpu"), ("memory", "memory")):
        nodes = [resource.name for resource in desired if resource.kind == "node" and resource.spec[field] is not None]
        if nodes and controller not in held:
            none = f"this host has no {controller} controller for control groups"
            if mounts.in_user_namespace():
                none = f"no {controller} controller of control groups is delegated to this user (`wardian doctor` says how it is)"
            yield Caveat(f"node {', '.join(nodes)}", field, none, None)


def container_caveats(desired: Iterable[Resource]) -> Iterator[Caveat]:
    """What is written of nodes that means something to containers alone."""
    for field in containers.KEYS:
        nodes = [resource.name for resource in desired if resource.kind == "node" and field in resource.spec]
        if nodes:
            yield Caveat(f"node {compact(nodes)}", field, "means something to nodes of the provider docker only", None)


def _link_caveats(desired: Iterable[Resource], state: Path) -> Iterator[Caveat]:
    links = [resource for resource in desired if resource.kind in WAYS]
    yield from _discipline_caveats(links)
    if shaping.netem_available():
        return
    relayed = [link for link in links if any(qdiscs.impairs(shape) for shape in _shapes(link))]
    groups: dict[tuple[str, str], list[str]] = {}
    for link in relayed:
        asked = [part for part in qdiscs.IMPAIRMENTS if any(traces.largest(shape, part) for shape in _shapes(link))]
        groups.setdefault((link.kind, ", ".join(asked)), []).append(link.name)
    carries = ceiling.known(state)
    for (kind, fields), names in groups.items():
        yield Caveat(f"{kind} {compact(names)}", fields, "this kernel has no netem", relay(carries))
    yield from _ceiling_caveats(relayed, carries)


def relay(carries: ceiling.Ceiling) -> str:
    """What stands in for netem, in words."""
    return f"a user-space relay, good for {carries}, whose delays come out up to {shaping.RELAY_DELAY * 1e3:.1f} ms longer"


def _ceiling_caveats(relayed: Iterable[Resource], carries: ceiling.Ceiling) -> Iterator[Caveat]:
    """Where what is asked of the relay is more than it carries."""
    rates = {str(link): max(traces.largest(shape, "rate") for shape in _shapes(link)) for link in relayed}
    for name, rate in rates.items():
        if rate > carries.rate:
            yield Caveat(name, "rate", f"{units.format_rate(rate)} is more than the relay carries", f"what it carries, {carries}")
    fitting = {name: rate for name, rate in rates.items() if 0 < rate <= carries.rate}
    if sum(fitting.values()) > carries.rate:
        together = units.format_rate(sum(fitting.values()))
        message = f"if all are full at once, {together} are more than the relay carries"
        yield Caveat(compact(list(fitting)), "rate", message, f"what it carries, {carries}")


def _discipline_caveats(links: Iterable[Resource]) -> Iterator[Caveat]:
    lacking: dict[str, list[str]] = {}
    for link in links:
        for discipline in {(shape.get("queue") or {}).get("discipline", "fifo") for shape in _shapes(link)} - {"fifo"}:
            if not shaping.qdisc_available(discipline):
                lacking.setdefault(discipline, []).append(str(link))
    for discipline, names in lacking.items():
        yield Caveat(compact(names), "queue", f"this kernel has no {discipline}", "first in, first out, in a queue of the same length")


def _shapes(link: Resource) -> list[qdiscs.Shape]:
    return [link.spec[way] for way in WAYS[link.kind]]
