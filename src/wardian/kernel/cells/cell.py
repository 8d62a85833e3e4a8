"""A cell at work: its request on its places, and what they send made into what its notebook sees."""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from ...errors import NodeError, WardianError
from ...experiment.units import format_duration
from ..front.flow import Cut
from ..front.sockets import Client
from ..places.place import Place
from ..record.recording import Record
from ..wire import IOPUB, STDIN, Message
from .binding import HERE, Binding
from .summary import heading, reason, state_of

GRACE = float(os.environ.get("WARDIAN_INTERRUPT_GRACE", 1))
"""How long nodes may take to answer an interrupt, seconds."""
_KEPT_TEXT = 4 * 2**20
"""How much of a bash cell's standard output is kept for `wardian.results`, characters."""


class NodeStuckError(NodeError):
    """A node's kernel does not answer an interrupt, and can take no cell."""


class Cell:
    """An execute request of a client.

    number: its prompt's, known once it begins. nodes: that it uses, where that is known. earlier: number and source of the cells on
    nodes before it, for home's history.
    """

    def __init__(self, client: Client, request: Message) -> None:
        content = request.content
        self.client = client
        self.request = request
        self.number = 0
        self.code = str(content.get("code", ""))
        self.silent = bool(content.get("silent", False))
        self.store_history = bool(content.get("store_history", not self.silent))
        self.stop_on_error = bool(content.get("stop_on_error", True))
        self.parent = request.parts()[0]
        self.record: Record | None = None
        self.run: Run | None = None
        self.in_background = False
        self.opening: asyncio.Task[None] | None = None
        self.nodes: frozenset[str] | None = None
        self.finding: asyncio.Task[None] | None = None
        self.earlier: list[tuple[int, str]] = []

    @cached_property
    def shown_in(self) -> str:
        """The id of the cell that the front end shows it in, if it told that."""
        cell = self.request.metadata.get("cellId")
        return cell if isinstance(cell, str) and not self.silent else ""

    def request_for(self, code: str, *, alone: bool, home: bool) -> Message:
        """The request as a kernel gets it. alone: on one place, so that it may ask for input.

        The kernel never aborts what is queued after an error: that is ours to do, and other cells' requests wait there too.
        """
        message = self.request.copy()
        message.content = {
            **self.request.content,
            "code": code,
            "stop_on_error": False,
            "allow_stdin": alone and bool(self.request.content.get("allow_stdin", False)),
        }
        if not self.silent:
            entry = message.metadata.get("wardian")
            told = {**(entry if isinstance(entry, dict) else {}), "number": self.number}
            if home and self.earlier:
                told["cells"] = self.earlier
            message.metadata = {**message.metadata, "wardian": told}
        if not home:
            message.header.pop("subshell_id", None)
        return message


class Output(Protocol):
    """Where a run's messages go: to the cell's notebook, or to the memory of a job."""

    def publish(self, kind: str, content: dict[str, Any], node: str | None) -> None:
        """A message of our own in the cell's output."""
        ...

    def forward(self, message: Message, node: str | None) -> None:
        """A message of the kernel's."""
        ...

    def ask(self, place: Place, message: Message) -> None:
        """The kernel asks for input."""
        ...


@dataclass
class Ending:
    """How a cell ended on one node. number: that of the kernel's own `Out`. text: what bash printed."""

    status: str
    number: int = 0
    language: str = "python"
    text: list[str] = field(default_factory=list)


Ended = Callable[["Run", dict[str, Any]], None]


@dataclass(slots=True)
class Progress:
    """How a run fares on one place. state: running, done, failed, interrupted, timed out. reason: why it failed, in one line.

    begun: when it began there (`time.monotonic`). seconds: how long it took, None before its end.
    """

    begun: float
    state: str = "running"
    seconds: float | None = None
    reason: str = ""

    def as_told(self) -> dict[str, Any]:
        """As a page is told it."""
        seconds = time.monotonic() - self.begun if self.seconds is None else self.seconds
        told = {"state": self.state, "seconds": round(seconds, 3)}
        return {**told, "reason": self.reason} if self.reason else told


