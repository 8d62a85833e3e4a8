"""A command on many hosts over SSH, beside Ansible and parallel-ssh, and what a second command costs on a connection that is there."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.providers.sshd import Lab

from wardian import aio
from wardian.nodes.run import run

from .ground import WARDIAN, Ground, ground
from .results import Goal, Row, Table

HOSTS, ROUNDS, COMMANDS = 50, 5, 200
BIN = Path(sys.executable).parent

PSSH = """
import sys
from pssh.clients import ParallelSSHClient
client = ParallelSSHClient(sys.argv[2:], user="root", pkey=sys.argv[1], pool_size=len(sys.argv) - 2)
for output in client.run_command("uname -n"):
    print(next(iter(output.stdout)))
"""


def measure(quick: bool) -> Table:
    """Whole processes in turn, then single commands in one process."""
    hosts, rounds, commands = (6, 1, 20) if quick else (HOSTS, ROUNDS, COMMANDS)
    classic = {"shared": True, "key_exchange": "classic"}
    with ground() as place, machines(hosts) as lab, experiment(place, lab) as folder, experiment(place, lab, **classic) as other:
        rows = list(_many(lab, folder, other, place, hosts, rounds))
        rows.append(_second(lab, folder, commands))
    note = (
        f"{hosts} OpenSSH servers, each in namespaces of its own on this machine. `uname -n` on all of them, whole processes from start to "
        "exit. Cold: nobody has a connection yet; parallel-ssh never keeps one. Warm: connections of the round before are there, ours and "
        "Ansible's. Classic: with `key_exchange: classic`, the exchange that parallel-ssh always makes; else ours is, like Ansible's, what "
        "this machine's ssh chooses. Ansible is given a fork for each host, pipelining, and its fastest module (raw) besides its usual "
        "one (command)."
    )
    return Table("ssh", "a command on many hosts", note, rows)


@contextmanager
def machines(count: int) -> Iterator[Lab]:
    """Hosts to work on."""
    lab = Lab("10.94.0")
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(lab.runtime)
    try:
        for number in range(count):
            lab.machine(f"host{number}")
        yield lab
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
        lab.close()


@contextmanager
def experiment(place: Ground, lab: Lab, **settings: object) -> Iterator[Path]:
    """The folder of an experiment that is up, with a node on every host."""
    folder = place.experiment(1)
    asked = {"name": "bench", "provider": "ssh", "settings": lab.settings(**settings), "nodes": {"box": {"count": len(lab.machines)}}}
    (folder / "experiment.yaml").write_text(json.dumps(asked))
    environment = aio.Environment(folder / "experiment.yaml")
    asyncio.run(environment.up())
    try:
        yield folder
    finally:
        asyncio.run(environment.down())
        environment.close()


def _many(lab: Lab, folder: Path, classic: Path, place: Ground, hosts: int, rounds: int) -> Iterator[Row]:
    addresses = [machine.address for machine in lab.machines.values()]
    inventory = folder / "hosts.ini"
    inventory.write_text("".join(f"{name} ansible_host={machine.address}\n" for name, machine in lab.machines.items()))
    peer = {
        **os.environ,
        "ANSIBLE_HOST_KEY_CHECKING": "False",
        "ANSIBLE_SSH_EXECUTABLE": str(lab.ssh),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(lab.root / "cp"),
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
        "ANSIBLE_LOCAL_TEMP": str(lab.root / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
    }
    options = ["-i", str(inventory), "-u", "root", "--private-key", str(lab.root / "id"), "-f", str(hosts)]
    options += [f"--ssh-common-args=-o UserKnownHostsFile={lab.known_hosts}"]
    network = f"/proc/{os.getpid()}/fd/{lab.fabric.namespaces['desk']}"
    ways: dict[str, Callable[[], str]] = {
        "wardian": lambda: _output([WARDIAN, "exec", "all", "uname", "-n"], folder),
        "classic": lambda: _output([WARDIAN, "exec", "all", "uname", "-n"], classic),
        "ansible raw": lambda: _output([BIN / "ansible", "all", *options, "-m", "raw", "-a", "uname -n"], folder, peer),
        "ansible command": lambda: _output([BIN / "ansible", "all", *options, "-m", "command", "-a", "uname -n"], folder, peer),
        "parallel-ssh": lambda: _output(
            ["nsenter", f"--net={network}", sys.executable, "-c", PSSH, str(lab.root / "id"), *addresses], folder
        ),
    }
    cold: dict[str, list[float]] = {name: [] for name in ways}
    warm: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            _forget_connections(lab)
            cold[name].append(_timed(way, hosts))
            warm[name].append(_timed(way, hosts))
    goal = Goal(0.2, ratio=True)
    yield Row(f"{hosts} hosts, cold", "s", cold["wardian"], "Ansible (raw)", cold["ansible raw"])
    yield Row(f"{hosts} hosts, cold", "s", cold["wardian"], "Ansible (command)", cold["ansible command"], goal)
    yield Row(f"{hosts} hosts, cold", "s", cold["wardian"], "parallel-ssh", cold["parallel-ssh"])
    yield Row(f"{hosts} hosts, cold, classic", "s", cold["classic"], "Ansible (command)", cold["ansible command"], goal)
    yield Row(f"{hosts} hosts, cold, classic", "s", cold["classic"], "parallel-ssh", cold["parallel-ssh"])
    yield Row(f"{hosts} hosts, warm", "s", warm["wardian"], "Ansible (raw)", warm["ansible raw"])
    yield Row(f"{hosts} hosts, warm", "s", warm["wardian"], "Ansible (command)", warm["ansible command"], goal)
    yield Row(f"{hosts} hosts, warm", "s", warm["wardian"], "parallel-ssh", warm["parallel-ssh"])


def _timed(way: Callable[[], str], hosts: int) -> float:
    start = time.perf_counter()
    output = way()
    seconds = time.perf_counter() - start
    missing = [number for number in range(hosts) if f"host{number}" not in output]
    if missing:
        raise RuntimeError(f"no answer of hosts {missing}: {output[:2000]}")
    return seconds


def _forget_connections(lab: Lab) -> None:
    """End what anybody keeps open."""
    for folder in (lab.runtime / "wardian-ssh", lab.root / "cp"):
        for socket in folder.glob("*"):
            subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "none"], capture_output=True)


def _output(command: Sequence[str | Path], folder: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit code {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _second(lab: Lab, folder: Path, count: int) -> Row:
    """`true` on one host in one process, and the same command started by hand where the host is: its own time."""
    own = _own(lab, count)

    async def commands() -> list[float]:
        environment = aio.Environment(folder / "experiment.yaml")
        live = await environment.live()
        channel = live.channel("box[0]")
        times = []
        for _ in range(count + 10):
            start = time.perf_counter()
            await run(channel, "box[0]", ["true"])
            times.append(time.perf_counter() - start)
        environment.close()
        return times[10:]

    return Row("a second command, over its own time", "ms", [item - own for item in asyncio.run(commands())], goal=Goal(0.003))


def _own(lab: Lab, count: int) -> float:
    """Median of `true` as its login shell starts it, on the machine itself."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        subprocess.run(["/bin/bash", "-c", "exec /bin/true"], check=True, env={"PATH": os.environ["PATH"]})
        times.append(time.perf_counter() - start)
    return sorted(times)[count // 2]
