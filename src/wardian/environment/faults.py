"""Faults as steps of an experiment: inflicted, found again, and always undone.

A fault in force is a note with each node that it concerns, written before it is inflicted and removed after it was undone; so whatever
dies in between, the notes say what is in force. Undoing is having the provider bring its targets to the faults that are left.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from typing import Any

from ..errors import NodeDownError, PlanError, ProviderError, SelectorError, WardianError
from ..experiment.units import format_duration, format_fraction
from ..journal import Journal
from ..paths import state_folder, user_name
from ..providers.base import Fault, Provider
from ..providers.local.kernel import is_running, process_identity
from . import links
from .live import LiveEnvironment

NOTE = "fault:"
"""What the name of a fault's note begins with; its id follows."""

SHORTEST = 0.05
"""The shortest that a link may be up or down while it flaps, seconds."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A fault that is in force.

    nodes: those whose notes tell of it. began, until: seconds since the epoch; until None: until it is undone.
    holder: identity of the process with which it ends, or None. by: who asked for it.
    """

    fault: Fault
    nodes: tuple[str, ...]
    began: float
    until: float | None
    holder: Mapping[str, Any] | None
    by: str

    @property
    def id(self) -> str:
        return self.fault.id

    def over(self, now: float) -> str | None:
        """Why it has to end now, or None."""
        if self.until is not None and self.until <= now:
            return "its time is over"
        if self.holder is not None and not is_running(dict(self.holder)):
            return "the process that held it ended"
        return None

    def phase(self, now: float) -> tuple[bool, float]:
        """Of a flapping link: whether it is down, and when that changes, seconds since the epoch."""
        every, down = self.fault.values["every"], self.fault.values["down"]
        cycle = self.began + max(0.0, now - self.began) // every * every
        return (True, cycle + down) if now < cycle + down else (False, cycle + every)

    def from_now(self) -> InForce:
        """The same, beginning now."""
        now = time.time()
        return replace(self, began=now, until=None if self.until is None else now + self.until - self.began)

    def text(self) -> str:
        """What it is, in words."""
        values, targets = self.fault.values, ", ".join(self.fault.targets)
        if self.fault.kind == "partition":
            return "partition " + " | ".join(", ".join(side) for side in values["sides"])
        if self.fault.kind == "slow":
            return f"slow {targets} to {format_fraction(values['cpu'])}"
        if self.fault.kind == "flap":
            return f"flap {targets}, every {format_duration(values['every'])} down for {format_duration(values['down'])}"
        return f"{self.fault.kind} {targets}"

    def note(self) -> dict[str, Any]:
        fault = {"kind": self.fault.kind, "targets": list(self.fault.targets), "values": dict(self.fault.values)}
        return {**fault, "nodes": list(self.nodes), "began": self.began, "until": self.until, "holder": self.holder, "by": self.by}

    @staticmethod
    def read(id_: str, note: Mapping[str, Any]) -> InForce:
        fault = Fault(id_, note["kind"], tuple(note["targets"]), note["values"])
        return InForce(fault, tuple(note["nodes"]), note["began"], note["until"], note["holder"], note["by"])


def new(
    kind: str, targets: Sequence[str], nodes: Sequence[str], values: Mapping[str, Any], duration: float | None, *, held: bool = False
) -> InForce:
    """A fault to be inflicted. duration: seconds. held: it ends with this process."""
    began = time.time()
    until = began + duration if duration is not None else None
    holder = process_identity(os.getpid()) if held else None
    by = f"{user_name()}@{socket.gethostname()} (process {os.getpid()})"
    return InForce(Fault(secrets.token_hex(3), kind, tuple(targets), dict(values)), tuple(nodes), began, until, holder, by)


async def in_force(provider: Provider, environment: str) -> list[InForce]:
    """The faults that notes tell of, the oldest first."""
    found: dict[str, InForce] = {}
    for notes in (await provider.notes(environment)).values():
        for name, note in notes.items():
            if name.startswith(NOTE):
                found.setdefault(name, InForce.read(name.removeprefix(NOTE), note))
    return sorted(found.values(), key=lambda item: (item.began, item.id))


async def inflict(live: LiveEnvironment, fault: InForce, journal: Journal) -> InForce:
    """Inflict it, and give it with the times that are its own. Raises ProviderError or NodeDownError, with nothing of it left."""
    provider, environment = live.provider, live.record.id
    if fault.fault.kind not in provider.faults:
        able = ", ".join(sorted(provider.faults)) or "none"
        raise ProviderError(f"{provider.name} knows no {fault.fault.kind}", remedy=f"the faults that it can inflict: {able}")
    if fault.fault.kind != "flap" and (dead := [node for node in fault.nodes if live.nodes[node].state != "ready"]):
        raise NodeDownError(dead[0], "the node is not running", remedy="`wardian up` makes it anew.")
    async with _alone(environment):
        try:
            fault = fault.from_now()
            for node in fault.nodes:
                await provider.note(environment, node, NOTE + fault.id, fault.note())
            await _bring_about(provider, environment, [fault.fault], await in_force(provider, environment))
            if fault.until is not None:
                # what the inflicting took is no part of its time
                fault = fault.from_now()
                await _note(provider, environment, fault, fault.note())
        except BaseException:
            # what is half done is taken back, also when this is cut short
            await asyncio.shield(_lift(provider, environment, [fault]))
            raise
        _record(journal, environment, "fault.begun", fault)
    return fault


