"""Carrying out a plan: a DAG of operations, as many at once as depend on nothing that is still to come.

Every operation is in the journal before it starts and after it ended. It may be interrupted anywhere; planning and applying again
finishes the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WardianError
from ..experiment.plan import Operation, Plan
from ..providers.base import Progress, Provider
from . import faults, services

if TYPE_CHECKING:
    from ..journal import Journal


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened while a plan was carried out.

    state: "started", "done", "failed", "skipped" for the operation, or the provider's own word about one of its `resource`s.
    """

    operation: Operation
    state: str
    resource: str = ""
    error: str = ""


Listener = Callable[[Event], None]


async def apply(plan: Plan, provider: Provider, environment: str, instance: str, folder: Path, journal: Journal, listen: Listener) -> None:
    """Carry out `plan`.

    folder: that of the experiment file, where sources of files are.
    Raises the first error once everything that could go on has ended; what depended on a failed operation was not begun.
    """
    tasks: dict[int, asyncio.Task[None]] = {}

    async def run(operation: Operation) -> None:
        before = [tasks[number] for number in operation.after]
        if before:
            await asyncio.wait(before)
            if any(task.cancelled() or task.exception() for task in before):
                listen(Event(operation, "skipped"))
                raise _Skipped
        entry = journal.operation(
            environment=environment,
            instance=instance,
            action=operation.action,
            kind=operation.kind,
            targets=operation.names,
            reason=operation.reason,
        )
        listen(Event(operation, "started"))
        try:
            await _carry_out(operation, provider, environment, folder, lambda name, state: listen(Event(operation, state, name)))
        except asyncio.CancelledError:
            entry.done("cancelled")
            raise
        except WardianError as error:
            entry.done("failed", str(error))
            listen(Event(operation, "failed", error=str(error)))
            raise
        entry.done("ok")
        listen(Event(operation, "done"))

    for operation in plan.operations:
        tasks[operation.id] = asyncio.create_task(run(operation))
    try:
        outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
    except asyncio.CancelledError:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        raise
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, _Skipped):
            raise outcome


class _Skipped(Exception):
    """Something that the operation needs failed."""


async def _carry_out(operation: Operation, provider: Provider, environment: str, folder: Path, progress: Progress) -> None:
    if operation.kind in services.KINDS:
        if operation.action == "delete":
            await services.remove(provider, environment, operation.targets, progress)
        else:
            await services.put(provider, environment, folder, operation.targets, progress)
    elif operation.action == "create":
        await provider.create(environment, operation.targets, progress)
    elif operation.action == "update":
        await provider.update(environment, operation.targets, progress)
        if operation.kind == "node":
            await faults.renew(provider, environment, operation.names)
    elif operation.action == "reboot":
        await provider.reboot(environment, operation.targets, progress, **operation.how)
    elif operation.action == "rebuild":
        await provider.rebuild(environment, operation.targets, progress, **operation.how)
    else:
        await provider.delete(environment, [target.key for target in operation.targets], progress)
