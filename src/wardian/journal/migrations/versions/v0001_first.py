"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _create_entry(name: str, *columns: sa.Column[object]) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("writer", sa.String(36), nullable=False),
        sa.Column("environment", sa.Text),
        sa.Column("run", sa.String(36)),
        *columns,
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("ended", sa.Double),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error", sa.Text),
    )
    op.create_index(f"{name}_started", name, ["started"])
    op.create_index(f"{name}_run", name, ["run"])


def upgrade() -> None:
    op.create_table(
        "writers",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("pid_started", sa.Text, nullable=False),
        sa.Column("opened", sa.Double, nullable=False),
    )
    _create_entry(
        "operations",
        sa.Column("instance", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("targets", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    _create_entry(
        "runs",
        sa.Column("notebook", sa.Text, nullable=False),
        sa.Column("experiment", sa.Text),
        sa.Column("experiment_digest", sa.Text),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("provider", sa.Text),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("wardian", sa.Text, nullable=False),
        sa.Column("python", sa.Text, nullable=False),
    )
    _create_entry(
        "cells",
        sa.Column("session", sa.Text),
        sa.Column("cell", sa.Text),
        sa.Column("notebook", sa.Text),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_digest", sa.String(64), nullable=False),
        sa.Column("selector", sa.Text),
        sa.Column("nodes", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("background", sa.Boolean, nullable=False),
    )
    _create_entry(
        "transfers",
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger),
        sa.Column("sha256", sa.String(64)),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("writer", sa.String(36), nullable=False),
        sa.Column("environment", sa.Text),
        sa.Column("run", sa.String(36)),
        sa.Column("node", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
    )
    op.create_index("events_time", "events", ["time"])
    op.create_index("events_run", "events", ["run"])
    op.create_table(
        "outputs",
        sa.Column("cell_entry", sa.String(36), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("node", sa.Text),
        sa.Column("message_type", sa.Text, nullable=False),
        sa.Column("blob", sa.String(64), nullable=False),
        sa.Column("time", sa.Double, nullable=False),
    )
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary),
    )


def downgrade() -> None:
    for name in ("blobs", "outputs", "events", "transfers", "cells", "runs", "operations", "writers"):
        op.drop_table(name)
