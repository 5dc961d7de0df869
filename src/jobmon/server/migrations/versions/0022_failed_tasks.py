"""Index failed tasks and failed attempts, so that a page about failures does not read all tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0020"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_task_fatal", "task", ["workflow_id", "id"], "status = 'F'"),
    ("ix_task_instance_failed", "task_instance", ["workflow_run_id", "id", "status"], "charged AND status <> 'D'"),
)


def upgrade() -> None:
    """Create the indexes."""
    for name, table, columns, condition in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Drop them: the same queries take longer."""
    for name, table, _, _ in _INDEXES:
        op.drop_index(name, table)
