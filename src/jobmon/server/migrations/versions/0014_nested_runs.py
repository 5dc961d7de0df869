"""Record the attempt whose command started a run: its cores are lent to the run."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is empty for earlier runs."""
    parent = sa.Column("parent_task_instance_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True)
    op.add_column("workflow_run", parent)
    is_nested = sa.text("parent_task_instance_id IS NOT NULL")
    columns = ["parent_task_instance_id"]
    op.create_index(
        "ix_workflow_run_parent", "workflow_run", columns, sqlite_where=is_nested, postgresql_where=is_nested
    )


def downgrade() -> None:
    """Drop the column."""
    op.drop_index("ix_workflow_run_parent", "workflow_run")
    op.drop_column("workflow_run", "parent_task_instance_id")
