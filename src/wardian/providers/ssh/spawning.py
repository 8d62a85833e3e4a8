"""Commands started by a program of ours that waits on the host (`spawner.py`), from the second one on.

A session costs its host a process of `sshd` and a login shell; that program costs one session, and a command then no more than its own
process. It is started beside the second command that a process of ours runs on a node. That one goes the other way, and so does all that
reads input or wants a terminal, and everything where the host has no Python.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import CommandError, NodeDownError, WardianError
from ..base import Process
from . import spawner
from .command import CACHE
from .streams import STREAM_LIMIT

IDLE = 60.0
"""Seconds for which the program waits for a command; it takes one of the sessions that the host allows."""

GRACE = 2.0
"""Seconds that a process which is hung up on may take to end."""

PROGRAM = Path(spawner.__file__)

Start = Callable[[Sequence[str]], Awaitable[Process]]


class Lost(Exception):
    """The program is gone, or what it knows of the node is not true any more; nothing was started."""


class Refused(Exception):
    """The command cannot be started: "gone", "folder", "missing", "unfit", or the host's words."""


class Spawners:
    """Those of one provider: one a node, in the event loop that runs."""

    def __init__(self) -> None:
        self._spawners: dict[str, Spawner | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def of(self, place: str, node: str, start: Start) -> Spawner | None:
        """The one that is there for a node; None where it is not there (yet). start: starts a command on the node by a session."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # what belonged to another loop has ended with it
            self._loop, self._spawners = loop, {}
        if place not in self._spawners:
            self._spawners[place] = None
            return None
        found = self._spawners[place]
        if found is None or found.over:
            if found is None or found.useful:
                self._spawners[place] = Spawner(place, node, start)
            return None
        return found if found.ready else None


class Spawner:
    """The program on one node. ready: whether it takes commands; over: whether it has ended; useful: whether another might do better."""

    def __init__(self, place: str, node: str, start: Start) -> None:
        self.ready = False
        self.over = False
        self.useful = True
        self._node = node
        self._commands: dict[int, Spawned] = {}
        self._number = 0
        self._process: Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._serving = asyncio.create_task(self._serve(place, start))

    async def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, stdout: int | None, stderr: int | None) -> Spawned:
        """Start a command. Raises Lost, Refused, NodeDownError."""
        words = {None: "pipe", asyncio.subprocess.DEVNULL: "null", asyncio.subprocess.STDOUT: "stdout"}
        self._number += 1
        command = Spawned(self, self._node, self._number, stdout is None, stderr is None)
        asked = {"argv": list(argv), "env": dict(env), "cwd": cwd, "stdout": words[stdout], "stderr": words[stderr]}
        self.ask(command, asked)
        self._commands[command.number] = command
        self._rest(False)
        try:
            await command.begun
        except BaseException:
            self.forget(command)
            raise
        return command

    def ask(self, command: Spawned, request: Mapping[str, Any]) -> None:
        """Tell the program something of a command. Raises Lost."""
        if self.over or self._process is None or self._process.stdin is None or self._process.stdin.is_closing():
            raise Lost
        self._process.stdin.write(json.dumps({"id": command.number, **request}).encode() + b"\n")

    def forget(self, command: Spawned) -> None:
        """Nobody wants more of a command."""
        if self._commands.pop(command.number, None) is not None:
            with suppress(Lost):
                self.ask(command, {})
        self._rest(not self._commands)

    def stop(self) -> None:
        """Have it end; commands that it started go on, and nothing more is heard of them."""
        self.over = True
        self._serving.cancel()

    def _rest(self, idle: bool) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE, self.stop) if idle else None

    async def _serve(self, place: str, start: Start) -> None:
        script = f'exec "${{WARDIAN_PYTHON:-python3}}" -I -S -c "$1" "$HOME/{CACHE}/$2/env"'
        try:
            self._process = process = await start(["/bin/sh", "-c", script, "sh", PROGRAM.read_text(), place])
            assert process.stdout is not None  # noqa: S101 (it is a pipe, as asked for)
            while True:
                number, kind, length = spawner.HEADER.unpack(await process.stdout.readexactly(spawner.HEADER.size))
                self._take(number, kind, await process.stdout.readexactly(length) if length else b"")
        except asyncio.IncompleteReadError:
            # it ended: without a first word there is no Python that can run it
            self.useful = self.ready
        except CommandError:
            self.useful = False
        except WardianError:
            # the node is not to be had now
            pass
        finally:
            self.over = True
            self._rest(False)
            for command in self._commands.values():
                command.lose()
            if self._process is not None:
                if self._process.stdin is not None:
                    self._process.stdin.close()
                    with suppress(TimeoutError, NodeDownError):
                        async with asyncio.timeout(GRACE):
                            await self._process.wait()
                await self._process.close()

    def _take(self, number: int, kind: int, data: bytes) -> None:
        if number == 0:
            self.ready = True
            self._rest(True)
        elif (command := self._commands.get(number)) is not None:
            command.take(kind, data)
            if kind == spawner.REFUSED and data in (b"stale", b"gone"):
                # the next one will know better
                self.stop()


class Spawned:
    """A command that such a program started, as `base.Process` promises."""

    def __init__(self, owner: Spawner, node: str, number: int, stdout: bool, stderr: bool) -> None:
        self.number = number
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout = asyncio.StreamReader(STREAM_LIMIT) if stdout else None
        self.stderr = asyncio.StreamReader(STREAM_LIMIT) if stderr else None
        self._owner = owner
        self._node = node
        self._ended = asyncio.Event()
        self._code: int | None = None
        self._held: set[int] = set()
        for kind, stream in self._streams().items():
            stream.set_transport(_Flow(self, kind))

    async def wait(self) -> int:
        await self._ended.wait()
        if self._code is None:
            remedy = "It may run on there; `wardian status` tells whether the node can be reached."
            raise NodeDownError(self._node, "the connection to it ended while a command ran", remedy=remedy)
        return self._code

    async def signal(self, number: int) -> None:
        if not self._ended.is_set():
            with suppress(Lost):
                self._owner.ask(self, {"signal": int(number)})

    async def resize(self, rows: int, columns: int) -> None:
        """It has no terminal."""

    async def close(self) -> None:
        try:
            for number in (signal.SIGHUP, signal.SIGKILL):
                if self._ended.is_set():
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(GRACE):
                        await self.signal(number)
                        await self._ended.wait()
        finally:
            self._owner.forget(self)
            for stream in self._streams().values():
                stream.feed_eof()

    def take(self, kind: int, data: bytes) -> None:
        """What the program says of it."""
        if kind == spawner.STARTED:
            _resolve(self.begun)
        elif kind == spawner.REFUSED:
            _resolve(self.begun, Lost() if data == b"stale" else Refused(data.decode(errors="replace")))
        elif kind == spawner.ENDED:
            self._code = int(data)
            self._ended.set()
        elif (stream := self._streams().get(kind)) is not None:
            if data:
                stream.feed_data(data)
            else:
                stream.feed_eof()

    def lose(self) -> None:
        """The program is gone."""
        _resolve(self.begun, NodeDownError(self._node, "the connection to it ended while a command was started"))
        self._ended.set()
        for stream in self._streams().values():
            stream.feed_eof()

    def hold(self, kind: int, held: bool) -> None:
        """Have nothing, or something again, be read from a stream of it."""
        (self._held.add if held else self._held.discard)(kind)
        with suppress(Lost):
            self._owner.ask(self, {"held": sorted(self._held)})

    def _streams(self) -> dict[int, asyncio.StreamReader]:
        both = {spawner.STDOUT: self.stdout, spawner.STDERR: self.stderr}
        return {kind: stream for kind, stream in both.items() if stream is not None}


class _Flow(asyncio.ReadTransport):
    """What a full StreamReader holds up."""

    def __init__(self, command: Spawned, kind: int) -> None:
        super().__init__()
        self._command = command
        self._kind = kind

    def pause_reading(self) -> None:
        self._command.hold(self._kind, True)

    def resume_reading(self) -> None:
        self._command.hold(self._kind, False)


def _resolve(begun: asyncio.Future[None], error: Exception | None = None) -> None:
    if begun.done():
        return
    if error is None:
        begun.set_result(None)
    else:
        begun.set_exception(error)


def explain(node: str, program: str, cwd: str | None, word: str) -> CommandError:
    """The error for a command that cannot be started, by the word for why."""
    wrong = {
        "folder": f"cannot be executed in folder {cwd}: there is no such folder, or it may not be entered",
        "missing": "cannot be executed: there is no such program",
        "unfit": "cannot be executed: it is no program that this user may run",
    }
    return CommandError(node, f"{program} {wrong.get(word, f'cannot be executed: {word}')}")
