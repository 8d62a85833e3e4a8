"""ZeroMQ's protocol, as far as a Jupyter kernel speaks it."""

from __future__ import annotations

import collections
import select
import socket
import struct

from .files import log
from .processes import READ_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    class Cancellable(Protocol):
        def cancel(self) -> None: ...

    class Watcher(Protocol):
        """What a socket needs of an event loop."""

        def watch(self, fd: int, callback: Callable[[int], None], events: int = ...) -> None: ...
        def unwatch(self, fd: int) -> None: ...
        def later(self, seconds: float, callback: Callable[[], None]) -> Cancellable: ...


class ZmqSocket:
    """Our end of a ZeroMQ connection, a DEALER or a SUB: ZMTP 3.0 without encryption (ZeroMQ RFC 23).

    Written out here because pyzmq would have to be there for the interpreter that this happens to run on. It connects as soon as
    the other side listens at one of `addresses`: the path of a Unix socket, or (host, port).
    """

    GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    MORE, LONG, COMMAND = 1, 2, 4
    RETRY = 0.01

    def __init__(
        self, loop: Watcher, kind: bytes, identity: bytes, addresses: Sequence[Any], received: Callable[[list[bytes]], None]
    ) -> None:
        self._loop, self._kind, self._identity, self._addresses, self._received = loop, kind, identity, addresses, received
        self._socket: socket.socket | None = None
        self._outgoing: collections.deque[bytes | memoryview] = collections.deque()
        self._timer: Cancellable | None = None
        self._buffer = bytearray()
        self._frames: list[bytes] = []
        self._greeted = self._open = self._writing = False
        self._connect()

    def send(self, parts: Sequence[bytes]) -> None:
        """Send a message, now or once there is a connection."""
        for number, part in enumerate(parts, 1 - len(parts)):
            self._outgoing.append(self._head(self.MORE if number else 0, len(part)))
            if part:
                self._outgoing.append(part)
        if self._open and not self._writing:
            self._flush()

    def drain(self) -> None:
        """Take everything that has arrived."""
        while self._read():
            pass

    def close(self) -> None:
        """Let go of it; what was not sent is lost."""
        self._disconnect()
        if self._timer:
            self._timer.cancel()

    def _connect(self) -> None:
        for address in self._addresses:
            connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, socket.SOCK_STREAM)
            connection.settimeout(0.2)
            try:
                connection.connect(address)
            except OSError:
                connection.close()
                continue
            if not isinstance(address, str):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self._socket = connection
            self._loop.watch(connection.fileno(), self._ready)
            self._say(self.GREETING)
            return
        self._timer = self._loop.later(self.RETRY, self._connect)

    def _disconnect(self) -> None:
        if self._socket:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
        self._socket = None
        self._greeted = self._open = self._writing = False
        self._buffer.clear()
        self._frames.clear()
        self._outgoing.clear()

    def _lost(self) -> None:
        self._disconnect()
        self._timer = self._loop.later(self.RETRY, self._connect)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & ~select.EPOLLOUT:
            self._read()

    def _read(self) -> bool:
        """Read once and pass on what is whole; whether there may be more."""
        if not self._socket:
            return False
        try:
            data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._lost()
            return False
        self._buffer += data
        if not self._greeted and not self._greet():
            return bool(self._socket)
        self._cut()
        return True

    def _greet(self) -> bool:
        if len(self._buffer) < 64:
            return False
        if self._buffer[0] != 0xFF or self._buffer[10] < 3 or self._buffer[12:17] != b"NULL\0":
            log(f"{self._addresses[0]} does not speak ZMTP 3 without encryption")
            self._disconnect()
            return False
        del self._buffer[:64]
        self._greeted = True
        body = b"\5READY"
        for name, value in ((b"Socket-Type", self._kind), (b"Identity", self._identity)):
            body += struct.pack(">B", len(name)) + name + struct.pack(">I", len(value)) + value
        self._say(self._head(self.COMMAND, len(body)) + body)
        return True

    def _cut(self) -> None:
        """Pass on the messages in the buffer."""
        buffer, position, length = self._buffer, 0, len(self._buffer)
        try:
            while length - position >= 2:
                flags = buffer[position]
                start, size = position + 2, buffer[position + 1]
                if flags & self.LONG:
                    if length - position < 9:
                        break
                    start, size = position + 9, struct.unpack_from(">Q", buffer, position + 1)[0]
                if length - start < size:
                    break
                frame = bytes(memoryview(buffer)[start : start + size])
                position = start + size
                if flags & self.COMMAND:
                    self._command(frame)
                    continue
                self._frames.append(frame)
                if not flags & self.MORE:
                    frames, self._frames = self._frames, []
                    self._received(frames)
                    if not self._socket:
                        return
        except BaseException:
            # what is behind a message that could not be handled is there already: nothing would bring us back to it
            self._loop.later(0, self._cut)
            raise
        finally:
            del buffer[:position]

    def _command(self, frame: bytes) -> None:
        name, body = frame[1 : 1 + frame[0]], frame[1 + frame[0] :]
        if name == b"READY":
            self._open = True
            if self._kind == b"SUB":
                self._say(self._head(0, 1) + b"\1")  # everything
            self._flush()
        elif name == b"ERROR":
            log("{}: {}".format(self._addresses[0], body.decode("utf-8", "replace")))

    def _say(self, data: bytes) -> None:
        """Something small of the protocol's own, when nothing else is under way."""
        try:
            if self._socket:
                self._socket.send(data)
        except OSError:
            self._lost()

    def _flush(self) -> None:
        while self._socket and self._outgoing:
            try:
                sent = self._socket.sendmsg([self._outgoing[index] for index in range(min(len(self._outgoing), 64))])
            except (BlockingIOError, InterruptedError):
                self._watch(writing=True)
                return
            except OSError:
                self._lost()
                return
            while sent:
                chunk = self._outgoing[0]
                if len(chunk) > sent:
                    self._outgoing[0] = memoryview(chunk)[sent:]
                    break
                sent -= len(chunk)
                self._outgoing.popleft()
        self._watch(writing=False)

    def _watch(self, writing: bool) -> None:
        if self._socket and writing != self._writing:
            self._writing = writing
            self._loop.watch(self._socket.fileno(), self._ready, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def _head(self, flags: int, size: int) -> bytes:
        return struct.pack(">BB", flags, size) if size < 256 else struct.pack(">BQ", flags | self.LONG, size)
