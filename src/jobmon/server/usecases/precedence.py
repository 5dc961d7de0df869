"""Recall attempts that have not started and would delay more urgent tasks; `core.priorities` decides which."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm, priorities
from jobmon.core.constants import Cause, TaskInstanceStatus, TaskKind
from jobmon.core.explain import room
from jobmon.server import transitions
from jobmon.server.constructs import and_, false, func, select
from jobmon.server.counting import counts_by_array
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, IS_ACTIVE_RUN, IS_NEWEST_ATTEMPT
from jobmon.server.models import task, task_array, task_instance, workflow, workflow_run
from jobmon.server.sql import any_of, param, statement, statements, unindexed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select

    from jobmon.server.transaction import Transaction

#: Maximum number of attempts that one transaction recalls.
RECALLED_MAX: Final = 10_000

t, a, w, ti = task.c, task_array.c, workflow.c, task_instance.c
#: The priority of a task: its own and that of its template.
EFFECTIVE: Final[ColumnElement[int]] = t.priority + a.priority
_TASKS_WITH_ARRAYS: Final = task.join(task_array, a.id == t.array_id)
ATTEMPTS: Final = ATTEMPTS_OF_WORKFLOW.join(task, and_(IS_NEWEST_ATTEMPT)).join(task_array, a.id == t.array_id)


def of_active_run() -> list[ColumnElement[bool]]:
    """Return conditions for attempts of the active run of a workflow."""
    return [workflow_run.c.workflow_id == param("workflow"), IS_ACTIVE_RUN]


def chosen(of_array: bool) -> ColumnElement[bool]:
    """Return a condition for the tasks of some arrays, or for tasks by ID."""
    return any_of(unindexed(t.array_id), "arrays") if of_array else any_of(t.id, "ids")


@statement
def _most_urgent_queued() -> Select[Any]:
    """Select the highest priority of the queued attempts of each cluster."""
    queued = *of_active_run(), ti.status == param("queued")
    found = select(ti.cluster_id, func.max(ti.priority)).select_from(ATTEMPTS_OF_WORKFLOW)
    return found.where(*queued).group_by(ti.cluster_id)


@statements
def _waiting_tasks(of_array: bool) -> Select[Any]:
    """Select the number and the highest priority of tasks that may be queued, by array."""
    may_be_queued = (
        *(t.workflow_id == param("workflow"), unindexed(t.status).in_(fsm.QUEUEABLE)),
        *(unindexed(t.held) == false(), unindexed(t.kind) == TaskKind.COMMAND.value),
    )
    return (
        select(t.array_id, func.count(), func.max(EFFECTIVE))
        .select_from(_TASKS_WITH_ARRAYS)
        .where(*may_be_queued, chosen(of_array))
        .group_by(t.array_id)
    )


def _unstarted() -> Select[Any]:
    """Select attempts with what decides whether they make way."""
    found = select(ti.id, ti.status, ti.cluster_id, t.array_id, EFFECTIVE, ti.launched_at, ti.priority)
    return found.select_from(ATTEMPTS).where(*of_active_run()).limit(param("most"))


@statement
def _claimed() -> Select[Any]:
    """Select the attempts that agents claimed and have not started."""
    return _unstarted().where(any_of(ti.status, "unstarted"), ti.agent_id.is_not(None))


@statement
def _less_urgent_queued() -> Select[Any]:
    """Select the queued attempts that are less urgent than a priority, the least urgent and newest first."""
    found = _unstarted().where(ti.status == param("queued"), param("than") > EFFECTIVE)
    return found.order_by(EFFECTIVE, ti.id.desc())


@statement
def _limits() -> Select[Any]:
    joined = select(a.id, a.max_concurrently_running, w.max_concurrently_running).join_from(task_array, workflow)
    return joined.where(a.workflow_id == param("workflow"))


def blocked(tx: Transaction, workflow_id: int, arrays: list[int], task_ids: list[int]) -> list[priorities.Blocked]:
    """Return those of some tasks that cannot be queued because a limit is reached.

    Args:
        tx: the transaction.
        workflow_id: the workflow.
        arrays: the arrays of the tasks; empty means `task_ids`.
        task_ids: the tasks.
    """
    full = _full_arrays(tx, workflow_id)
    if not full:
        return []
    of_tasks = {"arrays": arrays} if arrays else {"ids": task_ids}
    rows = tx.rows(_waiting_tasks(bool(arrays)), workflow=workflow_id, **of_tasks)
    return [
        priorities.Blocked(array_id, number, priority, full[array_id])
        for array_id, number, priority in rows
        if array_id in full
    ]


def make_way(tx: Transaction, workflow_id: int, hindered: Sequence[priorities.Blocked] = ()) -> int:
    """Recall attempts that have not started and are less urgent than queued or blocked ones; return their number.

    Args:
        tx: the transaction.
        workflow_id: the workflow.
        hindered: tasks that cannot be queued because a limit is reached.
    """
    of_run = {"workflow": workflow_id}
    queued = of_run | {"queued": TaskInstanceStatus.QUEUED.value}
    rows = tx.rows(_claimed, **of_run, unstarted=fsm.UNSTARTED, most=RECALLED_MAX)
    attempts = [_attempt(row, (row[5], -row[6], row[0])) for row in rows]
    if hindered:
        less = tx.rows(_less_urgent_queued, **queued, than=max(one.priority for one in hindered), most=RECALLED_MAX)
        attempts += [_attempt(row, None) for row in less]
        rows += less
    if not attempts:
        return 0
    ids = priorities.to_recall(attempts, dict(tx.rows(_most_urgent_queued, **queued)), hindered)
    return recall(tx, workflow_id, [row[:2] for row in rows if row[0] in ids]) if ids else 0


def _attempt(row: Sequence[Any], position: tuple[int, ...] | None) -> priorities.Unstarted:
    return priorities.Unstarted(row[0], row[2], row[3], row[4], position)


def recall(tx: Transaction, workflow_id: int, rows: Sequence[tuple[Any, ...]]) -> int:
    """Recall attempts that have not started, given with their status; return their number."""
    moves = transitions.AttemptMoves(tx, [row[0] for row in rows])
    for attempt_id, status in rows:
        is_queued = status == TaskInstanceStatus.QUEUED
        target = TaskInstanceStatus.ERROR if is_queued else TaskInstanceStatus.KILL_SELF
        moves.move(attempt_id, target, cause=Cause.KILLED)
    recalled = moves.write()
    transitions.end_untaken(tx, workflow_id, Cause.KILLED)
    return recalled


def _full_arrays(tx: Transaction, workflow_id: int) -> dict[int, bool]:
    """Return the arrays of which no more tasks can be queued, and whether that is because of their own limit."""
    flying = Counter(
        {
            array_id: sum(number for status, number in counts.items() if status in fsm.IN_FLIGHT)
            for array_id, counts in counts_by_array(tx, workflow_id).items()
        }
    )
    found = {}
    for array_id, limit, workflow_limit in tx.rows(_limits, workflow=workflow_id):
        is_array_full = not room(limit, flying[array_id])
        if is_array_full or not room(workflow_limit, flying.total()):
            found[array_id] = is_array_full
    return found
