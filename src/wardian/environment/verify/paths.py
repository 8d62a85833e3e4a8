"""What the file says that happens to packets on their way between two nodes, and which pairs of nodes show all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ...experiment.resources import ObservedResource, Resource
from ...experiment.routes import SHAPES, Key, Resources, Stretch, path

DEFAULT_MTU = 1500
SMALL = 60
"""Nodes up to which every pair of them is thought of."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What happens to a packet on a path. Seconds, fractions, bits a second; None where nothing is said.

    jitter: that of the one stretch that has some, with its distribution; of several, the deviation of all together, as if normal.
    deviation: standard deviation of the delay. bursts: how many times the variance of a count of losses is that of independent ones.
    slowest: the lowest rate that it ever has, that of traces too. queue: SHAPE's queue of the slowest stretch.
    lost_before: what share is lost before it comes to that stretch. traced: parts that follow a trace somewhere on the path.
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
    slowest: float | None
    queue: Mapping[str, Any] | None
    lost_before: float
    mtu: int | None
    traced: frozenset[str]


def expected(stretches: Iterable[Stretch], shapes: Mapping[Key, Mapping[str, Any]]) -> Expected:
    """What stretches one after the other do. shapes: {(kind, name): spec of a link or access link}."""
    delay = 0.0
    jitters: list[tuple[float, str]] = []
    kept = before = single = 1.0
    bursts, reorder = 1.0, 0.0
    traced: set[str] = set()
    rate: float | None = None
    queue: Mapping[str, Any] | None = None
    rates: list[float] = []
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
        steps = [values for _, values in shape.get("trace", {}).get("steps", ())]
        traced.update(*steps)
        rates += [values["rate"] for values in steps if "rate" in values] or ([shape["rate"]] if "rate" in shape else [])
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
        slowest=min(rates, default=None),
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
