"""Record held tasks: they are not launched until they are released."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the index; no task is held."""
    op.add_column("workflow", sa.Column("steered_at", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("task", sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false()))
    is_held = sa.text("held")
    op.create_index("ix_task_held", "task", ["workflow_id"], sqlite_where=is_held, postgresql_where=is_held)


def downgrade() -> None:
    """Drop them: held tasks can then be launched."""
    op.drop_index("ix_task_held", "task")
    op.drop_column("task", "held")
    op.drop_column("workflow", "steered_at")
