"""An interactive program on a node, with our terminal as its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..providers.base import Channel, Process

SHELL = ("sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash -i; exec sh -i")
PLAIN_SHELL = ("sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh")

LINGER_SECONDS = 0.5
"""How long the streams of an ended program may stay open before what it left in the background no longer holds us up."""


async def interact(channel: Channel, node: str, argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run a program on a node, joined to our standard streams, and give its exit code.

    argv: bash where the node has it, else sh, when None. env: added to the node's own variables.

    Where our standard input is a terminal the program gets one too: every key goes there as it is (Ctrl-C and Ctrl-Z as well), a
    change of size is passed on, and our terminal is put back as it was however this ends, also on SIGTERM and SIGHUP. Otherwise
    its streams are plain.

    Raises NodeDownError when the node cannot be reached or goes away, CommandError when the program cannot be started.
    """
    if not os.isatty(0):
        process = await channel.start(argv or PLAIN_SHELL, env=env)
        return await _join(process)
    given = {name: os.environ[name] for name in ("TERM", "COLORTERM") if name in os.environ}
    rows, columns = window_size(0)
    process = await channel.start(argv or SHELL, env={**given, **(env or {})}, terminal=(rows, columns))
    with _raw(0), _resizing(process):
        return await _join(process)


def window_size(descriptor: int) -> tuple[int, int]:
    """(rows, columns) of a terminal; 24 by 80 where it does not know."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
    return rows or 24, columns or 80


async def _join(process: Process) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    outputs = [
        asyncio.create_task(_show(stream, descriptor))
        for stream, descriptor in ((process.stdout, 1), (process.stderr, 2))
        if stream is not None
    ]
    feeder = asyncio.create_task(_feed(process.stdin))
    try:
        with _ended_by(signal.SIGTERM, signal.SIGHUP) as number:
            try:
                exit_code = await process.wait()
                # closing our side tells readers in the background of a program that has ended that nothing comes any more
                await asyncio.wait(outputs, timeout=LINGER_SECONDS)
            except asyncio.CancelledError:
                if not number:
                    raise
                exit_code = 128 + number[0]
        return exit_code
    finally:
        for task in (*outputs, feeder):
            task.cancel()
        await asyncio.gather(*outputs, feeder, return_exceptions=True)
        await process.close()


async def _show(stream: asyncio.StreamReader, descriptor: int) -> None:
    while data := await stream.read(65536):
        # in a thread: a terminal that is held up (a slow link, a paused multiplexer) must not stop our keys from going out
        await asyncio.to_thread(_write_all, descriptor, data)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def _feed(stream: asyncio.StreamWriter | None) -> None:
    if stream is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        async with _Input(0) as source:
            while data := await source.read():
                stream.write(data)
                await stream.drain()
        stream.close()


class _Input:
    """Reads a descriptor as it becomes readable, without changing its flags, which other processes share."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ready = asyncio.Event()
        self._watched = False

    async def __aenter__(self) -> _Input:
        try:
            asyncio.get_running_loop().add_reader(self._descriptor, self._readable)
            self._watched = True
        except PermissionError:
            # an ordinary file: reading it never waits for anyone
            self._ready.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watched:
            asyncio.get_running_loop().remove_reader(self._descriptor)

    async def read(self) -> bytes:
        await self._ready.wait()
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            # the terminal is gone
            return b""
        if self._watched and data:
            self._ready.clear()
            asyncio.get_running_loop().add_reader(self._descriptor, self._readable)
        return data

    def _readable(self) -> None:
        # once: the descriptor stays readable until we have read it, and the loop would spin
        asyncio.get_running_loop().remove_reader(self._descriptor)
        self._ready.set()


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        # the terminal itself may be gone (its window was closed)
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _resizing(process: Process) -> Iterator[None]:
    tasks: set[asyncio.Task[None]] = set()

    def resize() -> None:
        rows, columns = window_size(0)
        task = asyncio.ensure_future(_resize(process, rows, columns))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with _handling({signal.SIGWINCH: resize}):
        # it may have changed while the program was being started
        resize()
        yield


async def _resize(process: Process, rows: int, columns: int) -> None:
    await process.resize(rows, columns)


@contextmanager
def _ended_by(*numbers: signal.Signals) -> Iterator[list[int]]:
    """Turn these signals into a cancellation of this task; the list then holds the one that came."""
    task = asyncio.current_task()
    came: list[int] = []

    def end(number: int) -> Callable[[], None]:
        def handle() -> None:
            came.append(number)
            if task:
                task.cancel()

        return handle

    with _handling({number: end(number) for number in numbers}):
        yield came


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}
    for number, handler in handlers.items():
        # signals reach only the main thread: run elsewhere, we do without
        with suppress(ValueError, RuntimeError):
            previous = signal.getsignal(number)
            loop.add_signal_handler(number, handler)
            before[number] = previous
    try:
        yield
    finally:
        for number, previous in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, previous)
