"""API calls for definitions: versions, errors, resource usage, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from jobmon.client.arguments import Arguments
from jobmon.client.defaults import name_hint, whole
from jobmon.client.task_template_version import TaskTemplateVersion
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire.definition import (
    TemplateSpec,
    TemplatesRequest,
    TemplatesResponse,
    TemplateVersionsResponse,
    ToolRequest,
    ToolResponse,
    ToolTemplatesResponse,
)
from jobmon.core.wire.monitoring import (
    TaskDetail,
    TemplateUsages,
    UsageRequest,
    UsageResponse,
    WorkflowsResponse,
    WorkflowSummary,
)
from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse
from jobmon.core.wire.swarm import ErrorsResponse, TaskError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobmon.client.task_template import TaskTemplate
    from jobmon.client.tool import Tool
    from jobmon.client.tool_version import ToolVersion
    from jobmon.client.workflow import Workflow
    from jobmon.core.requester import Requester

GIB: Final = 1024**3
#: Maximum number of failed attempts in one response.
ERRORS_MAX: Final = 10_000
#: Percentiles that `TaskTemplate.resource_usage` returns.
PERCENTILES: Final = (5, 25, 50, 75, 90, 95, 99)


def record_tool(tool: Tool) -> None:
    """Find or create the tool, and set its ID and versions."""
    _learn(tool, tool.requester.call("/tools", ToolRequest(name=tool.name), ToolResponse))


def _learn(tool: Tool, response: ToolResponse) -> None:
    tool.tool_id = response.tool_id
    tool.tool_version_ids = list(response.tool_version_ids)


def new_tool_version(tool: Tool) -> int:
    """Record a new version of a tool and return its ID."""
    record_tool(tool)
    _learn(tool, tool.requester.call(f"/tools/{tool.tool_id}/versions", {}, ToolResponse))
    return tool.tool_version_ids[-1]


def check_version(tool: Tool, version_id: int) -> None:
    """Check that a tool has a version.

    Raises:
        ValueError: the tool has no such version.
    """
    record_tool(tool)
    if version_id not in tool.tool_version_ids:
        raise ValueError(f"Tool {tool.name!r} has no version {version_id}; it has {tool.tool_version_ids}.")


def tool_version_id(version: ToolVersion) -> int:
    """Return the ID of a version, recording its tool if necessary; for "latest", the ID of the newest version."""
    tool = version.tool
    if tool.tool_id is None:
        record_tool(tool)
    if version.id is None:
        return tool.tool_version_ids[-1]
    return version.id


def record_templates(version: ToolVersion, wanted: Sequence[TaskTemplateVersion]) -> None:
    """Find or create template versions of one tool version, and set their IDs."""
    request = TemplatesRequest(templates=[_spec(each) for each in wanted])
    route = f"/tool_versions/{tool_version_id(version)}/task_templates"
    response = version.tool.requester.call(route, request, TemplatesResponse)
    ids = zip(wanted, response.task_template_ids, response.task_template_version_ids, strict=True)
    for each, template_id, version_id in ids:
        each.template.task_template_id = template_id
        each.id = version_id


def _spec(version: TaskTemplateVersion) -> TemplateSpec:
    return TemplateSpec(
        name=version.name,
        command_template=version.command_template,
        node_args=list(version.arguments.node_args),
        task_args=list(version.arguments.task_args),
        op_args=list(version.arguments.op_args),
    )


def load_templates(version: ToolVersion) -> None:
    """Add the recorded templates of a tool version that the script has not defined."""
    route = f"/tool_versions/{tool_version_id(version)}/task_templates"
    response = version.tool.requester.call(route, None, ToolTemplatesResponse, "get")
    for found in response.templates:
        name = found.versions[0].template.name
        if name not in version.task_templates:
            template = version.get_task_template(name)
            template.take_versions(_versions(template, found))


def template_versions(template: TaskTemplate) -> list[TaskTemplateVersion]:
    """Return all recorded versions of a template, oldest first."""
    version = template.tool_version
    name = quote(template.template_name, safe="")
    route = f"/tool_versions/{tool_version_id(version)}/task_templates/{name}/versions"
    return _versions(template, version.tool.requester.call(route, None, TemplateVersionsResponse, "get"))


def _versions(template: TaskTemplate, response: TemplateVersionsResponse) -> list[TaskTemplateVersion]:
    template.task_template_id = response.task_template_id
    return [
        TaskTemplateVersion(
            template,
            found.template.command_template,
            Arguments(tuple(found.template.node_args), tuple(found.template.task_args), tuple(found.template.op_args)),
            found.task_template_version_id,
        )
        for found in response.versions
    ]


def template_usage(
    template: TaskTemplate,
    workflows: Iterable[int] | None,
    node_args: Mapping[str, Any] | None,
    confidence: float | None,
) -> dict[str, Any] | None:
    """Return the resource usage of tasks of a template's active version, or None.

    Raises:
        ValueError: the template has no such node arg.
    """
    version = template.active_task_template_version
    for name in node_args or ():
        if name not in version.arguments.node_args:
            hint = name_hint(name, version.arguments.node_args)
            raise ValueError(f"Template {version.name!r} has no node arg {name!r}{hint}")
    if version.id is None:
        record_templates(template.tool_version, [version])
    request = UsageRequest(
        workflow_ids=None if workflows is None else [whole(each) or each for each in workflows],
        node_args={name: _texts(value) for name, value in (node_args or {}).items()},
        confidence=confidence,
        percentiles=list(PERCENTILES),
    )
    requester = template.tool_version.tool.requester
    usage = requester.call(f"/task_template_versions/{version.id}/resource_usage", request, UsageResponse)
    return _usage_dict(usage) if usage.num_tasks else None


def workflow_usage(workflow: Workflow, confidence: float | None) -> dict[str, dict[str, Any]]:
    """Return the resource usage of a workflow's done tasks, by template; empty before it is recorded."""
    if workflow.workflow_id is None:
        return {}
    return _usages(workflow.requester, f"/workflows/{workflow.workflow_id}", confidence)


