"""Lease the cores that workflows share on one host."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of leases; it is empty at first."""
    op.create_table(
        "slot_lease",
        sa.Column("pool", sa.String(length=255), nullable=False),
        sa.Column("workflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("total", sa.Double(), nullable=False),
        sa.Column("granted", sa.Double(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("held", sa.Double(), nullable=False),
        sa.Column("wanted", sa.Double(), nullable=False),
        sa.Column("head", sa.Double(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name=op.f("fk_slot_lease_workflow_id_workflow")),
        sa.PrimaryKeyConstraint("pool", "workflow_id", name=op.f("pk_slot_lease")),
    )
    with op.batch_alter_table("slot_lease", schema=None) as batch_op:
        batch_op.create_index("ix_slot_lease_workflow_id", ["workflow_id"], unique=False)


def downgrade() -> None:
    """Drop the table: workflows request their cores again."""
    op.drop_table("slot_lease")
