"""Gathers the situation of a task or a workflow; what follows from it is said by `core.reasons`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import packing, reasons
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING, TaskStatus
from jobmon.core.wire.monitoring import (
    DependenciesResponse,
    Neighbour,
    Reason,
    TaskExplanation,
    WorkflowExplanation,
)
from jobmon.server.models.types import to_datetime
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries import graph
from jobmon.server.transitions import FINAL_RUNS, QUEUING_RUNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobmon.server.sql import Session

NEIGHBOURS_MAX: Final = 10_000
_UNMET: Final = [status.value for status in TaskStatus if status is not TaskStatus.DONE]

#: The sets in which a task is that failed for good, and those of all that lie behind them.
BLOCKED_SETS: Final = """
WITH RECURSIVE blocked(set_id) AS (
    SELECT m.upstream_set_id FROM task t JOIN upstream_set_member m ON m.node_id = t.node_id
    JOIN upstream_set s ON s.id = m.upstream_set_id WHERE t.workflow_id = :workflow AND t.status = :fatal
    AND s.dag_id = :dag
    UNION
    SELECT m.upstream_set_id FROM blocked b JOIN dag_node n ON n.upstream_set_id = b.set_id
    JOIN upstream_set_member m ON m.node_id = n.node_id
    JOIN upstream_set s ON s.id = m.upstream_set_id WHERE s.dag_id = :dag
)
"""
_BLOCKED_COUNT: Final = f"""
{BLOCKED_SETS}
SELECT COUNT(*) FROM task t WHERE t.workflow_id = :workflow AND t.status NOT IN (:ended...) AND t.node_id IN (
    SELECT n.node_id FROM dag_node n WHERE n.upstream_set_id IN (SELECT set_id FROM blocked))
"""
# Upwards from a node, but only where something before it failed: a large DAG is not read for a few failures.
_FAILED_BEFORE: Final = f"""
{BLOCKED_SETS}, before(set_id) AS (
    SELECT n.upstream_set_id FROM dag_node n
    WHERE n.node_id = :node AND +n.upstream_set_id IN (SELECT set_id FROM blocked)
    UNION
    SELECT n.upstream_set_id FROM before b JOIN upstream_set_member m ON m.upstream_set_id = b.set_id
    JOIN dag_node n ON n.node_id = m.node_id WHERE +n.upstream_set_id IN (SELECT set_id FROM blocked)
)
SELECT t.id, t.name, t.status FROM task t WHERE t.workflow_id = :workflow AND t.status = :fatal AND t.node_id IN (
    SELECT m.node_id FROM upstream_set_member m WHERE m.upstream_set_id IN (SELECT set_id FROM before))
ORDER BY +t.id LIMIT :most
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The server's time, microseconds, and how long a distributor may be silent."""

    time: int
    silence_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DependenciesQuery:
    """How many on each side."""

    limit: int = 1_000


def explain_task(session: Session, task_id: int, now: Now) -> TaskExplanation:
    """Say why a task does not run."""
    row = session.row(
        """
        SELECT t.name, t.status, t.num_attempts, t.max_attempts, t.workflow_id, t.node_id, t.array_id, w.dag_id
        FROM task t JOIN workflow w ON w.id = t.workflow_id WHERE t.id = :id
        """,
        id=task_id,
    )
    if row is None:
        raise NotFound.of("task", task_id)
    name, status, num_attempts, max_attempts, workflow_id, node_id, array_id, dag_id = row
    waits = status in reasons.QUEUEABLE
    unmet_counts = graph.neighbour_counts(session, workflow_id, node_id, "upstream") if waits else {}
    unmet_count = sum(count for letter, count in unmet_counts.items() if letter != TaskStatus.DONE)
    unmet = _unmet(session, workflow_id, node_id) if unmet_count else []
    fatal = _failed_before(session, workflow_id, dag_id, node_id) if unmet_count else []
    situation = reasons.Situation(
        task_id=task_id,
        status=status,
        num_attempts=num_attempts,
        max_attempts=max_attempts,
        run=_run(session, workflow_id, now),
        limits=_limits(session, workflow_id, array_id),
        unmet=_named(unmet),
        unmet_count=unmet_count,
        fatal=_named(fatal),
        fatal_count=len(fatal),
        newest=_newest(session, task_id),
        cores=_cores(session, workflow_id),
    )
    return TaskExplanation(
        task_id=task_id,
        name=name,
        status=status,
        workflow_id=workflow_id,
        num_attempts=num_attempts,
        max_attempts=max_attempts,
        reasons=_reasons(reasons.why(situation)),
        unmet=unmet,
        unmet_count=unmet_count,
        fatal=fatal[: reasons.UPSTREAMS_NAMED_MAX],
        fatal_count=len(fatal),
    )


