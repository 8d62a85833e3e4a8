"""Keeps an environment's relay (`relay.py`) running while something in its fabric needs one."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import ProviderError
from . import netlink, processes, shaping
from .fabric import Fabric
from .kernel import is_running, process_identity
from .state import EnvironmentFolder, State, read_json, write_json

PROGRAM = str(Path(__file__).with_name("relay.py"))

PATIENCE = 10.0
"""Longest that a relay may take to open what it serves, seconds."""


def keep(environment: EnvironmentFolder, state: State) -> list[int]:
    """Start, inform or end the relay, as what stands in the fabric asks for. Gives its process number, or nothing where none is needed."""
    fabric = environment.fabric_pid()
    if fabric is None:
        return []
    with Fabric(fabric) as wiring, _alone(environment):
        wanted = shaping.relay_config(
            wiring.interfaces(),
            counters=str(environment.path / "relay.counters"),
            seed=environment.id,
            netns=f"/proc/{fabric}/ns/net",
        )
        config = environment.path / "relay.json"
        running = processes.running(identities(environment)) or _unrecorded(environment, state)
        if not wanted["pairs"]:
            config.unlink(missing_ok=True)
            processes.end(running)
            return []
        changed = wanted != read_json(config)
        if changed:
            write_json(config, wanted)
        if not running:
            running, changed = {_start(environment, state, config)}, True
        elif changed:
            for pid in running:
                os.kill(pid, signal.SIGHUP)
        if changed:
            _wait_until_served(wiring, {pair[end] for pair in wanted["pairs"] for end in ("near", "far")})
    return sorted(running)


def identities(environment: EnvironmentFolder) -> list[dict[str, Any]]:
    """The identity of the environment's relay, if one was ever started."""
    known = read_json(environment.path / "relay.process.json")
    return [known] if known and is_running(known) else []


def _wait_until_served(wiring: Fabric, taps: set[str]) -> None:
    """Return once the relay has these open: what is sent before that is lost. Raises ProviderError if it takes too long."""
    deadline = time.monotonic() + PATIENCE
    with netlink.interface_changes(wiring.namespace) as changes:
        while waiting := taps - {link.name for link in wiring.interfaces() if link.carrier}:
            if not select.select([changes], [], [], max(0.0, deadline - time.monotonic()))[0]:
                said = f"the relay does not serve {len(waiting)} of its {len(taps)} ends"
                raise ProviderError(said, remedy="Run the command again; its log is relay.log in the environment's folder.")
            changes.recv(1 << 16)


def _unrecorded(environment: EnvironmentFolder, state: State) -> set[int]:
    """A relay whose starter was killed before it could write down what it had started."""
    program = Path(PROGRAM).name.encode()
    found = set()
    for pid in processes.of(environment.id, state.root):
        with suppress(OSError):
            if program in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def _start(environment: EnvironmentFolder, state: State, config: Path) -> int:
    silent = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    log = str(environment.path / "relay.log")
    silent += [(os.POSIX_SPAWN_OPEN, number, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for number in (1, 2)]
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", PROGRAM, str(config)],
        processes.variables(environment.id, state.root),
        file_actions=silent,
        setsid=True,
        # until it handles these it would die of them
        setsigmask=[signal.SIGHUP, signal.SIGUSR1],
    )
    with suppress(FileNotFoundError):
        write_json(environment.path / "relay.process.json", process_identity(pid))
    return pid


@contextmanager
def _alone(environment: EnvironmentFolder) -> Iterator[None]:
    # a command and the keeper may look after it at once
    descriptor = os.open(environment.path / "relay.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
