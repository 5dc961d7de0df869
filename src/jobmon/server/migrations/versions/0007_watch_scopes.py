"""Share views of a cluster only among distributors that can see the same jobs. Stored views are dropped."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Recreate the table with the scope in its key."""
    _recreate(sa.Column("scope", sa.String(length=255), nullable=False))


def downgrade() -> None:
    """Recreate the table without the scope."""
    _recreate()


def _recreate(*scope: sa.Column[str]) -> None:
    big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.drop_table("cluster_watch")
    op.create_table(
        "cluster_watch",
        sa.Column("cluster_id", big_id, autoincrement=False, nullable=False),
        *scope,
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
        sa.PrimaryKeyConstraint("cluster_id", *(column.name for column in scope), name=op.f("pk_cluster_watch")),
    )
