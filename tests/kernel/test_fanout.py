"""Output of several nodes, grouped."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.experiment import selectors
from wardian.kernel.cells.ansi import plain, to_html
from wardian.kernel.cells.fanout import Lanes
from wardian.kernel.cells.summary import compact

NODES = ["client[0]", "client[1]", "server"]


class Clock:
    """Timers that a test fires by hand."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> Clock:
        self.waiting.append(callback)
        return self

    def cancel(self) -> None:
        self.waiting.clear()

    def fire(self) -> None:
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()


class Screen:
    """Lanes, and what they show."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.shown: list[tuple[str, dict[str, Any]]] = []
        self.time = 0.0
        self.lanes = Lanes(NODES, lambda kind, content: self.shown.append((kind, content)), self.clock.later, clock=lambda: self.time)

    def print(self, node: str, text: str, name: str = "stdout") -> None:
        self.lanes.stream(node, {"name": name, "text": text})

    def end(self) -> dict[str, Any] | None:
        for node in NODES:
            self.lanes.ended(node)
        return self.lanes.finish()

    @property
    def text(self) -> str:
        return "".join(content["text"] for kind, content in self.shown if kind == "stream")


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_equal_outputs_are_one(screen: Screen) -> None:
    """What all nodes print alike is shown once, under all their names."""
    for node in NODES:
        screen.print(node, "a\nb\n")
    screen.end()
    assert screen.text == "client[0:2],server │ a\nclient[0:2],server │ b\n"


def test_other_outputs_are_not_lost(screen: Screen) -> None:
    """Those that differ are shown under their own names, in the order of the nodes."""
    screen.print("server", "other\n")
    screen.print("client[1]", "a\n")
    screen.print("client[0]", "a\n")
    screen.end()
    assert screen.text == "client[0:2] │ a\nserver    │ other\n"


def test_what_streams_is_live(screen: Screen) -> None:
    """Output that goes on after the first moment is shown at once, line by line, though no node has ended."""
    screen.print("server", "one\n")
    assert screen.text == ""
    screen.clock.fire()
    assert screen.text == "server    │ one\n"
    screen.print("server", "two\nthr")
    assert screen.text == "server    │ one\nserver    │ two\n"
    screen.print("server", "ee\n")
    assert screen.text.endswith("server    │ three\n")


def test_an_unended_line_is_shown_at_the_end(screen: Screen) -> None:
    """A last line without its end is not lost."""
    screen.print("server", "no end")
    screen.end()
    assert screen.text == "server    │ no end\n"


def test_a_line_redrawn_in_place_shows_its_last_state(screen: Screen) -> None:
    """A progress bar, which cannot redraw between other nodes' lines, leaves what it showed last."""
    screen.print("server", "\r10 %\r50 %")
    screen.print("server", "\r100 %\n")
    screen.end()
    assert screen.text == "server    │ 100 %\n"


def test_streams_are_kept_apart(screen: Screen) -> None:
    """Standard error stays standard error."""
    screen.print("server", "bad\n", "stderr")
    screen.end()
    assert screen.shown == [("stream", {"name": "stderr", "text": "server    │ bad\n"})]


def test_results_are_grouped(screen: Screen) -> None:
    """Equal results are one line, and each form (text, table) names all nodes."""
    for node, value in zip(NODES, ["1", "1", "2"], strict=True):
        screen.lanes.result(node, {"data": {"text/plain": value}, "metadata": {}})
    screen.end()
    ((kind, content),) = screen.shown
    assert kind == "display_data"
    assert content["data"]["text/plain"] == "client[0:2] │ 1\nserver      │ 2"
    assert "<th" in content["data"]["text/html"]


def test_results_with_html_get_lanes(screen: Screen) -> None:
    """A result with HTML of its own keeps it, in a lane that folds; text is escaped."""
    screen.lanes.result("client[0]", {"data": {"text/plain": "frame", "text/html": "<table></table>"}})
    screen.lanes.result("server", {"data": {"text/plain": "<x>"}})
    screen.end()
    markup = screen.shown[0][1]["data"]["text/html"]
    assert "<summary><b>client[0]</b></summary><table></table>" in markup
    assert "&lt;x&gt;" in markup


