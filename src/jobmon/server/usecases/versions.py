"""Create a new version of a workflow: stage its changes, seal them, apply them in parts.

Staged changes are invisible: tasks to add are recorded as REMOVED, and sets of upstream tasks have no users. Sealing is
a single short transaction; from then on the next resume, from any client, completes the version. Each part is applied
in one transaction together with the count of applied parts, so that a crash loses and repeats nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from jobmon.core import fsm
from jobmon.core.changes import StatusChange, VersionState
from jobmon.core.constants import Actor, TaskStatus, WorkflowStatus
from jobmon.core.exceptions import InvalidRequest, WorkflowNotResumable, WorkflowVersionConflict
from jobmon.core.wire.changes import (
    STAGED_TASKS_MAX,
    STAGED_UPSTREAMS_MAX,
    DropRequest,
    SealRequest,
    StagedDefinitions,
    StagedStatuses,
    StagedTasks,
    StagedUpstreams,
    VersionRequest,
    VersionResponse,
)
from jobmon.server import transitions
from jobmon.server.constructs import delete, func, select, update
from jobmon.server.joins import IS_IN_WORKFLOW
from jobmon.server.models import (
    dag,
    dag_node,
    task,
    task_arg,
    task_array,
    task_revision,
    upstream_set,
    upstream_set_member,
    workflow,
    workflow_change,
    workflow_version,
)
from jobmon.server.problems import InvalidValue, NotFound, require_at_most
from jobmon.server.revisions import REVISION, named_args
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.times import to_datetime
from jobmon.server.transaction import to_json
from jobmon.server.usecases import binding, expanding
from jobmon.server.usecases.private_dag import COPY
from jobmon.server.usecases.resuming import active_runs, require_owner
from jobmon.server.usecases.runs import require_workflow
from jobmon.server.usecases.task_values import DEFINED, defined_values, definitions_of, with_edits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Delete, Select, Table, Update

    from jobmon.core.wire.binding import SupersededEdit, TasksResponse
    from jobmon.server.transaction import Transaction


w, d, t, v, c = workflow.c, dag.c, task.c, workflow_version.c, workflow_change.c
u, m, n = upstream_set.c, upstream_set_member.c, dag_node.c


# -- begin -------------------------------------------------------------------------------------------------------------


@statement
def _workflow_and_version() -> Select[Any]:
    return select(w.version, w.dag_id).where(w.id == param("id"))


@statement
def _open_version() -> Select[Any]:
    """Select the version that is not applied, if there is one."""
    is_open = v.state != VersionState.APPLIED.value
    columns = (v.number, v.state, v.changes, v.applied, v.expansion_id)
    return select(*columns).where(v.workflow_id == param("workflow"), is_open)


@statement
def _newest_applied() -> Select[Any]:
    applied = v.workflow_id == param("workflow"), v.state == VersionState.APPLIED.value
    return select(v.number, v.user_name, v.host, v.applied_at).where(*applied).order_by(v.number.desc()).limit(1)


@statements
def _delete_version(table: Table) -> Delete:
    return delete(table).where(table.c.workflow_id == param("workflow"), table.c.number == param("number"))


def start_version(tx: Transaction, workflow_id: int, request: VersionRequest) -> VersionResponse:
    """Start a version; drop an earlier one that was not sealed.

    Raises:
        NotFound: the workflow does not exist.
        WorkflowNotResumable: a run is active.
        WorkflowVersionConflict: the workflow was changed in the meantime, or a sealed version is not completely
            applied.
        StaleRun: the version is that of an expansion, and its run may no longer change the workflow.
    """
    require_workflow(tx, workflow_id)
    _require_right_run(tx, workflow_id, request.expansion_id, request.workflow_run_id)
    _require_none_sealed(tx, workflow_id)
    drop_staged(tx, workflow_id)
    base, dag_id = _require_base(tx, workflow_id, None if request.expansion_id else request.base)
    tx.insert_many(
        workflow_version,
        (
            *(
                "workflow_id",
                "number",
                "request_key",
                "state",
                "user_name",
                "host",
                "created_at",
                "dag_hash",
                "task_hash",
            ),
            *("task_count", "task_counts", "summary", "changes", "applied", "expansion_id", "workflow_run_id"),
        ),
        [
            (
                *(workflow_id, base + 1, request.key, VersionState.STAGED.value, request.user, request.host, tx.now),
                *(request.dag_hash, request.task_hash, request.task_count, to_json(request.task_counts)),
                *(to_json(request.summary), 0, 0, request.expansion_id, request.workflow_run_id),
            )
        ],
    )
    return VersionResponse(number=base + 1, dag_id=dag_id)


def _require_base(tx: Transaction, workflow_id: int, base: int | None) -> tuple[int, int]:
    row = tx.row(_workflow_and_version, id=workflow_id)
    assert row is not None
    version, dag_id = row
    if base not in (None, version):
        raise _conflict(tx, workflow_id)
    return int(version), int(dag_id)


def _conflict(tx: Transaction, workflow_id: int) -> WorkflowVersionConflict:
    newest = tx.row(_newest_applied, workflow=workflow_id)
    who = ""
    if newest is not None:
        number, user, host, at = newest
        who = f" (version {number}, {user} on {host}, {to_datetime(at):%H:%M} UTC)"
    return WorkflowVersionConflict(f"Workflow {workflow_id} was changed in the meantime{who}. Plan again.")


def _require_right_run(tx: Transaction, workflow_id: int, expansion_id: int | None, run_id: int | None) -> None:
    """Check that no run is active; for an expansion, that it is called in a run that may change the workflow."""
    if expansion_id is None:
        _require_no_run(tx, workflow_id)
    else:
        expanding.require_leading(tx, run_id or 0, workflow_id)


def _require_no_run(tx: Transaction, workflow_id: int) -> None:
    for run in active_runs(tx, workflow_id):
        raise WorkflowNotResumable(
            f"Workflow {workflow_id} is being run by process {run.pid} on {run.host}; it cannot be changed now."
        )


def _require_none_sealed(tx: Transaction, workflow_id: int) -> None:
    row = tx.row(_open_version, workflow=workflow_id)
    if row is not None and row[1] == VersionState.SEALED:
        raise WorkflowVersionConflict(
            f"Workflow {workflow_id} is being changed by another client (version {row[0]}). Plan again."
        )


def drop_staged(tx: Transaction, workflow_id: int) -> None:
    """Drop the version that was started and not sealed, if there is one."""
    row = tx.row(_open_version, workflow=workflow_id)
    if row is None or row[1] != VersionState.STAGED:
        return
    for table in (workflow_change, workflow_version):
        tx.run(_delete_version(table), workflow=workflow_id, number=row[0])
    dag_id = (tx.row(_workflow_and_version, id=workflow_id) or (0, 0))[1]
    for delete_sets in (_delete_members_of_caller, _delete_sets_of_caller):
        tx.run(delete_sets, dag=dag_id, caller=_caller(row[0]))


def _caller(number: int) -> str:
    """Return the recorded creator of the sets of a version."""
    return f"version {number}"


def _of_caller() -> tuple[Any, ...]:
    return u.dag_id == param("dag"), u.caller == param("caller")


@statement
def _delete_members_of_caller() -> Delete:
    return delete(upstream_set_member).where(m.upstream_set_id.in_(select(u.id).where(*_of_caller())))


@statement
def _delete_sets_of_caller() -> Delete:
    return delete(upstream_set).where(*_of_caller())


# -- stage -------------------------------------------------------------------------------------------------------------


_COUNT_PARTS = statement(
    lambda: (
        select(func.count())
        .select_from(workflow_change)
        .where(c.workflow_id == param("workflow"), c.number == param("number"))
    )
)


def _stage(tx: Transaction, workflow_id: int, number: int, position: int, kind: str, content: Any) -> None:
    tx.insert_many(
        workflow_change,
        ("workflow_id", "number", "position", "kind", "content"),
        [(workflow_id, number, position, kind, to_json(content))],
        ignore=True,
    )


@statement
def _version_of_key() -> Select[Any]:
    is_this = v.workflow_id == param("workflow"), v.number == param("number"), v.request_key == param("key")
    return select(v.state, v.expansion_id, v.workflow_run_id).where(*is_this)


def _require_staged(tx: Transaction, workflow_id: int, number: int, key: str) -> int | None:
    """Return the expansion to which a version that is being staged belongs; None: the script."""
    row = tx.row(_version_of_key, workflow=workflow_id, number=number, key=key)
    if row is None or row[0] != VersionState.STAGED:
        raise _conflict(tx, workflow_id)
    return None if row[1] is None else int(row[1])


def stage_tasks(tx: Transaction, workflow_id: int, number: int, request: StagedTasks) -> TasksResponse:
    """Record tasks that the version adds; they are REMOVED until it is applied."""
    expansion_id = _require_staged(tx, workflow_id, number, request.key)
    require_at_most(STAGED_TASKS_MAX, len(request.names), "task_ids")
    if expansion_id is not None:
        expanding.require_new(tx, workflow_id, request.task_template_version_id, request.node_hashes)
    found = binding.find_tasks(tx, workflow_id, request, TaskStatus.REMOVED)
    if expansion_id is not None:
        expanding.set_origin(tx, expansion_id, found.task_ids)
    _stage(tx, workflow_id, number, request.position, StatusChange.ADD.value, {"task_ids": found.task_ids})
    return found


def stage_definitions(tx: Transaction, workflow_id: int, number: int, request: StagedDefinitions) -> None:
    """Record new definitions of tasks."""
    _require_staged(tx, workflow_id, number, request.key)
    require_at_most(STAGED_TASKS_MAX, len(request.names), "task_ids")
    binding.check_columns(tx, workflow_id, request)
    _require_tasks(tx, workflow_id, request.task_ids)
    _stage(tx, workflow_id, number, request.position, "define", msgspec.to_builtins(request))


def stage_upstreams(tx: Transaction, workflow_id: int, number: int, request: StagedUpstreams) -> None:
    """Record sets of upstream tasks, and the tasks that will have them."""
    expansion_id = _require_staged(tx, workflow_id, number, request.key)
    pairs = (
        *((request.set_numbers, request.members), (request.task_ids, request.task_sets)),
        *((request.edited, request.gained), (request.edited, request.lost)),
    )
    if any(len(one) != len(other) for one, other in pairs):
        raise InvalidValue("members, task_sets, gained, lost: must have as many entries as what they belong to.")
    members = request.members if expansion_id is None else expanding.with_fan_in(tx, expansion_id, request.members)
    several = [*members, *request.gained, *request.lost]
    if sum(map(len, [*request.members, *request.gained, *request.lost])) + len(request.task_ids) > STAGED_UPSTREAMS_MAX:
        raise InvalidValue(f"members: at most {STAGED_UPSTREAMS_MAX} in one request.")
    nodes = _nodes(tx, workflow_id, {*request.task_ids, *(task_id for each in several for task_id in each)})
    dag_id = (tx.row(_workflow_and_version, id=workflow_id) or (0, 0))[1]
    numbers = {*request.set_numbers, *filter(None, request.task_sets)}
    sets = _sets(tx, dag_id, _caller(number), numbers, expansion_id)
    rows = [
        (sets[number_], nodes[task_id])
        for number_, each in zip(request.set_numbers, members, strict=True)
        for task_id in each
    ]
    tx.insert_many(upstream_set_member, binding.SET_AND_NODE, rows, ignore=True)
    edited = _own_sets(tx, dag_id, request.edited)
    content = {
        "dag": dag_id,
        "users": [
            (nodes[task_id], sets[number_] if number_ else 0)
            for task_id, number_ in zip(request.task_ids, request.task_sets, strict=True)
        ],
        "gained": _member_rows(edited, request.gained, nodes),
        "lost": _member_rows(edited, request.lost, nodes),
    }
    _stage(tx, workflow_id, number, request.position, "upstreams", content)


def _member_rows(sets: Sequence[int], tasks: Sequence[Sequence[int]], nodes: dict[int, int]) -> list[tuple[int, int]]:
    return [(set_id, nodes[task_id]) for set_id, ids in zip(sets, tasks, strict=True) for task_id in ids]


@statement
def _sets_in_dag() -> Select[Any]:
    return select(u.id).where(any_of(u.id, "sets"), unindexed(u.dag_id) == param("dag"))


def _own_sets(tx: Transaction, dag_id: int, set_ids: Sequence[int]) -> list[int]:
    """Return recorded sets in the DAG of the workflow; sets of a DAG that it shared before are replaced by copies.

    Raises:
        NotFound: the workflow has no such set.
    """
    own = set(tx.column(_sets_in_dag, sets=set_ids, dag=dag_id)) if set_ids else set()
    copies = dict(tx.rows(_sets_by_number, dag=dag_id, caller=COPY, numbers=set_ids)) if set_ids else {}
    for set_id in set_ids:
        if set_id not in own and set_id not in copies:
            raise NotFound.of("set of upstream tasks with id", set_id)
    return [set_id if set_id in own else copies[set_id] for set_id in set_ids]


@statement
def _sets_by_number() -> Select[Any]:
    found = u.dag_id == param("dag"), u.caller == param("caller"), any_of(u.number, "numbers")
    return select(u.number, u.id).where(*found)


def _sets(tx: Transaction, dag_id: int, caller: str, numbers: set[int], origin_id: int | None) -> dict[int, int]:
    """Find or create sets by the client's numbers."""
    rows = [(dag_id, caller, number, origin_id) for number in sorted(numbers)]
    tx.insert_many(upstream_set, ("dag_id", "caller", "number", "origin_id"), rows, ignore=True)
    return dict(tx.rows(_sets_by_number, dag=dag_id, caller=caller, numbers=numbers)) if numbers else {}


