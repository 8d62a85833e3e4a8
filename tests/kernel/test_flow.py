"""Long and fast output: cut with an exact count, gathered, kept in order, and below what Jupyter's server lets through."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.kernel.front import flow
from wardian.kernel.front.flow import Excerpt, Pace
from wardian.kernel.wire import Message

from .conftest import NODES, Notebook, lanes


def stream(text: str, name: str = "stdout", parent: bytes = b'{"msg_id": "cell"}') -> Message:
    return Message.new("stream", {"name": name, "text": text}, "session", parent=parent)


class Clock:
    """Time and timers that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        monkeypatch.setattr(flow.time, "monotonic", lambda: self.now)

    def later(self, seconds: float, callback: Callable[[], None]) -> Clock:
        self.waiting = [(self.now + seconds, callback)]
        return self

    def cancel(self) -> None:
        self.waiting = []

    def run(self) -> None:
        """Let time pass until nothing waits."""
        while self.waiting:
            (self.now, callback), self.waiting = self.waiting[0], []
            callback()


class Screen:
    def __init__(self, clock: Clock, *, limited: bool) -> None:
        self.clock = clock
        self.sent: list[tuple[float, Message | str]] = []
        self.pace = Pace(lambda message: self.sent.append((clock.now, message)), clock.later, limited=limited)

    @property
    def kinds(self) -> list[str]:
        return [message if isinstance(message, str) else message.kind for _, message in self.sent]

    @property
    def text(self) -> str:
        return "".join(message.content["text"] for _, message in self.sent if isinstance(message, Message) and message.kind == "stream")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_little_output_passes_at_once(clock: Clock) -> None:
    """The first piece is sent without delay, and what follows it waits no longer than until something else comes."""
    screen = Screen(clock, limited=True)
    screen.pace.publish(stream("one\n"))
    assert screen.text == "one\n"
    screen.pace.publish(stream("two\n"))
    screen.pace.publish(stream("three\n"))
    assert screen.text == "one\n"
    screen.pace.then(lambda: screen.sent.append((clock.now, "reply")))
    assert screen.kinds == ["stream", "stream", "reply"]
    assert screen.text == "one\ntwo\nthree\n"
    assert clock.now == 1000.0


def test_order_is_kept(clock: Clock) -> None:
    """Streams of two names, displays and the reply come in the order in which they were given."""
    screen = Screen(clock, limited=True)
    for number in range(300):
        screen.pace.publish(stream(f"{number}\n", "stderr" if number % 3 == 0 else "stdout"))
        if number % 50 == 0:
            screen.pace.publish(Message.new("display_data", {"data": {"text/plain": str(number)}}, "session"))
    screen.pace.then(lambda: screen.sent.append((clock.now, "reply")))
    clock.run()
    assert screen.text == "".join(f"{number}\n" for number in range(300))
    assert screen.kinds[-1] == "reply"
    seen = 0
    for _, message in screen.sent:
        if isinstance(message, Message) and message.kind == "stream":
            seen += message.content["text"].count("\n")
        elif isinstance(message, Message):
            assert int(message.content["data"]["text/plain"]) == seen - 1


def test_the_servers_limits_are_kept(clock: Clock) -> None:
    """100,000 lines printed one by one, and displays by the thousand: all arrive, and no 3 s have more than the server lets through."""
    screen = Screen(clock, limited=True)
    for number in range(100_000):
        screen.pace.publish(stream(f"{number} {'x' * 40}\n"))
        if number % 25 == 0:
            screen.pace.publish(Message.new("display_data", {"data": {}}, "session"))
    clock.run()
    assert screen.text.count("\n") == 100_000
    sizes = [(moment, sum(map(len, message.parts())) if message.kind == "stream" else 0) for moment, message in screen.sent
             if isinstance(message, Message)]  # fmt: skip
    for start in sorted({moment for moment, _ in sizes}):
        window = [size for moment, size in sizes if start <= moment < start + 3]
        assert sum(window) <= 3_000_000
        assert len(window) <= 3_000


def test_an_interrupted_cell_shows_its_end_soon(clock: Clock) -> None:
    """What waits of an interrupted cell is cut to its end, with the exact number of lines that are left out; other cells' is not."""
    screen = Screen(clock, limited=True)
    for number in range(100_000):
        screen.pace.publish(stream(f"{number:06} {'x' * 40}\n"))
    screen.pace.publish(stream("other\n", parent=b'{"msg_id": "other"}'))
    screen.pace.hurry(b'{"msg_id": "cell"}', lambda omission: flow.left_out(omission, None))
    clock.run()
    lines = screen.text.splitlines()
    assert lines[-2].startswith("099999")
    assert lines[-1] == "other"
    missing = int(re.search(r"\(([\d,]+) lines\)", screen.text)[1].replace(",", ""))
    assert missing + sum(line.endswith("x") for line in lines) == 100_000


