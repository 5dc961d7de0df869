"""Record which distributor polls a cluster, why attempts are pending, and the server's identity for submissions."""

import sqlalchemy as sa
from alembic import op

from jobmon.server.migrations.upgrading import random_identity

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables and the column."""
    big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "cluster_watch",
        sa.Column("cluster_id", big_id, autoincrement=False, nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=True),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("number", big_id, nullable=False),
        sa.Column("looked_at", sa.BigInteger(), nullable=False),
        sa.Column("view", sa.Text(), nullable=True),
        sa.Column("view_since", sa.Double(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("problem_at", sa.BigInteger(), nullable=True),
        sa.Column("participants", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name=op.f("fk_cluster_watch_cluster_id_cluster")),
        sa.PrimaryKeyConstraint("cluster_id", name=op.f("pk_cluster_watch")),
    )
    identity = op.create_table(
        "server_identity",
        sa.Column("id", big_id, autoincrement=False, nullable=False),
        sa.Column("word", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_identity")),
    )
    op.bulk_insert(identity, [{"id": 1, "word": random_identity()}])
    with op.batch_alter_table("task_instance", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pending_reason", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop them. Submissions of this server no longer match its identity: end its runs first."""
    op.drop_column("task_instance", "pending_reason")
    op.drop_table("server_identity")
    op.drop_table("cluster_watch")
