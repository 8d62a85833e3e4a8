"""What cells have sent to their notebook, kept for a page that opens later: it shows all of it, and goes on from there."""

from __future__ import annotations

import json
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..wire import Message

_KEPT = 64 * 2**20
"""How much is kept in all, bytes."""
_COST = 200
"""What a message takes beside its content, bytes."""
_CELLS = 1000
"""Executions that are kept."""
_OUTPUT = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output", "execute_input", "status"})


@dataclass(slots=True)
class Sent:
    """A message that was published. content: JSON, changed where a later message updates what this one displays."""

    kind: str
    metadata: bytes
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content) + len(self.metadata) + _COST


@dataclass
class Execution:
    """A cell's latest execution. cell: its id in the notebook. ended: seconds since the epoch, None before."""

    cell: str
    code: str
    header: dict[str, Any]
    sent: deque[Sent] = field(default_factory=deque)
    displays: dict[str, list[Sent]] = field(default_factory=dict)
    size: int = 0
    dropped: int = 0
    clearing: bool = False
    ended: float | None = None
    question: Message | None = None


class Following:
    """The executions of cells that their front end gave an id to (JupyterLab: `cellId` in the request's metadata)."""

    def __init__(self) -> None:
        self._executions: OrderedDict[str, Execution] = OrderedDict()
        self._latest: dict[str, str] = {}
        self._size = 0

    def requested(self, request: Message) -> None:
        """A client asks to execute a cell."""
        cell = request.metadata.get("cellId")
        if not isinstance(cell, str) or request.content.get("silent"):
            return
        self._drop(self._latest.get(cell))
        self._latest[cell] = request.id
        self._executions[request.id] = Execution(cell, str(request.content.get("code", "")), request.header)
        self._shrink()

    def taken_over(self, request: Message) -> bool:
        """A cell of an earlier kernel is shown on from here. False where no cell is named, or a newer execution of it is known."""
        cell = request.metadata.get("cellId")
        if cell is None or cell in self._latest:
            return False
        self.requested(request)
        return True

    def published(self, message: Message) -> None:
        """All clients are sent a message."""
        kind = message.kind
        if not self._executions or kind not in _OUTPUT:
            return
        if kind == "update_display_data":
            self._update(message)
            return
        # not `message.parent`: what is forwarded into another cell carries that cell's header in its bytes alone
        execution = self._executions.get(str(json.loads(message.parent_bytes).get("msg_id")))
        if execution is None:
            return
        if kind == "status":
            if message.content.get("execution_state") == "idle":
                execution.ended, execution.question = time.time(), None
        elif kind == "clear_output" and message.content.get("wait"):
            execution.clearing = True
        elif kind == "clear_output":
            self._clear(execution)
        else:
            if execution.clearing and kind != "execute_input":
                self._clear(execution)
            self._keep(execution, Sent(kind, message.metadata_bytes, message.content_bytes))

    def asked(self, question: Message) -> None:
        """A kernel asks for input."""
        if (execution := self._executions.get(question.parent_id)) is not None:
            execution.question = question

    def answered(self, number: str) -> None:
        """A client has answered the question of that message id, or, if it names none, any."""
        for execution in self._executions.values():
            if execution.question is not None and number in ("", execution.question.id):
                execution.question = None

    def questions(self) -> list[Message]:
        """The questions that wait for an answer."""
        return [execution.question for execution in self._executions.values() if execution.question is not None]

    def report(self, since: float) -> list[dict[str, Any]]:
        """The executions that have not ended, or not before `since` (seconds since the epoch), with all that was sent of each."""
        return [
            {
                "cell": execution.cell,
                "code": execution.code,
                "header": execution.header,
                "ended": execution.ended,
                "messages": [_message(execution, *sent) for sent in _all_sent(execution)],
            }
            for execution in self._executions.values()
            if execution.ended is None or execution.ended > since
        ]

    def _update(self, message: Message) -> None:
        display = _display(message.content)
        for execution in self._executions.values():
            for sent in execution.displays.get(display, ()):
                grown = len(message.content_bytes) - len(sent.content)
                execution.size += grown
                self._size += grown
                sent.content = message.content_bytes

    def _keep(self, execution: Execution, sent: Sent) -> None:
        execution.sent.append(sent)
        if sent.kind == "display_data" and b'"display_id"' in sent.content:
            execution.displays.setdefault(_display(json.loads(sent.content)), []).append(sent)
        execution.size += sent.size
        self._size += sent.size
        self._shrink()
        while self._size > _KEPT and execution.sent:
            first = execution.sent.popleft()
            execution.size -= first.size
            execution.dropped += 1
            self._size -= first.size

    def _clear(self, execution: Execution) -> None:
        kept = deque(sent for sent in execution.sent if sent.kind == "execute_input")
        size = sum(sent.size for sent in kept)
        self._size += size - execution.size
        execution.sent, execution.size = kept, size
        execution.displays.clear()
        execution.dropped, execution.clearing = 0, False

    def _shrink(self) -> None:
        """Drop the oldest executions that have ended, until the rest is small enough."""
        if self._size <= _KEPT and len(self._executions) <= _CELLS:
            return
        for number, execution in list(self._executions.items()):
            if execution.ended is not None:
                self._drop(number)
                if self._size <= _KEPT and len(self._executions) <= _CELLS:
                    return

    def _drop(self, number: str | None) -> None:
        execution = self._executions.pop(number, None) if number is not None else None
        if execution is not None:
            self._size -= execution.size
            if self._latest.get(execution.cell) == number:
                del self._latest[execution.cell]


def _all_sent(execution: Execution) -> Iterator[tuple[str, Any, Any]]:
    """Type, metadata and content of each message that makes the output as it is now."""
    if execution.dropped:
        text = f"[{execution.dropped} earlier messages are not kept for pages that open now; `wardian log` knows the cell]\n"
        yield "stream", {}, {"name": "stderr", "text": text}
    for sent in execution.sent:
        yield sent.kind, json.loads(sent.metadata), json.loads(sent.content)
    if execution.clearing:
        yield "clear_output", {}, {"wait": True}
    if execution.ended is not None:
        yield "status", {}, {"execution_state": "idle"}


def _message(execution: Execution, kind: str, metadata: Any, content: Any) -> dict[str, Any]:
    header = {**execution.header, "msg_type": kind}
    return {"channel": "iopub", "header": header, "parent_header": execution.header, "metadata": metadata, "content": content}


def _display(content: dict[str, Any]) -> str:
    return str((content.get("transient") or {}).get("display_id"))
