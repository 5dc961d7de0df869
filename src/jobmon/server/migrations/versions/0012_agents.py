"""Agents claim attempts and lease cores."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table and its columns. Leases start empty: every holder of cores reports them with its next request."""
    op.create_table(
        "agent",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("workflow_id", _ID, nullable=False),
        sa.Column("workflow_run_id", _ID, nullable=False),
        sa.Column("cluster_id", _ID, nullable=False),
        sa.Column("scope", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("boot_id", sa.String(length=255), nullable=False),
        sa.Column("pid", _ID, nullable=False),
        sa.Column("pid_start_time", sa.Double(), nullable=False),
        sa.Column("request_key", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=1), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("report_by", sa.BigInteger(), nullable=False),
        sa.Column("last_key", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name="fk_agent_workflow_id_workflow"),
        sa.ForeignKeyConstraint(["workflow_run_id"], ["workflow_run.id"], name="fk_agent_workflow_run_id_workflow_run"),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name="fk_agent_cluster_id_cluster"),
        sa.PrimaryKeyConstraint("id", name="pk_agent"),
        sa.UniqueConstraint("request_key", name="uq_agent_request_key"),
    )
    op.create_index("ix_agent_workflow_id", "agent", ["workflow_id"])
    op.create_index("ix_agent_status", "agent", ["status"])
    op.add_column("task_instance", sa.Column("agent_id", _ID, nullable=True))
    op.add_column("task_instance", sa.Column("claim_key", sa.Integer(), nullable=True))
    _make_leases(sa.Column("agent_id", _ID, nullable=False))


def downgrade() -> None:
    """Drop the table and its columns: attempts of agents then have no owner, and are lost."""
    _make_leases()
    op.execute("UPDATE task_instance SET report_by = 0 WHERE agent_id IS NOT NULL AND ended_at IS NULL")
    op.drop_column("task_instance", "claim_key")
    op.drop_column("task_instance", "agent_id")
    op.drop_table("agent")


def _make_leases(*columns: sa.Column[int]) -> None:
    """Recreate the table of leases with these columns in its key."""
    op.drop_table("slot_lease")
    op.create_table(
        "slot_lease",
        sa.Column("pool", sa.String(length=255), nullable=False),
        sa.Column("workflow_id", _ID, nullable=False),
        *columns,
        sa.Column("total", sa.Double(), nullable=False),
        sa.Column("granted", sa.Double(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("held", sa.Double(), nullable=False),
        sa.Column("wanted", sa.Double(), nullable=False),
        sa.Column("head", sa.Double(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name="fk_slot_lease_workflow_id_workflow"),
        sa.PrimaryKeyConstraint("pool", "workflow_id", *(one.name for one in columns), name="pk_slot_lease"),
    )
    op.create_index("ix_slot_lease_workflow_id", "slot_lease", ["workflow_id"])