async def hold(provider: Provider, environment: str, fault: InForce) -> InForce:
    """Have a fault that is in force end with this process."""
    held = replace(fault, holder=process_identity(os.getpid()))
    async with _alone(environment):
        if fault.id in {item.id for item in await in_force(provider, environment)}:
            await _note(provider, environment, held, held.note())
    return held


async def undo(provider: Provider, environment: str, reasons: Mapping[str, str], journal: Journal) -> list[InForce]:
    """Undo these faults, {id: why}, as far as they are in force; gives those that were. Safe to repeat.

    Raises BusyError where nodes were killed for a time and another command works on the environment.
    """
    async with _alone(environment):
        ended = [item for item in await in_force(provider, environment) if item.id in reasons]
        if killed := [node for item in ended if item.fault.kind == "kill" for node in item.nodes]:
            # which stands on services, and they on this module
            from .anew import make_anew

            await make_anew(provider, environment, killed, journal)
        if ended:
            await _lift(provider, environment, ended, journal, reasons)
        return ended


async def undo_all(provider: Provider, environment: str, why: str, journal: Journal) -> list[InForce]:
    """Undo whatever is in force."""
    return await undo(provider, environment, {item.id: why for item in await in_force(provider, environment)}, journal)


async def free(provider: Provider, environment: str, why: str, journal: Journal, nodes: Collection[str] | None = None) -> None:
    """Undo whatever would be in the way of tearing down, or concerns these nodes; nodes that are killed for a time stay so."""
    found = [item for item in await in_force(provider, environment) if item.fault.kind != "kill"]
    found = [item for item in found if nodes is None or not set(nodes).isdisjoint(item.nodes)]
    await undo(provider, environment, {item.id: why for item in found}, journal)


async def tend(provider: Provider, environment: str, journal: Callable[[], Journal]) -> tuple[float | None, list[int]]:
    """Undo what is over, have links flap. Gives when to do so again (seconds since the epoch) and the processes whose end matters."""
    now = time.time()
    faults = await in_force(provider, environment)
    ended = {item.id: why for item in faults if (why := item.over(now))}
    if ended:
        with closing(journal()) as opened:
            await undo(provider, environment, ended, opened)
    left = [item for item in faults if item.id not in ended]
    flapping = [item for item in left if item.fault.kind == "flap"]
    if flapping:
        async with _alone(environment):
            # asked anew: one that was undone meanwhile must not come back
            current = await in_force(provider, environment)
            await _bring_about(provider, environment, [item.fault for item in flapping], current)
    now = time.time()
    moments = [item.until for item in left if item.until is not None] + [item.phase(now)[1] for item in flapping]
    return min(moments, default=None), [item.holder["pid"] for item in left if item.holder is not None]


async def renew(provider: Provider, environment: str, nodes: Collection[str]) -> None:
    """Slow nodes that changed as before: their share is one of the processors that they have now."""
    async with _alone(environment):
        current = await in_force(provider, environment)
        slowing = [item.fault for item in current if item.fault.kind == "slow" and not set(nodes).isdisjoint(item.nodes)]
        await _bring_about(provider, environment, slowing, current)


