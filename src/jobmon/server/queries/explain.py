"""Read the situation of a task or a workflow, from which `core.explain` infers why it does not run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import explain, fsm, packing
from jobmon.core.constants import TaskKind, TaskStatus
from jobmon.core.texts import number_of
from jobmon.core.wire.monitoring import (
    DependenciesResponse,
    Neighbour,
    Reason,
    TaskExplanation,
    WorkflowExplanation,
)
from jobmon.server.constructs import BigInteger, case, cast, func, select, union_all
from jobmon.server.counting import counts_by_array
from jobmon.server.joins import IS_ACTIVE_RUN, IS_FATAL
from jobmon.server.models import (
    IS_EXPANSION,
    agent,
    batch,
    cluster,
    cluster_watch,
    dag_node,
    distributor,
    packed_batch,
    packed_job,
    slot_lease,
    task,
    task_array,
    task_instance,
    upstream_set_member,
    workflow,
    workflow_run,
)
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries import graph, launch_problems
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.times import to_datetime
from jobmon.server.transitions import QUEUING_RUNS, TAKEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import CompoundSelect, Select

    from jobmon.server.kept import Kept
    from jobmon.server.queries.blocked import Blocked
    from jobmon.server.sql import Session

NEIGHBOURS_MAX: Final = 10_000
_UNMET: Final = [status.value for status in TaskStatus if status not in fsm.SETTLED]

t, w, a = task.c, workflow.c, task_array.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The time at which the situation is judged.

    Args:
        time: the server's time, microseconds since 1970 in UTC.
        silence_seconds: how long a distributor may be silent.
    """

    time: int
    silence_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DependenciesQuery:
    """Maximum number of tasks to return on each side."""

    limit: int = 1_000


@statement
def _task() -> Select[Any]:
    what = t.name, t.status, t.num_attempts, t.max_attempts, t.workflow_id, t.node_id, t.array_id, w.dag_id, t.held
    found = task.join(workflow, w.id == t.workflow_id).join(task_array, task_array.c.id == t.array_id)
    return select(*what, t.kind, t.priority + task_array.c.priority).select_from(found).where(t.id == param("id"))


def explain_task(session: Session, task_id: int, now: Now) -> TaskExplanation:
    """Explain why a task does not run.

    Raises:
        NotFound: the task does not exist.
    """
    row = session.row(_task, id=task_id)
    if row is None:
        raise NotFound.of("task", task_id)
    name, status, num_attempts, max_attempts, workflow_id, node_id, array_id, dag_id, is_held, kind, priority = row
    waits = status in fsm.QUEUEABLE
    unmet_counts = graph.neighbour_counts(session, workflow_id, node_id, "upstream") if waits else {}
    unmet_count = sum(count for letter, count in unmet_counts.items() if letter not in fsm.SETTLED)
    unmet = _unmet(session, workflow_id, node_id) if unmet_count else []
    fatal = _failed_before(session, workflow_id, dag_id, node_id) if unmet_count else []
    situation = explain.Situation(
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
        newest=_newest(session, task_id, _launch_problems(session, workflow_id)),
        cores=_cores(session, workflow_id),
        is_held=is_held,
        is_expansion=kind == TaskKind.EXPANSION,
    )
    return TaskExplanation(
        task_id=task_id,
        name=name,
        status=status,
        workflow_id=workflow_id,
        num_attempts=num_attempts,
        max_attempts=max_attempts,
        reasons=_reasons(explain.why(situation)),
        unmet=unmet,
        unmet_count=unmet_count,
        fatal=fatal[: explain.UPSTREAMS_NAMED_MAX],
        fatal_count=len(fatal),
        priority=priority,
    )


def _reasons(found: Iterable[explain.Because]) -> list[Reason]:
    return [Reason(kind=because.kind.value, text=because.text) for because in found]


def _named(neighbours: Iterable[Neighbour]) -> tuple[str, ...]:
    return tuple(
        f"{one.name} (task {one.task_id}, {TaskStatus(one.status).name})"
        for one in list(neighbours)[: explain.UPSTREAMS_NAMED_MAX]
    )


def _neighbours(rows: Iterable[tuple[int, str, str]]) -> list[Neighbour]:
    return [Neighbour(task_id=row[0], name=row[1], status=row[2]) for row in rows]


def _unmet(session: Session, workflow_id: int, node_id: int) -> list[Neighbour]:
    most = explain.UPSTREAMS_NAMED_MAX
    return _neighbours(graph.neighbours(session, workflow_id, node_id, "upstream", most, _UNMET))


