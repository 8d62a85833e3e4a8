"""What it costs to start: whole processes, from fork to exit."""

from __future__ import annotations

import subprocess
import sys
import time

from .ground import WARDIAN, ground
from .results import Goal, Row, Table

ROUNDS = 15
PASS = [sys.executable, "-c", "pass"]
COMMANDS = {
    "import wardian": [sys.executable, "-c", "import wardian"],
    "import wardian, and Environment of it": [sys.executable, "-c", "import wardian; wardian.Environment"],
    "wardian --help": [WARDIAN, "--help"],
    "wardian ls, nothing up": [WARDIAN, "ls"],
}


def measure(quick: bool) -> Table:
    """Every command in turn, beside a Python that does nothing."""
    rounds = 2 if quick else ROUNDS
    ours: dict[str, list[float]] = {what: [] for what in COMMANDS}
    peer: list[float] = []
    with ground() as place:
        for number in range(-1, rounds):
            nothing = _time(PASS, str(place.root))
            measured = {what: _time(command, str(place.root)) for what, command in COMMANDS.items()}
            if number < 0:
                continue
            peer.append(nothing)
            for what, seconds in measured.items():
                ours[what].append(seconds)
    goals = {"import wardian": Goal(0.3)}
    rows = [Row(what, "ms", ours[what], "python -c pass", peer, goals.get(what)) for what in COMMANDS]
    return Table("imports", f"whole processes, {rounds} rounds in turn", rows=rows)


def _time(command: list[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return time.perf_counter() - start
