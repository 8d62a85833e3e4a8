"""The journal's tables, as they are after the last migration.

Only types that SQLite and PostgreSQL both have. Lists and mappings are JSON as text, times are seconds since the epoch. There are no
foreign keys: several processes write parts of one story, each in its own time.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table, Text

HEAD = "0003"
"""The newest migration."""

metadata = MetaData()


def _entry(name: str, *columns: Column[object]) -> Table:
    return Table(
        name,
        metadata,
        Column("id", String(36), primary_key=True),
        Column("writer", String(36), nullable=False),
        Column("environment", Text),
        Column("run", String(36)),
        *columns,
        Column("started", Double, nullable=False),
        Column("ended", Double),
        Column("status", String(16), nullable=False),
        Column("error", Text),
        Index(f"{name}_started", "started"),
        Index(f"{name}_run", "run"),
    )


writers = Table(
    "writers",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("host", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Text, nullable=False),
    Column("opened", Double, nullable=False),
)

operations = _entry(
    "operations",
    Column("instance", Text),
    Column("action", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("targets", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

runs = _entry(
    "runs",
    Column("notebook", Text, nullable=False),
    Column("experiment", Text),
    Column("experiment_digest", Text),
    Column("parameters", Text, nullable=False),
    Column("provider", Text),
    Column("user", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("wardian", Text, nullable=False),
    Column("python", Text, nullable=False),
)

cells = _entry(
    "cells",
    Column("session", Text),
    Column("cell", Text),
    Column("notebook", Text),
    Column("source", Text, nullable=False),
    Column("source_digest", String(64), nullable=False),
    Column("selector", Text),
    Column("nodes", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("background", Boolean, nullable=False),
    Column("request", Text),
)

transfers = _entry(
    "transfers",
    Column("node", Text, nullable=False),
    Column("direction", String(8), nullable=False),
    Column("source", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("bytes", BigInteger),
    Column("sha256", String(64)),
)

events = Table(
    "events",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("writer", String(36), nullable=False),
    Column("environment", Text),
    Column("run", String(36)),
    Column("node", Text),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("time", Double, nullable=False),
    Index("events_time", "time"),
    Index("events_run", "run"),
)

outputs = Table(
    "outputs",
    metadata,
    Column("cell_entry", String(36), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("node", Text),
    Column("message_type", Text, nullable=False),
    Column("blob", String(64), nullable=False),
    Column("time", Double, nullable=False),
    Index("outputs_blob", "blob"),
)

facts = Table(
    "facts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("writer", String(36), nullable=False),
    Column("run", String(36), nullable=False),
    Column("node", Text),
    Column("name", Text, nullable=False),
    Column("blob", String(64), nullable=False),
    Column("time", Double, nullable=False),
    Index("facts_run", "run"),
    Index("facts_blob", "blob"),
)
"""One thing known about a run, or about a node of it (home without one); what was found out again later is a row of its own."""

positions = Table(
    "positions",
    metadata,
    Column("store", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)
"""How far the messages of a store on a node are in this journal. Written along with what they say, in one transaction."""

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("data", LargeBinary),
)
