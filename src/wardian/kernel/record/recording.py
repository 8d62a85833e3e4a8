"""Cells in the journal, off the path that a user waits on: a thread of its own, and a journal that fails never fails a cell.

What comes from a node is acknowledged to its agent only once the journal has it, and the journal notes, in the same transaction, how far
the node's messages are recorded. So a kernel of the notebook that is killed at any moment loses nothing and its successor, which is
sent everything unacknowledged, records nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import JournalError
from ..front.flow import Excerpt, Printed

if TYPE_CHECKING:
    from ...journal import CellEntry, Journal, LogEntry, Output

T = TypeVar("T")
log = logging.getLogger("wardian.kernel")

RECORDED = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"})
"""The message types that make a cell's output."""
REPLY = "execute_reply"
"""Under this type the journal has how a cell ended on each of its nodes."""

LIMIT = int(os.environ.get("WARDIAN_RECORD_LIMIT", 16 * 2**20))
"""How much of what a cell prints on one node is recorded, bytes; beyond it only its end."""
_FULL, _ROOM = 16 * 2**20, 8 * 2**20
"""With so many bytes on their way to the disk nodes are held back, and go on with so many."""
_GATHERED = 256
"""How many turns are taken from the queue at once."""
_GATHER = 0.05
"""How long the first of them waits for company, seconds: a killed kernel loses these of home's cells at most. A transaction costs
as much as what ten short cells write, and this thread and the cells that run want the same interpreter."""
_MARK = b'"left_out"'
"""In the content of a mark, which stays an entry of its own."""
_PIECE = 2**16
"""How large pieces of a stream become that are recorded as one, bytes."""


@dataclass(slots=True)
class _Output:
    """A message of a cell. content: JSON. name, texts: of a stream, once pieces of it are gathered here."""

    record: Record
    node: str | None
    kind: str
    content: bytes
    name: str = ""
    texts: list[str] | None = None
    size: int = 0

    def write(self) -> None:
        """On the recorder's thread: put it into the journal."""
        value = json.loads(self.content) if self.texts is None else {"name": self.name, "text": "".join(self.texts)}
        if self.record.entry is not None:
            self.record.entry.output(self.node, self.kind, value)


class _Question:
    """Something that is read from the journal. Called on the recorder's thread."""

    def __init__(self, work: Callable[[Journal], Any], answered: Callable[[Any, JournalError | None], None]) -> None:
        self._work, self.answered = work, answered

    def __call__(self, journal: Journal) -> None:
        try:
            self.answered(self._work(journal), None)
        except JournalError as error:
            self.answered(None, error)


_Step = _Output | Callable[["Journal"], None]


@dataclass(slots=True)
class _Turn:
    """What one message causes in the journal: written as a whole, along with the message's number in its store."""

    steps: list[_Step]
    store: str | None = None
    sequence: int = 0

    def write(self, journal: Journal) -> None:
        """On the recorder's thread, among turns that are recorded together: put it into the journal."""
        for step in self.steps:
            if isinstance(step, _Output):
                step.write()
            else:
                step(journal)
        if self.store is not None:
            journal.advance(self.store, self.sequence)


@dataclass(slots=True)
class _Owed:
    """Messages of one store that are handled and not yet recorded: the sizes of those that will be, and the number of the last of all."""

    sizes: deque[tuple[int, int]] = field(default_factory=deque)
    last: int = 0