def tool_usage(tool: Tool, confidence: float | None) -> dict[str, dict[str, Any]]:
    """Return the resource usage of a tool's done tasks, by template."""
    if tool.tool_id is None:
        record_tool(tool)
    return _usages(tool.requester, f"/tools/{tool.tool_id}", confidence)


def _usages(requester: Requester, owner: str, confidence: float | None) -> dict[str, dict[str, Any]]:
    request = UsageRequest(confidence=confidence, percentiles=list(PERCENTILES))
    found = requester.call(f"{owner}/resource_usage", request, TemplateUsages)
    return {name: _usage_dict(usage) for name, usage in found.templates.items()}


def _usage_dict(usage: UsageResponse) -> dict[str, Any]:
    result: dict[str, Any] = msgspec.to_builtins(usage)
    for key in ("min_mem", "max_mem", "mean_mem", "median_mem"):
        result[key] = None if result[key] is None else _as_bytes(result[key])
    for key in ("ci_mem", "percentiles_mem"):
        result[key] = result[key] and [*map(_as_bytes, result[key])]
    for key in ("percentiles_mem", "percentiles_runtime", "percentiles_cores"):
        result[key] = dict(zip(PERCENTILES, result[key], strict=False))
    return result


def _as_bytes(gib: float) -> int:
    return round(gib * GIB)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list | tuple | set | frozenset | range) else [value]
    return [str(each) for each in values]


def task_errors(requester: Requester, task_id: int) -> dict[str, Any] | None:
    """Return the error log of one task; see `error_logs`. None if no attempt of it failed."""
    response = requester.call(f"/tasks/{task_id}/errors", None, ErrorsResponse, "get")
    return error_logs(response.errors).get(task_id)


def workflow_errors(requester: Requester, workflow_id: int, tasks: int, *, permanent: bool = False) -> list[TaskError]:
    """Return the failed attempts of a workflow, newest first.

    Args:
        requester: sends the request.
        workflow_id: ID of the workflow.
        tasks: maximum number of tasks; those that failed last are included.
        permanent: include only tasks that failed permanently.
    """
    query = {"limit": ERRORS_MAX, "tasks": tasks, "permanent": str(permanent).lower()}
    return requester.call(f"/workflows/{workflow_id}/errors", query, ErrorsResponse, "get").errors


def permanent_failures(requester: Requester, workflow_id: int, tasks: int) -> list[TaskError]:
    """Return the newest failed attempt of each task that failed permanently, newest first.

    Args:
        requester: sends the request.
        workflow_id: ID of the workflow.
        tasks: maximum number of tasks.
    """
    newest: dict[int, TaskError] = {}
    for error in workflow_errors(requester, workflow_id, tasks, permanent=True):
        newest.setdefault(error.task_id, error)
    return list(newest.values())


def error_logs(errors: Iterable[TaskError]) -> dict[int, dict[str, Any]]:
    """Return error logs by task ID. The errors must be given newest first.

    Returns:
        For each task a dict of `task_instance_id`, the ID of its newest failed attempt, and `error_log`, a list with an
        entry for each failed attempt, newest first. An entry has `error_time` (datetime), `description`, all fields of
        the error, and `recovered`, which is True if the task succeeded after the error.
    """
    logs: dict[int, dict[str, Any]] = {}
    for error in errors:
        empty = {"task_instance_id": error.task_instance_id, "error_log": []}
        logs.setdefault(error.task_id, empty)["error_log"].append(_error_entry(error))
    return logs


def _error_entry(error: TaskError) -> dict[str, Any]:
    return {
        "error_time": error.time,
        "description": error.error,
        **{name: getattr(error, name) for name in error.__struct_fields__},
        "recovered": error.task_status == TaskStatus.DONE,
    }


def task_usage(requester: Requester, task_id: int) -> dict[str, Any] | None:
    """Return the resource usage of a task's newest finished attempt, or None; see `Task.resource_usage`."""
    detail = requester.call(f"/tasks/{task_id}", None, TaskDetail, "get")
    finished = [attempt for attempt in detail.attempts if attempt.ended_at is not None]
    if not finished:
        return None
    newest = finished[-1]
    return {
        "num_attempts": len(detail.attempts),
        "nodename": newest.host,
        "runtime": newest.wallclock_seconds,
        "cpu": newest.cpu_seconds,
        "memory": newest.max_rss_bytes,
        "read_bytes": newest.read_bytes,
        "written_bytes": newest.written_bytes,
    }


def workflow_summary(requester: Requester, workflow_id: int, *, counts: bool = True) -> WorkflowSummary:
    """Return a workflow, by default with the counts of its tasks.

    Raises:
        InvalidRequest: there is no workflow with this ID.
    """
    query = {"workflow_id": [workflow_id], "limit": 1, "counts": str(counts).lower()}
    found = requester.call("/workflows", query, WorkflowsResponse, "get").workflows
    if not found:
        raise InvalidRequest(f"There is no workflow {workflow_id}.")
    return found[0]


def set_array_limit(requester: Requester, workflow_id: int, name: str, limit: int) -> None:
    """Change the concurrency limit of a template in a workflow."""
    route = f"/workflows/{workflow_id}/arrays/{quote(name, safe='')}/concurrency"
    requester.call(route, ConcurrencyRequest(max_concurrently_running=limit), ConcurrencyResponse, "put")
