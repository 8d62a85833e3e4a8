"""Whatever is killed, and whenever: running a command again finishes the work, and nothing is left in the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from ..stage import Stage, eventually, require

pytestmark = pytest.mark.root

TEXT = """
name: NAME
networks: {east: {}, west: {}}
links: {wan: {between: [east, west], delay: 3ms, rate: 50mbit, queue: 100}}
nodes:
  server: {networks: [east], files: {page.txt: /srv/page.txt}}
  client: {count: 4, networks: [west]}
services:
  web: {on: server, command: [sh, -c, "echo serving; exec sleep 1d"], ready: {log: serving}}
"""


@pytest.fixture
def whole(stage: Stage) -> Stage:
    """The experiment that is killed: two networks, a link with delay, five nodes, a service, a file copied in."""
    stage.write(TEXT)
    stage.write("hello\n", "page.txt")
    return stage


def assert_up(stage: Stage) -> None:
    """The environment is as the file says, and it really works: all nodes, the file, the service, the link."""
    stage.run("plan", "--exit-code", code=0)
    resources = stage.json("status", "--json")["resources"]
    assert [f"{item['kind']} {item['name']}: {item['state']}" for item in resources if item["state"] != "ready"] == []
    assert sorted(item["name"] for item in resources if item["kind"] == "node") == [*(f"client[{n}]" for n in range(4)), "server"]
    assert stage.run("exec", "server", "cat", "/srv/page.txt").stdout == "hello\n"
    stage.run("exec", "client[3]", "--", "ping", "-c", "1", "-W", "5", "server")


def kill_midway(stage: Stage, command: str, after: float) -> bool:
    """SIGKILL `wardian COMMAND` some seconds after its start. Whether it was still running."""
    process = stage.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -signal.SIGKILL


def duration(stage: Stage, command: str) -> float:
    """How long a command takes when nobody disturbs it, seconds."""
    begun = time.monotonic()
    stage.run(command)
    return time.monotonic() - begun


def killed_up(stage: Stage, kills: int, seed: int) -> None:
    """Kill `up` at uniformly random points of its life, so many times, once or several times in a row; then finish it, or tear it down."""
    require("ping")
    chance = random.Random(seed)
    length = duration(stage, "up")
    stage.run("down")
    killed = rounds = 0
    for number in range(3 * kills):
        after = chance.uniform(0, length)
        where = f"kill {number}, after {after:.3f} s of {length:.3f} s, seed {seed}"
        try:
            fresh = not stage.environments()
            hit = kill_midway(stage, "up", after)
            killed += hit
            if fresh and not hit:
                length = after  # the machine has become faster
            # what was killed before it had made anything leaves nothing to finish
            if stage.environments() and (not hit or chance.random() < 0.6):
                finish(stage, rounds)
                rounds += 1
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        if killed == kills:
            break
    assert killed == kills
    if stage.environments():
        stage.run("down")
    stage.assert_nothing_left()


def finish(stage: Stage, number: int) -> None:
    """After a kill: every second time `up` again, which has to leave nothing to do, and always `down`."""
    if number % 2:
        stage.run("up")
        if number % 6 == 1:
            assert_up(stage)
        else:
            stage.run("plan", "--exit-code", code=0)
    stage.run("down")
    assert stage.environments() == []
    if number % 3 == 0:
        stage.assert_nothing_left()


def test_killed_before_anything_was_written(whole: Stage) -> None:
    """What has only its folder yet is shown as incomplete, and made by the next `up`, whatever it is."""
    whole.run("up")
    made = whole.state / "environments" / whole.identity()
    for kind, name in (("network", "east"), ("link", "wan"), ("node", "client[1]")):
        folder = next(path for path in (made / kind).iterdir() if unquote(path.name) == name)
        (folder / "resource.json").unlink()
    states = {item["name"]: item["state"] for item in whole.json("status", "--json")["resources"]}
    assert [states[name] for name in ("east", "wan", "client[1]")] == ["incomplete"] * 3
    assert "incomplete" in whole.run("status").stdout
    whole.run("up", "-y")
    assert_up(whole)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_up_is_killed_at_random_points(whole: Stage) -> None:
    """Wherever `up` is killed, `up` again finishes it or `down` removes it, without a rest."""
    killed_up(whole, 4, seed=20)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_up_is_killed_at_many_random_points(whole: Stage) -> None:
    """The same, 300 times, at points that differ from run to run."""
    killed_up(whole, 300, seed=random.randrange(10**6))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_down_is_killed_at_random_points(whole: Stage) -> None:
    """Wherever `down` is killed, `down` again removes the rest, and `up` brings back what was taken away, without asking."""
    chance = random.Random(7)
    whole.run("up")
    length = duration(whole, "down")
    hit = 0
    for _ in range(24):
        fresh = not whole.environments()
        if fresh:
            whole.run("up")
        # the first third is start-up of Python, in which nothing is done yet
        after = chance.uniform(length / 3, length)
        if kill_midway(whole, "down", after):
            hit += 1
        elif fresh:
            length = after  # the machine has become faster
        if hit == 4:
            break
        # now and then what is half gone is killed again
        if whole.environments() and chance.random() < 0.6:
            whole.run("down")
            whole.assert_nothing_left()
    assert hit == 4
    whole.run("up")
    assert_up(whole)


@pytest.fixture
def up(whole: Stage) -> Iterator[Stage]:
    """The experiment, up."""
    whole.run("up")
    return whole


def test_interrupted_up_exits_130(whole: Stage) -> None:
    """Ctrl-C during `up` ends it with 130 and says how it is finished, and so it is."""
    for _ in range(10):
        process = whole.start("up")
        eventually(whole.environments, "the environment exists")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        if process.returncode:
            break
        # it was faster than this test
        whole.run("down")
    assert process.returncode == 130, said
    assert "running the command again" in said
    assert "Traceback" not in said
    whole.run("up")
    assert_up(whole)


def test_dead_node(up: Stage) -> None:
    """A node whose init is killed is `stopped` and fails at once; the others go on, and `up` repairs only that one."""
    before = {node: up.pid(node) for node in ("server", "client[0]", "client[1]")}
    os.kill(before["client[1]"], signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{before['client[1]']}"), "the node's init is dead")
    states = {item["name"]: item["state"] for item in up.json("status", "--json")["resources"] if item["kind"] == "node"}
    assert states == {name: "stopped" if name == "client[1]" else "ready" for name in states}
    assert "stopped" in up.run("status").stdout
    assert "client[1]" in up.error("exec", "client[1]", "true", code=255, timeout=20)
    mixed = up.run("exec", "client", "hostname", code=255, timeout=20)
    assert sorted(mixed.stdout.splitlines()) == [f"client[{n}] │ client-{n}" for n in (0, 2, 3)]
    assert "client[1]" in mixed.stderr
    assert "node" in up.run("plan", "--exit-code", code=2).stdout
    up.run("up")
    assert_up(up)
    assert up.pid("client[1]") != before["client[1]"]
    assert {node: up.pid(node) for node in ("server", "client[0]")} == {node: before[node] for node in ("server", "client[0]")}


def test_node_dies_under_a_command(up: Stage) -> None:
    """A command whose node dies ends at once with an error that names the node."""
    process = up.start("exec", "client[2]", "--", "sh", "-c", "echo begun; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.kill(up.pid("client[2]"), signal.SIGKILL)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 255
    assert "client[2]" in said
    assert "Traceback" not in said


def test_two_ups_at_once(whole: Stage) -> None:
    """Of two `up` at once one does it all; the other finds it done, or exits with 5 and names who holds it."""
    processes = [whole.start("up") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in processes]
    codes = sorted(process.returncode for process in processes)
    assert codes in ([0, 0], [0, 5]), said
    for process, (_, words) in zip(processes, said, strict=True):
        assert "Traceback" not in words
        if process.returncode == 5:
            other = next(item for item in processes if item is not process)
            assert str(other.pid) in words
            assert "wardian up" in words
    assert len(whole.environments()) == 1
    assert_up(whole)


def test_held_environment_names_its_holder(whole: Stage) -> None:
    """While one command works on an environment, `up` and `down` exit with 5 at once and say which process has it."""
    whole.edit("echo serving", "until [ -e /run/go ]; do sleep 0.05; done; echo serving")
    holder = whole.start("up")
    eventually(lambda: any(name.startswith(whole.name) for name in whole.environments()), "the environment exists")
    for command in ("up", "down"):
        said = whole.error(command, code=5)
        assert f"process {holder.pid} (wardian up)" in said
    eventually(lambda: whole.start("exec", "server", "--", "touch", "/run/go").wait(60) == 0, "the server is there")
    assert holder.wait(60) == 0
    assert_up(whole)


def test_everything_dies(up: Stage) -> None:
    """All processes of an environment killed at once: `status` still tells, and `up` brings it back whole."""
    up.run("exec", "all", "true")
    for process in up.processes():
        os.kill(process, signal.SIGKILL)
    states = {item["state"] for item in up.json("status", "--json")["resources"] if item["kind"] == "node"}
    assert states == {"stopped"}
    up.run("up")
    assert_up(up)
