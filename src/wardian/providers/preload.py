"""The preloaded process: it has loaded what Python kernels need, and forks processes that go on from there.

It is started by `preloaded.Preloaded`, has one thread and no descriptors but its standard streams, of which the first is a Unix
socket. Each packet there asks for one process: a JSON object {"entry": "module:function", "modules": [...]} with descriptors, which are

    a connection    for what is said of the process, see below
    arguments       a file that holds one JSON value for the function
    streams         standard input, output and error of the process
    others          which the function finds from number 5 on

The modules are loaded before the fork, and so once. What a process is told stays in its own memory: the arguments are read after the fork.

On the connection one JSON object a packet, as a node's init has it, too:

    from here  {"pid"}, {"error"}    what the function said of itself, see `Say`
               {"exit": code}        128 + n when signal n ended it
    to here    {"signal": number}    to the process and its group; the end of the connection is SIGKILL

A function may go on in another process than the one that it was called in: this one takes care of all that descend from it.
When it ends, so do they.
"""

from __future__ import annotations

import array
import fcntl
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

Say = Callable[[dict[str, Any]], None]
"""Called by an entry function, once: {"pid": number, as seen from the preloaded process} or {"error": reason}."""

Entry = Callable[[Any, Say], None]
"""What a process is forked for: it is called with its arguments, and its process ends when it returns."""

_SAY, _ARGUMENTS = 3, 4
OTHERS = 5
"""The number of the first descriptor that an entry function was given besides the streams."""

_MOST = 16
_PACKET = 1 << 16
_PDEATHSIG, _SUBREAPER = 1, 36


def main(modules: Sequence[str], later: Sequence[str]) -> NoReturn:
    """Load modules, then serve standard input until its end, and load others while nothing is asked for.

    A module that cannot be had here is left out.
    """
    parent = os.getppid()
    control(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    control(_SUBREAPER, 1)
    sys.path = [path for path in sys.path if path]
    _load(modules)
    _Preload(socket.socket(fileno=0), later).serve()


def _load(modules: Sequence[str]) -> None:
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        # a fork would have only the thread that forks, and locks that nobody opens; who asks is told by the end of the connection
        sys.exit("nothing is forked here: loading modules has started a thread")
    gc.collect()
    # what is here by now is shared with all children; were it looked through by their collectors, each would get its own copy
    gc.freeze()


def control(option: int, value: int) -> None:
    """prctl(2)."""
    import ctypes

    ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)


def die_with_parent() -> None:
    """Be killed as soon as the process dies that forked this one."""
    control(_PDEATHSIG, signal.SIGKILL)


class _Child:
    """A process that was asked for. told: where it says what it is, until it did."""

    def __init__(self, connection: socket.socket, forked: int, told: int) -> None:
        self.connection: socket.socket | None = connection
        self.pid = forked
        self.told = told


class _Preload:
    def __init__(self, requests: socket.socket, later: Sequence[str]) -> None:
        self._later = list(later)
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        awake, self._waker = socket.socketpair()
        for end in (awake, self._waker):
            end.setblocking(False)
        self._awake = awake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(requests, selectors.EVENT_READ, self._request)
        self._selector.register(awake, selectors.EVENT_READ, self._reap)

    def serve(self) -> NoReturn:
        while True:
            events = self._selector.select(0 if self._later else None)
            for key, _ in events:
                key.data(key.fileobj)
            if not events:
                later, self._later = self._later, []
                _load(later)

    def _request(self, requests: socket.socket) -> None:
        try:
            raw, descriptors = receive(requests, _PACKET, _MOST)
        except InterruptedError:
            return
        if not raw:
            os._exit(0)
        asked = json.loads(raw)
        connection = socket.socket(fileno=descriptors.pop(0))
        try:
            for name in asked["modules"]:
                importlib.import_module(name)
            self._fork(resolve(asked["entry"]), connection, descriptors)
        except (ImportError, OSError) as error:
            _send(connection, {"error": str(error)})
            connection.close()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, entry: Entry, connection: socket.socket, descriptors: list[int]) -> None:
        told, say = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                _run(entry, say, descriptors)
        finally:
            os.close(say)
        os.set_blocking(told, False)
        child = _Child(connection, pid, told)
        self._children.append(child)
        self._selector.register(told, selectors.EVENT_READ, lambda _: self._listen(child))
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, lambda _: self._asked(child))

    def _listen(self, child: _Child) -> None:
        """What a child says of itself."""
        if child.told < 0:
            return
        try:
            said = os.read(child.told, 4096)
        except BlockingIOError:
            return
        self._selector.unregister(child.told)
        os.close(child.told)
        child.told = -1
        answer: dict[str, Any] = json.loads(said) if said else {"error": "it ended before it began"}
        if child.connection is not None:
            _send(child.connection, answer)
        if "pid" in answer:
            child.pid = answer["pid"]
            if child.connection is None:
                _kill(child.pid, signal.SIGKILL)
        else:
            self._forget(child)

    def _asked(self, child: _Child) -> None:
        if child.connection is None:
            return
        try:
            raw = child.connection.recv(_PACKET)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        if raw:
            _kill(child.pid, json.loads(raw)["signal"])
            return
        self._disconnect(child)
        if child.told < 0:
            _kill(child.pid, signal.SIGKILL)

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
            for child in list(self._children):
                if child.told >= 0:
                    # a process that goes on as another has said so before it ended
                    self._listen(child)
                if child.pid == pid and child in self._children:
                    code = os.waitstatus_to_exitcode(status)
                    if child.connection is not None:
                        _send(child.connection, {"exit": code if code >= 0 else 128 - code})
                    self._forget(child)

    def _forget(self, child: _Child) -> None:
        self._children.remove(child)
        self._disconnect(child)

    def _disconnect(self, child: _Child) -> None:
        if child.connection is not None:
            self._selector.unregister(child.connection)
            child.connection.close()
            child.connection = None


