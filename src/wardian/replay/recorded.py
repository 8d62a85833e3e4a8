"""Recorded runs, as a comparison takes them, and which of them a replay is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..journal import Journal, LogEntry, Output, RunRecord
from ..journal.redact import redact_values
from ..kernel.record.recording import REPLY
from .compare import ExecutedCell, ExecutedRun, Message
from .compare.rules import without_directives
from .runner import CAVEATS, REPLAY

MOST = 10
"""How many recorded runs of the same thing are taken as one sample."""
_LOOKED_AT = 50
"""How many runs before the last are looked through for such."""
_FACTS = ("provider", "host", "user", "wardian", "python")


def executed(record: RunRecord) -> ExecutedRun:
    """A run as it is compared."""
    run = record.run
    cells = tuple(_cell(entry, record.outputs.get(entry.id, ())) for entry in record.entries if entry.kind == "cell")
    facts = {name: str(run.detail[name]) for name in _FACTS if run.detail.get(name)}
    if run.detail.get("experiment_digest"):
        facts["experiment file"] = str(run.detail["experiment_digest"])[:12]
    facts |= {f"parameter {name}": _said(value) for name, value in run.detail.get("parameters", {}).items()}
    caveats = _detail(record.entries, CAVEATS)
    return ExecutedRun(
        id=run.id,
        cells=cells,
        facts=facts,
        node_facts={},
        names=tuple(name for name in (run.environment, run.id) if name),
        caveats=tuple(caveats["caveats"]) if caveats is not None else None,
    )


def baseline(journal: Journal, notebook: Path, parameters: Mapping[str, Any], against: Sequence[str] = ()) -> list[RunRecord]:
    """The recorded runs that a replay of a notebook is compared with, the latest first.

    against: their ids, or ends of them. Without: the last run of this notebook that went well and was no replay itself, with these
    parameters if there is such a one, and those before it that ran the same cells, with the same parameters and file, on the same provider.
    Raises RunError when there is none, and JournalError for an id that is none.
    """
    if against:
        return [journal.show(identity) for identity in dict.fromkeys(against)]
    runs = [run for run in reversed(journal.runs()) if run.detail["notebook"] == str(notebook.resolve()) and run.status == "ok"]
    wanted = json.loads(json.dumps(redact_values(parameters), default=str))
    same = [run for run in runs if run.detail.get("parameters") == wanted]
    for candidates in (same, runs):
        if found := _like(journal, candidates[:_LOOKED_AT]):
            return [journal.show(run.id) for run in found]
    remedy = f"record one with `wardian run {notebook}`" + (", or name a replay with --against" if runs else "")
    raise RunError(f"{notebook}: no run of it is recorded that went well", remedy=remedy)


def _like(journal: Journal, runs: Sequence[LogEntry]) -> list[LogEntry]:
    """The first that is no replay, and those that ran the same thing."""
    first: tuple[Any, ...] | None = None
    found: list[LogEntry] = []
    for run in runs:
        entries = journal.entries(kinds=["event", "cell"], run=run.id)
        if _detail(entries, REPLAY) is not None:
            continue
        sources = [without_directives(entry.detail["source"]) for entry in entries if entry.kind == "cell"]
        what = (*(run.detail.get(name) for name in ("provider", "experiment_digest", "parameters")), sources)
        first = first or what
        if what == first:
            found.append(run)
        if len(found) == MOST:
            break
    return found


def _detail(entries: Sequence[LogEntry], kind: str) -> Mapping[str, Any] | None:
    """What a run's event of a kind says; its summary begins with the kind."""
    return next((entry.detail for entry in entries if entry.kind == "event" and entry.summary.partition(":")[0] == kind), None)


def _cell(entry: LogEntry, outputs: Sequence[Output]) -> ExecutedCell:
    return ExecutedCell(
        key=entry.detail.get("cell"),
        source=entry.detail["source"],
        selector=entry.detail.get("selector"),
        nodes=entry.nodes,
        status=entry.status,
        messages=tuple(Message(item.node, item.message_type, item.content) for item in outputs),
        seconds=entry.seconds,
        node_seconds={item.node: item.time - entry.started for item in outputs if item.message_type == REPLY and item.node},
    )


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
