"""Record expansions, and which tasks they added."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns, indexes and the table. Earlier workflows have no expansions."""
    op.add_column("task", sa.Column("kind", sa.String(1), nullable=False, server_default="C"))
    op.add_column("task", sa.Column("origin_id", _ID, nullable=True))
    for name, column, condition in (
        ("ix_task_origin", "origin_id", "origin_id IS NOT NULL"),
        ("ix_task_expansions", "workflow_id", "kind = 'E'"),
    ):
        where = sa.text(condition)
        op.create_index(name, "task", [column], sqlite_where=where, postgresql_where=where)
    op.add_column("upstream_set", sa.Column("origin_id", _ID, nullable=True))
    for name in ("expansion_id", "workflow_run_id"):
        op.add_column("workflow_version", sa.Column(name, _ID, nullable=True))
    op.create_table(
        "expansion",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("workflow_run_id", _ID, nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("called_at", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_expansion_task_id_task"),
        sa.ForeignKeyConstraint(
            ["workflow_run_id"], ["workflow_run.id"], name="fk_expansion_workflow_run_id_workflow_run"
        ),
        sa.PrimaryKeyConstraint("task_id", name="pk_expansion"),
    )


def downgrade() -> None:
    """Drop them. Workflows with expansions can no longer be resumed."""
    op.drop_table("expansion")
    for name in ("workflow_run_id", "expansion_id"):
        op.drop_column("workflow_version", name)
    op.drop_column("upstream_set", "origin_id")
    for name in ("ix_task_expansions", "ix_task_origin"):
        op.drop_index(name, "task")
    for name in ("origin_id", "kind"):
        op.drop_column("task", name)