def _reasons(found: Iterable[reasons.Because]) -> list[Reason]:
    return [Reason(kind=because.kind.value, text=because.text) for because in found]


def _named(neighbours: Iterable[Neighbour]) -> tuple[str, ...]:
    return tuple(
        f"{one.name} (task {one.task_id}, {TaskStatus(one.status).name})"
        for one in list(neighbours)[: reasons.UPSTREAMS_NAMED_MAX]
    )


def _neighbours(rows: Iterable[tuple[int, str, str]]) -> list[Neighbour]:
    return [Neighbour(task_id=row[0], name=row[1], status=row[2]) for row in rows]


def _unmet(session: Session, workflow_id: int, node_id: int) -> list[Neighbour]:
    most = reasons.UPSTREAMS_NAMED_MAX
    return _neighbours(graph.neighbours(session, workflow_id, node_id, "upstream", most, _UNMET))


def _failed_before(session: Session, workflow_id: int, dag_id: int, node_id: int) -> list[Neighbour]:
    """Return the tasks before a node, however far, that failed for good."""
    rows: list[tuple[Any, ...]] = session.rows(
        _FAILED_BEFORE,
        workflow=workflow_id,
        dag=dag_id,
        node=node_id,
        fatal=TaskStatus.ERROR_FATAL.value,
        most=NEIGHBOURS_MAX,
    )
    return _neighbours((row[0], row[1], row[2]) for row in rows)


def _run(session: Session, workflow_id: int, now: Now) -> reasons.Run:
    status = session.value("SELECT status FROM workflow WHERE id = :id", id=workflow_id)
    row = session.row(
        """
        SELECT status, host, pid, report_by FROM workflow_run
        WHERE workflow_id = :id AND status NOT IN (:final...) ORDER BY id DESC LIMIT 1
        """,
        id=workflow_id,
        final=FINAL_RUNS,
    )
    cluster = _cluster(session, workflow_id)
    if row is None:
        return reasons.Run(workflow_id=workflow_id, workflow_status=status, cluster=cluster)
    seen_at = session.value("SELECT MAX(seen_at) FROM distributor WHERE workflow_id = :id", id=workflow_id)
    silent = None if seen_at is None else (now.time - seen_at) / 1e6
    return reasons.Run(
        workflow_id=workflow_id,
        workflow_status=status,
        cluster=cluster,
        is_active=True,
        may_queue=row[0] in QUEUING_RUNS,
        is_overdue=row[3] < now.time,
        place=f"process {row[2]} on {row[1]}",
        distributor_silent_seconds=silent,
        is_distributor_silent=silent is None or silent > now.silence_seconds,
    )


def _cluster(session: Session, workflow_id: int) -> str:
    """Return the cluster on which attempts of the workflow were launched; "": none, or several."""
    rows = session.rows(
        """
        SELECT DISTINCT c.name FROM batch b JOIN task_resources r ON r.id = b.task_resources_id
        JOIN queue q ON q.id = r.queue_id JOIN cluster c ON c.id = q.cluster_id
        WHERE b.workflow_id = :id LIMIT 2
        """,
        id=workflow_id,
    )
    return str(rows[0][0]) if len(rows) == 1 else ""


