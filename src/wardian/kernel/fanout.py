"""The output of a cell on several nodes, grouped by node while it streams. Knows nothing of sockets."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

HOLD = 0.1
"""How long a node's first output waits for that of the others, seconds: quick and equal outputs become one."""

_LEFT = 'style="text-align:left"'
_INDEXED = re.compile(r"^(.*)\[(\d+)\]$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Emit = Callable[[str, dict[str, Any]], None]
"""Called with a message type and its content."""


class Timer(Protocol):
    """What `call_later` gives."""

    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]


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


class _Lane:
    """What one node has printed and not yet been shown."""

    def __init__(self) -> None:
        self.held: list[tuple[str, str]] = []
        self.partial: dict[str, str] = {"stdout": "", "stderr": ""}
        self.live = False
        self.ended = False

    def write(self, stream: str, text: str) -> None:
        text = self.partial.get(stream, "") + text
        whole, newline, self.partial[stream] = text.rpartition("\n")
        if newline:
            self._hold(stream, "".join(_redrawn(line) + "\n" for line in whole.split("\n")))

    def end(self) -> None:
        for stream, text in self.partial.items():
            if text:
                self._hold(stream, _redrawn(text) + "\n")
                self.partial[stream] = ""
        self.ended = True

    def take(self) -> tuple[tuple[str, str], ...]:
        held, self.held = tuple(self.held), []
        return held

    def _hold(self, stream: str, text: str) -> None:
        if self.held and self.held[-1][0] == stream:
            self.held[-1] = stream, self.held[-1][1] + text
        else:
            self.held.append((stream, text))


