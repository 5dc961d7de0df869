"""Expansions: note calls of their functions, and apply what these add to the workflow.

What a function returned is a version of the workflow (`versions`). Its tasks become upstream tasks of everything that
waits for the expansion, except of what the expansion itself added: fan-in. A nested expansion is added like a task, and
everything that waits for the outer one therefore waits for it, too; so no ancestors need to be looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import Actor, TaskKind, TaskStatus
from jobmon.core.exceptions import DuplicateNodeArgsError, StaleRun
from jobmon.core.wire.expanding import ERROR_CHARACTERS_MAX, CallFailedRequest, CallRequest, CallResponse
from jobmon.server import transitions
from jobmon.server.constructs import delete, or_, select, update, upsert
from jobmon.server.joins import IS_IN_WORKFLOW
from jobmon.server.models import (
    expansion,
    node,
    task,
    task_template,
    task_template_version,
    upstream_set,
    upstream_set_member,
    workflow,
)
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.times import to_microseconds
from jobmon.server.usecases.runs import require_run

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Delete, Insert, Select, Update

    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions import RunRow

#: Later than any stamp, microseconds.
_FAR_FUTURE: Final = 1 << 62
#: Maximum depth of expansions that were added by expansions, when all of them are removed.
_DEPTH_MAX: Final = 100_000

t, e, u, m = task.c, expansion.c, upstream_set.c, upstream_set_member.c


# -- calls -------------------------------------------------------------------------------------------------------------


@statement
def _expansion_by_id() -> Select[Any]:
    columns = (t.workflow_id, t.kind, t.status, t.revision, e.workflow_run_id, e.calls)
    return select(*columns).outerjoin_from(task, expansion, e.task_id == t.id).where(t.id == param("id"))


@statement
def _note_call() -> Insert:
    values = {name: param(name) for name in ("task_id", "workflow_run_id", "calls", "called_at", "revision")}
    added = upsert(expansion).values(values | {"done_at": None, "error": None})
    names = ("workflow_run_id", "calls", "called_at", "done_at", "revision", "error")
    return added.on_conflict_do_update(index_elements=[e.task_id], set_={name: added.excluded[name] for name in names})


@statement
def _set_error() -> Update:
    return update(expansion).values(error=param("error")).where(e.task_id == param("id"))


@statement
def _set_done() -> Update:
    return update(expansion).values(done_at=param("stamp")).where(e.task_id == param("id"))


def _require_expansion(tx: Transaction, run: RunRow, task_id: int) -> tuple[str, int, int | None, int]:
    """Return status and revision of an expansion, and run and number of its calls.

    Raises:
        NotFound: the workflow of the run has no such expansion.
    """
    row = tx.row(_expansion_by_id, id=task_id)
    if row is None or row[0] != run.workflow_id or row[1] != TaskKind.EXPANSION:
        raise NotFound.of(f"expansion of workflow {run.workflow_id} with id", task_id)
    return row[2], row[3], row[4], row[5] or 0


def require_leading(tx: Transaction, run_id: int, workflow_id: int | None = None) -> RunRow:
    """Return a run that may change its workflow while it is active.

    Raises:
        StaleRun: a newer run exists, or this run is over or was told to make way.
    """
    run = require_run(tx, run_id)
    if not run.may_queue or workflow_id not in (None, run.workflow_id):
        raise StaleRun(f"Workflow run {run.id} has status {run.status} or was replaced; it may no longer add tasks.")
    return run


def call(tx: Transaction, run_id: int, task_id: int, request: CallRequest) -> CallResponse:
    """Note that the function of an expansion is about to be called. Idempotent.

    Raises:
        StaleRun: a newer run exists, or this run is over or was told to make way.
        NotFound: the run or the expansion does not exist.
    """
    run = require_leading(tx, run_id)
    status, revision, caller, calls = _require_expansion(tx, run, task_id)
    if status == TaskStatus.RUNNING and caller == run_id:
        return CallResponse(status=status, calls=calls)
    seen = _FAR_FUTURE if request.seen is None else to_microseconds(request.seen)
    if not transitions.call_expansion(tx, run.workflow_id, task_id, seen):
        return CallResponse(status=status, calls=calls)
    calls += 1
    tx.run(_note_call, task_id=task_id, workflow_run_id=run_id, calls=calls, called_at=tx.stamp, revision=revision)
    return CallResponse(status=TaskStatus.RUNNING.value, calls=calls)


def call_failed(tx: Transaction, run_id: int, task_id: int, request: CallFailedRequest) -> CallResponse:
    """Record that the function of an expansion failed. Idempotent.

    Raises:
        NotFound: the run or the expansion does not exist.
    """
    run = require_run(tx, run_id)
    status, _, caller, calls = _require_expansion(tx, run, task_id)
    if status != TaskStatus.RUNNING or caller != run_id:
        return CallResponse(status=status, calls=calls)
    target = TaskStatus.ERROR_FATAL if request.is_final else TaskStatus.REGISTERING
    transitions.move_expansion(tx, run.workflow_id, task_id, target)
    tx.run(_set_error, id=task_id, error=request.error[-ERROR_CHARACTERS_MAX:])
    tx.audit(Actor.CLIENT, "expansion failed", run.workflow_id, run=run_id, task=task_id, final=request.is_final)
    return CallResponse(status=target.value, calls=calls)


# -- what a version of an expansion does -------------------------------------------------------------------------------


@statement
def _not_new() -> Select[Any]:
    """Select a task that is in a workflow already, with its template."""
    v, p = task_template_version.c, task_template.c
    return (
        select(t.name, p.name, t.origin_id, t.kind)
        .join_from(task, node, node.c.id == t.node_id)
        .join(task_template_version, v.id == node.c.task_template_version_id)
        .join(task_template, p.id == v.task_template_id)
        .where(
            t.workflow_id == param("workflow"),
            node.c.task_template_version_id == param("version"),
            any_of(node.c.hash, "hashes"),
            t.status != TaskStatus.REMOVED.value,
        )
        .limit(1)
    )


def require_new(tx: Transaction, workflow_id: int, version_id: int, node_hashes: Sequence[str]) -> None:
    """Refuse to add tasks that are in the workflow already.

    Raises:
        DuplicateNodeArgsError: one of them is.
    """
    row = tx.row(_not_new, workflow=workflow_id, version=version_id, hashes=node_hashes)
    if row is not None:
        by = "the script defines it" if row[2] is None else f"expansion {row[2]} added it"
        if row[3] == TaskKind.EXPANSION:
            raise DuplicateNodeArgsError(
                f"Expansion {row[0]!r} is already in workflow {workflow_id}: {by}. Give each expansion its own name:"
                " context.expand(function, after, name=...)."
            )
        raise DuplicateNodeArgsError(
            f"Task {row[0]!r} of template {row[1]!r} is already in workflow {workflow_id}: {by}. Return tasks with"
            " other node args."
        )


@statement
def _set_origin() -> Update:
    return update(task).values(origin_id=param("origin")).where(any_of(t.id, "ids"))


def set_origin(tx: Transaction, expansion_id: int, task_ids: Sequence[int]) -> None:
    """Note which expansion adds tasks."""
    tx.run(_set_origin, origin=expansion_id, ids=task_ids)


@statement
def _waiting_sets() -> Select[Any]:
    """Select the sets of upstream tasks that contain an expansion, except those of the tasks that it added."""
    w, own = workflow.c, task.alias("own")
    dag_id = select(w.dag_id).where(w.id == param("workflow")).scalar_subquery()
    return (
        select(u.id)
        .join_from(own, upstream_set_member, m.node_id == own.c.node_id)
        .join(upstream_set, u.id == m.upstream_set_id)
        .where(
            own.c.id == param("expansion"),
            unindexed(u.dag_id) == dag_id,
            or_(u.origin_id.is_(None), u.origin_id != param("expansion")),
        )
        .order_by(u.id)
    )


@statement
def _nodes_of_tasks() -> Select[Any]:
    return select(t.node_id).where(any_of(t.id, "ids"))


def fan_in(tx: Transaction, workflow_id: int, expansion_id: int, task_ids: Sequence[int]) -> None:
    """Make everything that waits for an expansion wait for tasks that it added, too. Idempotent."""
    sets = tx.column(_waiting_sets, workflow=workflow_id, expansion=expansion_id)
    nodes = tx.column(_nodes_of_tasks, ids=task_ids) if sets else []
    rows = [(set_id, node_id) for set_id in sets for node_id in nodes]
    tx.insert_many(upstream_set_member, ("upstream_set_id", "node_id"), rows, ignore=True)


@statement
def _add_to_count() -> Update:
    w = workflow.c
    return (
        update(workflow).values(task_count=w.task_count + param("number", w.task_count.type)).where(w.id == param("id"))
    )


def count_tasks(tx: Transaction, workflow_id: int, number: int) -> None:
    """Note how many tasks an expansion has added; a negative number: removed."""
    tx.run(_add_to_count, number=number, id=workflow_id)


@statement
def _leave_sets() -> Delete:
    w = workflow.c
    dag_id = select(w.dag_id).where(w.id == param("workflow")).scalar_subquery()
    sets = select(u.id).where(u.dag_id == dag_id)
    nodes = select(t.node_id).where(any_of(t.id, "ids"))
    return delete(upstream_set_member).where(m.node_id.in_(nodes), m.upstream_set_id.in_(sets))


def leave(tx: Transaction, workflow_id: int, task_ids: Sequence[int]) -> None:
    """Let nothing wait any more for tasks that an expansion no longer adds."""
    tx.run(_leave_sets, workflow=workflow_id, ids=task_ids)


@statement
def _added_by() -> Select[Any]:
    return select(t.id).where(any_of(t.origin_id, "ids"), t.origin_id.is_not(None), IS_IN_WORKFLOW)


def with_added(tx: Transaction, task_ids: Sequence[int]) -> list[int]:
    """Return tasks, and all tasks that the expansions among them added, directly or through other expansions."""
    found = dict.fromkeys(task_ids)
    level: Sequence[int] = task_ids
    for _ in range(_DEPTH_MAX):
        level = [task_id for task_id in tx.column(_added_by, ids=level) if task_id not in found]
        if not level:
            break
        found |= dict.fromkeys(level)
    return list(found)


def with_fan_in(tx: Transaction, expansion_id: int, members: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return sets of upstream tasks of added tasks, with all that the expansions among them have added before."""
    every = {task_id for each in members for task_id in each if task_id != expansion_id}
    added = {task_id: with_added(tx, [task_id]) for task_id in expansions_among(tx, every)}
    return [list(dict.fromkeys(one for task_id in each for one in added.get(task_id, (task_id,)))) for each in members]


@statement
def _expansions_among() -> Select[Any]:
    is_expansion = unindexed(t.kind) == TaskKind.EXPANSION.value
    return select(t.id).where(any_of(t.id, "ids"), is_expansion).order_by(unindexed(t.id))


def expansions_among(tx: Transaction, task_ids: Collection[int]) -> list[int]:
    """Return those of some tasks that are expansions."""
    return tx.column(_expansions_among, ids=task_ids) if task_ids else []


def finish(tx: Transaction, workflow_id: int, task_ids: Sequence[int]) -> None:
    """Move an expansion to DONE: all that it added is in the workflow."""
    for task_id in task_ids:
        transitions.move_expansion(tx, workflow_id, task_id, TaskStatus.DONE)
        tx.run(_set_done, stamp=tx.stamp, id=task_id)


def require_one(task_ids: Sequence[int], expansion_id: int | None) -> None:
    """Check that a version says of no other expansion than its own that it is done.

    Raises:
        InvalidValue: it does.
    """
    if list(task_ids) != [expansion_id]:
        raise InvalidValue("task_ids: must be the expansion of the version.")
