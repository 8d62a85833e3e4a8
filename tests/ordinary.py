"""An ordinary user of the tests' own, and commands run as him.

Root's interpreter and this checkout may lie where nobody else may look; he sees them in a mount namespace of his own.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from wardian.providers.local.kernel import CLONE_NEWNS, MS_PRIVATE, MS_REC, bind, mount, unshare

from .stage import BIN, require

ROOT = Path(__file__).parents[1]
POLICY = Path("/etc/wardian/policy.yaml")


class User:
    """A user of this host. folder: his home."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path(pwd.getpwnam(name).pw_dir)
        self.env = {
            "HOME": str(self.folder), "USER": name, "LOGNAME": name, "LANG": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "120",
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin", "JUPYTER_PATH": str(BIN.parent / "share" / "jupyter"),
            "PYTHONDONTWRITEBYTECODE": "1", "WARDIAN_REQUIRE_ALL": os.environ.get("WARDIAN_REQUIRE_ALL", ""),
        }  # fmt: skip

    def run(self, *argv: str, cwd: Path | None = None, groups: bool = False) -> subprocess.CompletedProcess[str]:
        """A command as this user, to its end. groups: whether control groups are delegated to it."""
        command = [sys.executable, "-m", "tests.ordinary", self.name, str(cwd or self.folder), *argv]
        return subprocess.run(
            command, cwd=ROOT, env={**self.env, **({"TESTS_DELEGATE": "1"} if groups else {})}, capture_output=True, text=True, check=False
        )

    def wardian(self, *argv: str, cwd: Path | None = None, groups: bool = False) -> str:
        """The output of a `wardian` command that has to succeed."""
        done = self.run(str(BIN / "wardian"), *argv, cwd=cwd, groups=groups)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def policy(self, text: str) -> None:
        """Have his commands find this as the policy of the host, as of now."""
        path = Path(f"{self.folder}.policy.yaml")
        path.write_text(text)
        self.env["TESTS_POLICY"] = str(path)

    def write(self, path: str, text: str) -> Path:
        """A file of his, below his home."""
        target = self.folder / path
        if not target.parent.is_dir():
            target.parent.mkdir()
            os.chown(target.parent, *self._ids())
        target.write_text(text)
        os.chown(target, *self._ids())
        return target

    def _ids(self) -> tuple[int, int]:
        entry = pwd.getpwnam(self.name)
        return entry.pw_uid, entry.pw_gid


@contextmanager
def user(*, ids: bool = True) -> Iterator[User]:
    """A new user, who is gone afterwards with all that is his. ids: whether he is granted further ones."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program in ("useradd", "newuidmap", "slirp4netns"):
        require(program)
    name = f"wt{secrets.token_hex(3)}"
    _alone(
        "useradd", "--create-home", "--shell", "/bin/bash", *([] if ids else ["--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0"]), name
    )
    try:
        yield User(name)
    finally:
        # also while the host's init has not taken note of the last of his processes yet
        _alone("userdel", "--force", "--remove", name)
        Path(f"/home/{name}.policy.yaml").unlink(missing_ok=True)
        for top in hierarchies():
            for folder, _, _ in os.walk(top / name, topdown=False):
                os.rmdir(folder)


def _alone(*command: str) -> None:
    # of two at once one would be refused
    with open("/run/wardian-tests-users.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(command, capture_output=True, check=True)


def hierarchies() -> list[Path]:
    """The tops of those of control groups that a user may be given a part of."""
    rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(row[1]) for row in rows if row[2] == "cgroup2" or (row[2] == "cgroup" and "cpuset" not in row[3].split(","))]


def _delegate(name: str, user: int) -> None:
    """Hand this process a part of each hierarchy of control groups, as systemd does for a user's session."""
    for top in hierarchies():
        group = top / name
        for folder in (group, group / "session"):
            folder.mkdir(exist_ok=True)
            for path in (folder, *folder.glob("cgroup.*")):
                os.chown(path, user, -1)
        (group / "session" / "cgroup.procs").write_text("0")


def _show(paths: Sequence[str]) -> None:
    """Have everyone see these, in this mount namespace, whoever may look into the folders that they are in."""
    kept = {path: os.open(path, os.O_PATH) for path in paths}
    covered: set[Path] = set()
    for path, descriptor in kept.items():
        closed = [folder for folder in reversed(Path(path).parents) if folder in covered or not folder.stat().st_mode & 0o001]
        if not closed:
            continue
        if closed[0] not in covered:
            mount("tmpfs", str(closed[0]), "tmpfs", options="mode=755,size=1m")
            covered.add(closed[0])
        os.makedirs(path, exist_ok=True)
        bind(f"/proc/self/fd/{descriptor}", path)


def _lay_over(folder: str, entry: pwd.struct_passwd) -> None:
    """Have a user's folder be on an overlay, in this mount namespace, as all is in a container."""
    mount("tmpfs", "/mnt", "tmpfs", options="mode=755")
    for name in ("upper", "work"):
        os.mkdir(f"/mnt/{name}")
    os.chown("/mnt/upper", entry.pw_uid, entry.pw_gid)
    mount("overlay", folder, "overlay", options=f"lowerdir={folder},upperdir=/mnt/upper,workdir=/mnt/work")


def _rule(policy: str) -> None:
    """Have /etc/wardian/policy.yaml be this file, in this mount namespace."""
    kept = os.open(policy, os.O_PATH)
    mount("tmpfs", str(POLICY.parent), "tmpfs", options="mode=755,size=1m")
    POLICY.touch(mode=0o644)
    bind(f"/proc/self/fd/{kept}", str(POLICY))


def main() -> None:
    """`python -m tests.ordinary USER FOLDER COMMAND …`, as root."""
    name, folder, *argv = sys.argv[1:]
    entry = pwd.getpwnam(name)
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    # a folder of the host's that is closed to him, as /root mostly is
    mount("tmpfs", "/media", "tmpfs", options="mode=700,size=1m")
    _show(sorted({sys.prefix, sys.base_prefix, str(ROOT)}))
    if mounted := os.environ.pop("TESTS_MOUNTED", ""):
        bind(mounted, mounted)
    if overlaid := os.environ.pop("TESTS_OVERLAID", ""):
        _lay_over(overlaid, entry)
    if policy := os.environ.pop("TESTS_POLICY", ""):
        _rule(policy)
    if os.environ.pop("TESTS_DELEGATE", ""):
        _delegate(name, entry.pw_uid)
    os.setgroups(os.getgrouplist(name, entry.pw_gid))
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    os.chdir(folder)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
