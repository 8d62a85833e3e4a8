"""Nodes of the local provider: how they are set apart, how they reach each other, and what is left when they are gone."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from wardian.errors import BusyError, CommandError, ProviderError
from wardian.experiment.resources import Resource
from wardian.providers.images.store import Store
from wardian.providers.local import LocalProvider, LocalSettings, kernel, processes
from wardian.providers.local.cgroups import Cgroups
from wardian.providers.testing import quiet, small_environment

from ..stage import Stage, eventually
from . import archives

pytestmark = pytest.mark.root

RECEIVE = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
s.bind(("", 7000))
print("listening", flush=True)
data, ancillary, _, peer = s.recvmsg(100, 100)
print(data.decode(), peer[0], int.from_bytes(ancillary[0][2], "little"))
"""
SEND = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', (sys.argv[1], 7000))"


ADDRESS = """
import fcntl, socket, struct
print(socket.inet_ntoa(fcntl.ioctl(socket.socket(), 0x8915, struct.pack("256s", b"inet0"))[20:24]))
"""


class Grown:
    """An environment that exists, and what a test does with it."""

    def __init__(self, provider: LocalProvider, environment: str) -> None:
        self.provider = provider
        self.id = environment

    async def create(self, resources: list[Resource]) -> None:
        for _, group in groupby(resources, key=lambda resource: resource.kind):
            await self.provider.create(self.id, list(group), quiet)

    async def run(self, node: str, *argv: str, **options: Any) -> tuple[int, str]:
        process = await self.provider.channel(self.id, node).start(argv, stderr=asyncio.subprocess.STDOUT, **options)
        try:
            assert process.stdout is not None
            output = await process.stdout.read()
            return await process.wait(), output.decode()
        finally:
            await process.close()

    async def sh(self, node: str, script: str) -> str:
        """Output of a script that has to succeed, without the last line's end."""
        code, output = await self.run(node, "sh", "-c", script)
        assert code == 0, output
        return output.rstrip("\n")

    async def packet(self, source: str, target: str, address: str) -> tuple[str, int]:
        """Where a packet from one node seems to come from at another, and how many hops it may still go."""
        receiver = await self.provider.channel(self.id, target).start([sys.executable, "-c", RECEIVE])
        try:
            assert receiver.stdout is not None
            assert await receiver.stdout.readline() == b"listening\n"
            code, output = await self.run(source, sys.executable, "-c", SEND, address)
            assert code == 0, output
            words = (await asyncio.wait_for(receiver.stdout.readline(), 10)).decode().split()
            return words[1], int(words[2])
        finally:
            await receiver.close()

    def pid(self, node: str) -> int:
        pid = self.provider.state.environment(self.id).resource("node", node).pid()
        assert pid is not None
        return pid


@pytest_asyncio.fixture
async def empty(state_folder: Path) -> AsyncIterator[Grown]:
    """An environment with nothing in it."""
    grown = Grown(LocalProvider(LocalSettings(state=state_folder)), uuid.uuid4().hex[:10])
    yield grown
    await grown.provider.destroy(grown.id, quiet)


@pytest_asyncio.fixture
async def small(empty: Grown) -> Grown:
    """Two networks, joined by a link; a server on one and two clients on the other."""
    await empty.create(small_environment(provider="local"))
    return empty


def node(name: str, *interfaces: tuple[str, str], **spec: Any) -> Resource:
    """A node with these (network, address)."""
    given = [{"name": f"eth{index}", "network": network, "address": address} for index, (network, address) in enumerate(interfaces)]
    base: dict[str, Any] = {"hostname": name, "group": name, "index": None, "roles": [], "site": None, "image": None, "cpus": None}
    base |= {"memory": None, "env": {}, "setup": None, "internet": False, "routes_between": False, "interfaces": given, "routes": []}
    return Resource("node", name, base | spec)


def environment() -> Resource:
    return small_environment(provider="local")[0]


def network(name: str, subnet: str) -> Resource:
    return Resource("network", name, {"subnet": subnet, "gateway": None, "routes": []})


# How nodes are set apart


