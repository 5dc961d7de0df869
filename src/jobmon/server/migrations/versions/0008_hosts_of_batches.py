"""A batch knows the machine on which its commands run: only a distributor of that machine can see to them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of batches from before, any distributor may judge."""
    op.add_column("batch", sa.Column("host", sa.String(length=255), nullable=True))
