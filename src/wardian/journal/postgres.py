"""A journal in PostgreSQL: its address, its connections, and what its refusals mean."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import JournalError

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

PREFIXES = ("postgresql://", "postgres://", "postgresql+psycopg://")
HIDDEN = "***"
CHANNEL = "wardian_journal"
"""What each transaction that writes to a journal notifies (NOTIFY)."""

_DEFAULTS = {
    "application_name": "wardian",
    # a server that vanished without a word is noticed within half a minute, not after the system's quarter of an hour
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Parameters of the connection (libpq's names) that an address may set otherwise."""

_INSTALL = "install its driver: pip install 'wardian[postgres]'"
_ADDRESS = (
    "an address looks like postgresql://USER:PASSWORD@HOST:5432/DATABASE; write characters such as / @ : in a password as %2F %40 %3A"
)


class Unreachable(JournalError):
    """The server does not answer now, or sent the transaction back: the same is tried again later."""


def shown(url: str) -> str:
    """An address without its password, for people to read. Text that is no address gives only what it begins with."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _shown(_parsed(url))
    except (SQLAlchemyError, ValueError):
        return f"{url.partition('://')[0]}://{HIDDEN}"


def connect(url: str) -> tuple[Engine, str]:
    """An engine for the database at an address, and the address as it may be shown. Nothing is sent yet. Raises JournalError."""
    if not url.startswith(PREFIXES):
        raise JournalError(f"{shown(url)}: a journal is a file or a PostgreSQL database", remedy=_ADDRESS)
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    # `from None`: what these say repeats the address, and so the password
    try:
        parsed = _parsed(url)
        arguments = {name: value for name, value in _DEFAULTS.items() if name not in parsed.query}
        # one connection a process is kept: a server has a hundred, and a team many notebooks
        options = {"pool_size": 1, "max_overflow": 4, "pool_pre_ping": True, "hide_parameters": True}
        engine = create_engine(parsed, connect_args=arguments, **options)
    except ImportError as error:  # of psycopg itself, or of the library that it wraps
        raise JournalError(f"{shown(url)}: {error}", remedy=_INSTALL) from None
    except (SQLAlchemyError, ValueError):
        raise JournalError(f"{shown(url)}: this is no address of a database", remedy=_ADDRESS) from None
    return engine, _shown(parsed)


async def told(url: str) -> AsyncIterator[None]:
    """Gives None once the database at an address listens, and whenever something was written to a journal there from then on.

    Ends where that cannot be told: without the server or its driver, or behind a pooler that has no LISTEN.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        import psycopg

        parsed = _parsed(url).set(drivername="postgresql")
    except (ImportError, SQLAlchemyError, ValueError):
        # whoever opens the journal itself is told
        return
    arguments: dict[str, Any] = {name: value for name, value in _DEFAULTS.items() if name not in parsed.query}
    with suppress(psycopg.Error):
        address = parsed.render_as_string(hide_password=False)
        async with await psycopg.AsyncConnection.connect(address, autocommit=True, **arguments) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            yield
            async for _ in connection.notifies():
                yield


def explain(where: str, error: BaseException, database: str | None) -> JournalError:
    """What the server or its driver says, in words for the user. error: SQLAlchemy's."""
    cause = getattr(error, "orig", None) or error
    state = getattr(cause, "sqlstate", None) or ""
    text = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    if not state:
        # at the opening of a connection there is no code, only words
        state = next((code for code, words in _WORDS if words.search(text)), "")
    for code, said, remedy in _REFUSALS:
        if state.startswith(code):
            return JournalError(f"{where}: {said} ({text})", remedy=remedy.format(database=database or "wardian"))
    if not state or getattr(error, "connection_invalidated", False) or state.startswith(_PASSING):
        return Unreachable(
            f"{where}: the database server cannot be reached ({text})",
            remedy="check host and port, that the server runs, and that this machine may connect",
        )
    return JournalError(f"{where}: the database refused ({text})", remedy="ask who keeps the database what this means")


_WORDS = (
    ("3D000", re.compile(r'database ".*" does not exist')),
    (
        "28000",
        re.compile(r"authentication failed|no password|role .* does not exist|no pg_hba.conf entry|not permitted to log in"),
    ),
    ("42501", re.compile(r"permission denied")),
)

_REFUSALS = (
    ("3D000", "there is no such database", "make it: createdb {database}"),
    ("28", "the server does not let this user in", "check user and password in the address, or in ~/.pgpass"),
    ("42501", "this user lacks a right", "as the owner of {database}: GRANT ALL ON SCHEMA public TO the user"),
    ("3F000", "this user has no schema to make tables in", "CREATE SCHEMA, and put it on the user's search_path"),
    ("25006", "this server takes no writes", "give the address of the primary, not of a standby"),
    ("53100", "the server's disk is full", "free some space there: what was not written yet is tried again"),
)

_PASSING = ("08", "57P", "40", "53300", "55P03")
"""Classes of states that pass: lost connections, shutdowns, deadlocks, too many clients, locks."""


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    if "@" in f"{parsed.host}{parsed.database}":
        raise ValueError("a part of the password would be taken for the host")
    return parsed.set(drivername="postgresql+psycopg")


def _shown(url: URL) -> str:
    query = {name: HIDDEN if name in ("password", "sslpassword") else value for name, value in url.query.items()}
    return url.set(drivername="postgresql", query=query).render_as_string(hide_password=True).replace("%2A", "*").replace("%2F", "/")
