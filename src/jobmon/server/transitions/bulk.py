"""Move thousands of tasks or attempts at once, in single statements guarded by the tables of `core.fsm`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.changes import StatusChange
from jobmon.core.constants import Actor, ResourceType, TaskInstanceStatus, TaskKind, TaskStatus
from jobmon.core.exceptions import ServerUnavailable
from jobmon.core.fsm import Machine
from jobmon.server.constructs import Integer, cast, false, func, select, update
from jobmon.server.counting import grouped
from jobmon.server.joins import has_live_attempt
from jobmon.server.models import task, task_array, task_instance, task_resources
from jobmon.server.problems import InvalidValue
from jobmon.server.sql import any_of, listed, param, statement, statements, unindexed
from jobmon.server.transaction import Audience
from jobmon.server.transitions.attempts import attempt_deadline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select, Update
    from sqlalchemy.sql.dml import ReturningUpdate

    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions.runs import RunRow

TI = TaskInstanceStatus

t, ti = task.c, task_instance.c
_PRIORITY_OF_ARRAY: Final = (
    select(task_array.c.priority).where(task_array.c.id == t.array_id).correlate(task).scalar_subquery()
)


def _queueable() -> list[ColumnElement[bool]]:
    """Return conditions for tasks that may be queued; the planner must look them up by ID."""
    return [
        any_of(t.id, "ids"),
        unindexed(t.workflow_id) == param("workflow"),
        any_of(unindexed(t.status), "sources"),
        unindexed(t.status_at) <= param("seen"),
        unindexed(t.held) == false(),
        unindexed(t.kind) == TaskKind.COMMAND.value,
    ]


@statement
def _queue_tasks() -> ReturningUpdate[Any]:
    """Queue tasks; return what their attempts need, and their arrays."""
    return (
        update(task)
        .values(
            status=param("queued"),
            status_at=param("stamp"),
            attempt_count=t.attempt_count + 1,
            task_resources_id=param("resources"),
        )
        .where(*_queueable())
        .returning(t.id, t.attempt_count, t.revision, t.priority + _PRIORITY_OF_ARRAY, t.array_id)
    )


_NEW_ATTEMPT: Final = (
    *("task_id", "number", "revision", "priority", "workflow_run_id", "cluster_id", "task_resources_id", "status"),
    *("queued_at", "charged", "queued_stamp"),
)


def queue_tasks(
    tx: Transaction, run: RunRow, task_ids: Sequence[int], task_resources_id: int, cluster_id: int, seen: int
) -> list[int]:
    """Move tasks to QUEUED, each with a new attempt; return those. Tasks that may not be queued are unchanged.

    So are tasks that changed after `seen`: the client does not know of that change yet.
    """
    queued, stamp = TaskStatus.QUEUED.value, tx.stamp
    values = {"ids": task_ids, "workflow": run.workflow_id, "resources": task_resources_id, "seen": seen}
    found: list[tuple[Any, ...]] = []
    # usually all tasks have the same status (never queued, or all retries), so that one update covers them
    for source in sorted(_sources(Machine.TASK, queued), key=lambda letter: letter != TaskStatus.REGISTERING):
        if len(found) < len(task_ids):
            rows = tx.rows(_queue_tasks, **values, stamp=stamp, sources=[source], queued=queued)
            tx.counts.move_each(run.workflow_id, (row[-1] for row in rows), source, queued)
            found += rows
    found.sort()  # the order of attempts is that in which they are launched
    common = run.id, cluster_id, task_resources_id, TI.QUEUED.value, tx.now, False, stamp
    tx.insert_many(task_instance, _NEW_ATTEMPT, [(*row[:4], *common) for row in found], numbered=False)
    return [row[0] for row in found]


@statement
def _claim() -> ReturningUpdate[Any]:
    """Launch attempts that are still queued; return their tasks."""
    ids = listed("ids")
    return (
        update(task_instance)
        .values(
            status=param("target"),
            batch_id=param("batch"),
            array_step_id=cast(ids.c.key, Integer) + param("first_step", Integer),
            launched_at=param("now"),
            report_by=param("deadline"),
        )
        .where(ti.id == ids.c.value, any_of(unindexed(ti.status), "sources"))
        .returning(ti.task_id)
    )


@statement
def _launch_tasks() -> ReturningUpdate[Any]:
    """Launch queued tasks; return their workflows and arrays."""
    return (
        update(task)
        .values(status=param("target"), status_at=param("stamp"))
        .where(any_of(t.id, "ids"), unindexed(t.status) == param("source"))
        .returning(t.workflow_id, t.array_id)
    )


def launch(tx: Transaction, batch_id: int, attempt_ids: Sequence[int], first_step: int = 0) -> None:
    """Claim QUEUED attempts, which are the newest of their tasks, for a batch: they become INSTANTIATED.

    All or nothing: their order is that of the batch's steps.

    Raises:
        ServerUnavailable: another server claimed some of them in the meantime; nothing is launched.
    """
    claimed = tx.column(
        _claim,
        ids=attempt_ids,
        target=TI.INSTANTIATED.value,
        batch=batch_id,
        first_step=first_step,
        now=tx.now,
        deadline=attempt_deadline(tx),
        sources=_sources(Machine.TASK_INSTANCE, TI.INSTANTIATED),
    )
    if len(claimed) != len(attempt_ids):
        raise ServerUnavailable("Another server also assigns work from this database. Retry the request.")
    _follow_launched(tx, claimed)


def _follow_launched(tx: Transaction, task_ids: Sequence[int]) -> None:
    (source,) = _sources(Machine.TASK, TaskStatus.INSTANTIATING)
    target = TaskStatus.INSTANTIATING.value
    launched = tx.rows(_launch_tasks, target=target, stamp=tx.stamp, ids=task_ids, source=source)
    for (workflow_id, array_id), number in Counter(launched).items():
        tx.counts.move(workflow_id, array_id, source, target, number)


@statement
def _claim_for_agent() -> ReturningUpdate[Any]:
    """Give an agent attempts that are still queued; return them with their tasks."""
    return (
        update(task_instance)
        .values(status=param("target"), agent_id=param("agent"), claim_key=param("claim_key"), launched_at=param("now"))
        .where(any_of(ti.id, "ids"), any_of(unindexed(ti.status), "sources"))
        .returning(ti.id, ti.task_id)
    )


def claim(tx: Transaction, agent_id: int, claim_key: int, attempt_ids: Sequence[int]) -> set[int]:
    """Claim QUEUED attempts, which are the newest of their tasks, for an agent: they become INSTANTIATED.

    Returns:
        Those that were still queued. Another server may have launched the others in the meantime.
    """
    claimed = tx.rows(
        _claim_for_agent,
        ids=attempt_ids,
        target=TI.INSTANTIATED.value,
        agent=agent_id,
        claim_key=claim_key,
        now=tx.now,
        sources=_sources(Machine.TASK_INSTANCE, TI.INSTANTIATED),
    )
    _follow_launched(tx, [task_id for _, task_id in claimed])
    return {attempt_id for attempt_id, _ in claimed}


def reset_tasks(
    tx: Transaction,
    workflow_id: int,
    after_id: int,
    last_id: int,
    *,
    keep_running: bool,
    keep_resources: bool,
    keep_done: bool = True,
) -> None:
    """Move tasks in a range of IDs to REGISTERING, with no attempts used."""
    target = TaskStatus.REGISTERING.value
    values: dict[str, Any] = {"workflow": workflow_id, "after": after_id, "last": last_id, "target": target}
    if keep_running:
        values["live"] = fsm.LIVE
    sources = set(fsm.sources(Machine.TASK, TaskStatus.REGISTERING, Actor.USER))
    if keep_done:
        sources.difference_update(fsm.SATISFIED)
    else:
        tx.run(_request_reruns, **{name: values[name] for name in ("workflow", "after", "last")}, stamp=tx.stamp)
    found = tx.rows(_resettable(keep_running), **values, sources={*sources, target})
    if not found:  # the usual case: all of them are done
        return
    changed = tx.changed(_reset_status(keep_running), **values, stamp=tx.stamp, sources=sources)
    tx.counts.move_found([row for row in found if row[2] != target], target)
    tx.run(_reset_attempts(keep_running), **values)
    if not keep_resources:
        tx.run(_reset_resources(keep_running), **values, adjusted=ResourceType.ADJUSTED.value)
    if changed:
        tx.wake(Audience.ORCHESTRATOR, workflow_id)


def _in_range(keep_running: bool) -> list[ColumnElement[bool]]:
    conditions = [t.workflow_id == param("workflow"), t.id > param("after"), t.id <= param("last")]
    return [*conditions, ~has_live_attempt("live")] if keep_running else conditions


@statements
def _resettable(keep_running: bool) -> Select[Any]:
    return grouped(*_in_range(keep_running), any_of(t.status, "sources"))


@statements
def _reset_status(keep_running: bool) -> Update:
    changes = {"status": param("target"), "status_at": param("stamp")}
    return update(task).values(changes).where(*_in_range(keep_running), any_of(t.status, "sources"))


@statement
def _request_reruns() -> Update:
    """Note that a rerun of done tasks was requested; otherwise a later change might restore their results."""
    return update(task).values(requested_at=param("stamp")).where(*_in_range(False), t.status == TaskStatus.DONE.value)


@statements
def _reset_attempts(keep_running: bool) -> Update:
    changes = {"num_attempts": 0, "uncharged_in_a_row": 0}
    return update(task).values(changes).where(*_in_range(keep_running), t.status == param("target"))


@statements
def _reset_resources(keep_running: bool) -> Update:
    """Restore the newest resource request that was not raised after a failure."""
    r = task_resources.c
    asked = (
        select(ti.task_resources_id)
        .join_from(task_instance, task_resources, r.id == ti.task_resources_id)
        .where(ti.task_id == t.id, r.kind != param("adjusted"))
        .correlate(task)
        .order_by(ti.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    raised = select(r.id).where(r.kind == param("adjusted"))
    changes = {"task_resources_id": func.coalesce(asked, t.task_resources_id)}
    return (
        update(task)
        .values(changes)
        .where(*_in_range(keep_running), t.status == param("target"), t.task_resources_id.in_(raised))
    )


def settable_status(letter: str) -> TaskStatus:
    """Return the status that a user sets for tasks.

    Raises:
        InvalidValue: a user may not set this status.
    """
    if letter not in fsm.SETTABLE:
        names = " or ".join(f"{status.value} ({status.name})" for status in fsm.SETTABLE)
        raise InvalidValue(f"status: must be {names}, not {letter!r}.")
    return TaskStatus(letter)


def _changeable() -> list[ColumnElement[bool]]:
    """Return conditions for tasks of a workflow that may change; the planner must look them up by ID."""
    of_workflow = unindexed(t.workflow_id) == param("workflow")
    return [any_of(t.id, "ids"), of_workflow, any_of(unindexed(t.status), "sources")]


@statement
def _settable() -> Select[Any]:
    return grouped(*_changeable(), ~has_live_attempt("live"))


@statements
def _set_tasks(target: TaskStatus) -> Update:
    requested = {"requested_at": param("stamp")} if target is TaskStatus.REGISTERING else {}
    return (
        update(task)
        .values(status=target.value, status_at=param("stamp"), num_attempts=0, uncharged_in_a_row=0, **requested)
        .where(*_changeable(), ~has_live_attempt("live"))
    )


def set_tasks(tx: Transaction, workflow_id: int, task_ids: Sequence[int], target: TaskStatus) -> int:
    """Set the status of tasks without a live attempt, with no attempts used; return how many changed."""
    values: dict[str, Any] = {"ids": task_ids, "workflow": workflow_id, "live": fsm.LIVE}
    values["sources"] = fsm.sources(Machine.TASK, target, Actor.USER)
    tx.counts.move_found(tx.rows(_settable, **values), target.value)
    changed = tx.changed(_set_tasks(target), **values, stamp=tx.stamp)
    if changed:
        tx.armed.release(workflow_id, tx.stamp)
        tx.wake(Audience.ORCHESTRATOR, workflow_id)
    return changed


#: What a new version does to tasks: their new status, and the only status in which it applies; None: any legal one.
_CHANGED_TO: Final = {
    StatusChange.ADD: (TaskStatus.REGISTERING, {TaskStatus.REMOVED.value}),
    StatusChange.REOPEN: (TaskStatus.REGISTERING, {TaskStatus.DONE.value}),
    StatusChange.RESTORE: (TaskStatus.DONE, None),
    StatusChange.REMOVE: (TaskStatus.REMOVED, None),
    StatusChange.SKIP: (TaskStatus.SKIPPED, None),
}


@statement
def _to_be_changed() -> Select[Any]:
    return grouped(*_changeable())


@statement
def _change_statuses() -> Update:
    return (
        update(task)
        .values(status=param("target"), status_at=param("stamp"), num_attempts=0, uncharged_in_a_row=0)
        .where(*_changeable())
    )


def change_statuses(tx: Transaction, workflow_id: int, task_ids: Sequence[int], change: StatusChange) -> int:
    """Change the status of tasks as a new version requires; return how many changed. Idempotent."""
    target, only = _CHANGED_TO[change]
    sources = fsm.sources(Machine.TASK, target, Actor.CLIENT)
    values: dict[str, Any] = {"ids": task_ids, "workflow": workflow_id}
    values["sources"] = sources if only is None else sources & only
    tx.counts.move_found(tx.rows(_to_be_changed, **values), target.value)
    return tx.changed(_change_statuses, **values, target=target.value, stamp=tx.stamp)


def _sources(machine: Machine, target: str) -> list[str]:
    return sorted(fsm.sources(machine, target))


@statement
def _submit_attempts() -> Update:
    return (
        update(task_instance)
        .values(status=param("target"), report_by=param("deadline"))
        .where(ti.batch_id == param("batch"), ti.status == param("source"))
    )


def _submitted() -> list[ColumnElement[bool]]:
    launched = select(ti.task_id).where(ti.batch_id == param("batch"), ti.status == param("launched"))
    return [t.id.in_(launched), any_of(t.status, "sources")]


@statement
def _submitted_tasks() -> Select[Any]:
    return grouped(*_submitted())


@statement
def _submit_tasks() -> Update:
    return update(task).values(status=param("target"), status_at=param("stamp")).where(*_submitted())


def submit_packed(tx: Transaction, batch_id: int) -> None:
    """Move the untaken attempts of a submitted packed batch to LAUNCHED."""
    tx.run(
        _submit_attempts,
        target=TI.LAUNCHED.value,
        deadline=attempt_deadline(tx),
        batch=batch_id,
        source=TI.INSTANTIATED.value,
    )
    values: dict[str, Any] = {"batch": batch_id, "launched": TI.LAUNCHED.value}
    values["sources"] = _sources(Machine.TASK, TaskStatus.LAUNCHED)
    tx.counts.move_found(tx.rows(_submitted_tasks, **values), TaskStatus.LAUNCHED.value)
    tx.run(_submit_tasks, **values, target=TaskStatus.LAUNCHED.value, stamp=tx.stamp)
