"""Extracts: runs out of one journal and into another, of either kind, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardian.errors import JournalError
from wardian.journal import Journal

Line = dict[str, Any]


def record(journal: Journal, large: int = 0) -> str:
    """A run with everything that a run can have."""
    with journal.run(notebook="/here/study.ipynb", experiment="/here/experiment.yaml", provider="local", environment="e1") as run:
        with journal.operation(environment="e1", action="create", kind="node", targets=["one"], run=run.id):
            pass
        with journal.cell(source="%%on one\n1", nodes=["one"], cell="c", notebook="/here/study.ipynb", run=run.id) as cell:
            cell.output("one", "stream", {"name": "stdout", "text": "42 é\n" + "x" * large})
        with journal.transfer(node="one", direction="get", source="/out", target="/here/out", run=run.id) as transfer:
            transfer.amend(bytes=3)
        journal.event(kind="keeper.restarted", environment="e1", node="one", detail={"summary": "by itself"})
        journal.fact("machine", {"kernel": "Linux 6"}, run=run.id, node="one")
    return run.id


def relative(path: str) -> str:
    return path.removeprefix("/here/")


def extract(journal: Journal, *runs: str) -> list[str]:
    return list(journal.extract(runs, relative))


def changed(lines: list[str], change: Callable[[list[Line]], Any]) -> list[str]:
    parsed = [json.loads(line) for line in lines]
    change(parsed)
    return [json.dumps(line) for line in parsed]


def of(lines: list[Line], table: str) -> Line:
    return next(line for line in lines if line.get("table") == table)


def test_a_run_in_another_journal(journal: Journal, tmp_path: Path) -> None:
    """A run comes out of a journal of either kind and into another as it was, but for where its files are; again changes nothing."""
    run = record(journal, large=200_000)
    lines = extract(journal, run)
    assert lines == extract(journal, run)
    with Journal.open(tmp_path / "other.db") as other:
        assert other.take_in(lines, lambda path: f"/there/{path}") == [run]
        assert other.take_in(lines, lambda path: f"/elsewhere/{path}") == [run]
        old, new = journal.show(run), other.show("last")
        assert (new.run.detail["notebook"], new.run.detail["experiment"]) == ("/there/study.ipynb", "/there/experiment.yaml")
        assert (new.run.status, new.run.seconds) == ("ok", old.run.seconds)
        assert [(entry.kind, entry.id, entry.summary) for entry in new.entries] == [
            (entry.kind, entry.id, entry.summary) for entry in old.entries
        ]
        assert "keeper.restarted: by itself" in [entry.summary for entry in new.entries]
        assert {key: [item.content for item in found] for key, found in new.outputs.items()} == {
            key: [item.content for item in found] for key, found in old.outputs.items()
        }
        assert [(fact.name, fact.node, fact.value, fact.sha256) for fact in new.facts] == [
            (fact.name, fact.node, fact.value, fact.sha256) for fact in old.facts
        ]
        assert journal.take_in(extract(other, run), str) == [run]


def test_nothing_of_other_runs_changes(journal: Journal, tmp_path: Path) -> None:
    """An extract that would add to a run or a cell of the journal it comes into is refused as a whole."""
    mine = record(journal)
    cell = next(entry.id for entry in journal.show(mine).entries if entry.kind == "cell")
    with Journal.open(tmp_path / "other.db") as other:
        lines = extract(other, record(other))
    for table, fields in (
        ("facts", {"run": mine}),
        ("events", {"run": mine}),
        ("operations", {"run": None}),
        ("outputs", {"cell_entry": cell}),
        ("cells", {"id": cell}),
        ("runs", {"run": mine}),
    ):
        with pytest.raises(JournalError, match=r"belongs to no run of it|of another run"):
            journal.take_in(changed(lines, lambda parsed, table=table, fields=fields: of(parsed, table).update(fields)), str)
    assert [run.id for run in journal.runs()] == [mine]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda lines: of(lines, "cells").update(source=7), "source: 7 is no str"),
        (lambda lines: of(lines, "cells").update(nodes="["), "line"),
        (lambda lines: of(lines, "runs").update(id="i" * 99), "longer than 36"),
        (lambda lines: of(lines, "runs").update(status="\ud800"), "line .*surrogates"),
        (lambda lines: of(lines, "runs").update(more=1), "runs has no 'more'"),
        (lambda lines: of(lines, "runs").pop("parameters"), "parameters: None is no str"),
        (lambda lines: of(lines, "facts").update(blob="0"), "lacks '0'"),
        (lambda lines: of(lines, "outputs").update(sequence=True), "sequence: True is no int"),
        (lambda lines: lines[1].update(text="{}"), "SHA-256"),
    ],
)
def test_damaged_extracts(tmp_path: Path, change: Callable[[list[Line]], Any], why: str) -> None:
    """Whatever a journal could not hold is refused with its line, and nothing of the extract is recorded."""
    with Journal.open(tmp_path / "journal.db") as journal, Journal.open(tmp_path / "other.db") as other:
        lines = extract(journal, record(journal))
        with pytest.raises(JournalError, match=why):
            other.take_in(changed(lines, change), str)
        assert other.runs() == []
