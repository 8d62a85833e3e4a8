"""Several ordinary users on one host: each has his own, within what the host's policy allows, and root sees all of it."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from wardian.environment import admin as environment_admin
from wardian.providers.local.kernel import mount

from . import ordinary
from .ordinary import POLICY, User
from .stage import WARDIAN, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

EXPERIMENT = """
name: lab
networks: {lan: {}}
lease: {duration: 30min}
nodes:
  client: {count: 2, networks: [lan], memory: 100MiB}
"""

RECORD = {
    **{"id": "evil", "name": "evil", "instance": "\x1b[2Jdefault", "file": "/etc/passwd", "provider": "local", "user": "root"},
    **{"host": "here", "created": 0, "spec": {"lease": {"duration": 1, "at_end": "down"}}},
}

MOST_PROCESSES = 150

GREED = "head -c 1G /dev/zero > /root/full; for i in $(seq 3000); do setsid sleep 600 & done >/dev/null 2>&1 </dev/null"

RULES = "default: {nodes: 3, memory: 1GiB, disk: 5GiB, lease: 1h}\nusers: {root: {nodes: 0}}\n"


@pytest.fixture(scope="module")
def users() -> Iterator[tuple[User, User]]:
    """Two ordinary users under one policy; of the first everything may be looked at that Wardian itself does not close."""
    missing = not POLICY.parent.exists()
    POLICY.parent.mkdir(exist_ok=True)
    try:
        with ordinary.user() as ada, ordinary.user() as bob:
            for user in (ada, bob):
                user.policy(RULES)
                user.write("lab/experiment.yaml", EXPERIMENT)
            ada.folder.chmod(0o755)
            yield ada, bob
    finally:
        if missing:
            with suppress(OSError):
                POLICY.parent.rmdir()


@pytest.fixture(scope="module")
def lab(users: tuple[User, User]) -> Iterator[Path]:
    """The folder of the first user's experiment, which is up."""
    ada, _ = users
    folder = ada.folder / "lab"
    ada.wardian("up", "--yes", cwd=folder)
    try:
        yield folder
    finally:
        ada.wardian("down", cwd=folder)


@contextmanager
def limited(user: User) -> Iterator[Callable[[], int]]:
    """As a host bounds a user: all his processes in one control group, his state on a file system of its own. Gives how many they are."""
    for group in (top / user.name for top in ordinary.hierarchies()):
        group.mkdir(exist_ok=True)
        if (group / "pids.max").exists():
            break
    else:
        pytest.fail("no hierarchy of control groups here counts processes")
    (group / "pids.max").write_text(str(MOST_PROCESSES))
    state, entry = user.folder / ".local/state/wardian", pwd.getpwnam(user.name)
    user.run("/bin/mkdir", "-p", str(state))
    mount("tmpfs", str(state), "tmpfs", options=f"size=24m,mode=700,uid={entry.pw_uid},gid={entry.pw_gid}")
    try:
        yield lambda: int((group / "pids.current").read_text())
    finally:
        for inner in (group, *(path for path in group.rglob("*") if path.is_dir())):
            for pid in (inner / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["umount", "--lazy", str(state)], check=True)


def refused(user: User, *argv: str, code: int, cwd: Path | None = None) -> str:
    """What a command that has to fail with this code says."""
    done = user.run(WARDIAN, *argv, cwd=cwd)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


def test_the_plan_shows_and_keeps_the_quota(users: tuple[User, User], lab: Path) -> None:
    """`plan` says what is used of the user's quota then, counting what he holds elsewhere; what exceeds it is refused by name, as is a
    longer lease. What others hold counts for them.
    """
    ada, bob = users
    assert "Of your quota then: nodes 2 of 3, memory 200.0 MiB of 1.0 GiB, disk " in bob.wardian("plan", cwd=bob.folder / "lab")
    said = refused(ada, "up", "-e", "second", "--yes", code=3, cwd=lab)
    assert f"nodes 4 of 3 ({POLICY}: default.nodes)" in said
    assert "lease 90min of 1h" in refused(ada, "lease", "extend", "1h", code=3, cwd=lab)
    shown = json.loads(ada.wardian("plan", "--json", cwd=lab))
    assert shown["operations"] == []
    assert {"what": "nodes", "used": 2, "most": 3} in shown["quota"]


def test_users_have_nothing_of_each_other(users: tuple[User, User], lab: Path) -> None:
    """Who may read another's experiment file still does not see, enter, hold or end what grew from it, nor look into its state folder."""
    ada, bob = users
    (found,) = json.loads(ada.wardian("ls", "--json"))
    state = ada.folder / ".local/state/wardian"
    assert "is not up" in refused(bob, "exec", "-f", str(lab / "experiment.yaml"), "all", "--", "id", code=4)
    assert f"there is no environment {found['id']!r}" in refused(bob, "down", found["id"], code=4)
    assert bob.wardian("gc") == "Nothing to remove.\n"
    assert "Permission denied" in bob.run("/bin/ls", str(state)).stderr
    bob.env["WARDIAN_STATE"] = str(state)
    try:
        assert "Permission denied" in refused(bob, "ls", code=1)
    finally:
        del bob.env["WARDIAN_STATE"]
    assert ada.wardian("exec", "all", "--", "hostname", cwd=lab).split()[-1].startswith("client-")


def admin(*argv: str, code: int = 0) -> str:
    """What `wardian admin` says to root."""
    command = [sys.executable, "-m", "tests.ordinary", "root", "/", WARDIAN, "admin", *argv]
    done = subprocess.run(command, cwd=ordinary.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    # for whom it waits depends on how busy this host is
    said = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("waiting for ")]
    return done.stdout + "".join(said)