class Run(ABC):
    """A cell on its places. Give it to `start`; `ended(run, reply content)` is called once."""

    def __init__(self, cell: Cell, code: str, binding: Binding, places: Sequence[Place], output: Output, ended: Ended) -> None:
        self.cell = cell
        self.binding = binding
        self.places = list(places)
        self.output = output
        self.endings: dict[str, Ending] = {}
        self.progress: dict[str, Progress] = {}
        """Of each place that has begun it."""
        self.on_progress: Callable[[Run, Place], None] = lambda run, place: None
        self._ended = ended
        self._open = {place.name: place for place in places}
        self._text: dict[str, list[str]] = {}
        self._kept = 0
        self._cut = Cut(len(self.places), self._show, lambda: cell.record.name if cell.record else None)
        self._overdue: set[str] = set()
        self._timeout: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._interrupted_at = ""
        alone = len(self.places) == 1 and not binding.background
        self.request = cell.request_for(code, alone=alone, home=self.places[0].name == HERE)

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes that it runs on; none at home."""
        return [place.name for place in self.places if place.name != HERE]

    @property
    def where(self) -> dict[str, Any]:
        """What outputs and the reply say of where it ran."""
        where: dict[str, Any] = {"on": self.binding.selector or HERE, "nodes": self.nodes}
        language = self.places[0].language_info
        if self.binding.language != "python" and language:
            where["language"] = {key: language[key] for key in ("name", "mimetype", "file_extension") if key in language}
        return where

    def start(self) -> None:
        """Run it, at most for as long as it was given."""
        if self.binding.timeout is not None:
            self._timeout = asyncio.get_running_loop().call_later(self.binding.timeout, self._time_is_up)
        self._begin()

    def interrupt(self) -> None:
        """Interrupt it wherever it has not ended. What a kernel answers ends it; where it had not begun it ends here and now.

        A node that does not answer within `GRACE`, or until a second interrupt, is left behind: its place is of no use until it answers.
        """
        if self._grace is not None:
            self._leave_behind()
            return
        self._interrupted_at = time.strftime("%H:%M:%S")
        if self.nodes:
            self._grace = asyncio.get_running_loop().call_later(GRACE, self._leave_behind)
        for place in self._at_work():
            self._interrupt(place)

    def received(self, place: Place, channel: int, message: Message) -> None:
        """Output, or a request for input."""
        if channel == STDIN:
            self.output.ask(place, message)
        elif channel == IOPUB and message.kind == "execute_input":
            if place.name not in self.progress:
                self.progress[place.name] = Progress(time.monotonic())
                self.on_progress(self, place)
            if self.cell.record is not None:
                self.cell.record.begun()
        elif channel == IOPUB:
            if place.language != "python" and message.kind == "stream":
                self._keep(place, message.content)
            if self.cell.record is not None:
                self.cell.record.output(None if place.name == HERE else place.name, message.kind, message.content_bytes)
            self._cut.received(place, message)

    def finished(self, place: Place, reply: Message) -> None:
        """It ended on one place."""
        self._end(place, reply.content, reply.metadata)

    def lost(self, place: Place, error: WardianError) -> None:
        """A place was lost, or could not be had."""
        content = error_content(error, place.name if len(self.places) > 1 else "")
        if place.name in self._overdue:
            content = self._late(place, content)
        self._cut.ended(place)
        self._failed(place, content)
        self._end(place, {"status": "error", **content}, None)

    def _begin(self) -> None:
        for place in self.places:
            place.execute(self)

    def _at_work(self) -> list[Place]:
        """The places that were given the cell and have not ended it."""
        return list(self._open.values())

    def _interrupt(self, place: Place) -> None:
        if not place.interrupt(self):
            self._end(place, {"status": "error", **interrupted()}, None)

    def _time_is_up(self) -> None:
        self._overdue = {place.name for place in self._at_work()}
        if self._grace is None:
            self.interrupt()

    def _leave_behind(self) -> None:
        for place in self._at_work():
            self._abandon(place, stuck(place.name, self._interrupted_at))
            remedy = f"`%restart {place.name}` starts a new kernel there; other nodes can be used"
            self.lost(place, NodeStuckError(place.name, "it did not answer the interrupt", remedy=remedy))

    def _abandon(self, place: Place, error: WardianError) -> None:
        place.abandon(self, error)

    def _late(self, place: Place, content: dict[str, Any]) -> dict[str, Any]:
        """The error of a cell whose time was up, made from what its interrupt came to."""
        limit = format_duration(self.binding.timeout or 0)
        reason = f"not ended after {limit}"
        if content.get("ename") == NodeStuckError.__name__:
            reason += f", and {content['evalue'].removeprefix(f'{place.name}: ')}"
        node = f"{place.name}: " if len(self.places) == 1 and place.name != HERE else ""
        trace = content.get("traceback") or []
        return {"ename": "CellTimeout", "evalue": node + reason, "traceback": [f"\x1b[0;31mCellTimeout\x1b[0m: {reason}", *trace]}

    def _end(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        if self._open.pop(place.name, None) is None:
            return
        self._cut.ended(place)
        if self.cell.record is not None:
            self.cell.record.ended(None if place.name == HERE else place.name, content)
        if place.name in self._overdue and content.get("ename") != "CellTimeout":
            content = {**content, "status": "error", **self._late(place, content)}
        if place.name != HERE:
            text = self._text.get(place.name, [])
            self.endings[place.name] = Ending(str(content.get("status")), int(content.get("execution_count") or 0), place.language, text)
        self._note_end(place, content)
        if not self._open:
            for timer in (self._timeout, self._grace):
                if timer is not None:
                    timer.cancel()
        self._place_ended(place, content, metadata)

    def _note_end(self, place: Place, content: dict[str, Any]) -> None:
        now = time.monotonic()
        progress = self.progress.setdefault(place.name, Progress(now))
        progress.seconds = now - progress.begun
        failed = content.get("status") != "ok"
        progress.state = state_of(content) if failed else "done"
        progress.reason = reason(content) if progress.state == "failed" and content.get("ename") else ""
        self.on_progress(self, place)

    def _keep(self, place: Place, content: dict[str, Any]) -> None:
        text = content.get("text", "")
        if content.get("name") == "stdout" and self._kept < _KEPT_TEXT:
            self._text.setdefault(place.name, []).append(text[: _KEPT_TEXT - self._kept])
            self._kept += len(text)

    @abstractmethod
    def _show(self, place: Place, message: Message) -> None: ...

    @abstractmethod
    def _failed(self, place: Place, content: dict[str, Any]) -> None: ...

    @abstractmethod
    def _place_ended(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None: ...


class SingleRun(Run):
    """On one place everything passes through; a node's tracebacks name the node."""

    _error_shown = False

    def _show(self, place: Place, message: Message) -> None:
        if message.kind == "error":
            self._error_shown = True
            if place.name in self._overdue:
                message.content = self._late(place, message.content)
        as_the_cells_own(self, place, message)

    def _failed(self, place: Place, content: dict[str, Any]) -> None:
        self._error_shown = True
        if not self.cell.silent:
            self.output.publish("error", content, None if place.name == HERE else place.name)

    def _place_ended(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        if content.get("status") == "error" and not self._error_shown:
            self._failed(place, {key: content.get(key, default) for key, default in (("ename", ""), ("evalue", ""), ("traceback", []))})
        self._ended(self, own_reply(self, place, content, metadata))


def as_the_cells_own(run: Run, place: Place, message: Message) -> None:
    """Pass on what a place sends as if it were the only one."""
    kind = message.kind
    node = None if place.name == HERE else place.name
    if kind == "execute_result" and message.content.get("execution_count") != run.cell.number:
        message.content = {**message.content, "execution_count": run.cell.number}
    if node is not None and kind in ("execute_result", "display_data"):
        message.content = {**message.content, "metadata": {**message.content.get("metadata", {}), "wardian": run.where}}
    elif node is not None and kind == "error":
        message.content = {**message.content, "traceback": [heading(node), *message.content.get("traceback", [])]}
    run.output.forward(message, node)


def own_reply(run: Run, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> dict[str, Any]:
    """A place's reply as that of the cell."""
    if place.name != HERE and metadata is not None and content.get("traceback"):
        content = {**content, "traceback": [heading(place.name), *content["traceback"]]}
    if place.name != HERE and content.get("payload"):
        # leaving the node's kernel would be leaving the notebook's
        content = {**content, "payload": [entry for entry in content["payload"] if entry.get("source") != "ask_exit"]}
    return {**content, "metadata": {**(metadata or {}), "wardian": run.where}}


def stuck(node: str, since: str) -> WardianError:
    """What cells for a node get that has not ended what was interrupted."""
    remedy = f"`%restart {node}` starts a new kernel there, without the variables of this one"
    return NodeStuckError(node, f"still busy with the cell interrupted at {since}", remedy=remedy)


def error_content(error: BaseException, node: str = "") -> dict[str, Any]:
    """An error of ours as a message's content. node: what is named beside it already."""
    name = type(error).__name__.rstrip("_")
    message = error.message if isinstance(error, WardianError) else str(error)
    if node:
        message = message.removeprefix(f"{node}: ")
    traceback = [f"\x1b[0;31m{name}\x1b[0m: {message}"]
    if isinstance(error, WardianError) and error.remedy:
        traceback.append(error.remedy)
        message = f"{message}; {error.remedy}"
    return {"ename": name, "evalue": message, "traceback": traceback}


def interrupted() -> dict[str, Any]:
    """The error of a cell that was interrupted before a kernel had begun it."""
    return {"ename": "KeyboardInterrupt", "evalue": "", "traceback": ["\x1b[0;31mKeyboardInterrupt\x1b[0m"]}
