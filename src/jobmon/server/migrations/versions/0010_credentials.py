"""Record keys and personal tokens, and in the audit trail the principal."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables and the column."""
    op.create_table(
        "signing_key",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_signing_key"),
    )
    op.create_table(
        "personal_token",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("user_name", sa.String(255), nullable=False),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("stored_key", sa.String(64), nullable=False),
        sa.Column("server_key", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_personal_token"),
    )
    with op.batch_alter_table("audit") as batch_op:
        batch_op.add_column(sa.Column("principal", sa.String(255), nullable=True))


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("audit") as batch_op:
        batch_op.drop_column("principal")
    op.drop_table("personal_token")
    op.drop_table("signing_key")
