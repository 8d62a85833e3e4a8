"""Links between hosts, on real OpenSSH servers: what their kernels do to packets, and that they do it to nothing else."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.providers.fabrics import PORT, drain
from tests.providers.sshd import USER, Lab, Machine
from wardian.errors import ProviderError
from wardian.experiment.resources import Observed, Resource
from wardian.providers.local import shaping as local_shaping
from wardian.providers.ssh import SshProvider, SshSettings, inventory, remote, shaping
from wardian.providers.ssh.inventory import Host
from wardian.providers.ssh.routes import Way
from wardian.providers.testing import create, quiet, small_environment, states

pytestmark = pytest.mark.root

SLOW = {"rate": 1_000_000, "queue": {"packets": 20}}
COUNT = 100


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three machines that become nodes, and one beside them."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lab = Lab("10.93.0")
    try:
        for name in ("fern", "moss", "ivy", "other"):
            lab.machine(name)
        yield lab
    finally:
        lab.close()


@pytest.fixture(autouse=True)
def clean(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a state folder of its own, and leaves nothing on any machine."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(lab.runtime))
    yield
    for machine in lab.machines.values():
        machine.start()
        left = (qdiscs(machine), machine.run("ls -A /root /home/*/.cache 2>/dev/null; true").replace("/root:", "").strip())
        machine.run("tc qdisc del dev eth0 root 2>/dev/null; rm -rf /root/.cache")
        assert left == ("noqueue", ""), machine.name


def provider(lab: Lab, *names: str, **settings: object) -> SshProvider:
    return SshProvider(SshSettings.model_validate(lab.settings(*(names or ("fern", "moss", "ivy")), **settings)))


def resources(there: dict[str, Any], back: dict[str, Any] | None = None, instance: str = "default") -> list[Resource]:
    """The server on fern, and clients on moss and ivy behind a link with these shapes."""
    shapes = {"there": there, "back": there if back is None else back}
    made = small_environment(instance, "ssh")
    return [replace(item, spec={**item.spec, **shapes}) if item.kind == "link" else item for item in made]


def qdiscs(machine: Machine) -> str:
    """The kinds of all disciplines of a machine's interface, the outermost first."""
    return " ".join(re.findall(r"^qdisc (\w+)", machine.run("tc qdisc show dev eth0"), re.MULTILINE))


def most(begun: float) -> int:
    """How many datagrams may come over a slow link of those that were sent since then: a queue, a burst, and what it carried meanwhile."""
    return 40 + round((time.monotonic() - begun) * SLOW["rate"] / 8 / 1042)


def arrive(lab: Lab, source: str, target: str, *, slow: bool = False) -> int:
    """How many of many datagrams that one machine sends at once come to another; slow: over a slow link, more would be wrong."""
    with lab.fabric.udp(source) as sender, lab.fabric.udp(target) as receiver:
        sender.sendto(b"first", (lab.machines[target].address, PORT))
        receiver.recv(100)
        begun = time.monotonic()
        for _ in range(COUNT):
            sender.sendto(bytes(1000), (lab.machines[target].address, PORT))
        bound = most(begun)
        passed = len(drain(receiver))
    assert not slow or 20 <= passed <= bound
    return passed


async def test_a_rate_and_its_queue(lab: Lab) -> None:
    """What comes too fast for a link waits in a queue of the length written, what exceeds that is lost, and nothing else is touched.

    What the interfaces of hosts carry is told of their access links.
    """
    there = provider(lab)
    await create(there, "links-1", resources(SLOW, {}))
    assert set(states(await there.observe("links-1")).values()) == {"ready"}
    arrive(lab, "fern", "moss", slow=True)
    before = await there.traffic("links-1")
    for way in (("moss", "fern"), ("moss", "ivy"), ("fern", "other"), ("other", "fern")):
        assert arrive(lab, *way) == COUNT, way
    carried = await there.traffic("links-1")
    for link, ways in {"server/east": {"up": COUNT, "down": 2 * COUNT}, "client[0]/west": {"up": 2 * COUNT}}.items():
        for way, count in ways.items():
            assert 1000 * count < carried[link][way] - before[link][way] < 1100 * count + 100_000
    assert qdiscs(lab.machines["moss"]) == "noqueue"
    await there.destroy("links-1", quiet)
    assert arrive(lab, "fern", "moss") == COUNT


async def test_one_queue_for_what_a_host_sends_over_a_link(lab: Lab) -> None:
    """What one node sends to several over a link shares one queue; what they send to it has one on each of their hosts."""
    there = provider(lab)
    await create(there, "links-1", resources(SLOW))
    with lab.fabric.udp("fern") as sender, lab.fabric.udp("moss") as moss, lab.fabric.udp("ivy") as ivy:
        begun = time.monotonic()
        for number in range(2 * COUNT):
            sender.sendto(bytes(1000), (lab.machines[("moss", "ivy")[number % 2]].address, PORT))
        bound = most(begun)
        both = len(drain(moss)) + len(drain(ivy))
    assert 20 <= both <= bound
    said = [str(item) for item in (await there.capabilities(resources(SLOW))).caveats]
    assert "link wan: rate: what several hosts send over it shares no queue; each host has that rate for itself" in said
    await there.destroy("links-1", quiet)


