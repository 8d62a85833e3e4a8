"""Nodes up, one command on all, down, beside Mininet."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

from wardian import aio

from .ground import Ground, ground
from .mininet import Mininet, command, mininet
from .results import Goal, Row, Table

ROUNDS = {10: 7, 50: 7, 100: 3}
"""{nodes: rounds}"""

STEPS = ("up", "command", "down")
TITLES = {"up": "up", "command": "`hostname` on all", "down": "down"}
MININET_COMMAND = "py [host.cmd('hostname') for host in net.hosts]\n"

Times = dict[str, list[float]]


def measure(quick: bool) -> Table:
    """Pairs of rounds, ours and the peer's, each first in turn."""
    rows: list[Row] = []
    with ground() as place, mininet() as peer:
        _library(place.experiment(2))
        _commands(place, place.experiment(2))
        peer.round(2)
        for nodes, rounds in ({10: 1} if quick else ROUNDS).items():
            rows += _library_rows(place, peer, nodes, rounds)
            rows += _process_rows(place, peer, nodes, rounds)
    note = (
        "A Wardian node has network, mount, PID, UTS and IPC namespaces and its own view of the file system; a Mininet host has network "
        "and mount namespaces, and shares the rest with the machine. Both run the command on all at once. Processes: `wardian up`, `exec` "
        "and `down` in a new folder, three processes, beside one `mn` that does it all."
    )
    return Table("nodes", "nodes up, one command on all of them, down", note, rows)


def _library_rows(place: Ground, peer: Mininet, nodes: int, rounds: int) -> list[Row]:
    folder = place.experiment(nodes)
    ours: Times = {step: [] for step in STEPS}
    theirs: Times = {step: [] for step in STEPS}
    for number in range(rounds):
        _in_turn(number, lambda: _note(ours, _library(folder)), lambda: _note(theirs, peer.round(nodes)))
    goals = {("up", 50): Goal(1.0, ratio=True)}
    return [Row(f"{nodes} nodes {TITLES[step]}", "s", ours[step], peer.name, theirs[step], goals.get((step, nodes))) for step in STEPS]


def _process_rows(place: Ground, peer: Mininet, nodes: int, rounds: int) -> list[Row]:
    ours: Times = {step: [] for step in STEPS}
    theirs: list[float] = []
    for number in range(rounds):
        _in_turn(number, lambda: _note(ours, _commands(place, place.experiment(nodes))), lambda: theirs.append(_mn(nodes)))
    each = [Row(f"{nodes} nodes, processes: {TITLES[step]}", "s", ours[step]) for step in STEPS]
    whole = [sum(times) for times in zip(*ours.values(), strict=True)]
    return [*each, Row(f"{nodes} nodes, processes: all three", "s", whole, "mn", theirs)]


def _in_turn(number: int, *pair: Callable[[], None]) -> None:
    """Both of a pair, each first in every other round."""
    for work in pair if number % 2 else pair[::-1]:
        work()


def _note(times: Times, measured: dict[str, float]) -> None:
    for step in STEPS:
        times[step].append(measured[step])


def _library(folder: Path) -> dict[str, float]:
    """One life of an environment through the public API, seconds of each step."""
    environment = aio.Environment(folder / "experiment.yaml")
    start = time.perf_counter()
    asyncio.run(environment.up())
    grown = time.perf_counter()
    results = asyncio.run(environment.exec("all", ["hostname"]))
    answered = time.perf_counter()
    asyncio.run(environment.down())
    environment.close()
    end = time.perf_counter()
    wrong = [result for result in results if result.stdout.strip() != result.node.replace("[", "-").rstrip("]")]
    if wrong:
        raise RuntimeError(f"wrong answer: {wrong[0]}: {wrong[0].stdout!r} {wrong[0].stderr}")
    return {"up": grown - start, "command": answered - grown, "down": end - answered}


def _commands(place: Ground, folder: Path) -> dict[str, float]:
    """The same through the `wardian` command."""
    times = {}
    for step, arguments in {"up": ["up", "-y"], "command": ["exec", "all", "hostname"], "down": ["down", "-y"]}.items():
        start = time.perf_counter()
        place.command(folder, *arguments)
        times[step] = time.perf_counter() - start
    return times


def _mn(nodes: int) -> float:
    """One whole `mn`: up, the command on all hosts, down."""
    with NamedTemporaryFile("w", suffix=".mn") as script:
        script.write(MININET_COMMAND)
        script.flush()
        argv = command("--topo", f"single,{nodes}", "--switch", "lxbr", "--controller", "none", "--test", "none", "--pre", script.name)
        start = time.perf_counter()
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return time.perf_counter() - start
