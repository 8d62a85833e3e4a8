"""Runs in the journal: what is known of them, how they are found, compared, exported and removed. In a file and in PostgreSQL."""

import io
import json
import time

import prov.model
import pytest

from wardian.errors import JournalError
from wardian.journal import Journal, batch
from wardian.journal.differences import differences
from wardian.journal.prov import document

from .databases import ask

DPKG = {f"package{number}": "1.0" for number in range(500)}


def record(journal, *, version="1.12", source="%%on client\nprint(1)", printed="1\n", clients=2, **options):
    """A run as it is recorded by `wardian run`."""
    run = journal.run(notebook="/study/qoe.ipynb", experiment="/study/experiment.yaml", parameters={"clients": clients}, **options)
    run.amend(environment="e1", provider="local")
    journal.fact("experiment", {"sha256": "ab", "text": "name: study\n"}, run=run.id)
    journal.fact("notebook", {"sha256": "cd", "document": {}}, run=run.id)
    journal.fact("git", {"commit": "c0ffee", "changed": [], "branch": "main", "dirty": False}, run=run.id)
    journal.fact("read", {"serve.py": "ef"}, run=run.id)
    for node in ("client[0]", "client[1]", None):
        journal.fact("machine", {"kernel": "Linux 6.1", "processors": 2}, run=run.id, node=node)
        journal.fact("packages.dpkg", DPKG | {"iperf3": version}, run=run.id, node=node)
        journal.fact("image", {"name": "debian", "digest": "sha256:12"}, run=run.id, node=node)
    journal.operation(environment="e1", action="create", kind="node", targets=["client[0]"], run=run.id).done()
    cell = journal.cell(source=source, nodes=["client[0]", "client[1]"], cell="c1", selector="client", run=run.id, environment="e1")
    for node in ("client[0]", "client[1]"):
        for piece in printed:
            cell.output(node, "stream", {"name": "stdout", "text": piece})
        cell.output(node, "execute_reply", {"status": "ok", "execution_count": int(time.time())})
    cell.done()
    transfer = journal.transfer(node="client[0]", direction="get", source="/out", target="/study/out", environment="e1", run=run.id)
    transfer.done(bytes=3, sha256="99")
    run.done()
    return run.id


def found(journal, before, after):
    """What differs between two runs, but for durations: {(part, where, what): (before, after)}."""
    compared = differences(journal.show(before), journal.show(after))
    return {(item.part, item.where, item.what): (item.before, item.after) for item in compared if item.matters}


def test_equal_facts_are_kept_once(journal, target):
    """What is known of nodes comes back by node, and fifty equal nodes with the same packages keep one list."""
    run = journal.run(notebook="n")
    for number in range(50):
        journal.fact("packages.dpkg", DPKG, run=run.id, node=f"client[{number}]")
    run.done()
    shown = journal.show("last")
    assert len(shown.facts) == 50
    assert shown.fact("packages.dpkg", "client[49]") == DPKG
    assert shown.fact("packages.dpkg") is None
    assert shown.nodes()[9:11] == ["client[9]", "client[10]"]
    assert ask(target, "SELECT count(*) FROM blobs") == [(1,)]


def test_what_happened_meanwhile_is_part_of_it(journal):
    """A fault inflicted from elsewhere in the run's environment while it ran is shown with it; one before, after or elsewhere is not."""
    journal.event(kind="fault.begun", environment="e1", detail={"summary": "before"})
    run = journal.run(notebook="n", environment="e1")
    journal.event(kind="fault.begun", environment="e1", detail={"summary": "pause server"})
    journal.event(kind="fault.begun", environment="e2", detail={"summary": "elsewhere"})
    run.done()
    journal.event(kind="fault.begun", environment="e1", detail={"summary": "after"})
    assert [entry.summary for entry in journal.show(run.id).of("event")] == ["fault.begun: pause server"]


