"""Faults on nodes of namespaces: what they do to traffic and processes, and that they end whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..stage import Stage, eventually, make_stage, require
from .test_keeper import keeper

pytestmark = [pytest.mark.root, pytest.mark.slow]

TEXT = """
name: NAME
networks: {east: {}, west: {}}
links:
  wan: {between: [east, west]}
nodes:
  a: {networks: [east]}
  b: {networks: [west]}
  c: {networks: [east]}
collect: [{on: a, path: /root/kept}]
"""

PING = ("--", "ping", "-n", "-c", "1", "-W", "1")


def grown(stage: Stage) -> Stage:
    """Two networks with a link between them, up."""
    require("ping")
    stage.write(TEXT)
    stage.run("up")
    return stage


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for the tests that leave it as it was, with no fault in force."""
    stage = make_stage(tmp_path_factory.mktemp("faults"))
    yield grown(stage)
    stage.close()


def in_force(stage: Stage) -> list[str]:
    return [item["id"] for item in stage.json("fault", "ls", "--json")]


def test_partition(up: Stage) -> None:
    """Nothing passes between the sides, also where it is routed; all else does, and everything once it is undone."""
    require("nft")
    up.run("fault", "partition", "a", "b,c")
    assert "100% packet loss" in up.run("exec", "a", *PING, "b", code=1).stdout
    assert "100% packet loss" in up.run("exec", "c", *PING, "a", code=1).stdout
    up.run("exec", "c", *PING, "b")
    up.run("fault", "undo")
    for node, other in (("a", "b"), ("c", "a")):
        # a neighbour that was not found is asked for again only after a moment
        eventually(lambda: up.start("exec", node, *PING, other).wait(60) == 0, "packets pass again")  # noqa: B023 (called at once)
    assert "fault.ended: partition a | b, c" in up.run("log").stdout


def test_pause(up: Stage) -> None:
    """A paused node does nothing; `status` answers meanwhile, and what was begun there goes on when it is undone."""
    (fault,) = [up.json("fault", "pause", "a", "--json")]
    assert fault["nodes"] == ["a"]
    assert "paused" in up.run("status").stdout
    waiting = up.start("exec", "a", "--", "echo", "back")
    up.run("exec", "c", "true")
    assert waiting.poll() is None
    up.run("fault", "undo", fault["id"])
    assert waiting.communicate(timeout=60)[0].endswith("back\n")


def test_end_of_a_duration(up: Stage) -> None:
    """With no command running, the fault ends when its time is over, and the journal says so."""
    up.run("fault", "pause", "a", "--for", "500ms")
    eventually(lambda: "its time is over" in up.run("log", "-n", "1").stdout, "the fault is over")
    assert in_force(up) == []
    up.run("exec", "a", "true")


def test_keeper_killed_under_a_fault(up: Stage) -> None:
    """When the keeper dies, any command brings one back, and the fault ends all the same."""
    up.run("fault", "pause", "a", "--for", "3s")
    dead = eventually(lambda: keeper(up), "there is a keeper")
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: keeper(up) is None, "the keeper is dead")
    up.run("status")
    eventually(lambda: not in_force(up), "the fault is over")
    up.run("exec", "a", "true")


