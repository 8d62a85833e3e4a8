"""Programs and their sessions: started, signalled, ended to the last process."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import signal
import termios
import time

from .protocol import KIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .loop import Loop

READ_SIZE = 256 * KIB
STOP_GRACE = 2.0


def spawn(argv: Sequence[str], env: Mapping[str, str], cwd: str, fds: Mapping[int, int]) -> int:
    """Start a program in a session of its own, to be killed when this process dies; gives its pid.

    fds: {descriptor there: descriptor here}. Raises OSError when the folder or the program is not there.
    """
    prctl = process_control()
    parent = os.getpid()
    failed_read, failed_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            for number in range(1, signal.NSIG):
                if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setsid()
            if prctl:
                prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
                if os.getppid() != parent:
                    os._exit(1)
            os.chdir(cwd)
            high = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 220) for target, fd in fds.items()}
            for target, fd in high.items():
                os.dup2(fd, target)
            os.umask(0o022)
            os.execvpe(argv[0], list(argv), env)  # noqa: S606
        except OSError as error:
            os.write(failed_write, b"%d" % (error.errno or errno.EIO))
        finally:
            os._exit(127)
    os.close(failed_write)
    failure = os.read(failed_read, 16)
    os.close(failed_read)
    if failure:
        os.waitpid(pid, 0)
        number = int(failure)
        raise OSError(number, os.strerror(number), cwd if not os.path.isdir(cwd) else argv[0])
    return pid


_prctl: list[Any] = []


def process_control() -> Any:
    """prctl(2), or None where this Python has no ctypes."""
    if not _prctl:
        try:
            import ctypes

            _prctl.append(ctypes.CDLL(None).prctl)
        except (ImportError, OSError, AttributeError):
            _prctl.append(None)
    return _prctl[0]


def session_members(session: int, since: float = 0.0) -> list[int]:
    """The processes of a session that are no zombies, and were started not earlier than a number of seconds after boot."""
    members = []
    earliest = int(since * os.sysconf("SC_CLK_TCK")) - 1
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in (b"Z", b"X") and int(fields[19]) >= earliest:
                members.append(int(name))
    return members


def ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal; one that has ended does."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"SigIgn:"):
                    return bool(int(line[7:], 16) >> (number - 1) & 1)
    except OSError:
        pass
    return True


def executable_of(pid: int) -> str:
    """The program that a process runs, or nothing when it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def signal_session(session: int, *numbers: int) -> bool:
    """Send signals to every process of a session; whether there was any."""
    members = session_members(session)
    for pid in members:
        for number in numbers:
            try:
                os.kill(pid, number)
            except OSError:
                break
    return bool(members)


class Sessions:
    """The sessions that this agent started, noted on disk so that a later agent can end what a killed one left."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory, exist_ok=True)

    def clean(self) -> None:
        """End what an earlier agent left behind."""
        for name in os.listdir(self._directory):
            for pid in session_members(int(name)) if name.isdigit() else ():
                # the number may have gone to a stranger since; ours carry our mark
                if b"WARDIAN_AGENT=" in environment_of(pid):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except OSError:
                        continue
            os.unlink(os.path.join(self._directory, name))

    def add(self, session: int) -> None:
        """Note one."""
        os.close(os.open(os.path.join(self._directory, str(session)), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def end(self, session: int, loop: Loop, done: Callable[[], None]) -> None:
        """SIGTERM and SIGHUP to all of it, SIGKILL to what is left after a grace; then call `done`."""
        deadline = time.monotonic() + STOP_GRACE
        signal_session(session, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT)

        def check(pause: float) -> None:
            # its leader's end has to be noticed first: those who handle it still need what `done` lets go
            if not session_members(session) and not loop.has_child(session):
                self.forget(session)
                done()
                return
            if time.monotonic() > deadline:
                signal_session(session, signal.SIGKILL)
            loop.later(pause, lambda: check(min(0.05, pause * 2)))

        check(0.001)

    def forget(self, session: int) -> None:
        """It ended."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._directory, str(session)))


def environment_of(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def pipe(size: int = 0) -> tuple[int, int]:
    """A pipe whose reading end does not block."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    if size:
        with contextlib.suppress(OSError):
            fcntl.fcntl(write, 1031, size)  # F_SETPIPE_SZ
    return read, write


def read_some(fd: int, size: int = READ_SIZE) -> bytes | None:
    """What is there to read; None when nothing is, empty at the end."""
    try:
        return os.read(fd, size)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


def waiting(fd: int) -> int:
    """How many bytes a pipe holds."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


_dev_null: list[int] = []


def dev_null() -> int:
    if not _dev_null:
        _dev_null.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
    return _dev_null[0]
