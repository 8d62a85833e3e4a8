"""A place is one kernel where cells run: the home kernel, or one on a node. Each executes one request at a time, in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from typing import Any, Protocol

from ...errors import WardianError
from ..wire import IOPUB, SHELL, Message, dump

log = logging.getLogger("wardian.kernel")

_HEEDED = 0.02
"""Seconds from a Python kernel's word that it begins a cell until an interrupt is sure to reach the cell's code."""

_AGAIN = 0.25
"""Seconds after which code of our own, which does not tell when it begins, is interrupted again; twice as long each time."""

_REPLY = 0.3
"""Seconds after which a kernel that is idle again has lost its reply: ipykernel does where an interrupt hits it between the two."""

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
        self.language_info: dict[str, Any] = {}
        self.error: WardianError | None = None
        self.stuck: WardianError | None = None
        self._listener = listener
        self._running: Execution | None = None
        self._reply: Message | None = None
        self._idle = False
        self._begun = 0.0
        self._to_interrupt: Execution | None = None
        self._interrupted: Execution | None = None
        self._waiting: deque[Execution] = deque()
        self._ended: OrderedDict[str, Execution] = OrderedDict()
        self._opened = False
        self._resumed: Execution | None = None

    @property
    def busy(self) -> bool:
        """Whether something runs here."""
        return self._running is not None

    def execute(self, execution: Execution, *, ahead: bool = False) -> None:
        """Run it as soon as what was asked for before has ended; ahead: before everything that waits."""
        unusable = self.error or self.stuck
        if unusable is not None:
            execution.lost(self, unusable)
            return
        if ahead:
            self._waiting.appendleft(execution)
        else:
            self._waiting.append(execution)
        self._next()

    def abandon(self, execution: Execution, error: WardianError) -> None:
        """Wait no longer for what does not heed its interrupt. Until it ends nothing runs here: everything is lost with `error`."""
        if execution is not self._running:
            return
        self.stuck = error
        waiting = list(self._waiting)
        self._waiting.clear()
        for other in waiting:
            other.lost(self, error)

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

    def _interrupt_wanted(self, again: float = _AGAIN) -> None:
        running = self._running
        if running is not None and running is self._to_interrupt:
            self._interrupted = running
            self._interrupt()
            if running.request.content.get("silent"):
                asyncio.get_running_loop().call_later(again, self._interrupt_wanted, 2 * again)
                return
        self._to_interrupt = None

    def opened(self) -> None:
        """The kernel is ready: start with what waits."""
        self._opened = True
        self._next()

    def knows(self, request: str) -> bool:
        """Whether a request was made by us, and not by an earlier kernel of the notebook."""
        return request in self._ended or (self._running is not None and self._running.request.id == request)

    def adopt(self, execution: Execution) -> None:
        """Give it what the kernel still sends for it; somebody else had it run here."""
        self._ended[execution.request.id] = execution

    def resume(self, request: str) -> None:
        """What was adopted for this request still runs here: what is asked for waits until it has ended."""
        execution = self._ended.get(request)
        if execution is not None and self._running is None:
            # Its end is its reply alone: whether it has been idle already is not known.
            self._running, self._reply, self._idle, self._begun = execution, None, True, time.monotonic()
            self._resumed = execution

    @property
    def resumed(self) -> Execution | None:
        """What runs here and was begun by somebody else."""
        return self._resumed if self._running is not None and self._running is self._resumed else None

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
            self._reply = _ending(message)
        elif channel == IOPUB and kind == "status":
            self._idle = self._idle or message.content.get("execution_state") == "idle"
            if self._idle and self._reply is None and running is self._interrupted:
                asyncio.get_running_loop().call_later(_REPLY, self._without_reply, running)
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
            self.stuck = self._interrupted = None
            self._ended[parent] = running
            if len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
            running.finished(self, reply)
            self._next()

    def _without_reply(self, execution: Execution) -> None:
        if execution is self._running and self._reply is None:
            content = {"status": "error", "ename": "KeyboardInterrupt", "evalue": "", "traceback": ["\x1b[0;31mKeyboardInterrupt\x1b[0m"]}
            request = execution.request
            reply = Message.new("execute_reply", content, "", parent=dump(request.header))
            reply.parent = request.header
            self.received(SHELL, reply)

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
        running = self._running = self._waiting.popleft()
        self._reply, self._idle, self._begun = None, False, 0.0
        try:
            self.send(SHELL, running.request)
        except WardianError as error:
            self._running = None
            running.lost(self, error)
            self._next()


def _ending(reply: Message) -> Message:
    """A reply that says how a cell ended. Some kernels (IRkernel) say of what was interrupted that it was aborted, and nothing else."""
    if reply.content.get("status") in ("abort", "aborted"):
        reply.content = {**reply.content, "status": "error", "ename": "KeyboardInterrupt", "evalue": "", "traceback": ["interrupted"]}
    return reply
