"""Who holds what on this host, for root; and its end.

Root opens none of a user's files and listens to none of his processes, but one: a fresh interpreter that has become that user for good
before it looks at anything of his. It is in his control groups and has his limits, and nothing of root's but a pipe, so whatever waits
for it there, links, sockets or a debugger, gets no more than he has. What it writes is a claim of his: bounded, and printed as plain text.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import NotUpError, WardianError

T = TypeVar("T")
R = TypeVar("R")
Waiting = Callable[[str], None]

LONGEST_ANSWER = 1 << 20
PATIENCE = 120.0
"""Seconds until who does not answer is given up; an end may have files to collect."""

NOTICE = 3.0
"""Seconds until it is said whom we wait for."""

MOST_STATES = 8
"""State folders of one user that are looked at: processes name them, and he starts as many as he likes."""


def _nobody(what: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True)
class Place:
    """A user's state folder. processes: those of his that name it, {number: the environment that it names}."""

    user: str
    uid: int
    state: str
    processes: dict[int, str]


@dataclass(frozen=True, slots=True)
class Holding:
    """An environment as its user's side says. memory: bytes used now; lease_end, created: seconds since the epoch.

    parts: the ids under which the providers of its nodes know it, each its own or, at several sites, that of a site.
    """

    user: str
    id: str
    instance: str
    provider: str
    file: str
    created: float
    nodes: int
    parts: tuple[str, ...]
    memory: int
    lease_end: float | None
    place: Place


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A place of which nothing is known, and why."""

    place: Place
    reason: str


def holdings(user: str | None = None, waiting: Waiting = _nobody) -> tuple[list[Holding], list[Unanswered]]:
    """Everything that a user, or anyone, holds on this host, and where that could not be had. waiting: told for what we wait."""
    places = [place for place in _places() if user in (None, place.user)]
    found: list[Holding] = []
    silent: list[Unanswered] = []
    for place, answer in _each(_tried, places, lambda place: f"{place.user} to answer from {_plain(place.state)}", waiting):
        if isinstance(answer, str):
            silent.append(Unanswered(place, answer))
        else:
            found += answer
    return found, silent


def end(
    identities: Sequence[str] = (), user: str | None = None, *, force: bool = False, waiting: Waiting = _nobody
) -> Iterator[tuple[str, Holding | WardianError | None]]:
    """Collect what environments' files name and tear them down, each as its user, some at once. Without ids, all that is held.

    force: kill all that runs in them first, and collect nothing: where a user's processes leave no room to do anything as him.
    waiting: told for what we wait. Yields each id with what it was, None where only its processes were left to kill, or what went wrong;
    without ids, also each user of whom nothing is known, with why.
    """
    killed = _kill(identities, user) if force else set()
    found, silent = holdings(user, waiting)
    for holding in found if force else ():
        if holding.id in identities and (parts := set(holding.parts) - {holding.id}):
            # what runs at its sites names these; his word reaches no further than what is his
            _kill(sorted(parts), holding.user)
    asked: list[tuple[str, Holding | None]] = [(identity, None) for identity in dict.fromkeys(identities)]
    if not identities:
        asked = [(holding.id, holding) for holding in found]
        asked += [(identity, None) for identity in sorted(killed.difference(holding.id for holding in found))]
        yield from ((item.place.user, WardianError(item.reason)) for item in silent)

    def ended(item: tuple[str, Holding | None]) -> Holding | WardianError | None:
        identity, holding = item
        try:
            holding = holding or _chosen(identity, found)
            _ask(holding.place, "end", holding.id, *([] if force else ["collect"]))
        except NotUpError as error:
            return None if identity in killed else _unknown(error, silent)
        except WardianError as error:
            return error
        return holding

    for (identity, _), outcome in _each(ended, asked, lambda item: f"the end of {item[0]}", waiting):
        yield identity, outcome


def _each(work: Callable[[T], R], items: Sequence[T], what: Callable[[T], str], waiting: Waiting) -> Iterator[tuple[T, R]]:
    """Each item with what work makes of it, in their order, some at once. waiting: told what of those that take long."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for item, future in [(item, pool.submit(work, item)) for item in items]:
            if wait([future], NOTICE).not_done:
                waiting(what(item))
            yield item, future.result()


def _unknown(error: NotUpError, silent: Sequence[Unanswered]) -> WardianError:
    if not silent:
        return error
    said = "; ".join(item.reason for item in silent)
    remedy = f"with --all --user {silent[0].place.user} --force, all that he holds is killed first, at several sites, too"
    return NotUpError(f"{error.message}, as far as is answered: {said}", remedy=remedy)