async def test_namespaces_differ_from_the_hosts_and_from_each_other(small: Grown) -> None:
    """Every node has mount, PID, network, UTS and IPC namespaces of its own."""
    kinds = ("mnt", "pid_for_children", "net", "uts", "ipc")
    seen = {
        tuple(os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds) for pid in [os.getpid(), small.pid("server"), small.pid("client[0]")]
    }
    for column in zip(*seen, strict=True):
        assert len(set(column)) == 3


async def test_a_node_sees_only_its_own_processes(small: Grown) -> None:
    """Process 1 of a node is its init, and no process of the host is seen."""
    assert await small.sh("server", "cat /proc/1/comm") == "wardian-init"
    numbers = (await small.sh("server", "ls /proc | grep -c '^[0-9]'")).split()
    assert int(numbers[0]) < 6


async def test_each_node_has_its_name(small: Grown) -> None:
    """A node's host name is the one of its spec, and the host keeps its own."""
    before = os.uname().nodename
    assert await small.sh("client[0]", "cat /proc/sys/kernel/hostname /etc/hostname") == "client-0\nclient-0"
    assert os.uname().nodename == before


async def test_writes_reach_neither_the_host_nor_other_nodes(small: Grown, tmp_path: Path) -> None:
    """What a node writes, to the root or below an ordinary folder, is seen on that node only, and so are its /tmp and /run."""
    name = f"wardian-test-{uuid.uuid4().hex}"
    places = [f"/{name}", f"/etc/{name}", f"/var/{name}", f"/tmp/{name}", f"/run/{name}", f"/dev/shm/{name}"]
    await small.sh("server", "; ".join(f"echo mine > {place}" for place in places) + "; rm /etc/passwd")
    assert await small.sh("server", f"cat {' '.join(places)}") == "\n".join(["mine"] * len(places))
    assert not [place for place in places if os.path.exists(place)]
    assert os.path.exists("/etc/passwd")
    assert await small.sh("client[0]", "ls /etc/passwd; ls " + " ".join(places) + " 2>/dev/null || true") == "/etc/passwd"


async def test_what_is_private_on_the_host_is_not_seen(small: Grown) -> None:
    """The state folder shows nothing, and the host's /tmp and devices are not there."""
    assert await small.sh("server", f"ls {small.provider.state.root} 2>/dev/null | wc -l") == "0"
    devices = (await small.sh("server", "ls /dev")).split()
    expected = "fd full mqueue net null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert " ".join(devices) == expected


async def test_the_kernels_settings_are_out_of_reach(small: Grown) -> None:
    """A node changes its own network's parameters, and no others."""
    assert await small.sh("server", "echo 32 > /proc/sys/net/ipv4/ip_default_ttl; cat /proc/sys/net/ipv4/ip_default_ttl") == "32"
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() != "32\n"
    for path in ("/proc/sys/kernel/panic", "/proc/sysrq-trigger", "/sys/kernel/mm/transparent_hugepage/enabled"):
        code, _ = await small.run("server", "sh", "-c", f"echo 0 > {path}")
        assert code != 0


async def test_programs_cannot_mount_or_make_devices(small: Grown) -> None:
    """What reaches past a node's namespaces is taken from its programs, root's too."""
    for command in (
        "mount -t tmpfs none /mnt",
        "mknod /tmp/disk b 8 0",
        "swapoff -a && reboot -f",
        "chroot /proc/1/root mount -t tmpfs none /mnt",
    ):
        code, _ = await small.run("server", "sh", "-c", command)
        assert code != 0, command


async def test_a_terminal_of_the_nodes_own(small: Grown) -> None:
    """A program with a terminal has it as its controlling terminal, among the node's own devices."""
    process = await small.provider.channel(small.id, "server").start(
        ["sh", "-c", "tty; echo on > /dev/tty; test -c /dev/pts/0"], terminal=(24, 80)
    )
    assert process.stdout is not None
    assert (await process.stdout.read()).replace(b"\r", b"") == b"/dev/pts/0\non\n"
    assert await process.wait() == 0
    await process.close()


