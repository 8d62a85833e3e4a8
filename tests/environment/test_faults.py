"""Faults: what inflicts them leaves a note first, and whoever comes next can undo them."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time

import pytest

from wardian.environment import faults, keeper
from wardian.errors import NodeDownError, PlanError, ProviderError, SelectorError


@pytest.fixture(autouse=True)
def no_keeper(monkeypatch):
    """A keeper is another process, for which this memory is not there; what it does is called by hand."""

    async def nothing(*_):
        return None

    monkeypatch.setattr(keeper, "ensure", nothing)
    monkeypatch.setattr(keeper, "revive", nothing)


@pytest.fixture
async def up(environment):
    """The environment, up: server, client[0], client[1]."""
    await environment.up()
    return environment


async def tend(up):
    """What the keeper does when it wakes."""
    live = await up.live()
    return await faults.tend(live.provider, live.record.id, lambda: up.journal)


def suffered(cloud):
    return {(kind, target): len(found) for (_, kind, target), found in cloud.suffered.items()}


def events(up, kind):
    return [entry.detail for entry in up.journal.entries(kinds=["event"]) if entry.summary.startswith(kind)]


@pytest.fixture(autouse=True)
def journal_stays_open(monkeypatch):
    """`tend` closes the journal that it opens; here that is the test's own."""
    monkeypatch.setattr(faults, "closing", lambda journal: _Open(journal))


class _Open:
    def __init__(self, journal):
        self.journal = journal

    def __enter__(self):
        return self.journal

    def __exit__(self, *_):
        pass


async def test_fault_until_undone(up, cloud):
    """A fault without a duration is in force until it is undone, and the journal tells both."""
    inflicted = await up.fault.pause("client[0]")
    assert suffered(cloud) == {("pause", "client[0]"): 1}
    assert [item.id for item in await up.fault.in_force()] == [inflicted.id]
    await inflicted.undo()
    await inflicted.undo()
    assert suffered(cloud) == {}
    assert await up.fault.in_force() == []
    (begun,), (ended,) = events(up, "fault.begun"), events(up, "fault.ended")
    assert begun["fault"] == ended["fault"] == inflicted.id
    assert ended["from"] <= ended["to"]
    assert ended["why"] == "undone"


async def test_context(up, cloud):
    """In an `async with` the fault is held by this process, and undone at the end, also after an error."""

    async def fail():
        async with up.fault.slow("client", cpu="20%") as inflicted:
            assert inflicted.fault.holder
            assert suffered(cloud) == {("slow", "client[0]"): 1, ("slow", "client[1]"): 1}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert suffered(cloud) == {}


async def test_overlapping_faults(up, cloud):
    """Undoing one of two faults of a node leaves the other in force."""
    first, second = await up.fault.pause("client[0]"), await up.fault.pause("client")
    await first.undo()
    assert suffered(cloud) == {("pause", "client[0]"): 1, ("pause", "client[1]"): 1}
    await second.undo()
    assert suffered(cloud) == {}


async def test_duration(up, cloud, monkeypatch):
    """What is over is undone by whoever tends, not before, and the moment for it is told."""
    inflicted = await up.fault.pause("server", duration=30)
    moment, holders = await tend(up)
    assert moment == inflicted.fault.until
    assert holders == []
    assert suffered(cloud) == {("pause", "server"): 1}
    now = time.time()
    monkeypatch.setattr(faults.time, "time", lambda: now + 31)
    assert await tend(up) == (None, [])
    assert suffered(cloud) == {}
    assert events(up, "fault.ended")[0]["why"] == "its time is over"


async def test_holder_that_died(up, cloud):
    """A fault that a process holds is undone once that has died."""
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    inflicted = await up.fault.pause("server")
    live = await up.live()
    held = dataclasses.replace(inflicted.fault, holder=faults.process_identity(holder.pid))
    await live.provider.note(live.record.id, "server", faults.NOTE + held.id, held.note())
    assert await tend(up) == (None, [holder.pid])
    assert suffered(cloud)
    await holder.communicate(b"\n")
    assert await tend(up) == (None, [])
    assert suffered(cloud) == {}


@pytest.mark.parametrize("step", ["note", "inflict", "record"])
async def test_cut_short_at_any_step(up, cloud, monkeypatch, step):
    """Whatever ends the inflicting, either nothing is in force or a note says so, and undoing cleans up."""
    live = await up.live()

    async def died(*_):
        raise asyncio.CancelledError

    def died_recording(*_):
        raise asyncio.CancelledError

    fault = faults.on_nodes(live, "pause", "client", {}, None, False)
    with monkeypatch.context() as patch:
        # what a killed process would still have done is nothing
        patch.setattr(faults, "_lift", died)
        if step == "inflict":
            patch.setattr(type(live.provider), "inflict", died)
        elif step == "record":
            patch.setattr(faults, "_record", died_recording)
        else:
            patch.setattr(faults, "_bring_about", died)
        with pytest.raises(asyncio.CancelledError):
            await faults.inflict(live, fault, up.journal)
    assert [item.id for item in await up.fault.in_force()] == [fault.id]
    await up.fault.undo()
    assert suffered(cloud) == {}
    assert await up.fault.in_force() == []


