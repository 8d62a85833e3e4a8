"""Containers up, one command on all, down, beside docker compose on the same Engine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import engine

from .ground import Ground, ground
from .results import Goal, Row, Table

ROUNDS = {10: 5, 50: 3}
"""{containers: rounds}"""

STEPS = {"up": "up", "command": "`uname -n` on all", "down": "down"}
AT_ONCE = 8
"""Commands that the peer's side runs at once; compose itself has none that runs one on all."""

Times = dict[str, float]


def measure(quick: bool) -> Table:
    """Whole processes in turn, each first in every other round."""
    rows: list[Row] = []
    with ground() as place, daemon():
        version = _output("docker-compose", "version", "--short")
        for nodes, rounds in ({10: 1} if quick else ROUNDS).items():
            ours, theirs = _rounds(place, nodes, rounds)
            for step, title in STEPS.items():
                goal = Goal(1.0, ratio=True)
                samples = [times[step] for times in ours], [times[step] for times in theirs]
                rows.append(Row(f"{nodes} containers: {title}", "s", samples[0], f"docker-compose {version}", samples[1], goal))
    note = (
        "Whole processes: `wardian up`, `exec` and `down`, beside `docker-compose up -d`, `docker exec` (as many at once as is best) and "
        "`docker-compose down -t 0`, with one image, on one network, on an Engine of its own. Kathará is not measured: it needs images of "
        "its own registry, which is out of reach here."
    )
    return Table("docker", "containers up, one command on all of them, down", note, rows)


@contextmanager
def daemon() -> Iterator[None]:
    """An Engine, which this process and those that it starts use."""
    running = engine.start()
    given = {"DOCKER_HOST": running.address, "WARDIAN_DOCKER_IMAGE": engine.IMAGE, "COMPOSE_PARALLEL_LIMIT": "100"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        running.close()


def _rounds(place: Ground, nodes: int, rounds: int) -> tuple[list[Times], list[Times]]:
    ours: list[Times] = []
    theirs: list[Times] = []
    for number in range(rounds):
        pair: list[Callable[[], None]] = [lambda: ours.append(_ours(place, nodes)), lambda: theirs.append(_theirs(place, nodes))]
        for work in pair if number % 2 else pair[::-1]:
            work()
    return ours, theirs


def _ours(place: Ground, nodes: int) -> Times:
    folder = place.experiment(nodes)
    commands = {"up": ["up", "-y", "--provider", "docker"], "command": ["exec", "all", "uname", "-n"], "down": ["down", "-y"]}
    return {step: _timed(lambda arguments=arguments: place.command(folder, *arguments)) for step, arguments in commands.items()}  # type: ignore[misc]


def _theirs(place: Ground, nodes: int) -> Times:
    folder = place.experiment(nodes)
    service = f'  box:\n    image: "{engine.IMAGE}"\n    command: [sleep, infinity]\n    networks: [lan]\n'
    (folder / "docker-compose.yml").write_text(f'version: "3"\nservices:\n{service}networks:\n  lan: {{}}\n')
    times = {"up": _timed(lambda: _compose(folder, "up", "-d", "--scale", f"box={nodes}"))}
    names = _compose(folder, "ps", "-q").split()
    many = ["xargs", "-n", "1", "-P", str(AT_ONCE), "-I", "{}", "docker", "exec", "{}", "uname", "-n"]
    times["command"] = _timed(lambda: subprocess.run(many, input="\n".join(names), check=True, capture_output=True, text=True))
    times["down"] = _timed(lambda: _compose(folder, "down", "-t", "0"))
    return times


def _compose(folder: Path, *arguments: str) -> str:
    return subprocess.run(["docker-compose", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
