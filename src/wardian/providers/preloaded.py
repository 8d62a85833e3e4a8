"""How processes are had from the preloaded process (`preload.py`)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from . import preload

_START = "import sys; from wardian.providers.preload import main; main(*(given.split() for given in sys.argv[1:]))"
_PASSED = ("HOME", "LANG", "LANGUAGE", "TZ")


class Preloaded:
    """A process that has what Python kernels need loaded already, and forks.

    It knows nothing of its user: of our variables it gets only those that make an interpreter what it is, no descriptors, and the root
    folder to work in. It ends with us.
    """

    def __init__(self, modules: Sequence[str], later: Sequence[str] = ()) -> None:
        """Start it. It takes requests from now on, and heeds them once it has loaded `modules`.

        later: what it loads while it has nothing to do.
        """
        env = dict(os.environ)
        self.variables = preload.interpreter_variables(env)
        """Of its variables those that make an interpreter another one."""
        kept = {name: value for name, value in env.items() if name in _PASSED or name.startswith("LC_")}
        self._home = env.get("HOME") if site.ENABLE_USER_SITE else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, " ".join(modules), " ".join(later)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                # the last one keeps the debugger that ipykernel loads from complaining of how Python was built
                env={"PATH": os.defpath, **kept, **self.variables, "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
                start_new_session=True,
            )
        self._requests = ours

    def suits(self, env: Mapping[str, str]) -> bool:
        """Whether an interpreter started with these variables would be the same as this one."""
        same_home = self._home is None or self._home == env.get("HOME")
        return same_home and preload.interpreter_variables(dict(env)) == self.variables

    def fork(
        self, entry: str, arguments: Any, streams: Sequence[int], *, modules: Sequence[str] = (), others: Sequence[int] = ()
    ) -> socket.socket:
        """Ask for a process in which `entry` ("module:function") is called with `arguments` (anything that JSON has).

        Gives the connection on which the process is spoken of, see `preload.py`; its end without an answer means that there is no
        preloaded process any more. modules: what is to be loaded before the fork. others: descriptors for the function.

        Raises OSError when it cannot be asked.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told = os.memfd_create("arguments", os.MFD_CLOEXEC)
        try:
            with theirs, open(told, "w") as file:
                json.dump(arguments, file)
                file.flush()
                request = json.dumps({"entry": entry, "modules": list(modules)}).encode()
                socket.send_fds(self._requests, [request], [theirs.fileno(), told, *streams, *others])
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        return ours

    def close(self) -> None:
        """End it, and all that it forked and that is still its own."""
        self._requests.close()
        self._process.kill()
        self._process.wait()


class Forked:
    """A process that was forked and is followed from the event loop. returncode: minus n when signal n ended it; None while it runs."""

    def __init__(self, connection: socket.socket) -> None:
        self.returncode: int | None = None
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._loop.add_reader(connection, self._said)

    @classmethod
    async def begun(cls, connection: socket.socket) -> Forked:
        """The process that a connection, as `fork` gives it, is about, once it has begun. Raises OSError if it does not."""
        process = cls(connection)
        await process._begun
        return process

    def signal(self, number: int) -> None:
        """To it and its group."""
        if self.returncode is None:
            with suppress(OSError):
                self._connection.send(json.dumps({"signal": int(number)}).encode())

    async def wait(self) -> int:
        """Its exit code, minus n when signal n ended it."""
        await self._ended.wait()
        return self.returncode or 0

    def _said(self) -> None:
        try:
            raw = self._connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        # it does not outlive the preloaded process
        said: dict[str, Any] = json.loads(raw) if raw else {"error": "there is no preloaded process", "exit": 128 + signal.SIGKILL}
        if not self._begun.done():
            if "pid" in said:
                self._begun.set_result(None)
                return
            self._begun.set_exception(OSError(said.get("error", "it ended before it began")))
        code = int(said.get("exit", 1))
        self.returncode = code if code <= 128 else 128 - code
        self._loop.remove_reader(self._connection)
        self._connection.close()
        self._ended.set()