def extend(identity: str, seconds: float, user: str | None = None) -> float:
    """Hold an environment for longer, also beyond the policy; gives when its lease ends then. Raises WardianError."""
    holding = _chosen(identity, holdings(user)[0])
    if not holding.place.processes:
        raise NotUpError(f"nothing of {identity} runs", remedy="its user has it again with `wardian up`")
    answer = _ask(holding.place, "extend", holding.id, f"{seconds}s")
    if not isinstance(answer, float):
        raise WardianError(f"{holding.user}: its answer makes no sense")
    return answer


def _chosen(identity: str, found: Sequence[Holding]) -> Holding:
    fitting = [holding for holding in found if holding.id == identity]
    if not fitting:
        raise NotUpError(f"nobody here holds an environment {identity!r}", remedy="`wardian admin ls` shows who holds what")
    if len({holding.place.uid for holding in fitting}) > 1:
        names = ", ".join(sorted({holding.user for holding in fitting}))
        raise WardianError(f"several users say that they hold {identity}: {names}", remedy="say whose with --user")
    return fitting[0]


def _places() -> list[Place]:
    """All state folders that are known of: those that processes name, and the usual one of each user of the host."""
    places: dict[tuple[int, str], dict[int, str]] = {(0, "/var/lib/wardian"): {}}
    for pid, uid, variables in _processes():
        places.setdefault((uid, variables["WARDIAN_STATE"]), {})[pid] = variables["WARDIAN_ENVIRONMENT"]
    for entry in pwd.getpwall():
        state = os.path.join(entry.pw_dir, ".local/state/wardian")
        if entry.pw_uid and os.path.lexists(os.path.join(state, "environments")):
            places.setdefault((entry.pw_uid, state), {})
    counts: dict[int, int] = {}
    kept = []
    for (uid, state), processes in sorted(places.items()):
        counts[uid] = counts.get(uid, 0) + 1
        if counts[uid] <= MOST_STATES:
            kept.append(Place(_name(uid), uid, state, processes))
    return kept


def _processes() -> Iterator[tuple[int, int, dict[str, str]]]:
    """Processes outside of nodes that name their environment: number, user, and what they name."""
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and (variables := _named(int(name))):
                yield int(name), _uid(int(name)), variables


def _named(pid: int) -> dict[str, str] | None:
    with open(f"/proc/{pid}/environ", "rb") as file:
        given = dict(part.split(b"=", 1) for part in file.read(LONGEST_ANSWER).split(b"\0") if b"=" in part)
    found = {name: os.fsdecode(given[name.encode()]) for name in ("WARDIAN_ENVIRONMENT", "WARDIAN_STATE") if name.encode() in given}
    return found if len(found) == 2 and os.path.isabs(found["WARDIAN_STATE"]) else None


def _uid(pid: int) -> int:
    """The real user of a process, as this namespace sees him."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Uid:"))


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _tried(place: Place) -> list[Holding] | str:
    try:
        answer = _ask(place, "list")
        return [_claimed(place, item) for item in answer]
    except WardianError as error:
        return _plain(error.message)
    except (TypeError, KeyError, ValueError, OverflowError):
        return "its answer makes no sense"


def _claimed(place: Place, item: Any) -> Holding:
    texts = {name: _plain(str(item[name])) for name in ("id", "instance", "provider", "file")}
    lease_end = None if item["lease_end"] is None else float(item["lease_end"])
    created, nodes, memory = float(item["created"]), int(item["nodes"]), int(item["memory"])
    parts = tuple(str(part) for part in item["parts"])
    return Holding(place.user, **texts, created=created, nodes=nodes, parts=parts, memory=memory, lease_end=lease_end, place=place)


def _plain(text: str) -> str:
    """Text that does nothing to a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:500])


def _kill(identities: Sequence[str], user: str | None) -> set[str]:
    """Kill environments' processes outside of nodes, with which those on their nodes end; gives whose were killed once they are dead.

    Until then they take their user's room, and whoever is to act as him would follow one of them while it goes.
    """
    killed: dict[int, str] = {}
    with ExitStack() as opened:
        for pid, uid, variables in _processes():
            if (not identities or variables["WARDIAN_ENVIRONMENT"] in identities) and user in (None, _name(uid)):
                with suppress(OSError):
                    descriptor = os.pidfd_open(pid)
                    opened.callback(os.close, descriptor)
                    # of a number that was given anew meanwhile, the descriptor is of another process
                    if _named(pid) == variables:
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                        killed[descriptor] = variables["WARDIAN_ENVIRONMENT"]
        alive, deadline = set(killed), time.monotonic() + PATIENCE
        while alive and (left := deadline - time.monotonic()) > 0:
            alive.difference_update(select.select(alive, [], [], left)[0])
    return set(killed.values())


