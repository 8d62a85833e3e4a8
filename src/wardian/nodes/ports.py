"""Ports of nodes on this machine: a listener on loopback whose connections go over the node's channel.

Nothing listens on the node. For each connection a process there connects to the port and copies; what does that is Python where there is
one, else socat, nc or bash. Of these only Python, socat and OpenBSD's nc can end one direction of a connection and keep the other.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..errors import CommandError, NodeDownError, NodeError, SelectorError, WardianError
from ..providers.base import Channel, Process

LOOPBACK = "127.0.0.1"
_CHUNK = 1 << 18
_MOST = 256
"""Connections of one listener at once; more wait."""
_ENDING = 0.05
"""Seconds that the process on the node may take from the end of its output to its own, for its exit code to be heeded."""

_PROBE = """
if python3 -I -S -c 'import socket, sys, threading; print(sys.executable)' 2>/dev/null; then :
elif command -v socat >/dev/null; then echo socat
elif command -v nc >/dev/null; then case $(nc -h 2>&1) in *-N*) echo nc-N;; *) echo nc;; esac
elif command -v bash >/dev/null; then echo bash
fi
"""

_PYTHON = """
import os, socket, sys, threading
for address in filter(None, (os.environ.get("WARDIAN_ADDRESS"), "127.0.0.1", "::1")):
    try:
        connection = socket.create_connection((address, int(sys.argv[1])))
        break
    except OSError as error:
        reason = error
else:
    sys.exit(str(reason))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def send():
    try:
        while True:
            data = os.read(0, 1 << 18)
            if not data:
                break
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass
sender = threading.Thread(target=send, daemon=True)
sender.start()
try:
    while True:
        data = connection.recv(1 << 18)
        if not data:
            break
        view = memoryview(data)
        while view:
            view = view[os.write(1, view):]
except OSError as error:
    sys.stderr.write(str(error))
    sys.stderr.flush()
    os._exit(1)
os.close(1)
sender.join()
os._exit(0)
"""

_BASH = 'exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1; cat <&0 >&3 & cat <&3; kill $! 2>/dev/null; exit 0'


def command(program: str, port: int) -> list[str]:
    """What is run on the node for one connection to `port`. program: what `find_program` gave."""
    if program.startswith("/"):
        return [program, "-I", "-S", "-c", _PYTHON, str(port)]
    return {
        "socat": ["socat", "-t", "86400", "-", f"TCP:{LOOPBACK}:{port}"],
        "nc-N": ["nc", "-N", LOOPBACK, str(port)],
        "nc": ["nc", LOOPBACK, str(port)],
        "bash": ["bash", "-c", _BASH, "bash", str(port)],
    }[program]


async def find_program(channel: Channel, node: str) -> str:
    """What on the node can connect and copy: the path of a Python, or a name. Raises CommandError where nothing can, NodeDownError."""
    process = await channel.start(["/bin/sh", "-c", _PROBE], stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    try:
        found = (await process.stdout.read()).decode().strip() if process.stdout is not None else ""
        await process.wait()
    finally:
        await process.close()
    if not found:
        remedy = "install one of them there (`setup:`)"
        raise CommandError(node, "forwarding a port needs Python 3, socat, nc or bash on the node, and it has none of them", remedy=remedy)
    return found


@dataclass(frozen=True, slots=True)
class Target:
    """A port of the nodes that a selector picks."""

    selector: str
    port: int


_TARGET = re.compile(r"(.+):(\d{1,5})")


def parse_target(text: str) -> Target:
    """`client:8080` as a target. Raises SelectorError."""
    match = _TARGET.fullmatch(text.strip())
    if match is None or not 1 <= int(match[2]) <= 65535:
        raise SelectorError(f"{text!r} is no port of a node", remedy="write NODE:PORT, such as client:8080")
    return Target(match[1], int(match[2]))


class Forward:
    """A port of a node, reached through a listener here. `port` is the node's, `here` ours, `trouble` why the last connection failed."""

    def __init__(self, channel: Channel, node: str, port: int, program: str) -> None:
        self.node = node
        self.port = port
        self.here = 0
        self.connections = 0
        self.trouble = ""
        self._channel = channel
        self._argv = command(program, port)
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_MOST)

    @classmethod
    async def open(cls, channel: Channel, node: str, port: int, here: int | None = None) -> Forward:
        """Listen. here: our port; where None the node's own if that is free, else any. Raises WardianError, NodeError."""
        forward = cls(channel, node, port, await find_program(channel, node))
        wanted = [here] if here is not None else [port, 0] if port >= 1024 else [0]
        for number in wanted:
            try:
                forward._server = await asyncio.start_server(forward._accept, LOOPBACK, number, limit=_CHUNK)
                break
            except OSError as error:
                reason = error.strerror or str(error)
        if forward._server is None:
            raise WardianError(f"cannot listen on port {here} here: {reason}", remedy="choose another with --port, or leave it out")
        forward.here = forward._server.sockets[0].getsockname()[1]
        return forward

    async def close(self) -> None:
        """Stop listening, and end the connections."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._room:
                self.connections += 1
                await self._connect(reader, writer)
        except NodeError as error:
            self.trouble = error.message
            # The client sees its connection reset, as when a server goes away.
            writer.transport.abort()
        except ConnectionError:
            writer.transport.abort()
        finally:
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        process = await self._channel.start(self._argv)
        tasks: list[asyncio.Task[None]] = []
        try:
            if process.stdin is None or process.stdout is None or process.stderr is None:
                raise NodeDownError(self.node, "the channel gave no streams")
            sending = asyncio.create_task(_copy(reader, process.stdin, process.stdin.close))
            receiving = asyncio.create_task(_copy(process.stdout, writer, lambda: None))
            tasks = [sending, receiving]
            await receiving
            await self._check(process)
            if writer.can_write_eof():
                writer.write_eof()
            await sending
            await process.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await process.close()

    async def _check(self, process: Process) -> None:
        """The node's side has said everything. Whether that is the server's doing, or it failed, its exit code says, if it ends now."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDING):
                code = await process.wait()
            if code != 0:
                said = (await process.stderr.read(4096)).decode(errors="replace").strip() if process.stderr is not None else ""
                raise CommandError(self.node, f"cannot connect to port {self.port}: {said or f'exit code {code}'}")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: Callable[[], None]) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    ended()
