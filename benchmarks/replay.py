"""What `wardian replay` takes beyond running the same notebook: reading the record, comparing, and the report."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import nbformat

from .ground import WARDIAN, Ground, ground
from .results import Goal, Row, Table

ROUNDS = 4
NODES = 2
CELLS = 24
LINES = 10, 100
"""Lines of numbers that a cell prints on each node: as a notebook does, and as one does that prints all of its samples."""
WORK = 0.25
"""Seconds that each cell on nodes works before it prints."""


def measure(quick: bool) -> Table:
    """Whole processes, in turn: `wardian run` and `wardian replay` of one notebook, which is compared with the first of the runs."""
    with ground() as place:
        rows = [_row(place, lines, 2 if quick else ROUNDS) for lines in LINES]
    note = "Every number differs, within a tolerance, so that every line has to be taken apart."
    return Table("replay", "a replay, whole process", note, rows)


def _row(place: Ground, lines: int, rounds: int) -> Row:
    ours: list[float] = []
    theirs: list[float] = []
    folder = _study(place, lines)
    replay = ("replay", "study.ipynb", "--against", _record(folder), "--tolerance", "1000%")
    for number in range(rounds):
        # each goes first in every other turn
        for times, command in ((theirs, ("run", "study.ipynb")), (ours, replay))[:: 1 if number % 2 else -1]:
            times.append(_time(folder, *command))
    cells = f"{CELLS} cells of {WORK:g} s on {NODES} nodes, {lines} lines of numbers each from each"
    return Row(cells, "s", ours, "wardian run", theirs, Goal(1.05, ratio=True), paired=True)


def _study(place: Ground, lines: int) -> Path:
    folder = place.experiment(NODES)
    printed = "print('sample', number, random.random(), 'took', random.random(), 'ms')"
    work = f"import random, time\ntime.sleep({WORK})\nfor number in range({lines}):\n    {printed}"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"%%on box\n{work}") for _ in range(CELLS)])
    notebook.metadata.kernelspec = {"name": "wardian", "display_name": "Python 3 (Wardian)", "language": "python"}
    nbformat.write(notebook, folder / "study.ipynb")
    return folder


def _record(folder: Path) -> str:
    """Run it once. Gives the run's id, which stands behind the word `run` on the last lines."""
    done = subprocess.run([WARDIAN, "run", "study.ipynb"], cwd=folder, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout.partition(", run ")[2].split()[0]


def _time(folder: Path, *arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([WARDIAN, *arguments], cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return time.perf_counter() - start
