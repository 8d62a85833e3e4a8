"""What may stand at a link, and what every two networks of a matrix get."""

from __future__ import annotations

import pytest

from wardian.errors import ExperimentFileError, PlanError
from wardian.experiment import file, tables
from wardian.experiment.plan import reconcile
from wardian.experiment.resources import Observed, ObservedResource, Resource
from wardian.experiment.topology import expand

SITES = "name: t\nnetworks: [a, b, c]\nnodes: {n: {networks: [a]}, m: {networks: [c]}}\nlinks:\n  wan: "


def resources(text: str, read: tables.Tables | None = None) -> dict[tuple[str, str], dict]:
    return {(item.kind, item.name): dict(item.spec) for item in expand(file.loads(text), tables=read)}


@pytest.mark.parametrize(
    ("shape", "field", "expected"),
    [
        ("{jitter: 2ms}", "jitter", "a delay beside the jitter"),
        ("{delay: 2ms, distribution: normal}", "distribution", "a jitter beside"),
        ("{reorder: 1%}", "reorder", "a delay beside the reorder"),
        ("{loss_burst: 3}", "loss_burst", "a loss beside"),
        ("{loss: 90%, loss_burst: 3}", "loss_burst", "at least 9"),
        ("{back: {loss: 90%, loss_burst: 3}}", "back.loss_burst", "at least 9"),
        ("{loss: 1%, loss_burst: 0.5}", "loss_burst", "at least 1"),
        ("{delay: 1ms, jitter: 1ms, distribution: gauss}", "distribution", "'uniform'"),
        ("{rate: 1mbit, queue: coddle}", "queue", "codel"),
        ("{rate: 1mbit, queue: {discipline: fifo}}", "queue", "either packets or bytes"),
        ("{mtu: 20}", "mtu", "at least 68"),
        ("{there: {queue: 5}}", "there.queue", "a rate beside the queue"),
    ],
)
def test_parts_that_do_not_fit(shape: str, field: str, expected: str) -> None:
    """A part without what it needs, or with a value that cannot be, is named with what was expected."""
    text = f"name: t\nnetworks: [a, b]\nnodes: {{n: {{networks: [a]}}}}\nlinks: {{wan: {{between: [a, b], {shape[1:]}}}\n"
    with pytest.raises(ExperimentFileError) as caught:
        file.loads(text)
    (problem,) = caught.value.problems
    assert problem.field == f"links.wan.{field}"
    assert problem.line == 4
    assert expected in str(problem)


def test_a_common_part_serves_the_direction_that_has_what_it_needs() -> None:
    """A jitter with a delay for one direction alone is that direction's."""
    made = file.loads(
        "name: t\nnetworks: [a, b]\nnodes: {n: {networks: [a]}}\nlinks: {w: {between: [a, b], jitter: 1ms, back: {delay: 5ms}}}"
    )
    assert made.links["w"].directions() == ({}, {"delay": 0.005, "jitter": 0.001})


def test_a_matrix_makes_a_link_of_every_two() -> None:
    """Each pair has its delay, both ways where only one is written, and the parts that are common."""
    found = resources(SITES + "{among: [a, b, c], delays: {a: {b: 10ms, c: 30ms}, c: {b: 5ms, a: 40ms}}, rate: 1mbit}")
    links = {
        name: (spec["networks"], spec["there"]["delay"], spec["back"]["delay"]) for (kind, name), spec in found.items() if kind == "link"
    }
    assert links == {
        "wan-a-b": (["a", "b"], 0.01, 0.01),
        "wan-a-c": (["a", "c"], 0.03, 0.04),
        "wan-b-c": (["b", "c"], 0.005, 0.005),
    }
    assert all(spec["there"]["rate"] == 10**6 for (kind, _), spec in found.items() if kind == "link")


def test_a_matrix_is_taken_by_its_word() -> None:
    """What goes between two networks of a matrix takes their own link, even where a detour is faster."""
    found = resources(SITES + "{among: [a, b, c], delays: {a: {b: 1ms, c: 90ms}, b: {c: 1ms}}}")
    routes = {route["to"]: route["link"] for route in found["network", "a"]["routes"]}
    assert routes[found["network", "c"]["subnet"]] == "wan-a-c"


def test_a_matrix_from_a_file() -> None:
    """Delays that were read from a file count as those written."""
    found = resources(SITES + "{among: [a, b], delays: m.csv}", {"m.csv": {"b": {"a": 0.07}}})
    assert found["link", "wan-a-b"]["there"] == {"delay": 0.07}


