"""Record why a distributor cannot launch on a cluster."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "launch_problem",
        sa.Column("workflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("cluster_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("tried_at", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name="fk_launch_problem_workflow_id_workflow"),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name="fk_launch_problem_cluster_id_cluster"),
        sa.PrimaryKeyConstraint("workflow_id", "cluster_id", name="pk_launch_problem"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("launch_problem")
