"""The way to a node: its init's socket (see `init.py`), as asyncio streams."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
import signal
import socket
import struct
import termios
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import CommandError, NodeDownError
from ..base import Channel
from ..preloaded import Preloaded
from .cgroups import Cgroups
from .init import GRACE, SOCKET, roomy
from .kernel import is_running, namespace_of, own_namespace, receive
from .state import read_json

log = logging.getLogger("wardian.local")

STREAM_LIMIT = 1 << 20
"""How much of a stream waits here unread before its process has to wait, in bytes."""

LONGEST_REQUEST = 1 << 22
"""Bytes of a request with all arguments; the kernel takes fewer for a program."""

_PIPE_SIZE = 1 << 20
_ENTER = f"{__package__}.entry:enter"
_REMEDY = "`wardian up` makes it anew."


class LocalChannel(Channel):
    """Starts processes on the node whose state folder this is. environment: whose node it is; None for one that is none's."""

    def __init__(self, node: str, folder: Path, environment: str | None = None) -> None:
        self._node = node
        self._folder = folder
        self._environment = environment

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> LocalProcess:
        request = json.dumps({"argv": list(argv), "env": dict(env or {}), "cwd": cwd, "terminal": terminal}).encode()
        connection = _connect(self._node, self._folder)
        return await started(self._node, connection, request, argv, cwd, None if terminal else (stdin, stdout, stderr))

    async def fork(self, preloaded: Preloaded, program: str) -> LocalProcess | None:
        identity = read_json(self._folder / "process.json")
        if identity is None or self._environment is None:
            return None
        ends = _Ends()
        connection: socket.socket | None = None
        try:
            init = os.pidfd_open(identity["pid"])
            try:
                env = await self._variables()
                if env is None or not is_running(identity) or not preloaded.suits(env):
                    return None
                groups = [str(folder / "cgroup.procs") for folder in Cgroups.find().folders(self._environment, self._node)]
                apart = namespace_of(identity["pid"]) != own_namespace()
                node = {"apart": apart, "cgroups": groups, "init": identity["pid"], "env": env, "program": program}
                ends.make(None, None, None)
                modules = [program.partition(":")[0]]
                connection = preloaded.fork(_ENTER, node, ends.theirs, modules=modules, others=[init])
            finally:
                os.close(init)
            ends.close_theirs()
            answer, _ = await answer_of(self._node, connection)
            if "error" in answer:
                log.info("%s is reached by a new process: %s", self._node, answer["error"])
                return None
            process = LocalProcess(self._node, connection, -1)
            await process.attach(ends)
            connection = None
            return process
        except (OSError, NodeDownError) as error:
            # the normal way tells whether the node or the preloaded process is what is gone
            log.info("%s is reached by a new process: %s", self._node, error)
            return None
        finally:
            ends.close()
            if connection is not None:
                connection.close()

    async def _variables(self) -> dict[str, str] | None:
        """What a process of the node starts with; None of a node whose init was made by a Wardian that does not tell."""
        with _connect(self._node, self._folder) as connection:
            connection.send(json.dumps({"ask": "variables", "argv": []}).encode())
            answer, _ = await answer_of(self._node, connection)
        env: dict[str, str] | None = answer.get("variables")
        return env


class StreamsRefusedError(CommandError):
    """The streams of a process could not be given to it."""


async def started(
    node: str,
    connection: socket.socket,
    request: bytes,
    argv: Sequence[str],
    cwd: str | None,
    streams: tuple[int | None, int | None, int | None] | None,
) -> LocalProcess:
    """The process that an init starts when it is told `request`; argv and cwd are what that says.

    connection: to the init, which from here on is the process's own. streams: as `Channel.start` takes them; None for a terminal.
    """
    ends = _Ends()
    try:
        if streams:
            ends.make(*streams)
        try:
            _send_request(connection, request, ends.theirs)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise CommandError(node, f"{argv[0]} cannot be executed: its arguments are too long") from None
            raise NodeDownError(node, "the node went away", remedy=_REMEDY) from None
        ends.close_theirs()
        answer, master = await answer_of(node, connection)
        if "error" in answer:
            what = f"cannot be executed in folder {cwd}" if answer["what"] == "cwd" else "cannot be executed"
            kind = StreamsRefusedError if answer["what"] == "streams" else CommandError
            raise kind(node, f"{argv[0]} {what}: {answer['error']}")
        process = LocalProcess(node, connection, master)
        await process.attach(ends)
    except BaseException:
        ends.close()
        connection.close()
        raise
    return process


def _send_request(connection: socket.socket, request: bytes, descriptors: Sequence[int]) -> None:
    try:
        socket.send_fds(connection, [request], descriptors)
    except OSError as error:
        if error.errno != errno.EMSGSIZE or len(request) > LONGEST_REQUEST:
            raise
        with os.fdopen(os.memfd_create("request", os.MFD_CLOEXEC), "wb") as file:
            file.write(request)
            file.flush()
            socket.send_fds(connection, [b'{"here": true}'], [*descriptors, file.fileno()])


async def answer_of(node: str, connection: socket.socket) -> tuple[dict[str, Any], int]:
    """What an init says next, and the descriptor that came with it, or -1. Raises NodeDownError at its end."""
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
    try:
        raw, descriptors = receive(connection, 1 << 16, 1)
    except ConnectionError:
        raw, descriptors = b"", []
    if not raw:
        raise NodeDownError(node, "the node went away while a command was started", remedy=_REMEDY)
    return json.loads(raw), descriptors[0] if descriptors else -1


