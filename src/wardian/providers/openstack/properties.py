"""Which hosts are meant: `node_type == compute_skylake and memory_mb >= 65536`, as people write it and as Blazar takes it.

Blazar knows comparisons joined by `and`, and neither `or` nor brackets (`blazar/utils/plugins.py`, release 18).
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
EXPECTED = "comparisons such as `node_type == compute and memory_mb >= 65536`, joined by `and`"

_COMPARISON = re.compile(r"\s*\$?(?P<name>[\w.-]+)\s*(?P<operator>[=!<>]=|[=<>])\s*(?P<value>\"[^\"]+\"|'[^']+'|[^\s=<>!]\S*)\s*")
_AND = re.compile(r"and\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One property of a host held against a value, which is a number where both are."""

    name: str
    operator: str
    value: str

    def holds(self, host: Mapping[str, Any]) -> bool:
        """Whether a host has it. A host without the property has not, whatever the comparison."""
        if host.get(self.name) is None:
            return False
        have = str(host[self.name])
        try:
            return OPERATORS[self.operator](float(have), float(self.value))
        except ValueError:
            return OPERATORS[self.operator](have, self.value)


def parse(text: str) -> tuple[Comparison, ...]:
    """The comparisons of an expression; none where it is empty. Raises ValueError with what was expected."""
    result: list[Comparison] = []
    position = 0
    while position < len(text.rstrip()):
        joint = _AND.match(text, position)
        if result and joint is None:
            raise ValueError(EXPECTED)
        found = _COMPARISON.match(text, joint.end() if result and joint else position)
        if found is None:
            raise ValueError(EXPECTED)
        sign = "==" if found["operator"] == "=" else found["operator"]
        result.append(Comparison(found["name"], sign, found["value"].strip("\"'")))
        position = found.end()
    return tuple(result)


def to_blazar(comparisons: tuple[Comparison, ...]) -> str:
    """As `resource_properties` of a reservation."""
    parts = [[item.operator, f"${item.name}", item.value] for item in comparisons]
    if not parts:
        return ""
    return json.dumps(parts[0] if len(parts) == 1 else ["and", *parts])


def matching(comparisons: tuple[Comparison, ...], host: Mapping[str, Any]) -> bool:
    """Whether a host is meant."""
    return all(item.holds(host) for item in comparisons)
