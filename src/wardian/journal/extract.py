"""Runs as lines of JSON, out of one journal and into another, so that they can go along with an experiment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, Column, Double, Integer, String, Table, select

from ..errors import JournalError
from . import queries, tables
from .batch import Document, Insert, Item, write
from .redact import Redactor
from .store import Store

if TYPE_CHECKING:
    from sqlalchemy import Connection

VERSION = 1
_HEAD = {"format": "wardian-journal", "version": VERSION}
_ENTRIES = {
    "run": tables.runs, "operation": tables.operations, "cell": tables.cells, "transfer": tables.transfers, "event": tables.events,
}  # fmt: skip
_DOCUMENTS = {"outputs": tables.outputs, "facts": tables.facts}
_TABLES = {table.name: table for table in _ENTRIES.values()} | _DOCUMENTS
_PATHS = {"runs": ("notebook", "experiment"), "cells": ("notebook",)}
"""Columns by which a record belongs to a file."""
_ELSEWHERE = "an extract"
"""Who wrote rows that were taken in; no process that lives."""

Paths = Callable[[str], str]


def lines(store: Store, runs: Sequence[str], relative: Paths) -> Iterator[str]:
    """These runs with all that belongs to them. runs: ids, in full. relative: what is written in place of the paths of their files."""
    yield _line(_HEAD)
    for run in sorted(runs):
        (head,) = queries.entries(store, kinds=["run"], run=queries.find_run(store, run))
        entries = [head, *queries.belonging(store, head)]
        cells = [entry.id for entry in entries if entry.kind == "cell"]
        with store.reading() as connection:
            contents: set[str] = set()
            documents = [*_rows(connection, tables.outputs, "cell_entry", cells), *_rows(connection, tables.facts, "run", [run])]
            for _, row in documents:
                if row["blob"] not in contents:
                    contents.add(row["blob"])
                    yield _line({"content": row["blob"], "text": _content(store, connection, row["blob"])})
            for kind, table in _ENTRIES.items():
                for name, row in _rows(connection, table, "id", [entry.id for entry in entries if entry.kind == kind]):
                    moved = {column: relative(row[column]) for column in _PATHS.get(name, ()) if row[column] is not None}
                    # what happened around it without being a part of it has nothing else here that it could belong to
                    yield _line({"table": name, **row, **moved, "run": head.id})
            for name, row in documents:
                yield _line({"table": name, **row})


def take_in(store: Store, extract: Iterable[str], absolute: Paths) -> list[str]:
    """Record what an extract holds, and give the ids of its runs. Runs that are in the journal already stay as they are.

    absolute: the paths of files for those that the extract has. Raises JournalError naming the line where it is not an extract, and
    for one that would add to what is recorded of another run.
    """
    items: list[Insert | Document] = []
    contents: dict[str, str] = {}
    for number, text in enumerate(extract, 1):
        try:
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError("not an object")
            if number == 1:
                _check_head(line)
            elif "content" in line:
                contents[_checked_content(line)] = line["text"]
            else:
                items.append(_item(line, contents, absolute))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(f"line {number}: {f'lacks {error}' if isinstance(error, KeyError) else error}") from None
    runs = [item.row["id"] for item in items if item.table == "runs"]
    write(store, _new(store, items, set(runs)), None, Redactor())
    return runs


def _new(store: Store, items: Sequence[Insert | Document], runs: set[str]) -> list[Item]:
    """What is not in the journal yet, if it belongs to the extract's own runs and cells alone."""
    cells = {item.row["id"]: item.row["run"] for item in items if item.table == "cells"}
    with store.reading() as connection:
        known = _known(connection, tables.runs, runs)
        taken = _known(connection, tables.cells, {cell for cell, run in cells.items() if run not in known})
    if taken:
        raise _damaged(f"cell {min(taken)} is in the journal already, of another run")
    found: list[Item] = []
    for item in items:
        run = cells.get(item.row["cell_entry"]) if item.table == "outputs" else item.row["run"]
        if run not in runs or (item.table == "runs" and item.row["id"] != run):
            raise _damaged(f"something in {item.table} belongs to no run of it")
        if run not in known:
            found.append(item)
    return found


def _known(connection: Connection, table: Table, ids: set[str]) -> set[str]:
    some = sorted(ids)
    found: set[str] = set()
    for start in range(0, len(some), 500):
        found |= set(connection.execute(select(table.c.id).where(table.c.id.in_(some[start : start + 500]))).scalars())
    return found


def _damaged(why: str) -> JournalError:
    return JournalError(f"the journal's extract is damaged: {why}", remedy="get the bundle again")


def _rows(connection: Connection, table: Table, column: str, values: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for start in range(0, len(values), 500):
        query = select(table).where(table.c[column].in_(values[start : start + 500])).order_by(*table.primary_key.columns)
        for row in connection.execute(query).mappings():
            yield table.name, {name: value for name, value in row.items() if name != "writer"}


def _content(store: Store, connection: Connection, digest: str) -> str:
    data = connection.execute(select(tables.blobs.c.data).where(tables.blobs.c.sha256 == digest)).scalar()
    return queries.blob(store, digest, data).decode()


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _check_head(line: Mapping[str, Any]) -> None:
    if line.get("format") != _HEAD["format"]:
        raise ValueError("not the head of a journal's extract")
    if line.get("version") != VERSION:
        raise ValueError(f"version {line.get('version')!r}, where this Wardian reads {VERSION}")


def _checked_content(line: Mapping[str, Any]) -> str:
    if hashlib.sha256(str(line["text"]).encode()).hexdigest() != line["content"]:
        raise ValueError("a content is not what its SHA-256 says")
    json.loads(line["text"])
    return str(line["content"])


def _item(line: Mapping[str, Any], contents: Mapping[str, str], absolute: Paths) -> Insert | Document:
    name = line["table"]
    if name not in _TABLES:
        raise ValueError(f"no table {name!r}")
    row = {column.name: _checked(column, line.get(column.name)) for column in _TABLES[name].columns if column.name != "writer"}
    if more := line.keys() - row.keys() - {"table"}:
        raise ValueError(f"{name} has no {min(more)!r}")
    row |= {column: absolute(row[column]) for column in _PATHS.get(name, ()) if row[column] is not None}
    if "writer" in _TABLES[name].columns:
        row["writer"] = _ELSEWHERE
    if name not in _DOCUMENTS:
        for column in ("parameters", "detail", "targets", "nodes"):
            json.loads(row.get(column) or "{}")
        return Insert(name, row)
    return Document(name, row, contents[row["blob"]])


def _checked(column: Column[Any], value: Any) -> Any:
    """A value, if its column can hold it."""
    kinds: tuple[type, ...] = (str,)
    if isinstance(column.type, Boolean):
        kinds = (bool,)
    elif isinstance(column.type, Integer):
        kinds = (int,)
    elif isinstance(column.type, Double):
        kinds = (int, float)
    if value is None and column.nullable:
        return None
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{column.name}: {value!r:.50} is no {kinds[-1].__name__}")
    if isinstance(value, str):
        # half a surrogate is no text, and no database takes it
        value.encode()
    if isinstance(column.type, String) and column.type.length and len(str(value)) > column.type.length:
        raise ValueError(f"{column.name}: longer than {column.type.length}")
    return value
