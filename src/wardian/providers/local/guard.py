"""The guard of a node without namespaces: a process above the node's init, so that nothing of the node outlives either.

Both ask Linux for orphans (prctl(2), PR_SET_CHILD_SUBREAPER): whatever a node's processes start, and however it leaves its session, it
stays below its init, and below the guard where the init was killed. The guard ends all of it at SIGTERM and when the init has ended; the
init does when the guard has. Standard library only: it is forked from the spawner.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from .ending import end_below
from .kernel import adopt_orphans, hear_of_parents_end


def stand(serve: Callable[[], None], ready: Callable[[], None]) -> NoReturn:
    """Fork the init, which calls `serve`, never to return; call `ready` and stand guard."""
    adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    guard = os.getpid()
    init = os.fork()
    if init == 0:
        adopt_orphans()
        signal.signal(signal.SIGTERM, _end)
        hear_of_parents_end(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if os.getppid() == guard:
            serve()
        os._exit(1)
    ready()
    while signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGCHLD and not _ended(init):
        pass
    _end()


def _end(*_: Any) -> NoReturn:
    end_below()
    os._exit(0)


def _ended(init: int) -> bool:
    """Whether the init is among the children that have ended; the others are orphans of its."""
    try:
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            if pid == init:
                return True
    except ChildProcessError:
        return True
    return False