@statement
def _nodes_of_tasks() -> Select[Any]:
    return select(t.id, t.node_id).where(any_of(t.id, "ids"), unindexed(t.workflow_id) == param("workflow"))


def _nodes(tx: Transaction, workflow_id: int, task_ids: set[int]) -> dict[int, int]:
    """Return the nodes of tasks.

    Raises:
        NotFound: one of them is not in the workflow.
    """
    found = dict(tx.rows(_nodes_of_tasks, ids=task_ids, workflow=workflow_id)) if task_ids else {}
    if missing := task_ids - found.keys():
        raise NotFound.of(f"task of workflow {workflow_id} with id", min(missing))
    return found


def _require_tasks(tx: Transaction, workflow_id: int, task_ids: Sequence[int]) -> None:
    _nodes(tx, workflow_id, set(task_ids))


def stage_statuses(tx: Transaction, workflow_id: int, number: int, request: StagedStatuses) -> None:
    """Record how the version changes the status of tasks."""
    expansion_id = _require_staged(tx, workflow_id, number, request.key)
    require_at_most(STAGED_TASKS_MAX, len(request.task_ids), "task_ids")
    if request.change not in list(StatusChange):
        raise InvalidValue(f"change: must be one of {', '.join(StatusChange)}, not {request.change!r}.")
    if request.change == StatusChange.ACCEPT and len(request.accepted) != len(request.task_ids):
        raise InvalidValue("accepted: must have as many entries as task_ids.")
    if request.change == StatusChange.EXPANDED:
        expanding.require_one(request.task_ids, expansion_id)
    _require_tasks(tx, workflow_id, request.task_ids)
    content = {"task_ids": request.task_ids, "accepted": request.accepted}
    _stage(tx, workflow_id, number, request.position, request.change, content)


