"""Record the machine on which a batch's commands run: only a distributor on that machine can monitor them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; any distributor may judge earlier batches."""
    op.add_column("batch", sa.Column("host", sa.String(length=255), nullable=True))


def downgrade() -> None:
    """Drop the column: any distributor may then judge a batch."""
    op.drop_column("batch", "host")