def _in_flight(session: Session, workflow_id: int) -> Mapping[int, int]:
    """Count the tasks in flight by array."""
    return dict(
        session.rows(
            "SELECT array_id, COUNT(*) FROM task WHERE workflow_id = :id AND status IN (:flying...) GROUP BY array_id",
            id=workflow_id,
            flying=sorted(reasons.IN_FLIGHT),
        )
    )


def _limits(session: Session, workflow_id: int, array_id: int) -> reasons.Limits:
    row = session.row(
        """
        SELECT w.max_concurrently_running, a.max_concurrently_running, a.name
        FROM task_array a JOIN workflow w ON w.id = a.workflow_id WHERE a.id = :id
        """,
        id=array_id,
    )
    assert row is not None, "a task has an array"
    flying = _in_flight(session, workflow_id)
    return reasons.Limits(
        workflow=row[0],
        in_flight=sum(flying.values()),
        template=row[1],
        template_name=row[2],
        template_in_flight=flying.get(array_id, 0),
    )


def _newest(session: Session, task_id: int) -> reasons.Newest | None:
    row = session.row(
        """
        SELECT ti.status, c.name, ti.host, ti.pid, ti.queued_at, ti.launched_at, ti.started_at, ti.distributor_id,
               ti.cause, ti.error, ti.pending_reason, w.problem, ti.batch_id
        FROM task_instance ti JOIN cluster c ON c.id = ti.cluster_id
        LEFT JOIN cluster_watch w ON w.cluster_id = c.id
        WHERE ti.task_id = :id ORDER BY ti.number DESC, w.problem DESC LIMIT 1
        """,
        id=task_id,
    )
    if row is None:
        return None
    since = next(time for time in (row[6], row[5], row[4]) if time is not None)
    return reasons.Newest(
        status=row[0],
        cluster=row[1],
        place=f"{row[2]}, process {row[3]}" if row[2] and row[3] else row[2] or "",
        since_text=f"{to_datetime(since):%Y-%m-%d %H:%M:%S} UTC",
        distributor_id=row[7] or "",
        cause=row[8] or "",
        error=row[9] or "",
        pending_reason=row[10] or "",
        cluster_problem=row[11] or "",
        submission=_submission(session, row[12]),
    )


def _submission(session: Session, batch_id: int | None) -> str:
    """Say how a batch was submitted, if its tasks share jobs."""
    row = session.row(
        """
        SELECT p.mode, p.jobs, p.width, p.size, r.requested FROM packed_batch p JOIN batch b ON b.id = p.batch_id
        JOIN task_resources r ON r.id = b.task_resources_id WHERE p.batch_id = :id
        """,
        id=batch_id,
    )
    if row is None:
        return ""
    was_asked = not packing.KEYS.isdisjoint(json.loads(row[4]))
    return packing.told(row[0], row[1], row[2], row[3], was_asked=was_asked)


def _packed(session: Session, workflow_id: int) -> str:
    """Say how many tasks of a workflow share how many jobs."""
    rows = session.rows(
        """
        SELECT p.mode, SUM(p.size), SUM(p.jobs), (
            SELECT COUNT(*) FROM packed_batch o JOIN packed_job j ON j.batch_id = o.batch_id
            WHERE o.workflow_id = :id AND o.mode = p.mode AND j.started_at IS NOT NULL AND j.ended_at IS NULL)
        FROM packed_batch p WHERE p.workflow_id = :id GROUP BY p.mode ORDER BY p.mode
        """,
        id=workflow_id,
    )
    words = [f"{tasks} attempts in {jobs} {mode} jobs, {running} of which run" for mode, tasks, jobs, running in rows]
    return f"Tasks share jobs: {'; '.join(words)}." if words else ""