# -- seal and apply ----------------------------------------------------------------------------------------------------


@statement
def _seal() -> Update:
    is_this = v.workflow_id == param("workflow"), v.number == param("number")
    return update(workflow_version).values(state=VersionState.SEALED.value, changes=param("parts")).where(*is_this)


def seal(tx: Transaction, workflow_id: int, number: int, request: SealRequest) -> None:
    """Seal a version: from now on it will be completed in any case. Idempotent.

    Raises:
        WorkflowVersionConflict: the workflow was changed or run in the meantime.
        InvalidValue: parts are missing.
    """
    state, expansion_id, run_id = tx.row(_version_of_key, workflow=workflow_id, number=number, key=request.key) or (
        *(None, None, None),
    )
    if state in (VersionState.SEALED, VersionState.APPLIED):  # the response to an earlier request was lost
        return
    _require_staged(tx, workflow_id, number, request.key)
    _require_right_run(tx, workflow_id, expansion_id, run_id)
    _require_base(tx, workflow_id, number - 1)
    count = tx.value(_COUNT_PARTS, workflow=workflow_id, number=number)
    if count != request.parts:
        raise InvalidValue(f"parts: {count} were sent, not {request.parts}.")
    tx.run(_seal, workflow=workflow_id, number=number, parts=request.parts)


