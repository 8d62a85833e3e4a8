"""A replay as a page that needs nothing beside it, and as JSON."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..environment.facts import MACHINE
from ..journal import RunRecord
from .compare import CellComparison, ExecutedCell, Finding, Rules, Times, Verdict, outputs
from .compare.results import plain
from .compare.runs import match
from .recorded import executed, gathered
from .replaying import Replay
from .sides import panels

_DOTS = 420, 36
"""Width and height of the figure of two samples."""
_SHOWN = 200
"""Most findings of one cell, of those that are accepted and of the others."""


def to_json(found: Replay) -> dict[str, Any]:
    """What a replay found, for scripts."""
    comparison = found.comparison
    return {
        "notebook": str(found.notebook),
        "verdict": comparison.verdict.value,
        "counts": comparison.count(),
        "recorded": [_run(record) for record in found.recorded],
        "new": [_run(record) for record in found.new],
        "environment": plain(comparison.environment),
        "unhonoured": list(comparison.unhonoured),
        "doubts": found.doubts,
        "failed": list(found.failed),
        "cells": plain(comparison.cells),
    }


def write(found: Replay, path: Path) -> list[Path]:
    """Write the page, and JSON under the same name beside it. Gives both paths."""
    page, data = (path, path.with_suffix(".json")) if path.suffix != ".json" else (path.with_suffix(".html"), path)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(to_html(found), encoding="utf-8")
    data.write_text(_json_text(to_json(found)), encoding="utf-8")
    return [page, data]


def _json_text(told: dict[str, Any]) -> str:
    """With each cell on a line of its own: there may be ten thousand findings, and indenting all takes as long as comparing them."""
    whole = json.dumps(told | {"cells": []}, indent=2)
    cells = ",\n".join(f"    {json.dumps(cell)}" for cell in told["cells"])
    return whole.replace('"cells": []', f'"cells": [\n{cells}\n  ]') + "\n"


def to_html(found: Replay) -> str:
    """The page. It loads nothing, runs nothing, and shows what nodes printed as text and pictures only."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(loader=PackageLoader(__package__, "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    templates.filters["figure"] = _figure
    comparison = found.comparison
    longest = max((value for cell in comparison.cells for times in cell.times.values() for value in (*times.old, *times.new)), default=0.0)
    return templates.get_template("report.html.j2").render(
        title=found.notebook.name,
        verdict=comparison.verdict,
        counts=comparison.count(),
        runs=[("recorded", record) for record in map(_run, found.recorded)] + [("now", record) for record in map(_run, found.new)],
        comparison=comparison,
        environment=gathered(comparison.environment),
        doubts=found.doubts,
        failed=found.failed,
        cells=_cells(found),
        bars=[(cell, _bars(cell, longest)) for cell in comparison.cells],
        node_facts=_node_facts(found),
    )


def _run(record: RunRecord) -> dict[str, Any]:
    run = record.run
    started = time.strftime("%F %T", time.localtime(run.started))
    facts = {name: run.detail.get(name) for name in ("provider", "host", "user", "parameters")}
    return {"id": run.id, "started": started, "seconds": run.seconds, "status": run.status, **facts}


def _node_facts(found: Replay) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Of each node, and of home, what machine it is: recorded and now."""
    old, new = found.recorded[0], found.new[0]
    tables = []
    for node in (None, *dict.fromkeys([*old.nodes(), *new.nodes()])):
        one, other = (record.fact(MACHINE, node) or {} for record in (old, new))
        if rows := [(name, str(one.get(name, "")), str(other.get(name, ""))) for name in {**one, **other}]:
            tables.append((node or "here", rows))
    return tables


def _cells(found: Replay) -> list[dict[str, Any]]:
    """Each cell with its sources, findings and outputs, in the order of the comparison."""
    old, new = executed(found.recorded[0]), executed(found.new[0])
    rules = Rules(known=(*old.names, *new.names))
    shown = []
    for (recorded, came), cell in zip(match(old.cells, new.cells), found.comparison.cells, strict=True):
        bad = [item for item in cell.findings if not item.verdict.fine]
        fine = [item for item in cell.findings if item.verdict.fine]
        shown.append({
            "cell": cell,
            "where": _where(came or recorded),
            "source": (came or recorded or ExecutedCell(None, "")).source,
            "bad": bad[:_SHOWN],
            "fine": fine[:_SHOWN],
            "more": max(len(bad) - _SHOWN, 0) + max(len(fine) - _SHOWN, 0),
            "panels": panels(_shown(recorded), _shown(came), rules),
        })  # fmt: skip
    return shown


def _where(cell: ExecutedCell | None) -> str:
    return (cell.selector if cell else None) or "here"


def _shown(cell: ExecutedCell | None) -> Mapping[str | None, outputs.Shown]:
    return outputs.by_node(cell.messages) if cell is not None else {}


def _bars(cell: CellComparison, longest: float) -> list[dict[str, Any]]:
    """Lengths of bars, as shares of the longest: of the cell, and of each node where there are several."""
    nodes = [node for node in cell.times if node is not None]
    kept: Sequence[str | None] = (None, *nodes) if len(nodes) > 1 else (None,)
    return [{"node": node or "", "old": _bar(cell.times[node], longest, 0), "new": _bar(cell.times[node], longest, 1)} for node in kept]


def _bar(times: Times, longest: float, side: int) -> dict[str, Any] | None:
    values = (times.old, times.new)[side]
    if not values:
        return None
    median = statistics.median(values)
    spread = f", {min(values):.2f} to {max(values):.2f}" if len(values) > 1 else ""
    return {"share": f"{100 * median / longest if longest else 0:.2f}", "seconds": f"{median:.2f} s{spread}"}


def _figure(finding: Finding) -> dict[str, Any] | None:
    """Two samples as dots on one scale, with their medians and intervals; None where nothing was sampled."""
    test = finding.test
    if test is None or finding.verdict is Verdict.IDENTICAL:
        return None
    values = [*test.old, *test.new]
    low, high = min(values), max(values)
    if not low < high < float("inf") or low == float("-inf"):
        return None
    width, height = _DOTS

    def across(value: float) -> str:
        return f"{10 + (width - 20) * (value - low) / (high - low):.1f}"

    sides = []
    for name, sample, median, interval, y in (
        ("old", test.old, test.old_median, test.old_interval, height * 0.3),
        ("new", test.new, test.new_median, test.new_interval, height * 0.75),
    ):
        dots = [across(value) for value in sample]
        sides.append({"name": name, "dots": dots, "median": across(median), "from": across(interval[0]), "to": across(interval[1]), "y": y})
    return {"width": width, "height": height, "sides": sides, "how": test.how}
