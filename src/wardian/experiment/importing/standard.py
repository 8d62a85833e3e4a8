"""The topologies that Mininet brings along: one switch, a row of switches, a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LARGEST = 2000
"""Most nodes that one of them may have here."""

NAMES = {
    "MinimalTopo": {}, "SingleSwitchTopo": {"k": 2}, "SingleSwitchReversedTopo": {"k": 2}, "LinearTopo": {"k": 2, "n": 1},
    "TreeTopo": {"depth": 1, "fanout": 2}, "TreeNet": {"depth": 1, "fanout": 2},
}  # fmt: skip
"""{name: its parameters with their defaults}."""


def links(name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """The links of one of them, hosts called `h1`, `h2`, … and switches `s1`, `s2`, …; None where its parameters are no small numbers."""
    given = {**NAMES[name], **dict(zip(NAMES[name], arguments, strict=False)), **{key: named[key] for key in NAMES[name] if key in named}}
    if any(isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST for value in given.values()):
        return None
    if name == "LinearTopo":
        return _row(given["k"], given["n"])
    if "depth" in given:
        if given["depth"] > 1 and given["fanout"] ** min(given["depth"], 32) > LARGEST:
            return None
        return _tree(given["depth"], given["fanout"])
    return [(f"h{number}", "s1") for number in range(1, given.get("k", 2) + 1)]


def _row(switches: int, hosts: int) -> list[tuple[str, str]] | None:
    if switches * hosts > LARGEST:
        return None
    result = []
    for number in range(1, switches + 1):
        result += [(f"h{number}" if hosts == 1 else f"h{host}s{number}", f"s{number}") for host in range(1, hosts + 1)]
        if number > 1:
            result.append((f"s{number}", f"s{number - 1}"))
    return result


def _tree(depth: int, fanout: int) -> list[tuple[str, str]]:
    result: list[tuple[str, str]] = []
    counts = {"s": 0, "h": 0}

    def grow(level: int) -> str:
        kind = "s" if level else "h"
        counts[kind] += 1
        own = f"{kind}{counts[kind]}"
        for _ in range(fanout if level else 0):
            result.append((own, grow(level - 1)))
        return own

    grow(depth)
    return result