@statement
def _part() -> Select[Any]:
    is_this = c.workflow_id == param("workflow"), c.number == param("number"), c.position == param("position")
    return select(c.kind, c.content).where(*is_this)


@statement
def _count_applied() -> Update:
    is_this = v.workflow_id == param("workflow"), v.number == param("number")
    return update(workflow_version).values(applied=param("applied")).where(*is_this)


def apply_part(tx: Transaction, workflow_id: int) -> tuple[bool, list[SupersededEdit]]:
    """Apply the next part of a sealed version; return whether more is left to do, and the edits that it replaced."""
    row = tx.row(_open_version, workflow=workflow_id)
    if row is None or row[1] != VersionState.SEALED:
        return False, []
    number, _, parts, applied, expansion_id = row
    if applied < parts:
        kind, content = tx.row(_part, workflow=workflow_id, number=number, position=applied) or ("", "{}")
        superseded = _apply(tx, workflow_id, kind, content, expansion_id)
        tx.run(_count_applied, applied=applied + 1, workflow=workflow_id, number=number)
        return True, superseded
    _finish(tx, workflow_id, number)
    return False, []


def _apply(
    tx: Transaction, workflow_id: int, kind: str, content: str, expansion_id: int | None
) -> list[SupersededEdit]:
    if kind == "define":
        return _redefine(tx, workflow_id, msgspec.json.decode(content, type=StagedDefinitions))
    if kind == "upstreams":
        _move_upstreams(tx, json.loads(content))
    elif kind == StatusChange.ACCEPT:
        accepted = json.loads(content)
        accept(tx, accepted["task_ids"], accepted["accepted"])
    else:
        _change_statuses(tx, workflow_id, json.loads(content)["task_ids"], StatusChange(kind), expansion_id)
    return []