class Recorder:
    """Hands what happens to the journal. Without a journal it does nothing.

    on_recorded(store, sequence): everything of a store up to this number may be forgotten there.
    on_full(bool): whether more comes than the disk takes.
    """

    def __init__(self, target: Path | str | None) -> None:
        """target: where the journal is kept; it is opened when the first cell runs."""
        self.on_recorded: Callable[[str, int], None] = lambda store, sequence: None
        self.on_full: Callable[[bool], None] = lambda full: None
        self._target = target
        self._queue: SimpleQueue[_Turn | None] = SimpleQueue()
        self._urgent = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: _Turn | None = None
        self._owed: dict[str, _Owed] = {}
        self._hidden: set[str] = set()
        self._under_way = 0
        self._full = False
        self._failed = target is None

    def cell(self, **values: Any) -> Record:
        """A cell begins. values: those of `Journal.cell`."""
        record = Record(self)

        def begin(journal: Journal) -> None:
            record.entry = journal.cell(**values)

        self.put(begin)
        return record

    def hide(self, secrets: set[str]) -> None:
        """Keep these texts out of all that is recorded from now on."""
        if added := secrets - self._hidden:
            self._hidden |= added
            self.put(lambda journal: journal.hide(added))

    def begin(self, store: str, sequence: int) -> None:
        """What is recorded from here to `end` is caused by this message of a node."""
        self._turn = _Turn([], store, sequence)

    def end(self) -> None:
        """The message has been handled."""
        turn, self._turn = self._turn, None
        if turn is None or turn.store is None:
            return
        owed = self._owed.get(turn.store)
        if turn.steps and not self._failed:
            size = sum(len(step.content) for step in turn.steps if isinstance(step, _Output))
            owed = owed or self._owed.setdefault(turn.store, _Owed())
            owed.sizes.append((turn.sequence, size))
            owed.last = turn.sequence
            self._count(size)
            self._enqueue(turn)
        elif owed:
            owed.last = turn.sequence
        else:
            self.on_recorded(turn.store, turn.sequence)

    def put(self, step: _Step) -> None:
        """One thing to record."""
        if self._failed:
            return
        if self._turn is not None:
            self._turn.steps.append(step)
        else:
            self._enqueue(_Turn([step]))

    async def ask(self, work: Callable[[Journal], T]) -> T:
        """Read from the journal. Raises JournalError."""
        if self._failed:
            raise JournalError("nothing is recorded here", remedy="a notebook beside an experiment.yaml has a journal")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def set_answer(result: T, error: JournalError | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        self._enqueue(_Turn([_Question(work, lambda result, error: self._call(set_answer, result, error))]))
        self._urgent.set()
        return await answer

    async def position(self, store: str) -> int:
        """The number of the last message of a store that an earlier kernel recorded."""
        try:
            return await self.ask(lambda journal: journal.position(store))
        except JournalError:
            return 0

    async def unfinished(self, notebook: str) -> list[Unfinished]:
        """The cells of a notebook whose end an earlier kernel did not live to see."""
        if self._target is None or (isinstance(self._target, Path) and not self._target.exists()):
            return []

        def read(journal: Journal) -> list[Unfinished]:
            return [self._resume(journal, entry) for entry in journal.unfinished_cells(notebook)]

        try:
            return await self.ask(read)
        except JournalError:
            return []

    async def durations(self, notebook: str) -> dict[str, float]:
        """How long each cell of a notebook took when it ended well last, by its id, seconds."""
        if self._target is None or (isinstance(self._target, Path) and not self._target.exists()):
            return {}
        try:
            return await self.ask(lambda journal: journal.durations(notebook))
        except JournalError:
            return {}

    def close(self) -> None:
        """Write what is left."""
        if self._thread is not None:
            self._queue.put(None)
            self._urgent.set()
            self._thread.join(timeout=2.0)

    def _resume(self, journal: Journal, entry: LogEntry) -> Unfinished:
        record = Record(self)
        record.entry = journal.resume(entry.id)
        outputs = journal.outputs(entry.id)
        record.recorded(outputs)
        replies = {output.node: dict(output.content) for output in outputs if output.message_type == REPLY and output.node}
        return Unfinished(entry, record, replies, outputs)

    # --- on the loop

    def _enqueue(self, turn: _Turn) -> None:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="wardian-recorder", daemon=True)
            self._thread.start()
        self._queue.put(turn)

    def _count(self, size: int) -> None:
        self._under_way += size
        if self._full != (self._under_way > (_ROOM if self._full else _FULL)):
            self._full = not self._full
            self.on_full(self._full)

    def _written(self, positions: dict[str, int]) -> None:
        for store, sequence in positions.items():
            owed = self._owed.get(store)
            if owed is None:
                continue
            size = 0
            while owed.sizes and owed.sizes[0][0] <= sequence:
                size += owed.sizes.popleft()[1]
            if not owed.sizes:
                sequence = owed.last
                del self._owed[store]
            self.on_recorded(store, sequence)
            self._count(-size)

    def _give_up(self, error: JournalError | None) -> None:
        if not self._failed:
            log.warning("cells are no longer recorded: %s", error or "the journal cannot be written")
        self._failed = True
        owed, self._owed = self._owed, {}
        for store, rest in owed.items():
            self.on_recorded(store, rest.last)
        self._count(-self._under_way)

    # --- on the thread

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _run(self) -> None:
        # Imported and opened here, on the thread: its libraries take a while to load.
        from ...journal import Journal

        journal: Journal | None = None
        try:
            journal = Journal.open(self._target or "", gather=0)
            journal.on_positions(lambda positions: self._call(*((self._written, positions) if positions else (self._give_up, None))))
            while (turns := self._next_turns()) is not None:
                with journal.together():
                    for turn in turns:
                        turn.write(journal)
        except JournalError as error:
            self._call(self._give_up, error)
            while (left := self._queue.get()) is not None:
                for step in left.steps:
                    if isinstance(step, _Question):
                        step.answered(None, error)
        try:
            if journal is not None:
                journal.close()
        except JournalError as error:
            log.warning("the last cells are not recorded: %s", error)

    def _next_turns(self) -> list[_Turn] | None:
        """What has come since, the pieces of one stream made one; None at the end."""
        turn = self._queue.get()
        if turn is not None and self._queue.empty():
            self._urgent.wait(_GATHER)
        self._urgent.clear()
        turns: list[_Turn] = []
        try:
            while turn is not None:
                if not (turns and _joined(turns[-1], turn)):
                    turns.append(turn)
                if len(turns) > _GATHERED:
                    return turns
                turn = self._queue.get_nowait()
        except Empty:
            return turns
        if turns:
            self._queue.put(None)
            return turns
        return None


