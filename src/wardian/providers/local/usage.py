"""What nodes use, added up over their processes (proc(5), /proc/PID/stat): the same whichever control groups this host has."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..base import Usage
from . import processes
from .cgroups import Cgroups
from .state import EnvironmentFolder


def of(environment: EnvironmentFolder) -> dict[str, Usage]:
    """What the nodes of an environment that run use. Blocking."""
    cgroups = Cgroups.find()
    nodes = {folder.name: pid for folder in environment.resources("node") if (pid := folder.pid()) is not None}
    return {node: added(cgroups.members(environment.id, node) or processes.beside(pid)) for node, pid in nodes.items()}


def added(numbers: Iterable[int]) -> Usage:
    """What the processes of these numbers use together, with the time of their children that have ended."""
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    seconds, memory = 0.0, 0
    for process in numbers:
        # it may end between two looks
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
            seconds += sum(map(int, fields[11:15])) / ticks
            memory += int(fields[21]) * page
    return Usage(seconds, memory)
