"""The output of a cell on several nodes, grouped by node while it streams. Knows nothing of sockets."""

from __future__ import annotations

import html
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from .summary import LAST_LINES, Outcome, compact, display, failure, summary, table

HOLD = 0.1
"""How long a node's first output waits for that of the others, seconds: quick and equal outputs become one."""
REDRAW = 0.2
"""Seconds between two states of what redraws itself."""

_LONGEST = 2**16
"""Characters after which a line that does not end is ended."""
_LAST_LENGTH = 500
"""Characters of a line that a summary shows."""
_VOLATILE = 2**14
"""Characters that a lane may hold back to redraw them."""

Emit = Callable[[str, dict[str, Any]], None]
"""Called with a message type and its content."""
Segments = tuple[tuple[str, str], ...]
"""Pieces of output: stream and text."""


class Timer(Protocol):
    """What `call_later` gives."""

    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]


class _Lane:
    """What one node has printed and not yet been shown.

    held: whole lines that are to be shown. partial: lines without an end. volatile: what was printed since `clear_output`, and
    may be cleared again; None where nothing was ever cleared. slots: ids of its displays; used: how many of them hold something.
    """

    def __init__(self, name: str, begun: float, live: bool) -> None:
        self.name = name
        self.held: list[tuple[str, str]] = []
        self.partial: dict[str, str] = {"stdout": "", "stderr": ""}
        self.volatile: list[tuple[str, str]] | None = None
        self.to_clear = False
        self.live = live
        self.ended = False
        self.begun = begun
        self.seconds = 0.0
        self.lines = 0
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.slots: list[str] = []
        self.used = 0

    def write(self, stream: str, text: str) -> None:
        text = self.partial.get(stream, "") + text
        if len(text) > _LONGEST and "\n" not in text and "\r" not in text:
            text += "\n"
        whole, newline, partial = text.rpartition("\n")
        # what a carriage return has overwritten is never seen again
        if "\r" in partial:
            partial = "\r" + redrawn(partial) + ("\r" if partial.endswith("\r") else "")
        self.partial[stream] = partial
        if newline:
            self._whole(stream, [redrawn(line) for line in whole.split("\n")])

    def clear(self) -> None:
        self.held.clear()
        self.last.clear()
        self.partial = dict.fromkeys(self.partial, "")
        self.volatile = []
        self.used = 0
        self.to_clear = False

    def end(self, seconds: float) -> None:
        for stream, text in self.partial.items():
            if text.strip("\r"):
                self._whole(stream, [redrawn(text)])
            self.partial[stream] = ""
        for stream, text in self.volatile or ():
            self._hold(self.held, stream, text)
        self.volatile = None
        self.ended = True
        self.seconds = seconds

    def take(self) -> Segments:
        held, self.held = tuple(self.held), []
        return held

    def moving(self) -> str:
        """What is shown for now, and may be drawn anew."""
        text = "".join(text for _, text in self.volatile or ())
        return text + "".join(redrawn(partial) for partial in self.partial.values() if "\r" in partial)

    def _whole(self, stream: str, lines: list[str]) -> None:
        self.lines += len(lines)
        self.last.extend(line[:_LAST_LENGTH] for line in lines[-LAST_LINES:])
        text = "".join(f"{line}\n" for line in lines)
        if self.volatile is None:
            self._hold(self.held, stream, text)
            return
        self._hold(self.volatile, stream, text)
        if sum(len(text) for _, text in self.volatile) > _VOLATILE:
            for piece in self.volatile:
                self._hold(self.held, *piece)
            self.volatile = []

    def _hold(self, segments: list[tuple[str, str]], stream: str, text: str) -> None:
        if segments and segments[-1][0] == stream:
            segments[-1] = stream, segments[-1][1] + text
        else:
            segments.append((stream, text))


