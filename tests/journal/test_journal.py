"""The journal, in a file and in PostgreSQL: what is recorded comes back, whatever happens to the process that records it."""

import os
import random
import signal
import subprocess
import time

import pytest

from wardian.errors import JournalError
from wardian.journal import Journal, LogEntry
from wardian.journal.identifiers import new_id

from .databases import ask, everything, python


def test_entries_come_back_in_one_time_line(journal):
    """Every kind of entry is found again with what was recorded about it, in the order in which it began."""
    run = journal.run(notebook="qoe.ipynb", experiment="experiment.yaml", parameters={"clients": 20})
    operation = journal.operation(environment="e1", action="create", kind="node", targets=["client[0]"], reason="it is wanted", run=run.id)
    operation.done()
    cell = journal.cell(source="%%on client\nprint(1)", nodes=["client[0]"], selector="client", run=run.id, environment="e1")
    cell.output("client[0]", "stream", {"name": "stdout", "text": "1\n"})
    cell.done("failed", "ValueError: no")
    transfer = journal.transfer(node="server", direction="get", source="/out", target="out", run=run.id)
    transfer.done(bytes=17, sha256="ab")
    journal.event(kind="node.down", environment="e1", node="server", detail={"exit": 1}, run=run.id)
    run.amend(environment="e1", provider="local")
    run.done()

    entries = journal.entries()
    assert [entry.kind for entry in entries] == ["run", "operation", "cell", "transfer", "event"]
    assert [entry.status for entry in entries] == ["ok", "ok", "failed", "ok", "ok"]
    assert entries[0].environment == "e1"
    assert entries[0].detail["parameters"] == {"clients": 20}
    assert entries[1].summary == "create node client[0] (it is wanted)"
    assert entries[2].error == "ValueError: no"
    assert entries[2].nodes == ("client[0]",)
    assert entries[3].detail["bytes"] == 17
    assert entries[4].detail == {"exit": 1}
    record = journal.show("last")
    assert record.run.id == run.id
    assert len(record.entries) == 4
    (output,) = record.outputs[cell.id]
    assert (output.node, output.message_type, output.content) == ("client[0]", "stream", {"name": "stdout", "text": "1\n"})


def test_entries_are_filtered(journal):
    """Kind, node, environment, time and limit each narrow what is given; a node's links and services count as the node."""
    for name in ("client[0]", "client[1]"):
        journal.operation(environment="e1", action="create", kind="access", targets=[f"{name}/west"]).done()
    journal.operation(environment="e2", action="create", kind="service", targets=["dash@server"]).done()
    late = journal.cell(source="1", nodes=["client[1]"])
    late.done()
    assert len(journal.entries(node="client[1]")) == 2
    assert journal.entries(node="client") == []
    assert [entry.summary for entry in journal.entries(node="server")] == ["create service dash@server"]
    assert len(journal.entries(environment="e1")) == 2
    assert [entry.id for entry in journal.entries(limit=1)] == [late.id]
    assert [entry.id for entry in journal.entries(since=journal.entries(limit=1)[0].started)] == [late.id]
    with pytest.raises(JournalError, match="nonsense"):
        journal.entries(kinds=["nonsense"])


def test_a_run_is_found_by_the_end_of_its_id(journal):
    """`show` takes what identifies one run, and refuses what identifies none or several."""
    first, second = journal.run(notebook="a"), journal.run(notebook="b")
    assert journal.show(first.id[-12:]).run.id == first.id
    assert journal.show("last").run.id == second.id
    with pytest.raises(JournalError, match="no run"):
        journal.show("nothing")
    with pytest.raises(JournalError, match="more than one"):
        journal.show("")


def test_as_a_context_an_exception_is_a_failure(journal):
    """Leaving the context by an exception records how it ended."""
    with pytest.raises(ZeroDivisionError), journal.cell(source="1/0"):
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), journal.cell(source="x"):
        raise KeyboardInterrupt
    with journal.cell(source="y"):
        pass
    assert [(entry.status, entry.error) for entry in journal.entries()] == [
        ("failed", "ZeroDivisionError: division by zero"),
        ("cancelled", None),
        ("ok", None),
    ]