def _cores(session: Session, workflow_id: int) -> reasons.Cores | None:
    """Return how the pool of cores stands from which the workflow is given; None where it is given none."""
    row = session.row(
        """
        SELECT l.total, l.granted, (SELECT SUM(o.held) FROM slot_lease o WHERE o.pool = l.pool)
        FROM slot_lease l WHERE l.workflow_id = :id ORDER BY l.pool LIMIT 1
        """,
        id=workflow_id,
    )
    return None if row is None else reasons.Cores(total=row[0], granted=row[1], held=row[2] or 0.0)


def explain_workflow(session: Session, workflow_id: int, now: Now) -> WorkflowExplanation:
    """Say why a workflow does not go on."""
    row = session.row(
        "SELECT name, status, dag_id, max_concurrently_running FROM workflow WHERE id = :id", id=workflow_id
    )
    if row is None:
        raise NotFound.of("workflow", workflow_id)
    name, status, dag_id, limit = row
    counts = dict(
        session.rows("SELECT status, COUNT(*) FROM task WHERE workflow_id = :id GROUP BY status", id=workflow_id)
    )
    blocked = _blocked(session, workflow_id, dag_id) if counts.get(TaskStatus.ERROR_FATAL.value) else 0
    progress = reasons.Progress(
        counts=counts,
        blocked=blocked,
        run=_run(session, workflow_id, now),
        limits=_all_limits(session, workflow_id, limit, counts),
        cores=_cores(session, workflow_id),
        packed=_packed(session, workflow_id),
    )
    return WorkflowExplanation(
        workflow_id=workflow_id,
        name=name,
        status=status,
        counts=counts,
        blocked=blocked,
        reasons=_reasons(reasons.why_workflow(progress)),
    )


def _blocked(session: Session, workflow_id: int, dag_id: int) -> int:
    return int(
        session.value(
            _BLOCKED_COUNT,
            workflow=workflow_id,
            dag=dag_id,
            fatal=TaskStatus.ERROR_FATAL.value,
            ended=[TaskStatus.DONE.value, TaskStatus.ERROR_FATAL.value],
        )
    )


def _all_limits(
    session: Session, workflow_id: int, limit: int, counts: Mapping[str, int]
) -> tuple[reasons.Limits, ...]:
    rows: Sequence[tuple[Any, ...]] = session.rows(
        "SELECT id, name, max_concurrently_running FROM task_array WHERE workflow_id = :id ORDER BY id", id=workflow_id
    )
    is_limited = any(template_limit < MAX_CONCURRENTLY_RUNNING for _, _, template_limit in rows)
    flying = _in_flight(session, workflow_id) if is_limited else {}  # tasks are counted by array only where it matters
    in_flight = sum(count for status, count in counts.items() if status in reasons.IN_FLIGHT)
    return tuple(
        reasons.Limits(
            workflow=limit,
            in_flight=in_flight,
            template=template_limit,
            template_name=name,
            template_in_flight=flying.get(array_id, 0),
        )
        for array_id, name, template_limit in rows
    )


def dependencies(session: Session, task_id: int, query: DependenciesQuery) -> DependenciesResponse:
    """Return the tasks directly before and after a task."""
    if not 0 < query.limit <= NEIGHBOURS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {NEIGHBOURS_MAX}.")
    row = session.row("SELECT name, status, workflow_id, node_id FROM task WHERE id = :id", id=task_id)
    if row is None:
        raise NotFound.of("task", task_id)
    name, status, workflow_id, node_id = row
    sides = {
        side: _neighbours(graph.neighbours(session, workflow_id, node_id, side, query.limit))
        for side in ("upstream", "downstream")
    }
    return DependenciesResponse(
        task_id=task_id,
        name=name,
        status=status,
        workflow_id=workflow_id,
        upstream=sides["upstream"],
        downstream=sides["downstream"],
        upstream_counts=graph.neighbour_counts(session, workflow_id, node_id, "upstream"),
        downstream_counts=graph.neighbour_counts(session, workflow_id, node_id, "downstream"),
    )