def _change_statuses(
    tx: Transaction, workflow_id: int, task_ids: list[int], change: StatusChange, expansion_id: int | None
) -> None:
    if change is StatusChange.EXPANDED:
        expanding.finish(tx, workflow_id, task_ids)
        return
    if change is StatusChange.REMOVE:
        task_ids = expanding.with_added(tx, task_ids)
        if expansion_id is not None:
            expanding.leave(tx, workflow_id, task_ids)
    changed = transitions.change_statuses(tx, workflow_id, task_ids, change)
    if expansion_id is None:
        return
    if change is StatusChange.ADD:
        expanding.fan_in(tx, workflow_id, expansion_id, task_ids)
    if change in (StatusChange.ADD, StatusChange.REMOVE):
        expanding.count_tasks(tx, workflow_id, changed if change is StatusChange.ADD else -changed)


@statement
def _present_definitions() -> Select[Any]:
    columns = (t.id, t.revision, task_array.c.task_template_version_id, t.command)
    return select(*columns).join_from(task, task_array, task_array.c.id == t.array_id).where(any_of(t.id, "ids"))


@statement
def _set_definition() -> Update:
    return (
        update(task)
        .values({"revision": t.revision + 1, "array_id": param("array_id")} | defined_values())
        .where(t.id == param("id"))
    )


