"""What is known about runs and where they ran, by content."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "facts",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("writer", sa.String(36), nullable=False),
        sa.Column("run", sa.String(36), nullable=False),
        sa.Column("node", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("blob", sa.String(64), nullable=False),
        sa.Column("time", sa.Double, nullable=False),
    )
    op.create_index("facts_run", "facts", ["run"])
    op.create_index("facts_blob", "facts", ["blob"])
    op.create_index("outputs_blob", "outputs", ["blob"])


def downgrade() -> None:
    op.drop_index("outputs_blob", "outputs")
    op.drop_table("facts")