@pytest.mark.long
def test_one_who_takes_all_he_can_harms_nobody(users: tuple[User, User], lab: Path) -> None:
    """A node that fills the disk and forks without end meets its owner's limits, another user's nodes go on, and root can end it."""
    ada, bob = users
    with limited(bob) as held:
        bob.wardian("up", "--yes", cwd=bob.folder / "lab", groups=True)
        (his,) = json.loads(bob.wardian("ls", "--json"))
        filled = bob.run(WARDIAN, "exec", "client[0]", "--", "sh", "-c", GREED, cwd=bob.folder / "lab", groups=True)
        assert "No space left on device" in filled.stdout + filled.stderr
        assert MOST_PROCESSES // 2 < held() <= MOST_PROCESSES
        done = ada.wardian("exec", "all", "--", "sh", "-c", "head -c 1M /dev/zero > /root/own && echo went on", cwd=lab)
        assert done.count("went on") == 2
        assert f"ended {his['id']}" in admin("end", his["id"], "--user", bob.name, "--force")
        eventually(lambda: held() == 0, "all that ran there is gone")


def test_root_sees_extends_and_ends(users: tuple[User, User], lab: Path) -> None:
    """Root sees what each user holds, can hold it for longer than the policy lets the user, and end it as he would himself."""
    ada, bob = users
    (own,) = json.loads(ada.wardian("ls", "--json"))
    (seen,) = json.loads(admin("ls", "--user", ada.name, "--json"))["environments"]
    assert {name: seen[name] for name in ("id", "file", "created")} == {name: own[name] for name in ("id", "file", "created")}
    assert (seen["user"], seen["nodes"], seen["memory"] > 0) == (ada.name, 2, True)
    assert seen["lease_end"] == pytest.approx(own["created"] + 1800)
    assert "held until" in admin("extend", own["id"], "2h", "--user", ada.name)
    status = json.loads(ada.wardian("status", "--json", cwd=lab))
    assert status["lease_end"] == pytest.approx(own["created"] + 9000)
    assert "only root" in refused(ada, "admin", "ls", code=2)

    said = admin("end", own["id"], "lab-0", "--user", ada.name, code=4)
    assert f"ended {own['id']} of {ada.name}" in said, "what can be ended is, whatever becomes of the others"
    assert "nobody here holds an environment 'lab-0'" in said
    assert ada.wardian("ls") == "No environment is up here.\n"
    assert admin("end", "--all", "--user", bob.name) == "Nobody holds an environment here.\n"


def test_what_a_user_puts_in_the_way_harms_root_in_nothing(users: tuple[User, User], tmp_path: Path) -> None:
    """A state folder made to harm, of links to what is root's, of names and of answers that are none, costs its user's row alone."""
    _, bob = users
    trap = f"""
        set -e
        rm -rf .local/state/wardian; mkdir -p .local/state/wardian/environments/evil; cd .local/state/wardian
        ln -s {tmp_path} locks; ln -s {tmp_path} keepers; ln -s /dev/zero environments/evil/uplink.json
        echo '{json.dumps(RECORD)}' > environments/evil/environment.json
    """
    done = bob.run("/bin/sh", "-c", trap)
    assert done.returncode == 0, done.stderr
    said = admin("ls", "--user", bob.name)
    assert "evil" in said
    assert "\x1b" not in said
    assert bob.name in admin("end", "--all", "--user", bob.name, code=1)
    assert list(tmp_path.iterdir()) == []


def test_ending_all_names_whom_nothing_is_known_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ends environments is told for whom he waits, and of users that do not answer: these may hold some still."""
    waited, named = [], threading.Event()

    def waiting(what: str) -> None:
        waited.append(what)
        named.set()

    monkeypatch.setattr(environment_admin, "NOTICE", 0)
    monkeypatch.setattr(environment_admin, "_places", lambda: [environment_admin.Place("ada", 1, "/state", {})])
    monkeypatch.setattr(environment_admin, "_tried", lambda place: "ada does not answer" if named.wait(60) else "")
    ((who, error),) = environment_admin.end(waiting=waiting)
    assert (who, str(error), waited) == ("ada", "ada does not answer", ["ada to answer from /state"])
    ((_, error),) = environment_admin.end(["lab-0"])
    assert "'lab-0', as far as is answered: ada does not answer\n  with --all --user ada --force" in str(error)


def test_force_reaches_each_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs of an environment at several sites names its part there: it is killed as well, but nothing of whom root did not mean."""
    killed = []
    place = environment_admin.Place("ada", 1, "/state", {})
    numbers = {"created": 1, "nodes": 2, "memory": 3, "lease_end": None}
    texts = {"instance": "default", "provider": "local+ssh", "file": "/experiment.yaml"}
    held = [
        {"id": "lab-0", "parts": ["lab-1", "lab-2"], **texts, **numbers},
        {"id": "lab-3", "parts": ["lab-3", "lab-4"], **texts, **numbers},
    ]
    monkeypatch.setattr(environment_admin, "_places", lambda: [place])
    monkeypatch.setattr(environment_admin, "_ask", lambda place, *command: held if command == ("list",) else None)
    monkeypatch.setattr(environment_admin, "_kill", lambda *whose: killed.append(whose) or set())
    ((_, ended),) = environment_admin.end(["lab-0"], force=True)
    assert isinstance(ended, environment_admin.Holding)
    assert killed == [(["lab-0"], None), (["lab-1", "lab-2"], "ada")]
