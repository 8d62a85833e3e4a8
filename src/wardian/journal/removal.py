"""Removing runs from a journal, and the contents that nothing names any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, text, union

from . import tables
from .batch import blob_path
from .store import Store

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SOME = 500


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal removed. bytes: of contents."""

    runs: int = 0
    contents: int = 0
    bytes: int = 0


def remove(store: Store, runs: Sequence[str]) -> Removed:
    """Remove runs with all that belongs to them. runs: ids, in full. Other processes may go on recording."""
    with store.writing() as connection:
        if connection.dialect.name == "postgresql":
            # who records names contents that are there already: none must go between its look and its commit
            connection.execute(text("LOCK TABLE blobs IN EXCLUSIVE MODE"))
        removed = sum(_remove_some(connection, runs[start : start + _SOME]) for start in range(0, len(runs), _SOME))
        named = union(select(tables.outputs.c.blob), select(tables.facts.c.blob))
        blobs = tables.blobs
        orphans = connection.execute(select(blobs.c.sha256, blobs.c.size).where(blobs.c.sha256.not_in(named))).all()
        for start in range(0, len(orphans), _SOME):
            some = [digest for digest, _ in orphans[start : start + _SOME]]
            connection.execute(delete(blobs).where(blobs.c.sha256.in_(some)))
        for digest, _ in orphans:
            if store.blobs is not None:
                blob_path(store.blobs, digest).unlink(missing_ok=True)
    return Removed(removed, len(orphans), sum(size for _, size in orphans))


def _remove_some(connection: Connection, runs: Sequence[str]) -> int:
    cells = select(tables.cells.c.id).where(tables.cells.c.run.in_(runs))
    connection.execute(delete(tables.outputs).where(tables.outputs.c.cell_entry.in_(cells)))
    for table in (tables.facts, tables.cells, tables.operations, tables.transfers, tables.events):
        connection.execute(delete(table).where(table.c.run.in_(runs)))
    return connection.execute(delete(tables.runs).where(tables.runs.c.id.in_(runs))).rowcount
