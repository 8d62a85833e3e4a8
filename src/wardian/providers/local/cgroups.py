"""Control groups: `wardian/ENVIRONMENT/NODE` in the unified hierarchy, or in those of version 1.

Every node is a member of one group at least, so that everything on it can be found; the others only limit. They are made at the top of
what this user may change: all of a hierarchy for root, what was delegated to an ordinary user, and possibly nothing.

Where systemd runs, an ordinary user's part is that of his service manager, user@.service(5). His sessions lie beside it: from there the
groups can be changed, but nothing can be put into them; `entrance` leads in.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import MissingToolError, ProviderError

PERIOD = 100_000
"""The kernel's accounting period for processor time, microseconds."""

PROCESSES = 16384
"""The most processes on one node."""

LACKING = "`wardian doctor` says how control groups are had; then make the node anew."

LINGERING = Path("/var/lib/systemd/linger")
"""Has a file for each user whose service manager runs without a session of his, by `loginctl enable-linger`."""

_NAMED = 8
"""How many processes an error names."""


@dataclass(frozen=True)
class Cgroups:
    """How this host groups processes.

    version: 2, 1, or 0 for not at all. roots: {controller: folder of its hierarchy}.
    enters: whether what this process starts can be in groups there.
    """

    version: int
    roots: dict[str, Path]
    member: Path | None
    enters: bool = True

    @staticmethod
    def find() -> Cgroups:
        """Read from the mount table which hierarchies there are, which controllers each has, and which part of each is ours to change."""
        version1: dict[str, Path] = {}
        unified: Path | None = None
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                _, point, kind, options, *_ = line.split(" ")
                if kind == "cgroup2":
                    unified = unified or Path(point)
                elif kind == "cgroup":
                    version1 |= {option: Path(point) for option in options.split(",") if option in ("cpu", "memory", "pids", "freezer")}
        own = _own_groups()
        version1 = {name: top for name, point in version1.items() if (top := _top(point, own.get(name, "/")))}
        managed = unified and _manager(unified)
        unified = unified and _top(unified, own.get("", "/"))
        for top in filter(None, (unified, managed)):
            if usable := _usable(top) & {"cpu", "memory", "pids"}:
                return Cgroups(2, dict.fromkeys(usable, top), top, enters=top is unified)
        member = next((version1[name] for name in ("pids", "freezer", "cpu", "memory") if name in version1), unified)
        return Cgroups(1 if version1 else 0, version1, member)

    def plan(self, environment: str, node: str, cpus: float | None, memory: int | None) -> list[dict[str, Any]]:
        """The groups of a new node as the spawner wants them: [{"path", "files": {name: value}}]. Makes their parents."""
        return self._wanted(environment, node, cpus, memory) if self.enters else []

    def _wanted(self, environment: str, node: str, cpus: float | None, memory: int | None) -> list[dict[str, Any]]:
        if self.member is None:
            return []
        limits = self._limits(cpus, memory)
        hierarchies = dict.fromkeys([self.member, *limits])
        for root in hierarchies:
            self._prepare(root, environment)
        return [{"path": str(self._group(root, environment, node)), "files": limits.get(root, {})} for root in hierarchies]

    def change(self, environment: str, node: str, cpus: float | None, memory: int | None) -> None:
        """Give a running node other limits; None lifts one. Raises ProviderError when the kernel refuses."""
        members = self.members(environment, node)
        if not members and not self.enters:
            return
        for group in self._wanted(environment, node, cpus, memory) + self._lifted(environment, node, cpus, memory):
            path = Path(group["path"])
            try:
                path.mkdir(parents=True, exist_ok=True)
                for name, value in group["files"].items():
                    _write(path / name, value)
                for pid in members:
                    with suppress(ProcessLookupError):
                        _write(path / "cgroup.procs", str(pid))
            except OSError as error:
                raise ProviderError(
                    f"its limits cannot be changed: {error.strerror}",
                    resource=f"node {node}",
                    remedy="A memory limit below what is in use is refused: stop something on the node, or ask for more. "
                    "A node that was made before control groups were delegated has to be made anew.",
                ) from error

    def freeze(self, environment: str, node: str) -> None:
        """Have every process of a node stand still, until `thaw`; also those that enter it meanwhile. Raises MissingToolError."""
        if "freezer" in self.roots:
            group = self._group(self.roots["freezer"], environment, node)
            self._prepare(self.roots["freezer"], environment)
            group.mkdir(exist_ok=True)
            _write(group / "freezer.state", "FROZEN")
            # what is moved in stands still at once, so this ends: only those still outside can fork
            while outside := self.members(environment, node) - _members(group):
                for pid in outside:
                    with suppress(ProcessLookupError):
                        _write(group / "cgroup.procs", str(pid))
            _stand_still(group / "freezer.state")
        elif self.version == 2 and self.member is not None and (group := self._group(self.member, environment, node)).is_dir():
            _write(group / "cgroup.freeze", "1")
            if not _comes_to(group / "cgroup.events", "frozen 1", 5000):
                raise _restless(group / "cgroup.events")
        else:
            raise MissingToolError("it cannot be paused: it is in no control group that freezes", resource=f"node {node}", remedy=LACKING)

    def thaw(self, environment: str, node: str | None = None) -> None:
        """Let a node, or all nodes of an environment, go on. Without it those of version 1 cannot even be killed. Safe to repeat."""
        for group in self._groups(environment, node):
            for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                with suppress(OSError):
                    _write(group / name, value)

    def controllers(self) -> set[str]:
        """Those that new nodes are held by."""
        return set(self.roots) if self.enters else set()

    def folders(self, environment: str, node: str) -> list[Path]:
        """The groups of a node."""
        return [group for group in self._groups(environment, node) if group.is_dir()]

    def members(self, environment: str, node: str | None = None) -> set[int]:
        """The processes of a node, or of all nodes of an environment."""
        found: set[int] = set()
        for group in self._groups(environment, node):
            found |= _members(group)
        return found

    def remove(self, environment: str, node: str | None = None) -> None:
        """Remove the groups of a node, or all of an environment's. Their processes have to be dead."""
        for group in self._groups(environment, node):
            _remove(group)

    def environments(self) -> set[str]:
        """The ids of environments that have groups."""
        found: set[str] = set()
        for root in self._all_roots():
            with suppress(OSError):
                found |= {entry.name for entry in os.scandir(root / "wardian") if entry.is_dir()}
        return found

    def age(self, environment: str) -> float:
        """Seconds since the last of an environment's groups was made."""
        made = 0.0
        for root in self._all_roots():
            with suppress(OSError):
                made = max(made, (root / "wardian" / environment).stat().st_mtime)
        return time.time() - made

    def _limits(self, cpus: float | None, memory: int | None) -> dict[Path, dict[str, str]]:
        limits: dict[Path, dict[str, str]] = {}

        def limit(controller: str, files: dict[str, str]) -> None:
            if controller in self.roots:
                limits.setdefault(self.roots[controller], {}).update(files)

        limit("pids", {"pids.max": str(PROCESSES)})
        if cpus is not None:
            quota = max(round(cpus * PERIOD), 1000)
            limit("cpu", {"cpu.max": f"{quota} {PERIOD}"} if self.version == 2 else {"cpu.cfs_quota_us": str(quota)})
        if memory is not None:
            limit("memory", {"memory.max": str(memory)} if self.version == 2 else {"memory.limit_in_bytes": str(memory)})
        return limits

    def _lifted(self, environment: str, node: str, cpus: float | None, memory: int | None) -> list[dict[str, Any]]:
        files = {"cpu": {"cpu.max": "max"}, "memory": {"memory.max": "max"}}
        if self.version == 1:
            files = {"cpu": {"cpu.cfs_quota_us": "-1"}, "memory": {"memory.limit_in_bytes": "-1"}}
        asked = {"cpu": cpus, "memory": memory}
        groups = {name: self._group(root, environment, node) for name, root in self.roots.items() if name in files}
        return [{"path": str(path), "files": files[name]} for name, path in groups.items() if asked[name] is None and path.is_dir()]

    def _prepare(self, root: Path, environment: str) -> None:
        for folder in (root / "wardian", root / "wardian" / environment):
            if self.version == 2:
                self._delegate(folder.parent)
            folder.mkdir(exist_ok=True)
        if self.version == 2:
            self._delegate(root / "wardian" / environment)

    def _delegate(self, folder: Path) -> None:
        for name in self.roots:
            _write(folder / "cgroup.subtree_control", f"+{name}")

    def _group(self, root: Path, environment: str, node: str) -> Path:
        return root / "wardian" / environment / node

    def _all_roots(self) -> set[Path]:
        return {*self.roots.values(), *([self.member] if self.member else [])}

    def _groups(self, environment: str, node: str | None) -> Iterator[Path]:
        for root in self._all_roots():
            top = root / "wardian" / environment
            if node is not None:
                yield top / node
                continue
            with suppress(OSError):
                yield from (Path(entry.path) for entry in os.scandir(top) if entry.is_dir())
            yield top


