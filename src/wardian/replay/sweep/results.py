"""The results of a sweep as one tidy table: a row for each row that a run wrote down, with what that run was."""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from ..rows import Row, rows_of
from .sweeping import Run

ABOUT = ("repeat", "status", "in_doubt", "started", "seconds", "run")
"""Columns of every row, after the parameters: which round, how the run ended, whether the host was too busy for its numbers to be trusted,
when it began (seconds since the epoch), how long it took (seconds), its id in the journal."""


def gather(folder: Path, runs: Sequence[Run]) -> list[Row]:
    """The rows of all runs; of a run that wrote nothing down, one without measurements.

    Parameters are numbers where their text is one. A column that a run wrote down under a name which the table has already is called
    NAME_recorded.
    """
    rows: list[Row] = []
    for run in runs:
        about = {name: number(value) for name, value in run.parameters.items()} | {name: getattr(run, name) for name in ABOUT}
        path = folder / run.notebook if run.notebook else None
        recorded = rows_of(nbformat.read(path, as_version=4)) if path and path.exists() else []
        for row in recorded or [{}]:
            rows.append(about | {f"{name}_recorded" if name in about else name: value for name, value in row.items()})
    return rows


def write(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write `results.csv`, and `results.parquet` where pyarrow is there; gives what was written."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    paths = [folder / "results.csv"]
    beside = folder / ".results.csv.new"
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(beside, paths[0])
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        return paths
    beside = folder / ".results.parquet.new"
    parquet.write_table(arrow.table({name: _column([row.get(name) for row in rows]) for name in names}), beside)
    paths.append(folder / "results.parquet")
    os.replace(beside, paths[1])
    return paths


def number(text: str) -> int | float | str:
    """A parameter's text as a number, if it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _column(values: list[Any]) -> list[Any]:
    """Values of one type: a column that holds several is text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1:
        return values
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]
