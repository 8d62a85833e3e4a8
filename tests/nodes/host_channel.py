"""A channel to a "node" that is a directory of this host: real processes, real pipes and terminals, no isolation."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal as signals
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wardian.errors import CommandError, NodeDownError
from wardian.providers.base import Channel


class HostChannel(Channel):
    """Starts processes whose home is `home`. Set `down` to make the node one that cannot be reached."""

    def __init__(self, home: Path, node: str = "host", env: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.node = node
        self.env = dict(env or {})
        self.down = False
        self.started: list[HostProcess] = []

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
    ) -> HostProcess:
        if self.down:
            raise NodeDownError(self.node, "the node is not running")
        variables = {**os.environ, "HOME": str(self.home), **self.env, **(env or {})}
        master = slave = -1
        if terminal:
            master, slave = os.openpty()
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *terminal, 0, 0))

        def own_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        def stream(asked: int | None) -> int:
            return slave if terminal else subprocess.PIPE if asked is None else asked

        try:
            popen = subprocess.Popen(  # noqa: ASYNC220
                list(argv), env=variables, cwd=cwd or self.home, bufsize=0, start_new_session=True,
                stdin=stream(stdin), stdout=stream(stdout), stderr=stream(stderr), preexec_fn=own_terminal if terminal else None,
            )  # fmt: skip
        except OSError as error:
            raise CommandError(self.node, f"{argv[0]}: {error.strerror}") from error
        finally:
            if terminal:
                os.close(slave)
        process = HostProcess(popen, master)
        await process.connect()
        self.started.append(process)
        return process


class HostProcess:
    """A process of the host, as the Process contract has it."""

    def __init__(self, popen: subprocess.Popen[bytes], master: int) -> None:
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.popen = popen
        self._master = master
        self._transports: list[asyncio.BaseTransport] = []
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    async def connect(self) -> None:
        if self._master >= 0:
            self.stdout = await self._reader(os.fdopen(os.dup(self._master), "rb", buffering=0))
            self.stdin = await self._writer(os.fdopen(os.dup(self._master), "wb", buffering=0))
            return
        if self.popen.stdout:
            self.stdout = await self._reader(self.popen.stdout)
        if self.popen.stderr:
            self.stderr = await self._reader(self.popen.stderr)
        if self.popen.stdin:
            self.stdin = await self._writer(self.popen.stdin)

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def signal(self, number: int) -> None:
        if not self._ended.done():
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, number)

    async def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def close(self) -> None:
        for transport in self._transports:
            transport.close()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        for number in (signals.SIGHUP, signals.SIGKILL):
            await self.signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.wait()

    async def _reader(self, file: object) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit=1 << 20)
        transport, _ = await self._loop.connect_read_pipe(lambda: _TerminalProtocol(reader), file)
        self._transports.append(transport)
        return reader

    async def _writer(self, file: object) -> asyncio.StreamWriter:
        transport, protocol = await self._loop.connect_write_pipe(asyncio.streams.FlowControlMixin, file)
        self._transports.append(transport)
        return asyncio.StreamWriter(transport, protocol, None, self._loop)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self.popen.wait()
        self._ended.set_result(code if code >= 0 else 128 - code)


class _TerminalProtocol(asyncio.StreamReaderProtocol):
    """A terminal's end is an I/O error (EIO): for a reader it is the end of the stream."""

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(None)
