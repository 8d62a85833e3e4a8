"""How the agent comes to life, and how it is reached."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import signal
import socket
import sys

from .files import log, remove_file
from .protocol import FREE, KEPT


def run_directory() -> str:
    """Where the agent's socket, log and kernels are: a folder that only this user can enter."""
    path = os.environ.get("WARDIAN_RUN_DIR")
    if not path and os.getuid() == 0:
        path = "/run/wardian"
    elif not path:
        base = os.environ.get("XDG_RUNTIME_DIR")
        path = os.path.join(base, "wardian") if base else f"/tmp/wardian-{os.getuid()}"  # noqa: S108
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if status.st_uid != os.getuid() or status.st_mode & 0o170077 != 0o040000:
        sys.exit(f"{path} has to be a folder that only user {os.getuid()} can enter")
    return path


def connect(path: str) -> socket.socket | None:
    """A connection to the agent, or None where none answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


def bootstrap(source: bytes, stem: int | None = None) -> None:
    """Reach the agent, starting it first where there is none; give it our standard streams, and stay while it uses them."""
    directory = run_directory()
    path = os.path.join(directory, "agent.sock")
    connection = connect(path)
    if connection is None:
        with open(os.path.join(directory, "agent.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            connection = connect(path)
            if connection is None:
                start_agent(directory, path, source, lock.fileno(), stem)
                connection = connect(path)
    if connection is None:
        sys.exit(f"the agent cannot be reached at {path}")
    fds = array.array("i", [0, 1] if stem is None else [0, 1, stem])
    connection.sendmsg([KEPT if stem is None else FREE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    stay(connection, stem)


def stay(connection: socket.socket, stem: int | None) -> None:
    """End when the agent lets go of the connection; until then be the smallest program that can wait for that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if stem is None:
        os.dup2(connection.fileno(), 0)
        with contextlib.suppress(OSError):
            # what is left of this is a tenth of an interpreter; the rest of the descriptors goes by itself
            os.execv("/bin/sh", ["sh", "-c", "read nothing; exit 0"])  # noqa: S606 - the program is ours
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(0)


def start_agent(directory: str, path: str, source: bytes, lock: int, stem: int | None) -> None:
    """Fork the agent. It can be connected to from the moment this returns, since we listen before it runs."""
    remove_file(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        listener.close()
        return
    os.close(lock)
    if stem is not None:
        os.close(stem)
    os.setsid()
    if os.fork():
        os._exit(0)
    import hashlib

    from .agent import Agent

    os.chdir("/")
    # not at 0, so that what is logged stays where another agent's is
    logged = os.open(os.path.join(directory, "agent.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for fd, target in ((null, 0), (null, 1), (logged, 2)):
        os.dup2(fd, target)
    os.close(null)
    os.close(logged)
    for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    log(f"started, pid {os.getpid()}, {sys.version.split()[0]}")
    Agent(directory, listener, hashlib.sha256(source).hexdigest()[:16]).run()
    log("stopped")
    os._exit(0)
