"""The fidelity watch: what puts the numbers of a run in doubt, and that the journal says so."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from wardian.environment import fidelity
from wardian.environment.fidelity import Sample, Watch, causes

CALM = Sample(time=100.0, processors=1000.0, idle=500.0, waiting=10.0, stalled=1.0, relays={7: 50.0}, dropped=3)


def later(seconds=1.0, *, busy=0.5, waiting=0.0, stalled=0.0, relay=0.0, dropped=0, before=CALM):
    """A sample so many seconds later, on two processors."""
    return Sample(
        time=before.time + seconds,
        processors=before.processors + 2 * seconds,
        idle=before.idle + 2 * seconds * (1 - busy),
        waiting=before.waiting + waiting * seconds,
        stalled=before.stalled + stalled * seconds,
        relays={7: before.relays[7] + relay * seconds},
        dropped=before.dropped + dropped,
    )


def test_what_is_no_cause():
    """A host with time to spare, or busy without anybody waiting, is trusted."""
    assert causes(CALM, later(busy=0.94, waiting=1.0, stalled=0.05, relay=0.85)) == {}
    assert causes(CALM, later(busy=1.0, waiting=0.1)) == {}


def test_each_cause():
    """Processors that others wait for, memory, a relay at its end, and dropped packets are each a cause in words."""
    assert causes(CALM, later(busy=0.98, waiting=0.5)) == {"processors": "this host's processors were busy to 98%"}
    assert list(causes(CALM, later(stalled=0.2))) == ["memory"]
    assert causes(CALM, later(relay=0.97)) == {"relay 7": "the relay of the links used 97% of a processor"}
    assert causes(CALM, later(dropped=4)) == {"dropped": "this host dropped 4 packets outside of the experiment's queues"}


def test_without_pressure():
    """A kernel that does not tell who waits is judged by how busy it is."""
    before, after = (replace(item, waiting=None, stalled=None) for item in (CALM, later(busy=0.99)))
    assert list(causes(before, after)) == ["processors"]


def test_a_relay_that_came_later():
    """What a relay used before it was watched counts for nothing."""
    assert causes(replace(CALM, relays={}), later()) == {}


def test_doubts_span_their_samples():
    """Samples in a row make one doubt, from the first to the last; a calm one between makes two."""
    watch, sample = Watch(), CALM
    ended = []
    for dropped in (0, 1, 2, 0, 5):
        sample = later(dropped=dropped, before=sample) if dropped or sample is not CALM else CALM
        ended += watch.add(sample)
    ended += watch.finish()
    assert watch.doubts == ended
    assert [(doubt.began, doubt.ended) for doubt in ended] == [(100.0, 102.0), (103.0, 104.0)]


def test_reads_this_host():
    """The counters of this very host are read, and grow."""
    before = fidelity.sample([os.getpid(), 2**22 + 1])
    sum(range(10**6))
    after = fidelity.sample([os.getpid()])
    assert list(before.relays) == [os.getpid()]
    assert 0 < before.processors <= after.processors
    # the kernel's count of the time spent waiting for disks, which is a part of it, may go back
    assert before.idle > 0
    assert after.idle > 0
    assert before.relays[os.getpid()] <= after.relays[os.getpid()]


async def test_journal(environment, cloud, monkeypatch):
    """A run under which packets are dropped is in doubt: the journal says when and why, and marks the run."""
    await environment.up()
    live = await environment.live()
    samples = [CALM, later(dropped=2), *[later(seconds, dropped=2) for seconds in range(2, 50)]]
    monkeypatch.setattr(fidelity, "sample", lambda relays: samples.pop(0))
    for doubted in (True, False):
        entry = environment.journal.run(notebook="study.ipynb", environment=live.record.id)
        async with fidelity.watch(live.provider, live.record.id, environment.journal, run=entry.id, interval=0) as watch:
            while doubted and not watch.doubts:
                await asyncio.sleep(0)
        entry.done()
    first, second = environment.journal.runs()
    assert first.summary == "run study.ipynb (in doubt)"
    assert second.summary == "run study.ipynb"
    (event,) = environment.journal.entries(kinds=["event"], run=first.id)
    assert event.summary.startswith("run.doubt: this host dropped 2 packets")
    assert event.detail["from"] == 100.0
    assert event.detail["to"] == 101.0
