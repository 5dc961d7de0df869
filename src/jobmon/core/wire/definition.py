"""Tools, templates, clusters: what exists before any workflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobmon.core.wire.fields import FreeForm, Name, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """POST /tools: find or create a tool by name; a new tool gets a first version. -> `ToolResponse`"""

    name: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResponse:
    """A tool with all its versions, oldest first."""

    tool_id: int
    name: str
    tool_version_ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSpec:
    """A command template and the kinds of its arguments. Argument names are sorted."""

    name: Name
    command_template: Text
    node_args: list[Name]
    task_args: list[Name]
    op_args: list[Name]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplatesRequest:
    """POST /tool_versions/{tool_version_id}/task_templates: find or create templates and their versions.

    POST /tools/{tool_id}/versions with `{}` creates a new tool version and returns `ToolResponse`.
    """

    templates: list[TemplateSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplatesResponse:
    """Ids in the order of the request."""

    task_template_ids: list[int]
    task_template_version_ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateVersion:
    """One known version of a template."""

    task_template_version_id: int
    template: TemplateSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateVersionsResponse:
    """GET /tool_versions/{tool_version_id}/task_templates/{name}/versions: oldest first."""

    task_template_id: int
    versions: list[TemplateVersion]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolTemplatesResponse:
    """GET /tool_versions/{tool_version_id}/task_templates: the templates of a tool version, oldest first."""

    templates: list[TemplateVersionsResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A queue with its limits. `parameters`: as read by the plug-in's `ClusterQueue`."""

    queue_name: Name
    parameters: FreeForm = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRequest:
    """POST /clusters: create or update a cluster; the first queue is its default. -> `Cluster`"""

    name: Name
    plugin: Name
    queues: list[QueueSpec]
    connection: FreeForm = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue as recorded."""

    queue_id: int
    queue_name: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster as recorded; `queues[0]` is the default queue."""

    cluster_id: int
    name: str
    plugin: str
    connection: dict[str, Any]
    queues: list[Queue]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClustersResponse:
    """GET /clusters. DELETE /clusters/{name} returns 204."""

    clusters: list[Cluster]
