"""A node's init: process 1 of its PID namespace. Reaps, and starts processes for whoever connects to its socket.

The socket, `init.sock` in the node's state folder, takes one connection a process. Each message is a JSON object in one packet:

    to it     {"here": true}                                               what follows is in a file, the last descriptor
              {"argv", "env", "cwd", "terminal": [rows, columns] | null}    first, with stdin, stdout, stderr unless it is a terminal
              {"signal": number}                                           to the process and its group
              {"write": path, "text"}                                      instead of all that: replace a file of the node
              {"variables": {...}}                                         likewise: those that later processes start with
              {"ask": "variables"}                                         likewise: what they are
    from it   {"pid"}, with the terminal's master descriptor where one was asked for
              {"error", "what": "cwd" | "program"}                         it could not be started
              {"exit": code}                                               128 + n when signal n ended it
              {"done"}                                                     it is replaced
              {"variables": {...}}                                         what was asked for

A connection that closes before its process ended hangs it up: SIGHUP to its group, SIGKILL two seconds later.
Standard library only: it is forked from the spawner and executes nothing itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import termios
import time
from contextlib import suppress
from typing import Any, NoReturn

from .kernel import receive

GRACE = 2.0
"""Seconds between hanging up on a process and killing it."""

SOCKET = "init.sock"

_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)
"""What Python ignores or handles and a program expects at its default."""

CAPABILITIES = frozenset(
    # chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_broadcast, net_admin, net_raw, ipc_lock,
    # sys_chroot, sys_ptrace, sys_nice, sys_resource, audit_write, setfcap
    (0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 18, 19, 23, 24, 29, 31)
)
"""What programs on a node may still do, numbered as in <linux/capability.h>: nothing that reaches past its namespaces."""


def listen() -> socket.socket:
    """The socket of a node, in the working folder; reachable from outside by path also after this process left for its own root."""
    with suppress(FileNotFoundError):
        os.unlink(SOCKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    listener.bind(SOCKET)
    os.chmod(SOCKET, 0o600)
    listener.listen(4096)
    return listener


def roomy(connection: socket.socket) -> None:
    """Let a packet hold a command's arguments, where this process may; else they come in a file."""
    with suppress(PermissionError):
        connection.setsockopt(socket.SOL_SOCKET, 32, 1 << 22)  # SO_SNDBUFFORCE