@statement
def _delete_task_args() -> Delete:
    return delete(task_arg).where(any_of(task_arg.c.task_id, "ids"))


def _redefine(tx: Transaction, workflow_id: int, request: StagedDefinitions) -> list[SupersededEdit]:
    """Record the current definitions as superseded ones, and write the new ones, with the edits that remain.

    Returns:
        The edits that do not remain.
    """
    present = {row[0]: row[1:] for row in tx.rows(_present_definitions, ids=request.task_ids)}
    args = named_args(tx, request.task_ids)
    rows = [
        (task_id, *present[task_id][:3], to_json(args.get(task_id, {})), upstreams)
        for task_id, upstreams in zip(request.task_ids, request.upstreams, strict=True)
    ]
    tx.insert_many(task_revision, REVISION, rows, ignore=True)
    wanted = zip(definitions_of(request), request.task_ids, strict=True)
    definitions, superseded = with_edits(tx, workflow_id, [(*definition, task_id) for definition, task_id in wanted])
    binding.count_moves_to_array(tx, request.array_id, request.task_ids)
    tx.run_many(
        _set_definition,
        (*DEFINED, "array_id", "id"),
        [(*definition[:-1], request.array_id, definition[-1]) for definition in definitions],
    )
    tx.run(_delete_task_args, ids=request.task_ids)
    binding.insert_task_args(tx, request.task_args, list(enumerate(request.task_ids)))
    return superseded


@statement
def _leave_sets() -> Delete:
    """Remove nodes from the users of the sets of one DAG."""
    of_dag = select(u.id).where(u.dag_id == param("dag"))
    return delete(dag_node).where(any_of(n.node_id, "nodes"), n.upstream_set_id.in_(of_dag))


@statement
def _leave_set() -> Delete:
    return delete(upstream_set_member).where(m.upstream_set_id == param("set"), m.node_id == param("node"))


def _move_upstreams(tx: Transaction, content: dict[str, Any]) -> None:
    users = content["users"]
    tx.run(_leave_sets, nodes=[node_id for node_id, _ in users], dag=content["dag"])
    rows = [(set_id, node_id) for node_id, set_id in users if set_id]
    tx.insert_many(dag_node, binding.SET_AND_NODE, rows, ignore=True)
    tx.insert_many(upstream_set_member, binding.SET_AND_NODE, content["gained"], ignore=True)
    tx.run_many(_leave_set, ("set", "node"), content["lost"])


@statement
def _set_accepted() -> Update:
    values = {"accepted": param("accepted"), "accepted_at": param("stamp")}
    return update(task).values(values).where(t.id == param("id"), t.status == TaskStatus.DONE.value)


def accept(tx: Transaction, task_ids: Sequence[int], hashes: Sequence[str]) -> None:
    """Accept the results of done tasks, each for the definition with its hash."""
    stamp = tx.stamp
    rows = [(found, stamp, task_id) for task_id, found in zip(task_ids, hashes, strict=True)]
    tx.run_many(_set_accepted, ("accepted", "stamp", "id"), rows)


@statement
def _version_row() -> Select[Any]:
    columns = (v.dag_hash, v.task_hash, v.task_count, v.task_counts, v.user_name, v.host, v.summary, v.expansion_id)
    return select(*columns).where(v.workflow_id == param("workflow"), v.number == param("number"))


