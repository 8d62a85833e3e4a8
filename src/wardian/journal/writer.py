"""The thread that writes: callers hand over plain rows and go on; a batch is one transaction."""

from __future__ import annotations

import atexit
import hashlib
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ..errors import JournalError
from .identifiers import new_id
from .redact import redact_text
from .store import INLINE_BLOB, Store

if TYPE_CHECKING:
    from sqlalchemy import Connection

GATHER_SECONDS = 0.02
"""How long the first row of a batch waits for company: what a killed process loses at most, and one transaction for a burst."""


@dataclass(slots=True)
class Insert:
    """A new row of an entry's table."""

    table: str
    row: dict[str, Any]


@dataclass(slots=True)
class Update:
    """New values for a row."""

    table: str
    id: str
    values: dict[str, Any]


@dataclass(slots=True)
class OutputRow:
    """One output of a cell; `content` is JSON."""

    cell_entry: str
    sequence: int
    node: str | None
    message_type: str
    content: str
    time: float


@dataclass(slots=True)
class Position:
    """Everything up to `sequence` of a store on a node is recorded once this is."""

    store: str
    sequence: int


Item = Insert | Update | OutputRow | Position
_STOP = object()


class Writer:
    """Owns the store's writing side. `id` marks this process' rows, so that a reader can tell whether their writer lives."""

    def __init__(self, target: Path | str) -> None:
        self.id = new_id()
        self.store: Store | None = None
        self.on_positions: Callable[[dict[str, int]], None] | None = None
        self._target = target
        self._held: list[Item] | None = None
        self._pid = os.getpid()
        host, boot, started = identity(self._pid)
        self._introduction: dict[str, Any] | None = {
            "id": self.id, "host": host, "boot": boot, "pid": self._pid, "pid_started": started, "opened": time.time(),
        }  # fmt: skip
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._urgent = threading.Event()
        self._opened = threading.Event()
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
            raise self._failure or JournalError(f"{self._target}: the journal is not open")
        return self.store

    def put(self, item: Item) -> None:
        """Hand over one row. Raises JournalError when earlier ones could not be written; they are kept, and tried again."""
        self._check_process()
        if self._closed:
            raise JournalError(f"{self._target}: the journal is closed")
        if self._failure is not None:
            self._queue.put(None)
            raise self._failure
        if self._held is not None:
            self._held.append(item)
        else:
            self._queue.put([item])

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is put within is written in one transaction. For journals that one thread writes to."""
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
        done = threading.Event()
        self._urgent.set()
        self._queue.put(done)
        done.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Flush and end the thread. Does nothing in a forked child, whose parent owns the connections."""
        if self._closed or os.getpid() != self._pid:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            atexit.unregister(self._at_exit)
            self._urgent.set()
            self._queue.put(_STOP)
            self._thread.join()
            if self.store:
                self.store.close()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise JournalError(
                f"{self._target}: the journal was opened by the process that forked this one", remedy="open it anew in the child"
            )

    def _run(self) -> None:
        try:
            self.store = Store.open(self._target)
        except JournalError as error:
            self._failure = error
            atexit.unregister(self._at_exit)
            return
        finally:
            self._opened.set()
        items: list[Item] = []
        stopping = False
        while not stopping:
            waiting: list[threading.Event] = []
            for item in self._gather():
                if item is _STOP:
                    stopping = True
                elif isinstance(item, threading.Event):
                    waiting.append(item)
                elif item is not None:
                    items.extend(item)
            try:
                self._write(items)
            except JournalError as error:
                self._failure = error
            else:
                self._failure = None
                positions = _positions(items)
                items = []
                if positions and self.on_positions:
                    self.on_positions(positions)
            for event in waiting:
                event.set()

    def _gather(self) -> list[Any]:
        batch = [self._queue.get()]
        if isinstance(batch[0], list):
            self._urgent.wait(GATHER_SECONDS)
        self._urgent.clear()
        try:
            while True:
                batch.append(self._queue.get_nowait())
        except Empty:
            return batch

    def _write(self, items: list[Item]) -> None:
        if not items:
            return
        store = self.opened()
        inserts, updates, outputs = _merge(items)
        with store.errors():
            blobs = _blobs(store, outputs)
        with store.writing() as connection:
            if self._introduction:
                _insert(connection, "writers", [self._introduction])
            for table, rows in inserts.items():
                _insert(connection, table, rows)
            _update(connection, updates)
            if outputs:
                _insert(connection, "blobs", list(blobs.values()), ignore_existing=True)
                _insert(connection, "outputs", [row for row, _ in outputs])
            _store_positions(connection, _positions(items))
        self._introduction = None


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