async def test_undo_cut_short(up, cloud, monkeypatch):
    """When undoing is cut short the note stays, and undoing again finishes it."""
    await up.fault.pause("client")
    with monkeypatch.context() as patch:

        async def died(*_):
            raise asyncio.CancelledError

        patch.setattr(faults, "_note", died)
        with pytest.raises(asyncio.CancelledError):
            await up.fault.undo()
    assert len(await up.fault.in_force()) == 1
    await up.fault.undo()
    assert suffered(cloud) == {}
    assert await up.fault.in_force() == []


async def test_failure_leaves_nothing(up, cloud, monkeypatch):
    """A fault that the provider cannot inflict leaves neither a note nor a part of it."""
    provider = (await up.live()).provider

    async def refuse(self, environment, kind, targets, wanted):
        if wanted:
            raise ProviderError("no")

    monkeypatch.setattr(type(provider), "inflict", refuse)
    with pytest.raises(ProviderError):
        await up.fault.pause("client")
    assert await up.fault.in_force() == []
    assert events(up, "fault") == []


async def test_partition_sides(up, cloud):
    """Two sides are deaf to each other only; one selector separates each of its nodes from the others."""
    two = await up.fault.partition("client", "server")
    addresses = {name: list(view.addresses.values()) for name, view in (await up.live()).nodes.items()}
    assert two.fault.fault.values["deaf"]["client[0]"] == addresses["server"]
    assert two.fault.fault.values["deaf"]["server"] == addresses["client[0]"] + addresses["client[1]"]
    each = await up.fault.partition("client")
    assert each.fault.fault.values["deaf"] == {"client[0]": addresses["client[1]"], "client[1]": addresses["client[0]"]}


async def test_flap_phases(up, cloud, monkeypatch):
    """A flapping link is down at first, up later, and down again a cycle on; at the end it is up."""
    inflicted = await up.fault.flap("wan", every=2, down=0.5, duration=10.0)
    began = inflicted.fault.began
    seen = []
    for after in (0.1, 0.6, 1.9, 2.1, 2.6):
        monkeypatch.setattr(faults.time, "time", lambda after=after: began + after)
        moment, _ = await tend(up)
        seen.append((bool(suffered(cloud)), round(moment - began, 3)))
    assert seen == [(True, 0.5), (False, 2.0), (False, 2.0), (True, 2.5), (False, 4.0)]
    monkeypatch.setattr(faults.time, "time", lambda: began + 4.1)
    await tend(up)
    assert suffered(cloud) == {("flap", "wan"): 1}
    monkeypatch.setattr(faults.time, "time", lambda: began + 10.1)
    assert await tend(up) == (None, [])
    assert suffered(cloud) == {}


async def test_kill(up, cloud):
    """A killed node is stopped, and `up` makes it anew."""
    assert await up.fault.kill("client[1]") == ["client[1]"]
    assert (await up.live()).nodes["client[1]"].state == "stopped"
    with pytest.raises(NodeDownError):
        await up.fault.pause("client")
    await up.up()
    assert (await up.live()).nodes["client[1]"].state == "ready"


async def test_down_undoes(up, cloud):
    """`down` undoes what is in force before it collects."""
    await up.fault.pause("server")
    await up.down()
    assert events(up, "fault.ended")[0]["why"] == "wardian down"
    assert suffered(cloud) == {}


async def test_what_is_refused(up):
    """Wrong sides, shares, durations, cycles and ids are errors that say what was wrong."""
    for work, error, words in (
        (lambda: up.fault.partition("client", "client[0]"), SelectorError, "two sides"),
        (lambda: up.fault.partition("server"), SelectorError, "one node"),
        (lambda: up.fault.pause("nobody"), SelectorError, "nobody"),
        (lambda: up.fault.slow("server", cpu="0%"), PlanError, "slowed"),
        (lambda: up.fault.slow("server", cpu="much"), PlanError, "cpu: 'much'"),
        (lambda: up.fault.pause("server", duration="soon"), PlanError, "duration: 'soon'"),
        (lambda: up.fault.pause("server", duration="30"), PlanError, "duration: '30'"),
        (lambda: up.fault.pause("server", duration=-1), PlanError, "duration: -1 is not a number of seconds"),
        (lambda: up.fault.flap("wan", every="1s", down="1s"), PlanError, "--every 2s --down 500ms"),
        (lambda: up.fault.flap("nothing", every="2s", down="1s"), SelectorError, "nothing"),
        (lambda: up.fault.undo("abcdef"), SelectorError, "abcdef"),
    ):
        with pytest.raises(error, match=words):
            await work()


async def test_provider_without_faults(up, monkeypatch):
    """A provider that knows no faults says so, with those that it knows."""
    provider = (await up.live()).provider
    monkeypatch.setattr(type(provider), "faults", frozenset({"kill"}))
    with pytest.raises(ProviderError, match="knows no pause") as caught:
        await up.fault.pause("server")
    assert "kill" in caught.value.remedy
