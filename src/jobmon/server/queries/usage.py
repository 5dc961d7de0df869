"""Report the resources that done tasks of a template used; for a workflow or a tool, by template."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskInstanceStatus, TaskStatus
from jobmon.core.sizing import quantile
from jobmon.core.wire.monitoring import TemplateUsages, UsageRequest, UsageResponse
from jobmon.server.constructs import null, select
from jobmon.server.joins import ARRAYS_WITH_NEWEST_ATTEMPTS
from jobmon.server.models import (
    argument,
    node_arg,
    task,
    task_array,
    task_instance,
    task_template,
    task_template_version,
    tool_version,
)
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.intervals import confidence_interval
from jobmon.server.queries.presence import require
from jobmon.server.sql import any_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Select

    from jobmon.server.sql import Session

#: Only the newest tasks are included.
USAGE_TASKS_MAX: Final = 50_000
USAGE_NODE_ARGS_MAX: Final = 50
PERCENTILES_MAX: Final = 100
GIB: Final = 1024.0**3

a, t, ti = task_array.c, task.c, task_instance.c
_NO_NAME: Final = null()


def template_usage(session: Session, version_id: int, request: UsageRequest) -> UsageResponse:
    """Return what done tasks of a template version used.

    Raises:
        NotFound: the version does not exist.
        InvalidValue: the level of the intervals is not between 0 and 1, or there are too many node args.
    """
    _check(request)
    require(session, "task_template_version", version_id)
    return _usage(_rows(session, a.task_template_version_id == version_id, request), request)


def workflow_usage(session: Session, workflow_id: int, request: UsageRequest) -> TemplateUsages:
    """Return what done tasks of a workflow used, by template.

    Raises:
        NotFound: the workflow does not exist.
        InvalidValue: as for a template.
    """
    _check(request)
    require(session, "workflow", workflow_id)
    return _by_template(_rows(session, a.workflow_id == workflow_id, request, a.name), request)


def tool_usage(session: Session, tool_id: int, request: UsageRequest) -> TemplateUsages:
    """Return what done tasks of a tool used, by template.

    Raises:
        NotFound: there is no such tool.
        InvalidValue: as for a template.
    """
    _check(request)
    require(session, "tool", tool_id)
    return _by_template(_rows(session, _is_of_tool(tool_id), request, a.name), request)


def _is_of_tool(tool_id: int) -> ColumnElement[bool]:
    """Return whether an array's template belongs to a tool."""
    v, p, n = task_template_version.c, task_template.c, tool_version.c
    versions = (
        select(v.id)
        .join_from(task_template_version, task_template, p.id == v.task_template_id)
        .join(tool_version, n.id == p.tool_version_id)
        .where(n.tool_id == tool_id)
    )
    return a.task_template_version_id.in_(versions)


def _rows(
    session: Session, is_wanted: ColumnElement[bool], request: UsageRequest, name: ColumnElement[Any] = _NO_NAME
) -> Sequence[Sequence[Any]]:
    """Return the usage of the newest done tasks; by template if `name` is the column of its name.

    A done task is done by its newest attempt.
    """
    used = (
        select(ti.max_rss_bytes, ti.wallclock_seconds, ti.cpu_seconds, name)
        .select_from(ARRAYS_WITH_NEWEST_ATTEMPTS)
        .where(is_wanted, t.status == TaskStatus.DONE.value, ti.status == TaskInstanceStatus.DONE.value)
        .order_by(t.id.desc())
        .limit(USAGE_TASKS_MAX)
    )
    narrowed, values = _narrowed(used, request)
    return session.rows(narrowed, **values)


def _by_template(rows: Iterable[Sequence[Any]], request: UsageRequest) -> TemplateUsages:
    by_name: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for row in rows:
        by_name[row[3]].append(row)
    return TemplateUsages(templates={name: _usage(by_name[name], request) for name in sorted(by_name)})


def _usage(rows: Sequence[Sequence[Any]], request: UsageRequest) -> UsageResponse:
    memory = [row[0] / GIB for row in rows if row[0] is not None]
    runtime = [row[1] for row in rows if row[1] is not None]
    cores = [row[2] / row[1] for row in rows if row[1] and row[2] is not None]
    figures = {
        **_figures("mem", memory, request.confidence),
        **_figures("runtime", runtime, request.confidence),
        "percentiles_mem": _percentiles(memory, request.percentiles),
        "percentiles_runtime": _percentiles(runtime, request.percentiles),
        "percentiles_cores": _percentiles(cores, request.percentiles),
    }
    return UsageResponse(num_tasks=len(rows), **figures)


def _check(request: UsageRequest) -> None:
    if request.confidence is not None and not 0 < request.confidence < 1:
        raise InvalidValue("confidence: must be between 0 and 1, such as 0.95.")
    if len(request.node_args) > USAGE_NODE_ARGS_MAX:
        raise InvalidValue(f"node_args: at most {USAGE_NODE_ARGS_MAX} names.")
    if len(request.percentiles) > PERCENTILES_MAX or not all(0 <= each <= 100 for each in request.percentiles):
        raise InvalidValue(f"percentiles: at most {PERCENTILES_MAX} numbers from 0 to 100.")


def _narrowed(used: Select[Any], request: UsageRequest) -> tuple[Select[Any], dict[str, Any]]:
    """Add the conditions of a request; return the statement and the values of its list parameters."""
    values: dict[str, Any] = {}
    if request.workflow_ids is not None and len(request.workflow_ids) == 1 and not request.node_args:
        # a condition on the tasks as well: the newest ones are then found in order, without sorting all
        workflow_id = request.workflow_ids[0]
        used = used.where(a.workflow_id == workflow_id, t.workflow_id == workflow_id)
    elif request.workflow_ids is not None:
        used = used.where(any_of(a.workflow_id, "workflows"))
        values["workflows"] = request.workflow_ids
    for number, (name, wanted) in enumerate(request.node_args.items()):
        values[f"values_{number}"] = wanted
        used = used.where(t.node_id.in_(_nodes_with(name, f"values_{number}")))
    return used, values


def _nodes_with(name: str, values: str) -> Select[Any]:
    """Return the nodes whose argument has one of the values in the list parameter of that name."""
    n = node_arg.c
    return (
        select(n.node_id)
        .join_from(argument, node_arg, n.argument_id == argument.c.id)
        .where(argument.c.name == name, any_of(n.value, values))
    )


def _percentiles(measured: Sequence[float], wanted: Sequence[float]) -> list[float]:
    ordered = sorted(measured)
    return [quantile(ordered, each / 100) for each in wanted] if ordered else []


def _figures(what: str, measured: Sequence[float], confidence: float | None) -> dict[str, Any]:
    if not measured:
        return {}
    return {
        f"min_{what}": min(measured),
        f"max_{what}": max(measured),
        f"mean_{what}": statistics.fmean(measured),
        f"median_{what}": statistics.median(measured),
        f"ci_{what}": None if confidence is None else confidence_interval(measured, confidence),
    }
