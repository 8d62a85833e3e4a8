"""`environment.fault`: how scripts inflict faults, for a time, until they are undone, or as long as a `with` lasts."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import PlanError, SelectorError
from ..experiment.units import as_seconds, parse_fraction
from . import faults, keeper
from .faults import InForce
from .live import LiveEnvironment, environments

if TYPE_CHECKING:
    from .environment import Environment

Make = Callable[[LiveEnvironment, bool], InForce]
"""Makes a fault for an environment; told whether it ends with this process."""


class Inflicted:
    """A fault that was inflicted. As a context it is undone at the end, and when this process dies before that."""

    def __init__(self, environment: Environment, fault: InForce) -> None:
        self._environment = environment
        self.fault = fault

    @property
    def id(self) -> str:
        """As `wardian fault ls` shows it."""
        return self.fault.id

    async def undo(self) -> None:
        """Undo it, unless that has happened. Safe to repeat."""
        await self._environment.fault.undo(self.id, missing_ok=True)

    async def hold(self) -> None:
        """From now on, have it end with this process."""
        live = await self._environment.live()
        self.fault = await faults.hold(live.provider, live.record.id, self.fault)
        await keeper.ensure(live.provider, live.record.id, True)

    async def __aenter__(self) -> Inflicted:
        await self.hold()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.undo()

    def __repr__(self) -> str:
        return f"<fault {self.id}: {self.fault.text()}>"


class Inflicting:
    """A fault to come: `await` inflicts it, `async with` also undoes it at the end."""

    def __init__(self, start: Callable[[bool], Awaitable[Inflicted]]) -> None:
        self._start = start
        self._inflicted: Inflicted | None = None

    def __await__(self) -> Generator[Any, None, Inflicted]:
        return self._start(False).__await__()

    async def __aenter__(self) -> Inflicted:
        self._inflicted = await self._start(True)
        return self._inflicted

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._inflicted is not None:
            await self._inflicted.undo()


class Faults:
    """What can be inflicted on an environment.

    duration: seconds, or as in the file ("30s"); None until it is undone. Each raises NotUpError, SelectorError naming what exists,
    NodeDownError, and ProviderError where the provider cannot do it.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def partition(self, *sides: str, duration: float | str | None = None) -> Inflicting:
        """Have nodes of different sides hear nothing from each other. sides: selectors; one alone separates each of its nodes."""
        seconds = _seconds(duration)
        return self._inflicting(lambda live, held: faults.partition(live, sides, seconds, held))

    def pause(self, selector: str, *, duration: float | str | None = None) -> Inflicting:
        """Have every process of these nodes stand still."""
        seconds = _seconds(duration)
        return self._inflicting(lambda live, held: faults.on_nodes(live, "pause", selector, {}, seconds, held))

    def slow(self, selector: str, *, cpu: float | str, duration: float | str | None = None) -> Inflicting:
        """Leave these nodes a share of the processors that they otherwise have. cpu: a fraction, or "20%"."""
        seconds, share = _seconds(duration), parsed("cpu", parse_fraction, cpu)
        return self._inflicting(lambda live, held: faults.on_nodes(live, "slow", selector, {"cpu": share}, seconds, held))

    def flap(self, link: str, *, every: float | str, down: float | str, duration: float | str | None = None) -> Inflicting:
        """Have links lose their carrier again and again. link: as for `set_link`. every: from one loss to the next; down: how long each."""
        seconds, cycle, lost = _seconds(duration), parsed("every", as_seconds, every), parsed("down", as_seconds, down)
        return self._inflicting(lambda live, held: faults.flap(live, link, cycle, lost, seconds, held))

    async def kill(self, selector: str, *, duration: float | str | None = None) -> list[str]:
        """End all that runs on these nodes at once, as a power cut does. Gives their names.

        After `duration` they are made anew, as they were; without it by `up`.
        """
        seconds = _seconds(duration)
        live = await self._environment.live()
        if seconds is not None:
            await keeper.ensure(live.provider, live.record.id, True)
        killed = await faults.kill(live, selector, self._environment.journal, seconds)
        await keeper.request(live.record.id, {"op": "look"})
        return killed

    async def in_force(self) -> list[InForce]:
        """The faults in force, the oldest first."""
        live = await self._environment.live()
        return await faults.in_force(live.provider, live.record.id)

    async def undo(self, id_: str | None = None, *, missing_ok: bool = False) -> list[InForce]:
        """Undo one fault by its id, or all; gives what was undone. Raises SelectorError for one that is not in force."""
        live = await self._environment.live()
        journal, why = self._environment.journal, "undone"
        if id_ is None:
            return await faults.undo_all(live.provider, live.record.id, why, journal)
        ended = await faults.undo(live.provider, live.record.id, {id_: why}, journal)
        if not ended and not missing_ok:
            known = ", ".join(item.id for item in await faults.in_force(live.provider, live.record.id))
            raise SelectorError(f"no fault {id_!r} is in force", remedy=f"there are {known}" if known else "none is")
        return ended

    def _inflicting(self, make: Make) -> Inflicting:
        async def start(held: bool) -> Inflicted:
            live = await self._environment.live()
            fault = make(live, held)
            provider, environment = live.provider, live.record.id
            if fault.until is not None or held or fault.fault.kind == "flap":
                # there before the fault is, so that it ends whatever happens to us
                await keeper.ensure(provider, environment, True)
            fault = await faults.inflict(live, fault, self._environment.journal)
            await keeper.request(environment, {"op": "look"})
            return Inflicted(self._environment, fault)

        return Inflicting(start)


async def settle() -> list[str]:
    """Undo, in every environment, the faults that are over and that nothing has undone; gives one line for each."""
    from .environment import open_journal

    lines = []
    for record, provider in await environments():
        before = {item.id: item.text() for item in await faults.in_force(provider, record.id)}
        if before:
            path = Path(record.file)
            await faults.tend(provider, record.id, functools.partial(open_journal, path))
            left = {item.id for item in await faults.in_force(provider, record.id)}
            lines += [f"fault {text} of environment {record.id}, which was over" for id_, text in before.items() if id_ not in left]
    return lines


def _seconds(duration: float | str | None) -> float | None:
    return None if duration is None else parsed("duration", as_seconds, duration)


def parsed(name: str, parse: Callable[[object], float], value: object) -> float:
    """A value as the file has it. Raises PlanError naming what it is for."""
    try:
        return parse(value)
    except ValueError as error:
        raise PlanError(f"{name}: {value!r} is not {error}") from None
