"""The helper: does an ordinary user's work on an environment inside of the environment's user namespace, where it may do all of it.

A process with threads cannot enter a user namespace, and one that did would not be the user's any more; so this is a process of its own,
started by `ground.Helper`. While it has one thread it enters the namespaces; then it serves its socket until that ends.

    python -m wardian.providers.local.inside SOCKET STATE USER NETWORK      USER, NETWORK: processes whose namespaces to enter; 0: new ones

On the socket, one packet each: {"map"} from here, answered by {"mapped"} or {"error"}, when a new namespace wants its ids; {"ready"} or
{"error"} from here; then each packet to here is the end of a stream on which one piece of work is asked for, see `ground.Helper.call`,
with the descriptors of the locks that are held for it.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from .kernel import CLONE_NEWNET, CLONE_NEWUSER, receive, setns, unshare

MOST_LOCKS = 16


def main() -> None:
    """Enter, say so, serve."""
    control = socket.socket(fileno=int(sys.argv[1]))
    state, user, network = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    try:
        _enter(control, user, network)
    except OSError as error:
        _say(control, {"error": error.strerror or str(error), "errno": error.errno})
        return
    # loaded once, before threads want it
    from . import growth, observation  # noqa: F401

    _say(control, {"ready": True})
    while True:
        raw, descriptors = receive(control, 1, MOST_LOCKS + 1)
        if not raw:
            # whoever asked is gone: as if this were a part of it
            os._exit(0)
        threading.Thread(target=_serve, args=(state, descriptors[0], descriptors[1:]), daemon=True).start()


def _enter(control: socket.socket, user: int, network: int) -> None:
    if user:
        _join(user, CLONE_NEWUSER)
    else:
        unshare(CLONE_NEWUSER)
        _say(control, {"map": True})
        answer = json.loads(control.recv(4096) or b'{"error": "nobody gave it ids"}')
        if "error" in answer:
            raise OSError(answer.get("errno", 1), answer["error"])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # with a single id it may not even let go of groups
    with suppress(OSError):
        os.setgroups([])
    if network:
        _join(network, CLONE_NEWNET)
    else:
        unshare(CLONE_NEWNET)


def _join(pid: int, kind: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        setns(descriptor, kind)
    finally:
        os.close(descriptor)


def _serve(root: Path, descriptor: int, locks: list[int]) -> None:
    from .layers import Stop
    from .state import State
    from .work import Job

    connection = socket.socket(fileno=descriptor)
    lock = threading.Lock()

    def say(*answer: Any) -> None:
        with lock, suppress(BrokenPipeError):
            connection.sendall(pickle.dumps(answer))

    stop = Stop()
    stream = connection.makefile("rb")
    try:
        function, arguments = pickle.load(stream)  # noqa: S301 - from the process that started this one, over a socket of theirs
        threading.Thread(target=_until_stopped, args=(stream, stop), daemon=True).start()
        state = State(root)
        state.held.update(locks)
        say(*_outcome(function, Job(state, lambda name, said: say("report", name, said), stop), arguments))
    finally:
        for each in locks:
            os.close(each)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def _outcome(function: Callable[..., Any], job: Any, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "done", function(job, *arguments)
    except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
        return "failed", error


def _until_stopped(stream: IO[bytes], stop: Any) -> None:
    # not from the socket: the stream may have read on to that byte already
    with stream, suppress(OSError):
        if stream.read(1):
            stop.set()


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    control.send(json.dumps(message).encode())


if __name__ == "__main__":
    main()
