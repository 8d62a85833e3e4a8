"""`wardian plan` with nothing to do on many nodes of the provider in memory."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

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
        _process(file, stored)
        process = [_process(file, stored) for _ in range(rounds)]
        environment.close()
    rows = [Row("Environment.plan()", "ms", library, goal=Goal(1.0)), Row("wardian plan, whole process", "ms", process, goal=Goal(1.0))]
    note = "Two networks with a link, shaped access links. The whole process also reads what exists from a file, which takes some ms."
    return Table("plan", f"nothing to do on {NODES} nodes, {rounds} rounds", note, rows)


@contextmanager
def in_registry(cloud: MemoryCloud) -> Iterator[None]:
    """The cloud's provider in the place of every other."""
    ours: dict[str, Callable[..., Any]] = {
        "make": lambda name, settings=None: MemoryProvider(cloud=cloud),
        "names": lambda: ["memory"],
        "settings_models": lambda: {"memory": MemoryProvider.Settings},
    }
    with ExitStack() as stack:
        for name, function in ours.items():
            stack.enter_context(patch.object(registry, name, function))
        yield


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
