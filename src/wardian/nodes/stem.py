"""The way from a preloaded process to Python kernels on a node: the agent's start, and the stem.

A *stem* is an idle process on a node that has what a Python kernel needs loaded, and forks kernels at its agent's request. It runs as long
as the agent holds its socket, and its kernels die with it. Each packet from the agent is one request, with descriptors:

    {"argv": [interpreter, "-c", code, ...], "env", "cwd", "fds": [numbers that the descriptors get]}

and from here come {"pid"} or {"error"} for each, in order, and at any time {"ended": pid, "code": code}, minus n when signal n ended it.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import types
from contextlib import suppress
from typing import Any, NoReturn

from ..providers.preload import (
    die_with_parent,
    draw_anew,
    interpreter_variables,
    receive,
    run_to_end,
    set_title,
    start_anew,
    take_environment,
)
from .agent import start
from .boot import LOAD, SOURCE

_MOST = 8
_PACKET = 1 << 20


def boot() -> None:
    """Do what `python -c BOOT` does, and besides give the agent a stem. Returns as soon as the agent has our standard streams."""
    source = _take(int(_take(8), 16))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        theirs.close()
        _Stem(ours).serve()
    ours.close()
    set_title(["wardian-agent"])
    if source == SOURCE:
        start.bootstrap(source, theirs.fileno())
    else:
        exec(LOAD + "bootstrap(source, stem)", {"sys": sys, "source": source, "stem": theirs.fileno()})  # noqa: S102


def _take(count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            sys.exit("the source of the agent was cut short")
        data += more
    return data


class _Stem:
    def __init__(self, connection: socket.socket) -> None:
        # without anything of the connection that brought us here, which would not end while we hold its streams
        null = os.open(os.devnull, os.O_RDWR)
        start_anew([connection.fileno()], [null, null, null])
        connection.detach()
        set_title(["wardian-stem"])
        self._variables = interpreter_variables(dict(os.environ))
        self._connection = socket.socket(fileno=3)
        os.chdir("/")
        self._children: set[int] = set()

    def serve(self) -> NoReturn:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        awake, waker = socket.socketpair()
        for end in (awake, waker):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        selector = selectors.DefaultSelector()
        selector.register(self._connection, selectors.EVENT_READ)
        selector.register(awake, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is self._connection:
                    self._request()
                else:
                    with suppress(BlockingIOError):
                        awake.recv(4096)
                    self._reap()

    def _request(self) -> None:
        try:
            raw, descriptors = receive(self._connection, _PACKET, _MOST)
        except OSError:
            raw, descriptors = b"", []
        if not raw:
            os._exit(0)
        request = json.loads(raw)
        if interpreter_variables(request["env"]) != self._variables:
            self._say({"error": "its variables make it another interpreter"})
        else:
            pid = os.fork()
            if pid == 0:
                _run(request, descriptors)
            self._children.add(pid)
            self._say({"pid": pid})
        for descriptor in descriptors:
            os.close(descriptor)

    def _reap(self) -> None:
        for pid in list(self._children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._children.discard(pid)
                self._say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _say(self, value: dict[str, Any]) -> None:
        try:
            self._connection.send(json.dumps(value).encode())
        except OSError:
            os._exit(0)


def _run(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """The kernel's side of the fork: what `interpreter -c code` does in a new process."""
    stem = os.getppid()

    def work() -> None:
        by_number = dict(zip(request["fds"], descriptors, strict=True))
        start_anew([], [by_number[number] for number in range(3)])
        die_with_parent()
        if os.getppid() != stem:
            os._exit(1)
        take_environment(request["env"])
        os.chdir(request["cwd"])
        draw_anew()
        _, flag, program, *rest = request["argv"]
        sys.argv = [flag, *rest]
        set_title([sys.executable, flag, "wardian kernel", *rest])
        sys.path.insert(0, "")
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(program, "<string>", "exec"), vars(main))  # noqa: S102

    run_to_end(work)
