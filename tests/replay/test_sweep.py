"""`wardian sweep`: all combinations, each in an environment of its own, resumed after anything."""

from __future__ import annotations

import csv
import json
import os
import signal

import pytest

from ..stage import Stage, eventually
from .test_runner import cell, notebook

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

COUNTING = "import os, wardian\nwardian.record(nodes=len(os.popen('wardian exec all hostname').readlines()), label=label)"


def study(stage: Stage, *more: str) -> None:
    """A notebook with the parameters clients and label, that writes one row down."""
    notebook(stage, cell("clients = 2\nlabel = 'x'", tags=["parameters"]), *map(cell, more), cell(COUNTING))


def table(stage: Stage) -> list[dict[str, str]]:
    """The sweep's results."""
    with (stage.folder / "out" / "study-sweep" / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep(stage: Stage) -> None:
    """Every combination is run, two at once, and gives its row; more values run only what is new, also after a kill; nothing is left up."""
    gate = stage.folder / "gate"
    study(stage, f"import pathlib, time\nwhile clients == 3 and not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.05)")
    planned = stage.json("sweep", "study.ipynb", "-p", "clients=1,2", "-p", "label=a,b", "--dry-run", "--json")
    assert [item["status"] for item in planned] == ["to be run"] * 4
    assert not (stage.folder / "out").exists()
    done = stage.run("sweep", "study.ipynb", "-p", "clients=1,2", "-p", "label=a", "-j", "2", timeout=150)
    assert "2 of 2 runs are done, 2 rows" in done.stdout
    assert sorted((row["clients"], row["nodes"], row["label"], row["status"]) for row in table(stage)) == [
        ("1", "2", "a", "ok"), ("2", "3", "a", "ok")
    ]  # fmt: skip
    more = ("sweep", "study.ipynb", "-p", "clients=1,2,3", "-p", "label=a")
    runs = stage.folder / "out" / "study-sweep" / "runs"
    before = {path: path.read_text() for path in runs.glob("*/run.json")}
    killed = stage.start(*more)
    eventually(lambda: "[1/4]" in _text(runs / "clients=3,label=a,r1" / "log.txt"), "the third run has begun", within=150)
    killed.kill()
    killed.communicate(timeout=90)
    gate.touch()
    again = stage.json(*more, "--json", timeout=200)
    assert [run["status"] for run in again["runs"]] == ["ok"] * 3
    assert len({run["run"] for run in again["runs"]}) == 3
    assert len(before) == 2
    assert {path: path.read_text() for path in before} == before, "what was done stays"
    assert (stage.folder / "out" / "study-sweep" / "figures" / "nodes.png").exists()
    stage.assert_nothing_left()


def test_wrong_parameters_before_anything_runs(stage: Stage) -> None:
    """A parameter that nothing has, a value that one can't have, and -e are refused before anything is grown."""
    study(stage)
    assert "colour" in stage.error("sweep", "study.ipynb", "-p", "colour=red,blue", code=3)
    assert "clients" in stage.error("sweep", "study.ipynb", "-p", "clients=1,many", code=3)
    assert "is no list" in stage.error("sweep", "study.ipynb", "-p", "clients=[1", code=2)
    assert "leave out -e" in stage.error("sweep", "study.ipynb", "-e", "mine", code=2)
    assert not (stage.folder / "out").exists()
    assert stage.json("log", "--json") == []


@pytest.mark.long
def test_runs_that_fail(stage: Stage) -> None:
    """A run that fails does not end the sweep, but its exit code says so; the next call runs just those again."""
    study(stage, "import pathlib\nassert label != 'b' or pathlib.Path('mended').exists(), 'not yet'")
    said = stage.error("sweep", "study.ipynb", "-p", "label=b,a", code=9, timeout=150)
    assert "1 of 2 runs failed" in said
    assert "AssertionError" in said
    assert [row["status"] for row in table(stage)] == ["failed", "ok"]
    (stage.folder / "mended").touch()
    assert "1 of 2 runs are done already" in stage.run("sweep", "study.ipynb", "-p", "label=b,a", timeout=100).stderr
    assert [row["status"] for row in table(stage)] == ["ok"] * 2
    stage.assert_nothing_left()


@pytest.mark.long
def test_another_notebook(stage: Stage) -> None:
    """Runs of a notebook that has changed since are not mixed with new ones, unless all is run again."""
    study(stage)
    stage.run("sweep", "study.ipynb", timeout=100)
    study(stage, "pass")
    assert "the runs in it are of another notebook" in stage.error("sweep", "study.ipynb", code=9)
    stage.run("sweep", "study.ipynb", "--fresh", timeout=100)
    assert len(stage.json("log", "--kind", "run", "--json")) == 2


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_ended(stage: Stage, number: int) -> None:
    """After a kill or Ctrl-C the same command finishes: what was done stays, no run goes on beside itself, nothing is left."""
    gate = stage.folder / "gate"
    waiting = f"import pathlib, time\nwhile label == 'b' and not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.05)"
    study(stage, waiting)
    process = stage.start("sweep", "study.ipynb", "-p", "label=a,b")
    runs = stage.folder / "out" / "study-sweep" / "runs"
    eventually(lambda: "[1/4]" in _text(runs / "label=b,r1" / "log.txt"), "the second run has begun", within=150)
    os.kill(process.pid, number)
    process.communicate(timeout=90)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    if number == signal.SIGINT:
        stage.assert_nothing_left()
    first = json.loads((runs / "label=a,r1" / "run.json").read_text())
    second = stage.start("sweep", "study.ipynb", "-p", "label=a,b")
    gate.touch()
    _, said = second.communicate(timeout=200)
    assert second.returncode == 0, said
    assert [row["status"] for row in table(stage)] == ["ok", "ok"]
    assert json.loads((runs / "label=a,r1" / "run.json").read_text()) == first
    stage.assert_nothing_left()


def _text(path) -> str:
    return path.read_text() if path.exists() else ""
