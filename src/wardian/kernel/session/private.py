"""The private socket between the home kernel and the router: one JSON request and one JSON reply a connection.

A message is its length, as four bytes, and JSON. The router's side is on its event loop; home's blocks, as a magic does. Before it
replies the router may lend home one end of the streams of a process on a node: then a value passes by the router.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...errors import AgentError, NodeDownError, NodeError, NotUpError, SelectorError, TransferError, WardianError
from ..cells.binding import BindingError
from ..cells.cell import NodeStuckError
from ..cells.jobs import JobError

VARIABLE = "WARDIAN_KERNEL_SOCKET"
"""The environment variable that tells the home kernel where the socket is."""

_LENGTH = struct.Struct(">I")
_ERRORS: dict[str, type[WardianError]] = {kind.__name__: kind for kind in (NotUpError, SelectorError, BindingError, JobError)}
_NODE_ERRORS: dict[str, type[NodeError]] = {kind.__name__: kind for kind in (NodeDownError, AgentError, TransferError, NodeStuckError)}

Serve = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Loan:
    """What a lender serves with. `taken` is set once home has read what it wanted of a stream."""

    def __init__(self, connection: socket.socket) -> None:
        self.taken = asyncio.Event()
        self._connection = connection

    def lend(self, descriptor: int) -> None:
        """Give home a descriptor of its own for a stream."""
        # The connection has been idle since the request, so there is room for this.
        socket.send_fds(self._connection, [_framed({"lent": True})], [descriptor])

    def close(self) -> None:
        """There will be no other."""
        self._connection.close()


Lenders = Mapping[str, Callable[[dict[str, Any], Loan], Awaitable[dict[str, Any]]]]
"""Those who serve an operation that needs a stream."""


class RouterError(WardianError):
    """What the router could not do for a magic."""


async def listen(path: Path, serve: Serve, lenders: Lenders | None = None) -> asyncio.Server:
    """Answer requests on a socket that only we may open. What `serve` or a lender raises as WardianError is raised in the home kernel."""
    # A socket has the right permissions from its first moment only through the mask.
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(lambda reader, writer: _connection(reader, writer, serve, lenders or {}), path)
    finally:
        os.umask(mask)


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, serve: Serve, lenders: Lenders) -> None:
    loan = Loan(writer.get_extra_info("socket").dup())
    try:
        length = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0]
        request = json.loads(await reader.readexactly(length))
        # A magic that is interrupted closes its side, and then nobody waits for the answer.
        lender = lenders.get(str(request.get("operation")))
        working = asyncio.ensure_future(lender(request, loan) if lender else serve(request))
        leaving = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and leaving.result():
            loan.taken.set()
            leaving = asyncio.ensure_future(reader.read(1))
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not working.done():
            working.cancel()
            return
        try:
            answer = {"ok": working.result()}
        except WardianError as error:
            answer = {"error": {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy}}
        writer.write(_framed(answer))
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        loan.close()
        writer.close()


def router_socket() -> Path:
    """Where the router of this home kernel listens. Raises RouterError outside of one."""
    path = os.environ.get(VARIABLE)
    if not path:
        raise RouterError("this kernel is not Wardian's", remedy='choose the kernel "Python 3 (Wardian)" for this notebook')
    return Path(path)


def request(operation: str, **arguments: Any) -> dict[str, Any]:
    """Ask the router, from the home kernel, and wait for its answer. Raises WardianError: what it could not do."""
    with Call(operation, **arguments) as call:
        return call.answer()


class Call:
    """A request under way, from the home kernel. As a context manager it gives the request up when left. Raises as `request`."""

    def __init__(self, operation: str, **arguments: Any) -> None:
        path = router_socket()
        self._connection = socket.socket(socket.AF_UNIX)
        self._waiting = bytearray()
        self._lent: list[int] = []
        self._result: dict[str, Any] | None = None
        try:
            self._connection.connect(str(path))
            self._connection.sendall(_framed({"operation": operation, **arguments}))
        except OSError as error:
            self._connection.close()
            raise RouterError(f"the kernel's router does not answer: {error}", remedy="restart the kernel") from None

    def answer(self) -> dict[str, Any]:
        """The answer, once it is there."""
        while self._result is None:
            self._result = self._message().get("ok")
        return self._result

    def lent(self) -> int:
        """The end of a stream that the router lends; it is closed with this call."""
        if "lent" not in self._message():
            raise RouterError("the kernel's router gave no way to the node", remedy="restart the kernel")
        return self._lent[0]

    def taken(self) -> None:
        """Say that everything that is wanted of the stream has been read."""
        with suppress(ConnectionError):
            self._connection.sendall(b"\x01")

    def fileno(self) -> int:
        """Readable once there is an answer, which before the end of a stream is an error."""
        return self._connection.fileno()

    def close(self) -> None:
        """Let go of it; the router stops what it does for it."""
        for descriptor in self._lent:
            os.close(descriptor)
        self._lent.clear()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _message(self) -> dict[str, Any]:
        length = _LENGTH.unpack(self._exactly(_LENGTH.size))[0]
        message: dict[str, Any] = json.loads(self._exactly(length))
        if "error" in message:
            raise _error(**message["error"])
        return message

    def _exactly(self, size: int) -> bytes:
        while len(self._waiting) < size:
            chunk, descriptors, _, _ = socket.recv_fds(self._connection, size - len(self._waiting), 1)
            self._lent += descriptors
            if not chunk:
                raise RouterError("the kernel's router has gone", remedy="restart the kernel")
            self._waiting += chunk
        data = bytes(self._waiting[:size])
        del self._waiting[:size]
        return data


def _framed(message: dict[str, Any]) -> bytes:
    text = json.dumps(message).encode()
    return _LENGTH.pack(len(text)) + text


def _error(kind: str, message: str, remedy: str | None) -> WardianError:
    """The router's error, anew. The message names the node already."""
    if kind in _NODE_ERRORS:
        return _NODE_ERRORS[kind]("", message, remedy=remedy)
    return _ERRORS.get(kind, RouterError)(message, remedy=remedy)