async def test_nothing_is_inherited_by_a_command(small: Grown) -> None:
    """A command holds no descriptors but its three streams."""
    script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:3], len(os.listdir('/proc/self/fd')))"
    assert await small.run("server", sys.executable, "-c", script) == (0, "[0, 1, 2] 4\n")


async def test_orphans_live_on_and_are_reaped(small: Grown) -> None:
    """A process that detached itself outlives its command, and the init takes in its end."""
    await small.sh(
        "server",
        "setsid sh -c 'echo $$ > /run/o; exec sleep 600' > /dev/null 2>&1 < /dev/null & while ! test -s /run/o; do :; done",
    )
    assert await small.sh("server", "cat /proc/$(cat /run/o)/comm") in ("sleep", "sh")
    await small.sh("server", "kill -9 $(cat /run/o); while test -d /proc/$(cat /run/o); do :; done")


# Networks


async def test_members_of_a_network_reach_each_other_directly(small: Grown) -> None:
    """Between two nodes of one network there is no hop, and the names of both resolve."""
    assert await small.packet("client[0]", "client[1]", "client-1") == ("10.62.0.2", 64)


async def test_a_link_joins_two_networks_by_two_hops(small: Grown) -> None:
    """A packet across a link passes the gateways of both networks."""
    assert await small.packet("client[0]", "server", "server") == ("10.62.0.2", 62)
    assert await small.packet("server", "client[1]", "client-1") == ("10.61.0.2", 62)


async def test_a_node_that_routes(empty: Grown) -> None:
    """A node that routes between its networks forwards, in one hop; one that does not, does not."""
    networks = [network("left", "10.71.0.0/24"), network("right", "10.72.0.0/24")]
    nodes = [
        node("a", ("left", "10.71.0.2/24"), routes=[{"to": "10.72.0.0/24", "via": "10.71.0.9"}]),
        node("b", ("right", "10.72.0.2/24"), routes=[{"to": "10.71.0.0/24", "via": "10.72.0.9"}]),
        node("middle", ("left", "10.71.0.9/24"), ("right", "10.72.0.9/24"), routes_between=True),
    ]
    await empty.create([environment(), *networks, *nodes])
    assert await empty.packet("a", "b", "10.72.0.2") == ("10.71.0.2", 63)
    stopped = Resource("node", "middle", {**nodes[2].spec, "routes_between": False})
    await empty.provider.update(empty.id, [stopped], quiet)
    assert await empty.sh("middle", "cat /proc/sys/net/ipv4/ip_forward") == "0"


async def test_who_talks_to_whom_is_counted_once(empty: Grown) -> None:
    """What nodes send to each other is counted by pair, once however many hops it takes, and from the first call until it shall end."""
    networks = [network("left", "10.71.0.0/24"), network("right", "10.72.0.0/24")]
    nodes = [
        node("a", ("left", "10.71.0.2/24"), routes=[{"to": "10.72.0.0/24", "via": "10.71.0.9"}]),
        node("b", ("right", "10.72.0.2/24"), routes=[{"to": "10.71.0.0/24", "via": "10.72.0.9"}]),
        node("middle", ("left", "10.71.0.9/24"), ("right", "10.72.0.9/24"), routes_between=True),
    ]
    await empty.create([environment(), *networks, *nodes])

    async def matrix() -> dict[tuple[str, str], int]:
        return dict(await empty.provider.traffic_matrix(empty.id))

    assert await matrix() == {}
    await empty.sh("a", "ping -q -c 10 -i 0.01 -s 972 10.72.0.2")
    assert await matrix() == {("a", "b"): 10_000, ("b", "a"): 10_000}
    assert await empty.provider.traffic_matrix(empty.id, counting=False) == {}
    await empty.sh("a", "ping -q -c 1 10.72.0.2")
    assert await matrix() == {}


async def test_what_a_link_is_made_of_goes_with_it(small: Grown) -> None:
    """Without its link the other network is out of reach, and with it anew within reach again."""
    link = next(resource for resource in small_environment(provider="local") if resource.kind == "link")
    await small.provider.delete(small.id, [link.key], quiet)
    code, _ = await small.run("client[0]", sys.executable, "-c", "import socket; socket.create_connection(('10.61.0.2', 9), 2)")
    assert code != 0
    await small.provider.create(small.id, [link], quiet)
    assert await small.packet("client[0]", "server", "server") == ("10.62.0.2", 62)


