"""A sweep's runs, rows, tables and figures, without running anything."""

from __future__ import annotations

import csv
import datetime
import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.testing.globalipapp import start_ipython
from IPython.utils.capture import capture_output

import wardian
from wardian.replay.rows import LARGEST, MIME, rows_of
from wardian.replay.sweep import Point, Run, figures, grid, results, values

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def recorded(*arguments, **columns):
    """The rows that one call of `wardian.record` leaves in a notebook, and the text beside them."""
    start_ipython()
    with capture_output() as captured:
        wardian.record(*arguments, **columns)
    outputs = [nbformat.v4.new_output("display_data", output.data) for output in captured.outputs]
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])
    return rows_of(nbformat.reads(nbformat.writes(document), 4)), outputs[0]["data"]["text/plain"]


def test_combinations_in_rounds():
    """Every combination comes once before any comes again, and a value that is named twice counts once."""
    points = grid({"a": ["1", "2"], "b": ["x", "x"]}, 2)
    assert [str(point) for point in points] == ["a=1 b=x #1", "a=2 b=x #1", "a=1 b=x #2", "a=2 b=x #2"]
    assert [str(point) for point in grid({}, 2)] == ["#1", "#2"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("5", ["5"]), ("5, 10ms,x y", ["5", "10ms", "x y"]), ('["a,b", c, 3, [1, 2]]', ["a,b", "c", "3", "[1, 2]"]), ("", [""])],
)
def test_values(text, found):
    """Values are separated by commas, or written as a list where they hold commas."""
    assert values(text) == found


@pytest.mark.parametrize("text", ["[1", "[]", "[a] b"])
def test_values_that_are_no_list(text):
    """A list that is not closed, empty or followed by something is an error with the text."""
    with pytest.raises(ValueError, match="is no list"):
        values(text)


@given(st.lists(st.tuples(TEXTS, TEXTS, st.integers(1, 9)), unique=True))
def test_names_of_runs(points):
    """Different runs have different names, and each is the name of one file."""
    keys = [Point(((name, value),), repeat).key for name, value, repeat in points]
    assert len(set(keys)) == len(keys)
    assert all(key not in ("", ".", "..") and "/" not in key and "\0" not in key and len(key.encode()) < 256 for key in keys)


def test_rows_of_all_kinds():
    """One row by names, several as mappings, a frame with its named index, and columns that all of them get."""
    assert recorded(player=1, rate=3.5) == ([{"player": 1, "rate": 3.5}], "player  rate\n1       3.5")
    assert recorded([{"a": 1}, {"b": None}], c="x")[0] == [{"a": 1, "b": None, "c": "x"}, {"a": None, "b": None, "c": "x"}]
    frame = pd.DataFrame({"x": [1.0, math.nan]}, index=pd.Index(["p", "q"], name="node"))
    assert recorded(frame, phase="loaded")[0] == [{"node": "p", "x": 1.0, "phase": "loaded"}, {"node": "q", "x": None, "phase": "loaded"}]
    assert recorded(frame["x"])[0] == [{"node": "p", "x": 1.0}, {"node": "q", "x": None}]
    moment = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    plain = recorded(n=np.int64(3), f=np.float32(0.5), b=np.bool_(True), t=moment, none=pd.NaT, inf=math.inf)[0]
    assert plain == [{"n": 3, "f": 0.5, "b": True, "t": "2026-01-02T03:04:00+00:00", "none": None, "inf": None}]


def test_what_is_no_row():
    """Values without an exact plain form, rows that are none, and far too many are errors that say which."""
    with pytest.raises(TypeError, match="x: a value is a number, text, a truth value or None, not list"):
        wardian.record(x=[1])
    with pytest.raises(TypeError, match="a row is a mapping from columns to values, not int"):
        wardian.record([1])
    with pytest.raises(ValueError, match="collect"):
        wardian.record(pd.DataFrame({"x": np.zeros(LARGEST + 1)}))


def test_the_example_of_the_page():
    """What the page shows of `wardian.record` runs as it stands."""
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    start_ipython()
    with capture_output() as captured:
        exec(example, {})
    assert [output.data[MIME]["rows"][-1] for output in captured.outputs] == [[1, 3.67], [2, 3], [1, 3.67, "loaded"]]


def run(folder, number, outputs=(), **parameters):
    """A run that ended well, and wrote down these rows."""
    cells = [nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", {MIME: table}) for table in outputs])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{number}.ipynb")
    return Run(parameters, 1, "ok", 0.0, 2.0, run=f"id{number}", notebook=f"{number}.ipynb")


def test_one_tidy_table(tmp_path):
    """Each row has its run's parameters, as numbers where they are; runs that wrote nothing down have a row; equal names stay apart."""
    table = {"columns": ["node", "clients", "rtt"], "rows": [["a", 7, 1.5], ["b", 7, 2]]}
    runs = [run(tmp_path, 1, [table], clients="5", delay="10ms"), run(tmp_path, 2, clients="10", delay="10ms")]
    rows = results.gather(tmp_path, runs)
    assert [(row["clients"], row["delay"], row.get("clients_recorded"), row.get("rtt")) for row in rows] == [
        (5, "10ms", 7, 1.5), (5, "10ms", 7, 2), (10, "10ms", None, None)
    ]  # fmt: skip
    paths = results.write(rows, tmp_path)
    assert [path.name for path in paths] == ["results.csv", "results.parquet"]
    frame = pd.read_parquet(paths[1])
    assert frame.rtt.tolist()[:2] == [1.5, 2.0]
    assert frame.status.tolist() == ["ok"] * 3
    with paths[0].open(newline="") as file:
        assert [row["rtt"] for row in csv.DictReader(file)] == ["1.5", "2", ""]


def test_columns_of_several_types(tmp_path):
    """A column that holds numbers and text is text in the table, since a column has one type there."""
    rows = [{"x": 1}, {"x": "many"}, {"x": None}]
    assert parquet.read_table(results.write(rows, tmp_path)[1])["x"].to_pylist() == ["1", "many", None]


def test_figures(tmp_path):
    """Each column of numbers is drawn; text that every combination has tells rows apart, text that differs does not."""
    rows = [
        {"clients": clients, "delay": delay, "way": way, "node": f"n{clients}", "rtt": clients + len(delay), "status": "ok"}
        for clients in (1, 2)
        for delay in ("5ms", "20ms")
        for way in ("up", "down")
    ]
    found = list(figures.dimensions(rows, ["clients", "delay"], ["clients", "delay", "status"]))
    assert [item.name for item in found] == ["clients", "delay", "way"]
    assert found[1].scale() == ([5.0, 20.0], ["5", "20"], "delay, ms")
    assert found[2].scale() == ([0.0, 1.0], ["up", "down"], "way")
    (path,) = figures.draw(rows, ["clients", "delay"], ["clients", "delay", "status"], tmp_path / "figures")
    assert path.name == "rtt.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_figure_without_anything_varied(tmp_path):
    """A measured column is drawn, too, where only repeats tell the runs apart."""
    assert len(figures.draw([{"a/b": 1.0}, {"a/b": 2.0}], [], [], tmp_path)) == 1
    assert (tmp_path / "a_b.png").exists()