@given(st.integers(0, 300), st.integers(1, 100), st.lists(st.text("ab\né", max_size=60), max_size=40))
def test_an_excerpt_counts_exactly(limit: int, tail: int, pieces: list[str]) -> None:
    """What is shown of the beginning, the number of bytes left out and the end add up to everything; lines are counted alike."""
    excerpt = Excerpt(limit, tail)
    head = ""
    for piece in pieces:
        head += piece if excerpt.passes(len(piece)) else excerpt.take("stdout", piece)
    omission = excerpt.release()
    end = "".join(text for _, text in omission.tail) if omission else ""
    whole = "".join(pieces)
    assert whole.startswith(head)
    assert whole.endswith(end)
    assert len(head) <= limit
    assert len(end) <= tail
    assert len((head + end).encode()) + (omission.size if omission else 0) == len(whole.encode())
    assert (head + end).count("\n") + (omission.lines if omission else 0) == whole.count("\n")


def resident(notebook: Notebook) -> int:
    """The router's memory, MiB."""
    status = Path(f"/proc/{notebook.manager.provisioner.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024


@pytest.mark.slow
@pytest.mark.parametrize("line", ["", "%%on server\n", "%%on client\n"], ids=["home", "node", "nodes"])
def test_100_000_lines(notebook: Notebook, line: str) -> None:
    """100,000 printed lines come through completely and in order, at home, from a node and from several."""
    result = notebook.run(f"{line}for number in range(100_000): print(number)")
    expected = "".join(f"{number}\n" for number in range(100_000))
    if "client" in line:
        assert result.lanes == {"client[0]": expected, "client[1]": expected}
    else:
        assert result.text() == expected


FLOOD = "%%on w --lang bash\nyes 0123456789abcdef | head -c {size}; echo; echo at the end"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "size"), [(4, 10_000_000), pytest.param(10, 2_000_000_000, marks=[pytest.mark.long, pytest.mark.timeout(3000)])]
)
def test_a_flood(host_nodes: Path, start: Callable[..., Notebook], tmp_path: Path, nodes: int, size: int) -> None:
    """A flood on many nodes is shown cut, with exact counts and its end, takes little memory here, and is whole on each node."""
    own = start(WARDIAN_TEST_JOURNAL=str(tmp_path / "journal.db"))
    names = [f"w[{index}]" for index in range(nodes)]
    own.write_nodes({name: {"group": "w", "index": index, "roles": [], "state": "ready"} for index, name in enumerate(names)})
    own.run("%%on w --lang bash\ntrue")
    own.write_nodes(NODES)
    before = highest = resident(own)
    cell = own.send(FLOOD.format(size=size))
    text, errors = "", ""
    while True:
        message = own.client.get_iopub_msg(timeout=600)
        if message["parent_header"].get("msg_id") != cell:
            continue
        highest = max(highest, resident(own))
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            text += message["content"]["text"]
        elif message["msg_type"] == "stream":
            errors += message["content"]["text"]
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            break
    assert own.reply(cell)["content"]["status"] == "ok"
    assert highest - before < 100
    written = size + len("\nat the end\n")
    shown, marks = lanes(text, names), lanes(errors, names)
    for name in names:
        assert shown[name].endswith("at the end\n")
        missing = int(re.search(r"\[([\d,]+) bytes", marks[name])[1].replace(",", ""))
        # a node's lines are shown whole: what began within a line that is cut gets a line of its own
        assert abs(missing + len(shown[name]) - written) <= 1
    own.write_nodes({name: {"group": "w", "index": index, "roles": [], "state": "ready"} for index, name in enumerate(names)})
    own.run(f"%output --save {tmp_path}/all")
    own.write_nodes(NODES)
    for name in names:
        saved = tmp_path / "all" / f"{name.replace('[', '-').rstrip(']')}.txt"
        assert os.path.getsize(saved) == min(written, 1 << 30)


@pytest.mark.slow
def test_interrupting_a_flood(notebook: Notebook) -> None:
    """A flood is interrupted as any other cell is, and the next cell runs."""
    cell = notebook.send("%%on server --lang bash\nyes")
    notebook.until(cell, lambda message: message["msg_type"] == "stream")
    notebook.interrupt()
    assert notebook.result(cell).status == "error"
    assert notebook.run("%%on server --lang bash\necho fine").text() == "fine\n"
