"""What `verify` expects, which nodes it has measure, and when it calls a result wrong."""

import math
import random
import socket
import sys

import pytest

from wardian.environment.verify import measure, paths, probe, report
from wardian.environment.verify.probe import SLOT, Inbox, ManyInbox, Train, inbox_of, summary
from wardian.environment.verify.report import Check, Report, interval, packets_for
from wardian.experiment import file, routes
from wardian.experiment.resources import Observed, ObservedResource
from wardian.experiment.topology import expand

WIDE = """
name: t
networks: {east: {delay: 2ms}, west: , south: }
links:
  wan: {between: [east, west], delay: 30ms, loss: 1%, rate: 100mbit, queue: 50, there: {rate: 10mbit}}
nodes:
  server: {networks: [east]}
  client: {count: 3, networks: {west: {delay: 5ms, loss: 2%, mtu: 1400}}}
  router: {networks: [west, south], routes: yes}
  far: {networks: {south: {jitter: 3ms, delay: 10ms, up: {rate: 1mbit, queue: codel}}}}
"""


def observed(text):
    desired = expand(file.loads(text))
    return Observed.collect(None, [ObservedResource(item.kind, item.name, item.spec) for item in desired]).resources


def way(resources, source, target):
    return [str(stretch) for stretch in routes.path(resources, source, target)]


def test_paths_over_a_link_and_through_a_node():
    """Packets cross their access links, the link in its direction, and both sides of a node that routes."""
    resources = observed(WIDE)
    assert way(resources, "server", "client[1]") == ["server/east up", "wan there", "client[1]/west down"]
    assert way(resources, "client[1]", "server") == ["client[1]/west up", "wan back", "server/east down"]
    assert way(resources, "client[0]", "client[2]") == ["client[0]/west up", "client[2]/west down"]
    assert way(resources, "server", "far") == [
        "server/east up", "wan there", "router/west down", "router/south up", "far/south down"
    ]  # fmt: skip
    assert way(resources, "far", "server") == [
        "far/south up", "router/south down", "router/west up", "wan back", "server/east down"
    ]  # fmt: skip


def test_no_path_between_networks_that_nothing_joins():
    """Where nothing leads there is no path, and no pair to be measured."""
    resources = observed("name: t\nnetworks: [x, y]\nnodes: {a: {networks: [x]}, b: {networks: [y]}}")
    assert routes.path(resources, "a", "b") is None
    assert paths.cover(resources, [("access", "a/x")]) == []


@pytest.mark.parametrize("gone", [("link", "wan"), ("network", "west"), ("network", "east")])
def test_no_path_over_what_is_gone(gone):
    """Where a link or network has been removed and others still lead there, there is no path."""
    resources = {key: item for key, item in observed(WIDE).items() if key != gone}
    assert routes.path(resources, "server", "client[0]") is None


def test_what_a_path_does_is_what_its_stretches_do_together():
    """Delays add up, losses compound, the slowest rate counts with its queue, the smallest MTU too."""
    resources = observed(WIDE)
    shapes = paths.shapes_of(resources.values())
    there = paths.expected(routes.path(resources, "server", "client[0]"), shapes)
    assert there.delay == pytest.approx(0.001 + 0.03 + 0.005)
    assert there.loss == pytest.approx(1 - 0.99 * 0.98)
    assert (there.rate, there.queue, there.mtu, there.jitter) == (10**7, {"packets": 50}, 1400, 0.0)
    assert there.lost_before == 0.0
    after = paths.expected(routes.path(resources, "client[0]", "server"), shapes)
    assert (after.rate, after.lost_before) == (10**8, pytest.approx(0.02))
    back = paths.expected(routes.path(resources, "far", "server"), shapes)
    assert (back.rate, back.queue, back.mtu) == (10**6, {"discipline": "codel"}, None)
    assert (back.jitter, back.distribution) == (0.003, "uniform")
    assert back.deviation == pytest.approx(0.003 / math.sqrt(3))


def test_a_trace_may_be_slower_than_what_is_written():
    """Packets are paced for the lowest rate of a trace, also where no other rate is written."""
    resources = observed(WIDE)
    shapes = {key: {"there": {}, "back": {}} for key in paths.shapes_of(resources.values())}
    shapes["link", "wan"]["there"] = {"trace": {"steps": [(0, {"rate": 5e6}), (1, {"rate": 1e6})]}}
    there = paths.expected(routes.path(resources, "server", "client[0]"), shapes)
    assert (there.rate, there.slowest, there.traced) == (None, 1e6, {"rate"})