async def test_the_hosts_network_is_untouched(small: Grown) -> None:
    """Nothing of an environment shows among the host's interfaces, and nodes do not reach the host."""
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith(("n", "b", "g", "l-", "s"))]
    assert "default" not in await small.sh("server", 'cat /proc/net/route | tail -n +2 | awk \'$2 == "00000000" {print "default"}\'')


async def test_names_follow_later_changes(small: Grown) -> None:
    """Changed names are written on running nodes, and on nodes made later."""
    tables = {"east": [["10.61.0.2", "server"]], "west": [["10.62.0.2", "client-0"], ["10.61.0.2", "origin"]]}
    await small.provider.update(small.id, [Resource("names", "hosts", {"tables": tables})], quiet)
    assert "10.61.0.2 origin" in await small.sh("client[0]", "cat /etc/hosts")
    again = [resource for resource in small_environment(provider="local") if resource.name == "client[1]"]
    await small.provider.delete(small.id, [again[0].key], quiet)
    await small.create(again)
    assert "10.61.0.2 origin" in await small.sh("client[1]", "cat /etc/hosts")


# Limits


async def test_a_memory_limit_holds(empty: Grown) -> None:
    """A program that takes more than its node may have is killed, and the node lives on."""
    await empty.create([environment(), network("lan", "10.73.0.0/24"), node("small", ("lan", "10.73.0.2/24"), memory=32 * 2**20)])
    code, _ = await empty.run("small", sys.executable, "-c", "x = bytearray(200 * 2**20); print(len(x))")
    assert code == 128 + signal.SIGKILL
    assert await empty.sh("small", "echo alive") == "alive"


async def test_limits_change_in_place(empty: Grown) -> None:
    """A processor limit set, changed and lifted while the node runs is what the kernel then has."""
    resource = node("small", ("lan", "10.73.0.2/24"))
    await empty.create([environment(), network("lan", "10.73.0.0/24"), resource])
    roots = Cgroups.find()
    group = roots.roots["cpu"] / "wardian" / empty.id / "small"
    quota = group / ("cpu.max" if roots.version == 2 else "cpu.cfs_quota_us")
    for cpus, expected in ((0.5, "50000"), (1.25, "125000"), (None, "max" if roots.version == 2 else "-1")):
        await empty.provider.update(empty.id, [Resource("node", "small", {**resource.spec, "cpus": cpus})], quiet)
        assert quota.read_text().split()[0] == expected
        assert str(empty.pid("small")) in (group / "cgroup.procs").read_text().split()


# What is left


def traces(root: Path) -> dict[str, Any]:
    """Everything on the host that an environment could leave behind."""
    # not by glob: what belongs to tests beside this one goes while it looks
    groups = sorted(folder for folder, _, _ in os.walk("/sys/fs/cgroup") if os.path.basename(os.path.dirname(folder)) == "wardian")
    return {
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line],
        "processes": processes.environments(root),
        "groups": groups,
        "files": [str(path) for path in sorted(root.glob("environments/*"))],
    }


async def test_destroy_leaves_nothing(empty: Grown) -> None:
    """After destroy the host's mounts, interfaces, processes, control groups and state folder are as they were."""
    root = empty.provider.state.root
    interfaces, before = os.listdir("/sys/class/net"), traces(root)
    await empty.create(small_environment(provider="local"))
    await empty.sh("server", "mkdir -p /srv/deep/er; echo x > /srv/deep/er/file; (sleep 600 > /dev/null 2>&1 &)")
    grown = traces(root)
    assert grown["processes"].keys() == {empty.id}
    await empty.provider.destroy(empty.id, quiet)
    assert traces(root) == before or {**traces(root), "groups": []} == {**before, "groups": []}
    assert not [group for group in traces(root)["groups"] if empty.id in group]
    assert os.listdir("/sys/class/net") == interfaces


