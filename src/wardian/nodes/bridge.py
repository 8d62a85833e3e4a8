"""Between a blocking worker thread and the streams of the event loop, with the loop's flow control."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

HIGH_WATER = 4 << 20
"""How many bytes may wait between the two sides."""


PIPE_SIZE = 1 << 20


class Stopped(Exception):
    """The other side of the stream has ended."""


class _Bridge:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._asked: Future[Any] | None = None

    async def _work(self, work: Callable[[], T]) -> T:
        """Run the thread; when this is cancelled, make it end at its next step, and wait until it has."""
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._wake()
            if self._asked:
                self._asked.cancel()
            await asyncio.wait([task])
            task.exception()
            raise

    def _wake(self) -> None:
        raise NotImplementedError

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """From the thread: call a function in the loop, without waiting."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """From the thread: wait for something of the loop."""
        if self._stopped:
            coroutine.close()
            raise Stopped
        self._asked = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            result: T = self._asked.result()
        except CancelledError:
            raise Stopped from None
        return result


class Outlet(_Bridge):
    """A thread writes, the loop sends."""

    def __init__(self, stream: asyncio.StreamWriter) -> None:
        super().__init__()
        self._stream = stream
        _widen(stream.transport)
        self._buffer = bytearray()
        self._under_way = 0
        self._changed = threading.Condition()
        self._filled = asyncio.Event()
        self._complete = False

    async def serve(self, work: Callable[[], None]) -> None:
        """Send what `work`, run in a thread, writes; then close the stream. Raises Stopped when the reader is gone, else as `work`."""
        sender = asyncio.create_task(self._send())
        try:
            await self._work(work)
            self._complete = True
            self._filled.set()
            await sender
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def write(self, data: bytes) -> None:
        """From the thread: wait for room, and hand over. Raises Stopped when nobody reads any more."""
        with self._changed:
            while self._under_way > HIGH_WATER and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise Stopped
            first = not self._buffer
            self._buffer += data
            self._under_way += len(data)
        if first:
            self._loop.call_soon_threadsafe(self._filled.set)

    async def _send(self) -> None:
        try:
            while True:
                await self._filled.wait()
                self._filled.clear()
                with self._changed:
                    data, self._buffer = self._buffer, bytearray()
                if data:
                    self._stream.write(bytes(data))
                    await self._stream.drain()
                    with self._changed:
                        self._under_way -= len(data)
                        self._changed.notify_all()
                elif self._complete:
                    break
                if self._complete:
                    self._filled.set()
            self._stream.close()
        except (BrokenPipeError, ConnectionResetError):
            self._wake()
            raise Stopped from None

    def _wake(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class Inlet(_Bridge):
    """The loop receives, a thread reads: a binary file object of one direction, for `tarfile`."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        super().__init__()
        self._stream = stream
        _widen(getattr(stream, "_transport", None))
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._ended = False
        self._rest = memoryview(b"")
        self._changed = threading.Condition()
        self._room = asyncio.Event()
        self._room.set()

    async def serve(self, work: Callable[[], T]) -> T:
        """Receive for `work`, run in a thread; gives its result, and raises what it raises."""
        receiver = asyncio.create_task(self._receive())
        try:
            return await self._work(work)
        finally:
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)

    def read(self, size: int) -> bytes:
        """From the thread: exactly `size` bytes, fewer only at the end."""
        if len(self._rest) >= size:
            data, self._rest = bytes(self._rest[:size]), self._rest[size:]
            return data
        parts: list[bytes | memoryview] = [self._rest]
        have = len(self._rest)
        while have < size and (chunk := self._next()):
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        self._rest = memoryview(data)[size:]
        return data[:size] if self._rest else data

    def skip(self) -> None:
        """From the thread: read to the end, and forget."""
        self._rest = memoryview(b"")
        while self._next():
            pass

    def _next(self) -> bytes:
        with self._changed:
            while not self._chunks and not self._ended and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise Stopped
            data = b"".join(self._chunks)
            self._chunks.clear()
            full = self._waiting > HIGH_WATER
            self._waiting = 0
        if full:
            self._loop.call_soon_threadsafe(self._room.set)
        return data

    async def _receive(self) -> None:
        ended = False
        while not ended:
            await self._room.wait()
            chunk = await self._stream.read(1 << 18)
            ended = not chunk
            with self._changed:
                self._chunks.append(chunk)
                self._waiting += len(chunk)
                self._ended = ended
                if self._waiting > HIGH_WATER:
                    self._room.clear()
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def _widen(transport: asyncio.BaseTransport | None) -> None:
    """Where the stream is a pipe, let it hold more: that is worth a factor of three."""
    pipe = transport.get_extra_info("pipe") if transport else None
    if pipe is not None:
        # not a pipe but a terminal or a socket, or the user's share of pipe memory is used up
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
