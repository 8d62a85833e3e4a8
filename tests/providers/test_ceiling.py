"""What the relay carries is measured, and a plan says where a file asks for more."""

import pytest

from wardian.experiment.resources import Resource
from wardian.providers.local import ceiling, limits, shaping


@pytest.fixture
def bare_kernel(monkeypatch):
    """A kernel without netem and without any discipline but the plain ones."""
    monkeypatch.setattr(shaping, "netem_available", lambda: False)
    monkeypatch.setattr(shaping, "qdisc_available", lambda kind: False)


def link(name, **shape):
    return Resource("link", name, {"networks": ["a", "b"], "there": shape, "back": {}})


def said(links, state):
    return [str(caveat) for caveat in limits.caveats(links, state)]


def test_what_fits_is_told_once(bare_kernel, tmp_path):
    """Links that need the relay are named together, with what it is good for; those that do not are not."""
    (words,) = said([link("x", delay=0.01, rate=10**8), link("y", delay=0.02), link("z", rate=10**9)], tmp_path)
    assert words.startswith("link x, y: delay: this kernel has no netem; a user-space relay, good for about 300 Mbit/s")


def test_a_rate_beyond_the_ceiling(bare_kernel, tmp_path):
    """A link that asks for more than the relay carries is named with both numbers, also where a trace does."""
    trace = {"file": "t", "repeat": True, "length": 2.0, "steps": [[0.0, {"rate": 10**6}], [1.0, {"rate": 2 * 10**9}]]}
    words = said([link("x", loss=0.1, rate=10**9), link("y", delay=0.1, trace=trace)], tmp_path)
    assert "link x: rate: 1gbit is more than the relay carries; what it carries, about 300 Mbit/s or 40,000 frames a second in all" in words
    assert any(line.startswith("link y: rate: 2gbit is more") for line in words)


def test_rates_that_are_too_much_together(bare_kernel, tmp_path):
    """Links each of which fits, and which do not fit together, are named with their sum."""
    words = said([link(name, delay=0.01, rate=2 * 10**8) for name in ("x", "y")], tmp_path)
    assert any(line.startswith("link x, link y: rate: if all are full at once, 400mbit are more than the relay carries") for line in words)


def test_a_discipline_that_the_kernel_lacks(bare_kernel, tmp_path):
    """It is told what stands in."""
    words = said([link("x", rate=10**6, queue={"discipline": "codel"})], tmp_path)
    assert words == ["link x: queue: this kernel has no codel; first in, first out, in a queue of the same length"]


@pytest.mark.root
def test_the_ceiling_is_measured_and_kept(tmp_path):
    """A measurement gives what a relay really carried, plans then tell that, and nothing of it is left running."""
    assert ceiling.known(tmp_path) == ceiling.TYPICAL
    found = ceiling.measure(tmp_path)
    assert found.rate > 1e6
    assert found.frames > 100
    assert ceiling.known(tmp_path) == found
    assert "about" not in str(found)
