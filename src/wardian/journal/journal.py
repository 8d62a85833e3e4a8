"""Writing the record: what is about to happen is noted before, how it ended after."""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..paths import user_name
from .batch import Document, Insert, Position, Update
from .identifiers import new_id
from .records import PACKAGES
from .redact import redact_packages, redact_values
from .writer import GATHER_SECONDS, Writer

if TYPE_CHECKING:
    from .records import LogEntry, Output, RunRecord
    from .removal import Removed

STATUSES = ("ok", "failed", "cancelled")


class Entry:
    """Something that has begun. Say how it ended with `done`, or use it as a context: an exception then counts as a failure."""

    def __init__(self, writer: Writer, table: str, row: dict[str, Any]) -> None:
        self.id: str = row["id"]
        self._writer = writer
        self._table = table
        self._later = frozenset(LATER.get(table, ()))
        self._ended = False
        self._begin(row)

    def _begin(self, row: dict[str, Any]) -> None:
        self._writer.put(Insert(self._table, row))

    def done(self, status: str = "ok", error: str | None = None, **values: Any) -> None:
        """Record its end. Only the first call counts.

        status: "ok", "failed" or "cancelled". error: what went wrong, for a reader. values: as for `amend`.
        """
        if status not in STATUSES:
            raise ValueError(f"status: one of {', '.join(STATUSES)}, not {status!r}")
        if not self._ended:
            self._put({"status": status, "error": error, "ended": time.time(), **values})
            self._ended = True

    def amend(self, **values: Any) -> None:
        """Fill in what was not known at the start: a run's environment and provider, a cell's nodes, a transfer's bytes and sha256."""
        self._put(values)

    def _put(self, values: dict[str, Any]) -> None:
        if unknown := values.keys() - self._later - {"status", "error", "ended"}:
            raise TypeError(f"{self._table}: {', '.join(sorted(unknown))} cannot be set later")
        self._writer.put(Update(self._table, self.id, {name: _plain(value) for name, value in values.items()}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self.done()
        elif isinstance(error, Exception):
            self.done("failed", f"{type(error).__name__}: {error}")
        else:
            self.done("cancelled")


LATER = {"runs": ("environment", "provider"), "cells": ("nodes",), "transfers": ("bytes", "sha256")}


class CellEntry(Entry):
    """One execution of a cell."""

    def __init__(self, writer: Writer, table: str, row: dict[str, Any], sequence: int = 0) -> None:
        super().__init__(writer, table, row)
        self._sequence = itertools.count(sequence + 1)

    def output(self, node: str | None, message_type: str, content: Mapping[str, Any]) -> None:
        """Record one message that it sent, in the order of the calls. content: that of the Jupyter message; node None is home."""
        row = {"cell_entry": self.id, "sequence": next(self._sequence), "node": node, "message_type": message_type, "time": time.time()}
        self._writer.put(Document("outputs", row, json.dumps(content, separators=(",", ":"))))


class ResumedCell(CellEntry):
    """A cell's entry that another process began, and that this one goes on with."""

    def _begin(self, row: dict[str, Any]) -> None:
        self._writer.put(Update(self._table, self.id, {"writer": self._writer.id}))


class Journal:
    """The record of one experiment.

    Recording never waits for the disk: a thread writes what is handed to it within some twenty milliseconds, and a process that is
    killed loses at most that. Every recording method raises JournalError when earlier entries cannot be written (they are kept and
    tried again), and in a forked child, which has to open the journal itself.
    """

    def __init__(self, target: Path | str, gather: float = GATHER_SECONDS) -> None:
        self.current_run: str | None = None
        """The run that entries belong to which name none."""
        self._writer = Writer(target, gather)

    @classmethod
    def open(cls, target: Path | str, *, wait: bool = True, gather: float = GATHER_SECONDS) -> Journal:
        """Open the SQLite file at a path (`.wardian/journal.db`), or a database by its URL; it is made or migrated where needed.

        wait: False lets it open in the background; what is wrong with it then shows at the first flush or query. gather: how long the
        first entry of a transaction waits for others, seconds: 0 for who hands them over together.
        Raises JournalError with the path and what to do: read-only folder, full disk, damaged file, newer schema.
        """
        journal = cls(target, gather)
        if wait:
            journal._writer.opened()
        return journal

    def operation(
        self,
        *,
        environment: str,
        action: str,
        kind: str,
        targets: Sequence[str],
        reason: str = "",
        instance: str | None = None,
        run: str | None = None,
    ) -> Entry:
        """One step of a plan, about to be done. action: "create", "update", … ; kind and targets: of which resources."""
        row = self._begin(environment, run)
        row.update(instance=instance, action=action, kind=kind, targets=json.dumps(list(targets)), reason=reason)
        return Entry(self._writer, "operations", row)

    def run(
        self,
        *,
        notebook: str,
        experiment: str | None = None,
        experiment_digest: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        environment: str | None = None,
        provider: str | None = None,
    ) -> Entry:
        """One execution of a notebook; its `id` is what the other entries name as their run. Secret parameters are not kept."""
        from importlib.metadata import version

        row = self._begin(environment, None)
        row.update(notebook=notebook, experiment=experiment, experiment_digest=experiment_digest, provider=provider)
        row.update(parameters=json.dumps(redact_values(parameters or {}), default=str))
        row.update(user=user_name(), host=socket.gethostname(), wardian=version("wardian"), python=sys.version.split()[0])
        row["run"] = row["id"]
        return Entry(self._writer, "runs", row)

    def cell(
        self,
        *,
        source: str,
        nodes: Sequence[str] = (),
        cell: str | None = None,
        notebook: str | None = None,
        selector: str | None = None,
        language: str = "python",
        background: bool = False,
        environment: str | None = None,
        run: str | None = None,
        session: str | None = None,
        request: str | None = None,
    ) -> CellEntry:
        """One execution of a cell.

        cell: its id in the notebook; nodes: where it runs, empty for home; session: that of the kernel; request: the id of the
        execute request.
        """
        row = self._begin(environment, run)
        row.update(
            session=session, cell=cell, notebook=notebook, source=source, selector=selector, language=language,
            background=background, request=request,
        )  # fmt: skip
        row.update(source_digest=hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest(), nodes=json.dumps(list(nodes)))
        return CellEntry(self._writer, "cells", row)

    def resume(self, cell: str) -> CellEntry:
        """Go on with a cell that a process began which has died. cell: its entry's id."""
        from . import queries

        sequence = queries.last_sequence(self._writer.opened(), cell)
        return ResumedCell(self._writer, "cells", {"id": cell}, sequence)

    def together(self) -> AbstractContextManager[None]:
        """Record what is recorded within as one: either all of it is in the journal or nothing. One thread only may record meanwhile."""
        return self._writer.together()

    def advance(self, store: str, sequence: int) -> None:
        """All that this message of a store on a node causes is recorded; `position` tells how far the messages are."""
        self._writer.put(Position(store, sequence))

    def position(self, store: str) -> int:
        """The number of the last message of a store on a node that is recorded."""
        from . import queries

        return queries.position(self._writer.opened(), store)

    def on_positions(self, callback: Callable[[dict[str, int]], None]) -> None:
        """Be told, on a thread of the journal's, how far the messages of stores are recorded now."""
        self._writer.on_positions = callback

    def transfer(
        self,
        *,
        node: str,
        direction: str,
        source: str,
        target: str,
        environment: str | None = None,
        run: str | None = None,
        bytes: int | None = None,
    ) -> Entry:
        """One copy. direction: "put" (to the node) or "get". Its end may say more: `done(bytes=…, sha256=…)`."""
        row = self._begin(environment, run)
        row.update(node=node, direction=direction, source=source, target=target, bytes=bytes, sha256=None)
        return Entry(self._writer, "transfers", row)

    def event(
        self,
        *,
        kind: str,
        environment: str | None = None,
        node: str | None = None,
        detail: Mapping[str, Any] | None = None,
        run: str | None = None,
    ) -> str:
        """Something that happened at one moment; gives its id. detail: a JSON value; what stands under secret names is not kept."""
        row = {"id": new_id(), "writer": self._writer.id, "environment": environment, "run": run or self.current_run,
               "node": node, "kind": kind}  # fmt: skip
        self._writer.put(Insert("events", {**row, "detail": json.dumps(redact_values(detail or {}), default=str), "time": time.time()}))
        return str(row["id"])

    def fact(self, name: str, value: Any, *, run: str, node: str | None = None) -> None:
        """Something that is known about a run, or about one of its nodes. value: JSON; equal values are kept once.

        What stands under secret names is not kept, unless it is the version of a package. node None is home, or the run as a whole.
        """
        row = {"id": new_id(), "writer": self._writer.id, "run": run, "node": node, "name": name, "time": time.time()}
        clean = redact_packages(value) if name.startswith(PACKAGES) else redact_values(value)
        content = json.dumps(clean, sort_keys=True, separators=(",", ":"), default=str)
        self._writer.put(Document("facts", row, content))

    def hide(self, values: Iterable[str]) -> None:
        """Keep these out of all that is recorded from now on, wherever they occur. Those below six characters are not looked for."""
        self._writer.redactor.hide(values)

    def entries(
        self,
        kinds: Sequence[str] | None = None,
        node: str | None = None,
        environment: str | None = None,
        run: str | None = None,
        since: float | None = None,
        limit: int | None = None,
        *,
        ongoing: bool = False,
        until: float | None = None,
        before: tuple[float, str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[LogEntry]:
        """What happened, oldest first; with a limit, the latest so many. Includes what this process recorded until now.

        kinds: of `records.KINDS`. since, until: when it began, seconds since the epoch; ongoing: also what began before `since` and had not
        ended then. before: (started, id) of an entry, for the page of entries that come before it. ids: these entries only.
        """
        from . import queries

        self.flush()
        return queries.entries(
            self._writer.opened(), kinds=kinds, node=node, environment=environment, run=run, since=since, limit=limit,
            ongoing=ongoing, until=until, before=before, ids=ids,
        )  # fmt: skip

    def runs(self, limit: int | None = None, *, since: float | None = None, **words: str | None) -> list[LogEntry]:
        """The runs, oldest first; with a limit, the latest so many.

        words: what a run's `notebook`, `experiment`, `provider`, `user`, `host`, `environment` has in it; `status` is exact.
        """
        from . import queries

        self.flush()
        return queries.runs(self._writer.opened(), limit, since, words)

    def remove_runs(self, runs: Sequence[str]) -> Removed:
        """Remove runs with all that is recorded of them, and the contents that nothing names any more. runs: ids, in full."""
        from . import removal

        self.flush()
        return removal.remove(self._writer.opened(), runs)

    def extract(self, runs: Sequence[str], relative: Callable[[str], str]) -> Iterator[str]:
        """Runs with all that is recorded of them as lines of JSON, which `take_in` of any journal reads.

        runs: ids, in full. relative: what is written in place of the paths of notebooks and experiment files.
        """
        from . import extract

        self.flush()
        return extract.lines(self._writer.opened(), runs, relative)

    def take_in(self, lines: Iterable[str], absolute: Callable[[str], str]) -> list[str]:
        """Record what an extract holds, and give the ids of its runs. Runs that are here already stay as they are.

        absolute: the paths of notebooks and experiment files for those that the extract has. Raises JournalError.
        """
        from . import extract

        self.flush()
        return extract.take_in(self._writer.opened(), lines, absolute)

    def find_cell(self, cell: str, notebook: str | None = None) -> LogEntry:
        """One cell's entry. cell: its id, the end of one, its id in the notebook (then its last execution), or "last": of those on nodes.

        notebook: look among this notebook's cells only. Raises JournalError.
        """
        from . import queries

        self.flush()
        return queries.find_cell(self._writer.opened(), cell, notebook)

    def outputs(self, cell: str) -> tuple[Output, ...]:
        """What a cell sent, in order. cell: its entry's id."""
        from . import queries

        self.flush()
        return queries.outputs(self._writer.opened(), [cell])[cell]

    def unfinished_cells(self, notebook: str) -> list[LogEntry]:
        """The cells of a notebook on nodes whose end is not recorded, though the process that ran them is gone; oldest first."""
        from . import queries

        return queries.unfinished_cells(self._writer.opened(), notebook)

    def durations(self, notebook: str) -> dict[str, float]:
        """How long each cell of a notebook took when it ended well last, by its id, seconds."""
        from . import queries

        return queries.durations(self._writer.opened(), notebook)

    def show(self, run: str, *, experiment: str | None = None) -> RunRecord:
        """A run with its entries, their output, and what is known of it. Raises JournalError.

        run: its id, the end of one that no other shares, or "last", or "last~1" for the one before. experiment: the file that those
        are the last of.
        """
        from . import queries

        self.flush()
        return queries.show(self._writer.opened(), run, experiment)

    def flush(self) -> None:
        """Wait until all that was recorded so far is in the database."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close. Recording afterwards raises JournalError."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, environment: str | None, run: str | None) -> dict[str, Any]:
        return {
            "id": new_id(), "writer": self._writer.id, "environment": environment, "run": run or self.current_run,
            "started": time.time(), "ended": None, "status": "running", "error": None,
        }  # fmt: skip


def _plain(value: Any) -> Any:
    return json.dumps(list(value)) if isinstance(value, list | tuple) else value
