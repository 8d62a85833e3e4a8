"""What stands below a cell on several nodes in the end: their results as one table, their errors as one, how each of them did. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .ansi import plain, to_html

MUCH = 100
"""Lines of output from which on a cell is summed up though nothing failed."""
LAST_LINES = 20
"""Lines of a node's output that its summary shows."""
_ROWS = 500
"""Rows of a table of results."""

_LONGEST_NAMES = 60

_LEFT = 'style="text-align:left"'
_INDEXED = re.compile(r"^(.*)\[(\d+)\]$")
_STATES = {"KeyboardInterrupt": "interrupted", "CellTimeout": "timed out", "NotRun": "not run"}


@dataclass
class Outcome:
    """How the cell did in one lane. seconds: from its begin to its end. lines: how many it printed; last: the last of them."""

    name: str
    seconds: float = 0.0
    lines: int = 0
    last: Sequence[str] = field(default_factory=list)
    error: dict[str, Any] | None = None

    @property
    def state(self) -> str:
        """ok, failed, interrupted, timed out or not run."""
        return "ok" if self.error is None else state_of(self.error)

    @property
    def reason(self) -> str:
        """Why it failed, in one line."""
        return plain(reason(self.error)).partition("\n")[0] if self.error is not None and self.state == "failed" else ""


def compact(names: Iterable[str]) -> str:
    """Node names as a short selector: client[0], client[1], client[2], server becomes `client[0:3],server`."""
    parts: list[str] = []
    run: tuple[str, int, int] | None = None

    def close() -> None:
        if run is not None:
            group, first, last = run
            parts.append(f"{group}[{first}]" if first == last else f"{group}[{first}:{last + 1}]")

    for name in names:
        match = _INDEXED.match(name)
        if match is None:
            close()
            run = None
            parts.append(name)
            continue
        group, index = match[1], int(match[2])
        if run is not None and run[0] == group and run[2] + 1 == index:
            run = group, run[1], index
        else:
            close()
            run = group, index, index
    close()
    return ",".join(parts)


def state_of(error: dict[str, Any]) -> str:
    """What an error says of what it ended: failed, interrupted, timed out or not run."""
    return _STATES.get(str(error.get("ename")), "failed")


def heading(nodes: str) -> str:
    """The line that stands above a traceback and names where it comes from."""
    return f"\x1b[1m── {nodes} ──\x1b[0m"


def reason(error: dict[str, Any]) -> str:
    """An error's name and value."""
    return f"{error.get('ename')}: {error.get('evalue')}"


def table(results: dict[str, dict[str, Any]], grouped: bool = True) -> dict[str, Any]:
    """Results by lane (the content of execute_result messages) as the content of a display. grouped: equal ones are one row."""
    rows: dict[tuple[str, str | None, int], list[str]] = {}
    for number, (name, content) in enumerate(results.items()):
        data = content["data"]
        markup = data.get("text/html")
        rows.setdefault((_text(data.get("text/plain", "")), _text(markup) if markup else None, 0 if grouped else number), []).append(name)
    shown = list(rows.items())[:_ROWS]
    names = [compact(nodes) for _, nodes in shown]
    width = max(len(name) for name in names)
    lines, cells, folds = [], [], []
    for name, ((text, markup, _), _) in zip(names, shown, strict=True):
        indented = text.replace("\n", "\n" + " " * width + " │ ")
        lines.append(f"{name:<{width}} │ {indented}")
        escaped = html.escape(text)
        cells.append(f"<tr><th {_LEFT}>{html.escape(name)}</th><td {_LEFT}><pre>{escaped}</pre></td></tr>")
        folds.append(f"<details open><summary><b>{html.escape(name)}</b></summary>{markup or f'<pre>{escaped}</pre>'}</details>")
    if len(rows) > len(shown):
        lines.append(f"… and {len(rows) - len(shown)} more")
        cells.append(f"<tr><td colspan=2>{lines[-1]}</td></tr>")
        folds.append(lines[-1])
    markup = "".join(folds) if any(fold for _, fold, _ in rows) else f"<table>{''.join(cells)}</table>"
    return display("\n".join(lines), markup, {"nodes": list(results)})


