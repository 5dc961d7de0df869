"""Record why the tasks of a batch share jobs, or do not; find arrays by their template."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the index. The reason is empty for earlier batches."""
    op.add_column("batch", sa.Column("reason", sa.Text(), nullable=True))
    op.create_index("ix_task_array_template", "task_array", ["task_template_version_id", "id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_task_array_template", table_name="task_array")
    op.drop_column("batch", "reason")