def test_what_names_no_run_belongs_to_the_current_one(journal):
    """Within a run, operations, events and transfers belong to it without being told so."""
    run = journal.run(notebook="n")
    journal.current_run = run.id
    journal.operation(environment="e1", action="create", kind="node", targets=["a"]).done()
    journal.event(kind="clocks")
    journal.transfer(node="a", direction="put", source="x", target="y").done()
    journal.current_run = None
    journal.event(kind="later")
    assert [entry.kind for entry in journal.show(run.id).entries] == ["operation", "event", "transfer"]


def test_runs_are_found(journal):
    """Runs are listed by status, notebook, user, provider and time; `last` and `last~1` are those of one experiment file."""
    first, second = record(journal), record(journal)
    other = journal.run(notebook="/other/x.ipynb", experiment="/other/experiment.yaml", provider="docker")
    other.done("failed", "no")
    assert [run.id for run in journal.runs()] == [first, second, other.id]
    assert [run.id for run in journal.runs(2)] == [second, other.id]
    assert [run.id for run in journal.runs(status="failed")] == [other.id]
    assert [run.id for run in journal.runs(1, status="ok")] == [second]
    assert [run.id for run in journal.runs(notebook="qoe")] == [first, second]
    assert [run.id for run in journal.runs(provider="docker")] == [other.id]
    assert journal.runs(user="nobody at all") == []
    assert [run.id for run in journal.runs(since=journal.runs()[1].started)] == [second, other.id]
    assert journal.show("last").run.id == other.id
    assert journal.show("last", experiment="/study/experiment.yaml").run.id == second
    assert journal.show("last~1", experiment="/study/experiment.yaml").run.id == first
    with pytest.raises(JournalError, match="no run"):
        journal.show("last~2", experiment="/study/experiment.yaml")


def test_equal_runs_do_not_differ(journal):
    """Two runs of the same differ in nothing, though their output came in other pieces and their kernels counted otherwise."""
    first = record(journal, printed=["1", "\n"])
    second = record(journal, printed=["1\n"])
    assert found(journal, first, second) == {}


def test_what_differs_is_located(journal):
    """A version, a source, an output, a parameter and an added node are each named, where they are; equal nodes are told once."""
    first = record(journal)
    second = record(journal, version="1.13", source="%%on client\nprint(2)", printed="2\n", clients=3)
    title = "c1: print(2)"
    assert found(journal, first, second) == {
        ("parameters", "", "clients"): (2, 3),
        ("node", "client[0:2]", "packages.dpkg: iperf3"): ("1.12", "1.13"),
        ("home", "", "packages.dpkg: iperf3"): ("1.12", "1.13"),
        ("cell", title, "source"): ("%%on client\nprint(1)", "%%on client\nprint(2)"),
        ("cell", f"{title} on client[0]", "stdout"): ("1\n", "2\n"),
        ("cell", f"{title} on client[1]", "stdout"): ("1\n", "2\n"),
    }
    journal.fact("machine", {"kernel": "Linux 6.2", "processors": 2}, run=second, node="client[1]")
    journal.fact("machine", {"kernel": "Linux 6.1"}, run=second, node="client[2]")
    journal.fact("image", {"digest": "sha256:12"}, run=first)
    journal.fact("image", {"name": "", "digest": "sha256:12"}, run=second)
    later = found(journal, first, second)
    assert {what for part, _, what in later if part == "home"} == {"packages.dpkg: iperf3"}, "neither image has a name"
    assert later["node", "client[1]", "kernel"] == ("Linux 6.1", "Linux 6.2")
    assert later["node", "client[2]", "exists"] == (None, "there")


def test_sources_that_differ_in_a_secret_alone(journal):
    """Two cells that differ only in what was taken out of the record are still told apart."""
    first = record(journal, source='password = "hunter2hunter2"')
    second = record(journal, source='password = "hunter3hunter3"')
    (change,) = found(journal, first, second).values()
    assert change[0].startswith("sha256 ")
    assert change[0] != change[1]