class Lanes:
    """Groups output by node. Equal quick outputs of several nodes are shown once, under all their names; what streams goes
    out live, each line after its node's name. Results, tracebacks and a summary come at the end, grouped likewise.

    Lines that redraw themselves (progress bars), and what a node prints after a `clear_output`, are shown together in one display
    that is brought up to date a few times a second; what they show last becomes ordinary lines.
    """

    def __init__(
        self, nodes: Sequence[str], emit: Emit, later: Later, *, grouped: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """grouped: whether equal outputs and results are shown as one. More lanes than `nodes` may be opened."""
        self._emit = emit
        self._later = later
        self._grouped = grouped
        self._clock = clock
        self._lanes: dict[str, _Lane] = {}
        self._timer: Timer | None = None
        self._redrawing: Timer | None = None
        self._id = secrets.token_hex(8)
        self._board: dict[str, Any] | None = None
        self._width = 0
        self._running = 0
        self._results: dict[str, dict[str, Any]] = {}
        self._errors: dict[str, dict[str, Any]] = {}
        for node in nodes:
            self.open(node)

    def open(self, name: str, *, live: bool = False) -> None:
        """Open a lane, or say that what runs in it begins only now. live: nothing is held back to find equals."""
        if name not in self._lanes:
            self._running += 1
        self._lanes[name] = _Lane(name, self._clock(), live=live or not self._grouped)
        self._width = max(self._width, len(name))

    def stream(self, node: str, content: dict[str, Any]) -> None:
        """A stream message's content."""
        lane = self._cleared(node)
        lane.write(str(content.get("name", "stdout")), str(content.get("text", "")))
        if lane.held:
            if lane.live or lane.ended:
                self._show([(node, lane.take())])
            else:
                self._wait()
        if self._redrawing is None and (self._board is not None or lane.moving()):
            self._redrawing = self._later(REDRAW if self._board is not None else HOLD, self._redraw)

    def clear(self, node: str, wait: bool) -> None:
        """A clear_output message. What was shown as ordinary lines stays. wait: until there is something new."""
        self._lanes[node].to_clear = True
        if not wait:
            self._cleared(node)
            self._blank(node)

    def result(self, node: str, content: dict[str, Any]) -> None:
        """An execute_result's content: kept until all have ended, unless it is more than text and HTML."""
        if set(content.get("data", {})) <= {"text/plain", "text/html"}:
            self._results[node] = content
        else:
            self.rich(node, "display_data", content)

    def rich(self, node: str, kind: str, content: dict[str, Any]) -> None:
        """A display_data or update_display_data message's content; ids of displays are made the node's own."""
        lane = self._cleared(node)
        transient = dict(content.get("transient") or {})
        if "display_id" in transient:
            transient["display_id"] = f"{node}/{transient['display_id']}"
        elif kind == "display_data":
            # an id of ours, so that clear_output can take its place for what comes next
            if lane.used < len(lane.slots):
                kind = "update_display_data"
            else:
                lane.slots.append(f"{self._id}/{node}/{lane.used}")
            transient["display_id"] = lane.slots[lane.used]
            lane.used += 1
        if kind == "display_data":
            self.flush()
            self._emit("display_data", display(f"{node} │", f"<small><b>{html.escape(node)}</b></small>"))
        metadata = {**content.get("metadata", {}), "wardian": {"nodes": [node]}}
        self._emit(kind, {"data": content.get("data", {}), "metadata": metadata, "transient": transient})

    def error(self, node: str, content: dict[str, Any]) -> None:
        """An error's content (ename, evalue, traceback)."""
        self._errors[node] = content

    def failed(self, node: str) -> bool:
        """Whether an error has come from it."""
        return node in self._errors

    def ended(self, node: str, seconds: float | None = None) -> None:
        """The node has nothing more to say. seconds: how long it worked, where that is not the time since its lane was opened."""
        lane = self._lanes[node]
        self._blank(node)
        lane.end(self._clock() - lane.begun if seconds is None else seconds)
        self._running -= 1
        if not self._running:
            self.flush()
        elif lane.live:
            self._show([(node, lane.take())])
        elif lane.held:
            self._wait()

    def finish(self) -> dict[str, Any] | None:
        """Show what comes at the end: results, a summary, and errors as one. Gives the error's content, or None."""
        self.flush()
        if self._redrawing is not None:
            self._redrawing.cancel()
            self._redrawing = None
        if self._board is not None:
            self._redraw()
        if self._results:
            order = {node: self._results[node] for node in self._lanes if node in self._results}
            self._emit("display_data", table(order, self._grouped))
        outcomes = [
            Outcome(lane.name, lane.seconds, lane.lines, list(lane.last), self._errors.get(name)) for name, lane in self._lanes.items()
        ]
        summed = summary(outcomes)
        if summed is not None:
            self._emit("display_data", summed)
        error = failure(outcomes)
        if error is not None:
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

    def _cleared(self, node: str) -> _Lane:
        lane = self._lanes[node]
        if lane.to_clear:
            lane.clear()
            self._results.pop(node, None)
        return lane

    def _blank(self, node: str) -> None:
        """Empty the displays whose place nothing new has taken."""
        lane = self._lanes[node]
        for slot in lane.slots[lane.used :]:
            self._emit("update_display_data", {**display("", ""), "transient": {"display_id": slot}})
        del lane.slots[lane.used :]

    def _redraw(self) -> None:
        self._redrawing = None
        moving = [(node, lane.moving()) for node, lane in self._lanes.items()]
        lines = [f"{node:<{self._width}} │ {line}" for node, text in moving for line in text.splitlines()]
        if self._board is None and not lines:
            return
        text = "\n".join(lines)
        board = display(text, f"<pre>{html.escape(text)}</pre>" if text else "")
        board["transient"] = {"display_id": f"{self._id}/moving"}
        if board != self._board:
            self._emit("display_data" if self._board is None else "update_display_data", board)
            self._board = board

    def _show(self, shown: Iterable[tuple[str, Segments]]) -> None:
        groups: dict[Segments, list[str]] = {}
        for node, segments in shown:
            groups.setdefault(segments, []).append(node)
        for segments, nodes in groups.items():
            prefix = f"{compact(nodes):<{self._width}} │ "
            for stream, text in segments:
                self._emit("stream", {"name": stream, "text": "".join(prefix + line for line in text.splitlines(keepends=True))})


def redrawn(line: str) -> str:
    """What is seen of a line after carriage returns: redrawing in place is not possible between lines of others."""
    return line.rstrip("\r").rpartition("\r")[2]
