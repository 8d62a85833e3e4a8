"""The journal in a file: what is in it, and what may be wrong with it."""

import json
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from wardian.errors import JournalError
from wardian.journal import Journal

from .databases import python


@pytest.fixture
def path(tmp_path):
    """Of a journal's file."""
    return tmp_path / ".wardian" / "journal.db"


@pytest.fixture
def journal(path):
    """A journal in that file, open."""
    with Journal.open(path) as journal:
        yield journal


def test_large_outputs_are_files_and_equal_ones_are_kept_once(journal, path):
    """A large output goes to `blobs`, by its hash, however often it comes; a small one is in the database."""
    cell = journal.cell(source="x")
    for _ in range(3):
        cell.output(None, "display_data", {"data": {"text/plain": "x" * 200_000}})
    cell.output(None, "stream", {"text": "small"})
    journal.flush()
    files = [file for file in (path.parent / "blobs").rglob("*") if file.is_file()]
    assert len(files) == 1
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*), count(data) FROM blobs").fetchone() == (2, 1)
        assert [row[0] for row in database.execute("SELECT sequence FROM outputs ORDER BY sequence")] == [1, 2, 3, 4]


def test_a_file_that_is_no_journal(path):
    """Junk in place of the database is one error that names the file and says what to do."""
    path.parent.mkdir()
    path.write_bytes(b"junk" * 1000)
    with pytest.raises(JournalError, match="not a journal") as caught:
        Journal.open(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy


def test_a_folder_that_cannot_be_made(tmp_path):
    """A folder that cannot be made is an error with its path; opened in the background, it shows at the first use."""
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be written"):
        Journal.open(tmp_path / "file" / "journal.db")
    journal = Journal.open(tmp_path / "file" / "journal.db", wait=False)
    with pytest.raises(JournalError, match="cannot be written"):
        journal.flush()


@pytest.mark.root
def test_a_read_only_folder(tmp_path):
    """Without the right to write there, opening says so."""
    tmp_path.chmod(0o755)
    code = """
        import os, sys
        from wardian.journal import Journal, journal, queries
        import alembic.config, sqlalchemy.dialects.sqlite
        from wardian.errors import JournalError
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            Journal.open(sys.argv[1])
        except JournalError as error:
            print(error)
        """
    process = python(code, "/usr/share/journal.db")
    assert "cannot be" in process.stdout.read()
    process.wait()


@pytest.mark.root
def test_a_full_disk_loses_nothing(tmp_path):
    """On a full disk recording raises an error, and what was kept is written once there is room."""
    code = """
        import os, sys, json
        from pathlib import Path
        from wardian.journal import Journal
        from wardian.errors import JournalError
        folder = Path(sys.argv[1])
        journal = Journal.open(folder / "journal.db")
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        for number in range(20):
            try:
                journal.cell(source=f"{number}" * 20000)
            except JournalError as error:
                break
        try:
            journal.flush()
        except JournalError as error:
            said = str(error)
        recorded = number
        filler.unlink()
        journal.flush()
        journal.cell(source="after").done()
        print(json.dumps([said, recorded, len(journal.entries())]))
        journal.close()
        """
    mount = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh", tmp_path, sys.executable, textwrap.dedent(code)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said, recorded, found = json.loads(done.stdout)
    assert "disk" in said
    assert found >= recorded