def _run(entry: Entry, say: int, descriptors: list[int]) -> NoReturn:
    """The child's side of the fork."""

    def work() -> None:
        start_anew([say, *descriptors[:1], *descriptors[4:]], descriptors[1:4])
        with open(_ARGUMENTS) as file:
            file.seek(0)
            arguments = json.load(file)

        def tell(value: dict[str, Any]) -> None:
            os.write(_SAY, json.dumps(value).encode())
            os.close(_SAY)

        entry(arguments, tell)

    run_to_end(work)


def run_to_end(work: Callable[[], None]) -> NoReturn:
    """Run a forked process as the interpreter would run it, to its end: nothing of it may go back to where it was forked."""
    import atexit
    import threading
    import traceback

    code = 1
    try:
        try:
            work()
            code = 0
        except SystemExit as error:
            if error.code is None or isinstance(error.code, int):
                code = error.code or 0
            else:
                sys.stderr.write(f"{error.code}\n")
        except BaseException:  # noqa: BLE001 - said as the interpreter says what nothing handled
            traceback.print_exc()
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def start_anew(kept: Sequence[int], streams: Sequence[int]) -> None:
    """Make a process that was just forked like one that was just started, in a session of its own.

    kept: descriptors that become 3, 4, …; streams: those that become 0, 1, 2. All others are closed.
    """
    signal.set_wakeup_fd(-1)
    for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError):
            signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    os.umask(0o022)
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100) for descriptor in (*streams, *kept)]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number, inheritable=number < 3)
    os.closerange(len(high), 1 << 20)


def take_environment(env: dict[str, str]) -> None:
    """Give this process other variables, and have what modules once read of them, or of the host, be read anew."""
    import locale
    import time

    os.environ.clear()
    os.environ.update(env)
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    time.tzset()
    with suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "")
    for module, name in (("platform", "_uname_cache"), ("tempfile", "tempdir"), ("uuid", "_node")):
        if module in sys.modules:
            setattr(sys.modules[module], name, None)


def resolve(reference: str) -> Any:
    """What "module:function" names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def set_title(argv: Sequence[str]) -> None:
    """Have this process listed as if it had been started by this command: the memory that holds the old one is written over."""
    import ctypes

    with open("/proc/self/stat", "rb") as file:
        start, end = map(int, file.read().rpartition(b")")[2].split()[45:47])
    title = "\0".join(argv).encode("utf-8", "surrogateescape")[: end - start - 1]
    ctypes.memmove(start, title.ljust(end - start, b"\0"), end - start)


def draw_anew() -> None:
    """See to it that nothing random is as in other processes that were forked from the same one.

    `random` does so by itself, `tempfile` and OpenSSL too, `uuid` and `secrets` ask the system. Only the hashes of text stay alike.
    """
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    random = sys.modules.get("random")
    if random is not None:
        random.seed()
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None:
        multiprocessing.current_process().authkey = os.urandom(32)


def interpreter_variables(env: dict[str, str]) -> dict[str, str]:
    """Of these variables those that make an interpreter another one."""
    return {name: value for name, value in env.items() if name.startswith(_TELLING) and name not in _SETTABLE}


_TELLING = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "PYDEVD_", "DEBUGPY_", "JUPYTER_PLATFORM_DIRS")
_SETTABLE = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONSTARTUP"}


_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The folder that Wardian's package is in."""


def fingerprint() -> list[tuple[str, int]]:
    """What tells whether the files that were loaded here are those that a process would load: folders, and when each last changed.

    A checkout that Wardian itself is loaded from does not count: nodes have no need of it, and may not see it.
    """
    found = []
    for path in (sys.executable, os.path.dirname(os.__file__), *sys.path):
        if path == _OWN and not os.path.exists(f"{path}/ipykernel"):
            continue
        with suppress(OSError):
            found.append((path, os.stat(path).st_mtime_ns))
    return found


def forget_checkout() -> None:
    """Take the checkout that Wardian was loaded from out of the path where it cannot be seen."""
    if not os.path.exists(_OWN):
        sys.path[:] = [path for path in sys.path if path != _OWN]


def receive(connection: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """One packet and the descriptors that came with it, which programs do not inherit."""
    space = socket.CMSG_SPACE(most * array.array("i").itemsize)
    raw, ancillary, _, _ = connection.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return raw, list(descriptors)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    # whoever asked may be gone
    with suppress(OSError):
        connection.send(json.dumps(answer).encode())
