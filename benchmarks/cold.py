"""The first Python cell on many nodes that nothing has run on yet, beside as many ipyparallel engines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .ground import Ground, ground
from .kernels import kernel
from .results import Goal, Row, Table

NODES = 20
ROUNDS = 5
CELL = "%%on box\nimport os; print(os.getpid() > 0)"


def measure(quick: bool) -> Table:
    """Each in turn; the environment is up, and the notebook's kernel and the client of ipyparallel are running."""
    ours: list[float] = []
    alone: list[float] = []
    theirs: list[float] = []
    homes: list[float] = []
    plain: list[float] = []
    with ground() as place:
        for _ in range(1 if quick else ROUNDS):
            ours.append(_nodes(place, NODES))
            alone.append(_nodes(place, 1))
            theirs.append(_engines(place.root))
            homes.append(_start("wardian", place.root))
            plain.append(_start("python3", place.root))
    rows = [
        Row(f"{NODES} nodes' first Python cell", "s", ours, f"{NODES} ipyparallel engines", theirs, Goal(0.33, ratio=True)),
        Row("one node's first Python cell", "s", alone, "ipykernel's start", plain),
        Row("a notebook's kernel, from its start to its first cell's end", "s", homes, "ipykernel", plain),
    ]
    note = (
        "A node's first cell starts its agent and its kernel. The engines are ready when a call on all of them has returned; their "
        "controller's start is not counted."
    )
    return Table("cold", "first cells", note, rows)


def _nodes(place: Ground, nodes: int) -> float:
    with place.up(nodes) as folder, kernel("wardian", folder) as wardian:
        wardian.run("pass")
        # what the notebook's kernel goes on loading beside its first cell is loaded by the time that anyone has written a second one
        time.sleep(1)
        return wardian.time(CELL)


def _start(name: str, folder: Path) -> float:
    start = time.perf_counter()
    with kernel(name, folder) as started:
        started.run("pass")
        return time.perf_counter() - start


def _engines(folder: Path) -> float:
    with engines(folder, 0) as (cluster, client):
        start = time.perf_counter()
        cluster.start_engines_sync(n=NODES)
        client.wait_for_engines(NODES, timeout=300)
        client[:].apply_sync(int)
        return time.perf_counter() - start


@contextmanager
def engines(folder: Path, number: int) -> Iterator[tuple[Any, Any]]:
    """A cluster of ipyparallel with this many engines, and its client."""
    import ipyparallel

    cluster = ipyparallel.Cluster(n=number, cluster_id=f"bench-{time.time_ns()}", profile_dir=str(folder / "ipyparallel"), log_level=40)
    cluster.start_controller_sync()
    try:
        if number:
            cluster.start_engines_sync()
        client = cluster.connect_client_sync()
        if number:
            client.wait_for_engines(number, timeout=300)
        yield cluster, client
        client.close()
    finally:
        cluster.stop_cluster_sync()
