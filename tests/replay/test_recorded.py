"""Which recorded runs a replay is compared with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from wardian.errors import JournalError, RunError
from wardian.journal import Journal
from wardian.journal.records import DOUBT
from wardian.replay.compare import Comparison, Rules, compare
from wardian.replay.recorded import baseline, environment, executed, gathered
from wardian.replay.replaying import Replay, parameters_of, settings_of
from wardian.replay.runner import REPLAY

NOTEBOOK = Path("/study/study.ipynb")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal of its own."""
    with Journal.open(tmp_path / "journal.db") as opened:
        yield opened


def record(
    journal: Journal,
    *,
    delay: str = "10ms",
    provider: str = "local",
    source: str = "1",
    status: str = "ok",
    replay: bool = False,
    kernel: str = "6.1",
    measured: float | None = None,
    packages: Mapping[str, str] | None = None,
    printed: str = "x",
    doubt: tuple[float, float] | None = None,
    given: Mapping[str, object] | None = None,
) -> str:
    """A run of one cell on a node, and its id."""
    parameters = {"delay": delay, "names": ["a"], "password": "hush"}
    run = journal.run(notebook=str(NOTEBOOK), parameters=parameters, provider=provider, experiment_digest="d", environment="study-1a2b")
    caveat = {"resource": "link wan", "field": "loss", "message": "not here", "stand_in": None}
    journal.fact("plan", {"operations": [], "caveats": [caveat]}, run=run.id)
    journal.fact("machine", {"kernel": kernel}, run=run.id, node="client[0]")
    if measured is not None:
        found = {"over": ["wan there"], "value": measured, "text": f"{1000 * measured:g} ms", "low": 0.009, "high": 0.011, "ok": True}
        journal.fact("measured", {"server -> client[0] delay": found}, run=run.id)
    if packages is not None:
        journal.fact("packages.dpkg", packages, run=run.id, node="client[0]")
    if given is not None:
        journal.fact("given", given, run=run.id)
    if replay:
        journal.event(kind=REPLAY, run=run.id, detail={"summary": "compared", "of": []})
    cell = journal.cell(source=source, cell="one", selector="client", nodes=["client[0]"], run=run.id)
    cell.output("client[0]", "stream", {"name": "stdout", "text": printed})
    cell.output("client[0]", "execute_reply", {"status": "ok"})
    cell.done()
    if doubt is not None:
        detail = {"summary": "busy, then", "why": "this host was busy", "from": doubt[0], "to": doubt[1]}
        journal.event(kind=DOUBT, run=run.id, detail=detail)
    run.done(status)
    return run.id


def chosen(journal: Journal, *, against: tuple[str, ...] = (), delay: str = "10ms") -> list[str]:
    return [item.run.id for item in baseline(journal, NOTEBOOK, {"delay": delay, "names": ["a"], "password": "other"}, against)]


def test_the_last_that_went_well_and_those_like_it(journal: Journal) -> None:
    """It is the last run that went well; earlier ones with it whose cells, parameters, file, provider and settings are the same."""
    other, like = record(journal, source="2"), record(journal)
    record(journal, provider="docker")
    record(journal, given={"image": "a"})
    last = record(journal, source="#| tolerance: 5%\n1")
    record(journal, status="failed")
    assert chosen(journal) == [last, like]
    assert other not in chosen(journal)


def test_replays_do_not_count_unless_named(journal: Journal) -> None:
    """A replay is no record for the next one, or a change would be seen once only; by its id it is."""
    first, second = record(journal), record(journal, replay=True)
    assert chosen(journal) == [first]
    assert chosen(journal, against=(second[-8:],)) == [second]
    with pytest.raises(JournalError, match="no run 'nonsense'"):
        chosen(journal, against=("nonsense",))


def test_the_same_parameters_go_before_the_last(journal: Journal) -> None:
    """A run with the same parameters is taken before a later one with others, and without any such the last."""
    same, other = record(journal), record(journal, delay="20ms")
    assert chosen(journal) == [same]
    assert chosen(journal, delay="90ms") == [other]


def test_nothing_recorded(journal: Journal) -> None:
    """Without any run that went well the error says how to record one."""
    record(journal, status="failed")
    with pytest.raises(RunError, match="no run of it is recorded") as caught:
        chosen(journal)
    assert "wardian run" in str(caught.value)


