"""The way to the internet out of an ordinary user's namespaces: pasta or slirp4netns, whichever is installed, run on the host's side.

Either gives the environment's outer network namespace an interface, and does there with ordinary sockets of the user what goes through it.
For everything else (`internet.py`) that namespace stands where root has the host's.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ...descriptors import closing
from ...errors import ProviderError
from ..base import Finding
from . import processes
from .kernel import is_running, process_identity
from .state import EnvironmentFolder, alone, read_json, write_json

FILE = "way.process.json"
INTERFACE = "out0"
"""What it is called in the outer namespace."""


def program() -> str | None:
    """Which of the two is installed, if any."""
    return next((name for name in _STARTS if shutil.which(name)), None)


def finding(pid: int) -> Finding:
    """What `wardian doctor` says of it. pid: a process in a network namespace to try it on, which is to end soon."""
    what, chosen = "internet for nodes (slirp4netns or pasta)", program()
    if chosen is None:
        return Finding(what, "limited", "neither is installed", "Install one: apt install slirp4netns (or passt).")
    with tempfile.TemporaryDirectory(prefix="wardian-way-") as folder:
        try:
            os.kill(start(chosen, pid, Path(folder)), signal.SIGKILL)
        except ProviderError as error:
            return Finding(what, "missing", error.message, "Update it, or install the other one: apt install slirp4netns passt.")
    return Finding(what, "ok", f"{chosen} leads out")


def keep(environment: EnvironmentFolder) -> list[int]:
    """Have it run for an environment that has its outer namespace. Gives its process number, or nothing where there is none."""
    outside, chosen = environment.outside_pid(), program()
    if outside is None or chosen is None:
        return []
    with alone(environment.outside / "way.lock"):
        known = read_json(environment.outside / FILE)
        if known and is_running(known):
            return [known["pid"]]
        # the namespace has one such interface: whoever has it was started by one that was killed before it could write that down
        processes.end(_leading(outside))
        pid = start(chosen, outside, environment.outside)
        write_json(environment.outside / FILE, process_identity(pid))
        return [pid]


def start(chosen: str, pid: int, folder: Path) -> int:
    """Lead the network namespace of process `pid` out, and give the number of the process that does it. folder: for its log.

    Raises ProviderError with its last words when it cannot.
    """
    with open(folder / "way.log", "ab") as log:
        number = _STARTS[chosen](f"/proc/{pid}/ns/user", f"/proc/{pid}/ns/net", folder, log)
    if number is None:
        said = (folder / "way.log").read_text(errors="replace").strip().splitlines()
        raise ProviderError(f"{chosen} could not begin: {said[-1] if said else 'it gave no reason'}", resource="internet")
    return number


def _slirp4netns(user: str, network: str, folder: Path, log: IO[bytes]) -> int | None:
    ready, told = os.pipe()
    command = ["slirp4netns", "--configure", "--mtu=1500", "--disable-host-loopback", f"--ready-fd={told}", f"--userns-path={user}"]
    pid = _started([*command, "--netns-type=path", network, INTERFACE], log, told)
    os.close(told)
    with open(ready, "rb") as begun:
        return pid if begun.read(1) else None


def _pasta(user: str, network: str, folder: Path, log: IO[bytes]) -> int | None:
    # it goes on in the background once it serves, and has written its number by then
    number = folder / "way.pid"
    command = ["pasta", "--quiet", "--config-net", "--ns-ifname", INTERFACE, "--no-map-gw", "--pid", str(number)]
    for ports in ("--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"):
        command += [ports, "none"]
    _, status = os.waitpid(_started([*command, "--userns", user, "--netns", network], log), 0)
    return int(number.read_text()) if os.waitstatus_to_exitcode(status) == 0 else None


def _started(command: list[str], log: IO[bytes], kept: int | None = None) -> int:
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, log.fileno(), number) for number in (1, 2)]
    actions += closing()
    if kept is not None:
        actions.append((os.POSIX_SPAWN_DUP2, kept, kept))
    # pasta of 2023 refuses to begin where this signal, which Python ignores, is ignored already
    return os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsid=True, setsigdef=[signal.SIGPIPE])


_STARTS = {"slirp4netns": _slirp4netns, "pasta": _pasta}


def end(environment: EnvironmentFolder) -> None:
    """End it."""
    known, led = read_json(environment.outside / FILE), read_json(environment.outside / "process.json")
    processes.end(processes.running([known] if known else []) | (_leading(led["pid"]) if led else set()))


def _leading(pid: int) -> set[int]:
    """The processes that lead the network namespace of this one out, or of one that had its number."""
    place, found = f"/proc/{pid}/ns/net".encode(), set()
    for name in os.listdir("/proc"):
        # neither shows its variables to others of its user; what it was started with everyone sees
        with suppress(OSError, ValueError), open(f"/proc/{int(name)}/cmdline", "rb") as file:
            program, *arguments = file.read().split(b"\0")
            if place in arguments and os.path.basename(program).decode(errors="replace") in _STARTS:
                found.add(int(name))
    return found
