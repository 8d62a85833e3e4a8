"""Shapes that change over time: what one is at a moment of its trace. Times are seconds from the trace's beginning."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

Shape = Mapping[str, Any]

FOREVER = float("inf")


def columns(shape: Shape) -> frozenset[str]:
    """The parts that the shape's trace changes; none without a trace."""
    trace = shape.get("trace")
    return frozenset(trace["steps"][0][1]) if trace else frozenset()


def at(shape: Shape, elapsed: float) -> dict[str, Any]:
    """The shape as it is so long after its trace began."""
    trace = shape.get("trace")
    return {**shape, **trace["steps"][_step(trace, elapsed)[0]][1]} if trace else dict(shape)


def next_change(shape: Shape, elapsed: float) -> float:
    """Seconds until the shape changes next; infinite where it does not."""
    trace = shape.get("trace")
    if not trace or len(trace["steps"]) < 2:
        return FOREVER
    step, position = _step(trace, elapsed)
    if step + 1 < len(trace["steps"]):
        return float(trace["steps"][step + 1][0]) - position
    return float(trace["length"]) - position if trace["repeat"] else FOREVER


def digest(trace: Mapping[str, Any], began: float) -> str:
    """What tells one trace from another, and from itself when it began at another time: eight hexadecimal digits."""
    return hashlib.sha256(repr((began, trace["repeat"], trace["length"], trace["steps"])).encode()).hexdigest()[:8]


def largest(shape: Shape, part: str) -> float:
    """The most that a part of the shape ever is; 0 where it never is anything."""
    if part in columns(shape):
        return max(float(values[part]) for _, values in shape["trace"]["steps"])
    return float(shape.get(part) or 0.0)


def _step(trace: Mapping[str, Any], elapsed: float) -> tuple[int, float]:
    """(number of the step at a time, where in the trace that is)."""
    position = max(elapsed, 0.0)
    if trace["repeat"]:
        position %= trace["length"]
    return max(bisect_right(trace["steps"], position, key=lambda step: step[0]) - 1, 0), position