def _ask(place: Place, *command: str) -> Any:
    """Have `holdings.py` do something as the user of a place. Raises WardianError with its words, or that it has none."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", __name__, str(place.uid), place.state, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    try:
        answer = json.loads(_read(process))
    except (OSError, ValueError, RecursionError):
        running = ", ".join(sorted({_plain(name) for name in place.processes.values()})[:MOST_STATES]) or "nothing"
        raise WardianError(f"{place.user} does not answer from {_plain(place.state)}, where there runs {running}") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if not isinstance(answer, dict) or "done" not in answer:
        said = answer.get("failed") if isinstance(answer, dict) else None
        raise WardianError(f"{place.user}: {_plain(str(said or 'its answer makes no sense'))}")
    return answer["done"]


def _read(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None  # noqa: S101 (asked for as a pipe)
    deadline, answer = time.monotonic() + PATIENCE, b""
    with process.stdout as stream:
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(stream.fileno(), 1 << 16) if ready else b""
            answer += part
            if not part or len(answer) > LONGEST_ANSWER:
                raise OSError
    return answer


def _anchor(uid: int, state: str) -> int:
    """The process of a user in whose control group and with whose limits we act as him; 0 where he has none, and nobody to lie in wait."""
    naming = {pid for pid, _, variables in _processes() if variables["WARDIAN_STATE"] == state}
    own = []
    for name in os.listdir("/proc") if uid else ():
        with suppress(OSError):
            if name.isdigit() and _uid(int(name)) == uid and _lives(int(name)):
                own.append(int(name))
    return min(own, key=lambda pid: (_in_node(pid), pid not in naming), default=0)


def _lives(pid: int) -> bool:
    """Whether a process has not ended; one that has waits for whoever started it, and is in no group."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return False


def _in_node(pid: int) -> bool:
    """Whether a process is in a node's control group, whose limits are the node's."""
    with suppress(OSError):
        return "/wardian/" in Path(f"/proc/{pid}/cgroup").read_text(errors="replace")
    return True


def _become(uid: int, state: str) -> dict[str, str]:
    """Become a user for good, where a process of his is and with its limits; gives the variables to go on with."""
    while anchor := _anchor(uid, state):
        try:
            _follow(anchor)
            break
        except OSError:
            # between the look and the step it may have ended, and another is to be followed
            if _lives(anchor):
                raise
    try:
        entry = pwd.getpwuid(uid)
        name, group, home = entry.pw_name, entry.pw_gid, entry.pw_dir
        groups: Sequence[int] = os.getgrouplist(name, group)
    except KeyError:
        name, group, home, groups = str(uid), uid, "/", []
    os.setgroups(groups)
    os.setresgid(group, group, group)
    os.setresuid(uid, uid, uid)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"HOME": home, "USER": name, "LOGNAME": name, "PATH": path, "LANG": "C.UTF-8", "WARDIAN_STATE": state}


def _follow(anchor: int) -> None:
    """Take on the limits of a process and enter its control groups, in each hierarchy that is mounted. Raises OSError."""
    for kind in {value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}:
        with suppress(ValueError, PermissionError):
            resource.setrlimit(kind, resource.prlimit(anchor, kind))
    tops: dict[str, Path] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split(" ")
        if kind in ("cgroup", "cgroup2"):
            tops |= {name: Path(point) for name in (options.split(",") if kind == "cgroup" else [""])}
    for line in Path(f"/proc/{anchor}/cgroup").read_text().splitlines():
        _, names, group = line.split(":", 2)
        top = tops.get(names.split(",")[0])
        if top is not None:
            (top / group.lstrip("/") / "cgroup.procs").write_text("0")


def main() -> None:
    """`python -m wardian.environment.admin UID STATE COMMAND …`, as root: go on as that user. Fails where that cannot be."""
    uid, state, *command = sys.argv[1:]
    variables = _become(int(uid), state)
    os.execve(sys.executable, [sys.executable, "-I", "-m", f"{__package__}.holdings", *command], variables)  # noqa: S606


if __name__ == "__main__":
    main()