@statement
def _failed_upstream() -> Select[Any]:
    """Select all tasks upstream of a node, at any distance, that failed permanently.

    It follows only sets with a failure upstream: a large DAG is not read for a few failures.
    """
    n, m = dag_node.c, upstream_set_member.c
    is_blocked = unindexed(n.upstream_set_id).in_(select(graph.blocked_sets().c.set_id))
    own = select(n.upstream_set_id.label("set_id")).where(n.node_id == param("node"), is_blocked)
    above = own.cte("above", recursive=True)
    upwards = above.join(upstream_set_member, m.upstream_set_id == above.c.set_id).join(
        dag_node, n.node_id == m.node_id
    )
    above = above.union(select(n.upstream_set_id).select_from(upwards).where(is_blocked))
    nodes = select(m.node_id).where(m.upstream_set_id.in_(select(above.c.set_id)))
    return (
        select(t.id, t.name, t.status)
        .where(
            t.workflow_id == param("workflow"),
            IS_FATAL,
            t.node_id.in_(nodes),
        )
        .order_by(unindexed(t.id))
        .limit(param("most"))
    )


def _failed_before(session: Session, workflow_id: int, dag_id: int, node_id: int) -> list[Neighbour]:
    rows = session.rows(_failed_upstream, workflow=workflow_id, dag=dag_id, node=node_id, most=NEIGHBOURS_MAX)
    return _neighbours((row[0], row[1], row[2]) for row in rows)


_STATUS = statement(lambda: select(w.status).where(w.id == param("id")))


@statement
def _active_run() -> Select[Any]:
    r = workflow_run.c
    return (
        select(r.status, r.host, r.pid, r.report_by)
        .where(r.workflow_id == param("id"), IS_ACTIVE_RUN)
        .order_by(r.id.desc())
        .limit(1)
    )


@statement
def _launchers_seen_at() -> CompoundSelect[Any]:
    """Select, by run, when distributors and when agents of a workflow were last seen."""
    kinds = [
        select(one.c.workflow_run_id, func.max(one.c.seen_at))
        .where(one.c.workflow_id == param("id"))
        .group_by(one.c.workflow_run_id)
        for one in (distributor, agent)
    ]
    return union_all(*kinds)


def _launcher_seen_at(session: Session, workflow_id: int) -> int | None:
    """Return when the processes that launch attempts were last all seen: of the newest run that had any."""
    rows = session.rows(_launchers_seen_at, id=workflow_id)
    newest = max((run_id for run_id, _ in rows), default=0)
    return min((seen_at for run_id, seen_at in rows if run_id == newest), default=None)


def _run(session: Session, workflow_id: int, now: Now) -> explain.Run:
    status = session.value(_STATUS, id=workflow_id)
    row = session.row(_active_run, id=workflow_id)
    if row is None:
        return explain.Run(workflow_id=workflow_id, workflow_status=status)
    seen_at = _launcher_seen_at(session, workflow_id)
    silent = None if seen_at is None else (now.time - seen_at) / 1e6
    return explain.Run(
        workflow_id=workflow_id,
        workflow_status=status,
        is_active=True,
        may_queue=row[0] in QUEUING_RUNS,
        is_overdue=row[3] < now.time,
        place=f"process {row[2]} on {row[1]}",
        distributor_silent_seconds=silent,
        is_distributor_silent=silent is None or silent > now.silence_seconds,
    )


def _in_flight(counts: Mapping[str, int]) -> int:
    return sum(number for status, number in counts.items() if status in fsm.IN_FLIGHT)


@statement
def _limits_of_array() -> Select[Any]:
    return (
        select(w.max_concurrently_running, a.max_concurrently_running, a.name)
        .join_from(task_array, workflow, w.id == a.workflow_id)
        .where(a.id == param("id"))
    )


def _limits(session: Session, workflow_id: int, array_id: int) -> explain.Limits:
    row = session.row(_limits_of_array, id=array_id)
    assert row is not None, "a task has an array"
    flying = {number: _in_flight(found) for number, found in counts_by_array(session, workflow_id).items()}
    return explain.Limits(
        workflow=row[0],
        in_flight=sum(flying.values()),
        template=row[1],
        template_name=row[2],
        template_in_flight=flying.get(array_id, 0),
    )


def _launch_problems(session: Session, workflow_id: int) -> tuple[explain.LaunchProblem, ...]:
    """Return the problems that prevent the distributor of a workflow from launching."""
    return tuple(
        explain.LaunchProblem(
            cluster=one.cluster,
            text=one.text,
            tried_text=_moment(one.tried_at),
            next_text=_moment(one.next_at),
            waiting=one.waiting,
        )
        for one in launch_problems.of_workflow(session, workflow_id)
    )


def _moment(time: int) -> str:
    return f"{to_datetime(time):%Y-%m-%d %H:%M:%S} UTC"