def test_holder_killed(up: Stage) -> None:
    """A fault of a `with` ends when its process is killed."""
    script = textwrap.dedent("""
        import os, signal, wardian
        with wardian.Environment().fault.pause("a"):
            print("paused", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=up.folder, env=up.env, capture_output=True, text=True)
    assert done.stdout == "paused\n", done.stderr
    eventually(lambda: not in_force(up), "the fault is over")
    up.run("exec", "a", "true")
    assert "the process that held it ended" in up.run("log").stdout


def test_down_and_gc_under_faults(stage: Stage) -> None:
    """`down` lets go of what stands still, collects from it, and leaves nothing."""
    up = grown(stage)
    up.run("exec", "a", "--", "sh", "-c", "echo 42 > /root/kept")
    up.run("fault", "pause", "a,b")
    up.run("fault", "slow", "c", "--cpu", "50%")
    up.run("fault", "flap", "wan", "--every", "1s", "--down", "500ms")
    up.run("down")
    assert [path.read_text() for path in up.folder.rglob("kept")] == ["42\n"]
    up.assert_nothing_left()


def test_kill_and_up(up: Stage) -> None:
    """A killed node is stopped with all that ran on it, also while it is paused, and `up` makes it anew, free of faults."""
    running = up.start("exec", "a", "--", "sh", "-c", "echo running; sleep 600")
    assert running.stdout is not None
    assert running.stdout.readline().endswith("running\n")
    up.run("fault", "pause", "a")
    up.run("fault", "kill", "a")
    assert running.wait(60) != 0
    assert "stopped" in up.run("status").stdout
    up.run("up", "-y")
    up.run("exec", "a", "true")
    assert in_force(up) == []


def test_flap(up: Stage) -> None:
    """A flapping link carries nothing while it is down, and everything when it is undone."""
    up.run("fault", "flap", "wan", "--every", "1h", "--down", "59min")
    assert "100% packet loss" in up.run("exec", "a", *PING, "b", code=1).stdout
    up.run("exec", "a", *PING, "c")
    up.run("fault", "undo")
    eventually(lambda: up.start("exec", "a", *PING, "b").wait(60) == 0, "packets pass again")
    up.run("fault", "flap", "c/east", "--every", "100ms", "--down", "50ms", "--for", "500ms")
    eventually(lambda: not in_force(up), "the fault is over")
    eventually(lambda: up.start("exec", "c", *PING, "b").wait(60) == 0, "packets pass again")


def test_slow(up: Stage) -> None:
    """A slowed node gets its share of processor time and no more, also when its `cpus` change; afterwards there is what the file says."""
    burn = "import time; end, begun = time.monotonic() + 1, time.process_time()\nwhile time.monotonic() < end: pass\n"
    burn += "print(time.process_time() - begun)"
    up.run("fault", "slow", "a", "--cpu", "5%")
    used = float(up.run("exec", "a", "--", sys.executable, "-c", burn).stdout)
    assert used < 0.1 * (os.cpu_count() or 1) + 0.1, "it was given more than its share"
    group = next(_groups(up, "a", "cpu.cfs_quota_us", "cpu.max"))
    assert group.read_text().split()[0] not in ("-1", "max")
    up.edit("a: {networks: [east]}", "a: {networks: [east], cpus: 1}")
    up.run("up", "-y")
    assert group.read_text().split()[0] == "5000", "a share of what it has now, of 100000"
    up.run("fault", "undo")
    assert group.read_text().split()[0] == "100000"
    up.edit(", cpus: 1}", "}")
    up.run("up", "-y")
    assert group.read_text().split()[0] in ("-1", "max")


def test_a_node_is_killed_for_a_time(stage: Stage) -> None:
    """A node killed for a time comes back as it was, whatever the file says, and another dead one does not; `down` has it stay down."""
    up = grown(stage)

    def states() -> dict[str, str]:
        return {item["name"]: item["state"] for item in up.json("status", "--json")["resources"] if item["kind"] == "node"}

    up.edit("a: {networks: [east]}", "a: {networks: [east], env: {LATER: x}}")
    up.run("fault", "kill", "b")
    up.run("fault", "kill", "a", "--for", "100ms")
    eventually(lambda: not in_force(up), "its time is over")
    assert states() == {"a": "ready", "b": "stopped", "c": "ready"}
    assert "x" not in up.run("exec", "a", "--", "sh", "-c", "echo $LATER").stdout
    up.run("fault", "kill", "a", "--for", "1h")
    assert "kill a" in up.run("fault", "undo").stdout
    up.run("exec", "a", "true")
    up.run("fault", "kill", "c", "--for", "1h")
    up.run("down")


def _groups(stage: Stage, node: str, *files: str) -> Iterator[Path]:
    for root in Path("/sys/fs/cgroup").glob("*"):
        for name in files:
            path = root / "wardian" / stage.identity() / node / name
            if path.exists():
                yield path
    path = Path("/sys/fs/cgroup/wardian", stage.identity(), node, "cpu.max")
    if path.exists():
        yield path


def test_command_line(up: Stage) -> None:
    """With --wait it is over when the command is; wrong use is said with its exit code; ids complete."""
    up.run("fault", "pause", "a", "--for", "200ms", "--wait")
    assert in_force(up) == []
    staying = up.start("fault", "pause", "a", "--wait")
    eventually(lambda: in_force(up), "it is in force")
    staying.send_signal(signal.SIGINT)
    assert staying.wait(60) == 0
    assert in_force(up) == []
    assert "no fault 'x' is in force" in up.error("fault", "undo", "x", code=3)
    assert "two sides" in up.error("fault", "partition", "a", "a", code=3)
    assert "nobody" in up.error("fault", "pause", "nobody", code=3)
