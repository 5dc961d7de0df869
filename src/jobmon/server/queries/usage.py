"""What the tasks of a template used; of a workflow or a tool, by template."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskInstanceStatus, TaskStatus
from jobmon.core.sizing import quantile
from jobmon.core.wire.monitoring import TemplateUsages, UsageRequest, UsageResponse
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.intervals import confidence_interval
from jobmon.server.queries.presence import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobmon.server.sql import Session

#: Of more tasks than this only the newest count.
USAGE_TASKS_MAX: Final = 50_000
USAGE_NODE_ARGS_MAX: Final = 50
PERCENTILES_MAX: Final = 100
GIB: Final = 1024.0**3

# A task that is done is done by its newest attempt.
_USAGE: Final = """
SELECT ti.max_rss_bytes, ti.wallclock_seconds, ti.cpu_seconds, {name}
FROM task_array a JOIN task t ON t.workflow_id = a.workflow_id AND t.array_id = a.id
JOIN task_instance ti ON ti.task_id = t.id AND ti.number = t.attempt_count
{more} AND t.status = :task_done AND ti.status = :attempt_done {conditions} ORDER BY t.id DESC LIMIT :most
"""
_OF_VERSION: Final = "WHERE a.task_template_version_id = :id"
_OF_WORKFLOW: Final = "WHERE a.workflow_id = :id"
_OF_TOOL: Final = """
JOIN task_template_version v ON v.id = a.task_template_version_id JOIN task_template p ON p.id = v.task_template_id
JOIN tool_version n ON n.id = p.tool_version_id WHERE n.tool_id = :id
"""
_NODE_ARG: Final = """
AND t.node_id IN (
    SELECT n.node_id FROM argument g JOIN node_arg n ON n.argument_id = g.id
    WHERE g.name = :name_{number} AND n.value IN (:values_{number}...))
"""


def template_usage(session: Session, version_id: int, request: UsageRequest) -> UsageResponse:
    """Return what done tasks of a template version used.

    Raises:
        NotFound: there is no such version.
        InvalidValue: the level of the intervals is not between 0 and 1, or there are too many node args.
    """
    _check(request)
    require(session, "task_template_version", version_id)
    return _usage(_rows(session, _OF_VERSION, version_id, request), request)


def workflow_usage(session: Session, workflow_id: int, request: UsageRequest) -> TemplateUsages:
    """Return what done tasks of a workflow used, by template.

    Raises:
        NotFound: there is no such workflow.
        InvalidValue: as for a template.
    """
    _check(request)
    require(session, "workflow", workflow_id)
    return _by_template(_rows(session, _OF_WORKFLOW, workflow_id, request, "a.name"), request)


def tool_usage(session: Session, tool_id: int, request: UsageRequest) -> TemplateUsages:
    """Return what done tasks of a tool used, by template.

    Raises:
        NotFound: there is no such tool.
        InvalidValue: as for a template.
    """
    _check(request)
    require(session, "tool", tool_id)
    return _by_template(_rows(session, _OF_TOOL, tool_id, request, "a.name"), request)


def _rows(
    session: Session, which: str, identity: int, request: UsageRequest, name: str = "NULL"
) -> Sequence[Sequence[Any]]:
    conditions, values = _conditions(request)
    return session.rows(
        _USAGE.format(name=name, more=which, conditions=conditions),
        id=identity,
        task_done=TaskStatus.DONE.value,
        attempt_done=TaskInstanceStatus.DONE.value,
        most=USAGE_TASKS_MAX,
        **values,
    )


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


def _conditions(request: UsageRequest) -> tuple[str, Mapping[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if request.workflow_ids is not None and len(request.workflow_ids) == 1 and not request.node_args:
        # said of the tasks too, so that the newest are found in their order instead of all being sorted
        conditions.append("AND a.workflow_id = :workflow AND t.workflow_id = :workflow")
        values["workflow"] = request.workflow_ids[0]
    elif request.workflow_ids is not None:
        conditions.append("AND a.workflow_id IN (:workflows...)")
        values["workflows"] = request.workflow_ids
    for number, (name, wanted) in enumerate(request.node_args.items()):
        conditions.append(_NODE_ARG.format(number=number))
        values |= {f"name_{number}": name, f"values_{number}": wanted}
    return " ".join(conditions), values


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
