"""Record batches whose jobs run many tasks each, and these jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add both tables; no batch is packed yet."""
    op.create_table(
        "packed_batch",
        sa.Column("batch_id", _ID, autoincrement=False, nullable=False),
        sa.Column("workflow_id", _ID, nullable=False),
        sa.Column("mode", sa.String(length=255), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("runtime_seconds", sa.Double(), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("submitted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_packed_batch_batch_id_batch")),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name=op.f("fk_packed_batch_workflow_id_workflow")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_packed_batch")),
    )
    with op.batch_alter_table("packed_batch", schema=None) as batch_op:
        batch_op.create_index("ix_packed_batch_workflow_id", ["workflow_id"], unique=False)
    op.create_table(
        "packed_job",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("batch_id", _ID, nullable=False),
        sa.Column("distributor_id", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("request_key", sa.String(length=255), nullable=True),
        sa.Column("handed_out", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_packed_job_batch_id_batch")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packed_job")),
        sa.UniqueConstraint("batch_id", "distributor_id", name=op.f("uq_packed_job_batch_id_distributor_id")),
    )


def downgrade() -> None:
    """Drop both tables, and with them which job ran which packed tasks."""
    op.drop_table("packed_job")
    op.drop_table("packed_batch")
