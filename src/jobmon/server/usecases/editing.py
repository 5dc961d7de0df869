"""Edit the definition of single tasks: each edit is a revision, which the next attempt of the task runs.

`task` has what runs, `task_edit` what the script defined; `server.revisions` decides what a script that is run again
keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, ResourceType, TaskInstanceStatus, TaskStatus
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.texts import rerun_with_edit
from jobmon.core.wire.steering import TASKS_UPDATED_MAX, EditRequest, EditResponse, TaskUpdateRequest
from jobmon.server.constructs import func, select, update, upsert
from jobmon.server.models import (
    queue,
    task,
    task_array,
    task_edit,
    task_instance,
    task_resources,
    task_revision,
)
from jobmon.server.problems import InvalidValue, require_at_most
from jobmon.server.revisions import EDITABLE, REVISION, TASKS_NAMED_MAX, named_args
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import Audience, to_json
from jobmon.server.usecases import expanding
from jobmon.server.usecases.holding import recall_tasks
from jobmon.server.usecases.resuming import require_owner
from jobmon.server.usecases.runs import require_workflow
from jobmon.server.usecases.steering import note_steering, task_rows, update_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Insert, Select, Update

    from jobmon.server.transaction import Transaction

t, e, r, ti = task.c, task_edit.c, task_resources.c, task_instance.c


@dataclass(frozen=True, slots=True)
class _Task:
    """A task to be edited. `now`, `defined`: values of `EDITABLE` as they are and as the script defined them.

    `edited`: those values that differ because of earlier edits; None: not edited.
    """

    id: int
    status: str
    revision: int
    version_id: int
    user: str | None
    now: tuple[Any, ...]
    edited: tuple[Any, ...]

    @property
    def defined(self) -> tuple[Any, ...]:
        return tuple(now if was is None else was for now, was in zip(self.now, self.edited, strict=True))


@statement
def _tasks() -> Select[Any]:
    now, edited = ([columns[name] for name in EDITABLE] for columns in (t, e))
    return (
        select(t.id, t.status, t.revision, task_array.c.task_template_version_id, e.user_name, *now, *edited)
        .select_from(task.join(task_array, task_array.c.id == t.array_id).outerjoin(task_edit, e.task_id == t.id))
        .where(any_of(t.id, "ids"))
        .order_by(t.id)
    )


def _read(tx: Transaction, task_ids: Sequence[int]) -> list[_Task]:
    size = len(EDITABLE)
    rows = tx.rows(_tasks, ids=task_ids)
    values = [(*row[: -2 * size], row[-2 * size : -size], row[-size:]) for row in rows]
    return [_Task(*each) for each in values]


def edit(tx: Transaction, workflow_id: int, request: EditRequest) -> EditResponse:
    """Change the definition of tasks for their next attempts, or restore what the script defined.

    Raises:
        NotFound: the workflow does not exist, or a task is not in it.
        InvalidValue: there are too many tasks, nothing to change, or a request for another cluster.
        InvalidRequest: the workflow belongs to another user; a task is done, is an expansion, was removed, or was
            changed by somebody else in the meantime. Nothing has been changed.
    """
    _check(request)
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    task_rows(tx, workflow_id, request.task_ids)
    require_commands(tx, request.task_ids)
    found = _read(tx, request.task_ids)
    _require_editable(found, request)
    wanted = _wanted(tx, found, request)
    terminated = _reopen(tx, workflow_id, request) if request.rerun else 0
    changed = [(one, values) for one, values in zip(found, wanted, strict=True) if values != one.now]
    if not changed:
        return EditResponse(changed=0, recalled=terminated)
    _write(tx, workflow_id, changed, user=None if request.reset else request.user)
    note_steering(tx, workflow_id)
    ids = [one.id for one, _ in changed]
    recalled = recall_tasks(tx, workflow_id, ids)
    tx.armed.release(workflow_id, tx.stamp)
    tx.wake(Audience.ORCHESTRATOR, workflow_id)
    what = {
        "command": request.command,
        "max_attempts": request.max_attempts,
        "resources": sorted(set(request.task_resources_ids)),
        "reset": request.reset,
        "recalled": recalled,
    }
    details: dict[str, Any] = {name: value for name, value in what.items() if value}
    named = ids[:TASKS_NAMED_MAX]
    tx.audit(Actor.USER, "edit", workflow_id, user=request.user, tasks=named, changed=len(ids), **details)
    return EditResponse(changed=len(ids), recalled=recalled + terminated)


def _check(request: EditRequest) -> None:
    require_at_most(TASKS_UPDATED_MAX, len(request.task_ids), "task_ids")
    if len(set(request.task_ids)) != len(request.task_ids):
        raise InvalidValue("task_ids: a task is named twice.")
    if len(request.revisions) != len(request.task_ids):
        raise InvalidValue("revisions: must have as many entries as task_ids.")
    if len(request.task_resources_ids) not in (0, len(request.task_ids)):
        raise InvalidValue("task_resources_ids: must be empty, or have as many entries as task_ids.")
    if request.max_attempts == 0:
        raise InvalidValue("max_attempts: must be at least 1.")
    if request.command is not None and not request.command.strip():
        raise InvalidValue("command: must not be empty.")
    changes = request.command is not None or request.max_attempts is not None or bool(request.task_resources_ids)
    if changes == request.reset:
        raise InvalidValue("reset: specify either what to change, or reset.")


def require_commands(tx: Transaction, task_ids: Sequence[int]) -> None:
    """Refuse to edit expansions.

    Raises:
        InvalidRequest: one of the tasks is an expansion.
    """
    for task_id in expanding.expansions_among(tx, task_ids):
        raise InvalidRequest(
            f"Task {task_id} is an expansion: it calls a function instead of running a command, and cannot be edited."
            " Nothing was changed. Change the script that defines it."
        )


def _options(request: EditRequest) -> list[str]:
    """Return the options of `jobmon task rerun` that make an edit; a queue is set as resources are."""
    is_given = {
        "command": request.command is not None,
        "set": bool(request.task_resources_ids),
        "max-attempts": request.max_attempts is not None,
        "reset": request.reset,
    }
    return [name for name, given in is_given.items() if given]


def _require_editable(found: Sequence[_Task], request: EditRequest) -> None:
    based_on = dict(zip(request.task_ids, request.revisions, strict=True))
    for one in found:
        if one.status == TaskStatus.DONE and not request.rerun:
            raise InvalidRequest(rerun_with_edit(one.id, *_options(request)))
        if one.revision != based_on[one.id]:
            who = f" by {one.user}" if one.user else ""
            raise InvalidRequest(
                f"Task {one.id} was changed{who} in the meantime. Nothing was changed. Repeat the command to apply the"
                " edit to its new definition."
            )


@statement
def _clusters_of_resources() -> Select[Any]:
    return (
        select(r.id, queue.c.cluster_id)
        .join_from(task_resources, queue, queue.c.id == r.queue_id)
        .where(any_of(r.id, "ids"))
    )


def _wanted(tx: Transaction, found: Sequence[_Task], request: EditRequest) -> list[tuple[Any, ...]]:
    """Return the new values of `EDITABLE` for each task."""
    if request.reset:
        return [one.defined for one in found]
    asked = dict(zip(request.task_ids, request.task_resources_ids, strict=True)) if request.task_resources_ids else {}
    now = {one.id: one.now[1] for one in found}
    clusters = dict(
        tx.rows(_clusters_of_resources, ids={*asked.values(), *filter(None, now.values())}) if asked else ()
    )
    for task_id, resources_id in asked.items():
        if clusters.get(resources_id) is None or clusters[resources_id] != clusters.get(now[task_id]):
            raise InvalidValue(f"task_resources_ids: {resources_id} is no request for the cluster of task {task_id}.")
    return [
        (
            one.now[0] if request.command is None else request.command,
            asked.get(one.id, one.now[1]),
            one.now[2] if request.max_attempts is None else request.max_attempts,
        )
        for one in found
    ]


def _reopen(tx: Transaction, workflow_id: int, request: EditRequest) -> int:
    """Request a rerun of the tasks in this transaction; return how many attempts are terminated."""
    again = TaskUpdateRequest(
        task_ids=request.task_ids,
        status=TaskStatus.REGISTERING.value,
        user=request.user,
        force=True,
        any_owner=request.any_owner,
    )
    return update_tasks(tx, workflow_id, again).to_kill


# -- writing -----------------------------------------------------------------------------------------------------------


@statement
def _requests_before_failures() -> Select[Any]:
    """Select, for each task, the newest attempt whose request was not raised after a failure."""
    newest = func.max(ti.number)
    requests = task_instance.join(task_resources, r.id == ti.task_resources_id)
    as_asked = r.kind != ResourceType.ADJUSTED.value
    return (
        select(ti.task_id, newest).select_from(requests).where(any_of(ti.task_id, "ids"), as_asked).group_by(ti.task_id)
    )


@statement
def _requests_of_attempts() -> Select[Any]:
    return select(ti.task_id, ti.number, ti.task_resources_id).where(any_of(ti.task_id, "ids"))


@statement
def _raised() -> Select[Any]:
    return select(r.id).where(any_of(r.id, "ids"), r.kind == ResourceType.ADJUSTED.value)


def _defined_requests(tx: Transaction, found: Sequence[_Task]) -> dict[int, int]:
    """Return the requests that tasks had before they were raised after a failure, if they were."""
    raised = set(tx.column(_raised, ids={one.now[1] for one in found if one.now[1] is not None}))
    ids = [one.id for one in found if one.now[1] in raised]
    if not ids:
        return {}
    newest = dict(tx.rows(_requests_before_failures, ids=ids))
    rows = tx.rows(_requests_of_attempts, ids=list(newest))
    return {task_id: resources_id for task_id, number, resources_id in rows if newest[task_id] == number}


@statement
def _set_values() -> Update:
    values = {name: param(name) for name in EDITABLE}
    return update(task).values(values | {"revision": t.revision + 1}).where(t.id == param("id"))


@statement
def _touch() -> Update:
    """Invalidate requests to queue the tasks that were sent before the orchestrator knew of the edit."""
    waits = any_of(t.id, "ids"), t.status.in_(fsm.QUEUEABLE)
    return update(task).values(status_at=param("stamp")).where(*waits)


@statement
def _request_again() -> Update:
    """Request a rerun of unfinished tasks whose earlier result a later version might restore otherwise."""
    done = select(ti.id).where(ti.task_id == t.id, ti.status == TaskInstanceStatus.DONE.value).correlate(task).exists()
    return update(task).values(requested_at=param("stamp")).where(any_of(t.id, "ids"), done)


_EDIT: Final = ("task_id", "workflow_id", *EDITABLE, "user_name", "edited_at")


@statement
def _set_edit() -> Insert:
    added = upsert(task_edit).values({name: param(name, e[name].type) for name in _EDIT})
    changes = {name: added.excluded[name] for name in (*EDITABLE, "user_name", "edited_at")}
    return added.on_conflict_do_update(index_elements=[e.task_id], set_=changes)


def _write(
    tx: Transaction, workflow_id: int, changed: Sequence[tuple[_Task, tuple[Any, ...]]], user: str | None
) -> None:
    """Write new revisions of tasks; `user` None: their edits are reset."""
    tasks = [one for one, _ in changed]
    args = named_args(tx, [one.id for one in tasks])
    superseded = [
        (one.id, one.revision, one.version_id, one.now[0], to_json(args.get(one.id, {})), "") for one in tasks
    ]
    tx.insert_many(task_revision, REVISION, superseded, ignore=True)
    tx.run_many(_set_values, (*EDITABLE, "id"), [(*values, one.id) for one, values in changed])
    tx.run(_touch, ids=[one.id for one in tasks], stamp=tx.stamp)
    again = [one.id for one, values in changed if values[0] != one.now[0]]
    if again:
        tx.run(_request_again, ids=again, stamp=tx.stamp)
    before = _defined_requests(tx, tasks)
    rows = []
    for one, values in changed:
        defined = list(one.defined)
        if one.edited[1] is None:
            defined[1] = before.get(one.id, defined[1])
        kept = (None if user is None or old == new else old for old, new in zip(defined, values, strict=True))
        rows.append((one.id, workflow_id, *kept, one.user or "" if user is None else user, tx.stamp))
    tx.run_many(_set_edit, _EDIT, rows)