def blob_path(folder: Path, digest: str) -> Path:
    """Where a large blob is kept."""
    return folder / digest[:2] / digest


def _close_at_exit(reference: weakref.ref[Writer]) -> Any:
    def close() -> None:
        if writer := reference():
            writer.close()

    return close


Row = dict[str, Any]


def _merge(items: list[Item]) -> tuple[dict[str, list[Row]], dict[tuple[str, str], Row], list[tuple[Row, bytes]]]:
    """A batch as rows by table, updates by row, and outputs with their content; what begins and ends within a batch is written once."""
    inserts: dict[str, list[dict[str, Any]]] = {}
    updates: dict[tuple[str, str], dict[str, Any]] = {}
    outputs: list[tuple[dict[str, Any], bytes]] = []
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for item in items:
        if isinstance(item, Insert):
            row = rows[item.table, item.row["id"]] = _clean(item.row)
            inserts.setdefault(item.table, []).append(row)
        elif isinstance(item, Position):
            continue
        elif isinstance(item, Update):
            key = item.table, item.id
            (rows.get(key) or updates.setdefault(key, {})).update(_clean(item.values))
        else:
            content = redact_text(item.content).encode(errors="backslashreplace")
            outputs.append(
                (
                    {
                        "cell_entry": item.cell_entry,
                        "sequence": item.sequence,
                        "node": item.node,
                        "message_type": item.message_type,
                        "time": item.time,
                    },
                    content,
                )
            )
    return inserts, updates, outputs


def _positions(items: list[Item]) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in items:
        if isinstance(item, Position):
            found[item.store] = max(item.sequence, found.get(item.store, 0))
    return found


def _store_positions(connection: Connection, positions: dict[str, int]) -> None:
    from .tables import positions as table

    for store, sequence in positions.items():
        if not connection.execute(table.update().where(table.c.store == store).values(sequence=sequence)).rowcount:
            connection.execute(table.insert().values(store=store, sequence=sequence))


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    # names that are no UTF-8 come as lone surrogates, which a database refuses; NUL is refused by PostgreSQL
    return {
        name: redact_text(value).encode(errors="backslashreplace").decode().replace("\0", "\\x00") if isinstance(value, str) else value
        for name, value in row.items()
    }


def _insert(connection: Connection, table: str, rows: list[dict[str, Any]], *, ignore_existing: bool = False) -> None:
    from sqlalchemy.dialects import postgresql, sqlite

    from .tables import metadata

    insert = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(metadata.tables[table])
    connection.execute(insert.on_conflict_do_nothing() if ignore_existing else insert, rows)


def _update(connection: Connection, updates: dict[tuple[str, str], dict[str, Any]]) -> None:
    from sqlalchemy import bindparam

    from .tables import metadata

    groups: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}
    for (name, id), values in updates.items():
        groups.setdefault((name, tuple(sorted(values))), []).append({"row_id": id, **values})
    for (name, columns), rows in groups.items():
        table = metadata.tables[name]
        connection.execute(
            table.update().where(table.c.id == bindparam("row_id")).values({column: bindparam(column) for column in columns}), rows
        )


def _blobs(store: Store, outputs: list[tuple[dict[str, Any], bytes]]) -> dict[str, dict[str, Any]]:
    """The rows of the outputs' contents by digest, which each output's row gets; large ones are written beside the database."""
    blobs: dict[str, dict[str, Any]] = {}
    for row, content in outputs:
        digest = hashlib.sha256(content).hexdigest()
        row["blob"] = digest
        if digest in blobs:
            continue
        inline = store.blobs is None or len(content) <= INLINE_BLOB
        if store.blobs is not None and not inline:
            _write_blob(store.blobs, digest, content)
        blobs[digest] = {"sha256": digest, "size": len(content), "data": content if inline else None}
    return blobs


def _write_blob(folder: Path, digest: str, content: bytes) -> None:
    path = blob_path(folder, digest)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{digest}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
