"""What a comparison finds: verdicts, and differences with the place where each is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any

from .numbers import Number, Tolerance

_SIMPLE = (str, int, float, bool)


class Verdict(StrEnum):
    """How what was recorded and what came now relate.

    IDENTICAL: byte by byte. EQUAL: but for what is volatile, spacing, or within tolerance. UNHONOURED: it cannot be had or compared here.
    MISSING: recorded, and did not come now; EXTRA: the other way round.
    """

    IDENTICAL = "identical"
    EQUAL = "equal"
    DIFFERENT = "different"
    UNHONOURED = "could not be honoured here"
    MISSING = "missing"
    EXTRA = "extra"

    @property
    def fine(self) -> bool:
        """Whether nothing is to be said against it."""
        return self in (Verdict.IDENTICAL, Verdict.EQUAL)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a cell's output something stands, as in what was recorded.

    node: None is home. part: "stdout", "stderr", "error", "result", or "display 2". line: from 1. index: which number of the line, from 1.
    path: row and column of a table, or the path into JSON.
    """

    node: str | None
    part: str
    line: int | None = None
    index: int | None = None
    path: str | None = None

    def __str__(self) -> str:
        words = [self.node or "here", self.part]
        words += [f"line {self.line}"] if self.line is not None else []
        words += [self.path] if self.path is not None else []
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Test:
    """Numbers of several runs compared as distributions.

    old, new: one value a run, in base units. interval: of the median, lowest and highest, and `how` it was found. p: of the test with
    this name, or None where none was needed.
    """

    name: str
    p: float | None
    old: tuple[float, ...]
    new: tuple[float, ...]
    old_median: float
    new_median: float
    old_interval: tuple[float, float]
    new_interval: tuple[float, float]
    how: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not the same, harmless or not.

    kind: "number", "text", "missing", "extra", "volatile", "spacing", "format", "type", "error", "image".
    verdict: EQUAL where it is within what is accepted. words: why, for a reader.
    numbers: those of a number, or the similarity of images as the second. tolerances: those declared for it.
    """

    place: Place
    kind: str
    verdict: Verdict
    old: str
    new: str
    words: str = ""
    numbers: tuple[Number, Number] | None = None
    tolerances: tuple[Tolerance, ...] = ()
    test: Test | None = None

    def __str__(self) -> str:
        said = f"{shortened(self.old)} → {shortened(self.new)}" if self.old or self.new else ""
        return f"{self.place}: " + " ".join(part for part in (said, f"({self.words})" if said and self.words else self.words) if part)

    def moved(self, node: str | None, part: str) -> Finding:
        """The same at another place."""
        return replace(self, place=replace(self.place, node=node, part=part))


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a whole of which these are the parts."""
    order = (Verdict.IDENTICAL, Verdict.EQUAL, Verdict.UNHONOURED, Verdict.EXTRA, Verdict.MISSING, Verdict.DIFFERENT)
    found = max(verdicts, key=order.index, default=Verdict.IDENTICAL)
    return Verdict.DIFFERENT if found in (Verdict.MISSING, Verdict.EXTRA) else found


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took in each recorded run and in each new one, seconds."""

    old: tuple[float, ...] = ()
    new: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Doubts:
    """Why numbers are in doubt that were measured in recorded runs, and in new ones."""

    old: tuple[str, ...] = ()
    new: tuple[str, ...] = ()

    def __str__(self) -> str:
        sides = (("recorded", self.old), ("run now", self.new))
        return "; ".join(f"{side} while {' and '.join(causes)}" for side, causes in sides if causes)


@dataclass(frozen=True, slots=True)
class CellComparison:
    """One cell, recorded and new. number: its place among the code cells now, from 1; None for one that is gone.

    edited: a unified diff of its source, empty where that is the same. moved: where it was and is bound, where that changed.
    times: by node, None is the whole cell.
    """

    cell: str
    number: int | None
    title: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    edited: str = ""
    moved: tuple[str, str] | None = None
    times: Mapping[str | None, Times] = field(default_factory=dict)
    words: str = ""
    doubts: Doubts = Doubts()

    @property
    def in_doubt(self) -> bool:
        """Whether what differs may be the host's doing: it saturated meanwhile, then or now."""
        return bool(not self.verdict.fine and not self.edited and not self.moved and (self.doubts.old or self.doubts.new))


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact of two environments that differs."""

    what: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Recorded runs compared with new ones."""

    verdict: Verdict
    cells: tuple[CellComparison, ...]
    environment: tuple[Difference, ...] = ()
    unhonoured: tuple[str, ...] = ()

    def count(self) -> dict[str, int]:
        """How many cells have each verdict."""
        return {verdict.value: number for verdict in Verdict if (number := sum(cell.verdict == verdict for cell in self.cells))}


def shortened(text: str, length: int = 120) -> str:
    """A text that fits a line."""
    flat = " ⏎ ".join(text.splitlines())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


@cache
def _fields(kind: type[Any]) -> tuple[str, ...]:
    """The names of a dataclass's fields; none for others."""
    return tuple(item.name for item in fields(kind)) if is_dataclass(kind) else ()


def plain(value: Any) -> Any:
    """JSON of any of these."""
    kind: Any = type(value)
    if value is None or kind in _SIMPLE:
        return value
    if names := _fields(kind):
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {("" if key is None else str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    return value
