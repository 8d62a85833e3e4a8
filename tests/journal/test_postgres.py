"""A journal in PostgreSQL: several processes at once, a server that comes and goes, and what is said about it."""

import logging
import subprocess
import sys
import traceback

import pytest

from wardian.errors import JournalError
from wardian.journal import Journal, store, writer

from .databases import ask, python

SECRET = "correct horse"
WRITTEN = "correct%20horse"


@pytest.fixture
def database(server):
    """The name of a database that nothing is in."""
    return server.database()


def said(target):
    """What opening a journal says, with the whole traceback."""
    with pytest.raises(JournalError) as caught:
        Journal.open(target)
    assert caught.value.remedy
    return caught.value, "".join(traceback.format_exception(caught.value))


def test_no_server(tmp_path):
    """Where no server answers, the error names the address and says what to check."""
    error, _ = said(f"postgresql://me@/journal?host={tmp_path}")
    assert "cannot be reached" in error.message
    assert str(tmp_path) in error.message
    assert len(error.message.splitlines()) == 1


def test_no_database(server):
    """A database that does not exist is named, with the command that makes it."""
    error, _ = said(server.url("nothing_here"))
    assert "no such database" in error.message
    assert error.remedy == "make it: createdb nothing_here"


def test_no_rights(server, database):
    """A user who may not make tables is told which right is missing; one who may write has a journal."""
    server.ask(f"CREATE USER {database}_guest")
    error, _ = said(server.url(database, f"{database}_guest"))
    assert "lacks a right" in error.message
    assert "GRANT" in error.remedy
    server.ask(f"GRANT ALL ON SCHEMA public TO {database}_guest", database)
    with Journal.open(server.url(database, f"{database}_guest")) as journal:
        journal.cell(source="x").done()


