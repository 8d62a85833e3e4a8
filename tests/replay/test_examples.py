"""The examples: each runs on `local`, and replays on `docker` and, at length, there again, without an edit."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from wardian.replay.rows import rows_of

from .. import images
from ..engine import Daemon
from ..stage import Stage, make_stage, require

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

FOLDER = Path(__file__).parents[2] / "examples"
IMAGE = "wardian-test:examples"
PROGRAMS = {"video-qoe": "iperf3", "stress-energy": "stress-ng", "redis-replication": "redis-server"}
SMALL = {
    "video-qoe": {
        "clients": "2", "rate": "12mbit", "queue": "60", "segment": "0.5",
        "algorithms": '["rate"]', "video_seconds": "9", "cross_after": "1", "cross_mbit": "11",
    },
    "stress-energy": {"loads": "[10, 80]", "repeats": "2"},
    "redis-replication": {"writes": "15"},
}  # fmt: skip
"""Parameters with which they take seconds."""


def examples(name: str, *options: str, replayed: bool = True) -> Any:
    """The example's fixture: replayed on the other provider, and in the long tier where it ran, which tests of replay show, too.

    replayed: whether the quick tier replays it; else it only runs there, and the others show that examples replay.
    """
    given = [
        pytest.param((name, options, "docker"), id="docker", marks=() if replayed else pytest.mark.long),
        pytest.param((name, options, "local"), id="local", marks=pytest.mark.long),
    ]
    if not replayed:
        given.append(pytest.param((name, options, ""), id="once"))
    return pytest.mark.parametrize("example", given, indirect=True)


@dataclass
class Replayed:
    """An example that ran on `local` and was replayed on a provider, if on any: the folder it ran in, and what the replay says."""

    stage: Stage
    document: Any
    provider: str
    found: dict[str, Any]

    def text(self, cell: str) -> str:
        """What a cell of the recorded run printed."""
        return "".join(output.get("text", "") for item in self.document.cells if item.id == cell for output in item.outputs)

    def pictures(self) -> list[str]:
        """The cells of the recorded run that showed a figure."""
        return [cell.id for cell in self.document.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})]

    def bad(self) -> set[str]:
        """The cells that are neither identical nor equal."""
        return {item["cell"] for item in self.found["cells"] if item["verdict"] not in ("identical", "equal")}

    def environment(self) -> dict[str, tuple[str, str]]:
        """What differs between the environments."""
        return {item["what"]: (item["old"], item["new"]) for item in self.found["environment"]}


@pytest.fixture(scope="module")
def nodes(engine: Daemon) -> Daemon:
    """The Engine with an image that has what the examples use."""
    engine.load(IMAGE, images.for_examples())
    return engine


@pytest.fixture
def example(request: pytest.FixtureRequest, nodes: Daemon, tmp_path: Path) -> Iterator[Replayed]:
    """The example of that name, run once on `local` and, where a provider is named, replayed there."""
    name, options, provider = request.param
    require(PROGRAMS[name])
    stage = make_stage(tmp_path)
    stage.env |= {"DOCKER_HOST": nodes.address, "WARDIAN_DOCKER_IMAGE": IMAGE}
    for path in (FOLDER / name).iterdir():
        if path.is_file():
            shutil.copy(path, stage.folder)
    stage.edit(f"name: {name}", f"name: {stage.name}")
    notebook = f"{name}.ipynb"
    given = list(itertools.chain(*(("-p", f"{key}={value}") for key, value in SMALL[name].items())))
    try:
        stage.run("run", notebook, *options, *given, timeout=200)
        document = nbformat.read(stage.folder / "out" / notebook, as_version=4)
        found: dict[str, Any] = {"cells": []}
        if provider:
            done = stage.start("replay", notebook, "--provider", provider, "--json", *given)
            output, said = done.communicate(timeout=250)
            assert done.returncode in (0, 10), said
            found = json.loads(output)
            assert found["failed"] == []
            assert (done.returncode == 0) == (found["verdict"] in ("identical", "equal"))
        yield Replayed(stage, document, provider, found)
    finally:
        stage.run("down", "-e", "replay", "--force", "--no-collect")
        stage.close()


@examples("video-qoe")
def test_video(example: Replayed) -> None:
    """With cross-traffic the players' mean bitrate falls by far; on the other provider the link is the same, and what differs is named."""
    means: dict[str, list[float]] = {"without": [], "with": []}
    for path in example.stage.folder.glob(".wardian/collected/*/client*/tmp/video-qoe/*.csv"):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 18
        means[rows[0]["cross"]].append(statistics.mean(float(row["bitrate"]) for row in rows))
    # of two players in the run and its replay
    assert [len(values) for values in means.values()] == [4, 4]
    assert statistics.mean(means["with"]) < 0.8 * statistics.mean(means["without"])
    assert example.pictures() == ["figure-sessions", "figure-scores"]

    # what players of a few seconds make of it may differ, but neither the link nor anything that is computed
    assert example.bad() <= {"home", "bitrates"}
    differs = example.environment()
    if example.provider == "local":
        assert differs.keys() & {"provider", "experiment file"} == set()
        return
    assert differs["provider"] == ("local", "docker")
    digest = differs["node client[0:2], server, sink, source image: digest"]
    assert (digest[0], digest[1][:7]) == ("none", "sha256:")
    assert any(what.startswith("node client[0:2], server, sink, source packages.") for what in differs)
    assert not any(what.endswith(" kernel") or what.startswith("link") for what in differs)
    page = (example.stage.folder / "out" / "replay" / "video-qoe.html").read_text()
    assert "packages.dpkg</td>" in page
    assert digest[1] in page


