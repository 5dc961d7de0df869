"""Tools, templates, clusters: what exists before any workflow."""

from __future__ import annotations

from typing import Any

from msgspec import field

from jobmon.core.wire import Message
from jobmon.core.wire.fields import FreeForm, Name, Text


class ToolRequest(Message, frozen=True, kw_only=True):
    """POST /tools: find or create a tool by name; a new tool gets a first version. -> `ToolResponse`"""

    name: Name


class ToolResponse(Message, frozen=True, kw_only=True):
    """A tool with all its versions, oldest first."""

    tool_id: int
    name: str
    tool_version_ids: list[int]


class TemplateSpec(Message, frozen=True, kw_only=True):
    """A command template and the kinds of its arguments. Argument names are sorted."""

    name: Name
    command_template: Text
    node_args: list[Name]
    task_args: list[Name]
    op_args: list[Name]


class TemplatesRequest(Message, frozen=True, kw_only=True):
    """POST /tool_versions/{tool_version_id}/task_templates: find or create templates and their versions.

    POST /tools/{tool_id}/versions with `{}` creates a new tool version and returns `ToolResponse`.
    """

    templates: list[TemplateSpec]


class TemplatesResponse(Message, frozen=True, kw_only=True):
    """Ids in the order of the request."""

    task_template_ids: list[int]
    task_template_version_ids: list[int]


class TemplateVersion(Message, frozen=True, kw_only=True):
    """One known version of a template."""

    task_template_version_id: int
    template: TemplateSpec


class TemplateVersionsResponse(Message, frozen=True, kw_only=True):
    """GET /tool_versions/{tool_version_id}/task_templates/{name}/versions: oldest first."""

    task_template_id: int
    versions: list[TemplateVersion]


class ToolTemplatesResponse(Message, frozen=True, kw_only=True):
    """GET /tool_versions/{tool_version_id}/task_templates: the templates of a tool version, oldest first."""

    templates: list[TemplateVersionsResponse]


class QueueSpec(Message, frozen=True, kw_only=True):
    """A queue with its limits. `parameters`: as read by the plug-in's `ClusterQueue`."""

    queue_name: Name
    parameters: FreeForm = field(default_factory=dict)


class ClusterRequest(Message, frozen=True, kw_only=True):
    """POST /clusters: create or update a cluster; the first queue is its default. -> `Cluster`"""

    name: Name
    plugin: Name
    queues: list[QueueSpec]
    connection: FreeForm = field(default_factory=dict)


class Queue(Message, frozen=True, kw_only=True):
    """A queue as recorded."""

    queue_id: int
    queue_name: str
    parameters: dict[str, Any]


class Cluster(Message, frozen=True, kw_only=True):
    """A cluster as recorded; `queues[0]` is the default queue."""

    cluster_id: int
    name: str
    plugin: str
    connection: dict[str, Any]
    queues: list[Queue]


class ClustersResponse(Message, frozen=True, kw_only=True):
    """GET /clusters. DELETE /clusters/{name} returns 204."""

    clusters: list[Cluster]
