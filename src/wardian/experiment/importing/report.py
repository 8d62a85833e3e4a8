"""What became of a topology that was imported: what was taken over, what differently, and what not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..document import Path

Outcome = Literal["changed", "left"]

HEADINGS: Mapping[Outcome, str] = {"changed": "taken over differently", "left": "not taken over"}


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in what is imported: the file, the line counted from 1, and what stands there (`topology.nodes.r1.kind`)."""

    file: str
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that is otherwise here than there.

    outcome: "changed" (taken over, but differently) or "left" (not taken over).
    at: the entry of the experiment that it concerns, such as ("nodes", "r1"); empty for the whole.
    """

    outcome: Outcome
    spot: Spot
    message: str
    at: Path = ()

    def __str__(self) -> str:
        field = f"{self.spot.field}: " if self.spot.field else ""
        return f"{self.spot}: {field}{self.message}"


@dataclass(frozen=True, slots=True)
class Report:
    """The whole account. kept: how many of each kind of thing are here exactly as they were there."""

    kind: str
    source: str
    kept: Mapping[str, int]
    notes: tuple[Note, ...]

    def of(self, outcome: Outcome) -> list[Note]:
        """The notes with one outcome, in the order in which they were found."""
        return [note for note in self.notes if note.outcome == outcome]

    def text(self) -> str:
        """As people read it. Notes that say the same of several places stand there once, with the number of the others."""
        kept = ", ".join(f"{count} {what if count != 1 else _one(what)}" for what, count in self.kept.items() if count)
        lines = [f"{self.source} ({self.kind})", f"taken over: {kept or 'nothing'}"]
        for outcome, heading in HEADINGS.items():
            notes = self.of(outcome)
            if notes:
                lines += [f"{heading}:", *(f"  {line}" for line in gathered(notes))]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The same for programs: each note by itself."""
        notes: dict[str, Any] = {outcome: [{**asdict(note.spot), "message": note.message, "at": list(note.at)} for note in self.of(outcome)]
                 for outcome in HEADINGS}  # fmt: skip
        return {"kind": self.kind, "source": self.source, "kept": dict(self.kept), **notes}


def gathered(notes: Iterable[Note]) -> list[str]:
    """One line for each thing that is said, however often it is."""
    groups: dict[str, list[Note]] = {}
    for note in notes:
        groups.setdefault(note.message, []).append(note)
    return [f"{same[0]} (and {len(same) - 1} more like it)" if len(same) > 1 else str(same[0]) for same in groups.values()]


def _one(plural: str) -> str:
    first, mark, rest = re.fullmatch(r"(.*?)( (?:to|with) |$)(.*)", plural).groups()  # type: ignore[union-attr]
    return f"{re.sub(r'(?<=ss)es$|s$', '', first)}{mark}{rest}"
