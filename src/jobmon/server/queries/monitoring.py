"""Read workflows, tasks, attempts, errors and output for display to users."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal

from jobmon.core import fsm
from jobmon.core.constants import TaskInstanceStatus, TaskKind, TaskStatus, WorkflowStatus
from jobmon.core.expansions import CALL_FAILED
from jobmon.core.outcomes import OUTCOMES, status_name
from jobmon.core.texts import SHOWN_CHARACTERS_MAX, shortened
from jobmon.core.wire.monitoring import (
    AttemptDetail,
    LogTail,
    TaskDetail,
    TaskSummariesResponse,
    TaskSummary,
    WorkflowsResponse,
    WorkflowSummary,
)
from jobmon.core.wire.swarm import ErrorsResponse, TaskError
from jobmon.server.constructs import (
    BigInteger,
    Boolean,
    and_,
    cast,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
)
from jobmon.server.counting import counts_by_array
from jobmon.server.joins import (
    ATTEMPTS_OF_WORKFLOW,
    ATTEMPTS_WITH_TASKS,
    IS_FATAL,
    IS_IN_WORKFLOW,
    IS_NEWEST_ATTEMPT,
    WORKFLOWS_WITH_TOOLS,
    newest_run,
)
from jobmon.server.models import (
    IS_EXPANSION,
    argument,
    cluster,
    expansion,
    node_arg,
    queue,
    status_count,
    task,
    task_array,
    task_instance,
    task_resources,
    tool,
    workflow,
    workflow_run,
)
from jobmon.server.models import log_tail as log_tails
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries import importance
from jobmon.server.queries.matching import name_matches
from jobmon.server.queries.presence import require
from jobmon.server.queries.repeated import repeated
from jobmon.server.sql import Statement, any_of, param, statement, statements, unindexed
from jobmon.server.times import to_datetime, to_microseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, CompoundSelect, FromClause, Select

    from jobmon.server.kept import Kept
    from jobmon.server.queries.waiting import Waiting
    from jobmon.server.sql import Session

ROWS_MAX: Final = 10_000

t, ti, w, r = task.c, task_instance.c, workflow.c, workflow_run.c
#: Whether a task is an expansion, in the words of their index.
_IS_GROWN: Final = literal_column(f"grown.kind = '{TaskKind.EXPANSION.value}'", Boolean())


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowsQuery:
    """Which workflows to return, newest first.

    Args:
        workflow_id: only workflows with these IDs; empty: any.
        user: only workflows of these users; empty: of any user.
        status: only workflows with one of these letters, or names in `core.outcomes`; empty: any.
        name: search word for the name; "": any.
        args: search word for the workflow_args; "": any.
        before: only workflows with IDs below it.
        unchanged_since: only workflows whose status has not changed since then.
        counts: whether to count tasks and attempts.
        limit: maximum number of workflows to return.
        total: whether to count all matching workflows.
    """

    workflow_id: list[int] = field(default_factory=list)
    user: list[str] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    name: str = ""
    before: int | None = None
    unchanged_since: datetime | None = None
    counts: bool = True
    limit: int = 100
    args: str = ""
    total: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksQuery:
    """Which tasks of a workflow to return, by ID.

    Args:
        status: only tasks with one of these statuses; empty: any.
        array: search word for the name of the template; "": any.
        name: search word for the name of the task; "": any.
        host: only tasks whose newest attempt was on this host; "": any.
        after: only tasks with IDs above it.
        limit: maximum number of tasks to return.
        args: whether to return the node args.
        total: whether to count all matching tasks.
        order: by ID, or the most important ones first; see `queries.importance`.
        rank: in the latter order, begin with this rank; `after` applies to its tasks only.
    """

    status: list[str] = field(default_factory=list)
    array: str = ""
    name: str = ""
    host: str = ""
    after: int = 0
    limit: int = 1_000
    args: bool = False
    total: bool = False
    order: Literal["id", "importance"] = "id"
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorsQuery:
    """Which failed attempts: at most `limit`, of the `tasks` that failed last (None: all), or of FATAL tasks only."""

    limit: int = 1_000
    tasks: int | None = None
    permanent: bool = False


def _checked(limit: int, name: str = "limit") -> int:
    if not 0 < limit <= ROWS_MAX:
        raise InvalidValue(f"{name}: must be from 1 to {ROWS_MAX}.")
    return limit


def _time(stored: int | None) -> datetime | None:
    return None if stored is None else to_datetime(stored)


_LISTED: Final = WORKFLOWS_WITH_TOOLS.outerjoin(workflow_run, r.id == newest_run(w.id))


def _that_match(query: WorkflowsQuery, *, is_limited: bool) -> list[ColumnElement[bool]]:
    conditions = [w.id > 0, name_matches(w.name, query.name)]  # the first makes SQLite read by ID, from the newest
    if query.args:
        conditions.append(name_matches(w.workflow_args, query.args))
    if query.workflow_id:
        conditions.append(any_of(w.id, "ids"))
    if query.user:
        conditions.append(any_of(w.user_name, "users"))
    if query.status:
        _check_statuses(query.status, (*WorkflowStatus, *OUTCOMES))
        conditions.append(or_(any_of(w.status, "statuses"), *_outcomes(query.status)))
    if is_limited:
        conditions.append(any_of(w.user_name, "readable"))
    if query.before is not None:
        conditions.append(w.id < query.before)
    if query.unchanged_since:
        conditions.append(w.status_at <= to_microseconds(query.unchanged_since))
    return conditions


def _workflows(query: WorkflowsQuery, *, is_limited: bool) -> Select[Any]:
    return (
        select(
            *(w.id, w.name, w.workflow_args, tool.c.name, w.user_name, w.status, w.created_at, w.status_at),
            *(w.task_count, r.id, r.status, r.end_reason, r.created_at, r.status_at, w.priority),
        )
        .select_from(_LISTED)
        .where(*_that_match(query, is_limited=is_limited))
        .order_by(w.id.desc())
        .limit(param("most"))
    )


def _count_of_workflows(query: WorkflowsQuery, *, is_limited: bool) -> Select[Any]:
    return select(func.count()).select_from(_LISTED).where(*_that_match(query, is_limited=is_limited))


def usual_lists() -> Iterator[Statement]:
    """Return the statements of the usual lists: workflows by user or ID, and tasks by status."""
    for user, workflow_id in product(([], [""]), ([], [0])):
        query = WorkflowsQuery(user=user, workflow_id=workflow_id)
        for build in (_workflows, _count_of_workflows):
            yield Statement(partial(build, query, is_limited=False))
    statuses: tuple[list[str], ...] = ([], [TaskStatus.DONE], [TaskStatus.ERROR_FATAL])
    for status in statuses:
        yield Statement(partial(_tasks_of, TasksQuery(status=status)))


def _outcomes(names: Sequence[str]) -> list[ColumnElement[bool]]:
    """Return a condition for each name that means a FAILED workflow whose run ended in a certain way."""
    wanted = [OUTCOMES[name] for name in names if name in OUTCOMES]
    return [
        and_(
            w.status == WorkflowStatus.FAILED.value,
            r.status == status.value,
            r.end_reason == reason.value if reason else true(),
        )
        for status, reason in wanted
    ]


def workflows(session: Session, query: WorkflowsQuery, readable: frozenset[str] | None = None) -> WorkflowsResponse:
    """Return the newest workflows with their counts.

    Args:
        session: reads the database.
        query: which workflows to return.
        readable: the users whose workflows the reader may see; None: everybody's.

    Raises:
        InvalidValue: the limit is out of range, or a status does not exist.
    """
    is_limited = readable is not None
    values = {"ids": query.workflow_id, "users": query.user, "statuses": query.status, "readable": readable or ()}
    listed = repeated(f"workflows {query} {is_limited}", lambda: _workflows(query, is_limited=is_limited))
    rows = session.rows(listed, **values, most=_checked(query.limit))
    counts, attempts = _counts(session, [row[0] for row in rows] if query.counts else [])
    found = [_workflow(row, counts[row[0]], attempts[row[0]]) for row in rows]
    total = None
    if query.total:
        total = session.value(_count_of_workflows(query, is_limited=is_limited), **values)
    return WorkflowsResponse(workflows=found, total=total)


@statement
def _task_counts() -> Select[Any]:
    c = status_count.c
    wanted = any_of(c.workflow_id, "ids"), c.status != TaskStatus.REMOVED.value, c.number > 0
    number = cast(func.sum(c.number), BigInteger)
    return select(c.workflow_id, c.status, number).where(*wanted).group_by(c.workflow_id, c.status)


@statement
def _attempt_counts() -> Select[Any]:
    of_workflow = workflow_run.c.workflow_id
    return (
        select(of_workflow, func.count())
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(any_of(of_workflow, "ids"))
        .group_by(of_workflow)
    )


def _counts(session: Session, workflow_ids: Sequence[int]) -> tuple[dict[int, dict[str, int]], dict[int, int]]:
    """Count tasks by status, and attempts, of some workflows; both are read only from indexes."""
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for workflow_id, status, count in session.rows(_task_counts, ids=workflow_ids):
        counts[workflow_id][status] = count
    return counts, defaultdict(int, session.rows(_attempt_counts, ids=workflow_ids))


def _workflow(row: Sequence[Any], counts: dict[str, int], attempt_count: int) -> WorkflowSummary:
    return WorkflowSummary(
        workflow_id=row[0],
        name=row[1],
        workflow_args=row[2],
        tool_name=row[3],
        user=row[4],
        status=row[5],
        created_at=to_datetime(row[6]),
        status_at=to_datetime(row[7]),
        counts=counts,
        task_count=row[8],
        attempt_count=attempt_count,
        last_workflow_run_id=row[9],
        status_name=status_name(row[5], row[10], row[11]),
        last_run_seconds=_seconds_of_run(*row[10:14]),
        priority=row[14],
    )


def _seconds_of_run(status: str | None, _end_reason: str | None, began: Any, ended: Any) -> float | None:
    if status is None or not fsm.is_terminal(fsm.Machine.WORKFLOW_RUN, status):
        return None
    return (to_datetime(ended) - to_datetime(began)).total_seconds()


def _tasks() -> Select[Any]:
    a = task_array.c
    return select(
        *(t.id, t.name, t.status, t.num_attempts, t.max_attempts, t.command, a.name, t.status_at, t.workflow_id),
        *(t.node_id, t.held, t.priority + a.priority),
    ).join_from(task, task_array, a.id == t.array_id)


def _task(row: Sequence[Any], node_args: dict[str, str] | None = None) -> TaskSummary:
    return TaskSummary(
        task_id=row[0],
        name=row[1],
        status=row[2],
        num_attempts=row[3],
        max_attempts=row[4],
        command=row[5],
        array_name=row[6],
        status_at=to_datetime(row[7]),
        node_args=node_args or {},
        held=bool(row[10]),
        priority=row[11],
    )


def _check_statuses(given: Iterable[str], known: Sequence[str]) -> None:
    """Reject statuses that do not exist: none would match, as if there were nothing to find.

    Raises:
        InvalidValue: one does not exist.
    """
    for status in given:
        if status not in known:
            shown = shortened(repr(status), SHOWN_CHARACTERS_MAX)
            raise InvalidValue(f"status: {shown} is not one of {', '.join(known)}.")


def _tasks_that_match(query: TasksQuery) -> list[ColumnElement[bool]]:
    """Return the conditions of a query, whose parameters are those of `_values_of`."""
    _check_statuses(query.status, tuple(TaskStatus))
    are_fatal = query.status == [TaskStatus.ERROR_FATAL]
    conditions = [
        t.workflow_id == param("workflow"),
        (unindexed(t.id) if are_fatal else t.id)
        > param("after"),  # SQLite then reads the index of failed tasks in order
        name_matches(task_array.c.name, query.array),
        name_matches(t.name, query.name),
    ]
    conditions.append(any_of(t.status, "statuses") if query.status else IS_IN_WORKFLOW)
    if query.status == [TaskStatus.ERROR_FATAL]:
        conditions.append(IS_FATAL)
    if query.host:
        conditions.append(select(ti.id).where(IS_NEWEST_ATTEMPT, ti.host == query.host).correlate(task).exists())
    return conditions


def _values_of(workflow_id: int, query: TasksQuery) -> dict[str, Any]:
    return {"workflow": workflow_id, "after": query.after, "statuses": query.status}


def _tasks_of(query: TasksQuery) -> Select[Any]:
    return _tasks().where(*_tasks_that_match(query)).order_by(t.id).limit(param("most"))


def matching_ids(session: Session, workflow_id: int, query: TasksQuery, most: int) -> list[int]:
    """Return the IDs of the first tasks that match a query."""
    found = (
        select(t.id)
        .join_from(task, task_array, task_array.c.id == t.array_id)
        .where(*_tasks_that_match(query))
        .order_by(t.id)
        .limit(most)
    )
    return list(session.column(found, **_values_of(workflow_id, query)))


@statement
def _node_args() -> Select[Any]:
    x = node_arg.c
    joined = select(x.node_id, argument.c.name, x.value).join_from(node_arg, argument, argument.c.id == x.argument_id)
    return joined.where(any_of(x.node_id, "nodes")).order_by(x.node_id, argument.c.name)


def task_summaries(session: Session, workflow_id: int, query: TasksQuery, kept: Kept) -> TaskSummariesResponse:
    """Return tasks of a workflow by ID, or the most important ones first.

    Args:
        session: the session to read with; it has read nothing yet.
        workflow_id: ID of the workflow.
        query: which tasks to return.
        kept: from which task on there are tasks that wait.

    Raises:
        InvalidValue: the limit is out of range, or a status does not exist.
        NotFound: the workflow does not exist.
    """
    if query.order == "importance":
        is_search = query.name or query.array or query.host  # that may take long, and others do not wait for it
        with contextlib.nullcontext() if is_search else kept.waiting(workflow_id) as waiting:
            require(session, "workflow", workflow_id)
            rows = _most_important(session, workflow_id, query, waiting)
    else:
        require(session, "workflow", workflow_id)
        rows = session.rows(_tasks_of(query), **_values_of(workflow_id, query), most=_checked(query.limit))
    node_args: dict[int, dict[str, str]] = defaultdict(dict)
    for node_id, name, value in session.rows(_node_args, nodes=[row[9] for row in rows]) if query.args else ():
        node_args[node_id][name] = value
    return TaskSummariesResponse(
        tasks=[_task(row, node_args.get(row[9])) for row in rows],
        total=_total(session, workflow_id, query, len(rows)) if query.total else None,
        rank=importance.rank_of(rows[-1][2], held=bool(rows[-1][10])) if rows else query.rank,
    )


def _most_important(
    session: Session, workflow_id: int, query: TasksQuery, waiting: Waiting | None
) -> list[tuple[Any, ...]]:
    limit = _checked(query.limit)
    if query.name:
        rank_of = importance.rank_column()
        beyond = or_(rank_of > query.rank, and_(rank_of == query.rank, t.id > query.after))
        matching = _tasks_that_match(query)
        found = _tasks().where(*matching, beyond).order_by(rank_of, unindexed(t.id)).limit(limit)
        return session.rows(found, **_values_of(workflow_id, replace(query, after=0)))
    statuses = {status for counts in counts_by_array(session, workflow_id).values() for status in counts}
    rows: list[tuple[Any, ...]] = []
    for rank in importance.present(statuses, query.status, query.rank):
        if len(rows) == limit:
            break
        here = replace(query, after=query.after if rank == query.rank else 0)
        if rank is importance.Rank.FAILED:
            here = replace(here, status=[TaskStatus.ERROR_FATAL])
        values = _values_of(workflow_id, here)
        if waiting is not None and rank is importance.Rank.WAITING:
            values["after"] = max(here.after, waiting.first(session) - 1)
        every = replace(here, after=0)
        ranked = repeated(f"tasks {every} {rank}", partial(_tasks_of_rank, every, rank))
        rows += session.rows(ranked, **values, most=limit - len(rows))
    return rows


def _tasks_of_rank(query: TasksQuery, rank: importance.Rank) -> Select[Any]:
    matching = _tasks().where(*_tasks_that_match(query), importance.is_of(rank))
    if rank is importance.Rank.RUNNING:  # tasks are in no index by status, attempts are
        matching = matching.where(t.id.in_(_launched()))
    return matching.order_by(unindexed(t.id) if rank in importance.RARE else t.id).limit(param("most"))


def _launched() -> CompoundSelect[Any]:
    """Select the tasks of a workflow with an attempt that was handed out, and the expansions."""
    grown = task.alias("grown").c
    runs = select(r.id).where(r.workflow_id == param("workflow"))
    return union_all(
        select(ti.task_id).where(ti.workflow_run_id.in_(runs), ti.status.in_(fsm.TAKEN)),
        select(grown.id).where(grown.workflow_id == param("workflow"), _IS_GROWN),
    )


def _total(session: Session, workflow_id: int, query: TasksQuery, shown: int) -> int:
    """Count the tasks that match a query beyond this page, too; those of a status are counted already."""
    if shown < query.limit and not (query.after or query.rank):
        return shown
    every = replace(query, after=0) if query.order == "importance" else query
    if every.after or query.name or query.array or query.host or TaskStatus.REMOVED.value in query.status:
        matching = (
            select(func.count())
            .join_from(task, task_array, task_array.c.id == t.array_id)
            .where(*_tasks_that_match(every))
        )
        return int(session.value(matching, **_values_of(workflow_id, every)))
    return sum(
        number
        for counts in counts_by_array(session, workflow_id).values()
        for status, number in counts.items()
        if not query.status or status in query.status
    )


_BY_ID = statement(lambda: _tasks().where(t.id == param("id")))


def task_detail(session: Session, task_id: int) -> TaskDetail:
    """Return a task with all its attempts.

    Raises:
        NotFound: the task does not exist.
    """
    row = session.row(_BY_ID, id=task_id)
    if row is None:
        raise NotFound.of("task", task_id)
    calls = session.rows(_failed_calls(of_workflow=False), id=task_id, most=1)
    return TaskDetail(
        task=_task(row),
        workflow_id=row[8],
        attempts=attempts_of(session, [task_id])[task_id],
        error=calls[0][6] if calls else None,
    )


@statement
def _attempts() -> Select[Any]:
    r, q, c = task_resources.c, queue.c, cluster.c
    joined = (
        task_instance.join(task_resources, r.id == ti.task_resources_id)
        .join(queue, q.id == r.queue_id)
        .join(cluster, c.id == ti.cluster_id)
    )
    return (
        select(
            *(ti.id, ti.task_id, ti.workflow_run_id, ti.number, ti.status, c.name, q.name, ti.distributor_id, ti.host),
            *(ti.pid, ti.queued_at, ti.launched_at, ti.started_at, ti.ended_at, ti.exit_code, ti.exit_signal),
            *(ti.cause, ti.error, ti.charged, ti.stdout, ti.stderr, ti.wallclock_seconds, ti.cpu_seconds),
            *(ti.max_rss_bytes, r.requested, r.kind, r.original, ti.read_bytes, ti.written_bytes),
        )
        .select_from(joined)
        .where(any_of(ti.task_id, "tasks"))
        .order_by(ti.task_id, ti.number)
    )


def attempts_of(session: Session, task_ids: Sequence[int]) -> dict[int, list[AttemptDetail]]:
    """Return all attempts of some tasks, oldest first."""
    found: dict[int, list[AttemptDetail]] = defaultdict(list)
    for row in session.rows(_attempts, tasks=task_ids):
        found[row[1]].append(_attempt(row))
    return found


def _attempt(row: Sequence[Any]) -> AttemptDetail:
    return AttemptDetail(
        task_instance_id=row[0],
        task_id=row[1],
        workflow_run_id=row[2],
        number=row[3],
        status=row[4],
        cluster_name=row[5],
        queue_name=row[6],
        distributor_id=row[7],
        host=row[8],
        pid=row[9],
        queued_at=to_datetime(row[10]),
        launched_at=_time(row[11]),
        started_at=_time(row[12]),
        ended_at=_time(row[13]),
        exit_code=row[14],
        signal=row[15],
        cause=row[16],
        error=row[17],
        charged=bool(row[18]),
        stdout=row[19],
        stderr=row[20],
        wallclock_seconds=row[21],
        cpu_seconds=row[22],
        max_rss_bytes=row[23],
        requested_resources=json.loads(row[24]),
        request_kind=row[25],
        original_resources=json.loads(row[26]) if row[26] else None,
        read_bytes=row[27],
        written_bytes=row[28],
    )


@statement
def _output() -> Select[Any]:
    return (
        select(log_tails.c.text, ti.stdout, ti.stderr)
        .select_from(task_instance.outerjoin(log_tails, log_tails.c.task_instance_id == ti.id))
        .where(ti.id == param("id"))
    )


def log_tail(session: Session, task_instance_id: int) -> LogTail:
    """Return the end of an attempt's output; "" if there was none.

    Raises:
        NotFound: the attempt does not exist.
    """
    row = session.row(_output, id=task_instance_id)
    if row is None:
        raise NotFound.of("attempt", task_instance_id)
    return LogTail(task_instance_id=task_instance_id, text=row[0] or "", stdout=row[1], stderr=row[2])


_ATTEMPTS_OF_RUNS: Final = ATTEMPTS_WITH_TASKS.join(workflow_run, workflow_run.c.id == ti.workflow_run_id)


def _failed(attempts: FromClause) -> Select[Any]:
    return (
        select(ti.task_id, t.name, ti.id, ti.status, ti.ended_at, ti.cause, ti.error, ti.exit_code, ti.host, t.status)
        .select_from(attempts)
        .where(ti.status.in_(fsm.FAILED), ti.charged)
        .limit(param("most"))
    )


def _of_workflow(*, permanent: bool) -> ColumnElement[bool]:
    of_workflow = workflow_run.c.workflow_id == param("id")
    return and_(of_workflow, t.status == TaskStatus.ERROR_FATAL.value) if permanent else of_workflow


@statements
def _tasks_that_failed_last(*, permanent: bool) -> Select[Any]:
    return (
        select(ti.task_id)
        .select_from(_ATTEMPTS_OF_RUNS)
        .where(_of_workflow(permanent=permanent), ti.status.in_(fsm.FAILED), ti.charged)
        .group_by(ti.task_id)
        .order_by(func.max(ti.ended_at).desc().nulls_last(), func.max(ti.id).desc())
        .limit(param("most"))
    )


@statements
def _errors_of_workflow(*, permanent: bool, of_tasks: bool) -> Select[Any]:
    found = _failed(_ATTEMPTS_OF_RUNS).where(_of_workflow(permanent=permanent))
    if of_tasks:
        found = found.where(any_of(ti.task_id, "tasks"))
    return found.order_by(ti.ended_at.desc().nulls_last(), ti.id.desc())


def workflow_errors(session: Session, workflow_id: int, query: ErrorsQuery) -> ErrorsResponse:
    """Return the newest failed attempts of a workflow; attempts that are not charged are not failures.

    Raises:
        InvalidValue: the limit is out of range, or a status does not exist.
        NotFound: the workflow does not exist.
    """
    require(session, "workflow", workflow_id)
    most, permanent = _checked(query.limit), query.permanent
    calls = session.rows(_failed_calls(of_workflow=True), id=workflow_id, most=most)
    calls = [row for row in calls if not permanent or row[-1] == TaskStatus.ERROR_FATAL]
    if query.tasks is None:
        errors = _errors_of_workflow(permanent=permanent, of_tasks=False)
        return _errors([*calls, *session.rows(errors, id=workflow_id, most=most)][:most])
    tasks_max = _checked(query.tasks, "tasks")
    newest = session.column(_tasks_that_failed_last(permanent=permanent), id=workflow_id, most=tasks_max)
    errors = _errors_of_workflow(permanent=permanent, of_tasks=True)
    return _errors([*calls, *session.rows(errors, id=workflow_id, most=most, tasks=newest)][:most])


@statements
def _failed_calls(*, of_workflow: bool) -> Select[Any]:
    """Select the expansions whose newest call failed, in the form of failed attempts without an ID."""
    e, nothing = expansion.c, null()
    status, cause = literal(TaskInstanceStatus.ERROR.value), literal(CALL_FAILED)
    which = (t.workflow_id == param("id"), IS_EXPANSION) if of_workflow else (t.id == param("id"),)
    return (
        select(t.id, t.name, literal(0), status, e.called_at, cause, e.error, nothing, nothing, t.status)
        .join_from(task, expansion, e.task_id == t.id)
        .where(*which, e.error.is_not(None))
        .order_by(e.called_at.desc())
        .limit(param("most"))
    )


@statement
def _errors_of_task() -> Select[Any]:
    return _failed(ATTEMPTS_WITH_TASKS).where(ti.task_id == param("id")).order_by(ti.number.desc())


def task_errors(session: Session, task_id: int, query: ErrorsQuery) -> ErrorsResponse:
    """Return the failed attempts of a task, newest first.

    Raises:
        InvalidValue: the limit is out of range, or a status does not exist.
        NotFound: the task does not exist.
    """
    require(session, "task", task_id)
    most = _checked(query.limit)
    calls = session.rows(_failed_calls(of_workflow=False), id=task_id, most=most)
    return _errors([*calls, *session.rows(_errors_of_task, id=task_id, most=most)])


def _errors(rows: Sequence[Sequence[Any]]) -> ErrorsResponse:
    return ErrorsResponse(
        errors=[
            TaskError(
                task_id=row[0],
                task_name=row[1],
                task_instance_id=row[2],
                status=row[3],
                time=to_datetime(row[4] or 0),
                cause=row[5],
                error=row[6] or "",
                exit_code=row[7],
                host=row[8],
                task_status=row[9],
            )
            for row in rows
        ]
    )