def test_a_figure_follows_its_nodes_name(screen: Screen) -> None:
    """A rich output comes after a heading that names the node, and after what that node printed before it."""
    screen.print("server", "before\n")
    screen.lanes.rich("server", "display_data", {"data": {"image/png": "…"}, "metadata": {}, "transient": {"display_id": "a"}})
    kinds = [kind for kind, _ in screen.shown]
    assert kinds == ["stream", "display_data", "display_data"]
    assert "server" in screen.shown[1][1]["data"]["text/plain"]
    assert screen.shown[2][1]["transient"] == {"display_id": "server/a"}


def test_errors_name_who_failed(screen: Screen) -> None:
    """One error names every node that failed and why, with each traceback once, and counts those that did not fail."""
    for node in NODES[:2]:
        screen.lanes.error(node, {"ename": "ValueError", "evalue": "bad", "traceback": ["trace"]})
    error = screen.end()
    assert error is not None
    assert error["ename"] == "NodeErrors"
    assert error["evalue"] == "client[0:2]: ValueError: bad"
    assert error["traceback"].count("trace") == 1
    assert "1 other did not" in error["traceback"][-1]


def moving(screen: Screen) -> list[str]:
    """The states of the display that redraws itself."""
    boards = [content for _, content in screen.shown if str(content.get("transient", {}).get("display_id")).endswith("/moving")]
    assert len({content["transient"]["display_id"] for content in boards}) <= 1
    return [content["data"]["text/plain"] for content in boards]


def test_progress_is_redrawn_in_place(screen: Screen) -> None:
    """Lines that redraw themselves share one display, which is brought up to date; their last states become lines, and it is emptied."""
    for node, state in ((NODES[0], "10 %"), (NODES[1], "20 %")):
        screen.print(node, f"\r{state}")
    assert moving(screen) == []
    screen.clock.fire()
    assert moving(screen) == ["client[0] │ 10 %\nclient[1] │ 20 %"]
    screen.print(NODES[0], "\r50 %")
    screen.print(NODES[0], "\r60 %")
    screen.clock.fire()
    assert moving(screen)[1:] == ["client[0] │ 60 %\nclient[1] │ 20 %"]
    screen.print(NODES[0], "\r100 %\n")
    screen.end()
    assert moving(screen)[2:] == [""]
    assert screen.text == "client[0] │ 100 %\nclient[1] │ 20 %\n"


def test_a_quick_bar_is_a_line(screen: Screen) -> None:
    """A progress bar that is done before anything was shown of it makes no display."""
    screen.print(NODES[0], "\r1 %\r100 %\n")
    screen.end()
    assert [kind for kind, _ in screen.shown] == ["stream"]


def test_an_endless_line_takes_no_memory(screen: Screen) -> None:
    """What carriage returns have overwritten is not kept, and a line without an end is cut."""
    for number in range(10_000):
        screen.print(NODES[0], f"\rstate {number}")
        screen.print(NODES[1], "x" * 100)
    lane = screen.lanes._lanes[NODES[0]]
    assert len(lane.partial["stdout"]) < 100
    assert max(len(line) for line in screen.text.splitlines()) < 70_000 if screen.text else True
    screen.end()
    assert screen.text.count("x") == 1_000_000


def test_a_return_at_the_end_of_a_piece(screen: Screen) -> None:
    """A line whose return comes before its next state is overwritten by that."""
    screen.print(NODES[0], "10 %\r")
    screen.print(NODES[0], "100 %\r")
    screen.print(NODES[0], "\n")
    screen.end()
    assert screen.text == "client[0] │ 100 %\n"


def test_clear_output_clears_one_lane(screen: Screen) -> None:
    """What a node has cleared is gone, text and displays; other nodes keep theirs; in the end its last state is there once."""
    screen.print("server", "keep\n")
    screen.print(NODES[0], "first\n")
    screen.lanes.clear(NODES[0], False)
    screen.print(NODES[0], "second\n")
    screen.clock.fire()
    screen.lanes.clear(NODES[0], True)
    screen.print(NODES[0], "third\n")
    screen.clock.fire()
    screen.end()
    assert moving(screen) == ["client[0] │ second", "client[0] │ third", ""]
    assert screen.text == "server    │ keep\nclient[0] │ third\n"