def test_durations_alone_are_no_difference(journal, monkeypatch):
    """A cell that took far longer is told, and does not make the runs different."""
    first = record(journal)
    run = journal.run(notebook="/study/qoe.ipynb", experiment="/study/experiment.yaml", parameters={"clients": 2})
    moment = time.time()
    monkeypatch.setattr(time, "time", lambda: moment + 100)
    run.done()
    monkeypatch.undo()
    compared = differences(journal.show(first), journal.show(run.id))
    (duration,) = [item for item in compared if item.part == "duration"]
    assert duration.what == "the whole run"
    assert not duration.matters


def test_prov_is_read_by_others(journal):
    """The PROV-JSON of a run is read by the `prov` library, and says who ran what with which files, on which nodes, with what output."""
    run = record(journal)
    text = json.dumps(document(journal.show(run)))
    read = prov.model.ProvDocument.deserialize(io.StringIO(text), format="json")
    kinds = {kind: list(read.get_records(kind)) for kind in (prov.model.ProvActivity, prov.model.ProvEntity, prov.model.ProvAgent)}
    types = [str(next(iter(item.get_attribute("prov:type")))) for item in kinds[prov.model.ProvActivity]]
    assert sorted(types) == ["cell", "operation", "run"]
    labels = {str(label) for item in kinds[prov.model.ProvEntity] for label in item.get_attribute("prov:label")}
    assert labels >= {"client[0]", "client[1]", "home", "/study/experiment.yaml", "/study/qoe.ipynb", "serve.py", "/study/out", "debian"}
    assert len(kinds[prov.model.ProvAgent]) == 2
    generated = [item.formal_attributes for item in read.get_records(prov.model.ProvGeneration)]
    outputs = len(journal.show(run).outputs[journal.show(run).of("cell")[0].id])
    assert len(generated) == outputs + 2 + 1
    assert prov.model.ProvDocument.deserialize(content=read.serialize()) == read


def test_removing_runs(journal, target):
    """A removed run goes with all its rows and the contents that only it named; what another names, and other runs, stay as they are."""
    first, second = record(journal), record(journal, printed="2\n")
    before = journal.show(second)
    removed = journal.remove_runs([first])
    assert (removed.runs, removed.contents) == (1, 1)
    assert [run.id for run in journal.runs()] == [second]
    assert journal.show(second) == before
    for table in ("cells", "operations", "transfers", "facts"):
        assert ask(target, f"SELECT count(*) FROM {table} WHERE run = '{first}'") == [(0,)]
    journal.remove_runs([second])
    for table in ("blobs", "outputs", "facts"):
        assert ask(target, f"SELECT count(*) FROM {table}") == [(0,)]


def test_files_of_large_contents(tmp_path, monkeypatch):
    """A content's file goes with the last run that names it, and is there for a run that is just about to name it."""
    path = tmp_path / "journal.db"
    with Journal.open(path) as journal:
        first, second = (record(journal, printed=["x" * 200_000]) for _ in range(2))
        journal.flush()
        (large,) = [file for file in (tmp_path / "blobs").rglob("*") if file.is_file()]
        journal.remove_runs([first])
        assert large.exists()

        look = batch._blobs

        def look_too_early(*arguments):
            # a writer that saw the file, and whose transaction begins only after the removal's
            seen = look(*arguments)
            journal.remove_runs([second])
            gone.append(not large.exists())
            return seen

        gone = []
        with Journal.open(path) as late:
            run = late.run(notebook="n")
            cell = late.cell(source="x", run=run.id)
            late.flush()
            monkeypatch.setattr(batch, "_blobs", look_too_early)
            cell.output("client[0]", "stream", {"name": "stdout", "text": "x" * 200_000})
            late.flush()
            monkeypatch.undo()
            assert gone == [True]
            assert len(late.outputs(cell.id)[0].content["text"]) == 200_000
