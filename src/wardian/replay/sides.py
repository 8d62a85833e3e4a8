"""What was recorded and what came now beside each other, with the differences marked: for pages. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..kernel.cells.ansi import plain
from .compare import images, outputs, tables, text
from .compare.outputs import Shown
from .compare.rules import Rules

_AROUND = 3
"""Lines shown before and after one that differs."""
_FEW = 40
"""A text of so few lines is shown whole."""
_MOST = 2000
"""Most rows of one text."""

Segments = tuple[tuple[str, str], ...]
"""Pieces of a line, each with how it is marked: "" (the same), "changed", "volatile", "gone" or "come"."""


@dataclass(frozen=True, slots=True)
class Row:
    """Two lines beside each other; None where there is none. left_out: how many lines that are alike stand here."""

    old: Segments | None = None
    new: Segments | None = None
    left_out: int = 0


@dataclass
class Panel:
    """One part of a cell's output on both sides. kind: "text", "image", "table"; rows: of a text; old, new: an image's URI, or a table."""

    title: str
    kind: str
    rows: list[Row] = field(default_factory=list)
    old: Any = None
    new: Any = None


def panels(old: Mapping[str | None, Shown], new: Mapping[str | None, Shown], rules: Rules) -> list[Panel]:
    """All that a cell showed, node by node."""
    found: list[Panel] = []
    for node in sorted({*old, *new}, key=lambda name: (name is not None, name or "")):
        one, other = old.get(node, Shown()), new.get(node, Shown())
        name = node or "here"
        for part, left, right in (("", one.stdout, other.stdout), (", stderr", one.stderr, other.stderr)):
            if left or right:
                found.append(Panel(name + part, "text", rows(left, right, rules)))
        for index in range(max(len(one.displays), len(other.displays))):
            left_side, right_side = (shown.displays[index] if index < len(shown.displays) else ("", None) for shown in (one, other))
            found.append(_display(f"{name}, {left_side[0] or right_side[0]}", left_side[1], right_side[1], rules))
        if one.error or other.error:
            left, right = ("\n".join(error[2:] if error[2] else error[:2]) if error else "" for error in (one.error, other.error))
            found.append(Panel(f"{name}, error", "text", rows(left, right, rules)))
    return found


def rows(old: str, new: str, rules: Rules) -> list[Row]:
    """Two texts, line by line; long stretches that are alike are left out."""
    left = [text.take_apart(line, rules) for line in old.splitlines()]
    right = left if old == new else [text.take_apart(line, rules) for line in new.splitlines()]
    found: list[Row] = []
    for same, (a, b), (c, d) in text.aligned(left, right):
        if same:
            found += [_alike(one, other) for one, other in zip(left[a:b], right[c:d], strict=True)]
            continue
        for offset in range(max(b - a, d - c)):
            one_line = ((left[a + offset].text, "gone"),) if a + offset < b else None
            other_line = ((right[c + offset].text, "come"),) if c + offset < d else None
            found.append(Row(one_line, other_line))
    return _shortened(found)


def _alike(one: text.Line, other: text.Line) -> Row:
    if one.text == other.text:
        return Row(((one.text, ""),), ((one.text, ""),))
    marks = []
    counted = [[part for part in line.parts if part.kind != "words"] for line in (one, other)]
    for left, right in zip(*counted, strict=True):
        marks.append("" if left.text == right.text else "changed" if left.number else "volatile")
    return Row(_marked(one, marks), _marked(other, marks))


def _marked(line: text.Line, marks: Iterable[str]) -> Segments:
    following = iter(marks)
    return tuple((part.text, "" if part.kind == "words" else next(following)) for part in line.parts)


def _shortened(found: Sequence[Row]) -> list[Row]:
    if len(found) <= _FEW:
        return list(found)
    near: set[int] = set()
    for index, row in enumerate(found):
        if row.old is None or row.new is None or any(mark for _, mark in (*row.old, *row.new)):
            near.update(range(index - _AROUND, index + _AROUND + 1))
    near = near or set(range(_FEW // 2)) | set(range(len(found) - _FEW // 2, len(found)))
    shown: list[Row] = []
    skipped = 0
    for index, row in enumerate(found):
        if index in near and len(shown) < _MOST:
            if skipped:
                shown.append(Row(left_out=skipped))
            shown.append(row)
            skipped = 0
        else:
            skipped += 1
    return [*shown, Row(left_out=skipped)] if skipped else shown


def _display(title: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, rules: Rules) -> Panel:
    sides = [data or {} for data in (old, new)]
    for kind in (*images.RASTER, outputs.SVG):
        if any(kind in data for data in sides):
            one, other = (_uri(kind, data[kind]) if kind in data else None for data in sides)
            return Panel(title, "image", old=one, new=other)
    grids = [_grids(data) for data in sides]
    if any(grids):
        return Panel(title, "table", old=_marked_cells(grids[0], grids[1]), new=_marked_cells(grids[1], grids[0]))
    one, other = (plain(_words(data)) for data in sides)
    return Panel(title, "text", rows(one, other, rules))


def _grids(data: Mapping[str, Any]) -> list[tables.Table]:
    markup = data.get("text/html", "")
    return tables.from_html(outputs.string(markup))[0] if markup else []


def _marked_cells(grids: Sequence[tables.Table], others: Sequence[tables.Table]) -> list[dict[str, Any]]:
    """Tables with, of each cell, whether the other side has another in its place."""
    found = []
    for index, grid in enumerate(grids):
        other = others[index].cells if index < len(others) else []
        body = [
            [
                (value, not (row < len(other) and column < len(other[row]) and other[row][column] == value))
                for column, value in enumerate(line)
            ]
            for row, line in enumerate(grid.cells)
        ]
        found.append({"columns": grid.columns, "rows": list(zip(grid.rows, body, strict=True)), "labels": any(grid.rows)})
    return found


def _words(data: Mapping[str, Any]) -> str:
    for kind in ("text/markdown", "text/plain"):
        if kind in data:
            return outputs.string(data[kind])
    return "\n".join(f"{kind}: {outputs.string(value)}" for kind, value in data.items())


def _uri(kind: str, data: Any) -> str:
    content = outputs.string(data)
    # as an image a drawing runs no scripts and loads nothing
    encoded = base64.b64encode(content.encode()).decode() if kind == outputs.SVG else "".join(content.split())
    return f"data:{kind};base64,{encoded}"