def paused(notes: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a node with these notes stands still, and so answers nothing."""
    return any(name.startswith(NOTE) and note["kind"] == "pause" for name, note in notes.items())


async def _lift(
    provider: Provider, environment: str, ended: Sequence[InForce], journal: Journal | None = None, reasons: Mapping[str, str] | None = None
) -> None:
    """Bring about what is left without these, and forget their notes."""
    ids = {item.id for item in ended}
    left = [item for item in await in_force(provider, environment) if item.id not in ids]
    await _bring_about(provider, environment, [item.fault for item in ended], left)
    for item in ended:
        if journal is not None and reasons is not None:
            # before the note goes: cut short here, it is told twice rather than never
            _record(journal, environment, "fault.ended", item, reasons[item.id])
        await _note(provider, environment, item, None)


async def _bring_about(provider: Provider, environment: str, concerned: Sequence[Fault], wanted: Iterable[InForce]) -> None:
    """Have the targets of these faults suffer what is wanted, and no more."""
    now = time.time()
    for kind in dict.fromkeys(fault.kind for fault in concerned if fault.kind != "kill"):
        targets = dict.fromkeys(target for fault in concerned if fault.kind == kind for target in fault.targets)
        active = [item for item in wanted if item.fault.kind == kind and (kind != "flap" or item.phase(now)[0])]
        touching = [item.fault for item in active if targets.keys() & set(item.fault.targets)]
        await provider.inflict(environment, kind, list(targets), touching)


async def _note(provider: Provider, environment: str, fault: InForce, value: Mapping[str, Any] | None) -> None:
    for node in fault.nodes:
        # a node that is gone took its note with it
        with suppress(NodeDownError):
            await provider.note(environment, node, NOTE + fault.id, value)


def _record(journal: Journal, environment: str, kind: str, fault: InForce, why: str | None = None) -> None:
    detail: dict[str, Any] = {"summary": fault.text(), "fault": fault.id, "kind": fault.fault.kind, "targets": list(fault.fault.targets)}
    detail |= {"values": dict(fault.fault.values), "by": fault.by, "from": fault.began, "until": fault.until}
    if why is not None:
        seconds = time.time() - fault.began
        detail |= {"to": fault.began + seconds, "why": why, "summary": f"{fault.text()}: after {seconds:.1f} s, {why}"}
    node = fault.nodes[0] if len(fault.nodes) == 1 else None
    journal.event(environment=environment, kind=kind, node=node, detail=detail)
    journal.flush()


@asynccontextmanager
async def _alone(environment: str) -> AsyncIterator[None]:
    """One process at a time changes the faults of an environment; each holds this for no longer than that takes."""
    folder = state_folder() / "keepers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # the keeper's own lock on this file is of the other kind, and does not meet this one
    descriptor = os.open(folder / f"{environment}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# What each kind of fault is made from


def on_nodes(live: LiveEnvironment, kind: str, selector: str, values: Mapping[str, Any], duration: float | None, held: bool) -> InForce:
    """A pause or a slowing of the nodes that a selector picks. Raises SelectorError, and PlanError for a share that is none."""
    if kind == "slow" and not 0 < values["cpu"] <= 1:
        raise PlanError("a node can be slowed to a share of its processors above 0% and up to 100%", remedy="such as --cpu 20%")
    nodes = live.select(selector)
    return new(kind, nodes, nodes, values, duration, held=held)


def partition(live: LiveEnvironment, sides: Sequence[str], duration: float | None, held: bool) -> InForce:
    """Sides that hear nothing from each other. One side alone: each of its nodes is a side. Raises SelectorError."""
    picked = [live.select(side) for side in sides]
    if len(picked) == 1:
        picked = [[node] for node in picked[0]]
    nodes = [node for side in picked for node in side]
    twice = sorted({node for node in nodes if nodes.count(node) > 1})
    if twice:
        raise SelectorError(f"{', '.join(twice)} would be on two sides", remedy="`partition a b` separates a from b; `!a` is all but a")
    if len(picked) < 2:
        raise SelectorError(f"{' '.join(sides)} is one node, and a partition has two sides", remedy="name the other side: `partition a b`")
    addresses = {node: list(live.nodes[node].addresses.values()) for node in nodes}
    deaf = {node: [address for other in picked if other is not side for name in other for address in addresses[name]]
            for side in picked for node in side}  # fmt: skip
    return new("partition", nodes, nodes, {"sides": picked, "deaf": deaf}, duration, held=held)


def flap(live: LiveEnvironment, name: str, every: float, down: float, duration: float | None, held: bool) -> InForce:
    """Links that lose their carrier again and again. name: as `links.pick` takes it. every, down: seconds. Raises PlanError."""
    if min(down, every - down) < SHORTEST:
        raise PlanError(
            f"every {format_duration(every)} down for {format_duration(down)}: a link is down for at least {format_duration(SHORTEST)}, "
            f"and up for as long before it goes down again",
            remedy="such as --every 2s --down 500ms",
        )
    items = links.pick(live, name)
    # links have no notes; the nodes that they are there for do
    if items[0].kind == "access":
        nodes = [item.spec["node"] for item in items]
    else:
        networks = {network for item in items for network in item.spec["networks"]}
        nodes = [node for node, view in live.nodes.items() if networks & view.addresses.keys()] or list(live.nodes)
    if not nodes:
        raise PlanError(f"{name}: an environment without nodes has nobody to notice", remedy="`wardian up`")
    return new("flap", [item.name for item in items], list(dict.fromkeys(nodes)), {"every": every, "down": down}, duration, held=held)


async def kill(live: LiveEnvironment, selector: str, journal: Journal, duration: float | None = None) -> list[str]:
    """End all that runs on the nodes that a selector picks, at once. Gives their names.

    duration: seconds after which the keeper makes them anew; `up` does so without.
    """
    nodes = live.select(selector)
    if "kill" not in live.provider.faults:
        raise ProviderError(f"{live.provider.name} cannot kill nodes", remedy="end what runs there with `wardian exec`")
    environment = live.record.id
    fault = new("kill", nodes, nodes, {}, duration)
    async with _alone(environment):
        try:
            if duration is not None:
                # there before they are dead, so that they come back whatever happens to us
                await _note(live.provider, environment, fault, fault.note())
            await live.provider.kill(environment, nodes)
        except WardianError as error:
            await _note(live.provider, environment, fault, None)
            journal.event(environment=environment, kind="fault.failed", detail={"summary": f"{fault.text()}: {error.message}"})
            raise
    _record(journal, environment, "fault.begun", fault)
    return nodes
