"""Reading the record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, func, or_, select

from ..errors import JournalError
from . import tables
from .batch import blob_path
from .records import DOUBT, KINDS, Fact, LogEntry, Output, RunRecord
from .store import Store
from .writer import identity

_TABLES = {"operation": tables.operations, "run": tables.runs, "cell": tables.cells, "transfer": tables.transfers, "event": tables.events}
_LATEST = 5000
"""Executions of a notebook's cells that are looked at for how long those take."""
_COMMON = ("id", "writer", "environment", "run", "started", "ended", "status", "error")


def entries(
    store: Store,
    *,
    kinds: Sequence[str] | None = None,
    node: str | None = None,
    environment: str | None = None,
    run: str | None = None,
    since: float | None = None,
    limit: int | None = None,
    ongoing: bool = False,
    until: float | None = None,
    before: tuple[float, str] | None = None,
    ids: Sequence[str] | None = None,
) -> list[LogEntry]:
    """One merged time line, oldest first; with a limit, the latest so many. Raises JournalError for a kind that does not exist."""
    if unknown := set(kinds or ()) - set(KINDS):
        raise JournalError(f"the journal has no entries of kind {', '.join(sorted(unknown))}", remedy=f"kinds are {', '.join(KINDS)}")
    found: list[LogEntry] = []
    with store.reading() as connection:
        alive = _Alive(connection)
        for kind in kinds or KINDS:
            table = _TABLES[kind]
            if node is not None and kind == "run":
                continue
            moment = table.c.time if kind == "event" else table.c.started
            query = select(table).order_by(moment.desc(), table.c.id.desc()).limit(limit)
            if node is not None:
                query = query.where(_about(kind, table, node))
            if environment is not None:
                query = query.where(table.c.environment == environment)
            if run is not None:
                query = query.where(table.c.run == run)
            if since is not None:
                query = query.where(or_(moment >= since, _lasts(table, since)) if ongoing and kind != "event" else moment >= since)
            if until is not None:
                query = query.where(moment < until)
            if before is not None:
                query = query.where(or_(moment < before[0], and_(moment == before[0], table.c.id < before[1])))
            if ids is not None:
                query = query.where(table.c.id.in_(ids))
            found += [_entry(kind, row, alive) for row in connection.execute(query).mappings()]
        if any(entry.kind == "run" for entry in found):
            doubts = _doubts(connection)
            found = [replace(entry, summary=f"{entry.summary} (in doubt)") if entry.id in doubts else entry for entry in found]
    found.sort(key=lambda entry: (entry.started, entry.id))
    return found[-limit:] if limit else ([] if limit == 0 else found)


def _lasts(table: Table, since: float) -> ColumnElement[bool]:
    return or_(table.c.ended.is_(None), table.c.ended >= since)


def show(store: Store, run: str, experiment: str | None = None) -> RunRecord:
    """A run and all that belongs to it, as `Journal.show` says."""
    (head,) = entries(store, kinds=["run"], run=find_run(store, run, experiment))
    rest = belonging(store, head)
    cells = outputs(store, [entry.id for entry in rest if entry.kind == "cell"])
    return RunRecord(head, tuple(rest), cells, facts(store, head.id))


def belonging(store: Store, head: LogEntry) -> list[LogEntry]:
    """The entries that belong to a run, without its own, in the order in which they started."""
    kinds = [kind for kind in KINDS if kind != "run"]
    found = entries(store, kinds=kinds, run=head.id)
    if head.environment is not None:
        # the keeper, a command in another terminal: they know of no run
        around = entries(store, kinds=kinds, environment=head.environment, since=head.started)
        found += [entry for entry in around if entry.run is None and (head.ended is None or entry.started <= head.ended)]
        found.sort(key=lambda entry: (entry.started, entry.id))
    return found


def find_run(store: Store, run: str, experiment: str | None = None) -> str:
    """The id of a run, as `Journal.show` takes it."""
    table = tables.runs
    query = select(table.c.id).order_by(table.c.started.desc(), table.c.id.desc())
    last, tilde, back = run.partition("~")
    if last == "last" and (back.isdigit() or not tilde):
        query = query.offset(int(back or 0)).limit(1)
        query = query.where(table.c.experiment == experiment) if experiment else query
    else:
        query = query.where(table.c.id.endswith(run, autoescape=True)).limit(2)
    with store.reading() as connection:
        ids = list(connection.execute(query).scalars())
    if len(ids) == 1:
        return str(ids[0])
    said = f"more than one run's id ends with {run!r}" if ids else "there is no run yet" if run == "last" else f"there is no run {run!r}"
    raise JournalError(f"{store.where}: {said}", remedy="`wardian runs` lists them")


