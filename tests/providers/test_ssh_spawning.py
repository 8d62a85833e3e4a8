"""Commands from the second one on, started by a program that waits on the host: in all as if by a session."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.providers.sshd import Lab
from wardian.errors import CommandError, NodeDownError
from wardian.experiment.resources import EnvironmentRecord
from wardian.nodes.run import run
from wardian.providers.ssh import SshSettings, inventory, marker
from wardian.providers.ssh.channel import SshChannel
from wardian.providers.ssh.inventory import Host
from wardian.providers.ssh.spawning import Spawned

pytestmark = pytest.mark.root

NULL = asyncio.subprocess.DEVNULL
SETTLED = 1.1
"""Seconds after which a change of the node's variables is old enough to be told by its time."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One machine."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lab = Lab("10.98.0")
    try:
        lab.machine("fern")
        yield lab
    finally:
        lab.close()


@pytest.fixture
def host(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The machine, as the provider sees it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(lab.runtime))
    return inventory.hosts(SshSettings.model_validate(lab.settings()), lab.root)[0]


@pytest_asyncio.fixture
async def channel(lab: Lab, host: Host) -> AsyncIterator[SshChannel]:
    """The way to a node on it on which commands are started by the program."""
    if "PLANT=fern" not in lab.machines["fern"].run("cat /root/.cache/wardian/test-1/box/env 2>/dev/null; true"):
        await mark(host, PLANT="fern")
        await asyncio.sleep(SETTLED)
    channel = SshChannel("box", marker.place("test-1", "box"), lambda: host)
    await until_spawned(channel)
    yield channel


async def mark(host: Host, **env: str) -> None:
    record = EnvironmentRecord("test-1", "test", "default", "/test/experiment.yaml", "ssh", "tester", "here", 1.0)
    await marker.put(host, record, "box", {"env": env}, complete=True)


async def until_spawned(channel: SshChannel) -> None:
    """Run commands until one is started by the program."""
    for _ in range(200):
        process = await channel.start(["true"], stdin=NULL)
        await process.wait()
        await process.close()
        if isinstance(process, Spawned):
            return
    raise AssertionError("the program does not come up")


async def start(channel: SshChannel, script: str, **how: object) -> Spawned:
    """Start a shell script by the program."""
    process = await channel.start(["sh", "-c", script], stdin=NULL, **how)  # type: ignore[arg-type]
    assert isinstance(process, Spawned)
    return process


async def test_as_by_a_session(channel: SshChannel) -> None:
    """Streams, exit code, variables, folder, home and session are those that a command has when a session starts it."""
    script = 'echo "$PLANT $SOIL $PWD $WARDIAN_NODE"; echo err >&2; read -r _ _ _ _ group session _ </proc/$$/stat; '
    script += 'cat; [ "$$ $$" = "$group $session" ] && exit 3'
    process = await start(channel, script, env={"SOIL": "it's\n☃"}, cwd="/usr")
    assert process.stdout is not None
    assert process.stderr is not None
    assert await process.stdout.read() == "fern it's\n☃ /usr box\n".encode()
    assert await process.stderr.read() == b"err\n"
    assert await process.wait() == 3
    await process.close()
    assert (await run(channel, "box", ["pwd"])).stdout == "/root\n"


async def test_streams_merged_and_unwanted(channel: SshChannel) -> None:
    """Both streams come as one where that is asked for, and a stream that nobody wants goes nowhere."""
    process = await start(channel, "echo 1; echo 2 >&2; echo 3", stderr=asyncio.subprocess.STDOUT)
    assert process.stdout is not None
    assert (await process.stdout.read(), process.stderr) == (b"1\n2\n3\n", None)
    await process.close()
    process = await start(channel, "echo 1; echo 2 >&2; exit 4", stdout=NULL, stderr=NULL)
    assert (process.stdout, process.stderr, await process.wait()) == (None, None, 4)
    await process.close()


async def test_what_cannot_be_started(channel: SshChannel) -> None:
    """A program or a folder that is not there, or is none, is the error that a session gives."""
    for program in ("no-such-program", "/no/such/program", "/etc/passwd", "/usr"):
        with pytest.raises(CommandError, match=program):
            await channel.start([program], stdin=NULL)
    with pytest.raises(CommandError, match="/no/such/folder"):
        await channel.start(["pwd"], stdin=NULL, cwd="/no/such/folder")


