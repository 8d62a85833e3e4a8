"""The processes of an environment, as the host shows them, and their end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .ending import end as end
from .kernel import is_running

VARIABLE = "WARDIAN_ENVIRONMENT"
"""Names the environment among the variables of each of its processes outside of its nodes."""

STATE_VARIABLE = "WARDIAN_STATE"
"""Names the state folder there, since each state folder has environments of its own."""


def variables(environment: str, state: Path) -> dict[str, str]:
    """The variables that a process of this environment is started with."""
    return {**marks(environment, state), "PATH": os.defpath, "LC_ALL": "C.UTF-8"}


def marks(environment: str, state: Path) -> dict[str, str]:
    """Those of them by which it is found."""
    return {VARIABLE: environment, STATE_VARIABLE: str(state)}


def environments(state: Path) -> dict[str, set[int]]:
    """The processes of the host that carry an id and this state folder: {id: process numbers}; never this process or its parent."""
    found: dict[str, set[int]] = {}
    marker, place = f"{VARIABLE}=".encode(), f"{STATE_VARIABLE}={state}".encode()
    spared = {os.getpid(), os.getppid()}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in spared:
            continue
        try:
            given = variables_of(name).split(b"\0")
        except OSError:
            continue
        if place in given:
            for variable in given:
                if variable.startswith(marker):
                    found.setdefault(variable[len(marker) :].decode(errors="replace"), set()).add(int(name))
    return found


def variables_of(pid: str) -> bytes:
    """The variables that a process was started with; a thread of the kernel has none. Raises OSError where it is gone."""
    while True:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if given := file.read():
                return given
        with open(f"/proc/{pid}/stat", "rb") as file:
            begin = int(file.read().rpartition(b")")[2].split()[47])
        if begin or not os.path.exists(f"/proc/{pid}/exe"):
            return given
        time.sleep(0.001)  # it is amid an exec, and its variables are not in place yet


def of(environment: str, state: Path) -> set[int]:
    """The processes that carry this environment's id."""
    return environments(state).get(environment, set())


def beside(pid: int) -> set[int]:
    """The processes that share a node's process table with its init, where no control group holds them. None where it is gone."""

    def table(process: int | str) -> str:
        try:
            return os.readlink(f"/proc/{process}/ns/pid")
        except OSError:
            return ""

    # an init was started into its table, and is in it itself
    own = table(pid)
    return {int(name) for name in os.listdir("/proc") if own and name.isdigit() and table(name) == own}


def running(identities: Iterable[dict[str, Any]]) -> set[int]:
    """Those of these that are still the processes they were."""
    return {identity["pid"] for identity in identities if is_running(identity)}


async def death(identities: Iterable[dict[str, Any]]) -> None:
    """Return once one of those that still run has died; never where none runs."""
    loop, dead = asyncio.get_running_loop(), asyncio.Event()
    watched: list[int] = []
    try:
        for pid in running(identities):
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            watched.append(descriptor)
            loop.add_reader(descriptor, dead.set)
        await dead.wait()
    finally:
        for descriptor in watched:
            loop.remove_reader(descriptor)
            os.close(descriptor)
