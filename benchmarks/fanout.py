"""The round trip of an empty cell on many nodes at once, beside ipyparallel on as many engines."""

from __future__ import annotations

import time
from typing import Any

from .cold import engines
from .ground import ground
from .kernels import kernel
from .results import Goal, Row, Table

ROUNDS = {8: 100, 50: 30}
"""{nodes: rounds}"""

WARM_UP = 5
CELL = "%%on box\npass"


def measure(quick: bool) -> Table:
    """One after the other on each number of nodes, in three turns each: idle kernels take memory, not time, but fifty engines poll."""
    rows = []
    for nodes, rounds in ({8: 10} if quick else ROUNDS).items():
        ours: list[float] = []
        theirs: list[float] = []
        with ground() as place:
            for _ in range(1 if quick else 3):
                with place.up(nodes) as folder, kernel("wardian", folder) as wardian:
                    samples = [wardian.time(CELL) for _ in range(WARM_UP + rounds)]
                    ours += samples[WARM_UP:]
                with engines(place.root, nodes) as (_, client):
                    view = client[:]
                    samples = [_call(view) for _ in range(WARM_UP + rounds)]
                    theirs += samples[WARM_UP:]
        rows.append(Row(f"{nodes} nodes", "ms", ours, f"DirectView, {nodes} engines", theirs, Goal(1.0, ratio=True)))
    note = "The peer is `view.execute('pass', block=True)`, with which its `%%px` runs cells: it returns once every engine has replied."
    return Table("fanout", "an empty Python cell on all nodes, there and back", note, rows)


def _call(view: Any) -> float:
    start = time.perf_counter()
    view.execute("pass", block=True)
    return time.perf_counter() - start