@pytest.mark.parametrize(
    ("link", "field", "expected"),
    [
        ("{}", "", "the two networks"),
        ("{between: [a, b], among: [a, c]}", "among", "either between or among"),
        ("{between: [a, b], delays: {a: {b: 1ms}}}", "delays", "`among`"),
        ("{among: [a]}", "among", "two or more"),
        ("{among: [a, b, a]}", "among", "each network once"),
        ("{among: [a, b, d], delay: 1ms}", "among[2]", "no network is called 'd'"),
        ("{among: [a, b, c], delays: {a: {b: 1ms}}}", "delays", "says nothing of a and c and 1 more pairs"),
        ("{among: [a, b], delays: {a: {x: 1ms}, b: {a: 1ms}}}", "delays.a.x", "is called 'x'"),
        ("{among: [a, b], delays: {a: {b: 1}}}", "delays.a.b", "a duration"),
        ("{among: [a, b], delays: [5]}", "delays", "CSV file"),
        ("{among: [a, b], delays: {a: 5ms}}", "delays.a", "CSV file"),
    ],
)
def test_wrong_ends(link: str, field: str, expected: str) -> None:
    """What is wrong with the networks of a link is named with its place."""
    with pytest.raises(ExperimentFileError) as caught:
        file.loads(SITES + link)
    problem = caught.value.problems[0]
    assert problem.field == f"links.wan.{field}".rstrip(".")
    assert expected in str(problem)


def test_two_links_between_the_same_networks() -> None:
    """A pair of a matrix and a link of its own are one too many."""
    with pytest.raises(ExperimentFileError, match="joins the same two networks as link wan-a-b"):
        file.loads(SITES + "{among: [a, b]}\n  own: {between: [b, a]}")


def test_a_trace_comes_with_its_steps() -> None:
    """A resource holds all that its trace says, and one that was not read is an error."""
    text = SITES + "{between: [a, c], rate: 1mbit, queue: 50, there: {trace: t.csv}}"
    trace = tables.parse_trace("time,rate\n0,1mbit\n2,2mbit\n", "t.csv")
    spec = resources(text, {"t.csv": trace})["link", "wan"]
    steps = [[0.0, {"rate": 10**6}], [2.0, {"rate": 2 * 10**6}]]
    assert spec["there"]["trace"] == {"file": "t.csv", "repeat": True, "length": 4.0, "steps": steps}
    assert "trace" not in spec["back"]
    with pytest.raises(PlanError, match=r"t\.csv was not read"):
        resources(text)


def test_a_part_beside_a_trace_may_lack_what_the_trace_has() -> None:
    """Whether a queue has its rate is the trace's matter."""
    spec = resources(SITES + "{between: [a, c], queue: 50, trace: t.csv}", {"t.csv": tables.parse_trace("time,rate\n0,1mbit\n", "t.csv")})
    assert spec["link", "wan"]["there"]["queue"] == {"packets": 50}


def test_an_mtu_of_a_network_is_that_of_its_members() -> None:
    """It stands at the network and at each member's access link, which may have its own; where none is written nothing changes."""
    found = resources("name: t\nnetworks: {x: {mtu: 9000}}\nnodes: {n: , m: {networks: {x: {mtu: 1400}}}}")
    assert found["network", "x"]["mtu"] == 9000
    assert (found["access", "n/x"]["mtu"], found["access", "m/x"]["mtu"]) == (9000, 1400)
    assert not [key for key in resources("name: t\nnodes: {n: {}}") if key[0] == "access"]


def test_plans_say_what_changes_of_a_shape() -> None:
    """Every part of a shape is told in words people use."""
    before = {"networks": ["a", "c"], "there": {}, "back": {}}
    trace = {"file": "t.csv", "repeat": False, "length": 4.0, "steps": [[0.0, {"loss": 0.1}]]}
    shape = {"delay": 0.01, "jitter": 0.001, "distribution": "normal", "loss": 0.01, "loss_burst": 2.5, "duplicate": 0.02, "reorder": 0.03,
             "rate": 10**6, "queue": {"bytes": 2048, "discipline": "codel"}, "trace": trace}  # fmt: skip
    observed = Observed.collect(None, [ObservedResource("link", "wan", before)])
    text = str(reconcile([Resource("link", "wan", {**before, "there": shape, "mtu": 1400})], observed))
    for words in (
        "jitter none -> 1ms", "distribution none -> normal", "loss_burst none -> 2.5", "duplicate none -> 2%", "reorder none -> 3%",
        "queue none -> codel 2KiB", "trace none -> t.csv (4 s, 1 steps, once)", "mtu none -> 1400",
    ):  # fmt: skip
        assert words in text
