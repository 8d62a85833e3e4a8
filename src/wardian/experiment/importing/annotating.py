"""The experiment file that an import writes: the experiment, with comments where it is otherwise than what it was made of."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .. import document, writing
from ..model import Experiment
from .report import HEADINGS, Note, Report, gathered

WIDEST = 140
MOST = 12
"""How many lines of comments one entry, and the head of the file, may have."""


def text(experiment: Experiment, report: Report) -> str:
    """The YAML of an imported experiment, with its report as comments."""
    plain = writing.dumps(experiment)
    tree = document.read(plain, report.source)
    lines = plain.splitlines()
    above: dict[int, list[Note]] = {}
    head: list[Note] = []
    for note in report.notes:
        place = tree.place(note.at)
        if len(note.at) == 2 and place.path == note.at:
            above.setdefault(place.key.line, []).append(note)
        else:
            head.append(note)
    written = _head(report, head)
    for number, line in enumerate(lines, 1):
        indent = line[: len(line) - len(line.lstrip())]
        written += [_comment(said, indent) for said in _some(_said(above.get(number, [])))]
        if number > 1 and re.match("[a-z]", line):
            written.append("")
        written.append(line)
    return "\n".join(written) + "\n"


def _head(report: Report, notes: list[Note]) -> list[str]:
    lines = [_comment(f"Imported from {report.source} ({report.kind}).")]
    for outcome, heading in HEADINGS.items():
        said = gathered(note for note in notes if note.outcome == outcome)
        if said:
            lines += [_comment(f"{heading.capitalize()}:"), *(_comment(f"  {item}") for item in _some(said))]
    return lines


def _said(notes: Iterable[Note]) -> list[str]:
    """What stands above an entry: each thing once, however often it is said of it."""
    lines: dict[tuple[str, str], str] = {}
    for note in notes:
        field = note.spot.field.rpartition(".")[2]
        named = f"{field}: " if field and field not in note.at else ""
        lines.setdefault((note.outcome, note.message), f"{HEADINGS[note.outcome]} ({note.spot}): {named}{note.message}")
    return list(lines.values())


def _some(said: Iterable[str]) -> list[str]:
    lines = list(dict.fromkeys(said))
    return lines if len(lines) <= MOST else [*lines[: MOST - 1], f"and {len(lines) - MOST + 1} more"]


def _comment(said: str, indent: str = "") -> str:
    plain = re.sub("[^\x20-\x7e\xa1-\u1fff\u2010-\u2027\u2030-\ud7ff]", "?", said)
    line = f"{indent}# {plain}"
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 1]}…"
