"""The two-way stream of an `exec`: after the head of the answer it carries the process's output, in frames or raw, and takes its input.

Frames are of the Engine's making: one byte that says which stream (1 stdout, 2 stderr), three of nothing, four of length, and the data. A
process with a terminal has no frames.
"""

from __future__ import annotations

import asyncio
import functools
import struct
from typing import Any

from .engine import Engine, EngineError, head, parse_head, reason

STREAM_LIMIT = 1 << 20
"""How much of a stream waits here unread before its process has to wait, in bytes."""

_UPGRADE = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}


class ExecStream(asyncio.streams.FlowControlMixin):
    """One running `exec`: `stdin`, `stdout` and `stderr` as asyncio streams, and `ended`, set when the Engine closed it."""

    def __init__(self, *, raw: bool) -> None:
        super().__init__(asyncio.get_running_loop())
        self.status = 0
        self.opened: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.stdout = asyncio.StreamReader(STREAM_LIMIT)
        self.stderr = asyncio.StreamReader(STREAM_LIMIT)
        self._readers = {1: self.stdout} if raw else {1: self.stdout, 2: self.stderr}
        self._raw = raw
        self._buffer = bytearray()
        self._left, self._current = 0, 1
        self._pausing: set[int] = set()
        self._discarding = False

    @classmethod
    async def open(cls, engine: Engine, path: str, body: bytes, *, raw: bool) -> ExecStream:
        """Start what `path` names. Raises EngineError with the Engine's reason when it refuses."""
        connection = await engine.connect()
        _, stream = await asyncio.get_running_loop().create_connection(lambda: cls(raw=raw), sock=connection)
        try:
            stream._transport.write(head("POST", path, None, {**_UPGRADE, "Content-Length": str(len(body))}) + body)
            said = await stream.opened
        except BaseException:
            stream.abort()
            raise
        if stream.status not in (101, 200):
            stream.abort()
            raise EngineError(stream.status, reason(said, stream.status))
        for number, reader in stream._readers.items():
            reader.set_transport(_Tap(stream, number))
        return stream

    @functools.cached_property
    def stdin(self) -> asyncio.StreamWriter:
        """A writer whose end is the end of the process's input, and not of the stream."""
        return asyncio.StreamWriter(_Inlet(self._transport), self, None, asyncio.get_running_loop())

    def discard(self) -> None:
        """Forget what still comes, so that the end comes too."""
        self._discarding = True
        for reader in self._readers.values():
            reader.feed_eof()
        self._resume()

    def abort(self) -> None:
        """Let go of it at once."""
        self._transport.abort()

    def pause(self, number: int) -> None:
        """Have the process wait: this stream of it is not read."""
        if not self._pausing:
            self._transport.pause_reading()
        self._pausing.add(number)

    def resume(self, number: int) -> None:
        """The stream is read again."""
        self._pausing.discard(number)
        if not self._pausing:
            self._resume()

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            self._take(data)
            return
        self._buffer += data
        first, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not end:
            return
        self.status, headers = parse_head(first)
        if self.status in (101, 200):
            self._buffer.clear()
            self.opened.set_result(b"")
            if rest:
                self._take(rest)
        elif len(rest) >= int(headers.get("content-length", 0)):
            self.opened.set_result(rest)

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end()

    def _get_close_waiter(self, stream: asyncio.StreamWriter) -> asyncio.Future[None]:
        # closing the writer ends a direction, which is done at once
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def _end(self) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError(104, "the Engine closed the connection"))
        if not self.ended.is_set():
            self.ended.set()
            if not self._discarding:
                for reader in (self.stdout, self.stderr):
                    reader.feed_eof()

    def _take(self, data: bytes) -> None:
        if self._discarding:
            return
        if self._raw:
            self.stdout.feed_data(data)
            return
        if self._buffer:
            data = bytes(self._buffer) + data
            self._buffer.clear()
        position, end = 0, len(data)
        while position < end:
            if not self._left:
                if end - position < 8:
                    self._buffer += data[position:]
                    return
                self._current, self._left = struct.unpack_from(">B3xI", data, position)
                position += 8
                continue
            part = data[position : position + self._left]
            self._readers.get(self._current, self.stdout).feed_data(part)
            self._left -= len(part)
            position += len(part)


class _Tap(asyncio.ReadTransport):
    """What a reader of one of the streams takes for its transport: it can only have it wait."""

    def __init__(self, stream: ExecStream, number: int) -> None:
        super().__init__()
        self._stream = stream
        self._number = number

    def pause_reading(self) -> None:
        self._stream.pause(self._number)

    def resume_reading(self) -> None:
        self._stream.resume(self._number)


class _Inlet(asyncio.WriteTransport):
    """What a writer of the input takes for its transport: closing it ends the input alone."""

    def __init__(self, transport: Any) -> None:
        super().__init__()
        self._transport = transport
        self._closed = False

    def write(self, data: Any) -> None:
        if not self._closed:
            self._transport.write(data)

    def write_eof(self) -> None:
        self.close()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._transport.is_closing():
                self._transport.write_eof()

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closed or bool(self._transport.is_closing())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return int(self._transport.get_write_buffer_size())
