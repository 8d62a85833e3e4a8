"""OpenSSH's multiplexing protocol (its PROTOCOL.mux), as a client: sessions over a connection that one `ssh` process holds.

A session is a connection to that process's control socket. It is given three descriptors, which it reads and writes by itself.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

VERSION = 4
LONGEST_COMMAND = 128_000
"""Bytes of a command: past 128 KiB the host's kernel takes no argument."""

_HELLO, _NEW_SESSION, _ALIVE_CHECK, _TERMINATE = 0x00000001, 0x10000002, 0x10000004, 0x10000005
_DENIED, _FAILURE, _EXIT, _ALIVE, _OPENED, _NO_TERMINAL = 0x80000002, 0x80000003, 0x80000004, 0x80000005, 0x80000006, 0x80000008
_NO_ESCAPE = 0xFFFFFFFF
_LARGEST = 1 << 18


class Gone(Exception):
    """There is no such process, or it ended."""


class Refused(Exception):
    """The host opens no further session on this connection."""


class Session:
    """A command that runs on a host. ended: set when it has ended or the connection has; `code` is None where no exit code came.

    Its output may come later still, and is lost if the session is closed before.
    """

    def __init__(self, connection: _Connection) -> None:
        self.code: int | None = None
        self.ended = asyncio.Event()
        self.terminal_refused = False
        self._connection = connection
        self._following = asyncio.create_task(self._follow())

    def close(self) -> None:
        """Let go of it. The command there is not told but by the end of its streams."""
        self._following.cancel()
        self._connection.close()
        self.ended.set()

    async def _follow(self) -> None:
        try:
            while True:
                kind, body = await self._connection.receive()
                if kind == _EXIT:
                    self.code = struct.unpack(">II", body)[1]
                    self.ended.set()
                elif kind == _NO_TERMINAL:
                    self.terminal_refused = True
        except Gone:
            return
        finally:
            self._connection.close()
            self.ended.set()


async def open_session(path: str, command: str, descriptors: Sequence[int], *, terminal: str | None = None) -> Session:
    """Start a command over the connection of the control socket `path`.

    descriptors: what becomes its standard input, output and error. terminal: type of the terminal it gets, whose modes and size are
    those of the first descriptor; None for none.
    Raises Gone or Refused.
    """
    connection = await _Connection.open(path)
    try:
        asked = struct.pack(">IIIII", terminal is not None, 0, 0, 0, _NO_ESCAPE)
        await connection.send(_NEW_SESSION, struct.pack(">I", 0) + _string("") + asked + _string(terminal or "") + _string(command))
        for descriptor in descriptors:
            await connection.send_descriptor(descriptor)
        while True:
            kind, body = await connection.receive()
            if kind == _OPENED:
                return Session(connection)
            if kind in (_FAILURE, _DENIED):
                raise Refused(body[8:].decode(errors="replace"))
    except BaseException:
        connection.close()
        raise


async def process_of(path: str) -> int:
    """The number of the process that holds the connection. Raises Gone."""
    connection = await _Connection.open(path)
    try:
        await connection.send(_ALIVE_CHECK, struct.pack(">I", 0))
        while True:
            kind, body = await connection.receive()
            if kind == _ALIVE:
                return int(struct.unpack(">II", body)[1])
    finally:
        connection.close()


async def terminate(path: str) -> None:
    """End the connection with all its sessions; returns once that process has closed its sockets. No error if there is none."""
    with suppress(Gone):
        connection = await _Connection.open(path)
        try:
            await connection.send(_TERMINATE, struct.pack(">I", 0))
            while True:
                await connection.receive()
        finally:
            connection.close()


class _Connection:
    """Packets to and from a control socket."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()

    @classmethod
    async def open(cls, path: str) -> _Connection:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.setblocking(False)
        connection = cls(stream)
        try:
            try:
                stream.connect(path)
            except BlockingIOError:
                # more wait there than it has room for
                stream.setblocking(True)
                await asyncio.to_thread(stream.connect, path)
                stream.setblocking(False)
            await connection.send(_HELLO, struct.pack(">I", VERSION))
        except OSError as error:
            connection.close()
            raise Gone(str(error)) from None
        except BaseException:
            connection.close()
            raise
        return connection

    async def send(self, kind: int, body: bytes) -> None:
        """Send one packet. Raises Gone."""
        try:
            await self._loop.sock_sendall(self._stream, struct.pack(">II", len(body) + 4, kind) + body)
        except OSError as error:
            raise Gone(str(error)) from None

    async def send_descriptor(self, descriptor: int) -> None:
        """Send a descriptor, with a byte of its own as the other side expects it. Raises Gone."""
        while True:
            try:
                socket.send_fds(self._stream, [b"\0"], [descriptor])
                return
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                raise Gone(str(error)) from None

    async def receive(self) -> tuple[int, bytes]:
        """The next packet. Raises Gone at the end."""
        while True:
            if len(self._buffer) >= 4:
                (length,) = struct.unpack_from(">I", self._buffer)
                if not 4 <= length <= _LARGEST:
                    raise Gone("what answers is no ssh")
                if len(self._buffer) >= 4 + length:
                    packet = bytes(self._buffer[4 : 4 + length])
                    del self._buffer[: 4 + length]
                    return struct.unpack_from(">I", packet)[0], packet[4:]
            try:
                data = await self._loop.sock_recv(self._stream, 4096)
            except OSError as error:
                raise Gone(str(error)) from None
            if not data:
                raise Gone("it ended")
            self._buffer += data

    def close(self) -> None:
        """Close the socket, also while something waits on it."""
        if self._stream.fileno() >= 0:
            self._loop.remove_reader(self._stream)
            self._loop.remove_writer(self._stream)
            self._stream.close()

    async def _writable(self) -> None:
        ready = asyncio.Event()
        self._loop.add_writer(self._stream, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_writer(self._stream)


def _string(text: str) -> bytes:
    data = os.fsencode(text)
    return struct.pack(">I", len(data)) + data
