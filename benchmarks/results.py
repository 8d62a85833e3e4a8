"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "out"
SCALES = {"ms": 1000.0, "s": 1.0, "MiB": 1 / 2**20, "lines/s": 1.0, "requests": 1.0}
"""{unit: what a sample, in seconds, bytes, lines a second or requests, is multiplied with to be shown}"""


@dataclass(frozen=True)
class Goal:
    """A bound on the median, in the samples' own unit, or with `ratio` on its ratio to the peer's."""

    limit: float
    ratio: bool = False


@dataclass(frozen=True)
class Row:
    """One thing measured.

    samples: seconds, bytes, lines a second or requests; peer: the same of whoever it is compared with. paired: each sample was taken
    beside the peer's of the same place, so that what disturbed one disturbed the other.
    """

    what: str
    unit: str
    samples: Sequence[float]
    peer_name: str = ""
    peer: Sequence[float] = ()
    goal: Goal | None = None
    paired: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def ratio(self) -> float | None:
        """Our median in units of the peer's; of pairs the median of their ratios."""
        if self.paired:
            return statistics.median(self._ratios())
        return self.median / statistics.median(self.peer) if self.peer else None

    def _ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.samples, self.peer, strict=True)]

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        value = self.ratio if self.goal.ratio else self.median
        return value is not None and value <= self.goal.limit

    def cells(self) -> list[str]:
        """As the table shows it."""
        ratio = f"{self.ratio:.2f}×" if self.ratio is not None else ""
        if self.paired and len(self.samples) > 2:
            first, _, third = statistics.quantiles(self._ratios(), n=4, method="inclusive")
            ratio += f" ({first:.2f}–{third:.2f})"
        peer = f"{self.peer_name}: {self._shown(self.peer)}" if self.peer else ""
        return [self.what, self._shown(self.samples), peer, ratio, self._goal()]

    def to_json(self) -> dict[str, Any]:
        """As programs read it."""
        record: dict[str, Any] = {"what": self.what, "unit": self.unit, "median": self.median, "samples": list(self.samples)}
        if self.peer:
            record["peer"] = {"name": self.peer_name, "median": statistics.median(self.peer), "samples": list(self.peer)}
            record |= {"ratio": self.ratio, "of": "pairs" if self.paired else "medians"}
        if self.goal:
            record["goal"] = {"limit": self.goal.limit, "of": "ratio" if self.goal.ratio else "median", "met": self.met}
        return record

    def _shown(self, samples: Sequence[float]) -> str:
        text = f"{self._number(statistics.median(samples))} {self.unit}"
        if len(samples) < 3:
            return text
        first, _, third = statistics.quantiles(samples, n=4, method="inclusive")
        return f"{text} ({self._number(first)}–{self._number(third)})"

    def _number(self, value: float) -> str:
        shown = value * SCALES[self.unit]
        return f"{shown:,.0f}" if abs(shown) >= 100 else f"{shown:.3g}"

    def _goal(self) -> str:
        if self.goal is None:
            return ""
        bound = f"≤ {self.goal.limit:g}×" if self.goal.ratio else f"≤ {self._number(self.goal.limit)} {self.unit}"
        return f"{bound}: {'met' if self.met else 'MISSED'}"


@dataclass
class Table:
    """The outcome of one measure. note: what has to be known to read it."""

    name: str
    title: str
    note: str = ""
    rows: list[Row] = field(default_factory=list)

    def text(self) -> str:
        """A Markdown table that can also be read as it is."""
        header = ["what", "Wardian: median (middle half)", "peer: median (middle half)", "ratio", "goal"]
        lines = [header, *(row.cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        shown = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines]
        shown.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
        return "\n".join([f"### {self.name}: {self.title}", "", *shown, *(["", self.note] if self.note else [])])

    def write(self, machine: dict[str, Any]) -> Path:
        """Write out/NAME.json."""
        OUT.mkdir(exist_ok=True)
        path = OUT / f"{self.name}.json"
        record = {"name": self.name, "title": self.title, "machine": machine, "rows": [row.to_json() for row in self.rows]}
        path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return path
