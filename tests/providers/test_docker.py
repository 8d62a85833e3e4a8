"""Nodes of the docker provider: what they are made of, what they may do, and what happens when something is done behind our back."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from wardian.errors import CommandError, NodeDownError, ProviderError
from wardian.experiment.resources import Observed, Resource
from wardian.nodes.run import run
from wardian.providers.base import Fault
from wardian.providers.docker import DockerProvider, DockerSettings
from wardian.providers.docker.channel import DockerChannel
from wardian.providers.docker.container import CAPABILITIES
from wardian.providers.docker.names import container_name
from wardian.providers.images.store import Store
from wardian.providers.local.channel import LocalProcess
from wardian.providers.testing import quiet, small_environment

from .. import engine as engines
from ..engine import BARE, IMAGE, Daemon
from . import archives
from .containers import Grown, node

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def provider(engine: Daemon, state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> DockerProvider:
    """A provider on the tests' Engine, with a state folder of its own."""
    monkeypatch.setenv("WARDIAN_STATE", str(state_folder))
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    return DockerProvider(DockerSettings(image=IMAGE))


@pytest_asyncio.fixture
async def empty(provider: DockerProvider, tmp_path: Path) -> AsyncIterator[Grown]:
    """An environment with nothing in it; its experiment's folder is the test's own."""
    grown = Grown(provider, tmp_path)
    yield grown
    await provider.destroy(grown.id, quiet)
    assert await grown.left() == []


# What a node is


async def test_a_node_is_the_container_that_was_asked_for(empty: Grown) -> None:
    """Hostname, variables, limits, capabilities and labels are as written, and nothing more is allowed."""
    await empty.grow(node("a", cpus=0.5, memory=2**27, env={"PLANT": "fern"}, capabilities=["NET_ADMIN"]))
    assert (
        await empty.sh("a", 'echo "$(cat /etc/hostname) $PLANT $WARDIAN_NODE $HOME"; cat /sys/class/net/eth0/operstate')
        == "a fern a /root\nup"
    )
    facts = await empty.ask("GET", f"/containers/{container_name(empty.id, 'a')}/json")
    limits = facts["HostConfig"]
    assert (limits["CpuQuota"], limits["CpuPeriod"], limits["Memory"]) == (50_000, 100_000, 2**27)
    assert (limits["CapDrop"], set(limits["CapAdd"])) == (["ALL"], {*CAPABILITIES, "NET_ADMIN"})
    assert not limits["Privileged"]
    # an Engine without root has no more groups than these to give
    assert limits["Sysctls"]["net.ipv4.ping_group_range"] == "0 65535"
    assert facts["Config"]["Labels"]["wardian.environment"] == empty.id
    assert json.loads(facts["Config"]["Labels"]["wardian.spec"])["memory"] == 2**27


async def test_limits_change_in_place(empty: Grown) -> None:
    """Limits of a running node are changed and taken away without making it anew."""
    await empty.grow(node("a", cpus=0.5, memory=2**27))
    await empty.sh("a", "touch /tmp/here")
    for cpus, memory in ((1.5, 2**28), (None, None)):
        await empty.provider.update(empty.id, [node("a", cpus=cpus, memory=memory)], quiet)
        facts = await empty.ask("GET", f"/containers/{container_name(empty.id, 'a')}/json")
        assert facts["HostConfig"]["CpuQuota"] == (150_000 if cpus else -1)
        assert facts["HostConfig"]["Memory"] == memory if memory else facts["HostConfig"]["Memory"] > 2**50
    await empty.sh("a", "test -e /tmp/here")


async def test_a_node_with_nothing_but_a_shell(empty: Grown) -> None:
    """An image with a shell alone makes a node: commands run on it, and its orphans are reaped."""
    await empty.grow(node("a", image=BARE))
    assert (
        await empty.sh("a", "sh -c 'sleep 0 & echo $!' >/tmp/orphan; while [ -e /proc/$(cat /tmp/orphan) ]; do :; done; echo reaped")
        == "reaped"
    )


