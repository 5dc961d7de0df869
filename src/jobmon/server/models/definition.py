"""What exists before any workflow: tools, templates, clusters and requests for them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from jobmon.server.models.types import Base, BigId, Hash, Key, LongText, Name


class Tool(Base):
    """An application that owns templates and workflows."""

    __tablename__ = "tool"
    id: Mapped[Key]
    name: Mapped[Name] = mapped_column(unique=True)


class ToolVersion(Base):
    """One version of a tool; the one with the highest id is the newest."""

    __tablename__ = "tool_version"
    id: Mapped[Key]
    tool_id: Mapped[int] = mapped_column(BigId, ForeignKey("tool.id"), index=True)


class TaskTemplate(Base):
    """A named command pattern of a tool version."""

    __tablename__ = "task_template"
    __table_args__ = (UniqueConstraint("tool_version_id", "name"),)
    id: Mapped[Key]
    tool_version_id: Mapped[int] = mapped_column(BigId, ForeignKey("tool_version.id"))
    name: Mapped[Name]


class TaskTemplateVersion(Base):
    """One pattern with one mapping of arguments (JSON lists of names). `hash` is over all of them."""

    __tablename__ = "task_template_version"
    __table_args__ = (UniqueConstraint("task_template_id", "hash"),)
    id: Mapped[Key]
    task_template_id: Mapped[int] = mapped_column(BigId, ForeignKey("task_template.id"))
    hash: Mapped[Hash]
    command_template: Mapped[LongText]
    node_args: Mapped[LongText]
    task_args: Mapped[LongText]
    op_args: Mapped[LongText]


class Cluster(Base):
    """A named place to run. `plugin` says of which type, `connection` (JSON) how to reach it."""

    __tablename__ = "cluster"
    id: Mapped[Key]
    name: Mapped[Name] = mapped_column(unique=True)
    plugin: Mapped[Name]
    connection: Mapped[LongText]
    removed: Mapped[bool]


class Queue(Base):
    """A queue of a cluster; `position` 0 is the default one, None one that is no longer offered."""

    __tablename__ = "queue"
    __table_args__ = (UniqueConstraint("cluster_id", "name"),)
    id: Mapped[Key]
    cluster_id: Mapped[int] = mapped_column(BigId, ForeignKey("cluster.id"))
    name: Mapped[Name]
    position: Mapped[int | None]
    parameters: Mapped[LongText]


class TaskResources(Base):
    """A request for a queue, stored once. `requested` is JSON, `original` what it was made of where that differs."""

    __tablename__ = "task_resources"
    id: Mapped[Key]
    hash: Mapped[Hash] = mapped_column(unique=True)
    queue_id: Mapped[int] = mapped_column(BigId, ForeignKey("queue.id"))
    kind: Mapped[Name]
    requested: Mapped[LongText]
    original: Mapped[LongText | None]


class Argument(Base):
    """The name of an argument or attribute, stored once."""

    __tablename__ = "argument"
    id: Mapped[Key]
    name: Mapped[Name] = mapped_column(unique=True)
