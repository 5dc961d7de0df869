"""Find the upstream sets of a node by the node."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_dag_node_node", "dag_node", ["node_id", "upstream_set_id"], unique=False)


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_dag_node_node", "dag_node")
