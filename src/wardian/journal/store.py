"""The database behind a journal: opening, migrating, and saying in plain words what is wrong with it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from ..errors import JournalError
from . import postgres

if TYPE_CHECKING:
    from sqlalchemy import Compiled, Connection, Dialect, Engine

BUSY_SECONDS = 30.0
INLINE_BLOB = 64 * 1024
"""Larger ones become files beside the database, where it is a file."""


def shown(target: Path | str) -> str:
    """What a journal is kept in, as errors name it: without a password."""
    return postgres.shown(target) if is_url(target) else str(target)


def is_url(target: Path | str) -> TypeGuard[str]:
    """Whether this is the address of a database, not the path of a file."""
    return isinstance(target, str) and "://" in target


Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Transaction:
    """A batch that is being written. execute: a compiled statement, once for each of some rows."""

    dialect: Dialect
    execute: Callable[[Compiled, Sequence[Row]], object]


class Store:
    """An open database whose schema is the present one.

    blobs: the folder of large blobs, or None where the database keeps them all.
    """

    def __init__(self, engine: Engine, where: str, blobs: Path | None) -> None:
        self.engine = engine
        self.where = where
        self.blobs = blobs
        self._direct: sqlite3.Connection | None = None

    @classmethod
    def open(cls, target: Path | str) -> Store:
        """Open the SQLite file at a path, or the database at a URL; make or migrate it where needed. Raises JournalError."""
        if is_url(target):
            return cls._open_url(target)
        path = Path(target)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(str(path), error) from error
        from sqlalchemy import URL, create_engine, event

        engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _sqlite_connected)
        event.listen(engine, "begin", _sqlite_begin)
        store = cls(engine, str(path), path.parent / "blobs")
        with store.errors():
            if store._version() != _head():
                with _locked(path.with_name("journal.lock")):
                    store._migrate()
        return store

    @classmethod
    def _open_url(cls, url: str) -> Store:
        engine, where = postgres.connect(url)
        store = cls(engine, where, None)
        try:
            with store.errors():
                if store._version() != _head():
                    store._migrate()
        except JournalError:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Let go of every connection."""
        if self._direct is not None:
            self._direct.close()
        self.engine.dispose()

    @contextmanager
    def batch(self) -> Iterator[Transaction]:
        """A transaction as `writing`, for the one thread that writes batches.

        SQLite is spoken to directly: SQLAlchemy's way to it costs more than all that SQLite does for the rows of some cells.
        """
        dialect = self.engine.dialect
        if dialect.name == "postgresql":
            with self.writing() as connection:
                yield Transaction(dialect, lambda statement, rows: connection.exec_driver_sql(str(statement), list(rows)))
            return
        with self.errors():
            if self._direct is None:
                opened = self.engine.raw_connection()
                opened.detach()
                self._direct = cast(sqlite3.Connection, opened.dbapi_connection)
            cursor = self._direct.cursor()

            def execute(statement: Compiled, rows: Sequence[Row]) -> None:
                cursor.executemany(str(statement), map(itemgetter(*cast(Any, statement).positiontup), rows))

            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(dialect, execute)
                cursor.execute("COMMIT")
            except BaseException:
                # some errors of the disk end it by themselves
                if self._direct.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes, of which those who listen are told; a JournalError if the database refuses."""
        with self.errors(), self.engine.connect().execution_options(wardian_writes=True) as connection, connection.begin():
            yield connection
            if self.engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"NOTIFY {postgres.CHANNEL}")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads one consistent state."""
        with self.errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What the database or the disk says, as a JournalError with the path and what to do."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except sqlite3.Error as error:
            raise _database_error(self.where, error) from error
        except SQLAlchemyError as error:
            if self.engine.dialect.name == "postgresql":
                raise postgres.explain(self.where, error, self.engine.url.database) from error
            raise _database_error(self.where, getattr(error, "orig", None) or error) from error
        except OSError as error:
            raise _cannot_write(self.where, error) from error

    def _version(self) -> str | None:
        from sqlalchemy import inspect, text

        with self.engine.begin() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            return version

    def _migrate(self) -> None:
        version = self._version()
        if version == _head():
            return
        # loaded only here: it costs more than the rest of opening
        from alembic.config import Config
        from alembic.runtime.environment import EnvironmentContext
        from alembic.script import ScriptDirectory
        from sqlalchemy import text

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        script = ScriptDirectory.from_config(config)
        if version is not None and version not in {revision.revision for revision in script.walk_revisions()}:
            raise JournalError(
                f"{self.where}: the journal was written by a newer Wardian (its schema is {version}, this one knows up to {_head()})",
                remedy="upgrade Wardian: pip install --upgrade wardian",
            )
        if self.engine.dialect.name == "sqlite":
            # not within a transaction, which a connection of the engine would begin
            bare = self.engine.raw_connection()
            try:
                bare.cursor().execute("PRAGMA journal_mode=WAL")
            except sqlite3.Error as error:
                raise _database_error(self.where, error) from error
            finally:
                bare.close()
        # one transaction for all steps: being killed in the middle leaves the old schema
        with self.writing() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(7724)"))
            config.attributes["connection"] = connection

            def upgrade(revision: Any, _context: Any) -> Any:
                return script._upgrade_revs("head", revision)

            with EnvironmentContext(config, script, fn=upgrade, destination_rev="head"):
                script.run_env()


def _head() -> str:
    from .tables import HEAD

    return HEAD


def _sqlite_connected(connection: sqlite3.Connection, _record: object) -> None:
    # transactions are begun by `_sqlite_begin`: left to itself, the driver runs each CREATE TABLE outside of any
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=NORMAL")


def _sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("wardian_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _cannot_write(where: str, error: OSError) -> JournalError:
    return JournalError(
        f"{where}: the journal cannot be written: {error.strerror or error}",
        remedy="make its folder writable, free some space there, or keep the experiment in another folder",
    )


_SQLITE = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space: what was not written yet is tried again"),
    sqlite3.SQLITE_IOERR: ("the disk reports an error or is full", "check the disk and its free space"),
    sqlite3.SQLITE_READONLY: ("the journal cannot be written: it or its folder is read-only", "make the file and its folder writable"),
    sqlite3.SQLITE_PERM: ("the journal cannot be written: no permission", "make the file and its folder writable"),
    sqlite3.SQLITE_CANTOPEN: ("the journal cannot be opened", "make the file and its folder readable and writable"),
    sqlite3.SQLITE_NOTADB: ("this is not a journal", "move the file away: a new journal is made in its place"),
    sqlite3.SQLITE_CORRUPT: ("the journal is damaged", "move the file away, or mend it: sqlite3 FILE .recover | sqlite3 NEW"),
    sqlite3.SQLITE_BUSY: (f"another process has held the journal for {BUSY_SECONDS:.0f} s", "end that process, or wait for it"),
}


def _database_error(where: str, cause: BaseException) -> JournalError:
    # the low byte is the kind, the rest tells its varieties apart
    code = getattr(cause, "sqlite_errorcode", None)
    said, remedy = _SQLITE.get(code & 0xFF if code is not None else -1, ("the database refused", "check the address and that it runs"))
    return JournalError(f"{where}: {said} ({cause})", remedy=remedy)
