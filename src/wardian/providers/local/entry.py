"""How a process that was forked on the host becomes one of a node. Standard library only."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import Any

from ..preload import OTHERS, Say, draw_anew, fingerprint, forget_checkout, resolve, start_anew, take_environment
from .init import CAPABILITIES, enter_folder
from .kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    drop_capabilities,
    keep_capabilities,
    setns,
)

_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def enter(node: dict[str, Any], say: Say) -> None:
    """Call a function on a node, in a process that has what one started by the node's init has, and nothing else of the host.

    node: "apart": whether its user namespace is another; "cgroups": files that a process's number is written to; "init": the number of the
    node's init; "env": the variables; "program": "module:function", loaded already. Descriptor `OTHERS` is the init's, as of pidfd_open(2).

    This process enters everything but the node's process table, which only its child is in: nobody on the node ever sees a process
    that still has something of the host.
    """
    seen = fingerprint()
    program = resolve(node["program"])
    try:
        for group in node["cgroups"]:
            with open(group, "w") as file:
                file.write("0")
        _take_limits(node["init"])
        user = CLONE_NEWUSER if node["apart"] else 0
        setns(OTHERS, user | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID)
        if fingerprint() != seen:
            say({"error": "the node's Python is not the host's"})
            return
        keep_capabilities(CAPABILITIES)
        drop_capabilities(CAPABILITIES)
        forget_checkout()
        take_environment(node["env"])
        enter_folder(None, node["env"])
    except OSError as error:
        say({"error": str(error)})
        return
    pid = os.fork()
    if pid:
        say({"pid": pid})
        return
    start_anew([], [0, 1, 2])
    draw_anew()
    program()


def _take_limits(pid: int) -> None:
    """The resource limits and the priority of the node's init."""
    for limit in _LIMITS:
        # raising one takes a capability that not everyone has
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, resource.prlimit(pid, limit))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, pid))
