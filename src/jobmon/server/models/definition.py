"""Tables that are independent of workflows: tools, templates, clusters and resource requests."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, ForeignKey, Integer, Table, UniqueConstraint

from jobmon.server.models.types import BigId, Hash, LongText, Name, metadata

#: An application that owns templates and workflows.
tool: Final = Table(
    "tool",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("name", Name, unique=True, nullable=False),
)

#: A version of a tool; the one with the highest ID is the newest.
tool_version: Final = Table(
    "tool_version",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("tool_id", BigId, ForeignKey("tool.id"), index=True, nullable=False),
)

#: A named command pattern of a tool version.
task_template: Final = Table(
    "task_template",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("tool_version_id", BigId, ForeignKey("tool_version.id"), nullable=False),
    Column("name", Name, nullable=False),
    UniqueConstraint("tool_version_id", "name"),
)

#: A pattern with a mapping of arguments (JSON lists of names). `hash` covers all of them.
task_template_version: Final = Table(
    "task_template_version",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("task_template_id", BigId, ForeignKey("task_template.id"), nullable=False),
    Column("hash", Hash, nullable=False),
    Column("command_template", LongText, nullable=False),
    Column("node_args", LongText, nullable=False),
    Column("task_args", LongText, nullable=False),
    Column("op_args", LongText, nullable=False),
    UniqueConstraint("task_template_id", "hash"),
)

#: Files that a template declares, stored once: JSON, {"inputs": [[name, pattern], ...], "outputs": [...]}.
template_files: Final = Table(
    "template_files",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("hash", Hash, unique=True, nullable=False),
    Column("content", LongText, nullable=False),
)

#: A named execution environment. `plugin` is its type; `connection` (JSON) is how to reach it.
cluster: Final = Table(
    "cluster",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("name", Name, unique=True, nullable=False),
    Column("plugin", Name, nullable=False),
    Column("connection", LongText, nullable=False),
    Column("removed", Boolean, nullable=False),
)

#: A queue of a cluster; `position` 0 is the default queue, None a queue that is no longer offered.
queue: Final = Table(
    "queue",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("cluster_id", BigId, ForeignKey("cluster.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("position", Integer, nullable=True),
    Column("parameters", LongText, nullable=False),
    UniqueConstraint("cluster_id", "name"),
)

#: A resource request, stored once. `requested` is JSON, `original` what it was derived from, if different.
task_resources: Final = Table(
    "task_resources",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("hash", Hash, unique=True, nullable=False),
    Column("queue_id", BigId, ForeignKey("queue.id"), nullable=False),
    Column("kind", Name, nullable=False),
    Column("requested", LongText, nullable=False),
    Column("original", LongText, nullable=True),
)

#: The name of an argument or attribute, stored once.
argument: Final = Table(
    "argument",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("name", Name, unique=True, nullable=False),
)