def failure(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """The errors of all lanes as the content of one error message, or None."""
    failed = [outcome for outcome in outcomes if outcome.state not in ("ok", "not run")]
    if not failed:
        return None
    reasons: dict[str, list[str]] = {}
    traces: dict[tuple[str, ...], list[str]] = {}
    for outcome in failed:
        error = outcome.error or {}
        reasons.setdefault(reason(error), []).append(outcome.name)
        traces.setdefault(tuple(error.get("traceback", [])), []).append(outcome.name)
    traceback = []
    for lines, names in traces.items():
        traceback += [heading(compact(names)), *lines]
    left_out = [outcome.name for outcome in outcomes if outcome.state == "not run"]
    others = len(outcomes) - len(failed) - len(left_out)
    if others or left_out:
        traceback.append(f"{_short([outcome.name for outcome in failed])} failed")
    if others:
        traceback[-1] += f"; {others} other{'s' if others > 1 else ''} did not"
    if left_out:
        traceback[-1] += f"; not run: {compact(left_out)}"
    evalue = "; ".join(f"{compact(names)}: {reason}" for reason, names in reasons.items())
    return {"ename": "NodeErrors", "evalue": evalue, "traceback": traceback}


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """A display of how each lane did, those that failed unfolded; None where little was printed and nothing failed."""
    states = {outcome.state for outcome in outcomes}
    if sum(outcome.lines for outcome in outcomes) <= MUCH and (states == {"ok"} or states == {"interrupted"}):
        return None
    return display(_as_text(outcomes), "".join(_lane(outcome) for outcome in outcomes), {"summary": True})


def display(text: str, markup: str, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of a display_data message."""
    return {"data": {"text/plain": text, "text/html": markup}, "metadata": {"wardian": metadata} if metadata else {}, "transient": {}}


def _as_text(outcomes: Sequence[Outcome]) -> str:
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.state, outcome.reason), []).append(outcome)
    names = [_short([outcome.name for outcome in group]) for group in groups.values()]
    width = max(len(name) for name in names)
    lines = []
    for name, ((state, why), group) in zip(names, groups.items(), strict=True):
        parts = [state + (f": {why}" if why else "")]
        if state != "not run":
            parts += [_seconds(group), _lines(sum(outcome.lines for outcome in group))]
        last = plain(group[0].last[-1]) if why and group[0].last else ""
        lines.append(f"{name:<{width}} │ {', '.join(parts)}" + (f", the last: {last}" if last else ""))
    return "\n".join(lines)


def _lane(outcome: Outcome) -> str:
    facts = [outcome.state] if outcome.state == "not run" else [outcome.state, _seconds([outcome]), _lines(outcome.lines)]
    head = f"<summary><b>{html.escape(outcome.name)}</b> {html.escape(', '.join(facts))}</summary>"
    body = ""
    if outcome.lines > len(outcome.last):
        body += f"<small>the last {len(outcome.last)} of {outcome.lines} lines</small>"
    if outcome.last:
        body += f"<pre>{to_html(chr(10).join(outcome.last))}</pre>"
    if outcome.error is not None and outcome.state != "not run":
        trace = outcome.error.get("traceback") or [reason(outcome.error)]
        body += f"<pre>{to_html(chr(10).join(trace))}</pre>"
    return f"<details{'' if outcome.state in ('ok', 'not run') else ' open'}>{head}{body}</details>"


def _short(names: Sequence[str]) -> str:
    text = compact(names)
    return text if len(text) <= _LONGEST_NAMES else f"{names[0]} and {len(names) - 1} more"


def _seconds(outcomes: Sequence[Outcome]) -> str:
    least, most = min(outcome.seconds for outcome in outcomes), max(outcome.seconds for outcome in outcomes)
    return f"{most:.1f} s" if f"{least:.1f}" == f"{most:.1f}" else f"{least:.1f} to {most:.1f} s"


def _lines(number: int) -> str:
    return f"{number} line{'' if number == 1 else 's'}"


def _text(value: object) -> str:
    return "".join(value) if isinstance(value, list) else str(value)