@statement
def _newest_attempt() -> Select[Any]:
    """Select the newest attempt of a task, with a problem of its cluster if any of its watches has one."""
    ti, c, seen = task_instance.c, cluster.c, cluster_watch.c
    joined = (
        task_instance.join(cluster, c.id == ti.cluster_id)
        .outerjoin(batch, batch.c.id == ti.batch_id)
        .outerjoin(cluster_watch, seen.cluster_id == c.id)
    )
    return (
        select(
            *(ti.status, c.name, ti.host, ti.pid, ti.queued_at, ti.launched_at, ti.started_at, ti.distributor_id),
            *(ti.cause, ti.error, ti.pending_reason, seen.problem, ti.batch_id, batch.c.host, ti.agent_id),
        )
        .select_from(joined)
        .where(ti.task_id == param("id"))
        .order_by(ti.number.desc(), seen.problem.desc().nulls_last())
        .limit(1)
    )


def _newest(session: Session, task_id: int, problems: Sequence[explain.LaunchProblem]) -> explain.Newest | None:
    row = session.row(_newest_attempt, id=task_id)
    if row is None:
        return None
    submission, is_packed = _submission(session, row[12])
    since = next(time for time in (row[6], row[5], row[4]) if time is not None)
    return explain.Newest(
        status=row[0],
        cluster=row[1],
        place=f"{row[2]}, process {row[3]}" if row[2] and row[3] else row[2] or "",
        since_text=_moment(since),
        distributor_id=row[7] or "",
        cause=row[8] or "",
        error=row[9] or "",
        pending_reason=row[10] or "",
        cluster_problem=row[11] or "",
        submission=submission,
        is_submitted=bool(row[7] or row[13] or row[14] or is_packed),
        launch_problem=next((one for one in problems if one.cluster == row[1]), None),
    )


@statement
def _submitted_batch() -> Select[Any]:
    p, b = packed_batch.c, batch.c
    return (
        select(p.mode, p.jobs, p.width, p.size, b.reason)
        .select_from(batch.outerjoin(packed_batch, p.batch_id == b.id))
        .where(b.id == param("id"))
    )


def _submission(session: Session, batch_id: int | None) -> tuple[str, bool]:
    """Describe how a batch was submitted, and why ("": not recorded); also return whether its tasks share jobs."""
    row = session.row(_submitted_batch, id=batch_id) if batch_id is not None else None
    if row is None or row[4] is None:
        return "", row is not None and row[0] is not None
    text = packing.told(row[0] or packing.Mode.ARRAY, row[1] or 0, row[2] or 0, row[3] or 0, row[4])
    return text, row[0] is not None


@statement
def _packed_counts() -> Select[Any]:
    """Select the numbers of attempts, jobs and running jobs in a workflow's packed batches, by mode."""
    p, other, j = packed_batch.c, packed_batch.alias("other"), packed_job.c
    running = (
        select(func.count())
        .join_from(other, packed_job, j.batch_id == other.c.batch_id)
        .where(
            other.c.workflow_id == param("id"),
            other.c.mode == p.mode,
            j.started_at.is_not(None),
            j.ended_at.is_(None),
        )
        .scalar_subquery()
    )
    counts = (cast(func.sum(counted), BigInteger) for counted in (p.size, p.jobs))
    return select(p.mode, *counts, running).where(p.workflow_id == param("id")).group_by(p.mode).order_by(p.mode)


def _are(count: int) -> str:
    return f"{count:,} {'is' if count == 1 else 'are'}"


def _packed(session: Session, workflow_id: int) -> str:
    """Describe how many attempts of a workflow share how many jobs."""
    rows = session.rows(_packed_counts, id=workflow_id)
    words = [
        f"{number_of(tasks, 'attempt')} in {number_of(jobs, f'{mode} job')}, of which {_are(running)} running"
        for mode, tasks, jobs, running in rows
    ]
    return f"Tasks share jobs: {'; '.join(words)}." if words else ""


@statement
def _parents_count() -> Select[Any]:
    """Count the attempts of a workflow whose commands run workflows."""
    ti, parent = task_instance.c, workflow_run.c.parent_task_instance_id
    outer = workflow_run.alias("outer").c
    of_workflow = select(outer.id).where(outer.workflow_id == param("id"))
    return select(func.count()).where(
        ti.id.in_(select(parent).where(parent.is_not(None), IS_ACTIVE_RUN)),
        unindexed(ti.workflow_run_id).in_(of_workflow),
        any_of(unindexed(ti.status), "taken"),
    )


