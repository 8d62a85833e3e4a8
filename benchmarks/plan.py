"""`wardian plan` with nothing to do on many nodes of the provider in memory."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import time
from pathlib import Path

from wardian import aio
from wardian.providers import registry
from wardian.providers.memory import MemoryCloud, MemoryProvider

from .ground import ground
from .results import Goal, Row, Table

NODES = 500
ROUNDS = 9
TEXT = """
name: bench
provider: memory
networks: {{east: {{}}, west: {{}}}}
links:
  wan: {{between: [east, west], delay: 30ms, rate: 100mbit, queue: 100}}
nodes:
  server: {{count: {half}, networks: {{east: {{rate: 100mbit}}}}}}
  client: {{count: {half}, networks: {{west: {{delay: 5ms, rate: 20mbit}}}}}}
"""


def measure(quick: bool) -> Table:
    """The library's call, and a whole process that reads the cloud from a file and runs the command."""
    rounds = 2 if quick else ROUNDS
    with ground() as place, MemoryCloud() as cloud, in_registry(cloud):
        file = place.root / "experiment.yaml"
        file.write_text(TEXT.format(half=NODES // 2))
        environment = aio.Environment(file)
        asyncio.run(environment.up())
        stored = place.root / "cloud.pickle"
        stored.write_bytes(pickle.dumps(cloud._environments))
        library = [_plan(environment) for _ in range(rounds)]
        process = [_process(file, stored) for _ in range(rounds)]
        environment.close()
    rows = [Row("Environment.plan()", "ms", library, goal=Goal(1.0)), Row("wardian plan, whole process", "ms", process, goal=Goal(1.0))]
    note = "Two networks with a link, an access link with a rate at every node. The whole process also reads what exists from a file (some ms)."
    return Table("plan", f"nothing to do on {NODES} nodes, {rounds} rounds", note, rows)


class in_registry:  # noqa: N801
    """The cloud's provider in the place of every other."""

    def __init__(self, cloud: MemoryCloud) -> None:
        self._ours = {
            "make": lambda name, settings=None: MemoryProvider(cloud=cloud),
            "names": lambda: ["memory"],
            "settings_models": lambda: {"memory": MemoryProvider.Settings},
        }

    def __enter__(self) -> None:
        self._theirs = {name: getattr(registry, name) for name in self._ours}
        self._set(self._ours)

    def __exit__(self, *error: object) -> None:
        self._set(self._theirs)

    def _set(self, functions: dict[str, object]) -> None:
        for name, function in functions.items():
            setattr(registry, name, function)


def _plan(environment: aio.Environment) -> float:
    start = time.perf_counter()
    plan = asyncio.run(environment.plan())
    seconds = time.perf_counter() - start
    if plan:
        raise RuntimeError(f"there was something to do:\n{plan}")
    return seconds


def _process(file: Path, stored: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", f"{__package__}.plan_process", str(file), str(stored)], check=True, capture_output=True)
    return time.perf_counter() - start
