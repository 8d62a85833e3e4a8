"""Ending processes, and what descends from one. Standard library only: a node's guard and init do it, too."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress


def end(pids: Iterable[int]) -> None:
    """Kill these and return once every one of them is dead, and so all that hung on it."""
    _send_and_wait(pids, signal.SIGKILL)


def ask_to_end(pids: Iterable[int]) -> None:
    """Have these, which end all below them at SIGTERM, do so, and return once they have."""
    _send_and_wait(pids, signal.SIGTERM)


def _send_and_wait(pids: Iterable[int], number: int) -> None:
    waiting = select.poll()
    descriptors: set[int] = set()
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                descriptors.add(descriptor)
                waiting.register(descriptor, select.POLLIN)
                signal.pidfd_send_signal(descriptor, number)
        alive = set(descriptors)
        while alive:
            for descriptor, _ in waiting.poll():
                waiting.unregister(descriptor)
                alive.discard(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def descendants(pid: int) -> set[int]:
    """All processes below this one that have not ended."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            # it may end between two looks
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in b"ZX":
                    children.setdefault(int(parent), []).append(int(name))
    found: set[int] = set()
    unseen = [pid]
    while unseen:
        below = children.get(unseen.pop(), [])
        found.update(below)
        unseen += below
    return found


def send(pid: int, number: int) -> bool:
    """Send a signal; whether it could be: the process is there, and no other user's."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def stop_below(pid: int) -> set[int]:
    """Have all below this process stand still, however fast they fork. Gives those that do; another user's do not."""
    seen: set[int] = set()
    stopped: set[int] = set()
    while new := descendants(pid) - seen:
        seen |= new
        stopped |= {each for each in new if send(each, signal.SIGSTOP)}
    return stopped


def end_below() -> None:
    """Kill all below this process, which adopts orphans, and return once they are dead."""
    while doomed := stop_below(os.getpid()):
        end(doomed)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