def test_few_pairs_show_every_link():
    """The pairs chosen cross all that is written, and are not more than it takes."""
    resources = observed(WIDE)
    wanted = list(paths.shapes_of(resources.values()))
    pairs = paths.cover(resources, wanted)
    crossed = {stretch.key for pair in pairs for nodes in (pair, pair[::-1]) for stretch in routes.path(resources, *nodes)}
    assert set(wanted) <= crossed
    assert len(pairs) == 3


def test_large_environments_are_not_measured_by_every_pair():
    """With many nodes each is paired with the first of each network only."""
    resources = observed(
        "name: t\nnetworks: [x, y]\nlinks: {w: {between: [x, y]}}\nnodes: {a: {count: 50, networks: [x]}, b: {count: 50, networks: [y]}}"
    )
    assert len(paths.candidates(resources)) < 300


@pytest.mark.parametrize(("count", "share", "dispersion"), [(200, 0.05, 1.0), (5000, 0.002, 1.0), (50_000, 0.01, 1.0)])
def test_an_interval_holds_99_of_100(count, share, dispersion):
    """Of many counts of independent losses as many fall outside as the confidence leaves."""
    generator = random.Random(7)
    low, high = interval(count, share, dispersion)
    deviation = math.sqrt(count * share * (1 - share))
    outside = 0
    for _ in range(2000):
        # the sum of so many draws, by its limit where they are too many to draw
        lost = sum(generator.random() < share for _ in range(count)) if count <= 200 else round(generator.gauss(count * share, deviation))
        outside += not low <= lost / count <= high
    assert outside <= 40
    assert low < share < high


def test_intervals_of_bursts_are_wider():
    """Losses in a row make counts vary more, by what Gilbert's model says; nothing and everything leave no room."""
    shape = {"loss": 0.1, "loss_burst": 5}
    dispersion = paths.dispersion(shape)
    generator, counts = random.Random(3), []
    begin, end = 0.1 * 0.2 / 0.9, 0.2
    for _ in range(400):
        lost, bad = 0, generator.random() < 0.1
        for _ in range(1000):
            lost += bad
            bad = generator.random() >= end if bad else generator.random() < begin
        counts.append(lost)
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert dispersion == pytest.approx(variance / (1000 * 0.1 * 0.9), rel=0.3)
    narrow, wide = interval(1000, 0.1), interval(1000, 0.1, dispersion)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert interval(100, 0.0) == (0.0, 0.0)
    assert interval(100, 1.0) == (1.0, 1.0)


def test_packets_for_a_share():
    """The rarer losses are, the more packets they take, and bursts take more still."""
    assert packets_for(0.01) == pytest.approx(10_500, rel=0.05)
    assert packets_for(0.001) > 9 * packets_for(0.01)
    assert packets_for(0.01, 3.0) == pytest.approx(3 * packets_for(0.01), rel=0.01)
    assert packets_for(0.0) == 2000


def test_delay_bounds_are_a_millisecond_or_three_per_cent():
    """Whichever is more, and what a jitter leaves uncertain on top."""
    assert report.delay_bounds(0.01, 0.0, 50) == pytest.approx((0.009, 0.011))
    assert report.delay_bounds(0.1, 0.0, 50) == pytest.approx((0.097, 0.103))
    assert report.delay_bounds(0.0001, 0.0, 50)[0] == 0.0
    assert report.delay_bounds(0.1, 0.01, 100)[1] == pytest.approx(0.103 + 0.0025758)


def test_a_train_knows_copies_and_those_that_overtook():
    """A packet overtakes when one that was sent before it comes after it; a copy counts once."""
    train = Train()
    for moment, number in enumerate([0, 1, 4, 2, 3, 3, 5]):
        train.add(number, number, 0.01, 0.0, float(moment), 64)
    found = train.statistics()
    assert (found["count"], found["unique"], found["overtook"]) == (7, 6, 1)


def test_quartiles():
    """A summary has the quartiles of its values, and nothing of none."""
    assert summary(range(101)) == {"count": 101, "mean": 50.0, "least": 0, "lower": 25, "median": 50, "upper": 75, "most": 100}
    assert summary([])["median"] is None


def example(*, ok=True):
    checks = [
        Check("a", "b", ("wan there",), "delay", 0.03, 0.0302, 0.029, 0.031, 50, True),
        Check("a", "b", ("wan there",), "loss", 0.01, 0.02 if not ok else 0.01, 0.008, 0.012, 9000, ok),
        Check("b", "a", ("wan back",), "rate", 10**7, None, note="too little was offered"),
    ]
    return Report("t-1", tuple(checks), ("wan",), 0.0, 3.2)


