"""The local provider as an ordinary user has it: in a user namespace, with the same promises as root's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardian.providers.base import Finding
from wardian.providers.local import doctor

from .. import images, ordinary
from ..ordinary import ROOT, User
from ..stage import eventually
from . import archives

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

EXPERIMENT = """
name: ordinary
networks: {east: {}, west: {}}
links:
  wan: {between: [east, west], delay: 20ms, rate: 20mbit}
nodes:
  server: {networks: [east], memory: 200MiB}
  client: {networks: [west], internet: true}
"""


FREEZERS = ("freezer.state", "cgroup.events")

MATRIX = """
import asyncio
from wardian.providers.local import LocalProvider, LocalSettings

async def main():
    provider = LocalProvider(LocalSettings())
    (record,) = await provider.environments()
    print(sorted(await provider.traffic_matrix(record.id)))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """An ordinary user, with ids granted."""
    with ordinary.user() as user:
        yield user


def suite(user: User, *files: str) -> None:
    """Run the tests of these files as this user, with control groups: all have to pass, and none may be left out."""
    places = [str(ROOT / "tests" / "providers" / file) for file in files]
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "--basetemp", str(user.folder / "tests")]
    done = user.run(sys.executable, "-m", "pytest", *options, *places, cwd=ROOT, groups=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1], done.stdout


@pytest.mark.long
def test_the_contract(user: User) -> None:
    """An ordinary user's nodes keep every promise of the contract that root's keep."""
    suite(user, "test_local_contract.py")


def test_an_environment_from_plan_to_down(user: User) -> None:
    """The plan says what there is no limit for; nodes reach each other and the way out, have users, are counted; nothing is left. What
    is closed to the user is an empty folder there.
    """
    user.write("experiment.yaml", EXPERIMENT)
    # a file that would be taken for a module of Python's
    user.write("json.py", "raise SystemExit(1)")
    assert "node server: memory: no memory controller of control groups is delegated to this user" in user.wardian("plan")
    user.wardian("up", "--yes")
    try:
        reached = user.wardian("exec", "client", "--", "sh", "-c", "ping -c 1 -W 20 server; ip route show default")
        assert " 0% packet loss" in reached
        assert "inet0" in reached
        assert talking(user) == "[]"
        user.wardian("exec", "client", "--", "ping", "-c", "1", "-W", "20", "server")
        assert talking(user) == "[('client', 'server'), ('server', 'client')]"
        script = (
            "echo 1 > /etc/own; echo 2 >> /etc/hosts; useradd --no-create-home moss; touch /tmp/f; chown moss /tmp/f; "
            "ls /media && touch /media/own && stat -c 'owner %U' /tmp/f; hostname; id -u"
        )
        assert user.wardian("exec", "server", "--", "sh", "-c", script).split()[-4:] == ["owner", "moss", "server", "0"]
        assert not Path("/etc/own").exists()
        # as if its starter had been killed before it could write that down
        (way,) = (user.folder / ".local/state/wardian/environments").glob("*/outside/way.process.json")
        way.unlink()
    finally:
        user.wardian("down", "--yes")
    eventually(lambda: not processes(user), "all of it is gone")
    assert list((user.folder / ".local/state/wardian/environments").iterdir()) == []


@pytest.mark.long
def test_limits_where_groups_were_delegated(user: User) -> None:
    """A node of an ordinary user is held to its memory, stands still under `pause`, and goes on, in a part of the groups that is his."""
    file = user.write("held/experiment.yaml", "name: held\nnodes: {one: {memory: 100MiB}, two: {}}\n")

    def wardian(*argv: str) -> str:
        return user.wardian(*argv, cwd=file.parent, groups=True)

    assert "!" not in wardian("up", "--yes")
    try:
        greedy = ("exec", "one", "--", "python3", "-c", "print('x', flush=True); print(len(bytearray(300 << 20)))")
        done = user.run(str(ordinary.BIN / "wardian"), *greedy, cwd=file.parent, groups=True)
        assert (done.returncode, "314572800" in done.stdout) == (137, False), done.stdout + done.stderr
        wardian("fault", "pause", "two")
        assert frozen(user)
        wardian("fault", "undo")
        assert not frozen(user)
        assert "two\n" in wardian("exec", "two", "--", "hostname")
    finally:
        user.wardian("down", "--yes", cwd=file.parent)
    eventually(lambda: not processes(user), "all of it is gone")


def test_doctor_tries_all_of_it(user: User) -> None:
    """`wardian doctor --json` finds nothing missing for an ordinary user here, and says how to have limits, which he was not delegated."""
    done = user.run(str(ordinary.BIN / "wardian"), "doctor", "--json")
    found = {item["what"]: item for item in json.loads(done.stdout)["local"]}
    assert [what for what, item in found.items() if item["state"] == "missing"] == []
    assert found["user namespaces"]["state"] == "ok"
    assert found["internet for nodes (slirp4netns or pasta)"]["state"] == "ok"
    assert "Delegate=yes" in found["control groups"]["remedy"]
    headings = [line[4:] for line in (ROOT / "docs" / "doctor.md").read_text().splitlines() if line.startswith("### ")]
    assert {item["page"] for item in found.values()} <= {Finding(heading, "ok", "").page for heading in headings}