def test_a_run_as_it_is_compared(journal: Journal) -> None:
    """What the journal has of a run is what is compared: cells with what they sent, facts, caveats, and no secrets."""
    found = journal.show(record(journal))
    run = executed(found)
    (cell,) = run.cells
    assert (cell.key, cell.source, cell.selector, cell.nodes) == ("one", "1", "client", ("client[0]",))
    assert [message.kind for message in cell.messages] == ["stream", "execute_reply"]
    assert set(cell.node_seconds) == {"client[0]"}
    assert run.caveats == ("link wan: loss: not here",)
    assert "hush" not in str(run)
    assert "study-1a2b" in run.names
    assert parameters_of(found) == {"delay": "10ms", "names": "['a']"}
    given = journal.show(record(journal, given={"image": "a", "hosts": [{"name": "b", "key": "id"}]}))
    assert (settings_of(given, "local"), settings_of(given, "docker"), settings_of(found, "local")) == ({"image": "a"}, {}, {})


def test_environments_that_differ(journal: Journal) -> None:
    """What differs between what runs were and ran on is listed with both values, and that they are two runs is none of it."""
    one, other = (journal.show(identity) for identity in (record(journal), record(journal, provider="docker", delay="20ms", kernel="6.2")))
    said = {(item.what, item.old, item.new) for item in environment(one, other)}
    assert said == {("provider", "local", "docker"), ("parameter delay", "10ms", "20ms"), ("node client[0] kernel", "6.1", "6.2")}
    assert environment(one, journal.show(record(journal, status="failed"))) == ()


def test_links_as_measured(journal: Journal) -> None:
    """Two measurements of a link differ where one is outside of what is accepted of the other, and both are told."""
    one, near, far = (journal.show(record(journal, measured=value)) for value in (0.0101, 0.0104, 0.0203))
    assert environment(one, near) == ()
    assert [str(item.what) for item in environment(one, journal.show(record(journal)))] == []
    (found,) = environment(one, far)
    assert (found.what, found.old, found.new) == ("measured server -> client[0] delay", "10.1 ms", "20.3 ms")


def test_many_packages_are_counted(journal: Journal) -> None:
    """Of packages a few that differ are told one by one behind all else, and of many how many; those in another version always by name."""
    many = {f"lib{number}": "1" for number in range(50)}
    old = {**many, "numpy": "1.26"}
    one, other, few = (journal.show(record(journal, packages=names, kernel=kernel)) for names, kernel in (
        (old, "6.1"), ({"numpy": "2.0", "new": "1"}, "6.2"), ({**old, "numpy": "2.0", "new": "1"}, "6.1"),
    ))  # fmt: skip
    said = [(item.what, item.old, item.new) for item in gathered(environment(one, other))]
    assert said == [
        ("node client[0] kernel", "6.1", "6.2"),
        ("node client[0] packages.dpkg: numpy", "1.26", "2.0"),
        ("node client[0] packages.dpkg", "50 only then", "1 only now"),
    ]
    assert {item.what: item.new for item in gathered(environment(one, few))} == {
        "node client[0] packages.dpkg: numpy": "2.0",
        "node client[0] packages.dpkg: new": "1",
    }


def test_what_was_measured_in_doubt(journal: Journal) -> None:
    """A cell that differs is in doubt where a host saturated while it ran, then or now, and not where that was at another time."""
    meanwhile, before = (0.0, time.time() + 3600), (0.0, 1.0)
    then, now = record(journal, printed="rtt 10 ms", doubt=meanwhile), record(journal, printed="rtt 30 ms", doubt=before)
    (cell,) = compare([executed(journal.show(then))], [executed(journal.show(now))], lambda cell: Rules()).cells
    assert (cell.verdict.value, cell.in_doubt, str(cell.doubts)) == ("different", True, "recorded while this host was busy")
    (cell,) = compare([executed(journal.show(now))], [executed(journal.show(then))], lambda cell: Rules()).cells
    assert str(cell.doubts) == "run now while this host was busy"
    (cell,) = compare([executed(journal.show(then))], [executed(journal.show(then))], lambda cell: Rules()).cells
    assert not cell.in_doubt, "what is the same is in no doubt"
    replay = Replay(NOTEBOOK, Comparison(cell.verdict, (cell,)), (journal.show(then),), (journal.show(now),))
    assert replay.doubts == [f"recorded {then[-8:]}: busy, then", f"now {now[-8:]}: busy, then"]
