"""Our end of the connection to the agent on one node."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import AgentError, NodeDownError, NodeError
from ..providers.base import Channel, Process
from ..providers.preloaded import Preloaded
from .boot import BOOT, SOURCE
from .frames import (
    PROTOCOL,
    Decoder,
    FrameError,
    Kind,
    Message,
    decode_json,
    decode_message,
    encode_acknowledgement,
    encode_json,
    encode_message,
)

FORKED_BOOT = "wardian.nodes.stem:boot"

# the interpreters are tried in order; they are arguments, so nothing of them is read as shell. One that is too old goes on with the rest
FIND_PYTHON = (
    'boot=$1; shift; set -- "$@" ${WARDIAN_PYTHON:+"$WARDIAN_PYTHON"}; while [ $# -gt 0 ]; do python=$1; shift; '
    'command -v "$python" >/dev/null 2>&1 && exec "$python" -c "$boot" "$boot" "$@"; done; exit 127'
)
PYTHONS = (sys.executable, "python3", "python", "/usr/libexec/platform-python")
NO_PYTHON = 127

ACKNOWLEDGE_AFTER = 0.01
ACKNOWLEDGE_BYTES = 1 << 20
READ_SIZE = 1 << 20
CLOSE_GRACE = 2.0


class NoPythonError(AgentError):
    """The node has no Python, so no agent can run there."""


class AgentLink:
    """A connection to a node's agent: requests, messages of the kernels attached through it, events.

    node: the node's name.
    agent: what the agent said of itself: "protocol", "version", "pid", "python", and "inputs", the number of the last message
        that it had from this client id.
    closed: done when the connection ended; its exception says why, if it was not us.
    on_message: called with kernel, sequence, channel ("shell", "iopub", "stdin", "control") and parts of each message. What was
        handled has to be acknowledged, or the agent stops sending after 8 MiB.
    on_event: called with each event of the agent.
    """

    def __init__(self, node: str, process: Process, client: str) -> None:
        self.node = node
        self.client = client
        self.agent: dict[str, Any] = {}
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed.add_done_callback(_retrieve)
        self.on_message: Callable[[str, int, str, list[bytes]], None] = lambda kernel, sequence, channel, parts: None
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process has to have its streams")
        self._process, self._writer, self._reader = process, process.stdin, process.stdout
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._inputs = 0
        self._acknowledgements: dict[str, int] = {}
        self._acknowledge_timer: asyncio.TimerHandle | None = None
        self._unacknowledged = 0
        self._stderr = b""
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._error: str | None = None
        self._closing = False
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_stderr())]

    @classmethod
    async def open(
        cls, channel: Channel, node: str, *, pythons: Sequence[str] = (), client: str | None = None, preloaded: Preloaded | None = None
    ) -> AgentLink:
        """Connect to the agent of a node, which is started if it does not run.

        pythons: interpreters on the node, of which the first that exists and is new enough is used; by default this one, `python3`,
            and last what the node names by `WARDIAN_PYTHON`.
        client: an id that stays the same over reconnections, so that no input counts twice.
        preloaded: where the node's Python would be the same, the agent and its Python kernels are forked from it.

        Raises NodeDownError, or AgentError when no agent can be had there.
        """
        candidates = list(pythons or PYTHONS)
        process = await channel.fork(preloaded, FORKED_BOOT) if preloaded and not pythons else None
        if process is None:
            process = await channel.start(["/bin/sh", "-c", FIND_PYTHON, "sh", BOOT, *candidates])
        link = cls(node, process, client or uuid.uuid4().hex)
        try:
            await link._greet(candidates)
        except BaseException:
            await link.close()
            raise
        return link

    async def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Ask the agent for something. Raises AgentError with its reason, or the connection's error when that ends."""
        self._check_open()
        number = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            self._writer.write(encode_json(Kind.REQUEST, {**arguments, "id": number, "op": op}))
            return await future
        finally:
            self._pending.pop(number, None)

    def send(self, kernel: str, channel: str, parts: Sequence[bytes]) -> None:
        """Send a Jupyter message (header, parent header, metadata, content, buffers) to a kernel. Does not wait; see `drain`."""
        self._check_open()
        try:
            frame = encode_message(Kind.INPUT, Message(self._inputs + 1, channel, kernel, list(parts)))
        except FrameError as error:
            raise AgentError(self.node, f"this message cannot be sent: {error}") from None
        self._inputs += 1
        self._writer.write(frame)

    async def drain(self) -> None:
        """Wait until what was sent has mostly left. Returns at once when the connection has ended."""
        try:
            await self._writer.drain()
        except (ConnectionError, OSError):
            return

    def pause(self) -> None:
        """Read no more until `resume`: what the agent has to say waits there."""
        self._flowing.clear()

    def resume(self) -> None:
        """Read on."""
        self._flowing.set()

    def acknowledge(self, kernel: str, sequence: int) -> None:
        """Everything of the kernel up to this number is handled and may be forgotten. Acknowledgements travel gathered."""
        self._acknowledgements[kernel] = max(sequence, self._acknowledgements.get(kernel, 0))
        if self._unacknowledged >= ACKNOWLEDGE_BYTES:
            self._send_acknowledgements()
        elif self._acknowledge_timer is None:
            self._acknowledge_timer = asyncio.get_running_loop().call_later(ACKNOWLEDGE_AFTER, self._send_acknowledgements)

    async def close(self) -> None:
        """Let go of the agent. Its kernels run on, and their output waits there."""
        self._closing = True
        self._send_acknowledgements()
        self._writer.close()
        with contextlib.suppress(TimeoutError, NodeError):
            await asyncio.wait_for(self._process.wait(), CLOSE_GRACE)
        await self._process.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end(None)

    async def _greet(self, candidates: Sequence[str]) -> None:
        self._writer.write(b"%08x" % len(SOURCE) + SOURCE)
        self._writer.write(encode_json(Kind.HELLO, {"protocol": PROTOCOL, "client": self.client}))
        ends: list[asyncio.Future[Any]] = [self._hello, self.closed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not self._hello.done():
            self._hello.cancel()
            if await self._exit_code() == NO_PYTHON:
                message = f"no Python was found there; looked for {', '.join(candidates)}"
                remedy = "Install Python 3.8 or newer on the node, or name its interpreter by `python:`; bash cells need none."
                raise NoPythonError(self.node, message, remedy=remedy)
            self.closed.result()
            raise AgentError(self.node, "the connection was closed")
        self.agent = self._hello.result()
        inputs = self.agent.get("inputs", 0)
        if not isinstance(inputs, int):
            raise AgentError(self.node, "the agent does not say how many inputs it had")
        self._inputs = inputs

    async def _read(self) -> None:
        decoder = Decoder()
        try:
            while data := await self._reader.read(READ_SIZE):
                self._unacknowledged += len(data)
                for kind, payload in decoder.feed(data):
                    self._handle(kind, payload)
                await self._flowing.wait()
        except FrameError as error:
            self._error = f"the agent sent something that is no frame: {error}"
        except (ConnectionError, OSError) as error:
            self._error = f"the connection broke: {error}"
        except NodeDownError as error:
            self._end(error)
            return
        except Exception as error:
            self._end(AgentError(self.node, f"what the agent sent could not be handled: {error!r}"))
            raise
        self._end(await self._reason())

    def _handle(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.MESSAGE:
            message = decode_message(payload)
            self.on_message(message.kernel, message.sequence, message.channel, message.parts)
        elif kind is Kind.REPLY:
            self._reply(decode_json(payload))
        elif kind is Kind.EVENT:
            self.on_event(decode_json(payload))
        elif kind is Kind.HELLO:
            if not self._hello.done():
                self._hello.set_result(decode_json(payload))
        elif kind is Kind.ERROR:
            self._error = str(decode_json(payload).get("message"))
        else:
            raise FrameError(f"a frame of type {kind.name} is not for us")

    def _reply(self, value: dict[str, Any]) -> None:
        number = value.get("id")
        future = self._pending.pop(number, None) if isinstance(number, int) else None
        if future is None or future.done():
            return
        error, answer = value.get("error"), value.get("ok")
        if isinstance(error, dict):
            remedy = error.get("remedy")
            future.set_exception(AgentError(self.node, str(error.get("message")), remedy=str(remedy) if remedy else None))
        elif isinstance(answer, dict):
            future.set_result(answer)
        else:
            future.set_exception(AgentError(self.node, "the agent's reply has neither an answer nor an error"))

    def _send_acknowledgements(self) -> None:
        if self._acknowledge_timer is not None:
            self._acknowledge_timer.cancel()
            self._acknowledge_timer = None
        self._unacknowledged = 0
        if not self.closed.done() and not self._writer.is_closing():
            for kernel, sequence in self._acknowledgements.items():
                self._writer.write(encode_acknowledgement(kernel, sequence))
        self._acknowledgements.clear()

    async def _read_stderr(self) -> None:
        stderr = self._process.stderr
        while stderr is not None and (data := await stderr.read(8192)):
            self._stderr = (self._stderr + data)[-8192:]

    async def _reason(self) -> NodeError:
        """Why the stream has ended."""
        try:
            code = await self._exit_code()
        except NodeDownError as error:
            return error
        if self._error:
            return AgentError(self.node, self._error)
        if code is None or code > 128:
            return NodeDownError(self.node, "the connection to the node was cut")
        await asyncio.wait([self._tasks[1]], timeout=CLOSE_GRACE)
        text = self._stderr.decode(errors="replace").strip()
        if code:
            return AgentError(self.node, f"the agent could not be started (exit code {code})" + (f": {text}" if text else ""))
        return AgentError(self.node, "the agent ended", remedy="The next use starts a new one; what its kernels held is lost.")

    async def _exit_code(self) -> int | None:
        try:
            return await asyncio.wait_for(self._process.wait(), CLOSE_GRACE)
        except TimeoutError:
            return None

    def _end(self, error: NodeError | None) -> None:
        if self.closed.done():
            return
        if error is None or self._closing:
            self.closed.set_result(None)
        else:
            self.closed.set_exception(error)
        for future in self._pending.values():
            if not future.done():
                future.set_exception(error or AgentError(self.node, "the connection was closed"))
        self._pending.clear()

    def _check_open(self) -> None:
        if self.closed.done():
            self.closed.result()
        if self.closed.done() or self._closing:
            raise AgentError(self.node, "the connection was closed")


def _retrieve(future: asyncio.Future[None]) -> None:
    """Mark the error of a connection that nobody watches as seen; asyncio would complain of it."""
    if not future.cancelled():
        future.exception()
