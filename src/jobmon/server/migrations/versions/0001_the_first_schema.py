"""The first schema."""

# ruff: noqa: PLR0915 - a migration is a long list of columns

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_VALUE_INDEX_CHARACTERS = 64


def _beginning_of_value() -> "str | sa.TextClause":
    """Return the indexed expression: PostgreSQL rejects index entries larger than a third of a page."""
    if op.get_bind().dialect.name == "postgresql":
        return sa.text(f"left(value, {_VALUE_INDEX_CHARACTERS})")
    return "value"


def upgrade() -> None:
    """Create the first schema."""
    op.create_table(
        "argument",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_argument")),
        sa.UniqueConstraint("name", name=op.f("uq_argument_name")),
    )
    op.create_table(
        "cluster",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("plugin", sa.String(length=255), nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cluster")),
        sa.UniqueConstraint("name", name=op.f("uq_cluster_name")),
    )
    op.create_table(
        "dag",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dag")),
        sa.UniqueConstraint("hash", name=op.f("uq_dag_hash")),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "logical_clock",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logical_clock")),
    )
    op.create_table(
        "tool",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tool")),
        sa.UniqueConstraint("name", name=op.f("uq_tool_name")),
    )
    op.create_table(
        "queue",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("cluster_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name=op.f("fk_queue_cluster_id_cluster")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queue")),
        sa.UniqueConstraint("cluster_id", "name", name=op.f("uq_queue_cluster_id_name")),
    )
    op.create_table(
        "tool_version",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tool_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["tool_id"], ["tool.id"], name=op.f("fk_tool_version_tool_id_tool")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tool_version")),
    )
    with op.batch_alter_table("tool_version", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tool_version_tool_id"), ["tool_id"], unique=False)

    op.create_table(
        "upstream_set",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("dag_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("caller", sa.String(length=255), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["dag_id"], ["dag.id"], name=op.f("fk_upstream_set_dag_id_dag")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upstream_set")),
        sa.UniqueConstraint("dag_id", "caller", "number", name=op.f("uq_upstream_set_dag_id_caller_number")),
    )
    op.create_table(
        "task_resources",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("queue_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("requested", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["queue_id"], ["queue.id"], name=op.f("fk_task_resources_queue_id_queue")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_resources")),
        sa.UniqueConstraint("hash", name=op.f("uq_task_resources_hash")),
    )
    op.create_table(
        "task_template",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tool_version_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["tool_version_id"], ["tool_version.id"], name=op.f("fk_task_template_tool_version_id_tool_version")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_template")),
        sa.UniqueConstraint("tool_version_id", "name", name=op.f("uq_task_template_tool_version_id_name")),
    )
    op.create_table(
        "workflow",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tool_version_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dag_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("workflow_args_hash", sa.String(length=64), nullable=False),
        sa.Column("task_hash", sa.String(length=64), nullable=False),
        sa.Column("workflow_args", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("user_name", sa.String(length=255), nullable=False),
        sa.Column("working_directory", sa.Text(), nullable=False),
        sa.Column("umask", sa.Integer(), nullable=False),
        sa.Column("task_count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("task_counts", sa.Text(), nullable=False),
        sa.Column("bound", sa.Boolean(), nullable=False),
        sa.Column("max_concurrently_running", sa.Integer(), nullable=False),
        sa.Column("limit_at", sa.BigInteger(), nullable=False),
        sa.Column("batch_count", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=1), nullable=False),
        sa.Column("status_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["dag_id"], ["dag.id"], name=op.f("fk_workflow_dag_id_dag")),
        sa.ForeignKeyConstraint(
            ["tool_version_id"], ["tool_version.id"], name=op.f("fk_workflow_tool_version_id_tool_version")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow")),
        sa.UniqueConstraint(
            "tool_version_id", "workflow_args_hash", name=op.f("uq_workflow_tool_version_id_workflow_args_hash")
        ),
    )
    with op.batch_alter_table("workflow", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_workflow_user_name"), ["user_name"], unique=False)

    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=255), nullable=False),
        sa.Column("workflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name=op.f("fk_audit_workflow_id_workflow")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_workflow_id"), ["workflow_id"], unique=False)

    op.create_table(
        "task_template_version",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("task_template_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("command_template", sa.Text(), nullable=False),
        sa.Column("node_args", sa.Text(), nullable=False),
        sa.Column("task_args", sa.Text(), nullable=False),
        sa.Column("op_args", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_template_id"],
            ["task_template.id"],
            name=op.f("fk_task_template_version_task_template_id_task_template"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_template_version")),
        sa.UniqueConstraint("task_template_id", "hash", name=op.f("uq_task_template_version_task_template_id_hash")),
    )
    op.create_table(
        "workflow_attribute",
        sa.Column("workflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("argument_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["argument_id"], ["argument.id"], name=op.f("fk_workflow_attribute_argument_id_argument")
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflow.id"], name=op.f("fk_workflow_attribute_workflow_id_workflow")
        ),
        sa.PrimaryKeyConstraint("workflow_id", "argument_id", name=op.f("pk_workflow_attribute")),
    )
    with op.batch_alter_table("workflow_attribute", schema=None) as batch_op:
        batch_op.create_index("ix_workflow_attribute_value", ["argument_id", _beginning_of_value()], unique=False)

    op.create_table(
        "workflow_run",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("workflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("request_key", sa.String(length=255), nullable=False),
        sa.Column("user_name", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("pid_start_time", sa.Double(), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("bound_at", sa.BigInteger(), nullable=True),
        sa.Column("report_by", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=1), nullable=False),
        sa.Column("status_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name=op.f("fk_workflow_run_workflow_id_workflow")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow_run")),
        sa.UniqueConstraint("request_key", name=op.f("uq_workflow_run_request_key")),
    )
    with op.batch_alter_table("workflow_run", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_workflow_run_status"), ["status"], unique=False)
        batch_op.create_index(batch_op.f("ix_workflow_run_workflow_id"), ["workflow_id"], unique=False)

    op.create_table(
        "distributor",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("workflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("workflow_run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("request_key", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("pid_start_time", sa.Double(), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name=op.f("fk_distributor_workflow_id_workflow")),
        sa.ForeignKeyConstraint(
            ["workflow_run_id"], ["workflow_run.id"], name=op.f("fk_distributor_workflow_run_id_workflow_run")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_distributor")),
        sa.UniqueConstraint("request_key", name=op.f("uq_distributor_request_key")),
        sa.UniqueConstraint("workflow_id", "epoch", name=op.f("uq_distributor_workflow_id_epoch")),
    )
    op.create_table(
        "node",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("task_template_version_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_template_version_id"],
            ["task_template_version.id"],
            name=op.f("fk_node_task_template_version_id_task_template_version"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node")),
        sa.UniqueConstraint("task_template_version_id", "hash", name=op.f("uq_node_task_template_version_id_hash")),
    )
    op.create_table(
        "task_array",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("workflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("task_template_version_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("max_concurrently_running", sa.Integer(), nullable=False),
        sa.Column("limit_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_template_version_id"],
            ["task_template_version.id"],
            name=op.f("fk_task_array_task_template_version_id_task_template_version"),
        ),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name=op.f("fk_task_array_workflow_id_workflow")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_array")),
        sa.UniqueConstraint(
            "workflow_id", "task_template_version_id", name=op.f("uq_task_array_workflow_id_task_template_version_id")
        ),
    )
    op.create_table(
        "batch",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("workflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("array_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("task_resources_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("request_key", sa.String(length=255), nullable=True),
        sa.Column("launched_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["array_id"], ["task_array.id"], name=op.f("fk_batch_array_id_task_array")),
        sa.ForeignKeyConstraint(
            ["task_resources_id"], ["task_resources.id"], name=op.f("fk_batch_task_resources_id_task_resources")
        ),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name=op.f("fk_batch_workflow_id_workflow")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sa.UniqueConstraint("workflow_id", "number", name=op.f("uq_batch_workflow_id_number")),
    )
    with op.batch_alter_table("batch", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_batch_request_key"), ["request_key"], unique=False)

    op.create_table(
        "dag_node",
        sa.Column("upstream_set_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("node_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_dag_node_node_id_node")),
        sa.ForeignKeyConstraint(
            ["upstream_set_id"], ["upstream_set.id"], name=op.f("fk_dag_node_upstream_set_id_upstream_set")
        ),
        sa.PrimaryKeyConstraint("upstream_set_id", "node_id", name=op.f("pk_dag_node")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "node_arg",
        sa.Column("node_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("argument_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["argument_id"], ["argument.id"], name=op.f("fk_node_arg_argument_id_argument")),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_node_arg_node_id_node")),
        sa.PrimaryKeyConstraint("node_id", "argument_id", name=op.f("pk_node_arg")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("node_arg", schema=None) as batch_op:
        batch_op.create_index("ix_node_arg_value", ["argument_id", _beginning_of_value()], unique=False)

    op.create_table(
        "task",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("workflow_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("array_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("node_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("num_attempts", sa.Integer(), nullable=False),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("uncharged_in_a_row", sa.Integer(), nullable=False),
        sa.Column("task_resources_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("scales", sa.Text(), nullable=True),
        sa.Column("fallback_queues", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=1), nullable=False),
        sa.Column("status_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["array_id"], ["task_array.id"], name=op.f("fk_task_array_id_task_array")),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_task_node_id_node")),
        sa.ForeignKeyConstraint(
            ["task_resources_id"], ["task_resources.id"], name=op.f("fk_task_task_resources_id_task_resources")
        ),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow.id"], name=op.f("fk_task_workflow_id_workflow")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
        sa.UniqueConstraint("workflow_id", "node_id", name=op.f("uq_task_workflow_id_node_id")),
    )
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.create_index("ix_task_changes", ["workflow_id", "status_at", "status"], unique=False)
        batch_op.create_index("ix_task_page", ["workflow_id", "id"], unique=False)

    op.create_table(
        "upstream_set_member",
        sa.Column("upstream_set_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("node_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_upstream_set_member_node_id_node")),
        sa.ForeignKeyConstraint(
            ["upstream_set_id"], ["upstream_set.id"], name=op.f("fk_upstream_set_member_upstream_set_id_upstream_set")
        ),
        sa.PrimaryKeyConstraint("upstream_set_id", "node_id", name=op.f("pk_upstream_set_member")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("upstream_set_member", schema=None) as batch_op:
        batch_op.create_index("ix_upstream_set_member_node", ["node_id", "upstream_set_id"], unique=False)

    op.create_table(
        "task_arg",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("argument_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["argument_id"], ["argument.id"], name=op.f("fk_task_arg_argument_id_argument")),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name=op.f("fk_task_arg_task_id_task")),
        sa.PrimaryKeyConstraint("task_id", "argument_id", name=op.f("pk_task_arg")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("task_arg", schema=None) as batch_op:
        batch_op.create_index("ix_task_arg_value", ["argument_id", _beginning_of_value()], unique=False)

    op.create_table(
        "task_attribute",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("argument_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["argument_id"], ["argument.id"], name=op.f("fk_task_attribute_argument_id_argument")),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name=op.f("fk_task_attribute_task_id_task")),
        sa.PrimaryKeyConstraint("task_id", "argument_id", name=op.f("pk_task_attribute")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("task_attribute", schema=None) as batch_op:
        batch_op.create_index("ix_task_attribute_value", ["argument_id", _beginning_of_value()], unique=False)

    op.create_table(
        "task_instance",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("workflow_run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("cluster_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("task_resources_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("batch_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("array_step_id", sa.Integer(), nullable=True),
        sa.Column("distributor_id", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=1), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("launched_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("report_by", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.String(length=255), nullable=True),
        sa.Column("charged", sa.Boolean(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("pid", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("exit_signal", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("stdout", sa.Text(), nullable=True),
        sa.Column("stderr", sa.Text(), nullable=True),
        sa.Column("wallclock_seconds", sa.Double(), nullable=True),
        sa.Column("cpu_seconds", sa.Double(), nullable=True),
        sa.Column("max_rss_bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("read_bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("written_bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_task_instance_batch_id_batch")),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name=op.f("fk_task_instance_cluster_id_cluster")),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name=op.f("fk_task_instance_task_id_task")),
        sa.ForeignKeyConstraint(
            ["task_resources_id"], ["task_resources.id"], name=op.f("fk_task_instance_task_resources_id_task_resources")
        ),
        sa.ForeignKeyConstraint(
            ["workflow_run_id"], ["workflow_run.id"], name=op.f("fk_task_instance_workflow_run_id_workflow_run")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_instance")),
        sa.UniqueConstraint("task_id", "number", name=op.f("uq_task_instance_task_id_number")),
    )
    with op.batch_alter_table("task_instance", schema=None) as batch_op:
        batch_op.create_index("ix_task_instance_batch", ["batch_id", "array_step_id"], unique=False)
        batch_op.create_index(
            "ix_task_instance_launch", ["workflow_run_id", "status", "cluster_id", "id"], unique=False
        )

    op.create_table(
        "log_tail",
        sa.Column("task_instance_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_instance_id"], ["task_instance.id"], name=op.f("fk_log_tail_task_instance_id_task_instance")
        ),
        sa.PrimaryKeyConstraint("task_instance_id", name=op.f("pk_log_tail")),
    )
    op.execute("INSERT INTO logical_clock (id, stamp) VALUES (1, 0)")


def downgrade() -> None:
    """Drop all tables, referring tables before the tables that they refer to."""
    for table in (
        "log_tail",
        "task_instance",
        "task_attribute",
        "task_arg",
        "upstream_set_member",
        "task",
        "node_arg",
        "dag_node",
        "batch",
        "task_array",
        "node",
        "distributor",
        "workflow_run",
        "workflow_attribute",
        "task_template_version",
        "audit",
        "workflow",
        "task_template",
        "task_resources",
        "upstream_set",
        "tool_version",
        "queue",
        "tool",
        "logical_clock",
        "lease",
        "dag",
        "cluster",
        "argument",
    ):
        op.drop_table(table)
