"""Finding what dead processes left behind."""

from __future__ import annotations

from pathlib import Path

from ...errors import BusyError
from ..base import Progress
from . import internet, layers, processes, skeleton
from .cgroups import Cgroups
from .growth import Growth
from .plain.growth import PlainGrowth
from .state import EnvironmentFolder, State

KEEPER = b"wardian.environment.keeper"
"""The module that a keeper's command names."""

YOUNG = 60
"""Control groups get their first member within this time of being made, seconds."""


def collect(state: State, report: Progress) -> list[str]:
    """Remove what no environment owns, and environments none of whose nodes can come back; one line for each. Blocking."""
    removed = []
    for folder in state.environments():
        reason = _reason(folder)
        if reason is not None and _remove(state, folder, report):
            removed.append(f"environment {folder.id}: {reason}")
    # before the records, which are older: what begins just now is not taken for lost
    found = processes.environments(state.root)
    known = {folder.id for folder in state.environments()}
    for environment, pids in found.items():
        if environment not in known and not all(map(_keeps, pids)):
            Growth(state, environment, report).destroy()
            removed.append(f"{len(pids)} processes of environment {environment}, which has no record")
    groups = Cgroups.find()
    for environment in groups.environments() - known:
        # with members it is an environment of another state folder, and without any it may be one that is being made there
        if groups.age(environment) > YOUNG and not groups.members(environment):
            groups.remove(environment)
            removed.append(f"control groups of environment {environment}, which has no record")
    removed += layers.forget_unfinished(state)
    removed += skeleton.forget_old(state.root, in_use=bool(state.environments()))
    removed += internet.forget_lost(state)
    return removed


def _keeps(pid: int) -> bool:
    """Whether a process is an environment's keeper: one of another provider's has no record here, and ends by itself when that is gone."""
    try:
        return KEEPER in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _reason(folder: EnvironmentFolder) -> str | None:
    if folder.record() is None:
        return "it has no record"
    if folder.fabric_pid() is None and not processes.running(folder.processes()):
        return "nothing of it runs any more"
    return None


def _remove(state: State, folder: EnvironmentFolder, report: Progress) -> bool:
    record = folder.record()
    if record is None:
        _growth(state, folder, report).destroy()
        return True
    try:
        with state.lock(record.file, record.instance, "removing what is left of it"):
            if _reason(folder) is not None:
                _growth(state, folder, report).destroy()
    except BusyError:
        return False
    return True


def _growth(state: State, folder: EnvironmentFolder, report: Progress) -> Growth:
    return (PlainGrowth if folder.plain else Growth)(state, folder.id, report)
