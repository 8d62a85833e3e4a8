"""CSV files of links: traces and matrices are read as they are meant, and what is wrong in one is named with its line."""

from __future__ import annotations

import pytest

from wardian.errors import ExperimentFileError
from wardian.experiment import file, tables
from wardian.experiment.tables import parse_matrix, parse_trace


def test_units_stand_in_the_header_or_with_the_value() -> None:
    """A column's unit holds for its bare numbers, and a value's own unit for itself."""
    trace = parse_trace("time,rate_mbit,delay (ms),loss,jitter\n0,5,30,1%,2ms\n1500ms,0.5,40ms,0,0\n", "x.csv")
    assert trace.steps == (
        (0.0, {"rate": 5_000_000, "delay": 0.03, "loss": 0.01, "jitter": 0.002}),
        (1.5, {"rate": 500_000, "delay": 0.04, "loss": 0.0, "jitter": 0.0}),
    )
    assert trace.length == 3.0


def test_a_trace_begins_at_nothing_and_keeps_what_changes() -> None:
    """Times count from the first row, equal rows in a row are one step, comments and empty lines are passed over."""
    trace = parse_trace("# of a walk\ntime,delay\n10,5ms\n11,5ms\n\n12,6ms\n", "x.csv")
    assert trace.steps == ((0.0, {"delay": 0.005}), (2.0, {"delay": 0.006}))
    assert trace.length == 3.0


def test_mahimahi_traces_become_rates() -> None:
    """A line for each packet that may pass becomes a rate for each tenth of a second, never nothing."""
    trace = parse_trace("0\n50\n99\n250\n", "lte.up")
    assert [values["rate"] for _, values in trace.steps] == [360_960, 1000, 120_320]
    assert trace.length == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("", 1, "time, delay, jitter, rate, loss"),
        ("time,height\n0,1\n", 1, "time, delay, jitter, rate, loss"),
        ("time\n0\n", 1, "columns time and"),
        ("time,delay,delay\n0,1ms,1ms\n", 1, "each once"),
        ("time,delay\n0,30\n", 2, "a duration with its unit"),
        ("time,rate\n0,1mbit\n1,0\n", 3, "a rate such as"),
        ("time,loss\n0,1%\n0,2%\n", 3, "later than that of the row above"),
        ("time,loss\n0,1%\n1\n", 3, "2 values"),
        ("time,loss\n", 1, "between one and"),
        ("30\n20\n", 1, "ascending order"),
        ('time,loss\n0,"1%\n', 2, "comma-separated"),
    ],
)
def test_wrong_traces(text: str, line: int, expected: str) -> None:
    """One clear error with file, line and what was expected."""
    with pytest.raises(ExperimentFileError) as caught:
        parse_trace(text, "x.csv")
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("x.csv", line)
    assert expected in str(problem)


def test_a_matrix_is_read() -> None:
    """Rows and columns are networks, bare numbers milliseconds, empty cells nothing."""
    matrix = parse_matrix(",a,b,c\na,0,10,20ms\nb,,,1.5\nc,\t,,\n", "m.csv")
    assert matrix == {"a": {"b": 0.01, "c": 0.02}, "b": {"c": 0.0015}, "c": {}}


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("a\n", 1, "names of the networks"),
        (",a,a\n", 1, "each once"),
        (",a,b\nc,1,2\n", 2, "each network of the first row once"),
        (",a,b\na,1\n", 2, "3 cells"),
        (",a,b\na,,fast\n", 2, "a duration"),
    ],
)
def test_wrong_matrices(text: str, line: int, expected: str) -> None:
    """One clear error with file, line and what was expected."""
    with pytest.raises(ExperimentFileError) as caught:
        parse_matrix(text, "m.csv")
    (problem,) = caught.value.problems
    assert problem.line == line
    assert expected in str(problem)


def test_named_files_are_found() -> None:
    """Traces of links and access links, common or of one direction, and matrices are all named, with where they stand."""
    experiment = file.loads(
        "name: t\nnetworks: [x, y]\n"
        "links: {l: {among: [x, y], delays: m.csv, back: {trace: l.csv}}}\n"
        "nodes: {n: {networks: {x: {trace: {file: a.csv, repeat: no}, up: {trace: u.csv}}}}}\n"
    )
    assert list(tables.named(experiment)) == [
        (("links", "l", "back", "trace"), "l.csv", "trace"),
        (("links", "l", "delays"), "m.csv", "matrix"),
        (("nodes", "n", "networks", "x", "trace"), "a.csv", "trace"),
        (("nodes", "n", "networks", "x", "up", "trace"), "u.csv", "trace"),
    ]
