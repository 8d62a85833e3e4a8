"""The CSV files that an experiment names: traces of what a link does over time, and matrices of delays between networks.

Pure: text comes in, values or ExperimentFileError with the file's line come out.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

from ..errors import ExperimentFileError, Problem
from . import units
from .document import Path
from .links import Delays, Shape
from .model import Experiment

LONGEST_TRACE = 20_000
"""Steps; what is longer belongs into several experiments."""

COLUMNS: Mapping[str, Callable[[object], float]] = {
    "delay": units.parse_duration,
    "jitter": units.parse_duration,
    "rate": units.parse_rate,
    "loss": units.parse_fraction,
}
"""What a trace may change, and how a value with its unit is read."""

OPPORTUNITY = 1504 * 8
"""Bits that one line of a Mahimahi trace lets through."""
OPPORTUNITIES_TOGETHER = 0.1
"""Seconds of a Mahimahi trace that become one step."""

_HEADER = re.compile(r"\s*([a-z]+)\s*(?:[_ ]?[\[(]?\s*([A-Za-z/%]+)\s*[\])]?)?\s*")


@dataclass(frozen=True, slots=True)
class Trace:
    """Values over time. steps: (seconds from its beginning, {part of a shape: value}); the first is at 0. length: seconds until its end."""

    steps: tuple[tuple[float, Mapping[str, float]], ...]
    length: float

    @property
    def spec(self) -> dict[str, Any]:
        """As a plain JSON value."""
        return {"length": self.length, "steps": [[moment, dict(values)] for moment, values in self.steps]}


Tables = Mapping[str, Trace | Delays]
"""What was read, by the path as it is written in the experiment."""


def named(experiment: Experiment) -> Iterator[tuple[Path, str, str]]:
    """(where it is named, path as written, "trace" or "matrix") for each file that holds values of links."""
    for name, link in experiment.links.items():
        yield from _traces(("links", name), link, ("there", "back"))
        if isinstance(link.delays, str):
            yield ("links", name, "delays"), link.delays, "matrix"
    for name, node in experiment.nodes.items():
        for network, access in (node.networks or {}).items():
            yield from _traces(("nodes", name, "networks", network), access, ("up", "down"))


def _traces(path: Path, shape: Shape, ways: Sequence[str]) -> Iterator[tuple[Path, str, str]]:
    for inner, part in [(path, shape), *(((*path, way), getattr(shape, way)) for way in ways)]:
        if part is not None and part.trace is not None:
            yield (*inner, "trace"), part.trace.file, "trace"


def parse_trace(text: str, source: str) -> Trace:
    """A trace from CSV text: a column `time` and at least one of delay, jitter, rate and loss.

    A column's name may end in the unit of its numbers (`delay_ms`, `rate (mbit)`); otherwise values carry theirs, and times are seconds.
    A text of nothing but whole numbers is a trace of Mahimahi: each line the millisecond at which 1504 bytes may pass.
    Raises ExperimentFileError naming the line.
    """
    if re.fullmatch(r"\s*[0-9]+(\s+[0-9]+)*\s*", text):
        return _parse_opportunities(text, source)
    rows = _rows(text, source)
    line, header = next(rows, (1, [""]))
    columns = [_column(cell, line, source) for cell in header]
    names = [name for name, _ in columns]
    if "time" not in names or len(names) < 2 or len(set(names)) < len(names):
        _refuse(source, line, "header", "columns time and, each once, some of delay, jitter, rate and loss", ", ".join(header))
    steps: list[tuple[float, Mapping[str, float]]] = []
    for line, row in rows:
        if len(row) != len(columns):
            _refuse(source, line, "row", f"{len(columns)} values", str(len(row)))
        values = {name: _value(name, unit, cell, line, source) for (name, unit), cell in zip(columns, row, strict=True)}
        moment = values.pop("time")
        if steps and moment <= steps[-1][0]:
            _refuse(source, line, "time", "a time later than that of the row above", row[names.index("time")])
        steps.append((moment, values))
    return _trace(steps, source)


def parse_matrix(text: str, source: str) -> dict[str, dict[str, float]]:
    """One-way delays between networks from CSV text: the first row and the first column name them; empty where nothing is said.

    Numbers without a unit are milliseconds. Raises ExperimentFileError naming the line.
    """
    rows = _rows(text, source)
    line, header = next(rows, (1, []))
    names = [cell.strip() for cell in header[1:]]
    if not names or len(set(names)) < len(names):
        _refuse(source, line, "header", "an empty cell and then the names of the networks, each once", ", ".join(header))
    matrix: dict[str, dict[str, float]] = {}
    for line, row in rows:
        name = row[0].strip()
        if name in matrix or name not in names:
            _refuse(source, line, "first column", "each network of the first row once", name)
        if len(row) != len(header):
            _refuse(source, line, name, f"{len(header)} cells", str(len(row)))
        filled = {other: cell for other, cell in zip(names, row[1:], strict=True) if cell.strip() and other != name}
        matrix[name] = {other: _value("delay", "", cell, line, source, bare="ms") for other, cell in filled.items()}
    return matrix


def _rows(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row) and not row[0].lstrip().startswith("#"):
                yield reader.line_num, row
    except csv.Error as error:
        _refuse(source, reader.line_num, "row", "comma-separated values", str(error))


def _column(cell: str, line: int, source: str) -> tuple[str, str]:
    found = _HEADER.fullmatch(cell.lower())
    name, unit = (found[1], found[2] or "") if found else ("", "")
    if name not in ("time", *COLUMNS):
        _refuse(source, line, "header", f"time, {', '.join(COLUMNS)}, each with its unit if values have none", cell)
    if unit:
        _value(name, unit, "1", line, source)
    return name, unit


def _value(name: str, unit: str, cell: str, line: int, source: str, *, bare: str = "") -> float:
    text = cell.strip()
    if re.fullmatch(units.NUMBER_PATTERN, text):
        text += unit or bare or ("s" if name == "time" else "")
    try:
        return units.parse_duration(text) if name == "time" else COLUMNS[name](text)
    except ValueError as error:
        _refuse(source, line, name, str(error), cell.strip())


def _parse_opportunities(text: str, source: str) -> Trace:
    moments = [int(word) for word in text.split()]
    if any(later < earlier for earlier, later in pairwise(moments)):
        _refuse(source, 1, "", "milliseconds in ascending order", "others")
    counts = Counter(int(moment / 1000 / OPPORTUNITIES_TOGETHER) for moment in moments)
    # where nothing may pass the slowest rate stands in, for a rate of nothing would hold packets for ever
    rates = [max(counts[number] * OPPORTUNITY / OPPORTUNITIES_TOGETHER, 1000) for number in range(max(counts) + 1)]
    return _trace([(round(number * OPPORTUNITIES_TOGETHER, 9), {"rate": round(rate)}) for number, rate in enumerate(rates)], source)


def _trace(steps: Sequence[tuple[float, Mapping[str, float]]], source: str) -> Trace:
    if not 0 < len(steps) <= LONGEST_TRACE:
        _refuse(source, 1, "", f"between one and {LONGEST_TRACE:,} steps", f"{len(steps):,}")
    first = steps[0][0]
    moved = [(round(moment - first, 9), values) for moment, values in steps]
    # equal neighbours are one step
    kept = [step for number, step in enumerate(moved) if not number or step[1] != moved[number - 1][1]]
    last = moved[-1][0] - moved[-2][0] if len(moved) > 1 else 1.0
    return Trace(tuple(kept), round(moved[-1][0] + last, 9))


def _refuse(source: str, line: int, field: str, wanted: str, got: str) -> NoReturn:
    raise ExperimentFileError([Problem(field, "wrong value", source, line, 1, expected=wanted, got=repr(got[:60]))])
