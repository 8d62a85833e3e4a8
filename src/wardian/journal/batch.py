"""What is handed to the writer, and how a batch of it becomes rows: in one transaction, and the same if it is written twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .records import PACKAGES
from .redact import Redactor
from .store import INLINE_BLOB, Store

if TYPE_CHECKING:
    from sqlalchemy import Compiled, Dialect

    from .store import Transaction


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
class Position:
    """Everything up to `sequence` of a store on a node is recorded once this is."""

    store: str
    sequence: int


@dataclass(slots=True)
class Document:
    """A row of `table` that names a JSON document, which is kept by its content: an output, a fact."""

    table: str
    row: dict[str, Any]
    content: str


Item = Insert | Update | Document | Position
Row = dict[str, Any]


def write(store: Store, items: Sequence[Item], introduction: Row | None, redactor: Redactor) -> None:
    """Write a batch. introduction: the writer's own row, once. What is there already, since an earlier try came through, stays as it is."""
    inserts, updates, documents = _merge(items, redactor)
    with store.errors():
        blobs = _blobs(store, documents)
    with store.batch() as transaction:
        if introduction:
            _insert(transaction, "writers", [introduction])
        for table, rows in inserts.items():
            _insert(transaction, table, rows)
        _update(transaction, updates)
        _keep_files(store, documents, blobs)
        # in one order in every process, so that none waits for another in a circle
        _insert(transaction, "blobs", [blobs[digest] for digest in sorted(blobs)])
        for table in {item.table: None for item, _ in documents}:
            _insert(transaction, table, [item.row for item, _ in documents if item.table == table])
        _store_positions(transaction, positions_in(items))


def size(items: Sequence[Item]) -> int:
    """About how much memory a batch takes, bytes."""
    return sum(len(item.content) + 500 if isinstance(item, Document) else 1000 for item in items)


def positions_in(items: Sequence[Item]) -> dict[str, int]:
    """How far the messages of stores are recorded once these are: {store: number of the last}."""
    found: dict[str, int] = {}
    for item in items:
        if isinstance(item, Position):
            found[item.store] = max(item.sequence, found.get(item.store, 0))
    return found


def blob_path(folder: Path, digest: str) -> Path:
    """Where a large blob is kept."""
    return folder / digest[:2] / digest


def _merge(
    items: Sequence[Item], redactor: Redactor
) -> tuple[dict[str, list[Row]], dict[tuple[str, str], Row], list[tuple[Document, bytes]]]:
    """A batch as rows by table, updates by row, and documents with their content; what begins and ends within it is written once."""
    inserts: dict[str, list[Row]] = {}
    updates: dict[tuple[str, str], Row] = {}
    documents: list[tuple[Document, bytes]] = []
    rows: dict[tuple[str, str], Row] = {}
    for item in items:
        if isinstance(item, Insert):
            row = rows[item.table, item.row["id"]] = _clean(item.row, redactor)
            inserts.setdefault(item.table, []).append(row)
        elif isinstance(item, Update):
            key = item.table, item.id
            (rows.get(key) or updates.setdefault(key, {})).update(_clean(item.values, redactor))
        elif isinstance(item, Document):
            redacted = redactor.packages if item.row.get("name", "").startswith(PACKAGES) else redactor.json
            documents.append((item, redacted(item.content).encode(errors="backslashreplace")))
    return inserts, updates, documents


def _store_positions(transaction: Transaction, positions: dict[str, int]) -> None:
    if positions:
        rows = [{"store": name, "sequence": positions[name]} for name in sorted(positions)]
        transaction.execute(_advance(transaction.dialect), rows)


_JSON = frozenset({"parameters", "detail", "targets", "nodes"})
_OURS = frozenset({"id", "writer", "run", "status", "session", "source_digest"})
"""Columns of which nothing comes from outside but by an extract, which is checked."""


def _clean(row: Mapping[str, Any], redactor: Redactor) -> Row:
    cleaned = dict(row)
    for name, value in row.items():
        if isinstance(value, str) and name not in _OURS:
            cleaned[name] = _text(redactor.json(value) if name in _JSON else redactor(value))
    return cleaned


def _text(text: str) -> str:
    # names that are no UTF-8 come as lone surrogates, which a database refuses; NUL is refused by PostgreSQL
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _insert(transaction: Transaction, table: str, rows: list[Row]) -> None:
    if rows:
        transaction.execute(_insertion(transaction.dialect, table, tuple(rows[0])), rows)


def _update(transaction: Transaction, updates: dict[tuple[str, str], Row]) -> None:
    groups: dict[tuple[str, tuple[str, ...]], list[Row]] = {}
    for (name, id), values in updates.items():
        groups.setdefault((name, tuple(sorted(values))), []).append({"row_id": id, **values})
    for (name, columns), rows in groups.items():
        transaction.execute(_change(transaction.dialect, name, columns), rows)


# Statements are put together once: that costs more than all that SQLite does for a batch.


@lru_cache
def _insertion(dialect: Dialect, table: str, columns: tuple[str, ...]) -> Compiled:
    statement: Compiled = _into(dialect, table).on_conflict_do_nothing().compile(dialect=dialect, column_keys=list(columns))
    return statement


@lru_cache
def _advance(dialect: Dialect) -> Compiled:
    insert = _into(dialect, "positions")
    upsert = insert.on_conflict_do_update(index_elements=["store"], set_={"sequence": insert.excluded.sequence})
    statement: Compiled = upsert.compile(dialect=dialect, column_keys=["store", "sequence"])
    return statement


def _into(dialect: Dialect, table: str) -> Any:
    from sqlalchemy.dialects import postgresql, sqlite

    from .tables import metadata

    return (postgresql.insert if dialect.name == "postgresql" else sqlite.insert)(metadata.tables[table])


@lru_cache
def _change(dialect: Dialect, name: str, columns: tuple[str, ...]) -> Compiled:
    from sqlalchemy import bindparam

    from .tables import metadata

    table = metadata.tables[name]
    values: Row = {column: bindparam(column) for column in columns}
    return table.update().where(table.c.id == bindparam("row_id")).values(values).compile(dialect=dialect)


def _blobs(store: Store, documents: list[tuple[Document, bytes]]) -> dict[str, Row]:
    """The rows of the documents' contents by digest, which each document's row gets; large ones are written beside the database."""
    blobs: dict[str, Row] = {}
    for item, content in documents:
        digest = hashlib.sha256(content).hexdigest()
        item.row["blob"] = digest
        if digest in blobs:
            continue
        inline = store.blobs is None or len(content) <= INLINE_BLOB
        if store.blobs is not None and not inline:
            _write_blob(store.blobs, digest, content)
        blobs[digest] = {"sha256": digest, "size": len(content), "data": content if inline else None}
    return blobs


def _keep_files(store: Store, documents: list[tuple[Document, bytes]], blobs: dict[str, Row]) -> None:
    """Within the transaction, when no removal can go on: write the files anew that one took away since."""
    for item, content in documents:
        digest = item.row["blob"]
        if store.blobs is not None and blobs[digest]["data"] is None:
            _write_blob(store.blobs, digest, content)


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
