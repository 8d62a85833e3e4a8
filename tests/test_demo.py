"""The demo experiment in `examples/video-qoe`: its file, its notebook, its server and its players, and the effect that it is about."""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import json
import statistics
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

from wardian.environment.sources import file_digests, load
from wardian.errors import ExperimentFileError
from wardian.experiment import selectors
from wardian.experiment.topology import members, references
from wardian.kernel.cells.binding import HOME, Binding, bind

DEMO = Path(__file__).parent.parent / "examples" / "video-qoe"
NOTEBOOK = nbformat.read(DEMO / "video-qoe.ipynb", as_version=4)
CELLS = {cell.id: cell for cell in NOTEBOOK.cells if cell.cell_type == "code"}
LADDER = [350_000, 700_000, 1_400_000, 2_400_000, 3_800_000, 5_600_000]


def code(cell: str) -> str:
    """The code of a cell, without its `%%on` line."""
    return bind(CELLS[cell].source, {}, None).code


@pytest.fixture(scope="module")
def player() -> dict[str, Any]:
    """What the cells with the algorithms and the player define."""
    names: dict[str, Any] = {}
    for cell in ("abr", "player"):
        exec(code(cell), names)
    return names


@pytest.fixture(scope="module")
def server() -> ModuleType:
    """The demo's server, as a module."""
    specification = importlib.util.spec_from_file_location("video_server", DEMO / "server.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def address(server: ModuleType) -> Iterator[tuple[str, int]]:
    """Where a server of 20 segments of half a second answers."""
    with server.Server("127.0.0.1", 0, server.Video(0.5, 20)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running.server_address
        running.shutdown()
        thread.join()


@dataclass
class Network:
    """A clock that stands still, and a network that moves it on: `rate(time)` bits a second."""

    rate: Callable[[float], float]
    sizes: list[list[int]]
    now: float = 0.0
    asked: list[int] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def fetch(self, level: int, number: int) -> None:
        self.asked.append(level)
        bits = 8.0 * self.sizes[level][number]
        while bits > 0:
            step = min(bits / self.rate(self.now), 0.01)
            bits -= step * self.rate(self.now)
            self.now += step


def watch(
    player: dict[str, Any], algorithm: str, rate: Callable[[float], float], segments: int = 60, capacity: float = 6.0
) -> list[dict[str, Any]]:
    """A session of one-second segments over a network of that rate."""
    sizes = [[bitrate // 8] * segments for bitrate in LADDER]
    network = Network(rate, sizes)
    state = player["State"](LADDER, sizes, 1.0, capacity)
    rows: list[dict[str, Any]] = player["play"](
        player["ALGORITHMS"][algorithm], state, segments, network.fetch, network.clock, network.sleep
    )
    return rows


# The experiment file


def test_the_experiment_is_two_sites_and_one_bottleneck() -> None:
    """The demo's file describes two networks joined by one link, which alone is shaped, and what it copies exists."""
    experiment = load(DEMO / "experiment.yaml")
    assert set(experiment.networks) == {"east", "west"}
    there, back = experiment.links["wan"].directions()
    assert there == back == {"delay": 0.03, "loss": 0.0005, "rate": 20e6, "queue": {"packets": 100}}
    assert list(experiment.links) == ["wan"]
    assert {name: list(node.networks or {}) for name, node in experiment.nodes.items()} == {
        "server": ["east"],
        "source": ["east"],
        "sink": ["west"],
        "client": ["west"],
    }
    assert not any(access.shape for node in experiment.nodes.values() for access in (node.networks or {}).values())
    assert set(file_digests(experiment, DEMO)) == {"server.py"}


def test_its_parameters_reach_the_link_and_the_group() -> None:
    """Every parameter of the demo is described, and sets what its name says."""
    experiment = load(
        DEMO / "experiment.yaml", {"clients": "5", "delay": "80ms", "loss": "1%", "rate": "50mbit", "queue": "64", "segment": "2"}
    )
    assert experiment.nodes["client"].count == 5
    assert experiment.links["wan"].directions()[0] == {"delay": 0.08, "loss": 0.01, "rate": 50e6, "queue": {"packets": 64}}
    assert experiment.services["video"].command[-1] == "2"
    assert all(parameter.description for parameter in experiment.parameters.values())


def test_one_player_alone_is_refused() -> None:
    """A bottleneck is shared by at least two players."""
    with pytest.raises(ExperimentFileError, match="at least 2"):
        load(DEMO / "experiment.yaml", {"clients": "1"})


# The notebook


def test_the_cells_are_bound_as_promised() -> None:
    """Players run on the clients, cross-traffic in the background on the source, and what is not listed here runs at home."""
    bindings = {name: bind(cell.source, {}, None).binding for name, cell in CELLS.items()}
    client = Binding(selector="client", source="line")
    assert {name: binding for name, binding in bindings.items() if binding != HOME} == {
        "round-trip": client,
        "capacity": Binding(selector="source", language="bash", source="line"),
        "abr": client,
        "connection": Binding(selector="client,source", source="line"),
        "player": client,
        "sessions": client,
        "without": client,
        "count-before": Binding(selector="sink", language="bash", source="line"),
        "cross": Binding(selector="source", background=True, job="cross", source="line"),
        "with": client,
        "count-after": Binding(selector="sink", language="bash", source="line"),
    }
    nodes = references(members(load(DEMO / "experiment.yaml")))
    assert all(selectors.resolve(binding.selector, nodes) for binding in bindings.values() if binding.selector)


def test_the_notebook_is_ready_to_run() -> None:
    """It is valid, has no outputs, asks for the Wardian kernel, and has one cell of parameters, none of them the experiment's."""
    nbformat.validate(NOTEBOOK)
    assert NOTEBOOK.metadata.kernelspec.name == "wardian"
    assert not any(cell.outputs or cell.execution_count for cell in CELLS.values())
    (parameters,) = (cell for cell in CELLS.values() if "parameters" in cell.metadata.get("tags", ()))
    values: dict[str, Any] = {}
    exec(parameters.source, values)
    assert {"algorithms", "video_seconds", "buffer_seconds", "cross_mbit", "cross_after"} <= values.keys()
    assert not values.keys() & load(DEMO / "experiment.yaml").parameters.keys()


# The server


def test_segments_have_the_sizes_of_the_manifest(address: tuple[str, int]) -> None:
    """One connection carries the manifest and segments, each as large as announced and around its bitrate's average."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request("GET", "/manifest.json")
    video = json.loads(connection.getresponse().read())
    socket = connection.sock
    assert (video["segment_seconds"], video["segments"], video["bitrates"]) == (0.5, 20, LADDER)
    for level, number in [(0, 0), (5, 19), (3, 7)]:
        connection.request("GET", f"/{level}/{number}")
        answer = connection.getresponse()
        assert (answer.status, len(answer.read())) == (200, video["sizes"][level][number])
    assert connection.sock is socket
    connection.close()
    for bitrate, sizes in zip(LADDER, video["sizes"], strict=True):
        assert statistics.mean(sizes) == pytest.approx(bitrate * 0.5 / 8, rel=0.1)
        assert min(sizes) < max(sizes)


@pytest.mark.parametrize(
    "path", ["/", "/6/0", "/0/20", "/-1/0", "/../server.py", "/meet/x", "/meet/x?of=0&within=1", "/meet/x?of=two&within=1"]
)
def test_what_is_not_there_is_not_found(address: tuple[str, int], path: str) -> None:
    """Any other request gets 404, and the connection goes on."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 404
    connection.request("GET", "/0/0")
    assert connection.getresponse().read()
    connection.close()


def test_a_meeting_begins_when_all_have_come(server: ModuleType) -> None:
    """Nobody goes on before the last has come, all do then, and a second meeting of that name waits anew."""
    meetings = server.Meetings()
    with ThreadPoolExecutor(3) as pool:
        for _ in range(2):
            early = [pool.submit(meetings.join, "start", 3, 20) for _ in range(2)]
            assert not any(future.done() for future in early)
            assert meetings.join("start", 3, 20)
            assert all(future.result(timeout=20) for future in early)
    assert not meetings.join("alone", 2, 0.01)


# The player and its algorithms


@pytest.mark.parametrize("algorithm", ["rate", "buffer", "mpc"])
def test_a_free_network_gives_the_best_picture(player: dict[str, Any], algorithm: str) -> None:
    """With far more than the highest bitrate, every algorithm reaches it, stays there and never stands still."""
    rows = watch(player, algorithm, lambda _: 50e6)
    assert {row["bitrate"] for row in rows[20:]} == {5.6}
    assert sum(row["stall"] for row in rows) == 0


@pytest.mark.parametrize("algorithm", ["rate", "buffer", "mpc"])
def test_every_algorithm_gives_way(player: dict[str, Any], algorithm: str) -> None:
    """When the network falls to a fifth, every algorithm settles at what it then carries, and the picture goes on but for a moment."""
    rows = watch(player, algorithm, lambda time: 8e6 if time < 30 else 1.6e6, segments=100)
    before = [row["bitrate"] for row in rows if 15 < row["asked"] < 30]
    after = [row for row in rows if row["asked"] > 50]
    assert statistics.mean(before) > 3.5
    assert 0.7 <= statistics.mean(row["bitrate"] for row in after) <= 1.8
    assert sum(row["stall"] for row in after) < 1


def test_standstill_is_what_the_buffer_cannot_cover(player: dict[str, Any]) -> None:
    """With segments of a second that take two to come, playback begins with the second and stands still one second for each later one."""
    rows = watch(player, "rate", lambda _: LADDER[0] / 2, segments=6)
    assert [row["came"] for row in rows] == pytest.approx([2, 4, 6, 8, 10, 12])
    assert [row["stall"] for row in rows] == pytest.approx([0, 0, 0, 1, 1, 1])
    assert [row["buffer"] for row in rows] == pytest.approx([1, 2, 1, 1, 1, 1])


@pytest.mark.parametrize("algorithm", ["rate", "buffer", "mpc"])
def test_a_full_buffer_makes_the_player_wait(player: dict[str, Any], algorithm: str) -> None:
    """The buffer never holds more than it can, and a session goes no faster than the video plays."""
    rows = watch(player, algorithm, lambda _: 100e6, capacity=4.0)
    assert max(row["buffer"] for row in rows) <= 4.0 + 1e-9
    assert rows[-1]["came"] >= len(rows) - 4.0


def test_rate_is_not_misled_by_one_fast_segment(player: dict[str, Any]) -> None:
    """The harmonic mean leans to the slow: one outlier upwards changes little, one downwards much."""
    state = player["State"](LADDER, [[1] * 9] * 6, 1.0, 6.0, throughputs=[3e6, 3e6, 3e6, 3e6, 100e6])
    assert LADDER[player["rate_based"](state)] == 2_400_000
    state.throughputs[-1] = 0.3e6
    assert LADDER[player["rate_based"](state)] == 700_000


def test_buffer_follows_the_line_of_bba(player: dict[str, Any]) -> None:
    """BBA-0: lowest within the reservoir, highest when full, and between them unchanged until the line crosses a neighbour."""
    state = player["State"](LADDER, [[1] * 9] * 6, 1.0, 9.0, throughputs=[1.0])  # reservoir until 3 s, full from 7.2 s
    chosen = []
    for seconds in (0.0, 3.0, 3.5, 5.0, 5.2, 7.2, 7.1, 6.0, 5.0, 3.1):
        state.buffer = seconds
        state.level = player["buffer_based"](state)
        chosen.append(state.level)
    assert chosen == [0, 0, 1, 3, 3, 5, 5, 5, 4, 1]


def test_mpc_makes_the_first_step_of_the_best_plan(player: dict[str, Any]) -> None:
    """RobustMPC chooses what trying every plan of the horizon would."""
    sizes = [[round(bitrate / 8 * (1 + 0.15 * (-1) ** number)) for number in range(10)] for bitrate in LADDER]

    def worth(plan: tuple[int, ...], buffer: float, before: int, rate: float) -> float:
        total = 0.0
        for number, level in enumerate(plan, start=2):
            loading = 8 * sizes[level][number] / rate
            total += LADDER[level] - abs(LADDER[level] - LADDER[before]) - LADDER[-1] * max(loading - buffer, 0)
            buffer, before = min(max(buffer - loading, 0) + 1, 6), level
        return total

    for buffer, before, rate in itertools.product((0.5, 2.0, 4.5), (0, 3, 5), (0.5e6, 2e6, 4e6, 9e6)):
        state = player["State"](LADDER, sizes, 1.0, 6.0, buffer, 2, before, [rate] * 5)
        plans = itertools.product(range(6), repeat=player["HORIZON"])
        best = max(plans, key=lambda plan: worth(plan, buffer, before, rate))
        step = player["mpc"](state)
        rest = itertools.product(range(6), repeat=player["HORIZON"] - 1)
        assert max(worth((step, *plan), buffer, before, rate) for plan in rest) == pytest.approx(worth(best, buffer, before, rate))


def test_mpc_distrusts_its_prediction_after_an_error(player: dict[str, Any]) -> None:
    """The throughput that RobustMPC counts on is lower where the recent ones were hard to predict."""
    assert player["predicted"]([4e6] * 5) == pytest.approx(4e6)
    assert player["predicted"]([4e6, 4e6, 4e6, 4e6, 2e6]) < 0.75 * player["harmonic_mean"]([4e6, 4e6, 4e6, 4e6, 2e6])