def test_a_report_for_people_and_for_scripts():
    """Its text is a table with verdicts and one line of counts; its JSON has all of it."""
    good, bad = example(), example(ok=False)
    assert (good.ok, bad.ok) == (True, False)
    assert [check.what for check in bad.failed] == ["loss"]
    lines = bad.text().splitlines()
    assert " ".join(lines[1].split()) == "a -> b wan there delay 30.00 ms 30.20 ms 29.00 ms … 31.00 ms 50 ok"
    assert "FAILED" in lines[2]
    assert "?: too little was offered" in lines[3]
    assert bad.summary() == "1 as written, 1 not, 1 undecided, in 3 s (wan: changed since `up`)"
    assert bad.to_json()["checks"][1]["measured"] == 0.02
    assert bad.to_json()["ok"] is False


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_figure_is_drawn(tmp_path, ending):
    """A figure is written in the format that its name says."""
    pytest.importorskip("matplotlib")
    path = tmp_path / f"links.{ending}"
    example().figure(str(path))
    assert path.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")


@pytest.mark.parametrize("kind", [Inbox, ManyInbox])
def test_packets_are_taken_singly_or_together(kind):
    """What comes is taken whole and in order, each with who sent it, by the plain call and by the one that takes many."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
    ):
        for each in (target, first, second):
            each.bind(("127.0.0.1", 0))
        sent = [((first, second)[number % 2], random.Random(number).randbytes(1 + 29 * number)) for number in range(50)]
        for source, packet in sent:
            source.sendto(packet, target.getsockname())
        inbox, came = kind(target), []
        while len(came) < len(sent):
            for slot, size in enumerate(inbox.wait()):
                came.append((inbox.sender(slot), bytes(inbox.buffer[slot * SLOT : slot * SLOT + size])))
        assert came == [(source.getsockname(), packet) for source, packet in sent]


def test_without_ctypes_packets_are_taken_singly(monkeypatch):
    """A node whose Python lacks ctypes has a probe all the same."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        assert type(inbox_of(target)) is Inbox


class SlowClock:
    """Time in which a sleep lasts as long as it is to last, but for the tenth."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, 0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.now += seconds + (self.slept == 10)


def test_pauses_of_a_flood_are_told(monkeypatch):
    """A sender that was held up for longer than the queue lasts says for how long that could be empty."""
    flooding = probe.Probe("127.0.0.1")
    monkeypatch.setattr(probe, "time", SlowClock())
    train = {"to": flooding.socket.getsockname(), "count": 100, "interval": 0.01, "size": 64, "echo": False, "linger": 0.0}
    assert flooding.send(1, **train, lasts=0.2)["missed"] == pytest.approx(0.81)
    assert flooding.send(2, **train, lasts=0.2)["missed"] == 0


class Told:
    """A probe on a path that carries two fifths of what the file says; as a sender it keeps to its pace."""

    address, port, clock = "10.0.0.1", 1, None

    async def ask(self, op, **asked):
        if op == "report":
            return {"there": {"rate": 2e6 * 1472 / 1514, "count": 500, "late_delay": None}, "overflows": 0}
        seconds = asked["count"] * asked["interval"]
        return {"sent": asked["count"], "seconds": seconds, "missed": asked["count"] * max(asked["interval"] - asked["lasts"], 0)}


@pytest.mark.parametrize("queue", [None, {"discipline": "codel"}, {"bytes": 64000}])
async def test_a_rate_that_is_not_there_fails(queue):
    """What does not come through is a failure, whatever queue is written, and not for the pace of who sends."""
    shape = {"rate": 5e6} | ({"queue": queue} if queue else {})
    expected = paths.expected([routes.Stretch("link", "wan", "there")], {("link", "wan"): {"there": shape}})
    way = measure.Direction("a", "b", (), expected)
    (check,) = await measure.Pair(Told(), Told(), way, way, 1.0)._flood(way, Told(), Told())
    assert (check.measured, check.ok) == (pytest.approx(2e6), False)


def test_shapes_one_after_the_other() -> None:
    """Delays add up, what is not lost goes on, and the slowest has the rate and its queue."""
    first = {
        "delay": 0.01,
        "loss": 0.1,
        "loss_burst": 4.0,
        "rate": 10**7,
        "queue": {"packets": 50},
        "jitter": 0.003,
        "distribution": "normal",
    }
    second = {"delay": 0.02, "loss": 0.5, "rate": 10**6, "jitter": 0.004, "distribution": "normal", "duplicate": 0.2}
    assert routes.together([first]) == first | {"loss": pytest.approx(0.1)}
    assert routes.together([first, {}, second]) == {
        "delay": pytest.approx(0.03),
        "loss": pytest.approx(0.55),
        "rate": 10**6,
        "jitter": pytest.approx(0.005),
        "distribution": "normal",
        "duplicate": pytest.approx(0.2),
    }
    assert routes.together([]) == {}
