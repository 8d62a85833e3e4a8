"""Keeps what an environment's links need running: its relay (`relay.py`), and the player of its traces (`player.py`)."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...descriptors import closing
from ...errors import ProviderError
from . import fabric, netlink, player, processes, shaping
from .kernel import is_running, process_identity
from .netlink import Netlink
from .shaping import Segment
from .state import EnvironmentFolder, State, alone, read_json, write_json

PATIENCE = 10.0
"""Longest that a relay may take to open what it serves, seconds."""


@dataclass(frozen=True, slots=True)
class Helper:
    """A program that runs while an environment has work for it.

    In a folder, `NAME.json` is its configuration, which it reads again on SIGHUP, `NAME.process.json` says which process it is,
    and `NAME.log` has what it says.
    """

    name: str
    command: tuple[str, ...]

    def configuration(self, folder: Path) -> Path:
        return folder / f"{self.name}.json"

    def identity(self, folder: Path) -> dict[str, Any] | None:
        """The identity of its process, if that runs."""
        known = read_json(folder / f"{self.name}.process.json")
        return known if known and is_running(known) else None


RELAY = Helper("relay", ("-I", "-S", str(Path(__file__).with_name("relay.py"))))
PLAYER = Helper("player", ("-P", "-m", player.__name__))
HELPERS = (RELAY, PLAYER)


def keep(environment: EnvironmentFolder, state: State) -> list[int]:
    """Start, inform or end what the environment's links need running. Gives their process numbers."""
    pid = environment.fabric_pid()
    if pid is None:
        return []
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return serve(
            environment.path,
            namespace,
            netns=f"/proc/{pid}/ns/net",
            seed=environment.id,
            variables=processes.variables(environment.id, state.root),
            segments=_segments(environment),
            members=lambda: processes.of(environment.id, state.root),
        )
    finally:
        os.close(namespace)


def serve(
    folder: Path,
    namespace: int,
    *,
    netns: str,
    seed: str,
    variables: Mapping[str, str],
    segments: Sequence[Segment] = (),
    members: Callable[[], set[int]] = set,
) -> list[int]:
    """Start, inform or end what the segments in a network namespace, any that `shaping.apply` worked on, need running.

    folder: where configurations, logs and identities of processes are kept. namespace: a file descriptor of it; netns: its path, good
    for as long as it lives. seed: what losses are drawn from. variables: the environment of the processes, by which `members` finds
    those that were started but not written down. segments: those with a trace. Blocking; returns once what it started does its work.
    """
    with Netlink.into(namespace) as wiring, alone(folder / "relay.lock"):
        wanted = shaping.relay_config(wiring.links(), counters=str(folder / "relay.counters"), seed=seed, netns=netns, segments=segments)
        relay = wanted if wanted["pairs"] else None
        pids, changed = _have(RELAY, folder, relay, variables, members)
        if changed:
            wait_until_served(namespace, wiring, {pair[end] for pair in wanted["pairs"] for end in ("near", "far")})
        played = player.config(segments, netns=netns)
        more, _ = _have(PLAYER, folder, played if played["segments"] else None, variables, members)
    return sorted(pids | more)


def identities(environment: EnvironmentFolder) -> list[dict[str, Any]]:
    """The identities of those of the environment's helpers that run."""
    return [known for helper in HELPERS if (known := helper.identity(environment.path))]


def _segments(environment: EnvironmentFolder) -> list[Segment]:
    """Those of the environment's links that have a trace."""
    found = []
    for kind, make in (("link", fabric.link_segment), ("access", fabric.access_segment)):
        for folder in environment.resources(kind):
            known = folder.read()
            if known and "began" in known["facts"]:
                found.append(make(folder.name, known["spec"], known["facts"]["began"]))
    return found


def _have(
    helper: Helper, folder: Path, wanted: dict[str, Any] | None, variables: Mapping[str, str], members: Callable[[], set[int]]
) -> tuple[set[int], bool]:
    """Have the helper run with this configuration, or not at all. Gives its process number, and whether it was started or informed."""
    config = helper.configuration(folder)
    known = helper.identity(folder)
    running = processes.running([known] if known else [])
    if not wanted:
        if config.exists():
            config.unlink()
            processes.end(running or _unrecorded(helper, members))
        return set(), False
    running = running or _unrecorded(helper, members)
    changed = wanted != read_json(config)
    if changed:
        write_json(config, wanted)
    if not running:
        return {_start(helper, folder, variables)}, True
    if changed:
        for pid in running:
            os.kill(pid, signal.SIGHUP)
    return running, changed


def wait_until_served(namespace: int, wiring: Netlink, taps: set[str]) -> None:
    """Return once the relay has these open: what is sent before that is lost. Raises ProviderError if it takes too long."""
    deadline = time.monotonic() + PATIENCE
    with netlink.interface_changes(namespace) as changes:
        while waiting := taps - {link.name for link in wiring.links() if link.carrier}:
            if not select.select([changes], [], [], max(0.0, deadline - time.monotonic()))[0]:
                said = f"the relay does not serve {len(waiting)} of its {len(taps)} ends"
                raise ProviderError(said, remedy="Run the command again; its log is relay.log in the environment's folder.")
            drain(changes)


def drain(changes: socket.socket) -> None:
    """Take all that waits. Where many interfaces change at once some of it was dropped, which does not matter: all are looked at anew."""
    while select.select([changes], [], [], 0)[0]:
        try:
            changes.recv(1 << 16)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def _unrecorded(helper: Helper, members: Callable[[], set[int]]) -> set[int]:
    """A helper whose starter was killed before it could write down what it had started."""
    words = b"\0".join(word.encode() for word in helper.command)
    found = set()
    for pid in members():
        with suppress(OSError):
            if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def _start(helper: Helper, folder: Path, variables: Mapping[str, str]) -> int:
    silent = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    log = str(folder / f"{helper.name}.log")
    silent += [(os.POSIX_SPAWN_OPEN, number, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for number in (1, 2)]
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, *helper.command, str(helper.configuration(folder))],
        variables,
        file_actions=[*silent, *closing()],
        setsid=True,
        # until it handles these it would die of them
        setsigmask=[signal.SIGHUP, signal.SIGUSR1],
    )
    with suppress(FileNotFoundError):
        write_json(folder / f"{helper.name}.process.json", process_identity(pid))
    return pid
