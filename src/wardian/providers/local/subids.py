"""The ids of an ordinary user's namespaces: his own as 0, and after it those that subuid(5) and subgid(5) grant him."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..base import Finding

KINDS = {"uid": ("newuidmap", Path("/etc/subuid")), "gid": ("newgidmap", Path("/etc/subgid"))}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a user may map. ranges: of each kind, (first, count); empty for none. lacking: why there are none, and what to do."""

    ranges: dict[str, tuple[int, int]]
    lacking: tuple[str, str] | None = None


def granted() -> Grant:
    """What the host grants this user."""
    name = user_name()
    remedy = f"Have root grant them: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
    ranges = {}
    for kind, (program, table) in KINDS.items():
        if shutil.which(program) is None:
            return Grant({}, (f"there is no program {program}", "Install it: apt install uidmap (Fedora: dnf install shadow-utils)."))
        found = _range(table, {name, str(os.getuid())})
        if found is None:
            return Grant({}, (f"{table} grants {name} none", remedy))
        ranges[kind] = found
    return Grant(ranges)


def give(pid: int, grant: Grant) -> None:
    """Give the new user namespace of this process its ids. Raises OSError with the reason when the kernel or a helper refuses."""
    own = {"uid": os.getuid(), "gid": os.getgid()}
    if not grant.ranges:
        # without more than one id nobody may take groups away, since that could widen what a file allows
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    for kind, (program, _) in KINDS.items():
        if grant.ranges:
            first, count = grant.ranges[kind]
            command = [program, str(pid), "0", str(own[kind]), "1", "1", str(first), str(count)]
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip().splitlines()
                raise OSError(1, said[-1] if said else f"{program} ended with code {done.returncode}")
        else:
            Path(f"/proc/{pid}/{kind}_map").write_text(f"0 {own[kind]} 1\n")


def finding() -> Finding:
    """What `wardian doctor` says of them."""
    grant = granted()
    if grant.lacking:
        reason, remedy = grant.lacking
        return Finding("ids of users on nodes", "limited", f"one, since {reason}: apt, sshd and nginx need more", remedy)
    return Finding("ids of users on nodes", "ok", f"{grant.ranges['uid'][1] + 1:,} of them")


def user_name() -> str:
    """This user's name, or number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _range(table: Path, names: set[str]) -> tuple[int, int] | None:
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit() and int(fields[2]) > 1:
            return int(fields[1]), min(int(fields[2]), 65536)
    return None
