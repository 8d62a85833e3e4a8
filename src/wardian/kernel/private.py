"""The private socket between the home kernel and the router: one JSON request and one JSON reply a connection.

A message is its length, as four bytes, and JSON. The router's side is on its event loop; home's blocks, as a magic does.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ..errors import AgentError, NodeDownError, NodeError, NotUpError, SelectorError, TransferError, WardianError
from .binding import BindingError
from .jobs import JobError

VARIABLE = "WARDIAN_KERNEL_SOCKET"
"""The environment variable that tells the home kernel where the socket is."""

_LENGTH = struct.Struct(">I")
_ERRORS: dict[str, type[WardianError]] = {kind.__name__: kind for kind in (NotUpError, SelectorError, BindingError, JobError)}
_NODE_ERRORS: dict[str, type[NodeError]] = {kind.__name__: kind for kind in (NodeDownError, AgentError, TransferError)}

Serve = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class RouterError(WardianError):
    """What the router could not do for a magic."""


async def listen(path: Path, serve: Serve) -> asyncio.Server:
    """Answer requests on a socket that only we may open. What `serve` raises as WardianError is raised in the home kernel."""
    # A socket has the right permissions from its first moment only through the mask.
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(lambda reader, writer: _connection(reader, writer, serve), path)
    finally:
        os.umask(mask)


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, serve: Serve) -> None:
    try:
        length = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0]
        request = json.loads(await reader.readexactly(length))
        # A magic that is interrupted closes its side, and then nobody waits for the answer.
        working = asyncio.ensure_future(serve(request))
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
        text = json.dumps(answer).encode()
        writer.write(_LENGTH.pack(len(text)) + text)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


def router_socket() -> Path:
    """Where the router of this home kernel listens. Raises RouterError outside of one."""
    path = os.environ.get(VARIABLE)
    if not path:
        raise RouterError("this kernel is not Wardian's", remedy='choose the kernel "Python 3 (Wardian)" for this notebook')
    return Path(path)


def request(operation: str, **arguments: Any) -> dict[str, Any]:
    """Ask the router, from the home kernel, and wait for its answer. Raises WardianError: what it could not do."""
    path = router_socket()
    text = json.dumps({"operation": operation, **arguments}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            raise RouterError(f"the kernel's router does not answer: {error}", remedy="restart the kernel") from None
        connection.sendall(_LENGTH.pack(len(text)) + text)
        length = _LENGTH.unpack(_exactly(connection, _LENGTH.size))[0]
        answer = json.loads(_exactly(connection, length))
    if "error" in answer:
        raise _error(**answer["error"])
    result: dict[str, Any] = answer["ok"]
    return result


def _error(kind: str, message: str, remedy: str | None) -> WardianError:
    """The router's error, anew. The message names the node already."""
    if kind in _NODE_ERRORS:
        return _NODE_ERRORS[kind]("", message, remedy=remedy)
    return _ERRORS.get(kind, RouterError)(message, remedy=remedy)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise RouterError("the kernel's router has gone", remedy="restart the kernel")
        data += chunk
    return bytes(data)
