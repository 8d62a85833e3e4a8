"""A cell at work: its request on its places, and what they send made into what its notebook sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import WardianError
from .binding import HERE, Binding
from .fanout import Lanes, heading
from .places import Place
from .recording import Record
from .sockets import Client
from .wire import IOPUB, STDIN, Message

_KEPT_TEXT = 4 * 2**20
"""How much of a bash cell's standard output is kept for `wardian.results`, characters."""


class Cell:
    """An execute request of a client. `number` is its prompt's, known once it begins."""

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
        self.opening: asyncio.Task[None] | None = None

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
            message.metadata = {**message.metadata, "wardian": {**(entry if isinstance(entry, dict) else {}), "number": self.number}}
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


class Run:
    """A cell on its places. Give it to `start`; `ended(run, reply content)` is called once."""

    def __init__(self, cell: Cell, code: str, binding: Binding, places: Sequence[Place], output: Output, ended: Ended) -> None:
        self.cell = cell
        self.binding = binding
        self.places = list(places)
        self.output = output
        self.endings: dict[str, Ending] = {}
        self._ended = ended
        self._open = {place.name: place for place in places}
        self._text: dict[str, list[str]] = {}
        self._kept = 0
        alone = len(self.places) == 1 and not binding.background
        self.request = cell.request_for(code, alone=alone, home=self.places[0].name == HERE)

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes that it runs on; none at home."""
        return [place.name for place in self.places if place.name != HERE]

    @property
    def where(self) -> dict[str, Any]:
        """What outputs and the reply say of where it ran."""
        return {"on": self.binding.selector or HERE, "nodes": self.nodes}

    @property
    def running(self) -> list[str]:
        """The nodes where it has not ended yet."""
        return list(self._open)

    def start(self) -> None:
        """Run it on all places at once."""
        for place in self.places:
            place.execute(self)

    def interrupt(self) -> None:
        """Interrupt it wherever it has not ended. What a kernel answers ends it; where it had not begun it ends here and now."""
        for place in list(self._open.values()):
            if not place.interrupt(self):
                self._end(place, {"status": "error", **interrupted()}, None)

    def received(self, place: Place, channel: int, message: Message) -> None:
        """Output, or a request for input."""
        if channel == STDIN:
            self.output.ask(place, message)
        elif channel == IOPUB and message.kind != "execute_input":
            if place.language == "bash" and message.kind == "stream":
                self._keep(place, message.content)
            self._show(place, message)

    def finished(self, place: Place, reply: Message) -> None:
        """It ended on one place."""
        self._end(place, reply.content, reply.metadata)

    def lost(self, place: Place, error: WardianError) -> None:
        """A place was lost, or could not be had."""
        content = error_content(error, place.name if len(self.places) > 1 else "")
        self._failed(place, content)
        self._end(place, {"status": "error", **content}, None)

    def _end(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        if self._open.pop(place.name, None) is None:
            return
        if place.name != HERE:
            text = self._text.get(place.name, [])
            self.endings[place.name] = Ending(str(content.get("status")), int(content.get("execution_count") or 0), place.language, text)
        self._place_ended(place, content, metadata)

    def _keep(self, place: Place, content: dict[str, Any]) -> None:
        text = content.get("text", "")
        if content.get("name") == "stdout" and self._kept < _KEPT_TEXT:
            self._text.setdefault(place.name, []).append(text[: _KEPT_TEXT - self._kept])
            self._kept += len(text)

    def _show(self, place: Place, message: Message) -> None:
        raise NotImplementedError

    def _failed(self, place: Place, content: dict[str, Any]) -> None:
        raise NotImplementedError

    def _place_ended(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        raise NotImplementedError


class SingleRun(Run):
    """On one place everything passes through; a node's tracebacks name the node."""

    def _show(self, place: Place, message: Message) -> None:
        kind = message.kind
        node = None if place.name == HERE else place.name
        if kind == "execute_result" and message.content.get("execution_count") != self.cell.number:
            message.content = {**message.content, "execution_count": self.cell.number}
        if node is not None and kind in ("execute_result", "display_data"):
            message.content = {**message.content, "metadata": {**message.content.get("metadata", {}), "wardian": self.where}}
        elif node is not None and kind == "error":
            message.content = {**message.content, "traceback": [heading(node), *message.content.get("traceback", [])]}
        self.output.forward(message, node)

    def _failed(self, place: Place, content: dict[str, Any]) -> None:
        self.output.publish("error", content, None if place.name == HERE else place.name)

    def _place_ended(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        if place.name != HERE and metadata is not None and content.get("traceback"):
            content = {**content, "traceback": [heading(place.name), *content["traceback"]]}
        if place.name != HERE and content.get("payload"):
            # What leaves is the node's kernel, not the notebook's.
            content = {**content, "payload": [entry for entry in content["payload"] if entry.get("source") != "ask_exit"]}
        if metadata is None and content.get("ename") == "KeyboardInterrupt":
            self._failed(place, {key: content[key] for key in ("ename", "evalue", "traceback")})
        self._ended(self, {**content, "metadata": {**(metadata or {}), "wardian": self.where}})


class FanOut(Run):
    """On several nodes at once, with the output grouped by node."""

    def __init__(self, cell: Cell, code: str, binding: Binding, places: Sequence[Place], output: Output, ended: Ended) -> None:
        super().__init__(cell, code, binding, places, output, ended)
        loop = asyncio.get_running_loop()
        self._lanes = Lanes([place.name for place in places], lambda kind, content: output.publish(kind, content, None), loop.call_later)

    def _show(self, place: Place, message: Message) -> None:
        kind, node = message.kind, place.name
        if kind == "stream":
            self._lanes.stream(node, message.content)
        elif kind == "execute_result":
            self._lanes.result(node, message.content)
        elif kind in ("display_data", "update_display_data"):
            self._lanes.rich(node, kind, message.content)
        elif kind == "error":
            self._lanes.error(node, message.content)
        elif kind != "clear_output":
            self.output.forward(message, node)

    def _failed(self, place: Place, content: dict[str, Any]) -> None:
        self._lanes.error(place.name, content)

    def _place_ended(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        if metadata is None and content.get("ename") == "KeyboardInterrupt":
            self._lanes.error(place.name, content)
        self._lanes.ended(place.name)
        if self._open:
            return
        error = self._lanes.finish()
        reply: dict[str, Any] = {"status": "error", **error} if error else {"status": "ok", "payload": [], "user_expressions": {}}
        self._ended(self, {**reply, "metadata": {"wardian": self.where}})


def make_run(cell: Cell, code: str, binding: Binding, places: Sequence[Place], output: Output, ended: Ended) -> Run:
    """The run of a cell on these places."""
    kind = SingleRun if len(places) == 1 else FanOut
    return kind(cell, code, binding, places, output, ended)


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