def test_a_killed_process_reads_as_interrupted(target):
    """What a process began and did not end before SIGKILL is there, and marked; that of a living process is running."""
    process = python(
        """
        import sys, time
        from wardian.journal import Journal
        journal = Journal.open(sys.argv[1])
        journal.cell(source="ended").done()
        journal.cell(source="began")
        journal.flush()
        print("ready", flush=True)
        time.sleep(60)
        """,
        target,
    )
    assert process.stdout.readline() == "ready\n"
    with Journal.open(target) as journal:
        assert [entry.status for entry in journal.entries()] == ["ok", "running"]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [entry.status for entry in journal.entries()] == ["ok", "interrupted"]


def test_what_is_recorded_is_written_without_being_asked(target):
    """Nobody has to flush: a reader in another process sees an entry soon after it was recorded, and an exit writes the rest."""
    process = python(
        """
        import sys
        from wardian.journal import Journal
        journal = Journal.open(sys.argv[1])
        for number in range(500):
            journal.cell(source=str(number)).done()
        """,
        target,
    )
    assert process.wait(60) == 0
    with Journal.open(target) as journal:
        assert len(journal.entries()) == 500


def test_two_processes_make_one_journal_at_once(target):
    """Several processes that open a journal which does not exist yet all succeed, and all their entries are there."""
    code = """
        import sys
        from wardian.journal import Journal
        sys.stdin.readline()
        with Journal.open(sys.argv[1]) as journal:
            for number in range(50):
                journal.cell(source=str(number)).done()
        """
    processes = [python(code, target, stdin=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0] * 4
    with Journal.open(target) as journal:
        assert len(journal.entries()) == 200


def test_a_forked_child_is_refused(journal):
    """Recording in a forked child raises an error; closing there leaves the parent's journal alone."""
    journal.cell(source="before").done()
    journal.flush()
    child = os.fork()
    if child == 0:
        try:
            journal.close()
            journal.cell(source="child")
        except JournalError as error:
            os._exit(42 if "forked" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    journal.cell(source="after").done()
    assert [entry.detail["source"] for entry in journal.entries()] == ["before", "after"]


def test_a_closed_journal_refuses(target):
    """Recording after `close` is an error, not a loss."""
    journal = Journal.open(target)
    entry = journal.cell(source="x")
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        entry.done()


def test_secrets_are_not_written(journal, target):
    """Neither values under secret names nor key shapes reach the disk, in any column or output."""
    token = "ghp_" + "a1B2" * 9
    pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIEsecretbody\n-----END RSA PRIVATE KEY-----"
    journal.run(notebook="n", parameters={"DB_PASSWORD": "hunter2", "nested": {"apiKey": "hunter3"}, "clients": 3, "keyboard": "us"})
    cell = journal.cell(source=f"push({token!r})")
    cell.output(None, "stream", {"name": "stdout", "text": pem})
    cell.done("failed", f"refused {token}")
    journal.event(kind="env", detail={"AWS_SECRET_ACCESS_KEY": "hunter4", "note": "AKIAABCDEFGHIJKLMNOP", "url": "http://u:hunter5@h/"})
    journal.flush()
    text = everything(target)
    for secret in (b"hunter2", b"hunter3", b"hunter4", b"hunter5", token.encode(), b"MIIEsecretbody", b"AKIAABCDEFGHIJKLMNOP"):
        assert secret not in text
    parameters = journal.runs()[0].detail["parameters"]
    assert parameters == {"DB_PASSWORD": "[redacted]", "nested": {"apiKey": "[redacted]"}, "clients": 3, "keyboard": "us"}


def test_names_that_are_no_text_are_recorded(journal):
    """A path with bytes that are no UTF-8, or a NUL in a source, does not stop the journal."""
    journal.transfer(node="a", direction="put", source=os.fsdecode(b"/\xff"), target="/x").done()
    journal.cell(source="a\0b").done()
    assert [entry.status for entry in journal.entries()] == ["ok", "ok"]


def test_ids_sort_by_time():
    """Identifiers made one after the other sort in that order and are all different."""
    ids = [new_id() for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert all(identifier[14] == "7" and len(identifier) == 36 for identifier in ids)


def test_later_values_are_checked(journal):
    """What cannot be set later, or a status that does not exist, is refused at once."""
    cell = journal.cell(source="x")
    with pytest.raises(TypeError):
        cell.amend(source="y")
    with pytest.raises(ValueError, match="status"):
        cell.done("perhaps")


def test_importing_does_not_load_the_database_libraries():
    """`import wardian.journal` loads neither SQLAlchemy nor Alembic, and opening an existing journal no Alembic."""
    code = "import sys, wardian.journal; print('sqlalchemy' in sys.modules, 'alembic' in sys.modules)"
    process = python(code)
    assert process.stdout.read().split() == ["False", "False"]
    process.wait()


def test_packages_that_are_called_as_secrets_are(journal, target):
    """The version of a package keeps its place in the record whatever the package is called; what is no version under such a name goes."""
    run = journal.run(notebook="n").id
    versions = {"passwd": "1:4.13+dfsg1-1", "libsecret-1-0": "0.20.5-3", "keyring": "25.2.1", "ssh-key": "v1", "curl": "7.88"}
    journal.hide(["9.9.9-hunter1"])
    journal.fact("packages.dpkg", versions | {"token": "hunter2", "passwd-tools": "-hunter3", "libc6": "9.9.9-hunter1"}, run=run)
    journal.fact("machine", {"passwd": "4hunter4"}, run=run)
    journal.flush()
    found = journal.show(run)
    redacted = "[redacted]"
    assert found.fact("packages.dpkg") == versions | {"token": redacted, "passwd-tools": redacted, "libc6": redacted}
    assert found.fact("machine") == {"passwd": redacted}
    journal.take_in(list(journal.extract([run], str)), str)
    assert journal.show(run).fact("packages.dpkg")["passwd"] == versions["passwd"]


def test_alembic_is_loaded_only_to_migrate(journal, target):
    """Opening a journal whose schema is the present one does not load Alembic."""
    process = python(
        "import sys; from wardian.journal import Journal; Journal.open(sys.argv[1]).close(); print('alembic' in sys.modules)", target
    )
    assert process.stdout.read().strip() == "False"
    assert process.wait() == 0


def test_a_newer_schema(journal, target):
    """A journal of a newer version is refused with the advice to upgrade."""
    journal.close()
    ask(target, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(JournalError, match="newer Wardian") as caught:
        Journal.open(target)
    assert "upgrade" in caught.value.remedy


@pytest.mark.slow
def test_kill_at_any_moment(target):
    """SIGKILL at any moment loses only what was recorded last: all up to the last flush is there, and no hole or half before the end."""
    code = """
        import sys, time
        from wardian.journal import Journal
        journal = Journal.open(sys.argv[1])
        run = journal.run(notebook="n")
        for number in range(100_000):
            cell = journal.cell(source=str(number), run=run.id)
            cell.output(None, "stream", {"text": str(number) * 20_000})
            journal.fact("number", [number], run=run.id)
            cell.done()
            if number % 20 == 0:
                journal.flush()
                print(number, flush=True)
            time.sleep(0.0005)
        """
    with Journal.open(target):
        pass
    chance = random.Random(7)
    for _ in range(3):
        process = python(code, target)
        for _ in range(chance.randint(1, 12)):
            flushed = int(process.stdout.readline())
        time.sleep(chance.random() / 50)
        process.kill()
        flushed = max([flushed, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
        process.wait()
        with Journal.open(target) as journal:
            record = journal.show("last")
        cells = record.of("cell")
        assert record.run.status == "interrupted"
        assert len(cells) > flushed
        assert [int(cell.detail["source"]) for cell in cells] == list(range(len(cells)))
        assert {cell.status for cell in cells[:-1]} == {"ok"}
        assert [fact.value for fact in record.facts][: len(cells) - 1] == [[number] for number in range(len(cells) - 1)]
        assert all(record.outputs[cell.id][0].content["text"] == cell.detail["source"] * 20_000 for cell in cells[:-1])


def test_how_long_cells_took(journal: Journal) -> None:
    """Of each cell of a notebook it is known how long it took when it ended well last, whatever failed or still runs since."""
    for cell, notebook, status in (
        ("a", "n", "ok"),
        ("b", "n", "ok"),
        ("a", "n", "ok"),
        ("a", "n", "failed"),
        ("c", "n", "failed"),
        ("d", "o", "ok"),
    ):
        journal.cell(source="x", cell=cell, notebook=notebook).done(status)
    journal.cell(source="x", cell="b", notebook="n")
    journal.flush()
    entries = journal.entries(kinds=["cell"])
    assert journal.durations("n") == {"a": took(entries[2]), "b": took(entries[1])}


def took(entry: LogEntry) -> float:
    """How long an entry lasted, seconds."""
    assert entry.ended is not None
    return entry.ended - entry.started