def test_images_and_files_that_are_mounted(user: User) -> None:
    """`image add` keeps owners and setuid as they are written, nodes have them, and `image rm` removes what others than he own. Where a
    file is mounted over one of the host's, as a container's /etc/hosts is, nodes of the host's files have their own, and can add users.
    """
    base = archives.packed(images.without_python(bash=False))
    top = archives.tar([archives.entry("home/", uid=42, mode=0o700), archives.entry("home/moss", b"x", uid=42, gid=43, mode=0o4755)])
    archives.saved(user.folder / "lab.tar", [base, top], archives.config([base, top]), "lab:1")
    (user.folder / "lab.tar").chmod(0o644)
    file = user.write("lab/experiment.yaml", "name: lab\nnodes: {one: {}, two: {image: 'lab:1'}}\n")
    user.wardian("image", "add", "lab.tar")
    user.env["TESTS_MOUNTED"] = "/etc/hosts"
    try:
        user.wardian("up", "--yes", cwd=file.parent)
        assert " one\n" in user.wardian("exec", "one", "--", "sh", "-c", "useradd fern && cat /etc/hosts", cwd=file.parent)
        assert "42 43 4755" in user.wardian("exec", "two", "--", "stat", "-c", "%u %g %a", "/home/moss", cwd=file.parent)
    finally:
        user.wardian("down", "--yes", cwd=file.parent)
        del user.env["TESTS_MOUNTED"]
    assert user.wardian("image", "rm", "lab:1") == "removed lab:1\n"
    assert [path.name for path in (user.folder / ".cache/wardian/images/sha256").iterdir() if not path.name.endswith(".lock")] == []


def test_as_in_a_container() -> None:
    """Who was granted no ids has nodes all the same, the plan says what fails there, and doctor which command grants them. Where the state
    folder is on an overlay, `up` and doctor say so and name another, which does.
    """
    with ordinary.user(ids=False) as single:
        single.write("experiment.yaml", "name: single\nnodes: {alone: {}}\n")
        single.env["TESTS_OVERLAID"] = str(single.folder)
        doctor_says = single.run(str(ordinary.BIN / "wardian"), "doctor").stdout
        assert f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {single.name}" in doctor_says
        refused = single.run(str(ordinary.BIN / "wardian"), "up", "--yes")
        assert (refused.returncode, refused.stdout) == (6, "")
        reason, remedy = refused.stderr.removeprefix("error: ").splitlines()
        assert reason == f"what nodes write cannot be kept below {single.folder}/.local/state/wardian: Invalid argument"
        assert reason in doctor_says
        assert remedy in doctor_says
        state = Path(remedy.partition("export WARDIAN_STATE=")[2].replace("$(id -un)", single.name))
        single.env["WARDIAN_STATE"] = str(state)
        try:
            assert "nodes have a single user id" in single.wardian("up", "--yes")
            assert single.wardian("exec", "alone", "--", "id", "-u").strip().endswith("0")
        finally:
            single.wardian("down", "--yes")
            shutil.rmtree(state)
        eventually(lambda: not processes(single), "all of it is gone")


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("user/max_user_namespaces", "0", "echo user.max_user_namespaces=15000 > /etc/sysctl.d/60-wardian.conf"),
        ("kernel/unprivileged_userns_clone", "0", "echo kernel.unprivileged_userns_clone=1 > /etc/sysctl.d/60-wardian.conf"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_parser -r /etc/apparmor.d/wardian"),
        ("none", "", "--privileged"),
    ],
)
def test_what_refuses_user_namespaces(tmp_path: Path, setting: str, value: str, remedy: str) -> None:
    """Doctor names the setting that refuses user namespaces, and the command that lets them; of a container, how to start it."""
    (tmp_path / setting).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / setting).write_text(value)
    finding = doctor.lacking("Operation not permitted", tmp_path)
    assert finding.state == "missing"
    assert remedy in (finding.remedy or "")


def talking(user: User) -> str:
    """Which nodes of his one environment have sent something to which since this was asked first."""
    done = user.run(sys.executable, "-P", "-c", MATRIX)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def frozen(user: User) -> bool:
    """Whether any control group of a user's stands still, in either version's words."""
    said = [path.read_text() for top in ordinary.hierarchies() for path in (top / user.name).rglob("*") if path.name in FREEZERS]
    return any("FROZEN" in text or "frozen 1" in text for text in said)


def processes(user: User) -> list[str]:
    """What runs as this user, or as one whose ids were granted to him."""
    granted = Path("/etc/subuid").read_text().splitlines()
    ranges = [(int(first), int(count)) for name, first, count in (line.split(":") for line in granted) if name == user.name]
    ranges.append((os.stat(user.folder).st_uid, 1))
    rows = [line.split(None, 2) for line in subprocess.check_output(["ps", "-eo", "uid,state,args"], text=True).splitlines()[1:]]
    # who is dead may still wait for the host's init to take note
    return [args for uid, state, args in rows if state != "Z" and any(first <= int(uid) < first + count for first, count in ranges)]
