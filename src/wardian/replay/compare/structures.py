"""JSON: member by member, numbers within what is accepted. Pure."""

from __future__ import annotations

import json
from typing import Any

from . import numbers, text
from .results import Finding, Place, Verdict
from .rules import Rules


def parse(content: str) -> Any:
    """The object or list that a text is, or None for any other text."""
    stripped = content.strip()
    if stripped[:1] not in ("{", "["):
        return None
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        return None


def compare(old: Any, new: Any, place: Place, rules: Rules, path: str = "$") -> list[Finding]:
    """What differs between two JSON values. Members of objects may come in any order."""
    at = Place(place.node, place.part, None, None, path)
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{path}.{name}" if str(name).isidentifier() else f"{path}[{json.dumps(name)}]"
            found += _member(old.get(name, _NOTHING), new.get(name, _NOTHING), place, rules, inner)
        return found
    if isinstance(old, list) and isinstance(new, list):
        found = []
        for index in range(max(len(old), len(new))):
            one, other = (value[index] if index < len(value) else _NOTHING for value in (old, new))
            found += _member(one, other, place, rules, f"{path}[{index}]")
        return found
    if _is_number(old) and _is_number(new):
        difference = text.compare_numbers(numbers.of_value(old), numbers.of_value(new), at, rules)
        return [difference] if difference else []
    if isinstance(old, str) and isinstance(new, str):
        return text.compare_values(old, new, at, rules)
    if type(old) is type(new) and old == new:
        return []
    return [Finding(at, "type" if type(old) is not type(new) else "text", Verdict.DIFFERENT, json.dumps(old), json.dumps(new))]


_NOTHING = object()


def _member(old: Any, new: Any, place: Place, rules: Rules, path: str) -> list[Finding]:
    at = Place(place.node, place.part, None, None, path)
    if new is _NOTHING:
        return [Finding(at, "missing", Verdict.DIFFERENT, json.dumps(old), "", "the member is missing")]
    if old is _NOTHING:
        return [Finding(at, "extra", Verdict.DIFFERENT, "", json.dumps(new), "the member is extra")]
    return compare(old, new, place, rules, path)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