async def test_signals_and_letting_go(channel: SshChannel) -> None:
    """A signal reaches the process group, an end by one is told, and what ignores being hung up on is killed when it is let go of."""
    process = await start(channel, "trap 'echo caught; exit 5' USR1; sh -c 'echo ready; exec sleep 600' & wait")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    await process.signal(signal.SIGUSR1)
    assert await process.stdout.read() == b"caught\n"
    assert await process.wait() == 5
    await process.close()
    process = await start(channel, "trap '' HUP; echo ready; while :; do sleep 600; done")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    await process.close()
    assert await process.wait() == 128 + signal.SIGKILL


async def test_a_slow_reader_holds_the_writer_up(channel: SshChannel) -> None:
    """Much output waits on the host while nobody reads it, other commands go on meanwhile, and all of it arrives in order."""
    process = await start(channel, "seq 1 2700000; echo done >&2")
    assert process.stdout is not None
    assert process.stderr is not None
    assert [(await run(channel, "box", ["echo", str(number)])).stdout for number in range(5)] == [f"{number}\n" for number in range(5)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.stderr.readline(), 0.3)
    received, size = hashlib.sha256(), 0
    while data := await process.stdout.read(2**16):
        received.update(data)
        size += len(data)
    assert size > 20_000_000
    assert received.digest() == hashlib.sha256(b"".join(b"%d\n" % number for number in range(1, 2_700_001))).digest()
    assert await process.wait() == 0
    await process.close()


async def test_many_at_once(channel: SshChannel) -> None:
    """Commands run side by side without mixing their output."""
    results = await asyncio.gather(*(run(channel, "box", ["sh", "-c", f"seq {n} {n + 999}; exit {n}"]) for n in range(40)))
    for number, result in enumerate(results):
        assert (result.exit_code, result.stdout) == (number, "".join(f"{item}\n" for item in range(number, number + 1000)))


async def test_variables_that_changed(channel: SshChannel, host: Host) -> None:
    """After the node's variables changed, no command sees the old ones, and the program comes back."""
    await mark(host, PLANT="ivy")
    assert (await run(channel, "box", ["sh", "-c", "echo $PLANT"])).stdout == "ivy\n"
    await asyncio.sleep(SETTLED)
    await until_spawned(channel)
    assert (await run(channel, "box", ["sh", "-c", "echo $PLANT"])).stdout == "ivy\n"


async def test_a_node_that_is_gone(channel: SshChannel, host: Host) -> None:
    """What runs on a node that is removed ends with it, waiting for it says so, and nothing more is started there."""
    process = await start(channel, "sleep 600")
    await marker.clean(host, "test-1")
    with pytest.raises(NodeDownError):
        await process.wait()
    await process.close()
    with pytest.raises(NodeDownError, match="no such node"):
        await channel.start(["true"], stdin=NULL)


async def test_a_program_that_is_killed(lab: Lab, channel: SshChannel) -> None:
    """When the program dies, its commands count as lost, and the next ones are started by sessions until it is back."""
    process = await start(channel, "sleep 600")
    lab.machines["fern"].run("kill -9 $(grep -lE 'python3.*-I.*-S' /proc/[0-9]*/cmdline | head -1 | cut -d/ -f3)")
    with pytest.raises(NodeDownError):
        await process.wait()
    await process.close()
    assert (await run(channel, "box", ["echo", "on"])).stdout == "on\n"
    await until_spawned(channel)


async def test_a_host_without_python(lab: Lab, host: Host) -> None:
    """Where no Python can run the program, commands go on being started by sessions."""
    await mark(host, WARDIAN_PYTHON="/usr/bin/false")
    channel = SshChannel("box", marker.place("test-1", "box"), lambda: host)
    for _ in range(4):
        assert (await run(channel, "box", ["echo", "on"])).stdout == "on\n"
    with pytest.raises(AssertionError, match="does not come up"):
        await until_spawned(channel)


def test_one_loop_after_another(host: Host, lab: Lab, tmp_path: Path) -> None:
    """A channel works in one event loop after another, as scripts use it."""

    async def use() -> None:
        await mark(host)
        await asyncio.sleep(SETTLED)
        await until_spawned(channel)

    channel = SshChannel("box", marker.place("test-1", "box"), lambda: host)
    for _ in range(2):
        asyncio.run(use())
    lab.machines["fern"].run("rm -rf /root/.cache")
