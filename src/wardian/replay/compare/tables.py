"""Tables, as pandas and others show them: cell by cell, rows and columns found by their labels. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from . import text
from .results import Finding, Place, Verdict
from .rules import Rules


@dataclass
class Table:
    """A table as text. columns, rows: their labels, levels joined by " / "; cells: row by row."""

    columns: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)


def from_html(markup: str) -> tuple[list[Table], str]:
    """The tables of a piece of HTML, and the text beside them; a table within a table is text of its cell."""
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    lines = "".join(reader.beside).split("\n")
    return [_table(grid) for grid in reader.tables], "\n".join(line.strip() for line in lines if line.strip())


def from_resource(data: Any) -> Table | None:
    """The table of a `application/vnd.dataresource+json` (pandas with `display.html.table_schema`), which has every digit."""
    try:
        names = [str(item["name"]) for item in data["schema"]["fields"]]
        keys = data["schema"].get("primaryKey") or []
        keys = [keys] if isinstance(keys, str) else list(keys)
        rows = [[_text(row.get(name)) for name in names] for row in data["data"]]
    except (KeyError, TypeError, AttributeError):
        return None
    labels = [" / ".join(row[names.index(key)] for key in keys if key in names) for row in rows]
    kept = [index for index, name in enumerate(names) if name not in keys]
    return Table([names[index] for index in kept], labels, [[row[index] for index in kept] for row in rows])


def from_rows(data: Any) -> Table | None:
    """The table that `wardian.record` writes down: columns and rows, without labels of rows."""
    try:
        rows = [[_text(value) for value in row] for row in data["rows"]]
        return Table([str(name) for name in data["columns"]], [""] * len(rows), rows)
    except (KeyError, TypeError):
        return None


def compare(old: Table, new: Table, place: Place, rules: Rules) -> list[Finding]:
    """What differs between two tables."""
    found: list[Finding] = []
    columns = _paired(old.columns, new.columns)
    rows = _paired(old.rows, new.rows)
    for what, labels, others, pairs in (("column", old.columns, new.columns, columns), ("row", old.rows, new.rows, rows)):
        taken, given = {left for left, _ in pairs}, {right for _, right in pairs}
        for index, label in enumerate(labels):
            if index not in taken:
                found.append(_gone(place, "missing", what, label, index))
        for index, label in enumerate(others):
            if index not in given:
                found.append(_gone(place, "extra", what, label, index))
        if [left for left, _ in pairs] != sorted(left for left, _ in pairs):
            was, now = ", ".join(labels), ", ".join(others)
            found.append(Finding(place, "text", Verdict.DIFFERENT, was, now, f"the {what}s are in another order"))
        for left, right in pairs:
            at = Place(place.node, place.part, None, None, f"{what} {left + 1}")
            found += text.compare_values(labels[left], others[right], at, rules)
    for row, other_row in rows:
        for column, other_column in columns:
            at = Place(place.node, place.part, None, None, f"row {old.rows[row] or row + 1}, column {old.columns[column] or column + 1}")
            found += text.compare_values(_cell(old, row, column), _cell(new, other_row, other_column), at, rules)
    return found


def _gone(place: Place, kind: str, what: str, label: str, index: int) -> Finding:
    at = Place(place.node, place.part, None, None, f"{what} {label or index + 1}")
    old, new = (label, "") if kind == "missing" else ("", label)
    return Finding(at, kind, Verdict.DIFFERENT, old, new, f"the {what} is {kind}")


def _paired(olds: Sequence[str], news: Sequence[str]) -> list[tuple[int, int]]:
    """Rows or columns that belong together: by label where each has its own and some are shared, else by place."""
    if len(olds) == len(news) and (list(olds) == list(news) or not set(olds) & set(news)):
        return list(zip(range(len(olds)), range(len(news)), strict=True))
    if len(set(olds)) == len(olds) and len(set(news)) == len(news):
        places = {label: index for index, label in enumerate(olds)}
        return [(places[label], index) for index, label in enumerate(news) if label in places]
    both = min(len(olds), len(news))
    return list(zip(range(both), range(both), strict=True))


def _cell(table: Table, row: int, column: int) -> str:
    line = table.cells[row]
    return line[column] if column < len(line) else ""


@dataclass
class _Entry:
    text: str
    head: bool
    across: int = 1
    down: int = 1


_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figure", "footer", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hr", "li", "ol", "p", "pre", "section", "ul",
})  # fmt: skip
_UNSEEN = ("style", "script")


class _Reader(HTMLParser):
    """Tables as grids of entries, and what text is beside them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[list[list[_Entry]]] = []
        self.beside: list[str] = []
        self._depth = 0
        self._entry: _Entry | None = None
        self._unseen = False

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag in _UNSEEN:
            self._unseen = True
        elif tag == "table":
            self._depth += 1
            if self._depth == 1:
                self.tables.append([])
        elif self._depth == 1 and tag == "tr":
            self.tables[-1].append([])
            self._entry = None
        elif self._depth == 1 and tag in ("td", "th"):
            if not self.tables[-1]:
                self.tables[-1].append([])
            self._entry = _Entry("", tag == "th", _count(values, "colspan"), _count(values, "rowspan"))
            self.tables[-1][-1].append(self._entry)
        elif tag in _BLOCKS or tag in ("td", "th", "tr"):
            self._add("\n")
        elif tag == "img":
            self._add(f"\n{values.get('src') or ''}\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = False
        elif tag == "table":
            self._depth = max(self._depth - 1, 0)
        elif self._depth == 1 and tag in ("td", "th"):
            self._entry = None
        elif tag in _BLOCKS:
            self._add("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._add(data)

    def _add(self, data: str) -> None:
        if self._depth == 0:
            self.beside.append(data)
        elif self._entry is not None:
            self._entry.text += data


def _count(attributes: Mapping[str, str | None], name: str) -> int:
    value = attributes.get(name) or "1"
    return min(max(int(value), 1), 1000) if value.isdecimal() else 1


def _table(grid: Sequence[Sequence[_Entry]]) -> Table:
    """Labels and cells: rows of headers on top are the columns', headers on the left of the others the rows'."""
    lines = _spread(grid)
    top = 0
    while top < len(lines) and lines[top] and all(entry.head for entry in lines[top]):
        top += 1
    left = max((_heads(line) for line in lines[top:]), default=0)
    if top == len(lines):
        top, left = min(top, 1), 0
    width = max((len(line) for line in lines), default=0)
    columns = [_joined(line[index] for line in lines[:top] if index < len(line)) for index in range(left, width)]
    body = lines[top:]
    rows = [_joined(line[:left]) for line in body]
    return Table(columns, rows, [[entry.text.strip() for entry in line[left:]] for line in body])


def _spread(grid: Sequence[Sequence[_Entry]]) -> list[list[_Entry]]:
    """The grid with entries that span several rows or columns in each of them."""
    lines: list[list[_Entry]] = []
    hanging: dict[int, tuple[_Entry, int]] = {}
    for row in grid:
        line: list[_Entry] = []
        given = list(row)
        while given or len(line) in hanging:
            column = len(line)
            if column in hanging:
                entry, left = hanging.pop(column)
                if left > 1:
                    hanging[column] = entry, left - 1
                line.append(entry)
                continue
            entry = given.pop(0)
            for _ in range(entry.across):
                if entry.down > 1:
                    hanging[len(line)] = entry, entry.down - 1
                line.append(entry)
        lines.append(line)
    return lines


def _heads(line: Sequence[_Entry]) -> int:
    return next((index for index, entry in enumerate(line) if not entry.head), len(line))


def _joined(entries: Any) -> str:
    return " / ".join(dict.fromkeys(entry.text.strip() for entry in entries if entry.text.strip()))


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(value)
