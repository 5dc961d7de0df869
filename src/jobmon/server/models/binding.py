"""Tables of a workflow's definition: nodes and their dependencies, which workflows share, and its arrays and tasks."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, UniqueConstraint, false, text

from jobmon.core.constants import TaskKind, TaskStatus
from jobmon.server.models.types import (
    BY_TRIGGER,
    DIALECT,
    IS_ADDED,
    IS_EXPANSION,
    IS_PRIORITIZED,
    BigId,
    Hash,
    Letter,
    LongText,
    Name,
    Time,
    metadata,
)

#: The rows that the index of failed tasks contains; `joins.IS_FATAL` is the condition of a query that uses it.
_IS_FATAL: Final = text(f"status = '{TaskStatus.ERROR_FATAL.value}'")
#: PostgreSQL rejects index entries larger than a third of a page, so it indexes only the beginning of a value.
VALUE_INDEX_CHARACTERS: Final = 64


def _value_indexes(name: str) -> tuple[Index, Index]:
    """Return the indexes of a table's values, for SQLite and for PostgreSQL."""
    beginning = text(f"left(value, {VALUE_INDEX_CHARACTERS})")
    return (
        Index(name, "argument_id", "value", info={DIALECT: "sqlite"}).ddl_if(dialect="sqlite"),
        Index(name, "argument_id", beginning, info={DIALECT: "postgresql"}).ddl_if(dialect="postgresql"),
    )


#: A template version with node args.
node: Final = Table(
    "node",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("task_template_version_id", BigId, ForeignKey("task_template_version.id", info=BY_TRIGGER), nullable=False),
    Column("hash", Hash, nullable=False),
    UniqueConstraint("task_template_version_id", "hash"),
)

#: A node argument, searchable by name and value.
node_arg: Final = Table(
    "node_arg",
    metadata,
    Column("node_id", BigId, ForeignKey("node.id"), primary_key=True),
    Column("argument_id", BigId, ForeignKey("argument.id", info=BY_TRIGGER), primary_key=True),
    Column("value", LongText, nullable=False),
    *_value_indexes("ix_node_arg_value"),
    sqlite_with_rowid=False,
)

#: A set of nodes and edges. `complete`: all edges are recorded.
dag: Final = Table(
    "dag",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("hash", Hash, unique=True, nullable=False),
    Column("complete", Boolean, nullable=False),
)

#: A set of upstream nodes that one or more nodes of a DAG share, numbered by the `caller` that recorded it.
#:
#: `origin_id`: the expansion that added the tasks of these nodes; None: the script defines them.
upstream_set: Final = Table(
    "upstream_set",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("dag_id", BigId, ForeignKey("dag.id"), nullable=False),
    Column("caller", Name, nullable=False),
    Column("number", BigId, nullable=False),
    Column("origin_id", BigId, nullable=True),
    UniqueConstraint("dag_id", "caller", "number"),
)

#: A node that is a member of an upstream set.
upstream_set_member: Final = Table(
    "upstream_set_member",
    metadata,
    Column("upstream_set_id", BigId, ForeignKey("upstream_set.id"), primary_key=True),
    Column("node_id", BigId, ForeignKey("node.id"), primary_key=True),
    Index("ix_upstream_set_member_node", "node_id", "upstream_set_id"),
    sqlite_with_rowid=False,
)

#: A node that has the set as its upstream nodes. Nodes without upstream nodes have no row.
dag_node: Final = Table(
    "dag_node",
    metadata,
    Column("upstream_set_id", BigId, ForeignKey("upstream_set.id"), primary_key=True),
    Column("node_id", BigId, ForeignKey("node.id"), primary_key=True),
    Index("ix_dag_node_node", "node_id", "upstream_set_id"),
    sqlite_with_rowid=False,
)

