"""The keeper: it comes back whatever kills it, keeps the relay running, and ends leases."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wardian.environment.keeper import stop
from wardian.providers.local import processes

from ..stage import Stage, eventually, require

pytestmark = pytest.mark.root

TEXT = """
name: NAME
networks: {lan: {}}
nodes:
  a: {networks: {lan: {delay: 2ms}}}
  b: {networks: [lan]}
"""


def process_like(stage: Stage, words: str) -> int | None:
    """The process of the environment whose command line has these words, if there is exactly one."""
    found = [pid for pid, line in stage.processes().items() if words in line]
    # until it runs a program of its own, a child looks like the process that makes it
    found = [pid for pid in found if parent(pid) not in found]
    assert len(found) <= 1, stage.processes()
    return found[0] if found else None


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def keeper(stage: Stage) -> int | None:
    return process_like(stage, "wardian.environment.keeper")


def relay(stage: Stage) -> int | None:
    return process_like(stage, "relay.py")


def ping(stage: Stage, code: int = 0) -> None:
    stage.run("exec", "a", "--", "ping", "-c", "1", "-W", "5", "b", code=code)


@pytest.fixture
def kept(stage: Stage) -> Stage:
    """Two nodes whose delay is a relay's work; skipped where the kernel delays by itself."""
    require("ping")
    stage.write(TEXT)
    stage.run("up")
    if not stage.json("plan", "--json")["caveats"]:
        pytest.skip("this kernel has netem, and so no relay is needed")
    eventually(lambda: keeper(stage), "there is a keeper")
    eventually(lambda: relay(stage), "there is a relay")
    return stage


def test_no_keeper_without_need(stage: Stage) -> None:
    """An environment with nothing to keep has no keeper."""
    stage.write("name: NAME\nnodes: [one]\n")
    stage.run("up")
    assert keeper(stage) is None


def test_socket_is_private(kept: Stage) -> None:
    """Only the owner may talk to the keeper."""
    (socket,) = (kept.state / "keepers").glob("*.sock")
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


def test_killed_relay_is_back_at_once(kept: Stage) -> None:
    """The keeper starts a dead relay again with no command's help, and traffic flows."""
    dead = relay(kept)
    assert dead
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: relay(kept) not in (None, dead), "there is another relay")
    ping(kept)


def test_killed_keeper(kept: Stage) -> None:
    """Traffic goes on without the keeper, any command brings it back, and it keeps again."""
    dead = keeper(kept)
    assert dead
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: keeper(kept) is None, "the keeper is dead")
    ping(kept)
    kept.run("status")
    eventually(lambda: keeper(kept), "there is a keeper again")
    before = relay(kept)
    assert before
    os.kill(before, signal.SIGKILL)
    eventually(lambda: relay(kept) not in (None, before), "the new keeper has started a relay")
    ping(kept)


def test_keeper_and_relay_killed_together(kept: Stage) -> None:
    """With both dead, traffic is back after any command."""
    for victim in (keeper(kept), relay(kept)):
        assert victim
        os.kill(victim, signal.SIGKILL)
    eventually(lambda: not keeper(kept) and not relay(kept), "both are dead")
    kept.run("status")
    eventually(lambda: keeper(kept) and relay(kept), "both are back")
    ping(kept)


def test_one_keeper_however_often_it_is_asked_for(kept: Stage) -> None:
    """Many commands at once never make a second keeper."""
    dead = keeper(kept)
    assert dead
    os.kill(dead, signal.SIGKILL)
    commands = [kept.start("status") for _ in range(5)]
    assert [command.wait(60) for command in commands] == [0] * 5
    eventually(lambda: keeper(kept), "there is a keeper again")
    kept.run("status")
    assert keeper(kept)


def test_down_ends_the_keeper(kept: Stage) -> None:
    """`down` leaves no keeper, lock or socket."""
    kept.run("down")
    kept.assert_nothing_left()
    assert list((kept.state / "keepers").iterdir()) == []


