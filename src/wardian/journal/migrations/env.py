"""Run by Alembic: migrates over the connection that the journal hands it."""

from __future__ import annotations

from alembic import context

from wardian.journal.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
