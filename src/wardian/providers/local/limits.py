"""What this host cannot do of what an experiment asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...experiment.resources import Caveat, Resource
from . import internet, shaping
from .cgroups import Cgroups


def caveats(desired: Sequence[Resource]) -> list[Caveat]:
    """One caveat for each thing that cannot be honoured here as written."""
    return [*_limit_caveats(desired), *_delay_caveats(desired), *internet.caveats(desired)]


def _limit_caveats(desired: Iterable[Resource]) -> Iterator[Caveat]:
    groups = Cgroups.find()
    for field, controller in (("cpus", "cpu"), ("memory", "memory")):
        nodes = [resource.name for resource in desired if resource.kind == "node" and resource.spec[field] is not None]
        if nodes and controller not in groups.roots:
            yield Caveat(f"node {', '.join(nodes)}", field, f"this host has no {controller} controller for control groups", None)


def _delay_caveats(desired: Iterable[Resource]) -> Iterator[Caveat]:
    directions = {"access": ("up", "down"), "link": ("there", "back")}
    for resource in desired:
        shapes = [resource.spec[way] for way in directions.get(resource.kind, ())]
        asked = [name for name in ("delay", "loss") if any(shape.get(name) for shape in shapes)]
        if asked and not shaping.netem_available():
            yield Caveat(str(resource), ", ".join(asked), "this kernel has no netem", shaping.RELAY_STAND_IN)