def runs(store: Store, limit: int | None, since: float | None, words: Mapping[str, str | None]) -> list[LogEntry]:
    """The runs, as `Journal.runs` says."""
    table = tables.runs
    query = select(table).order_by(table.c.started.desc(), table.c.id.desc())
    status = words.get("status")
    for name, word in words.items():
        if word is not None and name != "status":
            query = query.where(table.c[name].contains(word, autoescape=True))
    if since is not None:
        query = query.where(table.c.started >= since)
    found = []
    with store.reading() as connection:
        alive = _Alive(connection)
        doubts = _doubts(connection)
        for row in connection.execute(query if status else query.limit(limit)).mappings():
            entry = _entry("run", row, alive)
            if status in (None, entry.status):
                found.append(replace(entry, summary=f"{entry.summary} (in doubt)") if entry.id in doubts else entry)
            if len(found) == limit:
                break
    return found[::-1]


def facts(store: Store, run: str) -> tuple[Fact, ...]:
    """What is known about a run, in the order in which it was found."""
    table, blobs = tables.facts, tables.blobs
    query = select(table, blobs.c.data).join(blobs, blobs.c.sha256 == table.c.blob).where(table.c.run == run)
    values: dict[str, Any] = {}
    found = []
    with store.reading() as connection:
        for row in connection.execute(query.order_by(table.c.time, table.c.id)):
            if row.blob not in values:
                values[row.blob] = json.loads(blob(store, row.blob, row.data))
            found.append(Fact(row.name, row.node, values[row.blob], row.blob, row.time))
    return tuple(found)


def outputs(store: Store, cells: Sequence[str]) -> dict[str, tuple[Output, ...]]:
    """What these cell entries sent, each in order."""
    out, blobs = tables.outputs, tables.blobs
    given: dict[str, list[Output]] = {cell: [] for cell in cells}
    with store.reading() as connection:
        for start in range(0, len(cells), 500):
            some = out.c.cell_entry.in_(cells[start : start + 500])
            query = (
                select(out, blobs.c.data).join(blobs, blobs.c.sha256 == out.c.blob).where(some).order_by(out.c.cell_entry, out.c.sequence)
            )
            for row in connection.execute(query):
                content = json.loads(blob(store, row.blob, row.data))
                given[row.cell_entry].append(Output(row.sequence, row.node, row.message_type, content, row.blob, row.time))
    return {cell: tuple(found) for cell, found in given.items()}


def last_sequence(store: Store, cell: str) -> int:
    """The number of the last output of a cell's entry."""
    with store.reading() as connection:
        return int(connection.execute(select(func.max(tables.outputs.c.sequence)).where(tables.outputs.c.cell_entry == cell)).scalar() or 0)


def position(store: Store, name: str) -> int:
    """How far the messages of a store on a node are recorded."""
    with store.reading() as connection:
        return int(connection.execute(select(tables.positions.c.sequence).where(tables.positions.c.store == name)).scalar() or 0)


def find_cell(store: Store, cell: str, notebook: str | None) -> LogEntry:
    """A cell's entry, as `Journal.find_cell` says."""
    table = tables.cells
    query = select(table).order_by(table.c.started.desc(), table.c.id.desc()).limit(2)
    if notebook is not None:
        query = query.where(table.c.notebook == notebook)
    with store.reading() as connection:
        if cell == "last":
            rows = list(connection.execute(query.where(table.c.nodes != "[]").limit(1)).mappings())
        else:
            rows = list(connection.execute(query.where(table.c.cell == cell).limit(1)).mappings())
            rows = rows or list(connection.execute(query.where(table.c.id.endswith(cell, autoescape=True))).mappings())
        if len(rows) == 1:
            return _entry("cell", rows[0], _Alive(connection))
    missing = "no cell has run on nodes yet" if cell == "last" else f"there is no cell {cell!r}"
    said = f"more than one cell's id ends with {cell!r}" if rows else missing
    raise JournalError(f"{store.where}: {said}", remedy="`wardian log --kind cell --json` lists them with their ids")


def unfinished_cells(store: Store, notebook: str) -> list[LogEntry]:
    """The cells of a notebook on nodes whose process is gone and whose end is not known."""
    table = tables.cells
    on_nodes = or_(table.c.nodes != "[]", table.c.selector.is_not(None))
    where = and_(table.c.notebook == notebook, table.c.ended.is_(None), on_nodes, table.c.request.is_not(None))
    with store.reading() as connection:
        alive = _Alive(connection)
        rows = connection.execute(select(table).where(where).order_by(table.c.started, table.c.id)).mappings().all()
        return [_entry("cell", row, alive) for row in rows if not alive(row["writer"])]