@statement
def _held_count() -> Select[Any]:
    """Select how many unfinished tasks are held, and how many of these would be waiting otherwise."""
    waits = case((t.status.in_(fsm.QUEUEABLE), 1), else_=0)
    is_open = t.workflow_id == param("id"), t.held, t.status.not_in(fsm.SETTLED)
    return select(func.count(), func.coalesce(func.sum(waits), 0)).where(*is_open)


@statement
def _calls_count() -> Select[Any]:
    is_called = t.workflow_id == param("id"), IS_EXPANSION, t.status == TaskStatus.RUNNING.value
    return select(func.count()).where(*is_called)


@statement
def _pool_of_cores() -> Select[Any]:
    pool, other = slot_lease.c, slot_lease.alias("other")
    held = select(func.sum(other.c.held)).where(other.c.pool == pool.pool).scalar_subquery()
    mine = select(pool.total, pool.granted, held).where(pool.workflow_id == param("id"))
    return mine.order_by(pool.agent_id.desc(), pool.pool).limit(1)


def _cores(session: Session, workflow_id: int) -> explain.Cores | None:
    """Return the state of the pool of cores in which the workflow has a share; None if it has none."""
    row = session.row(_pool_of_cores, id=workflow_id)
    return None if row is None else explain.Cores(total=row[0], granted=row[1], held=row[2] or 0.0)


@statement
def _workflow() -> Select[Any]:
    return select(w.name, w.status, w.dag_id, w.max_concurrently_running, w.priority).where(w.id == param("id"))


def explain_workflow(session: Session, workflow_id: int, now: Now, kept: Kept) -> WorkflowExplanation:
    """Explain why a workflow does not progress; the session has read nothing yet.

    Raises:
        NotFound: the workflow does not exist.
    """
    with kept.blocked(workflow_id) as blocked:
        return explain_workflow_with(session, workflow_id, now, blocked, kept.monotonic())


def explain_workflow_with(
    session: Session, workflow_id: int, now: Now, known: Blocked, monotonic: float
) -> WorkflowExplanation:
    """Explain why a workflow does not progress, given the blocked tasks that are known.

    Raises:
        NotFound: the workflow does not exist.
    """
    row = session.row(_workflow, id=workflow_id)
    if row is None:
        raise NotFound.of("workflow", workflow_id)
    name, status, dag_id, limit, priority = row
    by_array = counts_by_array(session, workflow_id)
    counts: dict[str, int] = dict(sum(map(Counter, by_array.values()), Counter()))
    blocked = sum(known.catch_up(session, dag_id, by_array, monotonic).values())
    held, held_back = session.row(_held_count, id=workflow_id) or (0, 0)
    progress = explain.Progress(
        counts=counts,
        blocked=blocked,
        run=_run(session, workflow_id, now),
        limits=_all_limits(session, workflow_id, limit, by_array),
        cores=_cores(session, workflow_id),
        packed=_packed(session, workflow_id),
        held=held,
        held_back=held_back,
        calls=session.value(_calls_count, id=workflow_id),
        parents=session.value(_parents_count, id=workflow_id, taken=TAKEN),
        launch_problems=_launch_problems(session, workflow_id),
    )
    return WorkflowExplanation(
        workflow_id=workflow_id,
        name=name,
        status=status,
        counts=counts,
        blocked=blocked,
        reasons=_reasons(explain.why_workflow(progress)),
        priority=priority,
    )


@statement
def _arrays() -> Select[Any]:
    return select(a.id, a.name, a.max_concurrently_running).where(a.workflow_id == param("id")).order_by(a.id)


def _all_limits(
    session: Session, workflow_id: int, limit: int, counts: Mapping[int, Mapping[str, int]]
) -> tuple[explain.Limits, ...]:
    rows: Sequence[tuple[Any, ...]] = session.rows(_arrays, id=workflow_id)
    flying = {array_id: _in_flight(found) for array_id, found in counts.items()}
    in_flight = sum(flying.values())
    return tuple(
        explain.Limits(
            workflow=limit,
            in_flight=in_flight,
            template=template_limit,
            template_name=name,
            template_in_flight=flying.get(array_id, 0),
        )
        for array_id, name, template_limit in rows
    )


@statement
def _node() -> Select[Any]:
    return select(t.name, t.status, t.workflow_id, t.node_id).where(t.id == param("id"))


def dependencies(session: Session, task_id: int, query: DependenciesQuery) -> DependenciesResponse:
    """Return the tasks directly upstream and downstream of a task.

    Raises:
        InvalidValue: the limit is out of range.
        NotFound: the task does not exist.
    """
    if not 0 < query.limit <= NEIGHBOURS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {NEIGHBOURS_MAX}.")
    row = session.row(_node, id=task_id)
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
