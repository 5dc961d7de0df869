"""Read data for orchestrators: changes, and everything needed to rebuild a run from the database."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import TaskKind, TaskStatus
from jobmon.core.wire.definition import (
    Cluster,
    ClustersResponse,
    Queue,
    TemplateSpec,
    TemplateVersion,
    TemplateVersionsResponse,
    ToolTemplatesResponse,
)
from jobmon.core.wire.run import ConcurrencyResponse
from jobmon.core.wire.swarm import (
    ArrayInfo,
    ArraysResponse,
    ChangesResponse,
    DownstreamRequest,
    DownstreamResponse,
    ResourceError,
    ResourcesInfo,
    TasksPage,
    WorkflowMetadata,
)
from jobmon.server.constructs import func, literal_column, select
from jobmon.server.counting import counts_by_array
from jobmon.server.joins import (
    IS_IN_WORKFLOW,
    RESOURCES_WITH_CLUSTERS,
    TASKS_WITH_NEWEST_ATTEMPTS,
    WORKFLOWS_WITH_TOOLS,
)
from jobmon.server.models import (
    cluster,
    dag_node,
    logical_clock,
    queue,
    task,
    task_array,
    task_edit,
    task_instance,
    task_resources,
    task_template,
    task_template_version,
    tool,
    upstream_set,
    upstream_set_member,
    workflow,
    workflow_run,
)
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries import launch_problems
from jobmon.server.queries.presence import require
from jobmon.server.sql import any_of, param, statement, statements
from jobmon.server.times import to_datetime, to_microseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Select, Table

    from jobmon.server.sql import Session

TASKS_PER_PAGE_MAX: Final = 10_000
DOWNSTREAM_TASKS_MAX: Final = 10_000
#: Maximum number of templates of a tool version in one response.
TEMPLATES_MAX: Final = 10_000

t, w, a = task.c, workflow.c, task_array.c


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesQuery:
    """See `ChangesResponse`."""

    since: datetime | None = None
    wait_seconds: float = 0.0
    workflow_run_id: int | None = None
    steering: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """Which page of tasks to return.

    Args:
        max_task_id: the highest ID of the previous page; 0: this is the first page.
        chunk_size: maximum number of tasks to return.
    """

    max_task_id: int = 0
    chunk_size: int = 500


@dataclass(frozen=True, slots=True)
class Changes:
    """A response, and whether it releases a long poll."""

    response: ChangesResponse
    is_news: bool


_STAMP = statement(lambda: select(logical_clock.c.stamp).where(logical_clock.c.id == 1))


def clock_stamp(session: Session) -> int:
    """Return the last stamp that was assigned to a change."""
    return int(session.value(_STAMP))


@statement
def _workflow_limit() -> Select[Any]:
    return select(w.max_concurrently_running, w.limit_at, w.steered_at).where(w.id == param("id"))


@statement
def _changed_tasks() -> Select[Any]:
    changed = t.workflow_id == param("id"), t.status_at > param("since")
    return select(t.id, t.status).where(*changed, IS_IN_WORKFLOW)


@statement
def _held_tasks() -> Select[Any]:
    return select(t.id).where(t.workflow_id == param("id"), t.held)


@statement
def _priorities() -> Select[Any]:
    return select(t.id, t.priority).where(t.workflow_id == param("id"), t.priority != literal_column("0"))


@statement
def _array_priorities() -> Select[Any]:
    return select(a.id, a.priority).where(a.workflow_id == param("id"), a.priority != literal_column("0"))


@statement
def _edited_tasks() -> Select[Any]:
    e = task_edit.c
    edits = task_edit.join(task, t.id == e.task_id)
    return select(t.id, t.revision).select_from(edits).where(e.workflow_id == param("id"), e.edited_at > param("since"))


@dataclass(frozen=True, slots=True)
class _Steering:
    """What users changed in tasks, besides their statuses; see `ChangesResponse`."""

    held: list[int] | None = None
    priorities: dict[int, int] | None = None
    array_priorities: dict[int, int] | None = None
    edited: dict[int, int] = field(default_factory=dict)


def _steering(session: Session, workflow_id: int, since: int) -> _Steering:
    return _Steering(
        held=session.column(_held_tasks, id=workflow_id),
        priorities=dict(session.rows(_priorities, id=workflow_id)),
        array_priorities=dict(session.rows(_array_priorities, id=workflow_id)),
        edited=dict(session.rows(_edited_tasks, id=workflow_id, since=since)),
    )


@statement
def _skipped_tasks() -> Select[Any]:
    return select(t.id).where(t.workflow_id == param("id"), t.status == TaskStatus.SKIPPED.value)


def _skipped(session: Session, workflow_id: int) -> list[int]:
    """Return the skipped tasks; without any, the tasks are not read."""
    counts = counts_by_array(session, workflow_id).values()
    if not any(found.get(TaskStatus.SKIPPED) for found in counts):
        return []
    return session.column(_skipped_tasks, id=workflow_id)


@statement
def _changed_array_limits() -> Select[Any]:
    is_changed = a.limit_at > param("since")
    return select(a.id, a.max_concurrently_running).where(a.workflow_id == param("id"), is_changed)


def changes(session: Session, workflow_id: int, query: ChangesQuery) -> Changes:
    """Return what changed since a stamp, or everything.

    A task that was queued or is being launched is returned but does not release a long poll: the orchestrator queued it
    itself, and other changes of that task follow soon.

    Raises:
        NotFound: the workflow does not exist, or the run is not one of its runs.
    """
    since = -1 if query.since is None else to_microseconds(query.since)
    stamp = clock_stamp(session)
    limit = session.row(_workflow_limit, id=workflow_id)
    if limit is None:
        raise NotFound.of("workflow", workflow_id)
    by_status: dict[str, list[int]] = {}
    for task_id, status in session.rows(_changed_tasks, id=workflow_id, since=since):
        by_status.setdefault(status, []).append(task_id)
    array_limits = session.rows(_changed_array_limits, id=workflow_id, since=since)
    run_status, run_changed = _run_status(session, workflow_id, query.workflow_run_id, since)
    limit_changed, is_steered = limit[1] > since, limit[2] > since
    steering = _Steering()
    if is_steered or query.steering:
        steering = _steering(session, workflow_id, -1 if query.steering else since)
    if query.steering and (skipped := _skipped(session, workflow_id)):
        by_status[TaskStatus.SKIPPED] = skipped
    problems = launch_problems.of_workflow(session, workflow_id)
    response = ChangesResponse(
        time=to_datetime(stamp),
        tasks_by_status=by_status,
        workflow_run_status=run_status,
        max_concurrently_running=limit[0] if limit_changed else None,
        array_limits=dict(array_limits),
        resource_errors=_resource_errors(session, by_status.get(TaskStatus.ADJUSTING_RESOURCES, [])),
        launch_problems={one.cluster: one.text for one in problems if one.waiting},
        notices={one.cluster: one.text for one in problems if not one.waiting},
        held=steering.held,
        priorities=steering.priorities,
        array_priorities=steering.array_priorities,
        edited=steering.edited,
    )
    loud = any(status not in fsm.WAITING_TO_START for status in by_status)
    steered = (
        run_changed or limit_changed or is_steered or bool(array_limits) or any(one.stamp > since for one in problems)
    )
    return Changes(response, is_news=query.since is None or loud or steered)


@statement
def _newest_attempts() -> Select[Any]:
    ti = task_instance.c
    return (
        select(t.id, ti.cause, ti.max_rss_bytes, ti.wallclock_seconds)
        .select_from(TASKS_WITH_NEWEST_ATTEMPTS)
        .where(any_of(t.id, "ids"))
    )


def _resource_errors(session: Session, task_ids: Sequence[int]) -> dict[int, ResourceError]:
    """Return the outcome of the newest attempt of each of these tasks; without tasks, nothing is read."""
    if not task_ids:
        return {}
    return {
        task_id: ResourceError(cause=cause, max_rss_bytes=peak, wallclock_seconds=seconds)
        for task_id, cause, peak, seconds in session.rows(_newest_attempts, ids=task_ids)
    }


@statement
def _status_of_run() -> Select[Any]:
    r = workflow_run.c
    return select(r.status, r.status_at).where(r.id == param("run"), r.workflow_id == param("workflow"))


def _run_status(session: Session, workflow_id: int, run_id: int | None, since: int) -> tuple[str | None, bool]:
    if run_id is None:
        return None, False
    row = session.row(_status_of_run, run=run_id, workflow=workflow_id)
    if row is None:
        raise NotFound.of(f"run of workflow {workflow_id} with id", run_id)
    return row[0], row[1] > since


@statement
def _workflow() -> Select[Any]:
    return (
        select(
            *(w.id, w.dag_id, w.max_concurrently_running, w.name, w.workflow_args, w.status, w.task_count),
            *(tool.c.name, w.tool_version_id),
        )
        .select_from(WORKFLOWS_WITH_TOOLS)
        .where(w.id == param("id"))
    )


def metadata(session: Session, workflow_id: int) -> WorkflowMetadata:
    """Return the properties of a workflow that a run needs.

    Raises:
        NotFound: the workflow does not exist.
    """
    row = session.row(_workflow, id=workflow_id)
    if row is None:
        raise NotFound.of("workflow", workflow_id)
    return WorkflowMetadata(
        workflow_id=row[0],
        dag_id=row[1],
        max_concurrently_running=row[2],
        name=row[3],
        workflow_args=row[4],
        status=row[5],
        task_count=row[6],
        tool_name=row[7],
        tool_version_id=row[8],
    )


@statement
def _arrays() -> Select[Any]:
    return select(a.id, a.name, a.max_concurrently_running).where(a.workflow_id == param("id")).order_by(a.id)


def arrays(session: Session, workflow_id: int) -> ArraysResponse:
    """Return the arrays of a workflow.

    Raises:
        NotFound: the workflow does not exist.
    """
    require(session, "workflow", workflow_id)
    return ArraysResponse(
        arrays=[
            ArrayInfo(array_id=row[0], name=row[1], max_concurrently_running=row[2])
            for row in session.rows(_arrays, id=workflow_id)
        ]
    )


@statement
def _next_tasks() -> Select[Any]:
    """Select tasks that are not DONE, by ID."""
    return (
        select(
            *(t.id, t.array_id, t.node_id, t.name, t.status, t.max_attempts, t.num_attempts, t.task_resources_id),
            *(t.scales, t.fallback_queues, t.kind, t.origin_id),
        )
        .where(t.workflow_id == param("workflow"), t.id > param("after"), t.status.not_in(fsm.SETTLED))
        .order_by(t.id)
        .limit(param("most"))
    )


def tasks_page(session: Session, workflow_id: int, query: PageQuery) -> TasksPage:
    """Return the next tasks that are not DONE.

    Raises:
        InvalidValue: the size of the page is out of range.
        NotFound: the workflow does not exist.
    """
    if not 0 < query.chunk_size <= TASKS_PER_PAGE_MAX:
        raise InvalidValue(f"chunk_size: must be from 1 to {TASKS_PER_PAGE_MAX}.")
    require(session, "workflow", workflow_id)
    rows = session.rows(_next_tasks, workflow=workflow_id, after=query.max_task_id, most=query.chunk_size)
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(12)]
    return TasksPage(
        task_ids=columns[0],
        array_ids=columns[1],
        node_ids=columns[2],
        names=columns[3],
        statuses=columns[4],
        max_attempts=columns[5],
        num_attempts=columns[6],
        task_resources_ids=columns[7],
        scales=[json.loads(text) if text else {} for text in columns[8]],
        fallback_queues=[json.loads(text) if text else [] for text in columns[9]],
        resources=resources_of(session, {resources_id for resources_id in columns[7] if resources_id is not None}),
        expansions=[at for at, kind in enumerate(columns[10]) if kind == TaskKind.EXPANSION],
        origins={at: origin_id for at, origin_id in enumerate(columns[11]) if origin_id is not None},
    )


@statement
def _requests() -> Select[Any]:
    r, q, c = task_resources.c, queue.c, cluster.c
    return (
        select(r.id, c.id, c.name, q.id, q.name, r.requested, r.kind, r.original)
        .select_from(RESOURCES_WITH_CLUSTERS)
        .where(any_of(r.id, "ids"))
        .order_by(r.id)
    )


def resources_of(session: Session, ids: Iterable[int]) -> list[ResourcesInfo]:
    """Return recorded requests, by ID."""
    return [
        ResourcesInfo(
            task_resources_id=row[0],
            cluster_id=row[1],
            cluster_name=row[2],
            queue_id=row[3],
            queue_name=row[4],
            requested=json.loads(row[5]),
            kind=row[6],
            original=json.loads(row[7]) if row[7] else None,
        )
        for row in session.rows(_requests, ids=ids)
    ]


_dag_of_workflow = statement(lambda: select(workflow.c.dag_id).where(workflow.c.id == param("id")))


@statement
def _nodes_of_tasks() -> Select[Any]:
    return select(t.id, t.node_id).where(any_of(t.id, "ids"), t.workflow_id == param("workflow"))


def downstream(session: Session, workflow_id: int, request: DownstreamRequest) -> DownstreamResponse:
    """Return the tasks directly downstream of some tasks. Tasks that are in the same upstream sets share one result.

    Raises:
        InvalidValue: there are too many tasks in the request.
        NotFound: the workflow does not exist, or it has no such task.
    """
    if len(request.task_ids) > DOWNSTREAM_TASKS_MAX:
        raise InvalidValue(f"task_ids: at most {DOWNSTREAM_TASKS_MAX} in one request.")
    require(session, "workflow", workflow_id)
    dag_id = session.value(_dag_of_workflow, id=workflow_id)
    nodes = dict(session.rows(_nodes_of_tasks, ids=request.task_ids, workflow=workflow_id))
    for task_id in request.task_ids:
        if task_id not in nodes:
            raise NotFound.of(f"task of workflow {workflow_id} with id", task_id)
    sets_of_node = _sets_of(session, dag_id, nodes.values())
    keys = [tuple(sets_of_node.get(nodes[task_id], ())) for task_id in request.task_ids]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    members = _tasks_of_sets(session, workflow_id, {set_id for key in numbers for set_id in key})
    return DownstreamResponse(
        node_ids=[nodes[task_id] for task_id in request.task_ids],
        set_index=[numbers[key] for key in keys],
        sets=[sorted({task_id for set_id in key for task_id in members.get(set_id, ())}) for key in numbers],
    )


@statement
def _sets_of_nodes() -> Select[Any]:
    m, s = upstream_set_member.c, upstream_set.c
    return (
        select(m.node_id, m.upstream_set_id)
        .join_from(upstream_set_member, upstream_set, s.id == m.upstream_set_id)
        .where(any_of(m.node_id, "nodes"), s.dag_id == param("dag"))
        .order_by(m.node_id, m.upstream_set_id)
    )


def _sets_of(session: Session, dag_id: int, node_ids: Iterable[int]) -> dict[int, list[int]]:
    """Return, for each node, the upstream sets of the DAG that contain it."""
    found: dict[int, list[int]] = defaultdict(list)
    for node_id, set_id in session.rows(_sets_of_nodes, nodes=node_ids, dag=dag_id):
        found[node_id].append(set_id)
    return found


@statement
def _users_of_sets() -> Select[Any]:
    n = dag_node.c
    return (
        select(n.upstream_set_id, t.id)
        .join_from(dag_node, task, t.node_id == n.node_id)
        .where(any_of(n.upstream_set_id, "sets"), t.workflow_id == param("workflow"), IS_IN_WORKFLOW)
    )


def _tasks_of_sets(session: Session, workflow_id: int, set_ids: Iterable[int]) -> dict[int, list[int]]:
    """Return, for each upstream set, the tasks of the workflow that have it."""
    found: dict[int, list[int]] = defaultdict(list)
    for set_id, task_id in session.rows(_users_of_sets, sets=set_ids, workflow=workflow_id):
        found[set_id].append(task_id)
    return found


@statements
def _limit_of(table: Table) -> Select[Any]:
    return select(table.c.max_concurrently_running).where(table.c.id == param("id"))


def workflow_limit(session: Session, workflow_id: int) -> ConcurrencyResponse:
    """Return how many tasks of a workflow may run concurrently.

    Raises:
        NotFound: the workflow does not exist.
    """
    return _limit(session.value(_limit_of(workflow), id=workflow_id), "workflow", workflow_id)


def array_limit(session: Session, array_id: int) -> ConcurrencyResponse:
    """Return how many tasks of an array may run concurrently.

    Raises:
        NotFound: the array does not exist.
    """
    return _limit(session.value(_limit_of(task_array), id=array_id), "array", array_id)


@statement
def _named_limit() -> Select[Any]:
    return select(func.max(a.max_concurrently_running)).where(a.workflow_id == param("id"), a.name == param("name"))


def named_array_limit(session: Session, workflow_id: int, name: str) -> ConcurrencyResponse:
    """Return how many tasks of a template in a workflow may run concurrently.

    Raises:
        NotFound: the workflow has no tasks of a template of that name.
    """
    value = session.value(_named_limit, id=workflow_id, name=name)
    return _limit(value, f"template of workflow {workflow_id} called", repr(name))


def _limit(value: int | None, what: str, identity: object) -> ConcurrencyResponse:
    if value is None:
        raise NotFound.of(what, identity)
    return ConcurrencyResponse(max_concurrently_running=value)


@statement
def _queues() -> Select[Any]:
    q = queue.c
    return select(q.cluster_id, q.id, q.name, q.parameters).where(q.position.is_not(None)).order_by(q.position)


@statement
def _clusters() -> Select[Any]:
    c = cluster.c
    return select(c.id, c.name, c.plugin, c.connection).where(~c.removed).order_by(c.name)


def clusters(session: Session) -> ClustersResponse:
    """Return all clusters with their queues, the default queue first."""
    queues: dict[int, list[Queue]] = defaultdict(list)
    for cluster_id, queue_id, name, parameters in session.rows(_queues):
        queues[cluster_id].append(Queue(queue_id=queue_id, queue_name=name, parameters=json.loads(parameters)))
    return ClustersResponse(
        clusters=[
            Cluster(cluster_id=row[0], name=row[1], plugin=row[2], connection=json.loads(row[3]), queues=queues[row[0]])
            for row in session.rows(_clusters)
        ]
    )


@statement
def _template() -> Select[Any]:
    p = task_template.c
    return select(p.id).where(p.tool_version_id == param("version"), p.name == param("name"))


@statement
def _template_versions() -> Select[Any]:
    v = task_template_version.c
    columns = v.id, v.command_template, v.node_args, v.task_args, v.op_args
    return select(*columns).where(v.task_template_id == param("id")).order_by(v.id)


@statement
def _templates() -> Select[Any]:
    p = task_template.c
    return select(p.id, p.name).where(p.tool_version_id == param("version")).order_by(p.id).limit(TEMPLATES_MAX)


def templates(session: Session, tool_version_id: int) -> ToolTemplatesResponse:
    """Return the templates of a tool version with all their versions, oldest first; at most `TEMPLATES_MAX`."""
    found = list(session.rows(_templates, version=tool_version_id))
    return ToolTemplatesResponse(templates=[_template_with_versions(session, *row) for row in found])


def template_versions(session: Session, tool_version_id: int, name: str) -> TemplateVersionsResponse:
    """Return all versions of a template, oldest first.

    Raises:
        NotFound: the tool version has no template of that name.
    """
    template_id = session.value(_template, version=tool_version_id, name=name)
    if template_id is None:
        raise NotFound.of(f"template of tool version {tool_version_id} called", repr(name))
    return _template_with_versions(session, template_id, name)


def _template_with_versions(session: Session, template_id: int, name: str) -> TemplateVersionsResponse:
    return TemplateVersionsResponse(
        task_template_id=template_id,
        versions=[
            TemplateVersion(
                task_template_version_id=row[0],
                template=TemplateSpec(
                    name=name,
                    command_template=row[1],
                    node_args=json.loads(row[2]),
                    task_args=json.loads(row[3]),
                    op_args=json.loads(row[4]),
                ),
            )
            for row in session.rows(_template_versions, id=template_id)
        ],
    )