class Record:
    """One cell's entry in the journal."""

    def __init__(self, recorder: Recorder) -> None:
        self.entry: CellEntry | None = None
        self._recorder = recorder
        self._excerpts: dict[str | None, Excerpt] = {}

    @property
    def name(self) -> str | None:
        """What `%output` knows the cell by, or None where it is not recorded."""
        return self.entry.id[-8:] if self.entry is not None else None

    def output(self, node: str | None, kind: str, content: bytes) -> None:
        """A message that it sent; node None is home. content: JSON."""
        if kind not in RECORDED:
            return
        if kind == "stream":
            excerpt = self._excerpts.get(node) or self._excerpts.setdefault(node, Excerpt(LIMIT))
            if not excerpt.passes(len(content)):
                piece = Printed.of(json.loads(content))
                head = excerpt.take(piece)
                if head:
                    self._put_piece(node, Printed(piece.name, head))
                return
        else:
            self._release(node)
        self._recorder.put(_Output(self, node, kind, content))

    def begun(self) -> None:
        """A node has begun it: that may be forgotten there once the cell is in the journal."""
        self._put(lambda entry: None)

    def nodes(self, nodes: list[str]) -> None:
        """Where it runs."""
        self._put(lambda entry: entry.amend(nodes=nodes))

    def ended(self, node: str | None, reply: dict[str, Any]) -> None:
        """It ended on one node, or at home, with this reply."""
        self._release(node)
        if node is not None:
            short = {key: reply[key] for key in ("status", "ename", "evalue", "execution_count") if key in reply}
            self._recorder.put(_Output(self, node, REPLY, json.dumps(short).encode()))

    def done(self, reply: dict[str, Any]) -> None:
        """It ended with this reply."""
        if reply.get("status") == "ok":
            self._put(lambda entry: entry.done("ok"))
            return
        status = "cancelled" if reply.get("ename") == "KeyboardInterrupt" else "failed"
        error = f"{reply.get('ename')}: {reply.get('evalue')}" if reply.get("ename") else None
        self._put(lambda entry: entry.done(status, error))

    def recorded(self, outputs: tuple[Output, ...]) -> None:
        """An earlier kernel has recorded these already."""
        for output in outputs:
            if output.message_type == "stream":
                excerpt = self._excerpts.setdefault(output.node, Excerpt(LIMIT))
                piece = Printed.of(dict(output.content))
                if not excerpt.passes(len(piece.text)):
                    excerpt.take(piece)

    def _put_piece(self, node: str | None, piece: Printed) -> None:
        self._recorder.put(_Output(self, node, "stream", json.dumps(piece.content).encode()))

    def _release(self, node: str | None) -> None:
        excerpt = self._excerpts.get(node)
        omission = excerpt.release() if excerpt else None
        if omission is not None:
            pieces = omission.tail
            if omission.left_out.size:
                text = f"[{omission.what} are not recorded: of a cell the journal keeps {LIMIT} bytes a node, and the end]\n"
                pieces = [Printed("stderr", text, omission.left_out), *pieces]
            for piece in pieces:
                self._put_piece(node, piece)

    def _put(self, write: Callable[[CellEntry], None]) -> None:
        def work(journal: Journal) -> None:
            if self.entry is not None:
                write(self.entry)

        self._recorder.put(work)


@dataclass(frozen=True)
class Unfinished:
    """A cell that an earlier kernel left. replies: how it ended on the nodes where that is known. outputs: all that is recorded."""

    entry: LogEntry
    record: Record
    replies: dict[str, dict[str, Any]]
    outputs: tuple[Output, ...]


def _joined(turn: _Turn, next_turn: _Turn) -> bool:
    """Make two turns one if they are pieces of one stream; whether they are."""
    if turn.store != next_turn.store or len(turn.steps) != 1 or len(next_turn.steps) != 1:
        return False
    one, other = turn.steps[0], next_turn.steps[0]
    if not (isinstance(one, _Output) and isinstance(other, _Output)) or one.kind != "stream" or other.kind != "stream":
        return False
    if _MARK in one.content or _MARK in other.content:
        return False
    if one.record is not other.record or one.node != other.node or max(one.size, len(one.content)) + len(other.content) > _PIECE:
        return False
    if one.texts is None:
        one.name, one.texts, one.size = *_stream(one.content), len(one.content)
    name, texts = _stream(other.content)
    if name != one.name:
        return False
    one.texts += texts
    one.size += len(other.content)
    turn.sequence = next_turn.sequence
    return True


def _stream(content: bytes) -> tuple[str, list[str]]:
    value = json.loads(content)
    return str(value.get("name", "stdout")), [str(value.get("text", ""))]