@examples("stress-energy", replayed=False)
def test_stress(example: Replayed) -> None:
    """More load takes more CPU time, energy is there on all trials or on none, and only how busy the host let it be may differ."""
    rows = rows_of(example.document)
    assert sorted(row["load"] for row in rows) == [10, 10, 80, 80]
    used = {load: statistics.median(row["cpu"] for row in rows if row["load"] == load) for load in (10, 80)}
    assert used[10] < used[80]
    metered = {row["joules"] is not None for row in rows}
    assert metered == {"joules and CPU time" in example.text("meter")}
    assert example.pictures() == ["figure"]
    assert example.bad() <= {"busy"}


@examples("redis-replication", "--verify")
def test_redis(example: Replayed) -> None:
    """Waiting costs a round trip of the link and is in vain while it is cut; nothing is lost; links are measured in each run."""
    medians = {line.split()[0]: line for line in example.text("medians").splitlines()}
    took = {phase: [float(number) for number in re.findall(r"([0-9.]+) ms", line)] for phase, line in medians.items()}
    assert took["near"][1] >= 20
    assert took["far"][1] >= 60
    assert "0 of 2 replicas" in medians["split"]
    assert all("2 of 2 replicas" in medians[phase] for phase in ("near", "far", "healed"))
    (keys,) = set(re.findall(r"\d+ keys", example.text("lost") + example.text("copies")))
    assert keys != "0 keys"
    assert example.pictures() == ["figure"]
    assert example.bad() == set()
    for run in ("last", "last~1"):
        facts = {fact["name"]: fact["value"] for fact in example.stage.json("show", run, "--json")["facts"] if not fact["node"]}
        assert any(name.endswith("delay") and found["text"].endswith("ms") for name, found in facts["measured"].items())
    assert not any(what.startswith("measured") for what in example.environment())

    example.stage.run("report", "redis-replication.ipynb", "-o", "page.html")
    page = (example.stage.folder / "page.html").read_text()
    assert {
        name for name in ("client", "primary", "replica[0]", "replica[1]", "near", "far", "wan") if f">{name}</text>" not in page
    } == set()
    assert "partition client, primary | replica[0], replica[1]" in page
