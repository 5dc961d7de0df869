"""Record the files that templates declare, and how attempts found them."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables and the column. Earlier arrays declare no files."""
    op.create_table(
        "template_files",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_template_files"),
        sa.UniqueConstraint("hash", name="uq_template_files_hash"),
    )
    op.add_column("task_array", sa.Column("files_id", _ID, nullable=True))
    op.create_table(
        "attempt_file",
        sa.Column("task_instance_id", _ID, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("is_output", sa.Boolean(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("matches", sa.Integer(), nullable=False),
        sa.Column("size_bytes", _ID, nullable=False),
        sa.Column("modified", _ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["task_instance_id"], ["task_instance.id"], name="fk_attempt_file_task_instance_id_task_instance"
        ),
        sa.PrimaryKeyConstraint("task_instance_id", "position", name="pk_attempt_file"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("attempt_file")
    op.drop_column("task_array", "files_id")
    op.drop_table("template_files")
