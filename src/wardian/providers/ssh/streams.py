"""The descriptors of a session's standard streams: those that `ssh` gets, and ours at their other ends."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
from contextlib import suppress

STREAM_LIMIT = 1 << 20
"""How much of a stream waits here unread before its process has to wait, in bytes."""

_PIPE_SIZE = 1 << 20
_SET_PIPE_SIZE = 1031


class Ends:
    """Descriptors in pairs. What is not taken is closed by `close`."""

    def __init__(self) -> None:
        self.theirs: list[int] = []
        self._ours: list[int | None] = []
        self.terminal: int | None = None

    def pipe(self, number: int) -> None:
        """A pipe for stream 0 (they read), 1 or 2 (they write)."""
        ends = os.pipe()
        theirs, ours = ends if number == 0 else ends[::-1]
        self.theirs.append(theirs)
        self._ours.append(ours)
        # a larger pipe than the kernel gives by default; past its limit for the user the default stays
        with suppress(OSError):
            fcntl.fcntl(ours, _SET_PIPE_SIZE, _PIPE_SIZE)

    def null(self) -> None:
        """Nothing."""
        self.theirs.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        self._ours.append(None)

    def keyboard(self, rows: int, columns: int) -> None:
        """A pseudo-terminal for stream 0, of which the far side takes modes and size."""
        ours, theirs = os.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.theirs.append(theirs)
        self._ours.append(os.dup(ours))
        self.terminal = ours

    def take(self) -> list[int | None]:
        """Our ends, which are the caller's to close from here on."""
        ours, self._ours = self._ours, []
        return ours

    def close_theirs(self) -> None:
        """Close our copies of what was passed on."""
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = []

    def close(self) -> None:
        """Close everything that was not taken."""
        self.close_theirs()
        for descriptor in self.take():
            if descriptor is not None:
                os.close(descriptor)
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None


async def reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    """A pipe as a stream to read."""
    stream = asyncio.StreamReader(STREAM_LIMIT)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb", 0))
    return stream, transport


async def writer(descriptor: int) -> asyncio.StreamWriter:
    """A pipe or terminal as a stream to write."""
    os.set_blocking(descriptor, False)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(lambda: _Writing(asyncio.StreamReader()), os.fdopen(descriptor, "wb", 0))
    return asyncio.StreamWriter(transport, protocol, None, loop)


class _Writing(asyncio.StreamReaderProtocol):
    """Takes the error that ends a terminal (EIO) for what it is: the end of the stream."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None if isinstance(exc, OSError) and exc.errno == errno.EIO else exc)
