"""Printed lines from a kernel to its client."""

from __future__ import annotations

import time

from .ground import ground
from .kernels import Kernel, kernel
from .results import Row, Table

LINES = 100_000
FLUSHED = 200
ROUNDS = 5
PRINTS = f"for i in range({LINES}): print(i)"
FLUSHES = f"for i in range({FLUSHED}): print(i, flush=True)"
SHELL = f"for ((i = 0; i < {LINES}; i++)); do echo $i; done"

CELLS = {
    "printed at home": (PRINTS, PRINTS, LINES),
    "printed on a node, Python": (f"%%on box\n{PRINTS}", PRINTS, LINES),
    "echoed on a node, bash": (f"%%on box --lang bash\n{SHELL}", PRINTS, LINES),
    "seq on a node, bash": (f"%%on box --lang bash\nseq 0 {LINES - 1}", PRINTS, LINES),
    f"{FLUSHED} lines, each flushed, on a node, Python": (f"%%on box\n{FLUSHES}", FLUSHES, FLUSHED),
}
"""{what: (our cell, the peer's cell, lines)}"""


def measure(quick: bool) -> Table:
    """Every kind of cell in turn beside a plain ipykernel; each has to deliver all of its lines in order."""
    rounds = 1 if quick else ROUNDS
    ours: dict[str, list[float]] = {what: [] for what in CELLS}
    peer: dict[str, list[float]] = {what: [] for what in CELLS}
    with ground() as place, place.up(1) as folder, kernel("python3", folder) as plain, kernel("wardian", folder) as wardian:
        for code in ("pass", "%%on box\npass", "%%on box --lang bash\n:"):
            wardian.run(code)
        for _ in range(rounds):
            for what, (code, peer_code, lines) in CELLS.items():
                ours[what].append(_rate(wardian, code, lines))
                peer[what].append(_rate(plain, peer_code, lines))
    rows = [Row(what, "lines/s", ours[what], "ipykernel", peer[what]) for what in CELLS]
    note = "Lines a second until the cell is idle: more is better. The peer of every row prints its lines from Python."
    return Table("output", f"{LINES:,} lines from a cell to the client, {rounds} rounds in turn", note, rows)


def _rate(where: Kernel, code: str, lines: int) -> float:
    start = time.perf_counter()
    printed = where.run(code)
    seconds = time.perf_counter() - start
    if printed != "".join(f"{number}\n" for number in range(lines)):
        raise RuntimeError(f"{code!r}: {printed.count(chr(10)):,} lines of {lines:,} came, or they came in another order")
    return lines / seconds