def test_a_keeper_that_is_stopped_before_it_listens(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that only begins while its environment is torn down ends by itself, though nobody could tell it, and leaves no socket."""
    stage.write("name: NAME\nnodes: [one]\n")
    stage.run("up")
    monkeypatch.setenv("WARDIAN_STATE", str(stage.state))
    identity = stage.identity()
    (stage.state / "keepers").mkdir(mode=0o700, exist_ok=True)
    path = stage.state / "keepers" / f"{identity}.lock"
    with path.open("w+b") as lock:
        asyncio.run(stop(identity))
        argv = [sys.executable, "-m", "wardian.environment.keeper", identity, "local", "{}", str(lock.fileno())]
        subprocess.run(argv, pass_fds=[lock.fileno()], check=True, timeout=60)
    assert list(path.parent.iterdir()) == []


def events(stage: Stage) -> list[str]:
    """What the journal tells of kind event, as one text each."""
    return [json.dumps(entry) for entry in stage.json("log", "--json", "--kind", "event")]


LEASED = "name: NAME\nnodes: [one]\ncollect: [/root/result.txt]\nlease: {duration: 1h, at_end: %s}\n"


def end_lease(stage: Stage) -> None:
    """Let the lease end in a moment."""
    stage.edit("duration: 1h", "duration: 1s")
    stage.run("up")


def test_lease_that_ends_with_down(stage: Stage) -> None:
    """At the end of a lease files are collected, and everything goes, the keeper itself last."""
    stage.write(LEASED % "down")
    stage.run("up")
    assert stage.json("status", "--json")["lease_end"] > 1e9
    assert "lease ends in" in stage.run("status").stdout
    stage.run("exec", "one", "--", "sh", "-c", "echo 42 > /root/result.txt")
    end_lease(stage)
    eventually(lambda: not stage.environments(), "the lease has ended")
    stage.assert_nothing_left()
    (result,) = Path(stage.folder, ".wardian", "collected").rglob("result.txt")
    assert result.read_text() == "42\n"
    assert any("lease.ended" in event for event in events(stage))
    stage.run("status", code=4)


def test_lease_that_ends_with_keep(stage: Stage) -> None:
    """A lease that only tells: the environment stays, and the journal says once that it ended."""
    stage.write(LEASED % "keep")
    stage.run("up")
    end_lease(stage)
    eventually(lambda: any("lease.ended" in event for event in events(stage)), "the journal says so")
    stage.run("exec", "one", "true")
    assert len([event for event in events(stage) if "lease.ended" in event]) == 1


def test_lease_ends_though_the_keeper_was_killed(stage: Stage) -> None:
    """A keeper that any command brought back ends the lease all the same."""
    stage.write(LEASED % "down")
    stage.run("up")
    dead = eventually(lambda: keeper(stage), "there is a keeper")
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: keeper(stage) is None, "the keeper is dead")
    stage.run("status")
    eventually(lambda: keeper(stage), "a command has brought a keeper back")
    end_lease(stage)
    eventually(lambda: not stage.environments(), "the lease has ended")
    stage.assert_nothing_left()


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
def test_garbage_is_what_should_have_ended(stage: Stage, dead: bool) -> None:
    """With its keeper gone, `gc` tears down an environment whose lease is over, its nodes alive or not, and lets others stand."""
    stage.write(LEASED % "down")
    stage.run("up")
    os.kill(eventually(lambda: keeper(stage), "there is a keeper"), signal.SIGKILL)
    eventually(lambda: keeper(stage) is None, "the keeper is dead")
    assert "Nothing to remove" in stage.run("gc").stdout
    (path,) = stage.state.rglob("environment.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "created": record["created"] - 7200}))
    if dead:
        processes.end(processes.of(stage.identity(), stage.state))
    assert "whose lease ended" in stage.run("gc").stdout
    stage.assert_nothing_left()


def test_lease_can_be_changed(stage: Stage) -> None:
    """A longer lease in the file counts from the next `up` on, and one that is taken out never ends."""
    stage.write(LEASED % "down")
    stage.run("up")
    pid = stage.pid("one")
    long = stage.json("status", "--json")["lease_end"]
    stage.edit("duration: 1h", "duration: 2h")
    stage.run("up")
    assert stage.json("status", "--json")["lease_end"] == pytest.approx(long + 3600)
    stage.edit("duration: 2h", "duration: 1s")
    stage.run("up")
    eventually(lambda: not stage.environments(), "the shortened lease has ended")
    assert pid
    stage.assert_nothing_left()
