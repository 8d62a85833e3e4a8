"""Recorded runs, as a comparison takes them, and which of them a replay is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..experiment.resources import Caveat
from ..journal import Journal, LogEntry, RunRecord
from ..journal.differences import PARTS, differences, lines
from ..journal.differences import Difference as Recorded
from ..journal.records import DOUBT, PACKAGES
from ..journal.redact import redact_values
from ..kernel.record.recording import REPLY
from .compare import Difference, ExecutedCell, ExecutedRun, Message
from .compare.rules import without_directives
from .facts import GIVEN, PLAN
from .runner import REPLAY

MOST = 10
"""How many recorded runs of the same thing are taken as one sample."""
_LOOKED_AT = 50
"""How many runs before the last are looked through for such."""
FEW = 8
"""So many packages of one package manager are told one by one."""
NONE = "none"
_OF_RUNS = {("run", "status"), ("run", "error"), ("run", "notebook")}
"""Differences of runs that say nothing of their environments."""
_PARTS = {"run": "", "parameters": "parameter", "links": "link", "measured": "measured", "versions": "version of"}


def executed(record: RunRecord) -> ExecutedRun:
    """A run as it is compared."""
    run = record.run
    cells = tuple(_cell(record, entry) for entry in record.entries if entry.kind == "cell")
    caveats = [str(Caveat(**item)) for item in (record.fact(PLAN) or {}).get("caveats", ())]
    return ExecutedRun(
        id=run.id,
        cells=cells,
        names=tuple(name for name in (run.environment, run.id) if name),
        caveats=tuple(caveats) if record.fact(PLAN) is not None else None,
    )


def doubts(record: RunRecord, within: LogEntry | None = None) -> tuple[Mapping[str, Any], ...]:
    """What saturated while a run ran, or while one entry of it did: {"why", "from", "to", "summary"}."""
    found = (entry.detail for entry in record.of("event") if entry.summary.startswith(f"{DOUBT}:"))
    if within is None:
        return tuple(found)
    ended = within.started + (within.seconds or 0.0)
    return tuple(item for item in found if item["from"] < ended and item["to"] > within.started)


def environment(old: RunRecord, new: RunRecord) -> tuple[Difference, ...]:
    """What differs between what two runs were and ran on, as far as the journal has it of both: older runs are without facts."""
    without = {"cell", "duration", "plan"} if old.facts and new.facts else set(PARTS) - {"run", "parameters"}
    return tuple(
        _environment(item) for item in differences(old, new) if item.part not in without and (item.part, item.what) not in _OF_RUNS
    )


def gathered(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """The same for readers: what is no package first, and of packages, where many differ, how many."""
    groups: dict[str, list[Difference]] = {}
    rest = []
    for item in found:
        where, colon, _ = item.what.partition(": ")
        if colon and where.rpartition(" ")[2].startswith(PACKAGES):
            groups.setdefault(where, []).append(item)
        else:
            rest.append(item)
    for where, items in groups.items():
        changed = [item for item in items if NONE not in (item.old, item.new)]
        rest += changed if len(changed) <= FEW else []
        gone, come = (sum(value == NONE for value in side) for side in ([item.new for item in items], [item.old for item in items]))
        others = f", {len(changed)} in another version" if len(changed) > FEW else ""
        if len(items) - len(changed) <= FEW and not others:
            rest += [item for item in items if item not in changed]
        else:
            rest.append(Difference(where, f"{gone} only then", f"{come} only now{others}"))
    return tuple(rest)


def _environment(item: Recorded) -> Difference:
    if item.part == "experiment" and isinstance(item.before, str) and isinstance(item.after, str):
        changed = lines(item.before, item.after)
        was, now = ("\n".join(line[1:].strip() for line in changed if line.startswith(sign)) for sign in "-+")
        return Difference("experiment file", was, now)
    one, other = item.before, item.after
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        one, other = ({name: value[name] for name in names if name in value} for value in (one, other))
    what = " ".join(part for part in (_PARTS.get(item.part, item.part), item.where, item.what) if part)
    return Difference(what, _said(one), _said(other))


def baseline(journal: Journal, notebook: Path, parameters: Mapping[str, Any], against: Sequence[str] = ()) -> list[RunRecord]:
    """The recorded runs that a replay of a notebook is compared with, the latest first.

    against: their ids, or ends of them. Without: the last run of this notebook that went well and was no replay itself, with these
    parameters if there is such a one, and those before it that ran the same cells, with the same parameters and file, on the same provider,
    given the same settings.
    Raises RunError when there is none, and JournalError for an id that is none.
    """
    if against:
        return [journal.show(identity) for identity in dict.fromkeys(against)]
    runs = [run for run in reversed(journal.runs()) if run.detail["notebook"] == str(notebook.resolve()) and run.status == "ok"]
    wanted = json.loads(json.dumps(redact_values(parameters), default=str))
    same = [run for run in runs if run.detail.get("parameters") == wanted]
    for candidates in (same, runs):
        if found := _like(journal, candidates[:_LOOKED_AT]):
            records = [journal.show(run.id) for run in found]
            return [record for record in records if record.fact(GIVEN) == records[0].fact(GIVEN)]
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


def _cell(record: RunRecord, entry: LogEntry) -> ExecutedCell:
    outputs = record.outputs.get(entry.id, ())
    return ExecutedCell(
        key=entry.detail.get("cell"),
        source=entry.detail["source"],
        selector=entry.detail.get("selector"),
        nodes=entry.nodes,
        status=entry.status,
        messages=tuple(Message(item.node, item.message_type, item.content) for item in outputs),
        seconds=entry.seconds,
        node_seconds={item.node: item.time - entry.started for item in outputs if item.message_type == REPLY and item.node},
        doubts=tuple(item["why"] for item in doubts(record, entry)),
    )


def _said(value: object) -> str:
    return NONE if value is None else value if isinstance(value, str) else json.dumps(value)
