"""The schema: the migrations lead to the tables, from the first version on."""

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import wardian.journal
from wardian.journal import Journal, tables
from wardian.journal.store import Store


def test_the_migrations_make_the_tables(target):
    """A database made by the migrations has exactly the tables that the code uses."""
    store = Store.open(target)
    with store.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    store.close()


def test_the_newest_migration_is_the_one_expected():
    """There is one newest migration, and `HEAD` names it."""
    config = Config()
    config.set_main_option("script_location", str(Path(wardian.journal.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [tables.HEAD]


@pytest.mark.slow
def test_being_killed_while_the_schema_is_made(tmp_path):
    """SIGKILL at any moment of the making leaves a journal that the next process opens."""
    code = textwrap.dedent("""
        import sys
        import alembic.config, sqlalchemy.dialects.sqlite, wardian.journal.tables
        from wardian.journal import Journal
        print("go", flush=True)
        Journal.open(sys.argv[1])
        print("made", flush=True)
        """)
    for attempt in range(8):
        path = tmp_path / str(attempt) / "journal.db"
        process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        process.stdout.readline()
        # killed as soon as the file has grown to a size that is different each time
        while process.poll() is None and not (path.exists() and path.stat().st_size + _size(f"{path}-wal") >= attempt * 12_000):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Journal.open(path) as journal:
            journal.cell(source="x").done()
            assert len(journal.entries()) == 1


def _size(path):
    # SQLite removes it when it is done
    with suppress(FileNotFoundError):
        return os.path.getsize(path)
    return 0
