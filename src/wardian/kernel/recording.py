"""Cells in the journal, off the path that a user waits on: a thread of its own, and a journal that fails never fails a cell."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..errors import JournalError

if TYPE_CHECKING:
    from ..journal import CellEntry, Journal

log = logging.getLogger("wardian.kernel")

RECORDED = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"})
"""The message types that make a cell's output."""


class Recorder:
    """Hands what happens to the journal. Without a journal it does nothing."""

    def __init__(self, path: Path | None) -> None:
        """path: of the journal's file; it is opened when the first cell runs."""
        self._path = path
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._journal: Journal | None = None

    def cell(self, **values: Any) -> Record:
        """A cell begins. values: those of `Journal.cell`."""
        record = Record(self._queue if self._path else None)
        if (path := self._path) is not None:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wardian-recorder", daemon=True)
                self._thread.start()
            self._queue.put(lambda: self._begin(path, record, values))
        return record

    def close(self) -> None:
        """Write what is left."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=2.0)

    def _begin(self, path: Path, record: Record, values: dict[str, Any]) -> None:
        if self._journal is None:
            # Opened here, on the thread: its libraries take a while to load.
            from ..journal import Journal

            self._journal = Journal.open(path)
        record.entry = self._journal.cell(**values)

    def _run(self) -> None:
        failed = False
        while (work := self._queue.get()) is not None:
            if failed:
                continue
            try:
                work()
            except JournalError as error:
                failed = True
                log.warning("cells are no longer recorded: %s", error)
        if self._journal is not None:
            try:
                self._journal.close()
            except JournalError as error:
                log.warning("the last cells are not recorded: %s", error)


class Record:
    """One cell's entry in the journal."""

    def __init__(self, queue: SimpleQueue[Callable[[], None] | None] | None) -> None:
        self.entry: CellEntry | None = None
        self._queue = queue

    def output(self, node: str | None, kind: str, content: bytes) -> None:
        """A message that it sent; node None is home. content: JSON."""
        if kind in RECORDED:
            self._put(lambda entry: entry.output(node, kind, json.loads(content)))

    def nodes(self, nodes: list[str]) -> None:
        """Where it runs."""
        self._put(lambda entry: entry.amend(nodes=nodes))

    def done(self, reply: dict[str, Any]) -> None:
        """It ended with this reply."""
        if reply.get("status") == "ok":
            self._put(lambda entry: entry.done("ok"))
            return
        status = "cancelled" if reply.get("ename") == "KeyboardInterrupt" else "failed"
        error = f"{reply.get('ename')}: {reply.get('evalue')}" if reply.get("ename") else None
        self._put(lambda entry: entry.done(status, error))

    def _put(self, write: Callable[[CellEntry], None]) -> None:
        if self._queue is None:
            return

        def work() -> None:
            if self.entry is not None:
                write(self.entry)

        self._queue.put(work)
