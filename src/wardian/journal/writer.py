"""The thread that writes: callers hand over plain rows and go on; a batch is one transaction."""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import JournalError
from . import batch
from .batch import Item
from .identifiers import new_id
from .postgres import Unreachable
from .redact import Redactor, secrets_in
from .store import Store, shown

GATHER_SECONDS = 0.02
"""How long the first row of a batch waits for company where nothing else is said: what a killed process loses at most, and one transaction
for a burst."""

RETRY_SECONDS = (0.25, 10.0)
"""How long after a failure to reach the server it is tried again: at first, and at most."""
LAST_SECONDS = 10.0
"""How long a process that ends waits for a server that does not answer."""
MOST_HELD = 12 * 2**20
"""With so many bytes kept for a server that does not answer, recording becomes an error. Below what the kernel lets nodes run ahead."""

_STOP = object()


class Writer:
    """Owns the store's writing side. `id` marks this process' rows, so that a reader can tell whether their writer lives."""

    def __init__(self, target: Path | str, gather: float = GATHER_SECONDS) -> None:
        """gather: how long the first row of a batch waits for company."""
        self.id = new_id()
        self.store: Store | None = None
        self.on_positions: Callable[[dict[str, int]], None] | None = None
        self._target = target
        self._gather_seconds = gather
        self._held: list[Item] | None = None
        self._pid = os.getpid()
        host, boot, started = identity(self._pid)
        self._introduction: dict[str, Any] | None = {
            "id": self.id, "host": host, "boot": boot, "pid": self._pid, "pid_started": started, "opened": time.time(),
        }  # fmt: skip
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._urgent = threading.Event()
        self._opened = threading.Event()
        self.redactor = Redactor(secrets_in(os.environ))
        # why the last try failed, and whether callers are told of it at once
        self._trouble: JournalError | None = None
        self._failure: JournalError | None = None
        self._closed = False
        self._at_exit = _close_at_exit(weakref.ref(self))
        atexit.register(self._at_exit)
        self._thread = threading.Thread(target=self._run, name="wardian-journal", daemon=True)
        self._thread.start()

    def opened(self) -> Store:
        """The store, as soon as it is open. Raises JournalError if it cannot be opened."""
        self._opened.wait()
        if self.store is None:
            raise self._failure or JournalError(f"{shown(self._target)}: the journal is not open")
        return self.store

    def put(self, item: Item) -> None:
        """Hand over one row. Raises JournalError when earlier ones could not be written; they are kept, and tried again."""
        self._check_process()
        if self._closed:
            raise JournalError(f"{shown(self._target)}: the journal is closed")
        if self._failure is not None:
            self._queue.put(None)
            raise self._failure
        if self._held is not None:
            self._held.append(item)
        else:
            self._queue.put([item])

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is put within, by others of these too, is written in one transaction. For journals that one thread writes to."""
        if self._held is not None:
            yield
            return
        held = self._held = []
        try:
            yield
        finally:
            self._held = None
            if held:
                self._queue.put(held)

    def flush(self) -> None:
        """Wait until everything handed over so far is in the database. Raises JournalError if it cannot be."""
        self._check_process()
        if self._closed:
            return
        self.opened()
        if self._held:
            # whoever asks amid such entries wants to see those before
            self._queue.put(self._held.copy())
            self._held.clear()
        done = threading.Event()
        self._urgent.set()
        self._queue.put(done)
        done.wait()
        if self._trouble is not None:
            raise self._trouble

    def close(self) -> None:
        """Write what is left, and end the thread; a server that does not answer is given some seconds to come back.

        Does nothing in a forked child, whose parent owns the connections.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        self._urgent.set()
        self._queue.put(_STOP)
        self._thread.join()
        if self.store:
            self.store.close()
        if self._trouble is not None:
            raise self._trouble

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise JournalError(
                f"{shown(self._target)}: the journal was opened by the process that forked this one", remedy="open it anew in the child"
            )

    def _run(self) -> None:
        try:
            self.store = Store.open(self._target)
        except JournalError as error:
            self._failure = self._trouble = error
            atexit.unregister(self._at_exit)
            return
        finally:
            self._opened.set()
        backlog = _Backlog()
        stopping = False
        while not stopping:
            waiting: list[threading.Event] = []
            for item in self._gather(backlog.patience()):
                if item is _STOP:
                    stopping = True
                elif isinstance(item, threading.Event):
                    waiting.append(item)
                elif item is not None:
                    backlog.items.extend(item)
            if waiting or stopping or backlog.patience() in (None, 0):
                self._write(backlog)
            for event in waiting:
                event.set()
        last = time.monotonic() + LAST_SECONDS
        while backlog.away and time.monotonic() < last:
            time.sleep(max(0.0, min(backlog.patience() or 0.0, last - time.monotonic())))
            self._write(backlog)
        if self._trouble is not None and backlog.items:
            self._trouble.message += f"; {len(backlog.items)} entries are lost"

    def _gather(self, patience: float | None) -> list[Any]:
        """What there is to write. patience: seconds after which it is tried again without anything new, None for never."""
        found: list[Any] = []
        try:
            found.append(self._queue.get(timeout=patience))
            if isinstance(found[0], list):
                self._urgent.wait(self._gather_seconds)
            self._urgent.clear()
            while True:
                found.append(self._queue.get_nowait())
        except Empty:
            return found

    def _write(self, backlog: _Backlog) -> None:
        """Try to write all there is."""
        if not backlog.items:
            return
        try:
            batch.write(self.opened(), backlog.items, self._introduction, self.redactor)
        except JournalError as error:
            self._trouble = error
            backlog.failed(isinstance(error, Unreachable))
            # a server that is away for a while is nobody's concern until it shows that it stays away
            self._failure = error if not backlog.away or batch.size(backlog.items) > MOST_HELD else None
        else:
            self._failure = self._trouble = self._introduction = None
            positions = batch.positions_in(backlog.items)
            backlog.written()
            if positions and self.on_positions:
                self.on_positions(positions)


class _Backlog:
    """What is not written yet, and when that is tried again."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.away = False
        self._delay = RETRY_SECONDS[0]
        self._again = 0.0

    def failed(self, away: bool) -> None:
        """It could not be written. away: for the server did not answer."""
        if away:
            self._again = time.monotonic() + self._delay
            self._delay = min(2 * self._delay, RETRY_SECONDS[1])
        self.away = away

    def written(self) -> None:
        """It was."""
        self.items = []
        self.away = False
        self._delay = RETRY_SECONDS[0]

    def patience(self) -> float | None:
        """Seconds until it is time to try again, though nobody asks; None where only something new is a reason."""
        return max(0.0, self._again - time.monotonic()) if self.away else None


def identity(pid: int) -> tuple[str, str, str]:
    """(host, its boot, the start time of the process) as text; the last is empty when there is no such process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return socket.gethostname(), boot, ""
    # the command's name, in parentheses, may hold spaces; the start time is field 22
    state, *fields = stat.rpartition(")")[2].split()
    return socket.gethostname(), boot, "" if state in "ZX" else fields[18]


def _close_at_exit(reference: weakref.ref[Writer]) -> Any:
    def close() -> None:
        if writer := reference():
            writer.close()

    return close