def entrance() -> list[str]:
    """What to put before a command for nodes that it makes to be in groups: a scope of the service manager's, or nothing.

    Who does not linger has his manager ended after his last session, and with it all nodes there: he is not led in unasked. Nor is what
    runs outside of his slice, and may be bounded there.
    """
    user, program = _user(), shutil.which("systemd-run")
    beside = _own_groups().get("", "").startswith(f"/user.slice/user-{user}.slice/")
    if program is None or not beside or Cgroups.find().enters or not (LINGERING / pwd.getpwuid(user).pw_name).exists():
        return []
    return [program, "--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--"]


def _user() -> int:
    """This process's user, as the host has it."""
    with open("/proc/self/uid_map", encoding="ascii") as table:
        return int(table.readline().split()[1]) + os.geteuid()


def _manager(point: Path) -> Path | None:
    """What systemd has delegated to this user's service manager."""
    user = _user()
    return _top(point, f"/user.slice/user-{user}.slice/user@{user}.service")


def _own_groups() -> dict[str, str]:
    """The groups that this process is in: {controller: group}, that of the unified hierarchy by the name ""."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as table:
        rows = [line.rstrip("\n").split(":", 2) for line in table]
    return {name: group for _, names, group in rows for name in names.split(",")}


def _top(point: Path, own: str) -> Path | None:
    """The highest group of a hierarchy, from this process's own upwards, that this user may change."""
    found = None
    for folder in (group := point / own.lstrip("/"), *group.parents):
        if not folder.is_relative_to(point) or not all(os.access(path, os.W_OK) for path in (folder, folder / "cgroup.procs")):
            break
        found = folder
    return found


