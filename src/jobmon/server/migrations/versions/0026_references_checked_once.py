"""Check references to a few rows once per statement on PostgreSQL, instead of once per row; see decision 53."""

from alembic import op

from jobmon.server.migrations import references

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_REFERENCES = {
    "node": {"task_template_version_id": "task_template_version"},
    "node_arg": {"argument_id": "argument"},
    "task": {"workflow_id": "workflow", "array_id": "task_array", "task_resources_id": "task_resources"},
    "task_arg": {"argument_id": "argument"},
}


def upgrade() -> None:
    """Replace the foreign keys by triggers; SQLite keeps them, where they cost little."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, columns in _REFERENCES.items():
        for column, parent in columns.items():
            op.drop_constraint(f"fk_{table}_{column}_{parent}", table, type_="foreignkey")
    for statement in references.creation(_REFERENCES):
        op.execute(statement)


def downgrade() -> None:
    """Replace the triggers by foreign keys."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for statement in references.removal(_REFERENCES):
        op.execute(statement)
    for table, columns in _REFERENCES.items():
        for column, parent in columns.items():
            op.create_foreign_key(f"fk_{table}_{column}_{parent}", table, parent, [column], ["id"])
