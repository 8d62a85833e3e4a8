"""Files that processes have open: more than a shell's thousand for whoever works on hundreds of nodes, and none for whoever outlives us."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress

from .errors import WardianError

ENOUGH = 65536
"""More would slow down programs that close every descriptor there might be."""

PER_NODE = 5
"""What a notebook's kernel has open for each node that it works on."""


def raise_limit() -> None:
    """Have this process, and those that it starts, open as many files as it may, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def closing() -> list[tuple[int, int]]:
    """What `os.posix_spawn` does (file_actions) for a process that outlives us: it keeps none of the files that our caller passed on.

    Such a file may be a lock, or a pipe whose reader waits for its end.
    """
    given = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                given.append((os.POSIX_SPAWN_CLOSE, int(name)))
    return given


def explained(error: BaseException) -> BaseException:
    """The error, in words that say what to do where too many files are open."""
    if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
        return error
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    who = f"this process may have {limit} files open" if error.errno == errno.EMFILE else "this host has no more files to open"
    remedy = f"Raise the limit (ulimit -n {ENOUGH}; before Jupyter starts), or work on fewer nodes at once."
    return WardianError(f"too many nodes at once: {who}, and each node takes some {PER_NODE}", remedy=remedy)
