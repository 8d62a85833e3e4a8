"""Whole runs compared: which cells belong together, several runs as samples, environments, and the statistics behind."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardian.replay.compare import ExecutedCell, ExecutedRun, Message, Rules, Verdict, compare, rules, statistics
from wardian.replay.compare.results import Comparison
from wardian.replay.compare.runs import match


def cell(key: str | None, source: str = "", *printed: str, nodes: Sequence[str] = ()) -> ExecutedCell:
    """A cell that printed one text on each node, or one at home."""
    places = list(nodes) or [None]
    messages = [Message(node, "stream", {"name": "stdout", "text": text}) for node, text in zip(places, printed, strict=False)]
    return ExecutedCell(key, source or f"code of {key}", "client" if nodes else None, tuple(nodes), messages=tuple(messages))


def run(*cells: ExecutedCell, caveats: tuple[str, ...] = ()) -> ExecutedRun:
    return ExecutedRun("r", cells, caveats=caveats)


def several(old: Sequence[str], new: Sequence[str], accepted: Rules | None = None) -> Comparison:
    """One cell that printed these texts in recorded and new runs."""
    runs = [[run(cell("a", "", text)) for text in texts] for texts in (old, new)]
    return compare(*runs, lambda _: accepted or Rules())


def test_a_changed_cell_is_located() -> None:
    """Of cells that ran the same, only the one that printed something else is different, at its node and line."""
    old = run(cell("a", "", "1\n"), cell("b", "", "x\n5 ms\n", "x\n5 ms\n", nodes=["client[0]", "client[1]"]))
    new = run(cell("a", "", "1\n"), cell("b", "", "x\n5 ms\n", "x\n9 ms\n", nodes=["client[0]", "client[1]"]))
    found = compare([old], [new], lambda _: Rules())
    assert [item.verdict for item in found.cells] == [Verdict.IDENTICAL, Verdict.DIFFERENT]
    assert [str(item) for item in found.cells[1].findings] == ["client[1], stdout, line 2: 5 ms → 9 ms (+80 %)"]
    assert found.verdict is Verdict.DIFFERENT


def test_an_edited_cell_is_told_though_it_prints_the_same() -> None:
    """An edit is a difference and shown as one; a declaration or spaces at ends of lines are none."""
    found = compare([run(cell("a", "x = 1\nprint()", "1"))], [run(cell("a", "x = 2\nprint()", "1"))], lambda _: Rules())
    assert found.cells[0].verdict is Verdict.DIFFERENT
    assert "-x = 1\n+x = 2" in found.cells[0].edited
    found = compare([run(cell("a", "x = 1 \n", "1"))], [run(cell("a", "#| tolerance: 5%\nx = 1", "1"))], lambda _: Rules())
    assert found.cells[0].verdict is Verdict.IDENTICAL


def test_cells_that_came_and_went() -> None:
    """Missing and extra cells are named where they stood, and the whole is different."""
    old, new = run(cell("a"), cell("b"), cell("c")), run(cell("a"), cell("c"), cell("d"), cell("e"))
    found = compare([old], [new], lambda _: Rules())
    said = [(item.cell, item.number, item.verdict) for item in found.cells]
    assert said == [
        ("a", 1, Verdict.IDENTICAL),
        ("b", None, Verdict.MISSING),
        ("c", 2, Verdict.IDENTICAL),
        ("d", 3, Verdict.EXTRA),
        ("e", 4, Verdict.EXTRA),
    ]
    assert found.verdict is Verdict.DIFFERENT


def test_cells_without_ids_are_matched_by_source_and_place() -> None:
    """Where ids changed (parameters that are put in have a new one each time), source and neighbours say which cell is which."""
    old = [cell("1", "x"), cell("2", "# Parameters\nn = 3"), cell("3", "y")]
    new = [cell("7", "x"), cell("8", "# Parameters\nn = 4"), cell("9", "y")]
    assert match(old, new) == list(zip(old, new, strict=True))


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.lists(st.sampled_from("abcdefgh"), unique=True))
def test_every_cell_is_told_once(left: list[str], right: list[str]) -> None:
    """Whatever the order, each cell of either side is in exactly one pair, and equal ids are together."""
    old, new = [cell(key) for key in left], [cell(key) for key in right]
    pairs = match(old, new)
    assert sorted(one.key or "" for one, _ in pairs if one) == sorted(left)
    assert [other.key for _, other in pairs if other] == right
    assert {one.key for one, other in pairs if one and other and one.key == other.key} == set(left) & set(right)


def test_a_node_more_is_told() -> None:
    """A cell that runs on a node more says so, and not that its output differs."""
    old = run(cell("a", "", "1", nodes=["client[0]"]))
    new = run(cell("a", "", "1", "1", nodes=["client[0]", "client[1]"]))
    (finding,) = compare([old], [new], lambda _: Rules()).cells[0].findings
    assert (finding.place.node, finding.kind) == ("client[1]", "extra")


def test_what_could_not_be_honoured() -> None:
    """A caveat that the recorded run had not excuses other results, but no edits; one that it had excuses nothing."""
    old = run(cell("a", "", "1"), cell("b", "x"))
    new = run(cell("a", "", "2"), cell("b", "y"), caveats=("link wan: loss",))
    found = compare([old], [new], lambda _: Rules())
    assert found.unhonoured == ("link wan: loss",)
    assert [item.verdict for item in found.cells] == [Verdict.UNHONOURED, Verdict.DIFFERENT]
    same = compare(
        [run(cell("a", "", "1"), caveats=("link wan: loss",))], [run(cell("a", "", "2"), caveats=("link wan: loss",))], lambda _: Rules()
    )
    assert (same.verdict, same.unhonoured) == (Verdict.DIFFERENT, ())
    unknown = replace(run(cell("a", "", "1")), caveats=None)
    assert compare([unknown], [run(cell("a", "", "2"), caveats=("link wan: loss",))], lambda _: Rules()).unhonoured == ()


def test_the_names_of_a_run_do_not_count() -> None:
    """The ids of environments, which are new each time, are no difference where they are printed."""
    accepted = Rules(known=("study-1a2b3c4d", "study-5e6f7a8b"))
    assert several(["at study-1a2b3c4d"], ["at study-5e6f7a8b"], accepted).verdict is Verdict.EQUAL


# Several runs


def test_a_number_that_varies_is_judged_by_its_spread() -> None:
    """With several recorded runs a value among theirs is equal, and one far outside is different, with n, medians, test and p."""
    old = ["rtt 20.1 ms", "rtt 20.4 ms", "rtt 20.2 ms"]
    assert several(old, ["rtt 20.3 ms"]).verdict is Verdict.EQUAL
    found = several(old, ["rtt 40.3 ms"])
    assert found.verdict is Verdict.DIFFERENT
    (finding,) = found.cells[0].findings
    assert finding.test
    assert (finding.test.name, len(finding.test.old), len(finding.test.new)) == (statistics.STUDENT, 3, 1)
    assert str(finding).startswith("here, stdout, line 1: 20.2 ms → 40.3 ms (medians, +99.5 %, Student's t: p = ")


def test_the_spread_may_be_that_of_the_new_runs() -> None:
    """One recorded run and several new ones are compared by the spread of the new ones."""
    assert several(["rtt 20.3 ms"], ["rtt 20.1 ms", "rtt 20.4 ms", "rtt 20.2 ms"]).verdict is Verdict.EQUAL
    assert several(["rtt 40.3 ms"], ["rtt 20.1 ms", "rtt 20.4 ms", "rtt 20.2 ms"]).verdict is Verdict.DIFFERENT


def test_a_number_that_never_varied_is_computed() -> None:
    """What several runs printed alike has to be the same again, but for the last digit of what a clock says."""
    assert several(["score 0.8413"] * 3, ["score 0.8414"]).verdict is Verdict.DIFFERENT
    assert several(["5 lost"] * 3, ["6 lost"]).verdict is Verdict.DIFFERENT
    assert several(["score 0.8413"] * 3, ["score 0.21", "score 0.97", "score 0.64"]).verdict is Verdict.DIFFERENT
    assert several(["score 0.8413"], ["score 0.8414"] * 2).verdict is Verdict.DIFFERENT
    assert several(["stalls 0", "stalls 1", "stalls 0"], ["stalls 0"] * 3).verdict is Verdict.EQUAL
    assert several(["took 1.2 s"] * 3, ["took 1.3 s"]).verdict is Verdict.EQUAL
    assert several(["took 1.2 s"] * 3, ["took 2.2 s"]).verdict is Verdict.DIFFERENT
    assert several(["score 0.8413"] * 3, ["score 0.8413"]).verdict is Verdict.IDENTICAL


def test_text_that_always_varied_is_no_difference() -> None:
    """Words that differ among the recorded runs are no finding; those that were the same are."""
    assert several(["won: red", "won: blue"], ["won: green"]).verdict is Verdict.EQUAL
    assert several(["won: red", "won: red"], ["won: green"]).verdict is Verdict.DIFFERENT


def test_a_declared_tolerance_is_for_medians() -> None:
    """Where a tolerance is declared, medians are held against it, whatever a test says."""
    accepted = rules("#| tolerance: 10%")
    assert several(["20.1", "20.2", "20.15"], ["21.0", "21.1"], accepted).verdict is Verdict.EQUAL
    assert several(["20.1", "28", "20.15"], ["24", "24"], accepted).verdict is Verdict.DIFFERENT


def test_many_runs_are_compared_by_ranks() -> None:
    """From eight runs a side the test is that of Mann and Whitney, and the interval is one of 95 %."""
    generator = random.Random(1)
    old = [f"{generator.gauss(20, 1):.3f}" for _ in range(12)]
    assert several(old, [f"{generator.gauss(20, 1):.3f}" for _ in range(12)]).verdict is Verdict.EQUAL
    found = several(old, [f"{generator.gauss(25, 1):.3f}" for _ in range(12)])
    assert found.verdict is Verdict.DIFFERENT
    test = found.cells[0].findings[0].test
    assert test
    assert (test.name, test.how) == (statistics.MANN_WHITNEY, "95 % interval")


def test_false_alarms_stay_rare_with_many_numbers() -> None:
    """Of 100 replays with 20 measured numbers each, drawn like the recorded ones, about 5 % are called different: 12 at most."""
    generator = random.Random(2)

    def text() -> str:
        return "\n".join(f"{generator.gauss(100, 3):.2f} ms" for _ in range(20))

    alarms = sum(several([text() for _ in range(5)], [text()]).verdict is Verdict.DIFFERENT for _ in range(100))
    assert alarms <= 12


@settings(max_examples=50)
@given(st.lists(st.floats(1, 100).map(lambda value: f"{value:.3f}"), min_size=1, max_size=5))
def test_runs_are_identical_to_themselves(texts: list[str]) -> None:
    """The same runs on both sides are never different."""
    assert several(texts, texts).verdict.fine


# Statistics


def test_known_values() -> None:
    """The tests give what tables and exact counts say."""
    assert statistics.student([1, 2, 3], [10]) == pytest.approx(0.0202041, rel=1e-5)
    assert statistics._student_tail(12.7062, 1) == pytest.approx(0.05, rel=1e-4)
    assert statistics._student_tail(2.2281, 10) == pytest.approx(0.05, rel=1e-3)
    assert statistics.mann_whitney(range(8), range(8, 16)) == pytest.approx(2 / 12870)
    assert statistics.mann_whitney([1, 3, 5], [2, 4, 6]) == pytest.approx(0.7)
    assert statistics.mann_whitney([1, 1, 1], [1, 1, 1]) == 1.0
    assert statistics.interval(range(10)) == (1, 8, "95 % interval")
    assert statistics.interval([3, 1, 2]) == (1, 3, "range")
    assert statistics.rejected([0.04, 0.001, 0.03]) == [False, True, False]


@given(st.lists(st.integers(0, 20), min_size=2, max_size=9), st.lists(st.integers(0, 20), min_size=2, max_size=9), st.floats(-1e3, 1e3))
def test_p_values_are_probabilities(one: list[int], other: list[int], moved: float) -> None:
    """p is between 0 and 1, and the same both ways."""
    for test in (statistics.mann_whitney, statistics.student):
        p = test(one, other)
        assert 0 <= p <= 1
        assert p == pytest.approx(test(other, one))
