"""What becomes of nodes without namespaces when something is killed. Run by `test_local_plain.py`, in an experiment's folder."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import wardian
from wardian.paths import state_folder
from wardian.providers.local import processes

STRAY = """
import os, subprocess
null = subprocess.DEVNULL
# it leaves its parent, its session and its variables
print(subprocess.Popen(["sleep", "1d"], stdin=null, stdout=null, stderr=null, env={}, start_new_session=True).pid)
"""


def pairs() -> dict[str, list[int]]:
    """The guard and the init of each node that runs: the guard is written down, and the init is its child."""
    found = {}
    for path in (state_folder() / "environments").glob("*/node/*/process.json"):
        with suppress(OSError):
            guard = int(json.loads(path.read_text())["pid"])
            found[path.parent.name] = [guard, *map(int, Path(f"/proc/{guard}/task/{guard}/children").read_text().split())]
    return found


def stray(environment: wardian.Environment) -> int:
    """A process on `server` that hides as well as it can."""
    return int(environment.exec("server", ["python3", "-c", STRAY])[0].stdout)


def kill(pids: Iterable[int], others: Iterable[int] = ()) -> None:
    """SIGKILL these, and wait until they and the others have ended."""
    watched = set()
    for pid in {*pids, *others}:
        with suppress(ProcessLookupError):
            watched.add(os.pidfd_open(pid))
    for pid in pids:
        # some hang on others
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while watched:
        watched -= set(select.select(list(watched), (), ())[0])


def one_by_one() -> None:
    """All of a node ends with its guard, with its init, and at `down`."""
    environment = wardian.Environment()
    print(environment.up())
    reach = "import socket; socket.create_connection(('server', 8080))"
    assert environment.exec("client", ["python3", "-c", reach])[0].ok
    for which in (0, 1):
        pair = pairs()["server"]
        kill([pair[which]], [*pair, stray(environment)])
        assert environment.observe().resources["node", "server"].state == "stopped"
        environment.up()
    last = os.pidfd_open(stray(environment))
    environment.down()
    assert select.select([last], (), (), 0)[0], "down leaves a process"
    assert not environment.down().existed


def finish(environment: wardian.Environment, where: str) -> None:
    """`up` leaves nothing to do; what was killed just before it may show a moment later, to the next `up`."""
    for _ in range(2):
        environment.up()
        left = environment.plan().operations
        if not left:
            return
        print(f"{where}: left to do: {', '.join(map(str, left))}")
    raise AssertionError(f"{where}: something is left to do")


def at_random(rounds: int) -> None:
    """Whatever is killed, and whenever: `up` finishes it, `down` and `gc` remove it, and do so twice."""
    environment = wardian.Environment()
    for number in range(rounds):
        chance = random.Random(number)
        command = subprocess.Popen(["wardian", chance.choice(["up", "up", "down"]), "--yes"], stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.3, 3))
        if chance.random() < 0.6:
            command.kill()
        command.wait()
        marked = sorted(set().union(*processes.environments(state_folder()).values()))
        doomed = set(chance.sample(marked, min(len(marked), chance.choice([0, 1, 1, 2]))))
        kill(doomed, [pid for pair in pairs().values() if doomed.intersection(pair) for pid in pair])
        if chance.random() < 0.5:
            finish(environment, f"round {number}")
        subprocess.run(["wardian", chance.choice(["down", "gc"])], check=True, stdout=subprocess.DEVNULL)
        if chance.random() < 0.3:
            environment.down()
            subprocess.run(["wardian", "gc"], check=True)
            left = processes.environments(state_folder())
            assert not left, f"round {number}: {left}"
    environment.down()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        at_random(int(sys.argv[1]))
    else:
        one_by_one()
    print("as it should be")
