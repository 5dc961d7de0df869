"""What orchestrators read: changes, and everything to rebuild a run from the database."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskStatus
from jobmon.core.wire.definition import (
    Cluster,
    ClustersResponse,
    Queue,
    TemplateSpec,
    TemplateVersion,
    TemplateVersionsResponse,
)
from jobmon.core.wire.run import ConcurrencyResponse
from jobmon.core.wire.server import ServerTime
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
from jobmon.server.models.types import to_datetime, to_microseconds
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries.presence import require
from jobmon.server.transitions import QUIET_TASK_STATUSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.server.sql import Session

TASKS_PER_PAGE_MAX: Final = 10_000
DOWNSTREAM_TASKS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesQuery:
    """See `ChangesResponse`."""

    since: datetime | None = None
    wait_seconds: float = 0.0
    workflow_run_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """Which page of tasks."""

    max_task_id: int = 0
    chunk_size: int = 500


@dataclass(frozen=True, slots=True)
class Changes:
    """An answer, and whether it is news for which a held request is answered."""

    response: ChangesResponse
    is_news: bool


def clock_stamp(session: Session) -> int:
    """Return the last stamp that was given to a change."""
    return int(session.value("SELECT stamp FROM logical_clock WHERE id = 1"))


def server_time(session: Session) -> ServerTime:
    """Return the logical time."""
    return ServerTime(time=to_datetime(clock_stamp(session)).isoformat())


def changes(session: Session, workflow_id: int, query: ChangesQuery) -> Changes:
    """Return what changed since a stamp, or everything.

    That a task was queued or is being launched is told, but is no news: who queued it knows, and the rest follows soon.
    """
    since = -1 if query.since is None else to_microseconds(query.since)
    stamp = clock_stamp(session)
    limit = session.row("SELECT max_concurrently_running, limit_at FROM workflow WHERE id = :id", id=workflow_id)
    if limit is None:
        raise NotFound.of("workflow", workflow_id)
    by_status: dict[str, list[int]] = {}
    for task_id, status in session.rows(
        "SELECT id, status FROM task WHERE workflow_id = :id AND status_at > :since", id=workflow_id, since=since
    ):
        by_status.setdefault(status, []).append(task_id)
    arrays = session.rows(
        "SELECT id, max_concurrently_running FROM task_array WHERE workflow_id = :id AND limit_at > :since",
        id=workflow_id,
        since=since,
    )
    run_status, run_changed = _run_status(session, workflow_id, query.workflow_run_id, since)
    limit_changed = limit[1] > since
    response = ChangesResponse(
        time=to_datetime(stamp),
        tasks_by_status=by_status,
        workflow_run_status=run_status,
        max_concurrently_running=limit[0] if limit_changed else None,
        array_limits=dict(arrays),
        resource_errors=_resource_errors(session, by_status.get(TaskStatus.ADJUSTING_RESOURCES, [])),
    )
    loud = any(status not in QUIET_TASK_STATUSES for status in by_status)
    return Changes(response, is_news=query.since is None or loud or run_changed or limit_changed or bool(arrays))


def _resource_errors(session: Session, task_ids: Sequence[int]) -> dict[int, ResourceError]:
    """Return how the newest attempts of these tasks ended; nothing is asked where there are none."""
    if not task_ids:
        return {}
    rows = session.rows(
        """
        SELECT t.id, ti.cause, ti.max_rss_bytes, ti.wallclock_seconds
        FROM task t JOIN task_instance ti ON ti.task_id = t.id AND ti.number = t.attempt_count
        WHERE t.id IN (:ids...)
        """,
        ids=task_ids,
    )
    return {
        task_id: ResourceError(cause=cause, max_rss_bytes=peak, wallclock_seconds=seconds)
        for task_id, cause, peak, seconds in rows
    }


def _run_status(session: Session, workflow_id: int, run_id: int | None, since: int) -> tuple[str | None, bool]:
    if run_id is None:
        return None, False
    row = session.row(
        "SELECT status, status_at FROM workflow_run WHERE id = :run AND workflow_id = :workflow",
        run=run_id,
        workflow=workflow_id,
    )
    if row is None:
        raise NotFound.of(f"run of workflow {workflow_id} with id", run_id)
    return row[0], row[1] > since


def metadata(session: Session, workflow_id: int) -> WorkflowMetadata:
    """Return what a run must know of its workflow."""
    row = session.row(
        """
        SELECT w.id, w.dag_id, w.max_concurrently_running, w.name, w.workflow_args, w.status, w.task_count, t.name,
               w.tool_version_id
        FROM workflow w JOIN tool_version v ON v.id = w.tool_version_id JOIN tool t ON t.id = v.tool_id
        WHERE w.id = :id
        """,
        id=workflow_id,
    )
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


def arrays(session: Session, workflow_id: int) -> ArraysResponse:
    """Return the arrays of a workflow."""
    require(session, "workflow", workflow_id)
    rows = session.rows(
        "SELECT id, name, max_concurrently_running FROM task_array WHERE workflow_id = :id ORDER BY id", id=workflow_id
    )
    return ArraysResponse(
        arrays=[ArrayInfo(array_id=row[0], name=row[1], max_concurrently_running=row[2]) for row in rows]
    )


def tasks_page(session: Session, workflow_id: int, query: PageQuery) -> TasksPage:
    """Return the next tasks that are not DONE."""
    if not 0 < query.chunk_size <= TASKS_PER_PAGE_MAX:
        raise InvalidValue(f"chunk_size: must be from 1 to {TASKS_PER_PAGE_MAX}.")
    require(session, "workflow", workflow_id)
    rows = session.rows(
        """
        SELECT id, array_id, node_id, name, status, max_attempts, num_attempts, task_resources_id, scales,
               fallback_queues
        FROM task WHERE workflow_id = :workflow AND id > :after AND status != :done ORDER BY id LIMIT :most
        """,
        workflow=workflow_id,
        after=query.max_task_id,
        done=TaskStatus.DONE.value,
        most=query.chunk_size,
    )
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(10)]
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
        resources=_resources(session, {resources_id for resources_id in columns[7] if resources_id is not None}),
    )


def _resources(session: Session, ids: Iterable[int]) -> list[ResourcesInfo]:
    rows = session.rows(
        """
        SELECT r.id, c.id, c.name, q.id, q.name, r.requested, r.kind, r.original FROM task_resources r
        JOIN queue q ON q.id = r.queue_id JOIN cluster c ON c.id = q.cluster_id WHERE r.id IN (:ids...) ORDER BY r.id
        """,
        ids=list(ids),
    )
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
        for row in rows
    ]


def downstream(session: Session, workflow_id: int, request: DownstreamRequest) -> DownstreamResponse:
    """Return who waits for the tasks. Tasks that are upstream in the same sets share one answer."""
    if len(request.task_ids) > DOWNSTREAM_TASKS_MAX:
        raise InvalidValue(f"task_ids: at most {DOWNSTREAM_TASKS_MAX} in one request.")
    require(session, "workflow", workflow_id)
    nodes = dict(
        session.rows(
            "SELECT id, node_id FROM task WHERE id IN (:ids...) AND workflow_id = :workflow",
            ids=request.task_ids,
            workflow=workflow_id,
        )
    )
    for task_id in request.task_ids:
        if task_id not in nodes:
            raise NotFound.of(f"task of workflow {workflow_id} with id", task_id)
    sets_of_node = _sets_of(session, request.dag_id, nodes.values())
    keys = [tuple(sets_of_node.get(nodes[task_id], ())) for task_id in request.task_ids]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    members = _tasks_of_sets(session, workflow_id, {set_id for key in numbers for set_id in key})
    return DownstreamResponse(
        node_ids=[nodes[task_id] for task_id in request.task_ids],
        set_index=[numbers[key] for key in keys],
        sets=[sorted({task_id for set_id in key for task_id in members.get(set_id, ())}) for key in numbers],
    )


def _sets_of(session: Session, dag_id: int, node_ids: Iterable[int]) -> dict[int, list[int]]:
    """Return for each node the sets of the DAG in which it is an upstream."""
    found: dict[int, list[int]] = defaultdict(list)
    for node_id, set_id in session.rows(
        """
        SELECT m.node_id, m.upstream_set_id FROM upstream_set_member m JOIN upstream_set s ON s.id = m.upstream_set_id
        WHERE m.node_id IN (:nodes...) AND s.dag_id = :dag ORDER BY m.node_id, m.upstream_set_id
        """,
        nodes=list(node_ids),
        dag=dag_id,
    ):
        found[node_id].append(set_id)
    return found


def _tasks_of_sets(session: Session, workflow_id: int, set_ids: Iterable[int]) -> dict[int, list[int]]:
    """Return for each set the tasks of the workflow whose upstreams it holds."""
    found: dict[int, list[int]] = defaultdict(list)
    for set_id, task_id in session.rows(
        """
        SELECT n.upstream_set_id, t.id FROM dag_node n JOIN task t ON t.node_id = n.node_id
        WHERE n.upstream_set_id IN (:sets...) AND t.workflow_id = :workflow
        """,
        sets=list(set_ids),
        workflow=workflow_id,
    ):
        found[set_id].append(task_id)
    return found


def workflow_limit(session: Session, workflow_id: int) -> ConcurrencyResponse:
    """Return how many tasks of a workflow may run at once."""
    value = session.value("SELECT max_concurrently_running FROM workflow WHERE id = :id", id=workflow_id)
    return _limit(value, "workflow", workflow_id)


def array_limit(session: Session, array_id: int) -> ConcurrencyResponse:
    """Return how many tasks of an array may run at once."""
    value = session.value("SELECT max_concurrently_running FROM task_array WHERE id = :id", id=array_id)
    return _limit(value, "array", array_id)


def named_array_limit(session: Session, workflow_id: int, name: str) -> ConcurrencyResponse:
    """Return how many tasks of a template in a workflow may run at once."""
    value = session.value(
        "SELECT MAX(max_concurrently_running) FROM task_array WHERE workflow_id = :id AND name = :name",
        id=workflow_id,
        name=name,
    )
    return _limit(value, f"array of workflow {workflow_id} called", repr(name))


def _limit(value: int | None, what: str, identity: object) -> ConcurrencyResponse:
    if value is None:
        raise NotFound.of(what, identity)
    return ConcurrencyResponse(max_concurrently_running=value)


def clusters(session: Session) -> ClustersResponse:
    """Return all clusters, each with its queues, the default one first."""
    queues: dict[int, list[Queue]] = defaultdict(list)
    for cluster_id, queue_id, name, parameters in session.rows(
        "SELECT cluster_id, id, name, parameters FROM queue WHERE position IS NOT NULL ORDER BY position"
    ):
        queues[cluster_id].append(Queue(queue_id=queue_id, queue_name=name, parameters=json.loads(parameters)))
    rows = session.rows("SELECT id, name, plugin, connection FROM cluster WHERE NOT removed ORDER BY name")
    return ClustersResponse(
        clusters=[
            Cluster(cluster_id=row[0], name=row[1], plugin=row[2], connection=json.loads(row[3]), queues=queues[row[0]])
            for row in rows
        ]
    )


def template_versions(session: Session, tool_version_id: int, name: str) -> TemplateVersionsResponse:
    """Return all versions of a template, oldest first."""
    template_id = session.value(
        "SELECT id FROM task_template WHERE tool_version_id = :version AND name = :name",
        version=tool_version_id,
        name=name,
    )
    if template_id is None:
        raise NotFound.of(f"template of tool version {tool_version_id} called", repr(name))
    rows: Sequence[tuple[Any, ...]] = session.rows(
        """
        SELECT id, command_template, node_args, task_args, op_args FROM task_template_version
        WHERE task_template_id = :id ORDER BY id
        """,
        id=template_id,
    )
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
            for row in rows
        ],
    )
