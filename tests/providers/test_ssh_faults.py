"""Faults on hosts: what they do there, and that our own connection goes on."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.providers.fabrics import PORT
from tests.providers.sshd import USER, Lab
from wardian.errors import NodeDownError, ProviderError
from wardian.experiment.resources import Observed, Resource
from wardian.providers.base import Fault
from wardian.providers.ssh import SshProvider, SshSettings
from wardian.providers.testing import create, quiet, run, small_environment, states

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three machines that become nodes."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lab = Lab("10.91.0")
    try:
        for name in ("fern", "moss", "ivy"):
            lab.machine(name)
        yield lab
    finally:
        lab.close()


@pytest_asyncio.fixture
async def there(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A provider with the environment "faults-1": the server on fern, the clients on moss and ivy; nothing of it is left afterwards."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(lab.runtime))
    there = SshProvider(SshSettings.model_validate(lab.settings()))
    await create(there, "faults-1", small_environment("default", "ssh"))
    yield there
    await there.destroy("faults-1", quiet)
    for machine in lab.machines.values():
        assert machine.run("nft list tables; ls -A /root; tc qdisc show dev eth0 | grep -v noqueue; true") == "", machine.name
        assert machine.run("ls -d /sys/fs/cgroup/wardian-faults-* /sys/fs/cgroup/*/wardian-faults-* 2>/dev/null; true") == ""


def hears(lab: Lab, listener: str, source: str, within: float = 10) -> bool:
    """Whether a datagram from a machine comes to another. within: seconds, few where none is to come."""
    with lab.fabric.udp(source) as sender, lab.fabric.udp(listener) as receiver:
        receiver.settimeout(within)
        sender.sendto(b"hello", (lab.machines[listener].address, PORT))
        try:
            return bool(receiver.recv(100))
        except TimeoutError:
            return False


def partition(lab: Lab, *sides: tuple[str, str]) -> Fault:
    """Nodes that hear nothing from the machines named with them."""
    deaf: dict[str, list[str]] = {}
    for node, machine in sides:
        deaf.setdefault(node, []).append(lab.machines[machine].address if machine in lab.machines else machine)
    return Fault("p1", "partition", tuple(deaf), {"deaf": deaf})


async def test_a_partition(lab: Lab, there: SshProvider) -> None:
    """Two sides hear nothing from each other and both hear the third; commands go on; all hear each other once it is undone."""
    fault = partition(lab, ("server", "moss"), ("client[0]", "fern"))
    await there.inflict("faults-1", "partition", fault.targets, [fault])
    assert not hears(lab, "fern", "moss", 0.5)
    assert not hears(lab, "moss", "fern", 0.5)
    for pair in (("ivy", "moss"), ("ivy", "fern"), ("fern", "ivy")):
        assert hears(lab, *pair)
    assert (await run(there, "faults-1", "server", "echo on"))[1] == b"on\n"
    assert set(states(await there.observe("faults-1")).values()) == {"ready"}
    await there.inflict("faults-1", "partition", fault.targets, [])
    assert hears(lab, "fern", "moss")
    assert hears(lab, "moss", "fern")


async def test_a_partition_from_where_we_are(lab: Lab, there: SshProvider) -> None:
    """A node that hears nothing from the very machine that we work on still hears our SSH connection, and a new one."""
    from wardian.providers.ssh import masters

    desk = "10.91.0.1"
    fault = partition(lab, ("server", desk))
    await there.inflict("faults-1", "partition", fault.targets, [fault])
    with lab.fabric.udp("desk") as sender, lab.fabric.udp("fern") as receiver:
        sender.sendto(b"hello", (lab.machines["fern"].address, PORT))
        receiver.settimeout(0.5)
        with pytest.raises(TimeoutError):
            receiver.recv(100)
    assert (await run(there, "faults-1", "server", "echo on"))[1] == b"on\n"
    await masters.disconnect(there.index.read("faults-1").nodes["server"].host)  # type: ignore[union-attr]
    assert (await run(there, "faults-1", "server", "echo on"))[1] == b"on\n"


async def test_a_link_without_carrier(lab: Lab, there: SshProvider) -> None:
    """What talks over a link that is down hears nothing, what talks beside it does, and an access link takes its node off alone."""
    for link, silent, heard in (
        ("wan", [("fern", "moss"), ("moss", "fern"), ("ivy", "fern")], [("ivy", "moss")]),
        ("client[0]/west", [("fern", "moss"), ("moss", "ivy")], [("ivy", "fern"), ("fern", "ivy")]),
    ):
        fault = Fault("f1", "flap", (link,), {})
        await there.inflict("faults-1", "flap", [link], [fault])
        assert [pair for pair in silent if hears(lab, *pair, 0.5)] == []
        assert [pair for pair in heard if not hears(lab, *pair)] == []
        await there.inflict("faults-1", "flap", [link], [])
        assert all(hears(lab, *pair) for pair in silent)


async def test_what_begins_on_a_paused_node(lab: Lab, there: SshProvider) -> None:
    """A command that is started while a node stands still begins when that goes on, and one that ran before loses nothing."""
    running = await there.channel("faults-1", "server").start(["sh", "-c", "while read -r x; do echo $x; done"])
    fault = Fault("s1", "pause", ("server",), {})
    await there.inflict("faults-1", "pause", ["server"], [fault])
    starting = asyncio.create_task(run(there, "faults-1", "server", "echo begun"))
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(b"late\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(starting), 0.5)
    await there.inflict("faults-1", "pause", ["server"], [])
    assert (await starting)[1] == b"begun\n"
    assert await running.stdout.readline() == b"late\n"
    await running.close()


async def test_a_slow_node(lab: Lab, there: SshProvider) -> None:
    """What ran before and what begins later get their share of the processors and no more, and all of it again afterwards."""
    running = await there.channel("faults-1", "server").start(["sh", "-c", "echo $$; exec sleep 600"])
    assert running.stdout is not None
    before = (await running.stdout.readline()).decode().strip()
    for share in (0.5, 0.05):
        await there.inflict("faults-1", "slow", ["server"], [Fault("s1", "slow", ("server",), {"cpu": share})])
    burn = "import time; end, begun = time.monotonic() + 1, time.process_time()\nwhile time.monotonic() < end: pass\n"
    burn += "print(time.process_time() - begun)"
    code, used, _ = await run(there, "faults-1", "server", f"echo $$; exec python3 -c {shlex.quote(burn)}")
    assert code == 0
    assert float(used.split()[1]) < 0.1 * (os.cpu_count() or 1) + 0.1, "it was given more than its share"
    group = lab.machines["fern"].run("cat /root/.cache/wardian/faults-1/server/cgroup").strip()
    members = f"cat {group}/cgroup.procs"
    assert before in lab.machines["fern"].run(members).split()
    later = (await run(there, "faults-1", "server", f"echo $$; {members}"))[1].split()
    assert later[0] in later[1:]
    limit = f"cut -d' ' -f1 {group}/cpu.cfs_quota_us {group}/cpu.max 2>/dev/null; true"
    assert lab.machines["fern"].run(limit).strip() == str(5000 * (os.cpu_count() or 1))
    await there.inflict("faults-1", "slow", ["server"], [])
    assert lab.machines["fern"].run(limit).strip() in ("-1", "max")
    await running.close()


async def test_limits_of_a_node(lab: Lab, there: SshProvider) -> None:
    """Processors and memory are limited as written, for what ran before too; a slow node has a share of its own; limits change and go."""
    server = next(item for item in small_environment("default", "ssh") if item.key == ("node", "server"))
    running = await there.channel("faults-1", "server").start(["sh", "-c", "echo $$; exec sleep 600"])
    assert running.stdout is not None
    before = (await running.stdout.readline()).decode().strip()

    async def limit(cpus: float | None, memory: int | None) -> None:
        await there.update("faults-1", [Resource("node", "server", {**server.spec, "cpus": cpus, "memory": memory})], quiet)

    def limits() -> list[str]:
        files = "cpu.max cpu.cfs_quota_us memory.max memory.limit_in_bytes"
        script = f"for g in $(cat /root/.cache/wardian/faults-1/server/cgroup); do cd $g; cut -d' ' -f1 {files} 2>/dev/null; done; true"
        return lab.machines["fern"].run(script).split()

    await limit(0.5, 64 << 20)
    assert sorted(limits()) == sorted(["50000", str(64 << 20)])
    members = "for g in $(cat /root/.cache/wardian/faults-1/server/cgroup); do cat $g/cgroup.procs; done"
    assert set(lab.machines["fern"].run(members).split()) == {before}
    assert (await run(there, "faults-1", "server", "python3 -c 'bytearray(200 << 20)'"))[0] == 137
    assert (await run(there, "faults-1", "server", "python3 -c 'bytearray(20 << 20)'"))[0] == 0
    await there.inflict("faults-1", "slow", ["server"], [Fault("s1", "slow", ("server",), {"cpu": 0.2})])
    assert sorted(limits()) == sorted(["10000", str(64 << 20)])
    await there.inflict("faults-1", "slow", ["server"], [])
    await limit(1.5, None)
    assert "150000" in limits()
    assert str(64 << 20) not in limits()
    assert (await run(there, "faults-1", "server", "python3 -c 'bytearray(200 << 20)'"))[0] == 0
    await running.close()


async def test_a_killed_node_stays_so(lab: Lab, there: SshProvider) -> None:
    """On a killed node nothing is left and nothing can be started, whatever of its environment changes, until it is made anew."""
    await run(there, "faults-1", "client[0]", "setsid sleep 900 >/dev/null 2>&1 </dev/null &")
    lab.machines["moss"].run("setsid sleep 901 >/dev/null 2>&1 </dev/null &")
    await there.kill("faults-1", ["client[0]"])
    assert "WARDIAN_ENVIRONMENT" not in lab.machines["moss"].run("cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
    assert "901" in lab.machines["moss"].run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; kill $(pgrep -f '[s]leep 901')")
    environment = small_environment("default", "ssh")[0]
    await there.update("faults-1", [environment], quiet)
    node = (await there.observe("faults-1")).resources["node", "client[0]"]
    assert (node.state, node.detail) == ("stopped", "it was killed on moss")
    for call in (there.kill("faults-1", ["client[0]"]), there.channel("faults-1", "client[0]").start(["true"])):
        with pytest.raises(NodeDownError, match=r"client\[0\]"):
            await call


async def test_everything_ends_with_the_environment(lab: Lab, there: SshProvider) -> None:
    """An environment under all faults at once is destroyed, and hosts hear, run and send as before."""
    cut = partition(lab, ("server", "moss"), ("client[0]", "fern"))
    await there.inflict("faults-1", "partition", cut.targets, [cut])
    await there.inflict("faults-1", "flap", ["wan"], [Fault("f1", "flap", ("wan",), {})])
    await run(there, "faults-1", "client[1]", "setsid sleep 900 >/dev/null 2>&1 </dev/null &")
    await there.inflict("faults-1", "pause", ["client[1]"], [Fault("s1", "pause", ("client[1]",), {})])
    await there.kill("faults-1", ["server"])
    await there.destroy("faults-1", quiet)
    assert await there.observe("faults-1") == Observed()
    assert hears(lab, "fern", "moss")
    for machine in lab.machines.values():
        assert "sleep 900" not in machine.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


async def test_without_rights(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where we are not root, limits are not honoured, a partition and a slowing are refused with the reason; a pause and a kill work."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(lab.runtime))
    settings = {**lab.settings(), "hosts": [{**lab.host(name), "user": USER} for name in ("fern", "moss", "ivy")]}
    there = SshProvider(SshSettings.model_validate(settings))
    asked = small_environment("default", "ssh")
    limited = [Resource(*item.key, {**item.spec, "cpus": 1}) if item.kind == "node" else item for item in asked]
    caveats = {item.field: str(item) for item in (await there.capabilities(limited)).caveats}
    reason = "its host cannot limit it: there we are not root, and sudo asks for a password; all that the host has"
    assert caveats["cpus"] == f"node server, client[0:2]: cpus: {reason}"
    await create(there, "faults-2", limited)
    fault = partition(lab, ("server", "moss"))
    with pytest.raises(ProviderError, match="we may filter no packets"):
        await there.inflict("faults-2", "partition", fault.targets, [fault])
    await there.inflict("faults-2", "partition", fault.targets, [])
    with pytest.raises(ProviderError, match="we may limit no processor time"):
        await there.inflict("faults-2", "slow", ["server"], [Fault("s1", "slow", ("server",), {"cpu": 0.5})])
    await there.inflict("faults-2", "slow", ["server"], [])
    pause = Fault("s1", "pause", ("server",), {})
    for faults in ([pause], []):
        await there.inflict("faults-2", "pause", ["server"], faults)
    assert (await run(there, "faults-2", "server", "echo on"))[1] == b"on\n"
    await there.kill("faults-2", ["server"])
    assert states(await there.observe("faults-2"))["node", "server"] == "stopped"
    await there.destroy("faults-2", quiet)