#: `workflow_args`, a DAG and its tasks. `batch_count` numbers its batches.
#:
#: `version` is 1 until the definition changes. From then on the DAG is private; `defined_dag_hash` is the hash of the
#: definition's DAG (None: that of the DAG). `priority` orders workflows; `defined_priority` is that of the script.
workflow: Final = Table(
    "workflow",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("tool_version_id", BigId, ForeignKey("tool_version.id"), nullable=False),
    Column("dag_id", BigId, ForeignKey("dag.id"), nullable=False),
    Column("workflow_args_hash", Hash, nullable=False),
    Column("task_hash", Hash, nullable=False),
    Column("workflow_args", LongText, nullable=False),
    Column("name", LongText, nullable=False),
    Column("description", LongText, nullable=False),
    Column("user_name", Name, index=True, nullable=False),
    Column("working_directory", LongText, nullable=False),
    Column("umask", Integer, nullable=False),
    Column("task_count", BigId, nullable=False),
    Column("task_counts", LongText, nullable=False),
    Column("bound", Boolean, nullable=False),
    Column("max_concurrently_running", Integer, nullable=False),
    Column("limit_at", Time, nullable=False),
    Column("batch_count", Integer, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("status", Letter, nullable=False),
    Column("status_at", Time, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("defined_dag_hash", Hash, nullable=True),
    Column("steered_at", Time, nullable=False, server_default="0"),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("defined_priority", Integer, nullable=False, server_default="0"),
    UniqueConstraint("tool_version_id", "workflow_args_hash"),
)

#: A searchable attribute of a workflow (JSON value).
workflow_attribute: Final = Table(
    "workflow_attribute",
    metadata,
    Column("workflow_id", BigId, ForeignKey("workflow.id"), primary_key=True),
    Column("argument_id", BigId, ForeignKey("argument.id"), primary_key=True),
    Column("value", LongText, nullable=False),
    *_value_indexes("ix_workflow_attribute_value"),
)

#: All tasks of one template version in a workflow. `priority` is added to that of each task. `files_id`: the files that
#: they read and write; None: not declared.
task_array: Final = Table(
    "task_array",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("workflow_id", BigId, ForeignKey("workflow.id"), nullable=False),
    Column("task_template_version_id", BigId, ForeignKey("task_template_version.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("max_concurrently_running", Integer, nullable=False),
    Column("limit_at", Time, nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("defined_priority", Integer, nullable=False, server_default="0"),
    Column("files_id", BigId, nullable=True),
    UniqueConstraint("workflow_id", "task_template_version_id"),
    Index("ix_task_array_template", "task_template_version_id", "id"),
)

#: The intent to run one command.
#:
#: `num_attempts` counts charged attempts since the last reset, `attempt_count` all attempts ever, and is therefore the
#: number of the newest one. `scales` and `fallback_queues` are JSON, None if there are none.
#:
#: `revision` counts its definitions. `accepted`: hash of the definition for which its result was accepted, at the
#: logical time `accepted_at`; a rerun was requested at `requested_at`. Both are valid until a later attempt.
#: `priority` is what counts, `defined_priority` that of the script; see also `task_edit`.
#:
#: `kind`: a `TaskKind`. `origin_id`: the expansion that added the task; None: the script defines it.
task: Final = Table(
    "task",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("workflow_id", BigId, ForeignKey("workflow.id", info=BY_TRIGGER), nullable=False),
    Column("array_id", BigId, ForeignKey("task_array.id", info=BY_TRIGGER), nullable=False),
    Column("node_id", BigId, ForeignKey("node.id"), nullable=False),
    Column("hash", Hash, nullable=False),
    Column("name", Name, nullable=False),
    Column("command", LongText, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("num_attempts", Integer, nullable=False),
    Column("attempt_count", Integer, nullable=False),
    Column("uncharged_in_a_row", Integer, nullable=False),
    Column("task_resources_id", BigId, ForeignKey("task_resources.id", info=BY_TRIGGER), nullable=True),
    Column("scales", LongText, nullable=True),
    Column("fallback_queues", LongText, nullable=True),
    Column("status", Letter, nullable=False),
    Column("status_at", Time, nullable=False),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("accepted", Hash, nullable=True),
    Column("accepted_at", Time, nullable=True),
    Column("requested_at", Time, nullable=True),
    Column("held", Boolean, nullable=False, server_default=false()),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("defined_priority", Integer, nullable=False, server_default="0"),
    Column("kind", Letter, nullable=False, server_default=TaskKind.COMMAND.value),
    Column("origin_id", BigId, nullable=True),
    UniqueConstraint("workflow_id", "node_id"),
    Index("ix_task_page", "workflow_id", "id"),
    Index("ix_task_changes", "workflow_id", "status_at", "status"),
    Index("ix_task_held", "workflow_id", sqlite_where=text("held"), postgresql_where=text("held")),
    Index("ix_task_priority", "workflow_id", sqlite_where=IS_PRIORITIZED, postgresql_where=IS_PRIORITIZED),
    Index("ix_task_fatal", "workflow_id", "id", sqlite_where=_IS_FATAL, postgresql_where=_IS_FATAL),
    Index("ix_task_origin", "origin_id", sqlite_where=IS_ADDED, postgresql_where=IS_ADDED),
    Index("ix_task_expansions", "workflow_id", sqlite_where=IS_EXPANSION, postgresql_where=IS_EXPANSION),
)

#: Number of tasks of an array with a status; see `server.counting`. It may be 0.
status_count: Final = Table(
    "status_count",
    metadata,
    Column("workflow_id", BigId, ForeignKey("workflow.id"), primary_key=True, autoincrement=False),
    Column("array_id", BigId, ForeignKey("task_array.id"), primary_key=True, autoincrement=False),
    Column("status", Letter, primary_key=True),
    Column("number", BigId, nullable=False),
    sqlite_with_rowid=False,
)

#: A task argument, searchable by name and value.
task_arg: Final = Table(
    "task_arg",
    metadata,
    Column("task_id", BigId, ForeignKey("task.id"), primary_key=True),
    Column("argument_id", BigId, ForeignKey("argument.id", info=BY_TRIGGER), primary_key=True),
    Column("value", LongText, nullable=False),
    *_value_indexes("ix_task_arg_value"),
    sqlite_with_rowid=False,
)

#: A searchable attribute of a task.
task_attribute: Final = Table(
    "task_attribute",
    metadata,
    Column("task_id", BigId, ForeignKey("task.id"), primary_key=True),
    Column("argument_id", BigId, ForeignKey("argument.id"), primary_key=True),
    Column("value", LongText, nullable=False),
    *_value_indexes("ix_task_attribute_value"),
    sqlite_with_rowid=False,
)

#: What the script defined for a task that a user edited: None for what is not edited. `edited_at` is a logical time.
task_edit: Final = Table(
    "task_edit",
    metadata,
    Column("task_id", BigId, ForeignKey("task.id"), primary_key=True, autoincrement=False),
    Column("workflow_id", BigId, ForeignKey("workflow.id"), nullable=False),
    Column("command", LongText, nullable=True),
    Column("task_resources_id", BigId, ForeignKey("task_resources.id"), nullable=True),
    Column("max_attempts", Integer, nullable=True),
    Column("user_name", Name, nullable=False),
    Column("edited_at", Time, nullable=False),
    Index("ix_task_edit_workflow", "workflow_id", "edited_at"),
)

#: A superseded definition of a task. `task_args`: values in the order of their names, JSON. `upstreams`: a hash; "":
#: they are the same as those of the next revision.
task_revision: Final = Table(
    "task_revision",
    metadata,
    Column("task_id", BigId, ForeignKey("task.id"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("task_template_version_id", BigId, ForeignKey("task_template_version.id"), nullable=False),
    Column("command", LongText, nullable=False),
    Column("task_args", LongText, nullable=False),
    Column("upstreams", Hash, nullable=False),
    sqlite_with_rowid=False,
)

#: A version of a workflow from the second on, or one that is being recorded. `request_key` is its client's.
#:
#: `state`: see `core.changes.VersionState`. `changes`: its number of parts, of which the first `applied` are applied.
#: `summary`: what changed, for users, JSON. `expansion_id`: the expansion that added its tasks, in `workflow_run_id`.
workflow_version: Final = Table(
    "workflow_version",
    metadata,
    Column("workflow_id", BigId, ForeignKey("workflow.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("request_key", Name, nullable=False),
    Column("state", Name, nullable=False),
    Column("user_name", Name, nullable=False),
    Column("host", Name, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("applied_at", Time, nullable=True),
    Column("dag_hash", Hash, nullable=False),
    Column("task_hash", Hash, nullable=False),
    Column("task_count", BigId, nullable=False),
    Column("task_counts", LongText, nullable=False),
    Column("summary", LongText, nullable=False),
    Column("changes", Integer, nullable=False),
    Column("applied", Integer, nullable=False),
    Column("expansion_id", BigId, nullable=True),
    Column("workflow_run_id", BigId, nullable=True),
)

#: The newest call of an expansion's function. `called_at` and `done_at`: logical times at which it was called and its
#: result was applied. `revision`: that of the task when it was called. `error`: why it failed, with the traceback.
expansion: Final = Table(
    "expansion",
    metadata,
    Column("task_id", BigId, ForeignKey("task.id"), primary_key=True, autoincrement=False),
    Column("workflow_run_id", BigId, ForeignKey("workflow_run.id"), nullable=False),
    Column("calls", Integer, nullable=False),
    Column("called_at", Time, nullable=False),
    Column("done_at", Time, nullable=True),
    Column("revision", Integer, nullable=False),
    Column("error", LongText, nullable=True),
)

#: A part of a version's changes: tasks of one kind, as columns (JSON).
workflow_change: Final = Table(
    "workflow_change",
    metadata,
    Column("workflow_id", BigId, ForeignKey("workflow.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", Name, nullable=False),
    Column("content", LongText, nullable=False),
)

for _table in (node, node_arg, task, task_arg):
    for _key in _table.foreign_keys:
        if _key.constraint is not None and DIALECT in _key.info:
            _key.constraint.ddl_if(dialect=_key.info[DIALECT])
