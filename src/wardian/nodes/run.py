"""Commands on nodes: output as it comes, exit code, timeout, and one record of it all."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import CommandError, NodeDownError

if TYPE_CHECKING:
    from ..providers.base import Channel, Process

OnOutput = Callable[[str, str, bytes], None]
"""Called with a node, "stdout" or "stderr", and what came."""

KEEP = 16 * 1024 * 1024
GRACE_SECONDS = 2.0
"""How long a command that was told to end may take over it."""

LINGER_SECONDS = 0.5
"""How long the output of an ended command may stay silent before what it left running in the background no longer holds us up."""

NOT_STARTED, TIMED_OUT, DOWN = 127, 124, 255
"""Exit codes in the records of `run_on` for what is an error in `run`; as those of a shell, timeout(1) and ssh(1)."""


@dataclass(frozen=True, slots=True)
class Result:
    """A command that ran. started: seconds since the epoch; stdout and stderr: bytes that are no UTF-8 stand as `\\xNN`."""

    node: str
    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    started: float
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.exit_code == 0

    def __str__(self) -> str:
        return f"{self.node}: {' '.join(self.argv)}: exit code {self.exit_code} after {self.seconds:.2f} s"


async def run(
    channel: Channel,
    node: str,
    argv: Sequence[str],
    *,
    input: bytes | AsyncIterable[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    on_output: OnOutput | None = None,
    keep: int = KEEP,
    check: bool = False,
) -> Result:
    """Run a command on a node until it ends. Cancelled, it interrupts the command (SIGINT, then a hang-up) before it returns.

    input: what it reads; nothing at all when None. timeout: seconds until SIGTERM, and two later SIGKILL.
    on_output: called with (node, stream, bytes) as output comes. keep: how many bytes of each stream the result holds, its
    beginning and its end; a mark says exactly how much is missing between them.

    Raises NodeDownError when the node cannot be reached; CommandError when the command cannot be started, has not ended in time,
    or with `check` exited other than 0. The error's `result` holds what there is of one.
    """
    record = _Record(node, tuple(argv), keep)
    process = await channel.start(argv, env=env, cwd=cwd, stdin=asyncio.subprocess.DEVNULL if input is None else None)
    try:
        result = await _attend(process, record, input, timeout, on_output)
    finally:
        await process.close()
    if check and not result.ok:
        raise _failed(result)
    return result


async def run_on(
    channels: Mapping[str, Channel],
    argv: Sequence[str],
    *,
    concurrency: int = 64,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    on_output: OnOutput | None = None,
    keep: int = KEEP,
    check: bool = False,
) -> list[Result]:
    """Run one command on several nodes at once, at most `concurrency` of them; results in the order of `channels`.

    What `run` raises for one node becomes its result, with the message in `stderr` and an exit code that says which: 255 the node is
    down, 127 the command cannot be started, 124 it has not ended in time. With `check`, raises CommandError naming all that failed.
    """
    gate = asyncio.Semaphore(concurrency)

    async def one(node: str, channel: Channel) -> Result:
        async with gate:
            started = time.time()
            try:
                return await run(channel, node, argv, input=input, env=env, cwd=cwd, timeout=timeout, on_output=on_output, keep=keep)
            except NodeDownError as error:
                return Result(node, tuple(argv), DOWN, "", str(error), started, time.time() - started)
            except CommandError as error:
                partial = error.result
                if not isinstance(partial, Result):
                    return Result(node, tuple(argv), NOT_STARTED, "", str(error), started, time.time() - started)
                return Result(node, tuple(argv), TIMED_OUT, partial.stdout, f"{partial.stderr}{error}", started, partial.seconds)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(node, channel)) for node, channel in channels.items()]
    results = [task.result() for task in tasks]
    failed = [result for result in results if not result.ok]
    if check and failed:
        raise failed_on(failed)
    return results


def failed_on(failed: Sequence[Result]) -> CommandError:
    """The error that names each node on which a command failed."""
    if len(failed) == 1:
        return _failed(failed[0])
    names = ", ".join(f"{result.node} ({result.exit_code})" for result in failed)
    error = CommandError("", f"{' '.join(failed[0].argv)}: failed on {len(failed)} nodes: {names}")
    error.result = failed[0]
    return error


class _Record:
    """A result in the making."""

    def __init__(self, node: str, argv: tuple[str, ...], keep: int) -> None:
        self.node, self.argv = node, argv
        self.streams = {"stdout": Kept(keep), "stderr": Kept(keep)}
        self._started = time.time()
        self._clock = time.monotonic()

    def result(self, exit_code: int) -> Result:
        stdout, stderr = (kept.text() for kept in self.streams.values())
        return Result(self.node, self.argv, exit_code, stdout, stderr, self._started, time.monotonic() - self._clock)


class Kept:
    """The first and the last bytes of a stream, at most `limit` in all."""

    def __init__(self, limit: int) -> None:
        self._head_limit = (limit + 1) // 2
        self._tail_limit = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = 0

    def add(self, data: bytes) -> None:
        """Take what comes next."""
        room = self._head_limit - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        # trimmed now and then, not each time: the cost of a byte stays constant
        if len(self._tail) > 2 * self._tail_limit + 65536:
            self._trim()

    def text(self) -> str:
        """What was kept, with a mark where something was cut."""
        self._trim()
        mark = f"\n[… {self._cut} bytes cut …]\n".encode() if self._cut else b""
        return (bytes(self._head) + mark + bytes(self._tail)).decode(errors="backslashreplace")

    def _trim(self) -> None:
        surplus = len(self._tail) - self._tail_limit
        if surplus > 0:
            del self._tail[:surplus]
            self._cut += surplus


async def _attend(
    process: Process, record: _Record, input: bytes | AsyncIterable[bytes] | None, timeout: float | None, on_output: OnOutput | None
) -> Result:
    beat = _Beat()
    pumps = [
        asyncio.create_task(_pump(stream, name, record, beat, on_output))
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
        if stream is not None
    ]
    feeder = asyncio.create_task(_feed(process.stdin, input)) if input is not None and process.stdin is not None else None
    try:
        try:
            async with asyncio.timeout(timeout) as limit:
                waiter = asyncio.create_task(process.wait())
                try:
                    await _either(waiter, feeder, pumps)
                    exit_code = await waiter
                finally:
                    waiter.cancel()
                await _drain(pumps, beat)
        except TimeoutError:
            if not limit.expired():
                raise
            exit_code = await _end(process, signal.SIGTERM)
            await _drain(pumps, beat)
            raise _timed_out(record.result(exit_code), timeout) from None
        except asyncio.CancelledError:
            await _end(process, signal.SIGINT)
            await _drain(pumps, beat)
            raise
        return record.result(exit_code)
    finally:
        for task in (*pumps, feeder):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in (*pumps, feeder) if task), return_exceptions=True)


async def _either(waiter: asyncio.Task[int], feeder: asyncio.Task[None] | None, pumps: list[asyncio.Task[None]]) -> None:
    """Until the process has ended; what goes wrong in feeding it or in the caller's `on_output` ends the waiting at once."""
    watched: set[asyncio.Task[int] | asyncio.Task[None]] = {waiter, *pumps, *([feeder] if feeder else [])}
    while not waiter.done():
        done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiter}:
            task.result()


