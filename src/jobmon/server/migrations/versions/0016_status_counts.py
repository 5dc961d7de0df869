"""Store how many tasks of each array have each status."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
#: Number of workflows counted by one statement.
_WORKFLOWS_PER_STATEMENT = 100
_COUNT = """
INSERT INTO status_count (workflow_id, array_id, status, number)
SELECT workflow_id, array_id, status, COUNT(*) FROM task WHERE workflow_id > :after AND workflow_id <= :last
GROUP BY workflow_id, array_id, status
"""


def upgrade() -> None:
    """Add the table, and count the recorded tasks, some workflows at a time."""
    op.create_table(
        "status_count",
        sa.Column("workflow_id", _ID, autoincrement=False, nullable=False),
        sa.Column("array_id", _ID, autoincrement=False, nullable=False),
        sa.Column("status", sa.String(1), nullable=False),
        sa.Column("number", _ID, nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name="fk_status_count_workflow_id_workflow"),
        sa.ForeignKeyConstraint(["array_id"], ["task_array.id"], name="fk_status_count_array_id_task_array"),
        sa.PrimaryKeyConstraint("workflow_id", "array_id", "status", name="pk_status_count"),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    newest = connection.scalar(sa.text("SELECT MAX(id) FROM workflow")) or 0
    for after in range(0, newest, _WORKFLOWS_PER_STATEMENT):
        connection.execute(sa.text(_COUNT), {"after": after, "last": after + _WORKFLOWS_PER_STATEMENT})


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("status_count")
