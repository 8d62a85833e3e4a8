"""Growing and tearing down as tasks of the server: they go on when the browser has left, and whoever asks again joins."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...environment.apply import Event
from ...environment.environment import Environment
from ...environment.view import without_null
from ...errors import BusyError, SelectorError, WardianError
from ...experiment.plan import Plan, compact
from .handler import error_json

KEPT = 20
"""How many tasks that have ended are remembered."""

DONE = ("done", "ready", "removed")
"""Words about a resource after which nothing more is said of it."""


class PlanChanged(Exception):
    """What would be done now is not what was agreed to; `plan` is what it would be, as `plan_json` gives it."""

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__()
        self.plan = plan


@dataclass(frozen=True)
class Growth:
    """How an environment is to be grown."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    provider: str | None = None
    strict: bool = False


@dataclass
class Task:
    """One that runs, or ran. state: "running", "done", "failed" or "cancelled"."""

    kind: str
    file: Path
    instance: str
    growth: Growth = Growth()
    digest: str | None = None
    removes: frozenset[str] = frozenset()
    force: bool = False
    gather: bool = True
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    state: str = "running"
    started: float = field(default_factory=time.time)
    ended: float | None = None
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    work: asyncio.Task[None] | None = None

    def to_json(self) -> dict[str, Any]:
        """As readers have it. operations: by number, each with its state and the words about resources that are not done."""
        keys = ("id", "kind", "instance", "state", "started", "ended", "operations", "error", "result")
        return without_null({**{key: getattr(self, key) for key in keys}, "words": self.words or None})