CREATE = """
import asyncio, sys
from itertools import groupby
from pathlib import Path
from wardian.providers.local import LocalProvider, LocalSettings
from wardian.providers.testing import small_environment

async def main():
    provider = LocalProvider(LocalSettings(state=Path(sys.argv[1])))
    async with provider.lock("/contract/experiment.yaml", "default", "up"):
        print("begin", flush=True)
        for _, group in groupby(small_environment(provider="local"), key=lambda resource: resource.kind):
            await provider.create(sys.argv[2], list(group), lambda name, state: None)

asyncio.run(main())
"""


async def cut_short(root: Path, environment: str, after: float) -> None:
    """Have another process create the small environment, and kill it so many seconds after its beginning."""
    creating = await asyncio.create_subprocess_exec(sys.executable, "-c", CREATE, str(root), environment, stdout=subprocess.PIPE)
    assert creating.stdout is not None
    assert await creating.stdout.readline() == b"begin\n"
    await asyncio.sleep(after)
    if creating.returncode is None:
        creating.kill()
    await creating.wait()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
async def test_a_killed_create_leaves_nothing_that_destroy_does_not_find(seed: int, state_folder: Path) -> None:
    """SIGKILL at any point of a create, then destroy: nothing is left, not even what its spawner was about to make."""
    environment = uuid.uuid4().hex[:10]
    provider = LocalProvider(LocalSettings(state=state_folder))
    await cut_short(state_folder, environment, random.Random(seed).uniform(0, 0.3))
    await provider.observe(environment)
    await provider.destroy(environment, quiet)
    # a process that was killed is there until the kernel has taken it apart
    await asyncio.to_thread(eventually, lambda: not traces(state_folder)["processes"], "the processes are gone", within=5)
    assert await provider.environments() == []  # whoever looks removes one that was never given its name
    left = traces(state_folder)
    assert (left["mounts"], left["files"]) == ([], [])
    assert not [group for group in left["groups"] if environment in group]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
async def test_a_killed_create_can_be_finished(seed: int, state_folder: Path) -> None:
    """SIGKILL at any point of a create, then what is not ready made anew: everything works."""
    grown = Grown(LocalProvider(LocalSettings(state=state_folder)), uuid.uuid4().hex[:10])
    wanted = small_environment(provider="local")
    await cut_short(state_folder, grown.id, random.Random(seed).uniform(0, 0.3))
    async with AsyncExitStack() as stack:
        await locked(grown.provider, stack)
        stack.push_async_callback(grown.provider.destroy, grown.id, quiet)
        observed = await grown.provider.observe(grown.id)
        missing = [
            resource for resource in wanted if resource.key not in observed.resources or observed.resources[resource.key].state != "ready"
        ]
        await grown.provider.delete(grown.id, [resource.key for resource in reversed(missing)], quiet)
        await grown.create(missing)
        assert {item.state for item in (await grown.provider.observe(grown.id)).resources.values()} == {"ready"}
        assert await grown.packet("client[0]", "server", "server") == ("10.62.0.2", 62)


async def locked(provider: LocalProvider, stack: AsyncExitStack) -> None:
    """Take the lock as a command would that waits for it: a killed process holds it until its spawner is done."""
    while True:
        try:
            await stack.enter_async_context(provider.lock("/contract/experiment.yaml", "default", "the test"))
        except BusyError:
            await asyncio.sleep(0.01)
        else:
            return


async def test_garbage_is_what_cannot_come_back(small: Grown) -> None:
    """An environment all of whose processes died is collected; one that lives is not."""
    assert not [line for line in await small.provider.collect_garbage(quiet) if small.id in line]
    processes.end(processes.of(small.id, small.provider.state.root))
    removed = await small.provider.collect_garbage(quiet)
    assert [line for line in removed if small.id in line]
    assert await small.provider.environments() == []


async def test_groups_just_made_are_left_alone(empty: Grown) -> None:
    """A control group without members may belong to a node that is being made elsewhere: it is collected once it is a minute old."""
    member = Cgroups.find().member
    assert member is not None
    environment = f"elsewhere-{uuid.uuid4().hex[:8]}"
    group = member / "wardian" / environment
    group.mkdir(parents=True)
    try:
        assert not [line for line in await empty.provider.collect_garbage(quiet) if environment in line]
        os.utime(group, (0, 0))
        assert [line for line in await empty.provider.collect_garbage(quiet) if environment in line]
        assert not group.exists()
    finally:
        if group.exists():
            group.rmdir()


