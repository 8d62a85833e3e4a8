"""What is accepted: tolerances and what is to be ignored, declared in a cell, its metadata or the notebook's. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .numbers import Tolerance, parse_tolerances
from .volatile import Volatile

SIMILARITY = 0.98
"""How like one another two images have to be, where nothing is declared: structural similarity, 1 is the same."""

_LINE = re.compile(r"\s*#\|\s*([A-Za-z][\w-]*)\s*:\s*(.*?)\s*$")
_FIELDS = ("tolerance", "ignore", "similarity")
EVERYTHING = "all"
"""`ignore: all` leaves a cell's output out of the comparison."""


class RuleError(ValueError):
    """A declaration that cannot be read. field, expected, got; line: of the cell, from 1, or None for metadata."""

    def __init__(self, field: str, expected: str, got: object, line: int | None = None) -> None:
        super().__init__(f"{field}: expected {expected}; got {got!r}")
        self.field, self.expected, self.got = field, expected, got
        self.line = line


@dataclass(frozen=True, slots=True)
class Rules:
    """What is accepted in one cell.

    tolerances: any of those that cover a number suffices; without one, numbers have to be the same. everything: nothing is compared.
    """

    tolerances: tuple[Tolerance, ...] = ()
    ignore: tuple[str, ...] = ()
    similarity: float = SIMILARITY
    everything: bool = False
    known: tuple[str, ...] = ()
    volatile: Volatile = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "volatile", Volatile(self.ignore, self.known))


def rules(source: str, *metadata: Mapping[str, Any], tolerance: str | None = None, known: Iterable[str] = ()) -> Rules:
    """The rules of a cell. Raises RuleError.

    source: its lines `#| tolerance: 5%` on top go before metadata. metadata: the `wardian` entries of the cell's and the notebook's, what
    goes before first. tolerance: where none of them has one. known: texts that name a run, such as its environment's id.
    What is ignored adds up.
    """
    declared = list(_directives(source))
    entries: list[tuple[str, Any, int | None]] = [(name, value, line) for line, name, value in declared]
    entries += [(name, item[name], None) for item in metadata for name in _FIELDS if name in item]
    if tolerance is not None:
        entries.append(("tolerance", tolerance, None))
    found: dict[str, Any] = {}
    ignore: list[str] = []
    for name, value, line in entries:
        if name == "ignore":
            for pattern in [value] if isinstance(value, str) else value if isinstance(value, list) else [value]:
                ignore.append(_pattern(pattern, line))
        elif name not in found:
            found[name] = (_tolerances if name == "tolerance" else _similarity)(value, line)
    everything = EVERYTHING in ignore
    return Rules(
        tolerances=found.get("tolerance", ()),
        ignore=tuple(item for item in ignore if item != EVERYTHING),
        similarity=found.get("similarity", SIMILARITY),
        everything=everything,
        known=tuple(known),
    )


def without_directives(source: str) -> str:
    """A cell's source as far as it is code: without `#|` lines on top and spaces at the ends of lines."""
    skip = {line for line, _, _ in _directives(source)}
    lines = [text.rstrip() for number, text in enumerate(source.splitlines(), 1) if number not in skip]
    return "\n".join(lines).strip("\n")


def _directives(source: str) -> Iterable[tuple[int, str, str]]:
    """Line number, name and value of those `#|` lines on top that are ours."""
    for number, line in enumerate(source.splitlines(), 1):
        match = _LINE.match(line)
        if match and match[1] in _FIELDS:
            yield number, match[1], match[2]
        elif line.strip() and not line.lstrip().startswith(("%%", "#")):
            return


def _tolerances(value: object, line: int | None) -> tuple[Tolerance, ...]:
    text = repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    try:
        if not isinstance(text, str):
            raise ValueError("a tolerance such as 5%")
        return parse_tolerances(text)
    except ValueError as error:
        raise RuleError("tolerance", str(error), value, line) from None


def _similarity(value: object, line: int | None) -> float:
    expected = "a share such as 95% or 0.95"
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise RuleError("similarity", expected, value, line) from None
    if not 0 < number <= 1:
        raise RuleError("similarity", expected, value, line)
    return number


def _pattern(value: object, line: int | None) -> str:
    try:
        if not isinstance(value, str) or not value:
            raise re.error("nothing to search for")
        re.compile(value)
    except re.error as error:
        raise RuleError("ignore", f"a regular expression ({error}), or {EVERYTHING}", value, line) from None
    return value
