"""What the journal costs the cells that it records: short cells in turn in a kernel with it and in one without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ground import ground
from .kernels import Kernel, kernel
from .results import Goal, Row, Table

CELLS = 10_000
BLOCK = 50
"""Cells that make a sample: what is written while another cell runs counts, too."""
WARM_UP = 2
KINDS = {"at home": "print(1)", "one node, Python": "%%on box[0]\nprint(1)"}


def measure(quick: bool) -> Table:
    """Blocks of cells that print a line, with the journal and without one."""
    blocks = 4 if quick else CELLS // BLOCK
    with_it: dict[str, list[float]] = {what: [] for what in KINDS}
    without: dict[str, list[float]] = {what: [] for what in KINDS}
    with ground() as place, place.up(1) as folder, kernel("wardian", folder) as recorded, _unrecorded(folder) as bare:
        for what, code in KINDS.items():
            for number in range(-WARM_UP, blocks):
                # each goes first in every other turn
                for notebook, times in ((recorded, with_it[what]), (bare, without[what]))[:: 1 if number % 2 else -1]:
                    seconds = sum(notebook.time(code) for _ in range(BLOCK)) / BLOCK
                    if number >= 0:
                        times.append(seconds)
        count = _recorded(folder)
    assert count >= len(KINDS) * blocks * BLOCK, f"the journal has {count} cells"
    rows = [Row(what, "ms", with_it[what], "without a journal", without[what], Goal(1.02, ratio=True), paired=True) for what in KINDS]
    return Table("journal", f"a short cell, mean of {BLOCK}, {blocks} times in turn: {blocks * BLOCK} cells of each kind", rows=rows)


@contextmanager
def _unrecorded(folder: Path) -> Iterator[Kernel]:
    """A kernel whose journal cannot be opened: it records nothing from the first cell on."""
    os.environ["WARDIAN_JOURNAL"] = "/dev/null/journal.db"
    try:
        with kernel("wardian", folder) as bare:
            os.environ.pop("WARDIAN_JOURNAL")
            yield bare
    finally:
        os.environ.pop("WARDIAN_JOURNAL", None)


def _recorded(folder: Path) -> int:
    """How many cells the journal of a folder has."""
    from wardian.journal import Journal

    with Journal.open(folder / ".wardian" / "journal.db") as journal:
        return len(journal.entries(kinds=["cell"]))
