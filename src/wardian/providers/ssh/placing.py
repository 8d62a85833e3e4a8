"""Which node is on which host: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import PlanError
from .inventory import Host


@dataclass(frozen=True, slots=True)
class Wish:
    """A node, and the hosts that it may be on, the most wanted first."""

    node: str
    hosts: tuple[str, ...]
    words: tuple[str, ...]


def wishes(nodes: Mapping[str, Mapping[str, Any]], hosts: Sequence[Host], place: Mapping[str, Sequence[str]]) -> list[Wish]:
    """What each node ({name: spec}) may be on; `place` as in the settings, where a node's name counts before its group and its roles.

    Raises PlanError for a word of `place` that names no label and no host.
    """
    known = {word for host in hosts for word in (host.name, *host.labels)}
    for key, listed_words in place.items():
        for word in listed_words:
            if word not in known:
                listed = ", ".join(sorted(known)) or "none, since no hosts are listed"
                raise PlanError(f"settings.place.{key}: no host is called or labelled {word!r}", remedy=f"there are: {listed}")
    result = []
    for node, spec in nodes.items():
        keys = (node, spec["group"], *spec["roles"])
        words: tuple[str, ...] = next((tuple(place[key]) for key in keys if key in place), ())
        fitting = tuple(host.name for host in hosts if not words or {host.name, *host.labels} & set(words))
        result.append(Wish(node, fitting, words))
    return result


def match(wanted: Sequence[Wish], taken: Collection[str], unusable: Mapping[str, str]) -> dict[str, str]:
    """{node: host}, each host once, in the order of the hosts as far as that gives every node one.

    taken: hosts that are not to be had since they are ours already. unusable: {host: why it cannot be used}.
    Raises PlanError with how many are needed and how many there are.
    """
    free = {name for wish in wanted for name in wish.hosts} - set(taken) - unusable.keys()
    holder: dict[str, Wish] = {}
    for wish in wanted:
        tried: dict[str, None] = {}
        if not _find(wish, free, holder, tried):
            raise _too_few(wish, wanted, free, unusable)
    return {wish.node: name for name, wish in holder.items()}


def _find(wish: Wish, free: Collection[str], holder: dict[str, Wish], tried: dict[str, None]) -> bool:
    """Give the node a host, moving others to another of theirs where that makes room (an augmenting path)."""
    fitting = [name for name in wish.hosts if name in free]
    for name in sorted(fitting, key=holder.__contains__):
        if name in tried:
            continue
        tried[name] = None
        if name not in holder or _find(holder[name], free, holder, tried):
            holder[name] = wish
            return True
    return False


def _too_few(wish: Wish, wanted: Sequence[Wish], free: Collection[str], unusable: Mapping[str, str]) -> PlanError:
    alike = [other for other in wanted if set(other.hosts) <= set(wish.hosts)]
    there = [name for name in wish.hosts if name in free]
    label = f" that is {' or '.join(wish.words)}" if wish.words else ""
    nodes = f"{len(alike)} nodes need" if len(alike) != 1 else f"{wish.node} needs"
    message = f"too few hosts: {nodes} a host{' each' if len(alike) != 1 else ''}{label}"
    message += f", and {len(there)} can be had"
    message += f" ({', '.join(there)})" if there else ""
    reasons = [f"{name}: {unusable[name]}" for name in wish.hosts if name in unusable]
    if reasons:
        message += "; not " + "; not ".join(reasons)
    return PlanError(message, remedy="list more hosts under `settings.hosts`, lower the count, or change `settings.place`")