async def test_processes_without_a_record_are_collected(small: Grown) -> None:
    """What lost its state folder is still found by the id that its processes carry."""
    folder = small.provider.state.environment(small.id)
    folder.path.rename(folder.path.with_name(".lost"))
    assert await small.provider.collect_garbage(quiet)
    assert processes.environments(small.provider.state.root) == {}


# Errors


async def test_an_interface_that_cannot_be_made_is_named(empty: Grown) -> None:
    """A node on a network that does not exist is an error that names the node."""
    await empty.create([environment()])
    with pytest.raises(ProviderError, match="node lonely"):
        await empty.create([node("lonely", ("nowhere", "10.1.0.2/24"))])


async def test_a_full_disk_is_one_clear_error(empty: Grown, tmp_path: Path) -> None:
    """Without room in the state folder nothing is made, and the error says why."""
    small_disk = tmp_path / "disk"
    small_disk.mkdir()
    kernel.mount("tmpfs", str(small_disk), "tmpfs", options="size=64k,nr_inodes=24")
    try:
        grown = Grown(LocalProvider(LocalSettings(state=small_disk / "state")), uuid.uuid4().hex[:10])
        with pytest.raises(ProviderError, match="No space left"):
            await grown.create(small_environment(provider="local"))
        await grown.provider.destroy(grown.id, quiet)
        assert processes.environments(grown.provider.state.root) == {}
    finally:
        kernel.unmount(str(small_disk))


async def test_arguments_past_the_kernels_limit_are_an_error(small: Grown) -> None:
    """A command line that the kernel cannot take is a CommandError, and the node lives on."""
    with pytest.raises(CommandError):
        await small.run("server", "echo", "x" * (1 << 18))
    assert await small.sh("server", "echo alive") == "alive"


# Images, layers and the internet


async def test_an_image_from_a_folder(empty: Grown, tmp_path: Path) -> None:
    """A node boots from a folder: it sees that, not the host's files, and does not write to it."""
    image = make_image(tmp_path / "image")
    await empty.create([environment(), node("small", image=str(image))])
    assert await empty.sh("small", "cat /etc/marker; test ! -e /usr/share && echo new > /etc/marker; cat /etc/marker") == "image\nnew"
    assert (image / "etc/marker").read_text() == "image\n"


def test_files_mounted_over_the_hosts(stage: Stage, tmp_path: Path) -> None:
    """Where a file is mounted over one of the host's, as a container's /etc/hosts is, nodes have their own."""
    (tmp_path / "hosts").write_text("127.0.0.1 elsewhere\n")

    def mounted() -> None:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.bind(str(tmp_path / "hosts"), "/etc/hosts")

    stage.write("name: NAME\nnodes: {one: {}}\n")
    stage.run("up", preexec_fn=mounted)
    said = stage.run("exec", "one", "--", "cat", "/etc/hosts").stdout
    stage.run("down")
    assert "one" in said
    assert "elsewhere" not in said


