"""The way to a node on a host: each process is a session over the host's one connection."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import struct
import termios
import tty
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ...errors import CommandError, NodeDownError, ProviderError
from ..base import Channel, Process
from . import command, masters, mux, streams
from .inventory import Host
from .refusals import HostError
from .remote import run
from .spawning import GRACE, Lost, Refused, Spawners, explain

_NOISE = 2000


class SshChannel(Channel):
    """Starts processes on one node.

    place: its folder below `command.CACHE`. find: gives its host, or None where there is no such node. spawners: those of all channels of
    the provider.
    """

    def __init__(self, node: str, place: str, find: Callable[[], Host | None], spawners: Spawners | None = None) -> None:
        self._node = node
        self._place = place
        self._find = find
        self._spawners = spawners or Spawners()

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
    ) -> Process:
        host = self._find()
        if host is None:
            raise self._missing()
        if stdin is not None and terminal is None:
            spawner = self._spawners.of(self._place, self._node, self.start)
            if spawner is not None:
                try:
                    return await spawner.start(argv, env or {}, cwd, stdout, stderr)
                except Lost:
                    pass
                except Refused as error:
                    raise self._wrong(str(error), argv[0], cwd) from None
        token = secrets.token_hex(8)
        script = command.start(
            self._place, argv, token, env=env or {}, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, terminal=terminal is not None
        )
        whole = command.for_login_shell(script, host.shell)
        if len(whole) > mux.LONGEST_COMMAND or "\0" in script:
            remedy = "Pass what is long in a file, or by its standard input."
            raise CommandError(self._node, f"{argv[0]} cannot be executed: its arguments and variables are too long for SSH", remedy=remedy)
        ends = streams.Ends()
        try:
            if terminal:
                ends.keyboard(*terminal)
            elif stdin is None:
                ends.pipe(0)
            else:
                ends.null()
            # its standard output says first how the start went, also where nobody wants the rest
            ends.pipe(1)
            if terminal or stderr is not None:
                ends.null()
            else:
                ends.pipe(2)
            kind = (env or {}).get("TERM", "xterm-256color") if terminal else None
            session, path = await masters.open_session(host, whole, ends.theirs, terminal=kind)
        except HostError as error:
            ends.close()
            raise NodeDownError(self._node, f"its host {host} cannot be used: {error.bare}", remedy=error.remedy) from None
        except ProviderError as error:
            ends.close()
            raise NodeDownError(self._node, error.message, remedy=error.remedy) from None
        except BaseException:
            ends.close()
            raise
        process = SshProcess(self._node, self._place, host, session, path)
        try:
            await process.attach(ends)
            await self._begun(process, token, argv[0], cwd)
        except BaseException:
            await process.let_go()
            raise
        if stdout is not None:
            process.forget_output()
        return process

    async def _begun(self, process: SshProcess, token: str, program: str, cwd: str | None) -> None:
        """Read how the start went. Raises NodeDownError or CommandError."""
        noise = b""
        assert process.stdout is not None  # noqa: S101 (it is a pipe, as asked for)
        while line := await process.stdout.readline():
            if line.startswith(token.encode()):
                break
            noise = (noise + line)[-_NOISE:]
        else:
            if process.terminal_refused:
                raise CommandError(self._node, "its host gives no terminal", remedy="Its sshd may have `PermitTTY no`.")
            await process.wait()
            said = noise.decode(errors="replace").strip()
            raise CommandError(self._node, "the login shell of its host runs no commands" + (f": {said}" if said else ""))
        word = line.split()[1].decode()
        if word.isdigit():
            process.group = int(word)
        else:
            raise self._wrong(word, program, cwd)

    def _wrong(self, word: str, program: str, cwd: str | None) -> NodeDownError | CommandError:
        return self._missing() if word == "gone" else explain(self._node, program, cwd, word)

    def _missing(self) -> NodeDownError:
        return NodeDownError(self._node, "there is no such node", remedy="`wardian up` makes it.")


class SshProcess:
    """A process on a node, as `base.Process` promises."""

    def __init__(self, node: str, place: str, host: Host, session: mux.Session, path: str) -> None:
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.group = 0
        self._node = node
        self._place = place
        self._host = host
        self._session = session
        self._path = path
        self._terminal: int | None = None
        self._sent = 0
        self._code: int | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._output: asyncio.BaseTransport | None = None

    @property
    def terminal_refused(self) -> bool:
        """Whether it was to have a terminal, and has none."""
        return self._session.terminal_refused

    async def attach(self, ends: streams.Ends) -> None:
        """Take our ends of its streams."""
        ends.close_theirs()
        self._terminal, ends.terminal = ends.terminal, None
        if self._terminal is not None:
            # its modes went to the host with the request; from here on every key goes there as it is
            tty.setraw(self._terminal)
        ours = ends.take()
        stdin, stdout, stderr = ours
        if stdin is not None:
            self.stdin = await streams.writer(stdin)
            self._transports.append(self.stdin.transport)
        if stdout is not None:
            self.stdout, self._output = await streams.reader(stdout)
            self._transports.append(self._output)
        if stderr is not None:
            self.stderr, transport = await streams.reader(stderr)
            self._transports.append(transport)

    def forget_output(self) -> None:
        """Nobody wants its standard output."""
        if self._output is not None:
            self._output.close()
        self.stdout = None

    async def wait(self) -> int:
        await self._session.ended.wait()
        if self._code is None:
            self._code = self._session.code
        if self._code is None:
            # the shell that would have told the exit code was killed with the rest, or the connection is gone
            if not await masters.is_connected(self._path):
                remedy = "It may run on there; `wardian status` tells whether the node can be reached."
                raise NodeDownError(self._node, f"the connection to its host {self._host} ended while a command ran", remedy=remedy)
            if not self._sent and not await self._is_there():
                raise NodeDownError(self._node, "the node was killed while a command ran on it", remedy="`wardian up` makes it anew.")
            self._code = 128 + (self._sent or signal.SIGHUP)
        return self._code

    async def signal(self, number: int) -> None:
        if self._session.ended.is_set() or not self.group:
            return
        self._sent = int(number)
        with suppress(mux.Gone, HostError):
            await self._signal(command.for_login_shell(command.signal(self.group, int(number)), self._host.shell))

    async def _is_there(self) -> bool:
        """Whether the node is not gone."""
        with suppress(HostError):
            return (await run(self._host, f'[ -r "$HOME/{command.CACHE}/$1/env" ]', self._place)).code == 0
        return False

    async def _signal(self, text: str) -> None:
        ends = streams.Ends()
        session = None
        try:
            for _ in range(3):
                ends.null()
            try:
                session = await mux.open_session(self._path, text, ends.theirs)
            except mux.Refused:
                session, _ = await masters.open_session(self._host, text, ends.theirs)
            await session.ended.wait()
        finally:
            ends.close()
            if session is not None:
                session.close()

    async def resize(self, rows: int, columns: int) -> None:
        if self._terminal is None:
            return
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with suppress(mux.Gone, ProcessLookupError):
            # as `ssh` does when the terminal of one that shares a connection changes
            os.kill(await mux.process_of(self._path), signal.SIGWINCH)

    async def close(self) -> None:
        for transport in self._transports:
            transport.close()
        try:
            for number in (signal.SIGHUP, signal.SIGKILL):
                if self._session.ended.is_set():
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(GRACE):
                        await self.signal(number)
                        await self._session.ended.wait()
            if self._session.ended.is_set() and self._code is None:
                with suppress(NodeDownError):
                    await self.wait()
        finally:
            await self.let_go()

    async def let_go(self) -> None:
        """Close what is ours of it."""
        for transport in self._transports:
            transport.close()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None
        self._session.close()
