"""Long and fast output: cut with an exact count, gathered, kept in order, and below what Jupyter's server lets through."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.kernel.front import flow
from wardian.kernel.front.flow import Excerpt, LeftOut, Pace, Printed
from wardian.kernel.wire import Message
from wardian.nodes.agent.store import Archive

from .conftest import NODES, Notebook, lanes
from .test_lost import wait_until


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
        head += piece if excerpt.passes(len(piece)) else excerpt.take(Printed("stdout", piece))
    omission = excerpt.release()
    end = "".join(piece.text for piece in omission.tail) if omission else ""
    size, lines, _ = omission.left_out if omission else (0, 0, 0)
    whole = "".join(pieces)
    assert whole.startswith(head)
    assert whole.endswith(end)
    assert len(head) <= limit
    assert len(end) <= tail
    assert len((head + end).encode()) + size == len(whole.encode())
    assert (head + end).count("\n") + lines == whole.count("\n")


MARK = "\n[dropped]\n"


@given(st.integers(0, 100), st.integers(1, 60), st.lists(st.text("ab\né", max_size=40) | st.just(None), max_size=30))
def test_what_a_node_dropped_counts_for_itself(limit: int, tail: int, pieces: list[str | None]) -> None:
    """An agent's mark that is shown is shown whole; one that is left out counts as what it stands for."""
    excerpt, gap = Excerpt(limit, tail), LeftOut(1000, 10, 1000)
    shown = []
    for text in pieces:
        piece = Printed("stderr", MARK, gap) if text is None else Printed("stdout", text)
        shown.append(piece if excerpt.passes(len(piece.text)) else Printed("stdout", excerpt.take(piece)))
    omission = excerpt.release()
    shown += omission.tail if omission else []
    size, lines, dropped = omission.left_out if omission else (0, 0, 0)
    marks = sum(piece.left_out == gap for piece in shown)
    assert all(piece.text == MARK for piece in shown if piece.left_out)
    hidden = pieces.count(None) - marks
    assert dropped == hidden * 1000
    printed, whole = "".join(piece.text for piece in shown if not piece.left_out), "".join(filter(None, pieces))
    assert len(printed.encode()) + size == len(whole.encode()) + dropped
    assert printed.count("\n") + lines == whole.count("\n") + hidden * 10


def test_an_earlier_cell_that_still_prints(tmp_path: Path) -> None:
    """What a node keeps of a cell is not pushed out by what that cell itself still prints in the background; others' is."""
    archive = Archive(str(tmp_path), 1 << 20)
    for cell, size in (("first", 300_000), ("second", 300_000), ("first", 600_000)):
        archive.append(json.dumps({"msg_id": cell}).encode(), json.dumps({"text": "x" * size}).encode())
    assert archive.read("first", 0, 1) == (b"x", 900_000, 0)
    with pytest.raises(KeyError):
        archive.read("second", 0, 1)
    archive.close()


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


FLOOD = "yes 0123456789abcdef | head -c {size}; echo; echo at the end"


def counted(marks: str) -> int:
    """How many bytes the marks in a cell's output stand for, those for what is not shown and those for what a node dropped."""
    return sum(int(size.replace(",", "")) for size in re.findall(r"\[(?:\d+ messages with )?([\d,]+) bytes", marks))


@contextmanager
def nodes_are(notebook: Notebook, group: str, count: int) -> Iterator[list[str]]:
    """For a while the nodes are these of one group, and no others; gives their names."""
    names = [f"{group}[{index}]" for index in range(count)]
    notebook.write_nodes({name: {"group": group, "index": index, "roles": [], "state": "ready"} for index, name in enumerate(names)})
    try:
        yield names
    finally:
        notebook.write_nodes(NODES)


@pytest.mark.slow
def test_what_a_full_node_drops_is_counted(host_nodes: Path, start: Callable[..., Notebook], tmp_path: Path) -> None:
    """Where nobody reads while a node's store fills up, what is shown and what the marks count add up to every byte, now and later."""
    limit, size = 8 << 20, 60_000_000
    own = start(WARDIAN_TEST_JOURNAL=str(tmp_path / "journal.db"), WARDIAN_SPOOL_LIMIT=str(limit))
    router, done, begun = own.manager.provisioner.process.pid, tmp_path / "done", len("begun\n")
    written = begun + size + len("\nat the end\n")
    with nodes_are(own, "full", 1):
        waiting = f"until [ -e {tmp_path}/deaf ]; do sleep 0.01; done"
        cell = own.send(f"%%on full --lang bash\necho begun; {waiting}; {FLOOD.format(size=size)}; touch {done}")
        own.printed(cell, "begun")
        os.kill(router, signal.SIGSTOP)
        (tmp_path / "deaf").touch()
        try:
            wait_until(done.exists)
        finally:
            os.kill(router, signal.SIGCONT)
        result, again = own.result(cell), own.run("%output")
        told = own.run(f"%output --save {tmp_path}/all").text()
    assert result.status == "ok"
    assert result.text().endswith("at the end\n")
    assert "dropped" in result.text("stderr")
    assert begun + len(result.text()) + counted(result.text("stderr")) == written
    assert len(again.text()) + counted(again.text("stderr")) == written
    assert os.path.getsize(tmp_path / "all") == limit
    assert f"{written - limit:,} bytes more were not kept" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "size"), [(4, 10_000_000), pytest.param(10, 2_000_000_000, marks=[pytest.mark.long, pytest.mark.timeout(3000)])]
)
def test_a_flood(host_nodes: Path, start: Callable[..., Notebook], tmp_path: Path, count: int, size: int) -> None:
    """A flood on many nodes is shown cut, with exact counts and its end, takes little memory here, and is kept on each node."""
    own = start(WARDIAN_TEST_JOURNAL=str(tmp_path / "journal.db"))
    with nodes_are(own, "w", count) as names:
        own.run("%%on w --lang bash\ntrue")
        before = highest = resident(own)
        cell = own.send(f"%%on w --lang bash\n{FLOOD.format(size=size)}")
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
        reply = own.reply(cell)["content"]
        assert reply["status"] == "ok", reply
        saving = own.send(f"%output --save {tmp_path}/all")
        own.reply(saving, timeout=600)
    assert highest - before < 100
    written = size + len("\nat the end\n")
    shown, marks = lanes(text, names), lanes(errors, names)
    for name in names:
        assert shown[name].endswith("at the end\n")
        # a node's lines are shown whole: what began within a line that is cut gets a line of its own
        assert abs(len(shown[name]) + counted(marks[name]) - written) <= 1
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
