"""The parts of scripts/openstack-testbed, without any service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from openstack_testbed import SetupError, command, configuration, layout, machine, processes

STAYS = "trap '' TERM; sleep 600 & echo ready; wait; wait"
"""A service that does not end when asked to, and has started another process."""


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[layout.Layout]:
    """One that runs nothing yet, and nothing any more afterwards."""
    testbed = layout.prepare(tmp_path / "testbed", 21900, 2)
    yield testbed
    processes.stop(testbed, list(processes.running(testbed)))


def start(testbed: layout.Layout, service: str, script: str) -> subprocess.Popen[bytes]:
    process = processes.start(testbed, service, ["sh", "-c", script], {})
    processes.wait(testbed, service, process, lambda: "ready" in testbed.log(service).read_text(), 60)
    return process


def test_secrets_are_their_owners_alone(testbed: layout.Layout) -> None:
    """Nobody else may read a file that holds a password, and each testbed has passwords of its own."""
    configuration.write_all(testbed)
    holding = [
        path
        for path in testbed.folder.rglob("*")
        if path.is_file() and any(word in path.read_text() for word in testbed.passwords.values())
    ]
    assert {path.stat().st_mode & 0o777 for path in holding} == {0o600}
    assert testbed.clouds in holding
    assert testbed.state.stat().st_mode & 0o777 == 0o700
    assert len({*testbed.passwords.values()}) == len(layout.PASSWORDS)
    assert repr(testbed).count("passwords") == 0


def test_a_testbed_is_found_again(testbed: layout.Layout) -> None:
    """Preparing it again changes no password, and it has as many hosts as before unless told; with other ports or servers it is refused."""
    assert layout.prepare(testbed.folder, 21900, 2) == layout.existing(testbed.folder) == testbed
    assert layout.prepare(testbed.folder, 21900) == testbed
    with pytest.raises(SetupError, match="--port 21900"):
        layout.prepare(testbed.folder, 21950, 2)
    booting = layout.prepare(testbed.folder.with_name("testbed-2"), 21950, 1, 5.0)
    assert layout.prepare(booting.folder, 21950) == booting
    with pytest.raises(SetupError, match="and --boot 5: "):
        layout.prepare(booting.folder, 21950, boot=0)
    with pytest.raises(SetupError, match="is of the other form"):
        layout.prepare(testbed.folder, 21900, full=True)


def test_stop_ends_what_was_started_and_nothing_else(testbed: layout.Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service ends with all that it started, also one that will not; other services, and another testbed's, run on."""
    monkeypatch.setattr(processes, "GRACE", 0.5)
    other = layout.prepare(testbed.folder.with_name("testbed-2"), 21950, 1)
    ending, going_on = start(testbed, "keystone", STAYS), start(testbed, "glance", STAYS)
    stranger = start(other, "keystone", STAYS)
    try:
        assert len(processes.running(testbed)["keystone"]) == 2
        processes.stop(testbed, ["keystone"])
        assert ending.wait() != 0
        assert set(processes.running(testbed)) == {"glance"}
        assert going_on.poll() is None
        assert len(processes.running(other)["keystone"]) == 2
        processes.stop(testbed, ["keystone", "glance"])
        assert processes.running(testbed) == {}
    finally:
        processes.stop(other, ["keystone"])
    stranger.wait()


@pytest.mark.root
def test_what_is_in_the_machine_ends_with_it(tmp_path: Path) -> None:
    """Interfaces and mounts of the full form are in there alone, and what runs there ends with it, whoever started it."""
    full = layout.prepare(tmp_path / "full", 21960, full=True)
    try:
        machine.start(full)
        script = "ip -brief link; ls /run; setsid sleep 600 >/dev/null 2>&1 &"
        inside = [*machine.command(full, "--net", "--mount", "--pid"), "sh", "-c", script]
        said = subprocess.run(inside, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        assert {"public", "netns"} <= set(said)
        assert "public" not in os.listdir("/sys/class/net")
        space = os.readlink(f"/proc/{machine.there(full)}/ns/pid")
        assert len(living(space)) >= 3
    finally:
        machine.stop(full)
    assert (machine.there(full), living(space)) == (None, [])


def living(space: str) -> list[str]:
    """The processes in a process namespace."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/pid") == space:
                found.append(pid)
    return found


def test_a_service_that_ends_says_why(testbed: layout.Layout) -> None:
    """Waiting for a service that fails ends at once, with what it said last."""
    process = processes.start(testbed, "nova-api", ["sh", "-c", "echo no such database; exit 1"], {})
    with pytest.raises(SetupError, match="nova-api ended; its log ends with:\nno such database"):
        processes.wait(testbed, "nova-api", process, lambda: False, 60)


def test_a_service_hears_nothing_of_our_clouds(testbed: layout.Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that name a cloud, a proxy or a Python of ours do not reach a service."""
    for name in ("OS_PASSWORD", "PYTHONPATH", "https_proxy"):
        monkeypatch.setenv(name, "leaked")
    assert "leaked" not in processes.run(testbed, "glance", ["env"])


def test_one_command_at_a_time(testbed: layout.Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """A second command that would change a testbed is refused; the first may be killed without leaving a lock."""
    lines = ["import sys", "from openstack_testbed.layout import *", "with locked(Path(sys.argv[1])): print(flush=True); input()"]
    env = {**os.environ, "PYTHONPATH": str(Path(command.__file__).parents[1])}
    holder = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines), testbed.folder], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    assert command.main(["--folder", str(testbed.folder), "stop"]) == 1
    assert "another command works on the testbed" in capsys.readouterr().err
    holder.kill()
    holder.communicate()
    assert command.main(["--folder", str(testbed.folder), "stop"]) == 0


def test_status_without_services(testbed: layout.Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing runs, `status` says so by its exit code, and names every service and its address."""
    assert command.main(["--folder", str(testbed.folder), "status", "--json"]) == 3
    told = capsys.readouterr().out
    assert '"service": "nova-compute-host-1"' in told
    assert '"address": "127.0.0.1:21904"' in told
    assert command.main(["--folder", "/nowhere", "status"]) == 3
    assert capsys.readouterr().out == "there is no testbed in /nowhere\n"
