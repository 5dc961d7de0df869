"""Record versions of workflows and revisions of tasks; attempts record which revision they ran."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _columns() -> list[tuple[str, sa.Column[object]]]:
    """Return the new columns with their tables."""
    return [
        ("workflow", sa.Column("version", sa.Integer(), nullable=False, server_default="1")),
        ("workflow", sa.Column("defined_dag_hash", sa.String(64), nullable=True)),
        ("task", sa.Column("revision", sa.Integer(), nullable=False, server_default="1")),
        ("task", sa.Column("accepted", sa.String(64), nullable=True)),
        ("task", sa.Column("accepted_at", sa.BigInteger(), nullable=True)),
        ("task", sa.Column("requested_at", sa.BigInteger(), nullable=True)),
        ("task_instance", sa.Column("revision", sa.Integer(), nullable=False, server_default="1")),
        ("task_instance", sa.Column("queued_stamp", sa.BigInteger(), nullable=True)),
        ("task_instance", sa.Column("ended_stamp", sa.BigInteger(), nullable=True)),
    ]


def upgrade() -> None:
    """Add columns and tables. Earlier definitions are the first version; their attempts have no stamps."""
    for table, column in _columns():
        op.add_column(table, column)
    op.create_table(
        "task_revision",
        sa.Column("task_id", _ID, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("task_template_version_id", _ID, nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("task_args", sa.Text(), nullable=False),
        sa.Column("upstreams", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_task_revision_task_id_task"),
        sa.ForeignKeyConstraint(
            ["task_template_version_id"],
            ["task_template_version.id"],
            name="fk_task_revision_task_template_version_id_task_template_version",
        ),
        sa.PrimaryKeyConstraint("task_id", "revision", name="pk_task_revision"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workflow_version",
        sa.Column("workflow_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("request_key", sa.String(255), nullable=False),
        sa.Column("state", sa.String(255), nullable=False),
        sa.Column("user_name", sa.String(255), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("applied_at", sa.BigInteger(), nullable=True),
        sa.Column("dag_hash", sa.String(64), nullable=False),
        sa.Column("task_hash", sa.String(64), nullable=False),
        sa.Column("task_count", _ID, nullable=False),
        sa.Column("task_counts", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.Column("applied", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name="fk_workflow_version_workflow_id_workflow"),
        sa.PrimaryKeyConstraint("workflow_id", "number", name="pk_workflow_version"),
    )
    op.create_table(
        "workflow_change",
        sa.Column("workflow_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(255), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name="fk_workflow_change_workflow_id_workflow"),
        sa.PrimaryKeyConstraint("workflow_id", "number", "position", name="pk_workflow_change"),
    )


def downgrade() -> None:
    """Drop them. A workflow that was changed keeps its newest definition."""
    op.drop_table("workflow_change")
    op.drop_table("workflow_version")
    op.drop_table("task_revision")
    for table, column in reversed(_columns()):
        op.drop_column(table, column.name)
