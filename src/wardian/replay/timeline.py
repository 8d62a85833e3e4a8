"""A run on a time axis, as inline SVG: cells where they ran, what was done to the environment, and faults. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor

from ..journal import LogEntry, RunRecord
from ..kernel.record.recording import REPLY

WIDTH, LEFT, ROW, GAP, AXIS = 1000, 130, 18, 6, 24
"""Of the drawing, in its own units: all of it, what the names of lanes take, and the heights of a bar, between lanes and of the axis."""
DRAWN = 12
"""Of more nodes than that, those of one group share a lane."""
_TICKS = 10
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 86400)


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that lasted. kind: "cell", "operation", "transfer", "fault" or "event"; label: what stands in it; target: the cell's id."""

    begin: float
    end: float
    kind: str
    status: str
    title: str
    label: str = ""
    target: str = ""


@dataclass
class Lane:
    """What concerns one node, home, or the environment as a whole."""

    name: str
    bars: list[Bar] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[Bar, int]]:
        """The bars with their rows: those that overlap are below each other."""
        ends: list[float] = []
        for bar in sorted(self.bars, key=lambda bar: bar.begin):
            row = next((number for number, end in enumerate(ends) if end <= bar.begin), len(ends))
            ends[row:] = [bar.end, *ends[row + 1 :]]
            yield bar, row


def lanes(record: RunRecord) -> list[Lane]:
    """The environment, home and the nodes, each with what happened there; those with nothing are left out."""
    end = _end(record)
    nodes = record.nodes()
    gathered = len(nodes) > DRAWN
    found = {name: Lane(name) for name in ("environment", "faults", "here", *(_lane(node, gathered) for node in nodes))}
    number = 0
    for entry in record.entries:
        until = end if entry.ended is None else entry.ended
        if entry.kind == "cell":
            number += 1
            replies = {output.node: output.time for output in record.outputs.get(entry.id, ()) if output.message_type == REPLY}
            for node in entry.nodes or (None,):
                bar = _cell(entry, number, min(replies.get(node, until), until) if node else until, node)
                found.setdefault(_lane(node, gathered) if node else "here", Lane(node or "here")).bars.append(bar)
        elif entry.kind in ("operation", "transfer"):
            found["environment"].bars.append(Bar(entry.started, until, entry.kind, entry.status, f"{entry.summary} ({entry.status})"))
    found["faults"].bars += _faults(record, end)
    return [lane for lane in found.values() if lane.bars]


def svg(record: RunRecord) -> str:
    """The drawing; nothing where nothing happened. Cells lead to where the page has them."""
    drawn = lanes(record)
    if not drawn:
        return ""
    begin = min(record.run.started, *(bar.begin for lane in drawn for bar in lane.bars))
    scale = (WIDTH - LEFT - 10) / max(_end(record) - begin, 0.1)
    parts: list[str] = []
    top = GAP
    for lane in drawn:
        height = ROW * max(row + 1 for _, row in lane.rows())
        parts.append(f"<text class='lane' x='{LEFT - 8}' y='{top + 13}' text-anchor='end'>{escape(lane.name)}</text>")
        for bar, row in lane.rows():
            parts.append(_drawn(bar, LEFT + (bar.begin - begin) * scale, top + row * ROW, (bar.end - bar.begin) * scale))
        top += height + GAP
        parts.append(f"<line class='rule' x1='0' x2='{WIDTH}' y1='{top - GAP / 2}' y2='{top - GAP / 2}'/>")
    axis = "".join(_tick(moment, LEFT + moment * scale, top) for moment in _moments((WIDTH - LEFT - 10) / scale))
    said = f"{len(record.of('cell'))} cells on a time axis of {_end(record) - begin:.1f} seconds"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' class='timeline' role='img' aria-label='{said}' viewBox='0 0 {WIDTH} {top + AXIS}'>"
        f"{axis}{''.join(parts)}</svg>"
    )


def _end(record: RunRecord) -> float:
    ends = [record.run.ended, *(entry.ended for entry in record.entries)]
    return max((moment for moment in ends if moment is not None), default=record.run.started)


def _lane(node: str, gathered: bool) -> str:
    return node.partition("[")[0] if gathered else node


def _cell(entry: LogEntry, number: int, end: float, node: str | None) -> Bar:
    first = next((line for line in entry.detail["source"].splitlines() if line.strip() and not line.startswith(("%%", "#|"))), "")
    where = f" on {node}" if node else ""
    title = f"[{number}] {first[:80]}{where}: {entry.status}, {end - entry.started:.2f} s"
    return Bar(entry.started, end, "cell", entry.status, title, str(number), str(entry.detail.get("cell") or ""))


def _faults(record: RunRecord, end: float) -> Iterable[Bar]:
    """Faults from their begin to their end, as far as that lies in the run."""
    ended = {entry.detail.get("fault"): entry.started for entry in _events(record, "fault.ended")}
    for entry in _events(record, "fault.begun"):
        yield Bar(entry.started, ended.get(entry.detail.get("fault"), end), "fault", "ok", entry.summary, str(entry.detail.get("kind", "")))


def _events(record: RunRecord, kind: str) -> list[LogEntry]:
    return [entry for entry in record.of("event") if entry.summary.partition(":")[0] == kind]


def _drawn(bar: Bar, x: float, y: float, width: float) -> str:
    wide = max(width, 2)
    fits = bar.label and wide >= 10 + 6 * len(bar.label)
    inside = f"<text x='{x + 4:.1f}' y='{y + 12:.1f}'>{escape(bar.label)}</text>" if fits else ""
    drawn = (
        f"<g class='{bar.kind} {bar.status}'><title>{escape(bar.title)}</title>"
        f"<rect x='{x:.1f}' y='{y}' width='{wide:.1f}' height='{ROW - 3}' rx='2'/>{inside}</g>"
    )
    return f"<a href='#cell-id={escape(bar.target, quote=True)}'>{drawn}</a>" if bar.target else drawn


def _moments(seconds: float) -> Sequence[float]:
    step = next((size for size in _STEPS if seconds / size <= _TICKS), ceil(seconds / _TICKS))
    return [number * step for number in range(floor(seconds / step) + 1)]


def _tick(moment: float, x: float, bottom: float) -> str:
    return (
        f"<line class='tick' x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{bottom}'/>"
        f"<text x='{x:.1f}' y='{bottom + 16}' text-anchor='middle'>{moment:g} s</text>"
    )
