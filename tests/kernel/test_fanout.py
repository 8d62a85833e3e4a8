"""Output of several nodes, grouped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.experiment import selectors
from wardian.kernel.fanout import Lanes, compact

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
        self.lanes = Lanes(NODES, lambda kind, content: self.shown.append((kind, content)), self.clock.later)

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
    assert "1 other node did not" in error["traceback"][-1]


@given(st.sets(st.tuples(st.sampled_from(["client", "cross"]), st.integers(0, 12))))
def test_compact_is_a_selector(members: set[tuple[str, int]]) -> None:
    """The short form of some nodes is a selector that picks exactly them."""
    everything = [selectors.NodeRef(f"{group}[{index}]", group, index) for group in ("client", "cross") for index in range(13)]
    names = [ref.name for ref in everything if (ref.group, ref.index) in members]
    text = compact(names)
    assert (selectors.resolve(text, everything) if text else []) == names