async def test_links_change_in_place(lab: Lab) -> None:
    """A new rate, a rate more or none at all are brought about by `update`, and only where something changes."""
    there = provider(lab)
    await create(there, "links-1", resources(SLOW))
    fern, moss = lab.machines["fern"], lab.machines["moss"]
    moss_before = moss.run("tc -s qdisc show dev eth0")
    fast = {"rate": 50_000_000, "queue": {"bytes": 200_000}}
    for there_shape, expected in ((fast, "rate 50Mbit"), ({**fast, "rate": 10_000_000}, "rate 10Mbit"), (SLOW, "rate 1Mbit")):
        link = next(item for item in resources(there_shape, SLOW) if item.kind == "link")
        await there.update("links-1", [link], quiet)
        assert expected in fern.run("tc qdisc show dev eth0")
        assert {item.state for item in (await there.observe("links-1")).resources.values()} == {"ready"}
        assert moss.run("tc -s qdisc show dev eth0").splitlines()[0] == moss_before.splitlines()[0]
    none = next(item for item in resources({}) if item.kind == "link")
    await there.update("links-1", [none], quiet)
    assert (qdiscs(fern), qdiscs(moss)) == ("noqueue", "noqueue")
    await there.destroy("links-1", quiet)


@pytest.mark.parametrize("damage", ["tc qdisc del dev eth0 root", "tc filter del dev eth0 prio 2", "tc qdisc del dev eth0 parent 3744:2"])
async def test_what_somebody_took_away(lab: Lab, damage: str) -> None:
    """A link that a host does not shape any more is observed as stopped, with the host, and made anew by the same calls as ever."""
    there = provider(lab)
    await create(there, "links-1", resources(SLOW))
    lab.machines["fern"].run(damage)
    wan = (await there.observe("links-1")).resources["link", "wan"]
    assert wan.state == "stopped"
    assert "host fern: eth0" in wan.detail
    await there.delete("links-1", [wan.key], quiet)
    await there.create("links-1", [Resource(*wan.key, wan.spec)], quiet)
    assert set(states(await there.observe("links-1")).values()) == {"ready"}
    arrive(lab, "fern", "moss", slow=True)
    await there.destroy("links-1", quiet)