class _Beat:
    """When output last came."""

    def __init__(self) -> None:
        self.time = time.monotonic()


async def _pump(stream: asyncio.StreamReader, name: str, record: _Record, beat: _Beat, on_output: OnOutput | None) -> None:
    while data := await stream.read(65536):
        beat.time = time.monotonic()
        record.streams[name].add(data)
        if on_output:
            on_output(record.node, name, data)


async def _feed(stream: asyncio.StreamWriter, input: bytes | AsyncIterable[bytes]) -> None:
    # a command may end, or close its input, without having read it all
    with suppress(BrokenPipeError, ConnectionResetError):
        if isinstance(input, bytes):
            stream.write(input)
        else:
            async for chunk in input:
                stream.write(chunk)
                await stream.drain()
        await stream.drain()
        stream.close()


async def _drain(pumps: list[asyncio.Task[None]], beat: _Beat) -> None:
    pending = set(pumps)
    beat.time = time.monotonic()
    while pending and (left := beat.time + LINGER_SECONDS - time.monotonic()) > 0:
        done, pending = await asyncio.wait(pending, timeout=left)
        for task in done:
            task.result()


async def _end(process: Process, number: signal.Signals) -> int:
    await process.signal(number)
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            return await process.wait()
    except TimeoutError:
        await process.signal(signal.SIGKILL)
        return await process.wait()


def _failed(result: Result) -> CommandError:
    last = result.stderr.strip().rpartition("\n")[2]
    error = CommandError(result.node, f"{' '.join(result.argv)}: exit code {result.exit_code}" + (f": {last}" if last else ""))
    error.result = result
    return error


def _timed_out(result: Result, timeout: float | None) -> CommandError:
    error = CommandError(
        result.node, f"{' '.join(result.argv)}: not ended after {timeout:g} s", remedy="give it more time, or run it as a service"
    )
    error.result = result
    return error