@statement
def _set_version() -> Update:
    names = ("version", "defined_dag_hash", "task_hash", "task_count", "task_counts")
    return update(workflow).values({name: param(name) for name in names}).where(w.id == param("id"))


@statement
def _note_applied() -> Update:
    is_this = v.workflow_id == param("workflow"), v.number == param("number")
    values = {"state": VersionState.APPLIED.value, "applied_at": param("now")}
    return update(workflow_version).values(values).where(*is_this)


@statement
def _unfinished_task() -> Select[Any]:
    unfinished = t.workflow_id == param("workflow"), t.status.not_in(fsm.SETTLED)
    return select(t.id).where(*unfinished, IS_IN_WORKFLOW).limit(1)


@statement
def _set_number() -> Update:
    return update(workflow).values(version=param("version")).where(w.id == param("id"))


def _finish(tx: Transaction, workflow_id: int, number: int) -> None:
    row = tx.row(_version_row, workflow=workflow_id, number=number)
    assert row is not None
    tx.run(_note_applied, now=tx.now, workflow=workflow_id, number=number)
    if row[7] is not None:
        tx.run(_set_number, version=number, id=workflow_id)
        details = {"user": row[4], "host": row[5], "version": number, "expansion": row[7]}
        tx.audit(Actor.CLIENT, "expand", workflow_id, **details, summary=json.loads(row[6]))
        tx.wake_all(workflow_id)
        return
    tx.run(
        _set_version,
        version=number,
        defined_dag_hash=row[0],
        task_hash=row[1],
        task_count=row[2],
        task_counts=row[3],
        id=workflow_id,
    )
    status = require_workflow(tx, workflow_id)
    if status == WorkflowStatus.DONE and tx.value(_unfinished_task, workflow=workflow_id) is not None:
        transitions.move_workflow(tx, workflow_id, status, WorkflowStatus.REGISTERING)
    tx.audit(Actor.CLIENT, "change", workflow_id, user=row[4], host=row[5], version=number, summary=json.loads(row[6]))
    tx.wake_all(workflow_id)


def open_version(tx: Transaction, workflow_id: int) -> VersionResponse:
    """Return the version that is being staged.

    Raises:
        WorkflowVersionConflict: it was dropped by another client.
    """
    row = tx.row(_open_version, workflow=workflow_id)
    if row is None:
        raise _conflict(tx, workflow_id)
    return VersionResponse(number=row[0], dag_id=present_version(tx, workflow_id).dag_id)


def drop_version(tx: Transaction, workflow_id: int, request: DropRequest) -> None:
    """Drop the version that is not applied, unless a part of it is already applied.

    Raises:
        InvalidRequest: the workflow belongs to another user, the version does not exist, or a part of it is applied.
    """
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    row = tx.row(_open_version, workflow=workflow_id)
    if row is None:
        raise InvalidRequest(f"Workflow {workflow_id} has no version that is waiting to be applied.")
    number, _, parts, applied, _ = row
    if applied:
        raise InvalidRequest(
            f"{applied} of {parts} parts of version {number} of workflow {workflow_id} are applied; it can only be"
            f" completed: jobmon workflow resume -w {workflow_id}."
        )
    tx.run(_unseal, workflow=workflow_id, number=number)
    drop_staged(tx, workflow_id)
    tx.audit(Actor.USER, "drop version", workflow_id, user=request.user, version=number)


@statement
def _unseal() -> Update:
    is_this = v.workflow_id == param("workflow"), v.number == param("number")
    return update(workflow_version).values(state=VersionState.STAGED.value).where(*is_this)


def present_version(tx: Transaction, workflow_id: int) -> VersionResponse:
    """Return the current version."""
    require_workflow(tx, workflow_id)
    row = tx.row(_workflow_and_version, id=workflow_id)
    assert row is not None
    return VersionResponse(number=row[0], dag_id=row[1])
