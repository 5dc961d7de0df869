"""Record why a run ended early: a timeout or a dead client is not a failure of the workflow."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is empty for earlier runs."""
    op.add_column("workflow_run", sa.Column("end_reason", sa.String(length=255), nullable=True))


def downgrade() -> None:
    """Drop the column: such workflows then count as failed."""
    op.drop_column("workflow_run", "end_reason")
