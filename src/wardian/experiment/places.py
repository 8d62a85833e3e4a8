"""Where the nodes of an experiment grow: at one place, or at several. Pure.

A place is a provider with its settings. Sites that say the same are one place, called like the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .model import Experiment
from .topology import members


@dataclass(frozen=True, slots=True)
class Place:
    """A provider with its settings, and what the file calls it."""

    name: str
    provider: str
    settings: Mapping[str, Any]


def named(experiment: Experiment, name: str) -> Place:
    """The place of a site, or of a provider: the file's own has the file's settings, another one its defaults."""
    if site := experiment.sites.get(name):
        return Place(name, site.provider, site.settings)
    return Place(name, name, experiment.settings if name == experiment.provider else {})


def of_groups(experiment: Experiment) -> dict[str, Place]:
    """The place of each entry under `nodes:`."""
    known = [named(experiment, experiment.provider)]
    found = {}
    for group, node in experiment.nodes.items():
        wanted = named(experiment, node.site or experiment.provider)
        same = (place for place in known if (place.provider, place.settings) == (wanted.provider, wanted.settings))
        found[group] = next(same, wanted)
        known.append(found[group])
    return found


def of(experiment: Experiment) -> list[Place]:
    """All places, each once; those of earlier entries under `nodes:` come first."""
    found = {place.name: place for place in of_groups(experiment).values()}
    return list(found.values())


def settled(experiment: Experiment) -> Experiment:
    """The experiment with the place of each node as its site."""
    places = of_groups(experiment)
    nodes = {group: node.model_copy(update={"site": places[group].name}) for group, node in experiment.nodes.items()}
    return experiment.model_copy(update={"nodes": nodes})


def networks(experiment: Experiment) -> dict[str, list[str]]:
    """The networks of each entry under `nodes:` that has members."""
    return {member.group: list(member.networks) for member in members(experiment)}


def joined(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Every two networks that a link joins."""
    return (pair for link in experiment.links.values() for pair in link.pairs)


def spread(known: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{network: site}, of networks whose site is known, and of those that links join to them."""
    found, both = dict(known), [each for first, second in pairs for each in ((first, second), (second, first))]
    while more := {far: found[near] for near, far in both if near in found and far not in found}:
        found |= more
    return found
