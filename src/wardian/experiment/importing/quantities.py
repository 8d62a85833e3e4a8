"""Quantities, ports and limits as Docker and the tools around it write them, put into a draft."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .. import units
from .draft import Draft
from .report import Spot

_MEMORY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([bkmgt]?)(i?b)?\s*", re.IGNORECASE)
_PORT = re.compile(r"(?:(?P<address>[0-9]+(?:\.[0-9]+){3}):)?(?:(?P<host>[0-9]*):)?(?P<node>[0-9]+)(?:/(?P<protocol>[a-z]+))?")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def memory(value: object) -> str:
    """A size such as `64m`, `1gb` or a number of bytes, as the experiment file writes it. Raises ValueError."""
    match = _MEMORY.fullmatch(str(value))
    if match is None:
        raise ValueError(units.SIZE)
    return units.format_size(round(float(match[1]) * 1024 ** " kmgt".index(match[2].lower().replace("b", "") or " ")))


def duration(value: object) -> float:
    """Seconds from `1m30s` or `500ms`. Raises ValueError."""
    text = str(value).strip()
    if not re.fullmatch(r"(?:[0-9]+(?:\.[0-9]+)?(?:us|ms|s|m|h))+", text):
        raise ValueError(units.DURATION)
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)(us|ms|s|m|h)", text))


def put(draft: Draft, node: str, key: str, value: Any, read: Callable[[Any], Any], spot: Spot) -> None:
    """Set a limit of a node from a value, where there is one."""
    if value is None:
        return
    try:
        limit = read(value)
    except (ValueError, TypeError):
        draft.left(spot, f"{str(value)[:60]!r} is no quantity that can be read", ("nodes", node))
        return
    # the others' way to say that there is no limit
    if limit not in (0, "0B"):
        draft.kept["limits"] += draft.put("nodes", node, key, limit, spot)


def port(draft: Draft, node: str, text: str, spot: Spot) -> None:
    """A port of a node in Docker's short form; here it is reached on loopback unless an address is written."""
    at = ("nodes", node)
    match = _PORT.fullmatch(text.strip())
    if match is None:
        draft.left(spot, "a range of ports, or what is no port: only single ports are taken over", at)
        return
    entry: dict[str, Any] = {"node": int(match["node"])}
    if match["host"]:
        entry["host"] = int(match["host"])
    if match["address"]:
        entry["address"] = match["address"]
    if match["protocol"] not in (None, "tcp"):
        entry["protocol"] = match["protocol"]
    if draft.append(node, "ports", entry, spot):
        draft.kept["ports"] += 1
        if not match["address"]:
            draft.changed(spot, "is reached on loopback only; with 0.0.0.0: before it, from everywhere", at)
