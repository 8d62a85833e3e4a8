"""What `wardian replay` takes beyond running the same notebook: reading the record, comparing, and the report."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import nbformat

from .ground import WARDIAN, Ground, ground
from .results import Goal, Row, Table

ROUNDS = 7
NODES = 2
CELLS = 24
LINES = 100
WORK = 0.25
"""Seconds that each cell on nodes works before it prints."""


def measure(quick: bool) -> Table:
    """Whole processes, in turn: `wardian run` and `wardian replay` of one notebook, which is compared with the first of the runs."""
    ours: list[float] = []
    theirs: list[float] = []
    with ground() as place:
        folder = _study(place)
        identity = _record(folder)
        for _ in range(2 if quick else ROUNDS):
            theirs.append(_time(folder, "run", "study.ipynb"))
            ours.append(_time(folder, "replay", "study.ipynb", "--against", identity, "--tolerance", "1000%"))
    cells = f"{CELLS} cells of {WORK:g} s on {NODES} nodes, {LINES} lines of numbers each from each"
    rows = [Row(cells, "s", ours, "wardian run", theirs, Goal(1.05, ratio=True))]
    note = "Every number differs, within a tolerance, so that every line has to be taken apart."
    return Table("replay", "a replay, whole process", note, rows)


def _study(place: Ground) -> Path:
    folder = place.experiment(NODES)
    printed = "print('sample', number, random.random(), 'took', random.random(), 'ms')"
    work = f"import random, time\ntime.sleep({WORK})\nfor number in range({LINES}):\n    {printed}"
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
