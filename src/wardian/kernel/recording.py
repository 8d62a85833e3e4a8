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
        if self._path is not None:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wardian-recorder", daemon=True)
                self._thread.start()
            self._queue.put(lambda: self._begin(record, values))
        return record

    def close(self) -> None:
        """Write what is left."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=2.0)

    def _begin(self, record: Record, values: dict[str, Any]) -> None:
        if self._journal is None:
            from ..journal import Journal

            assert self._path is not None
            self._journal = Journal.open(self._path)
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
        if self._queue is not None and kind in RECORDED:
            self._queue.put(lambda: self.entry and self.entry.output(node, kind, json.loads(content)))

    def nodes(self, nodes: list[str]) -> None:
        """Where it runs."""
        if self._queue is not None:
            self._queue.put(lambda: self.entry and self.entry.amend(nodes=nodes))

    def done(self, reply: dict[str, Any]) -> None:
        """It ended with this reply."""
        if self._queue is None:
            return
        if reply.get("status") == "ok":
            self._queue.put(lambda: self.entry and self.entry.done("ok"))
            return
        status = "cancelled" if reply.get("status") == "aborted" or reply.get("ename") == "KeyboardInterrupt" else "failed"
        error = f"{reply.get('ename')}: {reply.get('evalue')}" if reply.get("ename") else None
        self._queue.put(lambda: self.entry and self.entry.done(status, error))
