"""The process beside the agent that forks Python kernels out of what it has loaded already."""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys
from functools import partial

from .files import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .loop import Loop


class Stem:
    """An idle process on this node that has what a Python kernel needs loaded, and forks kernels (`nodes/stem.py`)."""

    PATIENCE = 5.0

    def __init__(self, loop: Loop, fd: int) -> None:
        self.open = True
        self._loop = loop
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(self.PATIENCE)
        self._forked: set[int] = set()
        self._answer: dict[str, Any] = {}
        loop.watch(fd, lambda events: self._read())

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str, fds: Mapping[int, int], exited: Callable[[int], None]
    ) -> int | None:
        """As `spawn`, for `[this interpreter, "-c", ...]`; None where it cannot be done so. `exited` is called with the exit code."""
        if not self.open or list(argv[:2]) != [sys.executable, "-c"] or not os.path.isdir(cwd) or not os.access(cwd, os.X_OK):
            return None
        request = json.dumps({"argv": list(argv), "env": dict(env), "cwd": cwd, "fds": list(fds)}).encode()
        rights = array.array("i", fds.values())
        self._answer = {}
        try:
            self._socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as error:
            log(f"stem: {error}")
            return None
        while not self._answer and self.open:
            self._read()
        pid: int | None = self._answer.get("pid")
        if pid is None:
            log("stem: {}".format(self._answer.get("error", "it does not answer")))
            return None
        self._forked.add(pid)
        self._loop.adopt(pid, exited)
        return pid

    def _read(self) -> None:
        try:
            said = self._socket.recv(4096)
        except OSError:
            said = b""
        if not said:
            self._lost()
            return
        value = json.loads(said)
        if "ended" not in value:
            self._answer = value
        elif value["ended"] in self._forked:
            self._forked.discard(value["ended"])
            self._loop.soon(partial(self._loop.ended, value["ended"], value["code"]))

    def _lost(self) -> None:
        """It has ended, and what it forked with it."""
        self.open = False
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for pid in self._forked:
            self._loop.soon(partial(self._loop.ended, pid, -signal.SIGKILL))
        self._forked.clear()
