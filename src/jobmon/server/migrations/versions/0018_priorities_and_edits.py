"""Record priorities, and what the script defined for tasks that a user edited."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_WITH_PRIORITY = ("workflow", "task_array", "task")


def upgrade() -> None:
    """Add columns, indexes and the table; all priorities are 0 and nothing is edited."""
    for table in _WITH_PRIORITY:
        for name in ("priority", "defined_priority"):
            op.add_column(table, sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("task_instance", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    is_prioritized = sa.text("priority <> 0")
    for name, table, columns in (
        ("ix_task_priority", "task", ["workflow_id"]),
        (
            "ix_task_instance_priority",
            "task_instance",
            ["workflow_run_id", "status", "cluster_id", "priority", "id"],
        ),
    ):
        op.create_index(name, table, columns, sqlite_where=is_prioritized, postgresql_where=is_prioritized)
    op.create_table(
        "task_edit",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("workflow_id", _ID, nullable=False),
        sa.Column("command", sa.Text(), nullable=True),
        sa.Column("task_resources_id", _ID, nullable=True),
        sa.Column("max_attempts", sa.Integer(), nullable=True),
        sa.Column("user_name", sa.String(255), nullable=False),
        sa.Column("edited_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_task_edit_task_id_task"),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name="fk_task_edit_workflow_id_workflow"),
        sa.ForeignKeyConstraint(
            ["task_resources_id"], ["task_resources.id"], name="fk_task_edit_task_resources_id_task_resources"
        ),
        sa.PrimaryKeyConstraint("task_id", name="pk_task_edit"),
    )
    op.create_index("ix_task_edit_workflow", "task_edit", ["workflow_id", "edited_at"])


def downgrade() -> None:
    """Drop them: edited tasks keep their edits, and a script no longer restores its definition."""
    op.drop_table("task_edit")
    op.drop_index("ix_task_instance_priority", "task_instance")
    op.drop_index("ix_task_priority", "task")
    op.drop_column("task_instance", "priority")
    for table in _WITH_PRIORITY:
        for name in ("defined_priority", "priority"):
            op.drop_column(table, name)