async def test_volumes(empty: Grown) -> None:
    """A folder beside the experiment file is seen on the node, to be read only where that is written."""
    (empty.folder / "data").mkdir()
    (empty.folder / "data" / "seed").write_text("fern\n")
    volumes = [{"source": "./data", "target": "/data", "read_only": False}, {"source": "./data", "target": "/kept", "read_only": True}]
    await empty.grow(node("a", volumes=volumes))
    assert await empty.sh("a", "cat /data/seed; echo moss > /data/found; touch /kept/x 2>/dev/null || echo refused") == "fern\nrefused"
    assert (empty.folder / "data" / "found").read_text() == "moss\n"


async def test_ports_are_published_on_loopback(empty: Grown) -> None:
    """A port is bound on the loopback interface unless another address is written, and the node still reaches its network by eth0."""
    port = {"node": 8080, "host": None, "address": "127.0.0.1", "protocol": "tcp"}
    await empty.grow(node("a", ports=[port]), node("b", "10.74.0.3"))
    facts = await empty.ask("GET", f"/containers/{container_name(empty.id, 'a')}/json")
    (binding,) = facts["NetworkSettings"]["Ports"]["8080/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    assert int(binding["HostPort"]) > 0
    await empty.sh("b", "ping -c 1 -W 5 10.74.0.2")


async def test_a_node_with_internet_has_a_way_out_of_its_own(empty: Grown) -> None:
    """With internet a node has a default route by inet0, without it none; neighbours meet on the experiment's network only."""
    await empty.grow(node("a", internet=True), node("b", "10.74.0.3", internet=True), node("c", "10.74.0.4"))
    assert "dev inet0" in await empty.sh("a", "ip route show default")
    assert await empty.sh("c", "ip route show default") == ""
    outside = await empty.sh("b", "ip -4 -o addr show inet0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'")
    await empty.sh("a", "ping -c 1 -W 5 10.74.0.3")
    await empty.sh("a", f"! ping -c 1 -W 1 {outside}")


# Images


async def test_an_image_from_an_archive_and_from_a_folder(empty: Grown) -> None:
    """A tar with a root file system makes an image once, a folder does, and so does an OCI archive, which the Engine itself cannot read.

    What is recorded of each is what the provider local records of it, and of what `docker save` writes.
    """
    root = engines.images.without_python(bash=False)
    layer = archives.packed(root)
    (empty.folder / "root.tar").write_bytes(layer)
    files = archives.layout([layer], archives.config([layer], Env=["PLANT=fern"]))
    (empty.folder / "oci.tar").write_bytes(archives.tar([archives.entry(name, data) for name, data in files.items()]))
    oci = node("o", "10.74.0.5", image="./oci.tar")
    await empty.grow(node("a", image="./root.tar"), node("b", "10.74.0.3", image=str(root)), oci)
    unpacking = [name for name, state in empty.told if state.startswith("unpacking")]
    assert sorted(unpacking) == ["a", "b", "o"]
    assert await empty.sh("o", "echo $PLANT") == "fern"
    digests = {name: image["digest"] for name, image in (await empty.provider.images(empty.id)).items()}
    with open(empty.folder / "saved.tar", "wb") as file:
        async for chunk in empty.provider.engine.download("/images/get", names=(digests["o"],)):
            file.write(chunk)
    store = Store(empty.folder / "store")
    assert store.add(empty.folder / "root.tar").digest == digests["a"]
    assert store.add(empty.folder / "oci.tar").digest == store.add(empty.folder / "saved.tar").digest == digests["o"]
    images = await empty.ask("GET", "/images/json")
    tag = next(name for item in images for name in item["RepoTags"] or () if name.startswith("wardian-image:"))
    empty.told.clear()
    await empty.create(node("c", "10.74.0.4", image="./root.tar"))
    assert not [state for _, state in empty.told if state.startswith("unpacking")]
    assert await empty.sh("c", "echo alive") == "alive"
    assert tag


async def test_a_missing_image_says_so_and_the_others_are_made(empty: Grown) -> None:
    """An image that cannot be had is named with what to do; the other nodes are complete, and the rest can be made later."""
    with pytest.raises(ProviderError, match="no-such-image") as caught:
        await empty.grow(node("a", image="registry.invalid/no-such-image:1"), node("b", "10.74.0.3"))
    assert caught.value.resource == "node a"
    assert "docker load" in (caught.value.remedy or "")
    states = await empty.states()
    assert states["node", "b"] == ("ready", "")
    assert ("node", "a") not in states
    await empty.create(node("a"))
    await empty.sh("a", "ping -c 1 -W 5 10.74.0.3")


async def test_an_image_without_a_shell_is_refused(empty: Grown) -> None:
    """An image in which nothing could ever run is an error that says why, and leaves nothing ready."""
    (empty.folder / "hollow").mkdir()
    (empty.folder / "hollow" / "file").write_text("nothing\n")
    with pytest.raises(ProviderError, match="has no /bin/sh") as caught:
        await empty.grow(node("a", image="./hollow"))
    assert caught.value.resource == "node a"
    assert (await empty.states())["node", "a"][0] == "incomplete"


async def test_an_image_is_built_once_for_what_it_is_built_from(empty: Grown) -> None:
    """A Dockerfile is built with its arguments and without what is ignored, and the same not again; a failure shows its last lines."""
    context = empty.folder / "image"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {BARE}\nARG PLANT=none\nCOPY . /srv/\nRUN echo growing $PLANT && echo $PLANT > /plant\n")
    (context / "seed").write_text("fern\n")
    (context / "secret").write_text("hidden\n")
    (context / ".dockerignore").write_text("sec*\n")
    build = {"context": "./image", "dockerfile": None, "target": None, "args": {"PLANT": uuid.uuid4().hex}, "sha256": "1"}
    await empty.grow(node("a", build=build))
    assert await empty.sh("a", "cat /plant /srv/seed; ls /srv") == f"{build['args']['PLANT']}\nfern\nDockerfile\nseed"
    assert any(state.startswith("building: growing") for _, state in empty.told)
    empty.told.clear()
    await empty.create(node("b", "10.74.0.3", build=build))
    assert [state for name, state in empty.told if name == "b"] == ["creating", "ready"]
    (context / "Dockerfile").write_text(f"FROM {BARE}\nRUN echo withering; exit 3\n")
    with pytest.raises(ProviderError, match="withering"):
        await empty.create(node("c", "10.74.0.4", build={**build, "sha256": "2"}))


async def test_setup_runs_once_and_is_shared(empty: Grown) -> None:
    """A setup script makes an image that all nodes with it are made from; one that fails shows its end and leaves no container."""
    script = f"echo preparing; echo {uuid.uuid4().hex} > /prepared; date +%N >> /prepared"
    await empty.grow(node("a", setup=script), node("b", "10.74.0.3", setup=script))
    assert await empty.sh("a", "cat /prepared") == await empty.sh("b", "cat /prepared")
    assert ("a", "setup: preparing") in empty.told
    with pytest.raises(ProviderError, match=r"exit code 4[^\n]*\n.*wilted"):
        await empty.create(node("c", "10.74.0.4", setup="echo wilted; exit 4"))
    names = [item["Names"][0] for item in await empty.ask("GET", "/containers/json", all=True)]
    assert not [name for name in names if "setup" in name]


# Behind our back


async def test_a_node_that_is_restarted_is_no_longer_joined(empty: Grown) -> None:
    """`docker restart` takes a container out of its networks; that is seen, and making it anew mends it."""
    resources = [empty.environment(), Resource("network", "lan", {"subnet": "10.74.0.0/24", "gateway": None, "routes": []}), node("a")]
    await empty.create(*resources)
    await empty.ask("POST", f"/containers/{container_name(empty.id, 'a')}/restart", t=0)
    assert "- node        a  (no longer running: its container was restarted" in await empty.plan(*resources)
    await empty.provider.delete(empty.id, [("node", "a")], quiet)
    await empty.create(node("a"))
    assert "Nothing to do" in await empty.plan(*resources)


async def test_an_image_that_means_another_by_now_is_seen(empty: Grown) -> None:
    """When the name of a node's image is given to another image the plan makes the node anew, and says from what to what."""
    name = f"wardian-test:{uuid.uuid4().hex[:8]}"
    repository, _, tag = name.partition(":")
    await empty.ask("POST", f"/images/{IMAGE}/tag", repo=repository, tag=tag)
    lan = Resource("network", "lan", {"subnet": "10.74.0.0/24", "gateway": None, "routes": []})
    resources = [empty.environment(), lan, node("a", image=name)]
    await empty.create(*resources)
    assert "Nothing to do" in await empty.plan(*resources)
    await empty.ask("POST", f"/images/{BARE}/tag", repo=repository, tag=tag)
    assert f" -> {name})" in await empty.plan(*resources)
    await empty.ask("DELETE", f"/images/{name}")


async def test_another_image_for_nodes_that_name_none_is_seen(empty: Grown) -> None:
    """A node that names no image is planned with that of the settings, and made anew where they name another one."""
    given = [empty.environment(), node("a"), node("b", build={"context": "./image"})]
    planned = {item.name: item for item in await empty.provider.complete(given, Observed())}
    assert [planned[name].spec["image"] for name in "ab"] == [IMAGE, None]
    await empty.grow(planned["a"])
    lan = Resource("network", "lan", {"subnet": "10.74.0.0/24", "gateway": None, "routes": []})
    changed = await DockerProvider(DockerSettings(image=BARE)).complete([given[0], lan, given[1]], Observed())
    assert f"(image {IMAGE} -> {BARE})" in await empty.plan(*changed)


async def test_what_was_pruned_is_known_by_the_nodes(empty: Grown) -> None:
    """Without its record an environment is still listed, planned and removed, by the labels of its nodes."""
    await empty.grow(node("a"))
    for volume in (await empty.ask("GET", "/volumes"))["Volumes"]:
        if volume["Name"].startswith(empty.id):
            await empty.ask("DELETE", f"/volumes/{volume['Name']}")
    assert empty.id in [record.id for record in await empty.provider.environments()]
    assert (await empty.states())["environment", "contract"] == ("incomplete", "its record is gone")
    removed = await empty.provider.collect_garbage(quiet)
    assert f"environment {empty.id}: it has no record" in removed


async def test_garbage_is_what_cannot_come_back(empty: Grown) -> None:
    """When all containers of an environment have ended, as after a reboot, it is collected whole."""
    await empty.grow(node("a"))
    await empty.ask("POST", f"/containers/{container_name(empty.id, 'a')}/kill")
    await empty.ask("POST", f"/containers/{container_name(empty.id, 'a')}/wait")
    assert f"environment {empty.id}: none of its nodes runs any more" in await empty.provider.collect_garbage(quiet)
    assert await empty.left() == []


async def test_a_name_that_a_killed_process_left_is_taken_over(empty: Grown) -> None:
    """A container that was asked for by a process that died, and came into being after the last look, does not stand in the way."""
    await empty.grow()
    await empty.ask("POST", "/containers/create", {"Image": BARE, "Cmd": ["true"]}, name=f"{container_name(empty.id, 'a')}.new")
    await empty.create(node("a"))
    assert (await empty.states())["node", "a"] == ("ready", "")


async def test_a_paused_node_says_how_it_goes_on(empty: Grown) -> None:
    """A command for a paused node is an error that names the way on, and the node is not taken for lost."""
    await empty.grow(node("a"))
    name = container_name(empty.id, "a")
    await empty.ask("POST", f"/containers/{name}/pause")
    with pytest.raises(NodeDownError, match="paused") as caught:
        await empty.sh("a", "true")
    assert f"docker unpause {name}" in (caught.value.remedy or "")
    assert (await empty.states())["node", "a"] == ("ready", "")
    await empty.ask("POST", f"/containers/{name}/unpause")


async def test_arguments_past_the_kernels_limit_are_an_error(empty: Grown) -> None:
    """A command with an argument that no kernel takes is refused with the reason."""
    await empty.grow(node("a"))
    with pytest.raises(CommandError, match="too long"):
        await empty.provider.channel(empty.id, "a").start(["echo", "x" * 2**18])


# Processes that process 1 of a node starts

_WHAT_IT_IS = """
import os, resource
fields = "Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters SigBlk SigIgn SigCgt".split()
with open("/proc/self/status") as file:
    lines = [line.split() for line in file if line.partition(":")[0] in fields]
# two signals are the C library's own, which ignores them in what it spawns
found = [f"{name} {int(rest[0], 16) & ~(3 << 31):x}" if name == "SigIgn:" else f"{name} {rest}" for name, *rest in lines]
for name in ("cgroup", "oom_score_adj", "limits", "attr/current", "mountinfo"):
    try:
        with open(f"/proc/self/{name}") as file:
            found.append(name + " " + file.read())
    except OSError as error:
        found.append(f"{name} {error.strerror}")
found += [os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))]
found += [f"{os.umask(0):o}", os.getcwd(), str(os.getsid(0) == os.getpid()), str(sorted(os.listdir("/proc/self/fd")))]
found += sorted(f"{name}={value}" for name, value in os.environ.items() if name not in ("PWD", "OLDPWD", "SHLVL", "_"))
print("\\n".join(found))
"""


async def test_what_process_1_starts_is_what_docker_exec_starts(empty: Grown) -> None:
    """A process is the same in all that the kernel knows of it, whether process 1 of the node started it or the Engine."""
    spec = {"env": {"PLANT": "fern"}, "memory": 2**28, "cpus": 0.5, "capabilities": ["NET_ADMIN"]}
    await empty.grow(node("a", **spec))
    said = []
    for process in (await empty.init("a"), None):
        channel = DockerChannel(empty.provider.engine, empty.id, "a", process)
        result = await run(channel, "a", ["python3", "-c", _WHAT_IT_IS], env={"SOIL": "wet"})
        assert result.ok, result.stderr
        said.append(result.stdout)
    assert "SOIL=wet" in said[0]
    assert said[0] == said[1]


async def test_process_1_serves_nobody_on_its_node(empty: Grown) -> None:
    """Whoever runs on a node gets nothing from its process 1, which would start programs with all that the node may do."""
    await empty.grow(node("a"))
    await empty.init("a")
    script = "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('/dev/wardian.sock'); print(s.recv(99))"
    assert await empty.sh("a", f'python3 -c "{script}"') == "b''"


async def test_a_stranger_in_the_place_of_process_1_is_told_nothing(empty: Grown) -> None:
    """Something of the node's that listens in the place of its process 1 is not asked, and commands run all the same."""
    await empty.grow(node("a"))
    await empty.init("a")
    channel = empty.provider.channel(empty.id, "a")
    script = (
        "import os, socket; os.unlink('/dev/wardian.sock'); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        "s.bind('/dev/wardian.sock'); s.listen(); print('listening', flush=True); print(s.accept()[0].recv(99), flush=True)"
    )
    stranger = await channel.start(["python3", "-c", script])
    assert stranger.stdout is not None
    assert await stranger.stdout.readline() == b"listening\n"
    assert await empty.sh("a", "echo alive") == "alive"
    assert await stranger.stdout.readline() == b"b''\n"
    await stranger.close()


async def test_a_process_ends_with_who_asked_for_it(empty: Grown) -> None:
    """When the connection of a process breaks, process 1 hangs up on it, and kills what ignores that."""
    await empty.grow(node("a"))
    await empty.init("a")
    process = await empty.provider.channel(empty.id, "a").start(["sh", "-c", "trap '' HUP; echo $$; while :; do sleep 600; done"])
    assert isinstance(process, LocalProcess)
    assert process.stdout is not None
    number = (await process.stdout.readline()).decode().strip()
    process._let_go()
    await empty.sh("a", f"while [ -e /proc/{number} ]; do sleep 0.05; done")
    await process.close()


async def test_a_script_without_a_first_line_runs(empty: Grown) -> None:
    """What is executable and no program is run by the shell, as shells do, whoever starts it."""
    await empty.grow(node("a"), node("b", "10.74.0.3", image=BARE))
    await empty.init("a")
    for name in ("a", "b"):
        await empty.sh(name, "echo 'echo grown $1' > /bin/plant; chmod +x /bin/plant")
        assert (await run(empty.provider.channel(empty.id, name), name, ["plant", "fern"])).stdout == "grown fern\n"


# Faults


async def test_faults_are_suffered_and_undone(empty: Grown) -> None:
    """Nodes are paused, slowed, parted and killed, links lose their carrier, and each is undone by asking for none."""
    await empty.grow(node("a", cpus=1.0), node("b", "10.74.0.3"))
    await empty.create(Resource("access", "b/lan", {"node": "b", "network": "lan", "up": {}, "down": {}}))
    name = container_name(empty.id, "a")

    async def facts() -> dict[str, Any]:
        found: dict[str, Any] = await empty.ask("GET", f"/containers/{name}/json")
        return found

    async def inflict(kind: str, targets: list[str], **values: Any) -> None:
        await empty.provider.inflict(empty.id, kind, targets, [Fault("f", kind, tuple(targets), values)])

    await inflict("pause", ["a"])
    assert (await facts())["State"]["Paused"]
    await empty.provider.inflict(empty.id, "pause", ["a"], [])
    await inflict("slow", ["a"], cpu=0.25)
    assert (await facts())["HostConfig"]["CpuQuota"] == 25_000
    await empty.provider.inflict(empty.id, "slow", ["a"], [])
    assert (await facts())["HostConfig"]["CpuQuota"] == 100_000
    await inflict("partition", ["a", "b"], deaf={"a": ["10.74.0.3"], "b": ["10.74.0.2"]})
    await empty.sh("a", "! ping -c 1 -W 1 10.74.0.3")
    await empty.provider.inflict(empty.id, "partition", ["a", "b"], [])
    await inflict("flap", ["b/lan"])
    assert await empty.sh("b", "cat /sys/class/net/eth0/carrier") == "0"
    await empty.provider.inflict(empty.id, "flap", ["b/lan"], [])
    await empty.sh("a", "ping -c 1 -W 5 10.74.0.3")
    await inflict("pause", ["a"])
    await empty.provider.kill(empty.id, ["a"])
    assert (await empty.states())["node", "a"] == ("stopped", "its container is exited")


# The Engine


async def test_no_engine_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an Engine nothing is listed, and asking for it is one clear error with what to do."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    provider = DockerProvider()
    assert await provider.environments() == []
    with pytest.raises(ProviderError, match="does not answer") as caught:
        await provider.capabilities([])
    assert "DOCKER_HOST" in (caught.value.remedy or "")
    assert [finding.state for finding in await provider.diagnose()] == ["limited"]


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:2376", "nonsense", "ssh://host.invalid"])
async def test_an_engine_elsewhere_does_not_hold_others_up(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Engine that cannot be used, or is far, is not asked when environments are listed, as every command does."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", address)
    monkeypatch.setattr("wardian.providers.docker.engine.dial", lambda _: pytest.fail("it was asked"))
    assert await DockerProvider().environments() == []


async def test_an_engine_that_says_nothing_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Engine that takes connections and never answers is taken for down when environments are listed."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/mute.sock")
    monkeypatch.setattr("wardian.providers.docker.provider.PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"{tmp_path}/mute.sock")
        mute.listen()
        assert await DockerProvider().environments() == []


@pytest.fixture
def own_engine(state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """An Engine that the test may do anything to."""
    daemon = engines.start()
    monkeypatch.setenv("WARDIAN_STATE", str(state_folder))
    monkeypatch.setenv("DOCKER_HOST", daemon.address)
    yield daemon
    daemon.close()


@pytest.mark.long
async def test_an_engine_that_goes_away_and_comes_back(own_engine: Daemon, tmp_path: Path) -> None:
    """While the Engine is down its environments are known, and work on them says why it fails; later what it ended is made anew."""
    grown = Grown(DockerProvider(DockerSettings(image=IMAGE)), tmp_path)
    lan = Resource("network", "lan", {"subnet": "10.74.0.0/24", "gateway": None, "routes": []})
    resources = [grown.environment(), lan, node("a")]
    await grown.create(*resources)
    process = await grown.provider.channel(grown.id, "a").start(["sleep", "600"])
    await asyncio.to_thread(own_engine.stop)
    with pytest.raises(NodeDownError):
        await process.wait()
    assert [record.id for record in await grown.provider.environments()] == [grown.id]
    with pytest.raises(ProviderError, match="does not answer"):
        await grown.provider.observe(grown.id)
    with pytest.raises(NodeDownError, match="does not answer"):
        await grown.sh("a", "true")
    await asyncio.to_thread(own_engine.start)
    assert "- node        a  (no longer running: its container is exited)" in await grown.plan(*resources)
    await grown.provider.delete(grown.id, [("node", "a")], quiet)
    await grown.create(node("a"))
    assert await grown.sh("a", "echo back") == "back"
    await grown.provider.destroy(grown.id, quiet)
    assert await grown.left() == []


@pytest.mark.long
async def test_an_engine_that_is_killed_during_create(own_engine: Daemon, tmp_path: Path) -> None:
    """When the Engine dies while nodes are made the error says so, and once it is back the rest is made or removed."""
    grown = Grown(DockerProvider(DockerSettings(image=IMAGE)), tmp_path)
    nodes = [node(f"n{number}", f"10.74.0.{number + 2}") for number in range(8)]
    await grown.grow()
    making = asyncio.create_task(grown.create(*nodes))
    while not [state for _, state in grown.told if state == "ready"]:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(own_engine.stop)
    with pytest.raises(ProviderError):
        await making
    await asyncio.to_thread(own_engine.start)
    seen = await grown.states()
    again = [item for item in nodes if seen.get(item.key, ("", ""))[0] != "ready"]
    await grown.provider.delete(grown.id, [item.key for item in again], quiet)
    await grown.create(*again)
    assert {state for state, _ in (await grown.states()).values()} == {"ready"}
    await grown.provider.destroy(grown.id, quiet)
    assert await grown.left() == []


# Networks of the Engine's


@pytest_asyncio.fixture
async def wired_by_engine(provider: DockerProvider, tmp_path: Path) -> AsyncIterator[Grown]:
    """An environment whose networks are the Engine's."""
    grown = Grown(DockerProvider(DockerSettings(image=IMAGE, wiring="engine")), tmp_path)
    yield grown
    await grown.provider.destroy(grown.id, quiet)
    assert await grown.left() == []


async def test_engine_networks_have_the_addresses_as_written(wired_by_engine: Grown) -> None:
    """On the Engine's networks nodes have their interfaces in order with their addresses, and names lead to neighbours."""
    grown = wired_by_engine
    await grown.grow()
    await grown.create(Resource("network", "wan", {"subnet": "10.75.0.0/24", "gateway": None, "routes": []}))
    both = [{"name": "eth0", "network": "wan", "address": "10.75.0.7/24"}, {"name": "eth1", "network": "lan", "address": "10.74.0.7/24"}]
    await grown.create(node("a", interfaces=both), node("b", "10.74.0.9"))
    await grown.create(
        Resource("names", "hosts", {"tables": {"lan": [["10.74.0.7", "a"], ["10.74.0.9", "b"]], "lan,wan": [["10.74.0.9", "b"]]}})
    )
    addresses = await grown.sh("a", "ip -4 -o addr | sed 's/^[0-9]*: *\\([^ ]*\\) *inet \\([0-9.]*\\).*/\\1 \\2/'")
    assert addresses.splitlines() == ["lo 127.0.0.1", "eth0 10.75.0.7", "eth1 10.74.0.7"]
    await grown.sh("b", "ping -c 1 -W 5 a")
    await grown.sh("a", "ping -c 1 -W 5 b")


async def test_engine_networks_say_what_they_cannot(wired_by_engine: Grown) -> None:
    """Links and shapes are said not to be honoured before anything is made, and a subnet in use is an error with what to do."""
    grown = wired_by_engine
    caveats = (await grown.provider.capabilities(small_environment(provider="docker"))).caveats
    assert "link wan" in [caveat.resource for caveat in caveats]
    await grown.grow()
    with pytest.raises(ProviderError, match="overlap") as caught:
        await grown.create(Resource("network", "twin", {"subnet": "10.74.0.0/25", "gateway": None, "routes": []}))
    assert "write another subnet" in (caught.value.remedy or "")


async def test_an_engine_network_that_is_removed_is_seen(wired_by_engine: Grown) -> None:
    """A network that somebody removed is made again, and its nodes with it."""
    grown = wired_by_engine
    lan = Resource("network", "lan", {"subnet": "10.74.0.0/24", "gateway": None, "routes": []})
    resources = [grown.environment(), lan, node("a")]
    await grown.create(*resources)
    network = f"{grown.id}.lan"
    await grown.ask("POST", f"/networks/{network}/disconnect", {"Container": container_name(grown.id, "a"), "Force": True})
    await grown.ask("DELETE", f"/networks/{network}")
    plan = await grown.plan(*resources)
    assert "+ network     lan  (new)" in plan
    assert "- node        a  (no longer running: its interface eth0 is gone)" in plan


# Nodes as machines


async def test_a_node_is_an_image_rebooted_and_rebuilt(empty: Grown) -> None:
    """A snapshot has the node's files, what its image starts and no variable or label of the node, and is made once; rebooted, a node
    keeps its files, and has its network and names; rebuilt, from whichever image, it is its image, and the plan has nothing to do."""
    provider, built = empty.provider, f"wardian-test/{empty.id}:1"
    names = Resource("names", "hosts", {"tables": {"lan": [["10.74.0.2", "a"], ["10.74.0.3", "b"]]}})
    a, b = node("a", image=IMAGE, env={"PLANT": "fern"}), node("b", "10.74.0.3", image=IMAGE)
    desired = [empty.environment(), Resource("network", "lan", {"subnet": "10.74.0.0/24", "gateway": None, "routes": []}), a, b, names]
    await empty.create(*desired)
    await empty.sh("a", "echo moss > /root/moss")
    try:
        digest = await provider.snapshot(empty.id, "a", built, quiet)
        made = await empty.ask("GET", f"/images/{built}/json")
        base = (await empty.ask("GET", f"/images/{IMAGE}/json"))["Config"]
        assert made["Id"] == digest
        assert [made["Config"][key] or [] for key in ("Entrypoint", "Cmd")] == [base[key] or [] for key in ("Entrypoint", "Cmd")]
        assert "fern" not in str(made["Config"])
        assert not {label: value for label, value in made["Config"]["Labels"].items() if value and label != "wardian.snapshot"}
        with pytest.raises(ProviderError, match=f"node a: there is an image {built}\n.*docker rmi"):
            await provider.snapshot(empty.id, "a", built, quiet)

        await provider.reboot(empty.id, [a], quiet, hard=True)
        assert await empty.sh("a", "cat /root/moss; echo $PLANT; ping -c 1 -W 5 b >/dev/null && echo heard") == "moss\nfern\nheard"
        assert await empty.sh("b", "ping -c 1 -W 5 a >/dev/null && echo heard") == "heard"
        assert await empty.sh("a", "cat /etc/hostname") == "a"
        assert "Nothing to do" in await empty.plan(*desired)
        await empty.ask("POST", f"/containers/{container_name(empty.id, 'a')}/kill")
        await provider.reboot(empty.id, [a], quiet)
        assert await empty.sh("a", "cat /root/moss") == "moss"

        await provider.rebuild(empty.id, [a], quiet)
        assert await empty.sh("a", "cat /root/moss 2>/dev/null || echo none") == "none"
        await provider.rebuild(empty.id, [a, b], quiet, image=await provider.image_digest(empty.id, built, quiet))
        assert await empty.sh("b", "cat /root/moss; echo ${PLANT:-bare}; ping -c 1 -W 5 a >/dev/null && echo heard") == "moss\nbare\nheard"
        assert (await provider.images(empty.id))["b"]["digest"] == digest
        assert "Nothing to do" in await empty.plan(*desired)
        with pytest.raises(ProviderError, match=r"nowhere\.invalid"):
            await provider.image_digest(empty.id, "nowhere.invalid/x", quiet)
    finally:
        await provider.delete(empty.id, [a.key, b.key], quiet)
        await empty.ask("DELETE", f"/images/{built}", force=True)
