"""Control groups of the local provider: what a kernel does that the one here may not do when it is asked."""

from __future__ import annotations

import io
import os
import pwd
from pathlib import Path

import pytest

from wardian.errors import MissingToolError, ProviderError
from wardian.providers.local import cgroups


def kernel(monkeypatch: pytest.MonkeyPatch, gives_in_after: float) -> list[str]:
    """Put one in the place of this host's that freezes a group only when it is told so for the n-th time; gives what it was told."""
    told: list[str] = []

    def write(path: Path, value: str) -> None:
        told.append(value)
        path.write_text(value if value == "THAWED" or told.count(value) >= gives_in_after else "FREEZING\n")

    monkeypatch.setattr(cgroups, "_write", write)
    monkeypatch.setattr(cgroups.time, "sleep", lambda seconds: None)
    return told


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have this be a session that systemd started: the group of the user's service manager, which alone is his, with one node in it."""
    manager = tmp_path / "user.slice" / "user-7.slice" / "user@7.service"
    for group in (manager, manager / "wardian", manager / "wardian" / "e", manager / "wardian" / "e" / "made"):
        group.mkdir(parents=True)
        for name in ("procs", "subtree_control", "freeze"):
            (group / f"cgroup.{name}").touch()
        for name in ("memory.max", "pids.max", "cpu.max"):
            (group / name).touch()
        (group / "cgroup.controllers").write_text("cpu memory pids\n")
        (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    files = {"/proc/self/mounts": f"none {tmp_path} cgroup2 rw 0 0\n", "/proc/self/cgroup": "0::/user.slice/user-7.slice/session-1.scope\n"}
    monkeypatch.setattr(cgroups, "open", lambda path, **_: io.StringIO(files.get(path, "0 7 1\n")), raising=False)
    monkeypatch.setattr(cgroups.os, "access", lambda path, mode: Path(path).is_relative_to(manager))
    monkeypatch.setattr(cgroups.os, "geteuid", lambda: 0)
    return group


def test_a_session_beside_the_service_manager(session: Path) -> None:
    """From a session no new node is in groups, and none is promised; a node that is in them is found, limited, paused and removed."""
    groups = cgroups.Cgroups.find()
    assert (groups.version, groups.controllers(), groups.plan("e", "new", 1.0, 2**20)) == (2, set(), [])
    assert groups.members("e", "made") == {os.getpid()}
    groups.change("e", "new", 1.0, 2**20)
    assert not session.with_name("new").exists()
    groups.change("e", "made", 0.5, 2**20)
    assert ((session / "cpu.max").read_text(), (session / "memory.max").read_text()) == ("50000 100000", str(2**20))
    groups.freeze("e", "made")
    assert (session / "cgroup.freeze").read_text() == "1"
    groups.thaw("e", "made")
    assert (session / "cgroup.freeze").read_text() == "0"
    with pytest.raises(MissingToolError, match="it is in no control group"):
        groups.freeze("e", "new")


def test_who_lingers_is_led_into_the_groups(session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's nodes are made below the service manager once that outlives the session, and not before."""
    monkeypatch.setattr(cgroups, "LINGERING", tmp_path)
    monkeypatch.setattr(cgroups.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(cgroups.pwd, "getpwuid", lambda user: pwd.struct_passwd(("fern", "x", user, user, "", "/", "")))
    assert cgroups.entrance() == []
    (tmp_path / "fern").touch()
    assert cgroups.entrance()[:3] == ["/usr/bin/systemd-run", "--user", "--scope"]


def test_what_forks_is_frozen_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes that fork keep the kernel at it for good, the freezing is begun anew until it succeeds."""
    told = kernel(monkeypatch, 3)
    cgroups._stand_still(tmp_path / "freezer.state")
    assert told == ["THAWED", "FROZEN"] * 3


def test_what_cannot_be_frozen_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that does not stand still is an error with the state of its group, and its processes with what they do."""
    kernel(monkeypatch, float("inf"))
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n{2**22 + 1}\n")
    said = rf"control group is FREEZING, with .* \({os.getpid()}, [RSD], .*, one that has ended"
    with pytest.raises(ProviderError, match=said) as caught:
        cgroups._stand_still(tmp_path / "freezer.state")
    assert caught.value.resource == f"node {tmp_path.name}"