async def test_cut_short_anywhere(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever step a change is cut short after, what is half done is seen, is finished by the next call, and is gone after destroying."""
    there = provider(lab)
    await create(there, "links-1", resources({}))
    link = next(item for item in resources(SLOW) if item.kind == "link")
    real, fern = shaping._perform, host(lab, "fern")
    shaped = {lab.machines[name].address: Way(SLOW, "wan there") for name in ("moss", "ivy")}
    seen = await shaping.look(fern, "links-1/server", list(shaped))
    steps = len(list(shaping.traffic.requests(seen.interfaces["eth0"], shaped, seen.able)))
    for done in range(steps + 1):

        async def cut(host: Host, asked: list[Any], done: int = done) -> Any:
            if asked[0][0] == "write":
                await real(host, [asked[0], ["send", asked[1][1][:done]]])
                raise asyncio.CancelledError
            return await real(host, asked)

        monkeypatch.setattr(shaping, "_perform", cut)
        with pytest.raises(asyncio.CancelledError):
            await shaping.bring(fern, await shaping.look(fern, "links-1/server", list(shaped)), shaped)
        monkeypatch.setattr(shaping, "_perform", real)
        if done % 2:
            await there.update("links-1", [link], quiet)
            assert set(states(await there.observe("links-1")).values()) == {"ready"}
            await there.update("links-1", [replace(link, spec={**link.spec, "there": {}, "back": {}})], quiet)
        else:
            await there.destroy("links-1", quiet)
            assert await there.observe("links-1") == Observed()
            assert qdiscs(lab.machines["fern"]) == "noqueue"
            await create(there, "links-1", resources({}))
    await there.destroy("links-1", quiet)


async def test_what_was_there_before(lab: Lab) -> None:
    """A discipline that somebody has chosen for an interface is there again afterwards, as it was."""
    fern = lab.machines["fern"]
    fern.run("tc qdisc replace dev eth0 root handle 12: pfifo limit 77")
    there = provider(lab)
    await create(there, "links-1", resources(SLOW))
    assert "htb" in qdiscs(fern)
    await there.destroy("links-1", quiet)
    assert "qdisc pfifo 12: root" in fern.run("tc qdisc show dev eth0")
    assert "limit 77p" in fern.run("tc qdisc show dev eth0")
    fern.run("tc qdisc del dev eth0 root")


async def test_an_interface_that_somebody_else_shapes(lab: Lab) -> None:
    """Where somebody has built a tree on an interface, the plan says so, and nothing is changed there."""
    fern = lab.machines["fern"]
    fern.run("tc qdisc replace dev eth0 root handle 12: htb; tc class add dev eth0 parent 12: classid 12:5 htb rate 1gbit")
    tree = fern.run("tc class show dev eth0")
    there = provider(lab)
    said = [str(item) for item in (await there.capabilities(resources(SLOW))).caveats]
    assert "link wan: rate, queue: not shaped by server: somebody has put htb on its interface eth0" in said
    with pytest.raises(ProviderError, match="somebody has put htb on its interface eth0"):
        await create(there, "links-1", resources(SLOW))
    assert fern.run("tc class show dev eth0") == tree
    await there.destroy("links-1", quiet)
    assert fern.run("tc class show dev eth0") == tree
    fern.run("tc qdisc del dev eth0 root")


async def test_another_environment_on_the_same_hosts(lab: Lab) -> None:
    """Two environments that share hosts do not shape each other's: the second one is told, and the first one's links stay."""
    first, second = provider(lab), provider(lab, shared=True)
    await create(first, "links-1", resources(SLOW))
    asked = resources(SLOW, instance="second")
    assert "is shaped for another environment" in " ".join(map(str, (await second.capabilities(asked)).caveats))
    with pytest.raises(ProviderError, match="is shaped for another environment"):
        await create(second, "links-2", asked)
    await second.destroy("links-2", quiet)
    assert set(states(await first.observe("links-1")).values()) == {"ready"}
    await first.destroy("links-1", quiet)


async def test_our_connections_are_spared(lab: Lab) -> None:
    """Shapes towards where we come from, and where we go through this host, hold up what nodes send there, but not what SSH does."""
    fern = host(lab, "fern")
    desk = "10.93.0.1"
    moss = lab.machines["moss"].address
    lab.machines["fern"].run("mkdir -p /root/.cache/wardian/links-1/box")
    shaped = {address: Way({"rate": 8000, "queue": {"packets": 5}}, "wan there") for address in (desk, moss)}
    for _ in range(2):
        await shaping.bring(fern, await shaping.look(fern, "links-1/box", [desk, moss]), shaped, [(moss, 22, False)])
    assert lab.machines["fern"].run("tc filter show dev eth0 prio 1").count("flowid 3744:1") == 2
    # as through a bastion: from fern to the SSH server of moss
    with lab.connect("fern", moss, 22) as connection:
        assert connection.recv(3) == b"SSH"
    assert len((await remote.run(fern, "head -c 3000000 /dev/zero | tr '\\0' x")).output) == 3_000_000
    assert "Sent 0 bytes" in lab.machines["fern"].run("tc -s class show dev eth0 classid 3744:2")
    with lab.fabric.udp("fern") as sender, lab.fabric.udp("desk") as receiver:
        for _ in range(COUNT):
            sender.sendto(bytes(50), (desk, PORT))
        assert len(drain(receiver, 0.2)) < COUNT
    await shaping.clear(fern, "links-1/box")
    lab.machines["fern"].run("rm -r /root/.cache")


async def test_without_rights(lab: Lab) -> None:
    """A user who may control no traffic there gets hosts as they are, and a plan that says so."""
    lab.machines["fern"].run(f"chmod 755 /root; mkdir -p /home/{USER}/.ssh")
    settings = lab.settings("fern", "moss", "ivy")
    settings["hosts"] = [{**lab.host(name), "user": USER} for name in ("fern", "moss", "ivy")]
    there = SshProvider(SshSettings.model_validate(settings))
    said = [str(item) for item in (await there.capabilities(resources(SLOW))).caveats]
    reason = "we are not root there, and sudo asks for a password"
    assert f"link wan: rate, queue: not shaped by server, client[0:2]: {reason}" in said
    await create(there, "links-1", resources(SLOW))
    assert set(states(await there.observe("links-1")).values()) == {"ready"}
    assert qdiscs(lab.machines["fern"]) == "noqueue"
    await there.destroy("links-1", quiet)


async def test_what_kernels_lack_is_said(lab: Lab) -> None:
    """What needs a discipline that the hosts' kernels have not is a caveat of the plan, as are an MTU and a trace."""
    if local_shaping.netem_available():
        pytest.skip("this kernel has netem")
    shape = {
        **SLOW,
        "delay": 0.01,
        "loss": 0.01,
        "trace": {"file": "x.csv", "repeat": True, "length": 1.0, "steps": [[0.0, {"rate": 10**6}]]},
    }
    asked = [replace(item, spec={**item.spec, "mtu": 1400}) if item.kind == "link" else item for item in resources(shape)]
    said = [str(item) for item in (await provider(lab).capabilities(asked)).caveats]
    assert "link wan: delay, loss: the kernel of server, client[0:2] has no netem" in said
    assert "link wan: trace: nobody plays it on hosts; what it begins with" in said
    assert "link wan: mtu: the interfaces of hosts are as they are" in said


def host(lab: Lab, name: str) -> Host:
    """A machine, as the provider sees it."""
    return inventory.hosts(SshSettings.model_validate(lab.settings(name)), lab.root)[0]
