"""The home kernel: a stock ipykernel that the router starts, on Unix sockets in a private folder."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import select
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...errors import WardianError
from ...nodes.agent.zeromq import ZmqSocket
from ...providers.preloaded import Forked, Preloaded
from ..cells.binding import HERE
from ..wire import CONTROL, IOPUB, SHELL, STDIN, MalformedMessage, Message, Signer
from .place import Listener, Place

log = logging.getLogger("wardian.kernel")

_GRACE = 3.0
"""How long a home kernel may take to leave before it is killed, seconds."""
_ASKED_AGAIN = 0.01
"""Seconds until a home kernel that answers, but whose output is not heard yet, is asked again."""

_PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}


class HomePlace(Place):
    """The home kernel as a place."""

    def __init__(self, listener: Listener, session: str, folder: Path, preloaded: Preloaded | None = None) -> None:
        """folder: private to us; its path has to be short, since Unix sockets are made in it. preloaded: what it is forked from."""
        super().__init__(HERE, "python", listener)
        self._session = session
        self._folder = folder
        self._key = secrets.token_hex(16)
        self._signer = Signer(self._key.encode())
        self._sockets: dict[int, ZmqSocket] = {}
        self._preloaded = preloaded
        self._process: _HomeProcess | None = None
        self._missing = {"answer", "output"}
        self._early: list[tuple[int, Message]] = []
        self._asked: set[str] = set()
        self.info: dict[str, Any] | None = None
        self.on_open: Callable[[], None] = lambda: None

    async def start(self, env: Mapping[str, str], ended: Callable[[int], None]) -> None:
        """Start the kernel; it is ready once `opened` has been called. `ended(exit code)` is called when its process is gone."""
        path = self._folder / "home.json"
        base = str(self._folder / "home")
        connection = {"transport": "ipc", "ip": base, "key": self._key, "signature_scheme": "hmac-sha256", **_PORTS}
        path.touch(mode=0o600)
        path.write_text(json.dumps(connection))
        self._process = await self._begin(["-f", str(path)], {**os.environ, **env})
        self._watcher = asyncio.create_task(self._watch(self._process, ended))
        # Straight from our loop to its sockets: libzmq's own thread between them would cost a cell half a millisecond.
        loop = _Watcher(asyncio.get_running_loop())
        for channel, port, kind in ((SHELL, 1, b"DEALER"), (CONTROL, 4, b"DEALER"), (STDIN, 3, b"DEALER"), (IOPUB, 2, b"SUB")):
            # One identity for all, because the kernel asks for input whoever sent it the cell.
            identity = b"" if kind == b"SUB" else b"wardian"
            self._sockets[channel] = ZmqSocket(loop, kind, identity, [f"{base}-{port}"], partial(self._frames, channel))
        self._ask()

    async def _begin(self, arguments: list[str], env: Mapping[str, str]) -> _HomeProcess:
        if self._preloaded is not None and self._preloaded.suits(env):
            try:
                with open(os.devnull) as null:
                    given = {"argv": arguments, "env": dict(env), "cwd": os.getcwd()}
                    connection = self._preloaded.fork("wardian.kernel.session.home_kernel:forked", given, [null.fileno(), 1, 2])
                return await Forked.begun(connection)
            except OSError as error:
                log.warning("the home kernel is not forked: %s", error)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "wardian.kernel.session.home_kernel",
            *arguments,
            env={**env, "JPY_PARENT_PID": str(os.getpid())},
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        return _Started(process)

    def send(self, channel: int, message: Message) -> None:
        """Give the kernel a message, now or once it is ready."""
        if self._missing:
            self._early.append((channel, message))
        else:
            self._give(channel, message)

    def _give(self, channel: int, message: Message) -> None:
        self._sockets[channel].send(self._signer.wrap([], message.parts()))

    async def stop(self) -> None:
        """End the process: asked first, then killed."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._give(CONTROL, Message.new("shutdown_request", {"restart": False}, self._session))
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._watcher), _GRACE)
            if self._process.returncode is None:
                self._signal(signal.SIGKILL)
                await self._watcher
        for socket in self._sockets.values():
            socket.close()

    def _interrupt(self) -> None:
        self._signal(signal.SIGINT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.signal(number)

    async def _watch(self, process: _HomeProcess, ended: Callable[[int], None]) -> None:
        code = await process.wait()
        self.lose(WardianError(f"the home kernel has ended ({_how(code)})", remedy="restart the kernel"))
        ended(code)

    def _frames(self, channel: int, frames: list[bytes]) -> None:
        try:
            message = Message(self._signer.unwrap(frames)[1])
            if self._missing:
                self._starting(channel, message)
            elif message.parent_id not in self._asked:
                self.received(channel, message)
        except MalformedMessage as error:
            log.warning("home sent what is no message: %s", error)

    def _ask(self) -> None:
        if not self._missing or self.error is not None:
            return
        request = Message.new("kernel_info_request", {}, self._session)
        self._asked.add(request.id)
        self._give(SHELL, request)

    def _starting(self, channel: int, message: Message) -> None:
        """Ready is: the kernel answers, and our subscription is in effect, so that no output is missed.

        The welcome message does not tell the latter: ipykernel loses the notice of a subscription that arrives while it publishes.
        So we ask until the answer's own output is heard.
        """
        if channel == IOPUB:
            self._missing.discard("output")
        elif message.kind == "kernel_info_reply":
            self._missing.discard("answer")
            self.info = message.content
            asyncio.get_running_loop().call_later(_ASKED_AGAIN, self._ask)
        if not self._missing:
            early, self._early = self._early, []
            for earlier in early:
                self._give(*earlier)
            self.opened()
            self.on_open()


class _Watcher:
    """The event loop, as the agent's sockets use one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.later = loop.call_later

    def watch(self, fd: int, callback: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call back with the events of a descriptor; a second call changes what is watched."""
        self._loop.add_reader(fd, callback, select.EPOLLIN)
        if events & select.EPOLLOUT:
            self._loop.add_writer(fd, callback, select.EPOLLOUT)
        else:
            self._loop.remove_writer(fd)

    def unwatch(self, fd: int) -> None:
        """Stop watching a descriptor."""
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)


class _HomeProcess(Protocol):
    @property
    def returncode(self) -> int | None: ...
    def signal(self, number: int) -> None: ...
    async def wait(self) -> int: ...


class _Started:
    """A home kernel that is a process of ours."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def signal(self, number: int) -> None:
        """To it and its group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def wait(self) -> int:
        """Its exit code, minus n when signal n ended it."""
        return await self._process.wait()


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