async def test_nodes_of_one_image(empty: Grown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of one archive share what was unpacked of it, by its path and by its name; they start with its variables, and hold it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layer = archives.packed(make_image(tmp_path / "image"))
    about = archives.config([layer], Env=["PLANT=fern", "POT=clay"], User="nobody")
    path = archives.saved(tmp_path / "image.tar", [layer], about, "lab:1")
    Store().add(path)
    nodes = [node("one", image=str(path), env={"POT": "glass"}), node("two", image=str(path)), node("three", image="lab:1")]
    await empty.create([environment(), *nodes[:2]])
    await empty.create(nodes[2:])
    for name, pot in (("one", "glass"), ("two", "clay"), ("three", "clay")):
        assert await empty.sh(name, "cat /etc/marker; echo $PLANT $POT $HOME") == f"image\nfern {pot} /root"
    (stored,) = Store().all()
    assert stored.digest == archives.digest(about)
    path.unlink()
    assert {image["digest"] for image in (await empty.provider.images(empty.id)).values()} == {stored.digest}
    with pytest.raises(ProviderError, match=rf"lab:1 is used by one of {empty.id} and 2 more"):
        Store().remove(stored)
    await empty.provider.update(empty.id, [node("two", image=str(path), env={"POT": "tin"})], quiet)
    assert await empty.sh("two", "echo $PLANT $POT") == "fern tin"
    await empty.provider.delete(empty.id, [("node", name) for name in ("one", "two", "three")], quiet)
    Store().remove(stored)


async def test_an_image_that_is_not_there(empty: Grown) -> None:
    """An image that does not exist is an error that names node and path."""
    await empty.create([environment()])
    with pytest.raises(ProviderError, match=r"node lost: there is no image /no/such\.tar"):
        await empty.create([node("lost", image="/no/such.tar")])
    await empty.provider.delete(empty.id, [("node", "lost")], quiet)
    with pytest.raises(ProviderError, match=r"node lost: there is no image no-such:1") as caught:
        await empty.create([node("lost", image="no-such:1")])
    assert "wardian image add FILE --name no-such:1" in (caught.value.remedy or "")


async def test_setup_runs_once_and_is_shared(empty: Grown, tmp_path: Path) -> None:
    """Two nodes with one script have what it made, it ran once, and neither the host nor a node without it has anything of it."""
    mark = f"/opt/wardian-{uuid.uuid4().hex}"
    script = f"echo working\nmkdir -p {mark}\ndate +%N > {mark}/when"
    said: list[tuple[str, str]] = []
    await empty.create([environment()])
    nodes = [node("one", setup=script), node("two", setup=script), node("plain")]
    await empty.provider.create(empty.id, nodes, lambda name, state: said.append((name, state)))
    assert await empty.sh("one", f"cat {mark}/when") == await empty.sh("two", f"cat {mark}/when")
    assert [name for name, state in said if "working" in state] == ["one"]
    assert (await empty.run("plain", "test", "-e", mark))[0] == 1
    assert not os.path.exists(mark)
    assert await empty.sh("one", "cat /etc/hostname") == "one"


async def test_a_failing_setup_says_why(empty: Grown) -> None:
    """A script that fails is an error with its last lines and its exit code, and no layer is kept of it."""
    await empty.create([environment()])
    with pytest.raises(ProviderError, match=r"(?s)node bad: setup ended with exit code 7.*this went wrong"):
        await empty.create([node("bad", setup="echo this went wrong >&2; exit 7")])
    assert list((empty.provider.state.root / "layers").glob("[!.]*")) == []
    await empty.provider.destroy(empty.id, quiet)
    assert processes.environments(empty.provider.state.root) == {}


async def test_a_setup_that_is_cut_short_ends(empty: Grown) -> None:
    """Cancelling a create during setup ends the script and leaves no layer."""
    await empty.create([environment()])
    begun = asyncio.Event()
    making = asyncio.create_task(
        empty.provider.create(
            empty.id, [node("slow", setup="echo begun; sleep 600")], lambda _, state: begun.set() if "begun" in state else None
        )
    )
    await begun.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert list((empty.provider.state.root / "layers").glob("[!.]*")) == []


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
async def test_a_node_with_internet(empty: Grown) -> None:
    """A node with internet reaches an address of the host through its own subnet, its neighbours only by the experiment's network; all of
    it goes with the environment."""
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    tables = await output("nft", "list", "ruleset")
    interfaces = sorted(os.listdir("/sys/class/net"))
    nodes = [
        node("a", ("lan", "10.74.0.2/24"), internet=True),
        node("b", ("lan", "10.74.0.3/24"), internet=True),
        node("c", ("lan", "10.74.0.4/24")),
    ]
    await empty.create([environment(), network("lan", "10.74.0.0/24"), *nodes])
    address = (await empty.run("b", sys.executable, "-c", ADDRESS))[1].strip()
    assert address.startswith(("198.18.", "198.19."))
    server = await asyncio.start_server(lambda reader, writer: writer.close(), host_address(), 0)
    port = server.sockets[0].getsockname()[1]
    connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
    assert (await empty.run("a", sys.executable, "-c", connect, host_address(), str(port)))[0] == 0
    assert (await empty.run("c", sys.executable, "-c", connect, host_address(), str(port)))[0] != 0
    server.close()
    listen = "import socket; s = socket.create_server(('', 7001)); print('listening', flush=True); s.accept()"
    listener = await empty.provider.channel(empty.id, "b").start([sys.executable, "-c", listen])
    assert listener.stdout is not None
    assert await listener.stdout.readline() == b"listening\n"
    assert (await empty.run("a", sys.executable, "-c", connect, address, "7001"))[0] != 0
    assert (await empty.run("a", sys.executable, "-c", connect, "10.74.0.3", "7001"))[0] == 0
    await listener.close()
    assert "nameserver" in await empty.sh("a", "cat /etc/resolv.conf")
    await empty.provider.destroy(empty.id, quiet)
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forwarding
    assert await output("nft", "list", "ruleset") == tables
    assert sorted(os.listdir("/sys/class/net")) == interfaces


async def test_the_host_forwards_for_other_state_folders(empty: Grown, tmp_path: Path) -> None:
    """The host goes on forwarding as long as an environment of any state folder has nodes with internet."""
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    before = forwarding.read_text()
    provider = LocalProvider(LocalSettings(state=tmp_path / "other"))
    other = Grown(provider, f"other-{uuid.uuid4().hex[:8]}")
    try:
        for grown, subnet in ((empty, "10.75.0"), (other, "10.76.0")):
            lonely = node("a", ("lan", f"{subnet}.2/24"), internet=True)
            await grown.create([environment(), network("lan", f"{subnet}.0/24"), lonely])
        await empty.provider.destroy(empty.id, quiet)
        assert forwarding.read_text() == "1\n"
    finally:
        await provider.destroy(other.id, quiet)
        forwarding.write_text(before)


def host_address() -> str:
    """An address of this host that is not its loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.200", 9))
        address: str = probe.getsockname()[0]
        return address


async def output(*argv: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    return (await process.communicate())[0]


def make_image(folder: Path) -> Path:
    """A root filesystem with a shell and little else, made of the host's own files."""
    for program in ("/bin/sh", "/bin/cat"):
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in [program, *(word for word in libraries.split() if word.startswith("/"))]:
            target = folder / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(path), target)
    (folder / "etc").mkdir()
    (folder / "etc/marker").write_text("image\n")
    return folder


