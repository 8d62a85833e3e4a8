"""What one server holds open: environments with their journals, and the loop that everything about them runs on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from ...environment import view
from ...environment.environment import FOLDER, Environment, lost
from ...environment.live import environments
from ...environment.view import View, without_null
from ...errors import NotUpError, PlanError
from ...experiment.plan import Plan
from ...experiment.resources import EnvironmentRecord
from ...journal import Journal, LogEntry
from ...portal import Portal
from .nodework import Nodes
from .tasks import Task, Tasks
from .watch import Reader, Watch

LONGEST_SOURCE = 4000
"""Of a cell, in the timeline, characters."""


class Desk:
    """One a server. Its coroutines run on its portal's loop."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.portal = Portal()
        self._environments: dict[tuple[Path, str], Environment] = {}
        self._watches: dict[tuple[Path, str], Watch] = {}
        self._opening = Lock()
        self._inodes: dict[Path, int] = {}
        self._locks: dict[tuple[Path, str], asyncio.Lock] = {}
        self.tasks = Tasks(self.touch, self._look_again, plan_json)
        self.nodes = Nodes(self)

    def environment(self, file: Path, instance: str) -> Environment:
        """The environment of a file, whose journal stays open."""
        return self._environments.setdefault((file, instance), Environment(file, instance=instance))

    async def records(self) -> list[EnvironmentRecord]:
        """The environments that exist whose experiment is below the root."""
        return [record for record, _ in await environments() if Path(record.file).is_relative_to(self.root)]

    async def look(self, file: Path, instance: str) -> View:
        """An environment as it is now. Raises NotUpError where there is neither one nor its file."""
        seen = await view.look(self.environment(file, instance))
        if seen.observed.environment is None and not file.is_file():
            raise NotUpError(f"there is no {file.relative_to(self.root)}, and no environment of it", remedy="make a new experiment")
        return seen

    async def plan(
        self,
        file: Path,
        instance: str,
        *,
        strict: bool = False,
        parameters: Mapping[str, object] | None = None,
        provider: str | None = None,
    ) -> dict[str, Any]:
        """What `up` would do."""
        environment = Environment(file, instance=instance, parameters=parameters, provider=provider)
        plan, observed = await environment.planned(strict=strict)
        return plan_json(plan, lost(plan, observed))

    async def down(self, file: Path, instance: str, *, force: bool, gather: bool) -> Task:
        """Tear an environment down; ports of its nodes that are open here close."""
        await self.nodes.close_ports(file, instance)
        return await self.tasks.down(file, instance, force=force, gather=gather)

    async def set_link(self, file: Path, instance: str, name: str, way: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change what links do; gives the plan that was carried out."""
        async with self.changing(file, instance):
            plan = await self.environment(file, instance).set_link(name, way=way, **changes)
        self._look_again(file, instance)
        return plan_json(plan, [])

    async def inflict(self, file: Path, instance: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Inflict a fault, as the route of that takes it."""
        faults, kind, targets = self.environment(file, instance).fault, asked["kind"], asked["targets"]
        if kind != "partition" and len(targets) > 1:
            raise PlanError(f"{kind} takes one target", remedy="join selectors with commas: client,server")
        duration = asked.get("for")
        if kind == "kill":
            killed = await faults.kill(targets[0], duration=duration)
            self._look_again(file, instance)
            return {"nodes": killed}
        if kind == "partition":
            fault = await faults.partition(*targets, duration=duration)
        elif kind == "pause":
            fault = await faults.pause(targets[0], duration=duration)
        elif kind == "slow":
            fault = await faults.slow(targets[0], cpu=_needed(asked, "cpu", "such as 20%"), duration=duration)
        else:
            cycle = {name: _needed(asked, name, "a duration, such as 2s") for name in ("every", "down")}
            fault = await faults.flap(targets[0], **cycle, duration=duration)
        self._look_again(file, instance)
        return {"id": fault.id, "nodes": list(fault.fault.nodes), "fault": view.fault_json(fault.fault)}

    async def undo(self, file: Path, instance: str, id_: str | None) -> dict[str, Any]:
        """Undo a fault, or all; gives what was undone."""
        undone = await self.environment(file, instance).fault.undo(id_)
        self._look_again(file, instance)
        return {item.id: view.fault_json(item) for item in undone}

    async def extend(self, file: Path, instance: str, duration: float | str) -> float:
        """Hold an environment for longer; gives when its lease ends."""
        async with self.changing(file, instance):
            end = await self.environment(file, instance).extend_lease(duration)
        self._look_again(file, instance)
        return end

    def changing(self, file: Path, instance: str) -> asyncio.Lock:
        """What one client changes here waits for what another does, in place of being refused."""
        return self._locks.setdefault((file, instance), asyncio.Lock())

    async def entries(self, file: Path, **wanted: Any) -> list[LogEntry]:
        """A part of the journal, as `Journal.entries` gives it; nothing where there is none yet."""
        journal = await asyncio.to_thread(self.journal, file)
        return await asyncio.to_thread(journal.entries, **wanted) if journal else []

    def journal(self, file: Path) -> Journal | None:
        """The journal of a file, unless there is none: looking does not make one. Blocking."""
        with self._opening:
            return self._journal(file)

    def _journal(self, file: Path) -> Journal | None:
        if os.environ.get("WARDIAN_JOURNAL"):
            return self.environment(file, "default").journal
        try:
            inode = (file.parent / FOLDER / "journal.db").stat().st_ino
        except OSError:
            return None
        if self._inodes.setdefault(file, inode) != inode:
            # it was removed and is there anew; what is open is the one that is gone
            self._inodes[file] = inode
            for environment in [item for (of, _), item in self._environments.items() if of == file]:
                environment.close()
        return self.environment(file, "default").journal

    async def join(self, file: Path, instance: str, path: str) -> Reader:
        """A reader of what happens to an environment. path: what its file is called there."""
        key = file, instance
        if key not in self._watches:
            self._watches[key] = Watch(
                self.environment(file, instance),
                path,
                entries=partial(self.entries, file),
                told=self.entry,
                own=lambda: {"tasks": self.tasks.of(file, instance), "ports": self.nodes.ports_by_id(file, instance)},
                over=partial(self._forget, key),
            )
        return await self._watches[key].join()

    def touch(self, file: Path, instance: str) -> None:
        """What this server does for an environment has changed."""
        if watch := self._watches.get((file, instance)):
            watch.touch()

    def _look_again(self, file: Path, instance: str) -> None:
        if watch := self._watches.get((file, instance)):
            watch.look()

    def _forget(self, key: tuple[Path, str]) -> None:
        del self._watches[key]

    async def leave(self, reader: Reader) -> None:
        """A reader has gone."""
        reader.watch.leave(reader)

    async def stir(self, watch: Watch) -> None:
        """Have an environment looked at again."""
        watch.look()

    def entry(self, entry: LogEntry) -> dict[str, Any]:
        """An entry of the journal as answers have it; a notebook below the root by its path there."""
        detail = {key: value for key, value in entry.detail.items() if key not in ("session", "request", "source_digest")}
        notebook = detail.get("notebook")
        if notebook and Path(notebook).is_relative_to(self.root):
            detail["notebook"] = Path(notebook).relative_to(self.root).as_posix()
        if len(detail.get("source") or "") > LONGEST_SOURCE:
            detail["source"] = detail["source"][:LONGEST_SOURCE] + "…"
        keys = ("id", "kind", "started", "ended", "status", "environment", "run", "summary", "error")
        return without_null({**{key: getattr(entry, key) for key in keys}, "nodes": list(entry.nodes), "detail": detail})


def _needed(asked: Mapping[str, Any], name: str, expected: str) -> Any:
    if name not in asked:
        raise PlanError(f"{asked['kind']} needs {name}", remedy=expected)
    return asked[name]


def plan_json(plan: Plan, removes: Sequence[str]) -> dict[str, Any]:
    """A plan as answers have it."""
    return {"digest": plan.digest, "text": plan.text(), "summary": plan.summary(), "removes": list(removes), **plan.to_json()}
