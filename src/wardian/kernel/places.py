"""A place is one kernel where cells run: the home kernel, or one on a node. Each executes one request at a time, in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from typing import Protocol

from ..errors import WardianError
from .wire import IOPUB, SHELL, Message

log = logging.getLogger("wardian.kernel")

_HEEDED = 0.02
"""Seconds from a Python kernel's word that it begins a cell until an interrupt is sure to reach the cell's code."""

_REMEMBERED = 64
"""Ended executions whose late output (of threads they started) still goes to them."""


class Execution(Protocol):
    """One execute request for one place. The place calls these, and `finished` or `lost` exactly once."""

    request: Message

    def received(self, place: Place, channel: int, message: Message) -> None:
        """What it causes: all messages that name it as parent, except its reply and busy and idle. May come after `finished`."""
        ...

    def finished(self, place: Place, reply: Message) -> None:
        """It ended: this is its reply, and all its output has been received."""
        ...

    def lost(self, place: Place, error: WardianError) -> None:
        """The kernel is gone, or will never answer."""
        ...


class Listener(Protocol):
    """Who is told of comms, and of everything that belongs to no execution."""

    def comm(self, place: Place, message: Message) -> None:
        """The kernel opens or closes a comm; the message goes its way besides."""
        ...

    def unclaimed(self, place: Place, channel: int, message: Message) -> None:
        """A message that no execution caused: the reply to another request, a status, a comm message."""
        ...


class Place:
    """One kernel where cells run. `name` is the node's, or "here"."""

    def __init__(self, name: str, language: str, listener: Listener) -> None:
        self.name = name
        self.language = language
        self.error: WardianError | None = None
        self._listener = listener
        self._running: Execution | None = None
        self._reply: Message | None = None
        self._idle = False
        self._begun = 0.0
        self._to_interrupt: Execution | None = None
        self._waiting: deque[Execution] = deque()
        self._ended: OrderedDict[str, Execution] = OrderedDict()
        self._opened = False

    def execute(self, execution: Execution) -> None:
        """Run it as soon as what was asked for before has ended."""
        if self.error is not None:
            execution.lost(self, self.error)
            return
        self._waiting.append(execution)
        self._next()

    def interrupt(self, execution: Execution) -> bool:
        """Interrupt it if it runs. If it still waits it is taken back, and False says that it will never be heard of again."""
        if execution is self._running:
            self._to_interrupt = execution
            if self._begun or self.language == "bash" or execution.request.content.get("silent"):
                self._interrupt_begun()
            return True
        if execution in self._waiting:
            self._waiting.remove(execution)
        return False

    def send(self, channel: int, message: Message) -> None:
        """Give the kernel a message."""
        raise NotImplementedError

    def _interrupt(self) -> None:
        raise NotImplementedError

    def _interrupt_begun(self) -> None:
        """Interrupt once the kernel is sure to heed it: a Python kernel ignores what comes before its cell's code runs."""
        asyncio.get_running_loop().call_later(max(0.0, self._begun + _HEEDED - time.monotonic()), self._interrupt_wanted)

    def _interrupt_wanted(self) -> None:
        if self._running is not None and self._running is self._to_interrupt:
            self._interrupt()
        self._to_interrupt = None

    def opened(self) -> None:
        """The kernel is ready: start with what waits."""
        self._opened = True
        self._next()

    def received(self, channel: int, message: Message) -> None:
        """Take a message from the kernel to whom it concerns."""
        parent = message.parent_id
        running = self._running
        if message.kind in ("comm_open", "comm_close"):
            self._listener.comm(self, message)
        if running is None or running.request.id != parent:
            ended = self._ended.get(parent)
            if ended is None:
                self._listener.unclaimed(self, channel, message)
            elif message.kind != "status":
                ended.received(self, channel, message)
            return
        kind = message.kind
        if channel == SHELL and kind == "execute_reply":
            self._reply = message
        elif channel == IOPUB and kind == "status":
            self._idle = self._idle or message.content.get("execution_state") == "idle"
        else:
            if kind == "execute_input":
                self._begun = time.monotonic()
                if self._to_interrupt is running:
                    self._interrupt_begun()
            running.received(self, channel, message)
            return
        # The reply overtakes output, which comes on another socket: what makes an end is both.
        if self._reply is not None and self._idle:
            reply, self._reply, self._running = self._reply, None, None
            self._ended[parent] = running
            if len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
            running.finished(self, reply)
            self._next()

    def lose(self, error: WardianError) -> None:
        """The kernel is gone: everything that runs or waits here ends with `error`. Safe to repeat."""
        if self.error is not None:
            return
        self.error = error
        lost = [*([self._running] if self._running else []), *self._waiting]
        self._running = None
        self._waiting.clear()
        for execution in lost:
            execution.lost(self, error)

    def _next(self) -> None:
        if not self._opened or self._running is not None or not self._waiting:
            return
        self._running = self._waiting.popleft()
        self._reply, self._idle, self._begun = None, False, 0.0
        self.send(SHELL, self._running.request)