async def test_doctor_finds_what_nodes_need(empty: Grown) -> None:
    """Where the other tests of this file pass, doctor calls nothing that they need missing."""
    missing = [finding.what for finding in await empty.provider.diagnose() if finding.state == "missing"]
    assert missing == []


async def test_a_dead_fabric_can_be_made_anew(small: Grown) -> None:
    """Without the process that holds its networks an environment is stopped, and making anew what stopped makes it whole."""
    fabric = small.provider.state.environment(small.id).fabric_pid()
    assert fabric is not None
    processes.end([fabric])
    wanted = small_environment(provider="local")
    observed = (await small.provider.observe(small.id)).resources
    stopped = [resource for resource in wanted if observed[resource.key].state != "ready"]
    assert {resource.kind for resource in stopped} >= {"environment", "network", "node", "link", "access"}
    for resource in reversed(stopped):
        await small.provider.delete(small.id, [resource.key], quiet)
    await small.create(stopped)
    assert {item.state for item in (await small.provider.observe(small.id)).resources.values()} == {"ready"}
    assert await small.packet("client[0]", "server", "server") == ("10.62.0.2", 62)


async def test_the_users_secrets_are_not_seen(empty: Grown) -> None:
    """Keys and credentials below the home folders of the host are empty on a node."""
    folder = Path.home() / ".config" / "openstack"
    made = [path for path in (Path.home() / ".config", folder) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / f"wardian-{uuid.uuid4().hex}"
    secret.write_text("secret")
    try:
        await empty.create([environment(), node("curious")])
        assert await empty.sh("curious", f"test -d {folder} && ls -A {folder}") == ""
    finally:
        secret.unlink()
        for path in reversed(made):
            path.rmdir()