def test_a_display_takes_the_place_of_a_cleared_one(screen: Screen) -> None:
    """After `clear_output` the next figure is shown where the last one was, and what nothing replaces is emptied."""
    screen.lanes.rich("server", "display_data", {"data": {"text/plain": "1"}})
    screen.lanes.rich("server", "display_data", {"data": {"text/plain": "2"}})
    screen.lanes.clear("server", True)
    screen.lanes.rich("server", "display_data", {"data": {"text/plain": "3"}})
    screen.end()
    seen: dict[str, str] = {}
    for _, content in screen.shown:
        if content["transient"].get("display_id"):
            seen[content["transient"]["display_id"]] = content["data"]["text/plain"]
    assert sorted(seen.values()) == ["", "3"]


def test_a_short_cell_is_quiet(screen: Screen) -> None:
    """Without failures and with little output there is no summary."""
    screen.print("server", "a\n" * 50)
    screen.end()
    assert [kind for kind, _ in screen.shown] == ["stream"]


def test_much_output_is_summed_up(screen: Screen) -> None:
    """After much output a display folds it by node: how each did, for how long, and its last lines, escaped and coloured."""
    screen.print("server", "line\n" * 200 + "\x1b[31m<red>\x1b[0m\n")
    screen.time = 2.0
    screen.end()
    content = screen.shown[-1][1]
    assert content["data"]["text/plain"] == "client[0:2],server │ ok, 2.0 s, 201 lines"
    markup = content["data"]["text/html"]
    assert markup.count("<details>") == 3
    assert "&lt;red&gt;</span>" in markup
    assert markup.count("line\n") < 25
    assert content["metadata"]["wardian"] == {"summary": True}


def test_the_summary_of_a_failure(screen: Screen) -> None:
    """Who failed, how, and its last line are in the summary's text; its lane is open, those of the others are folded."""
    screen.print("server", "working\n<b>last</b>\n")
    screen.lanes.error("server", {"ename": "ValueError", "evalue": "<bad>", "traceback": ["\x1b[0;31mtrace\x1b[0m <1>"]})
    screen.end()
    content = next(content for kind, content in screen.shown if content.get("metadata", {}).get("wardian") == {"summary": True})
    text, markup = content["data"]["text/plain"], content["data"]["text/html"]
    assert "server      │ failed: ValueError: <bad>, 0.0 s, 2 lines, the last: <b>last</b>" in text
    assert markup.count("<details open><summary><b>server</b> failed") == 1
    assert markup.count("<details>") == 2
    assert "<b>last" not in markup
    assert "<1>" not in markup
    assert ">trace</span>" in markup


def test_those_that_were_not_run(screen: Screen) -> None:
    """Nodes that were left out after a failure are named, and are no failures of their own."""
    screen.lanes.error(NODES[0], {"ename": "ValueError", "evalue": "bad", "traceback": []})
    screen.lanes.error("server", {"ename": "NotRun", "evalue": "", "traceback": []})
    error = screen.end()
    assert error is not None
    assert error["evalue"] == "client[0]: ValueError: bad"
    assert error["traceback"][-1] == "client[0] failed; 1 other did not; not run: server"


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("<&>", "&lt;&amp;&gt;"),
        ("\x1b[1mb\x1b[22mc", '<span style="font-weight:bold">b</span>c'),
        ("\x1b[38;5;196mr\x1b[39m", '<span style="color:#ff0000">r</span>'),
        ("\x1b[48;2;1;2;3mx", '<span style="background-color:#010203">x</span>'),
        ("\x1b[2K\x1b[1Aup", "up"),
        ("\x1b]0;title\x07t", "t"),
        ("\x1b[m\x1b[38;5mx", "x"),
    ],
)
def test_colours(text: str, markup: str) -> None:
    """Colours become spans, everything else of a terminal is left out, and text is escaped."""
    assert to_html(text) == markup


@given(st.text(st.sampled_from("\x1b[];0123456789m<>&\"'a")))
def test_no_text_becomes_markup(text: str) -> None:
    """Whatever a node prints, nothing in it is taken for HTML."""
    assert re.sub(r'<span style="[a-z:;#0-9-]+">|</span>', "", to_html(text)) == html.escape(plain(text))


@given(st.sets(st.tuples(st.sampled_from(["client", "cross"]), st.integers(0, 12))))
def test_compact_is_a_selector(members: set[tuple[str, int]]) -> None:
    """The short form of some nodes is a selector that picks exactly them."""
    everything = [selectors.NodeRef(f"{group}[{index}]", group, index) for group in ("client", "cross") for index in range(13)]
    names = [ref.name for ref in everything if (ref.group, ref.index) in members]
    text = compact(names)
    assert (selectors.resolve(text, everything) if text else []) == names
