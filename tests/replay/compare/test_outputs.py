"""What cells showed, compared: streams, tables, JSON, images, errors, and the rules that cells declare."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.replay.compare import Message, outputs, tables
from wardian.replay.compare.results import Finding, Verdict, worst
from wardian.replay.compare.rules import RuleError, Rules, rules, without_directives

EXACT = Rules()
FIVE = rules("#| tolerance: 5%")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def stream(text: str, name: str = "stdout", node: str | None = None) -> Message:
    return Message(node, "stream", {"name": name, "text": text})


def display(node: str | None = None, **data: Any) -> Message:
    return Message(node, "display_data", {"data": {kind.replace("__", "/").replace("_", "."): value for kind, value in data.items()}})


def shows(kind: str, value: Any) -> Message:
    return Message(None, "display_data", {"data": {"text/plain": "<Thing>", kind: value}})


def compared(old: list[Message], new: list[Message], accepted: Rules = EXACT) -> tuple[Verdict, list[Finding]]:
    one, other = outputs.by_node(old), outputs.by_node(new)
    found = [
        item
        for node in {*one, *other}
        for item in outputs.compare(one.get(node, outputs.Shown()), other.get(node, outputs.Shown()), node, accepted)
    ]
    return worst(item.verdict for item in found), found


def frame(values: dict[str, list[Any]], index: list[str] | None = None) -> Message:
    pandas = pytest.importorskip("pandas")
    return shows("text/html", pandas.DataFrame(values, index=index).to_html())


def figure(points: list[float], colour: str = "blue", size: tuple[float, float] = (3, 2)) -> str:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawn = Figure(figsize=size)
    drawn.subplots().plot(points, color=colour)
    file = io.BytesIO()
    drawn.savefig(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


def test_pieces_of_a_stream_are_one() -> None:
    """How a stream was cut into messages, and how nodes interleaved, makes no difference."""
    old = [stream("one\ntw", node="a"), stream("x\n", node="b"), stream("o\n", node="a"), stream("bad\n", "stderr", "a")]
    new = [stream("x\n", node="b"), stream("bad\n", "stderr", "a"), stream("one\n", node="a"), stream("two\n", node="a")]
    assert compared(old, new) == (Verdict.IDENTICAL, [])
    assert compared(old, new[1:])[0] is Verdict.DIFFERENT


def test_what_is_seen_in_the_end_counts() -> None:
    """Progress bars count as they were last, what was cleared is gone, and displays are as they were updated."""
    old = [stream("1%\r50%\r100%\n"), stream("gone\n"), Message(None, "clear_output", {"wait": True}), stream("left\n")]
    assert compared(old, [stream("left\n")])[0] is Verdict.IDENTICAL
    assert compared([stream("1%\r100%\n")], [stream("7%\r33%\r100%\n")])[0] is Verdict.IDENTICAL
    shown = Message(None, "display_data", {"data": {"text/plain": "1"}, "transient": {"display_id": "d"}})
    update = Message(None, "update_display_data", {"data": {"text/plain": "2"}, "transient": {"display_id": "d"}})
    assert compared([shown, update], [display(text__plain="2")])[0] is Verdict.IDENTICAL


def test_a_changed_number_in_a_table_is_found_by_its_labels() -> None:
    """In a DataFrame a number is found by row and column, and tolerances hold for it."""
    old = frame({"rate": [1.5, 2.5], "who": ["x", "y"]}, ["first", "second"])
    new = frame({"rate": [1.5, 2.6], "who": ["x", "y"]}, ["first", "second"])
    verdict, (found,) = compared([old], [new])
    assert verdict is Verdict.DIFFERENT
    assert (found.place.path, found.old, found.new) == ("row second, column rate", "2.5", "2.6")
    assert compared([old], [new], FIVE)[0] is Verdict.EQUAL


def test_rows_and_columns_of_tables() -> None:
    """Missing rows, extra columns and another order are said; what is left is held against its own."""
    old = frame({"a": [1, 2, 3]}, ["x", "y", "z"])
    verdict, found = compared([old], [frame({"a": [1, 3], "b": [0, 0]}, ["x", "z"])])
    assert verdict is Verdict.DIFFERENT
    assert {(item.kind, item.place.path) for item in found} == {("extra", "column b"), ("missing", "row y")}
    verdict, found = compared([old], [frame({"a": [2, 1, 3]}, ["y", "x", "z"])])
    assert [item.words for item in found] == ["the rows are in another order"]


def test_levels_of_tables() -> None:
    """Labels of several levels are joined, and cells that span rows are in each of them."""
    pandas = pytest.importorskip("pandas")
    data = pandas.DataFrame({("a", "mean"): [1, 2], ("a", "max"): [3, 4]}, index=pandas.MultiIndex.from_tuples([("n", 1), ("n", 2)]))
    (table,), beside = tables.from_html(data.to_html())
    assert (table.columns, table.rows, table.cells) == (["a / mean", "a / max"], ["n / 1", "n / 2"], [["1", "3"], ["2", "4"]])
    assert beside == ""


def test_text_beside_tables_counts() -> None:
    """What stands beside a table, or in HTML without one, is compared, too."""
    old = [shows("text/html", "<p>All of 5</p><table><tr><td>1</td></tr></table>")]
    assert compared(old, [shows("text/html", "<p>All of 6</p><table><tr><td>1</td></tr></table>")])[0] is Verdict.DIFFERENT
    assert compared([shows("text/html", "<b>5</b>")], [shows("text/html", "<b>6</b>")])[0] is Verdict.DIFFERENT
    assert compared([shows("text/html", "<b id=x1>5</b>")], [shows("text/html", "<b id=x2>5</b>")])[0] is Verdict.EQUAL


def test_tables_with_every_digit() -> None:
    """A table that carries its data is compared by that, beyond the digits that are shown."""

    def message(value: float) -> Message:
        resource = {
            "schema": {"fields": [{"name": "index"}, {"name": "x"}], "primaryKey": ["index"]},
            "data": [{"index": 0, "x": value}],
        }
        return Message(None, "execute_result", {"data": {"text/plain": "0.33", "application/vnd.dataresource+json": resource}})

    verdict, (found,) = compared([message(1 / 3)], [message(1 / 3 + 1e-12)])
    assert verdict is Verdict.DIFFERENT
    assert found.place.path == "row 0, column x"


def test_recorded_rows_are_a_table() -> None:
    """What `wardian.record` writes down is compared row by row, by its columns."""

    def rows(*values: list[Any]) -> Message:
        return shows("application/vnd.wardian.rows+json", {"columns": ["player", "rate"], "rows": list(values)})

    verdict, (found,) = compared([rows([1, 3.67], [2, 3.5])], [rows([1, 3.67], [2, 3.75])])
    assert (verdict, found.place.path, found.old, found.new) == (Verdict.DIFFERENT, "row 2, column rate", "3.5", "3.75")
    assert [item.kind for item in compared([rows([1, 3.67])], [rows([1, 3.67], [2, 3.5])])[1]] == ["extra"]


@given(JSON)
def test_json_is_identical_to_itself(value: Any) -> None:
    """Any JSON is identical to itself, and equal in another order of its members or with other spaces."""
    assert compared([shows("application/json", value)], [shows("application/json", json.loads(json.dumps(value)))])[0] is Verdict.IDENTICAL
    one = json.dumps({"a": value, "b": 1})
    other = json.dumps({"b": 1, "a": value}, indent=2)
    assert compared([stream(one)], [stream(other)])[0] is Verdict.EQUAL


@given(JSON, JSON)
def test_json_is_symmetric(one: Any, other: Any) -> None:
    """Verdicts on JSON do not depend on which was recorded."""
    messages = [[shows("application/json", value)] for value in (one, other)]
    assert compared(*messages, FIVE)[0] == compared(*reversed(messages), FIVE)[0]


def test_json_is_located() -> None:
    """A changed member is named by its path."""
    _, found = compared([stream('{"runs": [{"rate": 10}, {"rate": 20}]}')], [stream('{"runs": [{"rate": 10}, {"rate": 25}], "more": 1}')])
    assert {(item.place.path, item.kind) for item in found} == {("$.runs[1].rate", "number"), ("$.more", "extra")}


def test_images() -> None:
    """The same picture is identical or equal; one with another curve, colour, size or in place of text is different, and said where."""
    old = figure([1, 3, 2])
    assert compared([shows("image/png", old)], [shows("image/png", old + "\n")])[0].fine
    assert compared([shows("image/png", old)], [shows("image/png", figure([1, 3, 2.001]))])[0] is Verdict.EQUAL
    verdict, (found,) = compared([shows("image/png", old)], [shows("image/png", figure([1, 2, 3]))])
    assert verdict is Verdict.DIFFERENT
    assert "similarity" in found.words
    assert "of the width" in found.words
    assert compared([shows("image/png", old)], [shows("image/png", figure([1, 3, 2], "red"))])[0] is Verdict.DIFFERENT
    assert "another size" in compared([shows("image/png", old)], [shows("image/png", figure([1, 3, 2], size=(5, 2)))])[1][0].words
    assert compared([shows("image/png", old)], [shows("text/html", "5")])[0] is Verdict.DIFFERENT
    loose = rules("#| similarity: 30%")
    assert compared([shows("image/png", old)], [shows("image/png", figure([1, 3, 2.2]))], loose)[0] is Verdict.EQUAL
    assert compared([shows("image/png", old)], [shows("image/png", "AAAA")])[0] is Verdict.DIFFERENT


def test_images_are_symmetric() -> None:
    """Two pictures of slightly different size get one verdict both ways."""
    one, other = figure([1, 3, 2], size=(3, 2)), figure([1, 3, 2.1], size=(3.02, 2))
    verdicts = {compared([shows("image/png", a)], [shows("image/png", b)])[0] for a, b in ((one, other), (other, one))}
    assert len(verdicts) == 1


def test_drawings() -> None:
    """SVG is compared by its elements; names that libraries make anew and metadata do not count, coordinates do."""
    svg = '<svg><metadata>2026</metadata><clipPath id="p17a"/><path d="M 1 2" clip-path="url(#p17a)"/></svg>'
    assert compared([shows("image/svg+xml", svg)], [shows("image/svg+xml", svg.replace("p17a", "pb2"))])[0] is Verdict.EQUAL
    assert compared([shows("image/svg+xml", svg)], [shows("image/svg+xml", svg.replace("M 1 2", "M 1 3"))])[0] is Verdict.DIFFERENT


def test_errors() -> None:
    """Errors are the same by name and message, whatever their traceback's lines; one that is new or gone is different."""

    def error(name: str, value: str, trace: str) -> Message:
        return Message("a", "error", {"ename": name, "evalue": value, "traceback": [trace]})

    old = [error("ValueError", "no 5", "line 3")]
    assert compared(old, [error("ValueError", "no 5", "line 4")])[0] is Verdict.EQUAL
    assert compared(old, [error("ValueError", "no 6", "line 3")])[0] is Verdict.DIFFERENT
    assert compared(old, [error("KeyError", "no 5", "line 3")])[0] is Verdict.DIFFERENT
    assert compared(old, [])[1][0].words == "it failed then, and does not now"


