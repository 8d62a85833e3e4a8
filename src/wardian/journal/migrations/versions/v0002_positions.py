"""Which request a cell was, and how far each node's messages are recorded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cells", sa.Column("request", sa.Text))
    op.create_table(
        "positions",
        sa.Column("store", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("positions")
    op.drop_column("cells", "request")
