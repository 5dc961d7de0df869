"""Record the groups of the users of a shared server."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table. The groups of users with earlier tokens become known with their next login."""
    op.create_table(
        "user_group",
        sa.Column("user_name", sa.String(255), nullable=False),
        sa.Column("group_name", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("user_name", "group_name", name="pk_user_group"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("user_group")