def test_the_driver_is_missing(monkeypatch):
    """Without psycopg the error says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error, _ = said("postgresql://me@/journal")
    assert "pip install 'wardian[postgres]'" in error.remedy


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:{}@host/journal",
        "postgresql://me:{}@host:port/journal",
        "postgresql://me:not@{}@host/journal",
        "postgresql://me:not/{}@@/journal",
    ],
)
def test_what_is_no_address(url):
    """Another database, or an address that cannot be read, is refused with how one looks, and without what it was."""
    error, trace = said(url.format(WRITTEN))
    assert "postgresql://USER:PASSWORD@HOST:5432/DATABASE" in error.remedy
    assert WRITTEN not in trace


def test_the_password_is_shown_nowhere(server, database, caplog):
    """Neither an error, nor its traceback, nor a log at any level has the password, wherever in the address it stands."""
    caplog.set_level(logging.DEBUG)
    server.ask("DROP USER IF EXISTS guarded")
    server.ask(f"CREATE USER guarded PASSWORD '{SECRET}'")
    server.ask("GRANT ALL ON SCHEMA public TO guarded", database)
    wrong = f"not{WRITTEN}"
    traces = [said(server.url(database, "guarded", wrong))[1], said(f"{server.url(database, 'guarded')}&password={wrong}")[1]]
    for trace in traces:
        assert "does not let this user in" in trace
    address = server.url(database, "guarded", WRITTEN)
    for url in (address, f"{server.url(database, 'guarded')}&password={WRITTEN}"):
        journal = Journal.open(url)
        journal.cell(source="x").done()
        with pytest.raises(JournalError) as missing:
            journal.show("none")
        journal.close()
        with pytest.raises(JournalError) as closed:
            journal.cell(source="y")
        traces += [*traceback.format_exception(missing.value), *traceback.format_exception(closed.value), store.shown(url)]
        assert "guarded:***@" in str(closed.value) or "password=***" in str(closed.value)
    traces.append(said(server.url("nothing_here", "guarded", WRITTEN))[1])
    whole = "\n".join([*traces, caplog.text])
    assert "horse" not in whole


def test_a_server_that_is_away(server, database, monkeypatch):
    """While the server is away recording goes on, reading says what is wrong, and everything is there once it is back, once."""
    monkeypatch.setattr(writer, "RETRY_SECONDS", (0.05, 0.2))
    journal = Journal.open(server.url(database))
    cell = journal.cell(source="before")
    journal.flush()
    server.stop()
    try:
        cell.output(None, "stream", {"text": "while"})
        cell.done()
        with pytest.raises(JournalError, match="cannot be reached"):
            journal.entries()
        later = [journal.cell(source=f"later {number}") for number in range(100)]
        later[0].done()
    finally:
        server.start()
    journal.flush()
    entries = journal.entries()
    assert [entry.detail["source"] for entry in entries] == ["before", *(f"later {number}" for number in range(100))]
    assert [entry.status for entry in entries[:3]] == ["ok", "ok", "running"]
    assert len(journal.outputs(cell.id)) == 1
    journal.close()


def test_nobody_has_to_ask_for_it(server, database, monkeypatch):
    """A server that is back gets what was kept though nothing more is recorded, also from a process that is about to end."""
    monkeypatch.setattr(writer, "RETRY_SECONDS", (0.05, 0.2))
    code = """
        import sys
        from wardian.journal import Journal
        journal = Journal.open(sys.argv[1])
        print("open", flush=True)
        sys.stdin.readline()
        for number in range(10):
            journal.cell(source=str(number)).done()
        print("recorded", flush=True)
        journal.close()
        """
    process = python(code, server.url(database), stdin=subprocess.PIPE)
    assert process.stdout.readline() == "open\n"
    server.stop()
    try:
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "recorded\n"
    finally:
        server.start()
    assert process.wait(60) == 0
    assert ask(server.url(database), "SELECT count(*) FROM cells WHERE status = 'ok'") == [(10,)]


def test_what_is_kept_has_a_bound(server, database, monkeypatch):
    """With more kept than memory should hold, recording is an error; what was kept until then is still written."""
    monkeypatch.setattr(writer, "MOST_HELD", 50_000)
    monkeypatch.setattr(writer, "LAST_SECONDS", 0.2)
    monkeypatch.setattr(writer, "RETRY_SECONDS", (0.05, 0.2))
    journal = Journal.open(server.url(database))
    server.stop()
    recorded = 0

    def record():
        nonlocal recorded
        journal.cell(source="x" * 1000)
        recorded += 1

    try:
        for _ in range(100):
            record()
        with pytest.raises(JournalError):
            journal.flush()
        with pytest.raises(JournalError, match="cannot be reached"):
            record()
    finally:
        server.start()
    journal.flush()
    assert len(journal.entries()) == recorded
    server.stop()
    try:
        journal.cell(source="lost")
        with pytest.raises(JournalError, match="1 entries are lost"):
            journal.close()
    finally:
        server.start()


def test_a_connection_that_the_server_ended(server, database):
    """A connection that was cut while nothing was going on is replaced, and neither writer nor reader notices."""
    with Journal.open(server.url(database)) as journal:
        for number in range(3):
            journal.cell(source=str(number)).done()
            assert len(journal.entries()) == number + 1
            server.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")


def test_equal_outputs_from_several_processes(server, database):
    """Processes that record the same contents at the same time, each in another order, neither fail nor wait for each other for ever."""
    code = """
        import random, sys
        from wardian.journal import Journal
        with Journal.open(sys.argv[1]) as journal:
            sys.stdin.readline()
            for turn in range(8):
                cell = journal.cell(source="x")
                for number in random.sample(range(50), 50):
                    cell.output(None, "stream", {"text": f"{turn} {number}"})
                cell.done()
                journal.flush()
        """
    with Journal.open(server.url(database)):
        pass
    processes = [python(code, server.url(database), stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(100) for process in processes] == [0] * 3
    assert ask(server.url(database), "SELECT count(*) FROM blobs") == [(400,)]
    assert ask(server.url(database), "SELECT count(*) FROM outputs") == [(1200,)]
