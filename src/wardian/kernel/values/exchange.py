"""Moves values between home and nodes' kernels: a pipe on the node, which its kernel reads or writes, and the channel's stream before it.

The router connects the two and lends home the other end of the stream, so that what is large does not pass through it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

from ...errors import TransferError
from ...providers.base import Process
from ..places.place import Place
from ..places.reach import Reach
from ..session.private import Lenders, Loan

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_CHUNK = 1 << 18
_LONGEST_TEXT = 1 << 26
"""How long a bash variable may be, bytes."""
_SETTLING = 2.0
"""Seconds that a kernel may take to notice that the pipe it reads or writes has broken."""

_FOLDER = """
umask 077
for folder in "${WARDIAN_RUN_DIR:-/run/wardian}/values" "/tmp/wardian-values-$(id -u)"; do
    mkdir -p "$folder" 2>/dev/null && [ -O "$folder" ] && chmod 700 "$folder" && break
done || exit 1
path=$folder/$1
trap 'rm -f "$path"' EXIT
trap 'exit 129' HUP INT TERM PIPE
"""
_TO_KERNEL = _FOLDER + 'mkfifo "$path" && echo "$path" && cat > "$path"'
_FROM_KERNEL = _FOLDER + 'mkfifo "$path" && echo "$path" && cat < "$path"'
_FILE = _FOLDER + ': > "$path" && echo "$path" && read -r go && cat "$path"'


_NAMES = "[name for name in get_ipython().user_ns if name[0] != '_' and name not in get_ipython().user_ns_hidden]"


class Exchange:
    """Values to and from the kernels of nodes. `lenders` serve home's requests for them, one node each."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._codec = files("wardian.kernel.values").joinpath("encoding.py").read_text()
        self.lenders: Lenders = {"put-value": self._send, "get-value": self._receive}

    async def get_text(self, place: Place, name: str) -> str:
        """The text of a bash variable. Raises TransferError, NodeDownError."""
        async with self._started(place, _FILE) as (process, path):
            quoted = _quoted(path)
            await self._run(place, f'if [ -z "${{{name}+x}}" ]; then rm {quoted}; (exit 3); else printf %s "${name}" > {quoted}; fi', name)
            if process.stdin is None or process.stdout is None:
                raise TransferError(place.name, "the channel gave no streams")
            process.stdin.write(b"\n")
            data = bytearray()
            while chunk := await process.stdout.read(_CHUNK):
                data += chunk
                if len(data) > _LONGEST_TEXT:
                    raise _too_long(place, name)
        try:
            return data.decode()
        except UnicodeDecodeError:
            remedy = "write it to a file there, and copy that (%get /path)"
            raise TransferError(place.name, f"the variable {name!r} is not text in UTF-8", remedy=remedy) from None

    async def put_text(self, place: Place, name: str, text: str) -> None:
        """Make `text` the bash variable `name` of a place. Raises TransferError, NodeDownError."""
        data = text.encode("utf-8", "surrogateescape")
        if len(data) > _LONGEST_TEXT:
            raise _too_long(place, name)
        async with self._started(place, _FILE) as (process, path):
            # What is read from a file and not from the cell keeps quotes; the x keeps the line ends that $( ) would take away.
            await self._store(place, path, data)
            quoted = _quoted(path)
            await self._run(place, f"{name}=$(cat {quoted}; printf x) && {name}=${{{name}%x}}", name)
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    async def delete(self, place: Place, name: str) -> None:
        """Delete the variable `name` of a Python kernel. Raises TransferError, NodeDownError."""
        await self._run(place, f"del get_ipython().user_ns[{name!r}]", name)

    async def _send(self, request: dict[str, Any], loan: Loan) -> dict[str, Any]:
        """A value of home becomes a variable of a Python kernel; home writes it into the stream that it is lent."""
        place, name, options = await self._asked(request)
        async with self._started(place, _TO_KERNEL) as (process, path):
            code = f"get_ipython().user_ns[{name!r}] = " + self._python("receive", f"{path!r}, {options}")
            async with _lending_stdin(process) as descriptor:
                await self._while_it_runs(place, process, code, name, loan, descriptor)
        return {}

    async def _receive(self, request: dict[str, Any], loan: Loan) -> dict[str, Any]:
        """A variable of a Python kernel; home reads it from the stream that it is lent.

        With `number` it is what the kernel's `Out` has there, with `names` the names of all variables.
        """
        place, name, _ = await self._asked(request)
        value = f"get_ipython().user_ns[{name!r}]"
        if request.get("number") is not None:
            value = f'get_ipython().user_ns["Out"].get({int(request["number"])})'
        elif request.get("names"):
            value = _NAMES
        async with self._started(place, _FROM_KERNEL) as (process, path):
            code = self._python("send", f"lambda: {value}, {path!r}, {bool(request.get('pickle'))}")
            async with _lending_stdout(process) as descriptor:
                await self._while_it_runs(place, process, code, name, loan, descriptor)
                await loan.taken.wait()
        return {}

    async def _asked(self, request: dict[str, Any]) -> tuple[Place, str, str]:
        language = str(request.get("language", "python"))
        name = str(request["name"])
        if language != "python":
            remedy = "copy a file (%get /path, %put ./path)"
            raise TransferError(str(request["node"]), f"values travel to and from Python and bash, not {language}", remedy=remedy)
        [place] = await self._reach.places(str(request["node"]), language)
        if place.error is not None:
            raise place.error
        return place, name, f"{bool(request.get('pickle'))}, {bool(request.get('force'))}"

    async def _while_it_runs(self, place: Place, process: Process, code: str, name: str, loan: Loan, descriptor: int) -> None:
        """Let home have the stream while the kernel runs the code at the other end. A stream that breaks ends the code."""
        running = asyncio.ensure_future(self._run(place, code, name))
        broken = asyncio.ensure_future(process.wait())
        try:
            loan.lend(descriptor)
            await asyncio.wait({running, broken}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await asyncio.wait({running}, timeout=_SETTLING)
            if not running.done():
                raise TransferError(place.name, f"{name}: the way to its kernel broke", remedy="see whether the node is out of memory")
            await running
        finally:
            running.cancel()
            broken.cancel()
            await asyncio.wait({running, broken})

    async def _run(self, place: Place, code: str, name: str) -> None:
        reply = await self._reach.execute(place, code)
        if reply.get("status") == "ok":
            return
        kind, reason = reply.get("ename"), reply.get("evalue", "")
        if kind == "KeyError" or (place.language == "bash" and reason == "3"):
            message = f"there is no variable {name!r} in its {place.language} kernel"
            raise TransferError(place.name, message, remedy="set it in a cell bound there")
        raise TransferError(place.name, f"{name}: {reason}" if kind == "UnmovableValue" else f"{name}: {kind}: {reason}")

    def _python(self, function: str, arguments: str) -> str:
        return f'(lambda codec: (exec({self._codec!r}, codec), codec[{function!r}]({arguments}))[1])({{"__name__": "wardian_values"}})'

    async def _store(self, place: Place, path: str, data: bytes) -> None:
        channel = await self._reach.channel(place.name)
        process = await channel.start(["/bin/sh", "-c", 'cat > "$1"', "sh", path], stderr=asyncio.subprocess.DEVNULL)
        try:
            if process.stdin is not None:
                with suppress(ConnectionError):
                    process.stdin.write(data)
                    await process.stdin.drain()
                process.stdin.close()
            if await process.wait() != 0:
                raise _no_room(place)
        finally:
            await process.close()

    @asynccontextmanager
    async def _started(self, place: Place, script: str) -> AsyncIterator[tuple[Process, str]]:
        """A process on the place's node, and the path of what it has made for the kernel."""
        channel = await self._reach.channel(place.name)
        process = await channel.start(["/bin/sh", "-c", script, "sh", secrets.token_hex(8)], stderr=asyncio.subprocess.DEVNULL)
        try:
            path = (await process.stdout.readline()).decode().rstrip("\n") if process.stdout is not None else ""
            if not path:
                raise _no_room(place)
            yield process, path
        finally:
            await process.close()


@asynccontextmanager
async def _lending_stdin(process: Process) -> AsyncIterator[int]:
    """A descriptor whose content goes to the process: its pipe itself, where it has one here."""
    writer = process.stdin
    if writer is None:
        raise RuntimeError("the channel gave no pipe where one was asked for")
    pipe = writer.get_extra_info("pipe")
    if pipe is not None:
        yield pipe.fileno()
        return
    ours, theirs = socket.socketpair()
    reader, end = await asyncio.open_connection(sock=ours, limit=_CHUNK)
    carrying = asyncio.create_task(_carry(reader, writer))
    try:
        yield theirs.fileno()
    finally:
        await _closed(carrying, end, theirs)


@asynccontextmanager
async def _lending_stdout(process: Process) -> AsyncIterator[int]:
    """A descriptor that gives what the process writes from now on; nothing may be waiting here."""
    reader = process.stdout
    if reader is None:
        raise RuntimeError("the channel gave no pipe where one was asked for")
    transport = getattr(reader, "_transport", None)
    pipe = transport.get_extra_info("pipe") if transport is not None else None
    if transport is not None and pipe is not None:
        transport.pause_reading()
        try:
            yield pipe.fileno()
        finally:
            transport.close()
        return
    ours, theirs = socket.socketpair()
    _, end = await asyncio.open_connection(sock=ours)
    carrying = asyncio.create_task(_carry(reader, end))
    try:
        yield theirs.fileno()
        # What has come is still to be carried, but only as long as home takes it.
        theirs.close()
        await asyncio.wait({carrying})
    finally:
        await _closed(carrying, end, theirs)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.close()


async def _closed(carrying: asyncio.Task[None], end: asyncio.StreamWriter, theirs: socket.socket) -> None:
    carrying.cancel()
    theirs.close()
    end.close()
    await asyncio.wait({carrying})


def _no_room(place: Place) -> TransferError:
    remedy = "see whether the node's disk is full, and whether it has mkfifo and cat: `df -h /run /tmp`"
    return TransferError(place.name, "cannot make a place for a value there", remedy=remedy)


def _too_long(place: Place, name: str) -> TransferError:
    remedy = "write it to a file, and copy that (%get /path, %put ./path)"
    return TransferError(place.name, f"{name} is longer than {_LONGEST_TEXT >> 20} MiB, too long for a bash variable", remedy=remedy)


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"
