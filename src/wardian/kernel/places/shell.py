"""A shell on a node without an agent's one, for lack of Python or of bash: bash or else sh, driven from here over the node's channel.

What it cannot do, the agent's own shell can: what it prints is not kept while nobody listens, it ends with the notebook's kernel, and it
knows no completion.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from ...errors import NodeDownError, NodeError, WardianError
from ...providers.base import Channel, Process
from ..wire import IOPUB, SHELL, Message
from .place import Listener, Place

# Interactive, because then an interrupt or a mistake abandons the cell and not the shell
_START = (
    "PS1= PS2=; export PS1 PS2; if command -v bash >/dev/null 2>&1; then exec bash --norc --noprofile --noediting -i; "
    "else unset ENV; exec sh -i; fi"
)
# 8 and 9 are the outputs, whatever cells do to 1 and 2
_OUTPUTS = "exec 8>&1 9>&2"
_SETUP = "set +m; if (set +o history) 2>/dev/null; then set +o history; fi; unset HISTFILE MAILCHECK TMOUT PROMPT_COMMAND"
_STARTING = 30.0
"""How long a shell may take to say its first word, seconds."""
_INSIST, _TIMES = 0.2, 10
"""Seconds after which a shell that goes on with an interrupted cell is interrupted again, and how often."""


class ShellPlace(Place):
    """The shell of a node without Python, or without bash, as a place."""

    def __init__(
        self, name: str, listener: Listener, channel: Channel, session: str, forget: Callable[[ShellPlace, WardianError], None]
    ) -> None:
        """forget: called when the node is gone."""
        super().__init__(name, "bash", listener)
        self.language_info = {"name": "bash", "mimetype": "text/x-sh", "file_extension": ".sh"}
        self._shell = Shell(name, channel, session, self.received, lambda error: forget(self, error))

    async def start(self) -> None:
        """Start the shell, and wait until it listens. Raises NodeError."""
        await self._shell.start()
        self.opened()

    async def stop(self) -> None:
        """End the shell and what it runs."""
        await self._shell.stop()

    def send(self, channel: int, message: Message) -> None:
        """Give the shell a message."""
        self._shell.send(channel, message)

    def _interrupt(self) -> None:
        self._shell.interrupt()


class Shell:
    """One long-lived shell on a node, which takes and gives Jupyter messages like a kernel."""

    def __init__(
        self,
        node: str,
        channel: Channel,
        session: str,
        deliver: Callable[[int, Message], None],
        gone: Callable[[WardianError], None],
    ) -> None:
        """deliver: called with the channel and each message. gone: called when the node is gone."""
        self._node = node
        self._channel = channel
        self._session = session
        self._deliver = deliver
        self._gone = gone
        self._mark = os.urandom(12).hex()
        self._process: Process | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._count = 0
        self._request: Message | None = None
        self._latest: Message | None = None
        self._status = 0
        self._unmarked: set[str] = set()
        self._ready: asyncio.Future[None] | None = None
        self._insisting: asyncio.TimerHandle | None = None
        self._interrupted = False

    async def start(self) -> None:
        """Start the shell, and wait until it listens. Raises NodeError."""
        await self._launch()

    async def stop(self) -> None:
        """End the shell and what it runs."""
        for task in list(self._tasks):
            task.cancel()
        if self._insisting is not None:
            self._insisting.cancel()
        if self._process is not None:
            await self._process.close()

    def send(self, channel: int, message: Message) -> None:
        """Give it a cell. Of completion and inspection it knows nothing."""
        if message.kind == "execute_request":
            self._spawn(self._execute(message))
        elif message.kind.endswith("_request"):
            position = message.content.get("cursor_pos", 0)
            nothing: dict[str, dict[str, Any]] = {
                "complete_request": {"matches": [], "cursor_start": position, "cursor_end": position, "metadata": {}},
                "inspect_request": {"found": False, "data": {}, "metadata": {}},
            }
            kind = message.kind.replace("_request", "_reply")
            reply = self._message(kind, {"status": "ok", **nothing.get(message.kind, {})}, message)
            asyncio.get_running_loop().call_soon(self._deliver, channel, reply)

    def interrupt(self) -> None:
        """Interrupt the cell that runs."""
        self._interrupted = True
        self._insist(self._number, _TIMES)

    def _insist(self, number: int, times: int) -> None:
        """SIGINT until the cell is abandoned: a program that handles it and ends well makes the shell go on."""
        process = self._process
        if process is not None and self._request is not None and number == self._number and times:
            self._spawn(self._signal(process))
            self._insisting = asyncio.get_running_loop().call_later(_INSIST, self._insist, number, times - 1)

    async def _signal(self, process: Process) -> None:
        with suppress(NodeError):
            await process.signal(signal.SIGINT)
            # the line that reports the end was discarded along with the rest; blanks, in case the signal cuts off its beginning
            self._write(" " * 64 + self._report())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _launch(self) -> None:
        process = await self._channel.start(["/bin/sh", "-c", _START])
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the process has to have its streams")
        self._process = process
        self._ready = asyncio.get_running_loop().create_future()
        self._unmarked = {"stdout", "stderr"}
        self._number += 1
        readers = [
            asyncio.create_task(self._read(process.stdout, "stdout")),
            asyncio.create_task(self._read(process.stderr, "stderr")),
        ]
        self._spawn(self._watch(process, readers))
        self._write(f"{_OUTPUTS}; {self._begin()}; {_SETUP}\n")
        try:
            async with asyncio.timeout(_STARTING):
                await self._ready
        except TimeoutError:
            await process.close()
            raise NodeDownError(self._node, f"its shell did not answer within {_STARTING:g} s") from None

    async def _execute(self, request: Message) -> None:
        self._request, self._latest, self._interrupted = request, request, False
        silent = bool(request.content.get("silent"))
        if not silent and request.content.get("store_history", True):
            self._count += 1
        code = str(request.content.get("code", ""))
        self._publish("status", {"execution_state": "busy"})
        if not silent:
            self._publish("execute_input", {"code": code, "execution_count": self._count})
        if self._process is None:
            try:
                await self._launch()
            except NodeError as error:
                self._gone(error)
                return
        self._number += 1
        self._unmarked = {"stdout", "stderr"}
        text = _quoted(code + "\n")
        # a mistake in the grammar is found by a shell of its own: some shells end on it
        self._write(f"{self._begin()}; if ${{BASH:-sh}} -n -c {text} 2>&9; then eval {text} </dev/null 8>&- 9>&-; else (exit 2); fi\n")

    def _begin(self) -> str:
        """What says that a line has been read: what is sent before that may be discarded along with a line that fails."""
        return f"printf '\\001{self._mark}:{self._number}:begins\\002' >&8"

    def _report(self) -> str:
        """What says that a line has ended, and with what status."""
        mark = f"\\001{self._mark}:{self._number}"
        return f"printf '{mark}:%d\\002' $? >&8; printf '{mark}:0\\002' >&9\n"

    def _write(self, text: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(text.encode("utf-8", "surrogateescape"))

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        """Pass on what comes, without the marks that tell where a cell ended."""
        pattern = re.compile(rf"\x01{self._mark}:(\d+):(\d+|begins)\x02")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        kept = ""
        with suppress(ConnectionError, OSError, NodeError):
            while data := await stream.read(1 << 16):
                kept += decoder.decode(data)
                while match := pattern.search(kept):
                    self._show(name, kept[: match.start()])
                    kept = kept[match.end() :]
                    self._marked(name, int(match[1]), match[2])
                # what may be the beginning of a mark waits for its rest
                start = kept.rfind("\x01")
                cut = start if start >= 0 and len(kept) - start < len(self._mark) + 32 else len(kept)
                self._show(name, kept[:cut])
                kept = kept[cut:]
        self._show(name, kept)

    def _show(self, name: str, text: str) -> None:
        if self._ready is None or not self._ready.done():
            # its greeting
            return
        if self._interrupted and name == "stderr" and not text.strip():
            # an interactive shell ends the line that it takes itself to be on
            return
        if text:
            self._publish("stream", {"name": name, "text": text})

    def _marked(self, name: str, number: int, what: str) -> None:
        if number != self._number or name not in self._unmarked:
            return
        if what == "begins":
            self._write(self._report())
            return
        self._unmarked.discard(name)
        if name == "stdout":
            self._status = int(what)
        if self._unmarked:
            return
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        else:
            self._ended(self._status)

    async def _watch(self, process: Process, readers: list[asyncio.Task[None]]) -> None:
        """A shell that ends is replaced with the next cell; a node that is gone takes the place with it."""
        try:
            code = await process.wait()
        except NodeError as error:
            self._gone(error)
            return
        await asyncio.wait(readers, timeout=1)
        await process.close()
        self._process = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(NodeDownError(self._node, f"its shell ended with status {code} when it was started"))
        elif self._request is not None:
            text = f"the shell ended with status {code}; the next cell starts a new one, without the variables of this one\n"
            self._publish("stream", {"name": "stderr", "text": text})
            self._ended(code)

    def _ended(self, status: int) -> None:
        request, self._request = self._request, None
        if request is None:
            return
        if self._insisting is not None:
            self._insisting.cancel()
        content: dict[str, Any] = {"status": "ok", "payload": [], "user_expressions": {}}
        if status:
            error: dict[str, Any] = {"ename": "ExitCode", "evalue": str(status), "traceback": [f"exit status {status}"]}
            if self._interrupted and status == 128 + signal.SIGINT:
                error = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": ["interrupted"]}
            self._publish("error", error)
            content = {**error, "status": "error"}
        self._deliver(SHELL, self._message("execute_reply", {**content, "execution_count": self._count}, request))
        self._publish("status", {"execution_state": "idle"})

    def _publish(self, kind: str, content: dict[str, Any]) -> None:
        """What is printed between cells belongs to the one that ran last."""
        if self._latest is not None:
            self._deliver(IOPUB, self._message(kind, content, self._latest))

    def _message(self, kind: str, content: dict[str, Any], request: Message) -> Message:
        message = Message.new(kind, content, self._session, parent=request.parts()[0])
        message.parent = request.header
        return message


def _quoted(text: str) -> str:
    """A text as one word of the shell."""
    return "'" + text.replace("'", "'\\''") + "'"
