"""Record what users requested, next to the request derived from it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is empty for earlier requests."""
    with op.batch_alter_table("task_resources", schema=None) as batch_op:
        batch_op.add_column(sa.Column("original", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop the column, and with it what users requested."""
    op.drop_column("task_resources", "original")