class Init:
    """Serves the socket until the node ends. env: the variables that every process of the node starts with."""

    def __init__(self, listener: socket.socket, env: dict[str, str]) -> None:
        self._env = env
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._listener = listener
        self._running: dict[int, socket.socket | None] = {}
        self._pids: dict[int, int] = {}
        self._deadlines: dict[int, float] = {}
        awake, waker = socket.socketpair()
        awake.setblocking(False)
        waker.setblocking(False)
        self._selector.register(awake, selectors.EVENT_READ, self._reap)
        self._awake, self._waker = awake, waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)

    def serve(self) -> NoReturn:
        while True:
            wait = min(self._deadlines.values()) - time.monotonic() if self._deadlines else None
            for key, _ in self._selector.select(None if wait is None else max(wait, 0)):
                key.data(key.fileobj)
            now = time.monotonic()
            for pid in [pid for pid, deadline in self._deadlines.items() if deadline <= now]:
                del self._deadlines[pid]
                _signal_group(pid, signal.SIGKILL)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                connection, _ = listener.accept()
                connection.setblocking(False)
                roomy(connection)
                self._selector.register(connection, selectors.EVENT_READ, self._message)

    def _message(self, connection: socket.socket) -> None:
        try:
            size = connection.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_TRUNC)
            raw, descriptors = receive(connection, max(size, 1), 4)
        except BlockingIOError:
            return
        except OSError:
            raw, descriptors = b"", []
        try:
            if not raw:
                self._hung_up(connection)
                return
            request = json.loads(raw)
            if "here" in request:
                request = _read(descriptors.pop())
            if "ask" in request:
                _send(connection, {"variables": self._env})
            elif "argv" in request:
                self._start(connection, request, descriptors)
            elif "signal" in request:
                _signal_group(self._pids.get(connection.fileno(), 0), request["signal"])
            elif "variables" in request:
                self._env = request["variables"]
                _send(connection, {"done": True})
            elif "write" in request:
                _replace(request["write"], request["text"])
                _send(connection, {"done": True})
        except OSError as error:
            _send(connection, {"error": error.strerror or str(error), "what": "request"})
        except (ValueError, KeyError, TypeError) as error:
            _send(connection, {"error": f"a malformed request: {error}", "what": "request"})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _hung_up(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        pid = self._pids.pop(connection.fileno(), None)
        connection.close()
        if pid is not None and pid in self._running:
            self._running[pid] = None
            self._deadlines[pid] = time.monotonic() + GRACE
            _signal_group(pid, signal.SIGHUP)
            _signal_group(pid, signal.SIGCONT)

    def _start(self, connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        master = -1
        try:
            if request["terminal"]:
                master, slave = os.openpty()
                descriptors.append(slave)
                fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *request["terminal"], 0, 0))
                # opened by the leader of a new session, it becomes the controlling terminal
                name = os.ttyname(slave)
                streams: list[Any] = [(os.POSIX_SPAWN_OPEN, number, name, os.O_RDWR, 0) for number in range(3)]
            else:
                streams = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(descriptors)]
            env = {**self._env, **({"TERM": "xterm-256color"} if master >= 0 else {}), **request["env"]}
            try:
                enter_folder(request["cwd"], env)
            except OSError as error:
                _send(connection, {"error": error.strerror, "what": "cwd"})
                return
            try:
                pid = _spawn(request["argv"], env, streams)
            except OSError as error:
                _send(connection, {"error": error.strerror, "what": "program"})
                return
            finally:
                os.chdir("/")
            self._running[pid] = connection
            self._pids[connection.fileno()] = pid
            _send(connection, {"pid": pid}, [master] if master >= 0 else [])
        finally:
            if master >= 0:
                os.close(master)

    def _reap(self, awake: socket.socket) -> None:
        with suppress(BlockingIOError):
            while awake.recv(4096):
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._deadlines.pop(pid, None) is not None:
                # its group was hung up on together with it, and without it nobody would kill what ignores that
                _signal_group(pid, signal.SIGKILL)
            connection = self._running.pop(pid, None)
            if connection is not None:
                self._pids.pop(connection.fileno(), None)
                code = os.waitstatus_to_exitcode(status)
                _send(connection, {"exit": code if code >= 0 else 128 - code})


def _spawn(argv: list[str], env: dict[str, str], streams: list[Any]) -> int:
    """Start a program of the node's PATH, in a session of its own. Not forked: that would copy this process's page tables each time."""
    program = argv[0]
    folders = [""] if "/" in program else [folder or "." for folder in env.get("PATH", os.defpath).split(":")]
    refusal: OSError = FileNotFoundError(2, os.strerror(2))
    for folder in folders:
        path = os.path.join(folder, program)
        try:
            return os.posix_spawn(path, argv, env, file_actions=streams, setsid=True, setsigmask=(), setsigdef=_IGNORED)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refusal = error
    raise refusal


def enter_folder(wanted: str | None, env: dict[str, str]) -> None:
    """Go to a process's working folder: the user's home where none is named."""
    if wanted is not None:
        os.chdir(wanted)
        return
    with suppress(OSError):
        os.chdir(env.get("HOME", "/root"))


def _signal_group(pid: int, number: int) -> None:
    if pid > 0:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


def _read(descriptor: int) -> Any:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return json.load(file)


def _replace(path: str, text: str) -> None:
    with open(f"{path}.wardian", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(f"{path}.wardian", path)


def _send(connection: socket.socket, answer: dict[str, Any], descriptors: list[int] | None = None) -> None:
    # whoever asked may be gone by now; its connection's end is an event of its own
    with suppress(OSError):
        socket.send_fds(connection, [json.dumps(answer).encode()], descriptors or [])