class Tasks:
    """Those of a server.

    changed, over: called with the file and instance of whose tasks one has changed, or ended. plan_json: a plan as answers have it.
    """

    def __init__(
        self,
        changed: Callable[[Path, str], None],
        over: Callable[[Path, str], None],
        plan_json: Callable[[Plan, Sequence[str]], dict[str, Any]],
    ) -> None:
        self._changed, self._over, self._plan_json = changed, over, plan_json
        self._tasks: dict[str, Task] = {}

    def of(self, file: Path, instance: str) -> dict[str, dict[str, Any]]:
        """Those of one environment, by id."""
        return {task.id: task.to_json() for task in self._tasks.values() if (task.file, task.instance) == (file, instance)}

    def get(self, id_: str) -> Task:
        """One by its id. Raises SelectorError."""
        if id_ not in self._tasks:
            raise SelectorError(f"there is no task {id_!r}", remedy="tasks that have ended are forgotten after some others")
        return self._tasks[id_]

    async def up(self, file: Path, instance: str, growth: Growth, digest: str) -> Task:
        """Grow what a plan says that was shown. Raises PlanChanged where it would be another now, and what `Environment.up` raises."""
        running = self._running(file, instance)
        if running is not None and (running.kind, running.digest) == ("up", digest):
            return running
        return await self._begin(Task("up", file, instance, growth, digest))

    async def down(self, file: Path, instance: str, *, force: bool, gather: bool) -> Task:
        """Collect and tear down."""
        running = self._running(file, instance)
        if running is not None and running.kind == "down":
            return running
        return await self._begin(Task("down", file, instance, force=force, gather=gather))

    async def retry(self, task: Task) -> Task:
        """Do again what has failed or was cut short. Raises PlanChanged where it would remove what was not to be removed."""
        running = self._running(task.file, task.instance)
        if running is not None:
            return running
        again = Task(task.kind, task.file, task.instance, task.growth, None, task.removes, task.force, task.gather)
        return await self._begin(again)

    async def cancel(self, task: Task) -> None:
        """Stop a task, and return when it has let go; `up` finishes what it leaves."""
        if task.work is not None and not task.work.done():
            task.work.cancel()
            await asyncio.wait([task.work])

    def _running(self, file: Path, instance: str) -> Task | None:
        return next((task for task in self._tasks.values() if (task.file, task.instance, task.state) == (file, instance, "running")), None)

    async def _begin(self, task: Task) -> Task:
        """Start a task; return once it is known that it does what was asked for, or has ended."""
        running = self._running(task.file, task.instance)
        if running is not None:
            raise BusyError(f"`wardian {running.kind}` is running, started here", remedy="wait for its end, or cancel it")
        agreed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks[task.id] = task
        task.work = asyncio.create_task(self._grow(task, agreed) if task.kind == "up" else self._tear_down(task, agreed))
        task.work.add_done_callback(lambda done: self._ended(task, done, agreed))
        try:
            await asyncio.shield(agreed)
        except (PlanChanged, WardianError):
            # nothing was begun, so there is nothing to remember
            self._tasks.pop(task.id, None)
            raise
        finally:
            self._changed(task.file, task.instance)
        return task

    async def _grow(self, task: Task, agreed: asyncio.Future[None]) -> None:
        environment = Environment(task.file, instance=task.instance, parameters=task.growth.parameters, provider=task.growth.provider)

        def confirm(plan: Plan, removes: Sequence[str]) -> bool:
            same = plan.digest == task.digest if task.digest is not None else set(removes) <= task.removes
            if not same:
                agreed.set_exception(PlanChanged(self._plan_json(plan, removes)))
                return False
            task.removes = frozenset(removes)
            task.operations = {
                str(item.id): {
                    "action": item.action,
                    "kind": item.kind,
                    "targets": compact(item.names),
                    "count": len(item.targets),
                    "reason": item.reason,
                    "state": "waiting",
                    "resources": {},
                }
                for item in plan.operations
            }
            agreed.set_result(None)
            return True

        try:
            plan = await environment.up(strict=task.growth.strict, confirm=confirm, listen=lambda event: self._heard(task, event))
            if not agreed.done() and task.digest not in (None, plan.digest):
                agreed.set_exception(PlanChanged(self._plan_json(plan, [])))
            task.result = {"summary": plan.summary()}
        finally:
            await asyncio.to_thread(environment.close)

    async def _tear_down(self, task: Task, agreed: asyncio.Future[None]) -> None:
        environment = Environment(task.file, instance=task.instance)

        def listen(name: str, state: str) -> None:
            task.words[name] = state
            self._changed(task.file, task.instance)

        agreed.set_result(None)
        try:
            down = await environment.down(force=task.force, gather=task.gather, listen=listen)
            task.result = {"existed": down.existed, "collected": len(down.collected)}
        finally:
            task.words.clear()
            await asyncio.to_thread(environment.close)

    def _heard(self, task: Task, event: Event) -> None:
        operation = task.operations[str(event.operation.id)]
        if not event.resource:
            operation["state"] = event.state
            operation["started" if event.state == "started" else "ended"] = time.time()
            if event.error:
                operation["error"] = event.error
            if event.state == "done":
                operation["resources"] = {}
        elif event.state in DONE:
            operation["resources"].pop(event.resource, None)
        else:
            operation["resources"][event.resource] = event.state
        self._changed(task.file, task.instance)

    def _ended(self, task: Task, done: asyncio.Task[None], agreed: asyncio.Future[None]) -> None:
        task.ended = time.time()
        error = None if done.cancelled() else done.exception()
        task.state = "cancelled" if done.cancelled() else "failed" if error else "done"
        if isinstance(error, WardianError):
            task.error = error_json(error)
        elif error is not None:
            task.error = {"message": f"{type(error).__name__}: {error}", "kind": type(error).__name__}
        if not agreed.done():
            if error is not None:
                agreed.set_exception(error)
            else:
                agreed.set_result(None)
        # looked at here, so that nobody complains of an error that nobody asked for
        agreed.exception()
        ended = [other.id for other in self._tasks.values() if other.state != "running"]
        for id_ in ended[: max(0, len(ended) - KEPT)]:
            del self._tasks[id_]
        self._over(task.file, task.instance)