class LocalProcess:
    """A process on a node, as `base.Process` promises."""

    def __init__(self, node: str, connection: socket.socket, master: int) -> None:
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._node = node
        self._connection = connection
        self._master = master
        self._transports: list[asyncio.BaseTransport] = []
        self._code: int | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._message)

    async def attach(self, ends: _Ends) -> None:
        """Take our ends of its streams."""
        stdin, stdout, stderr = ends.take()
        if self._master >= 0:
            stdin, stdout = os.dup(self._master), os.dup(self._master)
        if stdin is not None:
            os.set_blocking(stdin, False)
            pipe = os.fdopen(stdin, "wb", 0)
            transport, protocol = await self._loop.connect_write_pipe(lambda: _Stream(asyncio.StreamReader()), pipe)
            self.stdin = asyncio.StreamWriter(transport, protocol, None, self._loop)
            self._transports.append(transport)
        self.stdout, self.stderr = await self._reader(stdout), await self._reader(stderr)

    async def wait(self) -> int:
        await self._ended.wait()
        if self._code is None:
            raise NodeDownError(self._node, "the node went away while a command ran", remedy=_REMEDY)
        return self._code

    def kill(self) -> None:
        """End it and its process group at once."""
        self._send_signal(signal.SIGKILL)

    async def signal(self, number: int) -> None:
        self._send_signal(number)

    def _send_signal(self, number: int) -> None:
        if not self._ended.is_set():
            with suppress(OSError):
                self._connection.send(json.dumps({"signal": int(number)}).encode())

    async def resize(self, rows: int, columns: int) -> None:
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def close(self) -> None:
        for transport in self._transports:
            transport.close()
        self._close_master()
        try:
            await self._hang_up()
        finally:
            # should this be cut short, the end of the connection makes the node's init finish it
            self._let_go()

    async def _hang_up(self) -> None:
        for number in (signal.SIGHUP, signal.SIGKILL):
            await self.signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), GRACE)
                return

    async def _reader(self, descriptor: int | None) -> asyncio.StreamReader | None:
        if descriptor is None:
            return None
        os.set_blocking(descriptor, False)
        stream = asyncio.StreamReader(STREAM_LIMIT)
        transport, _ = await self._loop.connect_read_pipe(lambda: _Stream(stream), os.fdopen(descriptor, "rb", 0))
        self._transports.append(transport)
        return stream

    def _message(self) -> None:
        try:
            raw = self._connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        if raw:
            answer = json.loads(raw)
            if "exit" not in answer:
                return
            self._code = answer["exit"]
        self._let_go()

    def _let_go(self) -> None:
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection)
            self._connection.close()
        self._ended.set()

    def _close_master(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1


class _Stream(asyncio.StreamReaderProtocol):
    """Takes the error that ends a terminal (EIO) for what it is: the end of the stream."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None if isinstance(exc, OSError) and exc.errno == errno.EIO else exc)


class _Ends:
    """Both ends of a process's streams, ours None where it has no pipe."""

    def __init__(self) -> None:
        self.ours: list[int | None] = [None, None, None]
        self.theirs: list[int] = []

    def make(self, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        for number, wanted in enumerate((stdin, stdout, stderr)):
            if wanted is None:
                ends = os.pipe()
                theirs, ours = ends if number == 0 else reversed(ends)
                self.ours[number] = ours
                # a larger pipe than the kernel gives by default; past its limit for the user the default stays
                with suppress(OSError):
                    fcntl.fcntl(ours, 1031, _PIPE_SIZE)  # F_SETPIPE_SZ
            elif wanted == asyncio.subprocess.STDOUT and number == 2:
                theirs = os.dup(self.theirs[1])
            else:
                theirs = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self.theirs.append(theirs)

    def take(self) -> list[int | None]:
        ours, self.ours = self.ours, [None, None, None]
        return ours

    def close_theirs(self) -> None:
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = []

    def close(self) -> None:
        self.close_theirs()
        for descriptor in self.take():
            if descriptor is not None:
                os.close(descriptor)


def tell(requests: Iterable[tuple[str, Path, Mapping[str, Any]]]) -> dict[str, str]:
    """Have the inits of running nodes do what is no process, on all at once: (node, its state folder, the request, see `init.py`).

    Gives {node: reason} of those where it failed.
    """
    failures: dict[str, str] = {}
    waiting: list[tuple[str, socket.socket]] = []
    for node, folder, request in requests:
        try:
            connection = _connect(node, folder)
            waiting.append((node, connection))
            connection.setblocking(True)
            _send_request(connection, json.dumps(request).encode(), [])
        except (OSError, NodeDownError) as error:
            failures[node] = str(error)
    for node, connection in waiting:
        with connection:
            try:
                answer = json.loads(connection.recv(1 << 16) or b'{"error": "the node went away"}')
            except OSError as error:
                answer = {"error": str(error)}
        if "error" in answer:
            failures.setdefault(node, answer["error"])
    return failures


def _connect(node: str, folder: Path) -> socket.socket:
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.") from None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        roomy(connection)
        # a socket's path may have 108 bytes; through the descriptor it is short wherever the state folder lies
        connection.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
    except PermissionError:
        connection.close()
        raise NodeDownError(node, "it is another user's", remedy="Use it as the user who made it.") from None
    except OSError:
        connection.close()
        raise NodeDownError(node, "the node is not running", remedy=_REMEDY) from None
    finally:
        os.close(descriptor)
    return connection
