"""Segments where the kernel has netem and every discipline. Skipped where it has not; `tests/test_guest.py` runs them on one that has."""

import json
import os
import statistics
import threading

import pytest

from wardian.providers.local import netlink, processes, relays, shaping
from wardian.providers.local.shaping import Segment

from .fabrics import PORT, Fabric, drain, one_way

A, B = "10.74.0.1", "10.74.0.2"

pytestmark = pytest.mark.root


@pytest.fixture
def fabric():
    if not shaping.netem_available():
        pytest.skip("this kernel has no netem")
    fabric = Fabric()
    fabric.bridge("net")
    fabric.node("a", A)
    fabric.node("b", B)
    yield fabric
    fabric.close()


def access(there=None, back=None, **more):
    return Segment("a/net", "a", far_bridge="net", there=there or {}, back=back or {}, **more)


OPEN = Segment("b/net", "b", far_bridge="net")

SHAPES = [
    {"delay": 0.02},
    {"delay": 0.02, "jitter": 0.005},
    {"delay": 0.02, "jitter": 0.005, "distribution": "pareto"},
    {"loss": 0.05},
    {"loss": 0.05, "loss_burst": 4.0},
    {"delay": 0.02, "duplicate": 0.1, "reorder": 0.25},
    {"rate": 10**7, "queue": {"discipline": "codel"}},
    {"rate": 10**7, "queue": {"packets": 50, "discipline": "fq_codel"}, "delay": 0.01},
    {"rate": 10**7, "queue": {"bytes": 64000, "discipline": "pie"}},
    {"rate": 10**7, "queue": {"packets": 50}},
    {"rate": 10**7},
    {},
]


def numbers(fabric, count, gap=0.002):
    """The numbers of datagrams that came to b, in order, of so many that a sent ten at a time."""
    with fabric.udp("a") as a, fabric.udp("b") as b:
        one_way(b, a, A, 2)
        for number in range(count):
            a.sendto(number.to_bytes(8, "big"), (B, PORT))
            if number % 10 == 0:
                threading.Event().wait(gap)
        return [int.from_bytes(data, "big") for _, data in drain(b)]


@pytest.mark.parametrize("far", ["bridge", "port"])
def test_every_shape_is_read_back(fabric, far):
    """From each shape to the next, the kernel has what is asked for, and asking again changes nothing."""
    for shape in SHAPES:
        segments = [Segment("wan", "a", far_port="b", there=shape, back=shape)] if far == "port" else [access(shape, shape), OPEN]
        for _ in range(2):
            fabric.apply(*segments, netem=None)
            assert shaping.differences(fabric.fd, segments) == {}
        assert numbers(fabric, 30)


def test_delay_and_jitter(fabric):
    """Nothing is earlier than its delay without jitter, and delays vary with it, in the direction that has it."""
    fabric.apply(access({"delay": 0.05}, {"delay": 0.01}), OPEN, netem=None)
    with fabric.udp("a") as a, fabric.udp("b") as b:
        one_way(a, b, B, 2)
        steady, back = one_way(a, b, B), one_way(b, a, A)
        fabric.apply(access({"delay": 0.05, "jitter": 0.04, "distribution": "normal"}, {"delay": 0.01}), OPEN, netem=None)
        varied = one_way(a, b, B, 100)
    assert steady[0] >= 0.05
    assert 0.01 <= back[0] < steady[0]
    assert varied[10] < 0.05
    assert statistics.median(varied) == pytest.approx(statistics.median(steady), abs=0.02)
    assert varied[90] - varied[10] > 0.04


def test_losses_in_bursts(fabric):
    """The share lost is as written, and losses come in a row as long as written on average."""
    fabric.apply(access({"loss": 0.1, "loss_burst": 5.0}), OPEN, netem=None)
    count = 6000
    there = set(numbers(fabric, count))
    runs, length = [], 0
    for number in range(count):
        if number not in there:
            length += 1
        elif length:
            runs.append(length)
            length = 0
    assert 1 - len(there) / count == pytest.approx(0.1, abs=0.04)
    assert statistics.mean(runs) == pytest.approx(5, rel=0.3)


def test_copies_and_those_that_overtake(fabric):
    """So many come twice, and so many come before some that were sent earlier."""
    fabric.apply(access({"delay": 0.03, "duplicate": 0.1, "reorder": 0.2}), OPEN, netem=None)
    count = 4000
    came = numbers(fabric, count)
    assert len(set(came)) == count
    assert len(came) - count == pytest.approx(0.1 * count, rel=0.3)
    assert came != sorted(came)


def test_a_trace_is_played(fabric, tmp_path):
    """The player has the kernel follow a trace of delays and rates, and ends when there is none."""
    trace = {"repeat": False, "length": 1e6, "steps": [[0.0, {"delay": 0.2, "rate": 10**6}], [1.0, {"delay": 0.01, "rate": 10**7}]]}

    def serve(*segments):
        return relays.serve(
            tmp_path, fabric.fd, netns=f"/proc/{os.getpid()}/fd/{fabric.fd}", seed="fern", variables=dict(os.environ), segments=segments
        )

    segment = access({"trace": trace}, began=0.0)
    fabric.apply(segment, OPEN, netem=None)
    pids = serve(segment)
    try:
        assert json.loads((tmp_path / "player.json").read_text())["segments"][0]["id"] == "a/net"
        assert shaping.differences(fabric.fd, [segment]) == {}
        with netlink.Netlink.into(fabric.fd) as net:
            # what it does not look after it does not touch
            assert {qdisc.kind for qdisc in net.qdiscs()} >= {"tbf", "netem", "bfifo"}
        with fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(a, b, B, 2)
            assert 0.01 <= one_way(a, b, B, 10)[0] < 0.2
        assert serve() == []
    finally:
        processes.end(processes.running([known for known in [relays.PLAYER.identity(tmp_path)] if known]))
    assert len(pids) == 1