def durations(store: Store, notebook: str) -> dict[str, float]:
    """How long each cell of a notebook took when it ended well last, as `Journal.durations` says."""
    table = tables.cells
    where = and_(table.c.notebook == notebook, table.c.status == "ok", table.c.ended.is_not(None), table.c.cell.is_not(None))
    query = select(table.c.cell, table.c.ended - table.c.started).where(where).order_by(table.c.started.desc()).limit(_LATEST)
    with store.reading() as connection:
        # the earlier are written first, and over
        return {str(cell): max(0.0, float(seconds)) for cell, seconds in reversed(connection.execute(query).all())}


def _doubts(connection: Connection) -> set[str | None]:
    """The runs whose numbers are in doubt."""
    return set(connection.execute(select(tables.events.c.run).where(tables.events.c.kind == DOUBT)).scalars())


def blob(store: Store, digest: str, data: bytes | None) -> bytes:
    """The content with this digest. data: what the database has of it, None where it is in a file. Raises JournalError."""
    if data is not None:
        return data
    if store.blobs is None:
        raise JournalError(f"{store.where}: the output {digest} was kept in a file, elsewhere")
    path = blob_path(store.blobs, digest)
    try:
        return path.read_bytes()
    except OSError as error:
        raise JournalError(f"{path}: an output cannot be read: {error.strerror}", remedy="copy `blobs` along with the journal") from error


class _Alive:
    """Whether the process that wrote a row still runs; one of another host is taken to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, bool] = {}

    def __call__(self, writer: str) -> bool:
        if writer not in self._known:
            row = self._connection.execute(select(tables.writers).where(tables.writers.c.id == writer)).one_or_none()
            self._known[writer] = row is not None and _runs(row._mapping)
        return self._known[writer]


def _runs(writer: RowMapping) -> bool:
    host, boot, started = identity(writer["pid"])
    if writer["host"] != host:
        return True
    return bool(writer["boot"] == boot and writer["pid_started"] == started)


def _about(kind: str, table: Table, node: str) -> ColumnElement[bool]:
    if kind in ("event", "transfer"):
        return and_(table.c.node == node)
    column = table.c.targets if kind == "operation" else table.c.nodes
    # names as JSON has them: the node itself, its access links ("node/network"), its services ("service@node")
    return or_(*(column.contains(text, autoescape=True) for text in (f'"{node}"', f'"{node}/', f'@{node}"')))


def _entry(kind: str, row: RowMapping, alive: _Alive) -> LogEntry:
    detail = {name: _value(name, value) for name, value in row.items() if name not in _COMMON and name not in ("targets", "nodes", "node")}
    if kind == "event":
        moment = detail.pop("time")
        nodes = (row["node"],) if row["node"] else ()
        said = detail["detail"].get("summary")
        summary = f"{row['kind']}: {said}" if isinstance(said, str) else row["kind"]
        return LogEntry(kind, row["id"], moment, moment, "ok", row["environment"], row["run"], nodes, summary, None, detail["detail"])
    status = row["status"]
    if row["ended"] is None and not alive(row["writer"]):
        status = "interrupted"
    return LogEntry(
        kind, row["id"], row["started"], row["ended"], status, row["environment"], row["run"],
        _nodes(kind, row), _summary(kind, row), row["error"], detail,
    )  # fmt: skip


def _value(name: str, value: Any) -> Any:
    return json.loads(value) if name in ("parameters", "detail") else value


def _nodes(kind: str, row: RowMapping) -> tuple[str, ...]:
    if kind == "run":
        return ()
    if kind == "transfer":
        return (row["node"],)
    return tuple(json.loads(row["targets" if kind == "operation" else "nodes"]))


def _summary(kind: str, row: RowMapping) -> str:
    if kind == "operation":
        return f"{row['action']} {row['kind']} {_some(json.loads(row['targets']))}" + (f" ({row['reason']})" if row["reason"] else "")
    if kind == "run":
        return f"run {row['notebook']}"
    if kind == "transfer":
        there, here = (row["target"], row["source"]) if row["direction"] == "put" else (row["source"], row["target"])
        arrow = "→" if row["direction"] == "put" else "←"
        return f"copy {here} {arrow} {row['node']}:{there}"
    first = next((line for line in row["source"].splitlines() if line.strip() and not line.startswith("%%on")), "")
    return f"cell on {row['selector'] or 'here'}: {first[:80]}"


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
