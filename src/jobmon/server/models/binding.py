"""What a workflow is: nodes and their order, which workflows share, and its own arrays and tasks."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from jobmon.server.models.types import Base, BigId, Hash, Key, Letter, LongText, Name, Time

#: MySQL indexes only the beginning of a long text.
VALUE_INDEX_CHARACTERS = 64


class Node(Base):
    """A template version with node args."""

    __tablename__ = "node"
    __table_args__ = (UniqueConstraint("task_template_version_id", "hash"),)
    id: Mapped[Key]
    task_template_version_id: Mapped[int] = mapped_column(BigId, ForeignKey("task_template_version.id"))
    hash: Mapped[Hash]


class NodeArg(Base):
    """One node argument; to be searched by name and value."""

    __tablename__ = "node_arg"
    __table_args__ = (
        Index("ix_node_arg_value", "argument_id", "value", mysql_length={"value": VALUE_INDEX_CHARACTERS}),
        {"sqlite_with_rowid": False},
    )
    node_id: Mapped[int] = mapped_column(BigId, ForeignKey("node.id"), primary_key=True)
    argument_id: Mapped[int] = mapped_column(BigId, ForeignKey("argument.id"), primary_key=True)
    value: Mapped[LongText]


class Dag(Base):
    """A set of nodes and edges. `complete`: all edges are recorded."""

    __tablename__ = "dag"
    id: Mapped[Key]
    hash: Mapped[Hash] = mapped_column(unique=True)
    complete: Mapped[bool]


class UpstreamSet(Base):
    """A set of upstream nodes that one or many nodes of a DAG share. Numbered by the `caller` that recorded it."""

    __tablename__ = "upstream_set"
    __table_args__ = (UniqueConstraint("dag_id", "caller", "number"),)
    id: Mapped[Key]
    dag_id: Mapped[int] = mapped_column(BigId, ForeignKey("dag.id"))
    caller: Mapped[Name]
    number: Mapped[int] = mapped_column(BigId)


class UpstreamSetMember(Base):
    """A node that is in the set."""

    __tablename__ = "upstream_set_member"
    __table_args__ = (Index("ix_upstream_set_member_node", "node_id", "upstream_set_id"), {"sqlite_with_rowid": False})
    upstream_set_id: Mapped[int] = mapped_column(BigId, ForeignKey("upstream_set.id"), primary_key=True)
    node_id: Mapped[int] = mapped_column(BigId, ForeignKey("node.id"), primary_key=True)


class DagNode(Base):
    """A node whose upstreams are the set. Nodes without upstreams have no row."""

    __tablename__ = "dag_node"
    __table_args__ = (Index("ix_dag_node_node", "node_id", "upstream_set_id"), {"sqlite_with_rowid": False})
    upstream_set_id: Mapped[int] = mapped_column(BigId, ForeignKey("upstream_set.id"), primary_key=True)
    node_id: Mapped[int] = mapped_column(BigId, ForeignKey("node.id"), primary_key=True)


class Workflow(Base):
    """`workflow_args`, a DAG and its tasks. `batch_count` numbers its launch batches."""

    __tablename__ = "workflow"
    __table_args__ = (UniqueConstraint("tool_version_id", "workflow_args_hash"),)
    id: Mapped[Key]
    tool_version_id: Mapped[int] = mapped_column(BigId, ForeignKey("tool_version.id"))
    dag_id: Mapped[int] = mapped_column(BigId, ForeignKey("dag.id"))
    workflow_args_hash: Mapped[Hash]
    task_hash: Mapped[Hash]
    workflow_args: Mapped[LongText]
    name: Mapped[LongText]
    description: Mapped[LongText]
    user_name: Mapped[Name] = mapped_column(index=True)
    working_directory: Mapped[LongText]
    umask: Mapped[int]
    task_count: Mapped[int] = mapped_column(BigId)
    task_counts: Mapped[LongText]
    bound: Mapped[bool]
    max_concurrently_running: Mapped[int]
    limit_at: Mapped[Time]
    batch_count: Mapped[int]
    created_at: Mapped[Time]
    status: Mapped[Letter]
    status_at: Mapped[Time]


class WorkflowAttribute(Base):
    """A searchable remark on a workflow (JSON value)."""

    __tablename__ = "workflow_attribute"
    __table_args__ = (
        Index("ix_workflow_attribute_value", "argument_id", "value", mysql_length={"value": VALUE_INDEX_CHARACTERS}),
    )
    workflow_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflow.id"), primary_key=True)
    argument_id: Mapped[int] = mapped_column(BigId, ForeignKey("argument.id"), primary_key=True)
    value: Mapped[LongText]


class Array(Base):
    """All tasks of one template version in a workflow."""

    __tablename__ = "task_array"
    __table_args__ = (UniqueConstraint("workflow_id", "task_template_version_id"),)
    id: Mapped[Key]
    workflow_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflow.id"))
    task_template_version_id: Mapped[int] = mapped_column(BigId, ForeignKey("task_template_version.id"))
    name: Mapped[Name]
    max_concurrently_running: Mapped[int]
    limit_at: Mapped[Time]


class Task(Base):
    """The intent to run one command.

    `num_attempts` counts charged attempts since the last reset, `attempt_count` all of them ever: the number of the
    newest. `scales` and `fallback_queues` are JSON, None where there are none.
    """

    __tablename__ = "task"
    __table_args__ = (
        UniqueConstraint("workflow_id", "node_id"),
        Index("ix_task_page", "workflow_id", "id"),
        Index("ix_task_changes", "workflow_id", "status_at", "status"),
    )
    id: Mapped[Key]
    workflow_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflow.id"))
    array_id: Mapped[int] = mapped_column(BigId, ForeignKey("task_array.id"))
    node_id: Mapped[int] = mapped_column(BigId, ForeignKey("node.id"))
    hash: Mapped[Hash]
    name: Mapped[Name]
    command: Mapped[LongText]
    max_attempts: Mapped[int]
    num_attempts: Mapped[int]
    attempt_count: Mapped[int]
    uncharged_in_a_row: Mapped[int]
    task_resources_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("task_resources.id"))
    scales: Mapped[LongText | None]
    fallback_queues: Mapped[LongText | None]
    status: Mapped[Letter]
    status_at: Mapped[Time]


class TaskArg(Base):
    """One task argument; to be searched by name and value."""

    __tablename__ = "task_arg"
    __table_args__ = (
        Index("ix_task_arg_value", "argument_id", "value", mysql_length={"value": VALUE_INDEX_CHARACTERS}),
        {"sqlite_with_rowid": False},
    )
    task_id: Mapped[int] = mapped_column(BigId, ForeignKey("task.id"), primary_key=True)
    argument_id: Mapped[int] = mapped_column(BigId, ForeignKey("argument.id"), primary_key=True)
    value: Mapped[LongText]


class TaskAttribute(Base):
    """A searchable remark on a task."""

    __tablename__ = "task_attribute"
    __table_args__ = (
        Index("ix_task_attribute_value", "argument_id", "value", mysql_length={"value": VALUE_INDEX_CHARACTERS}),
        {"sqlite_with_rowid": False},
    )
    task_id: Mapped[int] = mapped_column(BigId, ForeignKey("task.id"), primary_key=True)
    argument_id: Mapped[int] = mapped_column(BigId, ForeignKey("argument.id"), primary_key=True)
    value: Mapped[LongText]