def _usable(top: Path) -> set[str]:
    """The controllers that groups below this one of the unified hierarchy can have."""
    # a group that has processes hands nothing down, unless it is the first of all; that one has no type
    settled = (top / "cgroup.type").exists() and _members(top)
    try:
        return set((top / ("cgroup.subtree_control" if settled else "cgroup.controllers")).read_text().split())
    except OSError:
        return set()


def _members(group: Path) -> set[int]:
    try:
        return {int(line) for line in (group / "cgroup.procs").read_text().split()}
    except OSError:
        return set()


def _stand_still(path: Path) -> None:
    """Have a group of version 1 be frozen. What forks just then can keep the kernel at it for good, so it is begun anew now and then."""
    for _attempt in range(10):
        _write(path, "THAWED")
        _write(path, "FROZEN")
        if _comes_to(path, "FROZEN", 500):
            return
    raise _restless(path)


def _comes_to(path: Path, state: str, looks: int) -> bool:
    """Whether the kernel says so of a group within so many looks; it takes as long as system calls take to be left."""
    for _attempt in range(looks):
        if state in path.read_text():
            return True
        time.sleep(0.002)
    return False


def _restless(path: Path) -> ProviderError:
    """The error of a node that does not stand still, naming what the kernel says of its group and of the processes in it."""
    said = ", ".join(path.read_text().splitlines())
    found = [_process(pid) for pid in sorted(_members(path.parent))]
    listed = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
    return ProviderError(
        f"it does not stand still: its control group is {said}, with {listed or 'no processes'}",
        resource=f"node {path.parent.name}",
        remedy="A process on it hangs in the kernel (state D), or processes are made without end; try again.",
    )


def _process(pid: int) -> str:
    """A process by its name, number, state and what it waits for in the kernel."""
    try:
        name, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        return f"{name.partition('(')[2]} ({pid}, {fields.split()[0]}, {Path(f'/proc/{pid}/wchan').read_text() or '-'})"
    except OSError:
        return f"one that has ended ({pid})"


def _write(path: Path, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _remove(group: Path) -> None:
    # the kernel lets go of a group a moment after its last process died
    for _attempt in range(200):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.005)
        else:
            return
    raise ProviderError(f"control group {group} still has processes", remedy="Run the command again.")