def test_rules_add_up_and_go_before_one_another() -> None:
    """A line in the cell goes before its metadata, that before the notebook's; what is ignored adds up; 'all' leaves out everything."""
    source = "%%on client\n#| tolerance: 1%\n#| ignore: a+\n# a comment\n#| ignore: b+\nprint()\n#| ignore: late"
    found = rules(source, {"tolerance": "50%", "ignore": ["c+"]}, {"similarity": 0.5, "ignore": "d+"}, tolerance="9%")
    assert found.tolerances[0].relative == 0.01
    assert found.ignore == ("a+", "b+", "c+", "d+")
    assert found.similarity == 0.5
    assert rules("x", {"tolerance": 0.5}, tolerance="9%").tolerances[0].absolute == 0.5
    assert rules("#| ignore: all").everything
    assert without_directives(source) == "%%on client\n# a comment\nprint()\n#| ignore: late"


@pytest.mark.parametrize(
    ("source", "metadata", "words", "line"),
    [
        ("\n#| tolerance: a lot", {}, "a tolerance such as 5%", 2),
        ("#| ignore: (", {}, "a regular expression", 1),
        ("#| similarity: 5", {}, "a share such as 95%", 1),
        ("", {"ignore": 5}, "a regular expression", None),
        ("", {"tolerance": True}, "a tolerance such as 5%", None),
    ],
)
def test_rules_that_cannot_be_read(source: str, metadata: dict[str, Any], words: str, line: int | None) -> None:
    """A wrong declaration is refused with its line, what was expected, and what came."""
    with pytest.raises(RuleError, match=words) as caught:
        rules(source, metadata)
    assert caught.value.line == line


def test_what_wardian_says_itself_is_no_output() -> None:
    """That a node was made ready, or how far a transfer is, is told to who waits, and is no difference between two runs."""
    note = "node client[0]: adding what a Python kernel needs (14 MB) …\n"
    verdict, findings = compared([stream("careful\n", "stderr")], [stream(note + "careful\n", "stderr")])
    assert (verdict, findings) == (Verdict.IDENTICAL, [])
    for moved in ("plan → client[0], client[1]", "server → rows"):
        shown = f"\r{moved} │ 0 of 12 MiB, 0 MiB/s\r{moved} │ 12 of 12 MiB, 7 MiB/s\n"
        assert compared([stream("3 rows\n")], [stream(shown + "3 rows\n")]) == (Verdict.IDENTICAL, [])
    assert compared([stream("a → b │ 1 of 2\n")], [stream("")])[0] is Verdict.DIFFERENT