class Lanes:
    """Groups output by node. Equal quick outputs of several nodes are shown once, under all their names; what streams goes
    out live, each line after its node's name. Results and tracebacks come at the end, grouped likewise."""

    def __init__(self, nodes: Sequence[str], emit: Emit, later: Later) -> None:
        self._lanes = {node: _Lane() for node in nodes}
        self._emit = emit
        self._later = later
        self._timer: Timer | None = None
        self._width = max(len(node) for node in nodes)
        self._results: dict[str, dict[str, Any]] = {}
        self._errors: dict[str, dict[str, Any]] = {}

    def stream(self, node: str, content: dict[str, Any]) -> None:
        """A stream message's content."""
        lane = self._lanes[node]
        lane.write(str(content.get("name", "stdout")), str(content.get("text", "")))
        if lane.held:
            if lane.live or lane.ended:
                self._show([(node, lane.take())])
            else:
                self._wait()

    def result(self, node: str, content: dict[str, Any]) -> None:
        """An execute_result's content: kept until all have ended, unless it is more than text and HTML."""
        if set(content.get("data", {})) <= {"text/plain", "text/html"}:
            self._results[node] = content
        else:
            self.rich(node, "display_data", content)

    def rich(self, node: str, kind: str, content: dict[str, Any]) -> None:
        """A display_data or update_display_data message's content; ids of displays are made the node's own."""
        transient = content.get("transient") or {}
        if "display_id" in transient:
            transient = {**transient, "display_id": f"{node}/{transient['display_id']}"}
        if kind == "display_data":
            self.flush()
            self._emit("display_data", _mime(f"{node} │", f"<small><b>{html.escape(node)}</b></small>"))
        self._emit(
            kind,
            {
                "data": content.get("data", {}),
                "metadata": {**content.get("metadata", {}), "wardian": {"nodes": [node]}},
                "transient": transient,
            },
        )

    def error(self, node: str, content: dict[str, Any]) -> None:
        """An error's content (ename, evalue, traceback)."""
        self._errors[node] = content

    def ended(self, node: str) -> None:
        """The node has nothing more to say."""
        lane = self._lanes[node]
        lane.end()
        if all(other.ended for other in self._lanes.values()):
            self.flush()
        elif lane.live:
            self._show([(node, lane.take())])
        elif lane.held:
            self._wait()

    def finish(self) -> dict[str, Any] | None:
        """Show what comes at the end: results, then errors as one. Gives the error's content, or None."""
        self.flush()
        if self._results:
            self._emit("display_data", self._table())
        if not self._errors:
            return None
        error = self._failure()
        self._emit("error", error)
        return error

    def flush(self) -> None:
        """Show everything that is held; from here on the nodes that still run stream live."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        shown = []
        for node, lane in self._lanes.items():
            if lane.held:
                shown.append((node, lane.take()))
                lane.live = not lane.ended
        self._show(shown)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self._later(HOLD, self.flush)

    def _show(self, shown: Sequence[tuple[str, tuple[tuple[str, str], ...]]]) -> None:
        groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for node, segments in shown:
            groups.setdefault(segments, []).append(node)
        for segments, nodes in groups.items():
            prefix = f"{compact(nodes):<{self._width}} │ "
            for stream, text in segments:
                self._emit("stream", {"name": stream, "text": "".join(prefix + line for line in text.splitlines(keepends=True))})

    def _table(self) -> dict[str, Any]:
        groups: dict[tuple[str, str | None], list[str]] = {}
        for node in self._lanes:
            if node in self._results:
                data = self._results[node]["data"]
                groups.setdefault((_text(data.get("text/plain", "")), data.get("text/html") and _text(data["text/html"])), []).append(node)
        names = [compact(nodes) for nodes in groups.values()]
        width = max(len(name) for name in names)
        plain, rows, rich = [], [], []
        for name, (text, markup) in zip(names, groups, strict=True):
            indented = text.replace("\n", "\n" + " " * width + " │ ")
            plain.append(f"{name:<{width}} │ {indented}")
            escaped = html.escape(text)
            rows.append(f"<tr><th {_LEFT}>{html.escape(name)}</th><td {_LEFT}><pre>{escaped}</pre></td></tr>")
            rich.append(f"<details open><summary><b>{html.escape(name)}</b></summary>{markup or f'<pre>{escaped}</pre>'}</details>")
        lanes = any(markup for _, markup in groups)
        content = _mime("\n".join(plain), "".join(rich) if lanes else f"<table>{''.join(rows)}</table>")
        content["metadata"] = {"wardian": {"nodes": list(self._results)}}
        return content

    def _failure(self) -> dict[str, Any]:
        failed = [node for node in self._lanes if node in self._errors]
        reasons: dict[str, list[str]] = {}
        traces: dict[tuple[str, ...], list[str]] = {}
        for node in failed:
            error = self._errors[node]
            reasons.setdefault(f"{error.get('ename')}: {error.get('evalue')}", []).append(node)
            traces.setdefault(tuple(error.get("traceback", [])), []).append(node)
        traceback = []
        for lines, nodes in traces.items():
            traceback += [heading(compact(nodes)), *lines]
        evalue = "; ".join(f"{compact(nodes)}: {reason}" for reason, nodes in reasons.items())
        others = len(self._lanes) - len(failed)
        if others:
            traceback.append(f"{compact(failed)} failed; {others} other node{'s' if others > 1 else ''} did not")
        return {"ename": "NodeErrors", "evalue": evalue, "traceback": traceback}


def heading(nodes: str) -> str:
    """The line that stands above a traceback and names where it comes from."""
    return f"\x1b[1m── {nodes} ──\x1b[0m"


def plain(text: str) -> str:
    """`text` without colours."""
    return _COLOUR.sub("", text)


def _redrawn(line: str) -> str:
    """What is seen of a line after carriage returns: redrawing in place is not possible between lines of others."""
    return line.rstrip("\r").rpartition("\r")[2]


def _text(value: object) -> str:
    return "".join(value) if isinstance(value, list) else str(value)


def _mime(text: str, markup: str) -> dict[str, Any]:
    return {"data": {"text/plain": text, "text/html": markup}, "metadata": {}, "transient": {}}
