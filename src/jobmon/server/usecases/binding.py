"""Record a workflow: columns in, rows out, in bounded chunks that may be sent repeatedly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.changes import VersionState
from jobmon.core.constants import Actor, TaskKind, TaskStatus
from jobmon.core.exceptions import InvalidRequest, WorkflowAlreadyExists
from jobmon.core.fsm import Machine
from jobmon.core.wire.binding import (
    EDGES_PER_CHUNK_MAX,
    TASKS_PER_CHUNK_MAX,
    ArraysRequest,
    BoundResponse,
    EdgesRequest,
    IdsResponse,
    RedefineRequest,
    SupersededEdit,
    TaskColumns,
    TasksRequest,
    TasksResponse,
    WorkflowRequest,
    WorkflowResponse,
)
from jobmon.core.wire.changes import StagedDefinitions, StagedTasks
from jobmon.server import declared_files
from jobmon.server.constructs import delete, func, select, true, update
from jobmon.server.counting import grouped
from jobmon.server.joins import IS_IN_WORKFLOW
from jobmon.server.models import (
    dag,
    dag_node,
    node,
    node_arg,
    task,
    task_arg,
    task_array,
    task_resources,
    upstream_set,
    upstream_set_member,
    workflow,
    workflow_attribute,
    workflow_run,
    workflow_version,
)
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.transaction import to_json
from jobmon.server.usecases import fair_share
from jobmon.server.usecases.attributes import set_task_attributes
from jobmon.server.usecases.definitions import argument_ids, require_tool_version
from jobmon.server.usecases.runs import require_workflow
from jobmon.server.usecases.task_values import DEFINED, defined_columns, defined_values, definitions_of, with_edits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Delete, Select, Table, Update

    from jobmon.server.transaction import Transaction

_PER_TASK: Final = (
    *("names", "commands", "task_hashes", "max_attempts", "task_resources_ids"),
    *("scales_index", "fallback_index"),
)
#: Further columns, by type of request.
_OWN_COLUMNS: Final[Mapping[type, tuple[str, ...]]] = {
    TasksRequest: ("node_hashes",),
    RedefineRequest: ("task_ids",),
    StagedTasks: ("node_hashes",),
    StagedDefinitions: ("task_ids", "upstreams"),
}

w, d, t = workflow.c, dag.c, task.c
_WORKFLOWS_WITH_DAGS: Final = workflow.join(dag, d.id == w.dag_id)


@statement
def _workflow_by_args() -> Select[Any]:
    return (
        select(w.id, func.coalesce(w.defined_dag_hash, d.hash), w.task_hash, w.task_counts)
        .select_from(_WORKFLOWS_WITH_DAGS)
        .where(w.tool_version_id == param("version"), w.workflow_args_hash == param("hash"))
    )


def find_workflow(tx: Transaction, request: WorkflowRequest) -> WorkflowResponse:
    """Find or create a workflow and its DAG.

    Raises:
        WorkflowAlreadyExists: one with the same arguments has different tasks.
    """
    require_tool_version(tx, request.tool_version_id)
    found = tx.row(_workflow_by_args, version=request.tool_version_id, hash=request.workflow_args_hash)
    if found is None:
        workflow_id = _create_workflow(tx, request)
        tx.audit(Actor.CLIENT, "create workflow", workflow_id, user=request.user, name=request.name)
        return _workflow(tx, workflow_id, newly_created=True)
    workflow_id, dag_hash, task_hash, task_counts = found
    if (dag_hash, task_hash) != (request.dag_hash, request.task_hash):
        refused = WorkflowAlreadyExists(_difference(workflow_id, json.loads(task_counts), request.task_counts))
        refused.details = {"workflow_id": workflow_id}
        raise refused
    limit = request.max_concurrently_running
    if set_workflow_limit(tx, workflow_id, limit):
        tx.audit(Actor.CLIENT, "concurrency", workflow_id, user=request.user, max_concurrently_running=limit)
    if tx.changed(_redefine_priority(workflow), priority=request.priority, id=workflow_id):
        tx.audit(Actor.CLIENT, "priority", workflow_id, user=request.user, priority=request.priority)
        fair_share.divide_again(tx, workflow_id)
    return _workflow(tx, workflow_id, newly_created=False)


def _difference(workflow_id: int, there: Mapping[str, int], here: Mapping[str, int]) -> str:
    """Return which templates have a different number of tasks."""
    parts = [
        f"template {name!r} has {there.get(name, 0)} recorded tasks and {here.get(name, 0)} now"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, 0) != here.get(name, 0)
    ]
    what = "; ".join(parts) or "their numbers agree, but their arguments or dependencies differ"
    return f"Workflow {workflow_id} has the same workflow_args but different tasks: {what}."


_DAG = statement(lambda: select(d.id).where(d.hash == param("hash")))


def _create_workflow(tx: Transaction, request: WorkflowRequest) -> int:
    tx.insert_many(dag, ("hash", "complete"), [(request.dag_hash, request.edge_set_count == 0)], ignore=True)
    workflow_id = tx.insert(
        workflow,
        tool_version_id=request.tool_version_id,
        dag_id=tx.value(_DAG, hash=request.dag_hash),
        workflow_args_hash=request.workflow_args_hash,
        task_hash=request.task_hash,
        workflow_args=request.workflow_args,
        name=request.name,
        description=request.description,
        user_name=request.user,
        working_directory=request.working_directory,
        umask=request.umask,
        task_count=request.task_count,
        task_counts=to_json(request.task_counts),
        bound=False,
        max_concurrently_running=request.max_concurrently_running,
        priority=request.priority,
        defined_priority=request.priority,
        limit_at=tx.stamp,
        batch_count=0,
        created_at=tx.now,
        status=fsm.INITIAL[Machine.WORKFLOW].value,
        status_at=tx.stamp,
    )
    names = argument_ids(tx, request.workflow_attributes)
    tx.insert_many(
        workflow_attribute,
        ("workflow_id", "argument_id", "value"),
        [(workflow_id, names[name], to_json(value)) for name, value in request.workflow_attributes.items()],
    )
    return workflow_id


def _has_sealed_version() -> ColumnElement[bool]:
    v = workflow_version.c
    sealed = select(v.number).where(v.workflow_id == w.id, v.state == VersionState.SEALED.value)
    return sealed.correlate(workflow).exists()


@statement
def _workflow_as_recorded() -> Select[Any]:
    r = workflow_run.c
    was_started = select(r.id).where(r.workflow_id == w.id, r.bound_at.is_not(None)).correlate(workflow).exists()
    return (
        select(w.dag_id, w.status, w.bound, d.complete, was_started, w.version, _has_sealed_version())
        .select_from(_WORKFLOWS_WITH_DAGS)
        .where(w.id == param("id"))
    )


def _workflow(tx: Transaction, workflow_id: int, *, newly_created: bool) -> WorkflowResponse:
    row = tx.row(_workflow_as_recorded, id=workflow_id)
    assert row is not None
    return WorkflowResponse(
        workflow_id=workflow_id,
        dag_id=row[0],
        status=row[1],
        newly_created=newly_created,
        is_bound=bool(row[2]),
        was_started=bool(row[4]),
        dag_is_complete=bool(row[3]),
        version=row[5],
        has_incomplete_version=bool(row[6]),
    )


@statements
def _redefine_priority(table: Table) -> Update:
    """Set a priority that the script has changed; a user's priority remains otherwise."""
    values = dict.fromkeys(("priority", "defined_priority"), param("priority"))
    return update(table).values(values).where(table.c.id == param("id"), table.c.defined_priority != param("priority"))


@statement
def _set_workflow_limit() -> Update:
    limit = param("limit")
    changes = {"max_concurrently_running": limit, "limit_at": param("stamp")}
    return update(workflow).values(changes).where(w.id == param("id"), w.max_concurrently_running != limit)


def set_workflow_limit(tx: Transaction, workflow_id: int, limit: int) -> bool:
    """Set the maximum number of concurrently running tasks of a workflow; return whether it changed."""
    is_changed = bool(tx.changed(_set_workflow_limit, limit=limit, stamp=tx.stamp, id=workflow_id))
    if is_changed:
        tx.wake_all(workflow_id)
    return is_changed


_ARRAY_VALUES: Final = (
    *("workflow_id", "task_template_version_id", "name", "max_concurrently_running", "limit_at"),
    *("priority", "defined_priority"),
)


@statement
def _arrays_of() -> Select[Any]:
    a = task_array.c
    return select(a.id, a.task_template_version_id, a.max_concurrently_running, a.files_id).where(
        a.workflow_id == param("workflow")
    )


def find_arrays(tx: Transaction, workflow_id: int, request: ArraysRequest) -> IdsResponse:
    """Find or create the arrays of a workflow, with these limits and files."""
    require_workflow(tx, workflow_id)
    files = declared_files.record(tx, request.arrays)
    before = {version_id for _, version_id, _, _ in tx.rows(_arrays_of, workflow=workflow_id)}
    if new := [spec.name for spec in request.arrays if spec.task_template_version_id not in before]:
        tx.audit_count(Actor.CLIENT, "define arrays", workflow_id, arrays=len(new))
    tx.insert_many(
        task_array,
        _ARRAY_VALUES,
        [
            (
                *(workflow_id, spec.task_template_version_id, spec.name, spec.max_concurrently_running, tx.stamp),
                *(spec.priority, spec.priority),
            )
            for spec in request.arrays
        ],
        ignore=True,
    )
    arrays = tx.rows(_arrays_of, workflow=workflow_id)
    found = {version_id: (array_id, limit, files_id) for array_id, version_id, limit, files_id in arrays}
    ids = []
    for spec, declared in zip(request.arrays, files, strict=True):
        array_id, limit, files_id = found[spec.task_template_version_id]
        if files_id != declared:
            declared_files.set_files(tx, array_id, declared)
        ids.append(array_id)
        if request.keep_limits:
            continue
        if limit != spec.max_concurrently_running:
            set_array_limit(tx, workflow_id, array_id, spec.max_concurrently_running)
            tx.audit(
                *(Actor.CLIENT, "concurrency", workflow_id),
                max_concurrently_running=spec.max_concurrently_running,
                array=array_id,
            )
        if tx.changed(_redefine_priority(task_array), priority=spec.priority, id=array_id):
            tx.audit(Actor.CLIENT, "priority", workflow_id, priority=spec.priority, template=spec.name)
    return IdsResponse(ids=ids)


@statement
def _set_array_limit() -> Update:
    changes = {"max_concurrently_running": param("limit"), "limit_at": param("stamp")}
    return update(task_array).values(changes).where(task_array.c.id == param("id"))


_MARK_LIMITS = statement(lambda: update(workflow).values(limit_at=param("stamp")).where(w.id == param("id")))


def set_array_limit(tx: Transaction, workflow_id: int, array_id: int, limit: int) -> None:
    """Set the maximum number of concurrently running tasks of an array."""
    tx.run(_set_array_limit, limit=limit, stamp=tx.stamp, id=array_id)
    tx.run(_MARK_LIMITS, stamp=tx.stamp, id=workflow_id)  # see `limits`
    tx.wake_all(workflow_id)


def _check_lengths(request: TaskColumns) -> None:
    count = len(request.names)
    if count > TASKS_PER_CHUNK_MAX:
        raise InvalidValue(f"names: at most {TASKS_PER_CHUNK_MAX} tasks in one request.")
    for name, column in _columns(request).items():
        if len(column) != count:
            raise InvalidValue(f"{name}: has {len(column)} entries where names has {count}.")
    for name, indices, size in (
        ("scales_index", request.scales_index, len(request.scales)),
        ("fallback_index", request.fallback_index, len(request.fallback_queues)),
        ("attributes", request.attributes, count),
        ("priorities", request.priorities, count),
    ):
        if max(indices, default=-1) >= size:
            raise InvalidValue(f"{name}: {max(indices)} is out of range: it refers to {size} entries.")


def _columns(request: TaskColumns) -> dict[str, Sequence[Any]]:
    """Return the columns with one entry per task, by name."""
    columns = {name: getattr(request, name) for name in (*_PER_TASK, *_OWN_COLUMNS[type(request)])}
    if isinstance(request, StagedDefinitions):
        columns |= {f"task_args.{name}": column for name, column in request.task_args.items()}
    if isinstance(request, TasksRequest):
        columns |= {f"node_args.{name}": column for name, column in request.node_args.items()}
        columns |= {f"task_args.{name}": column for name, column in request.task_args.items()}
    return columns


def find_tasks(
    tx: Transaction, workflow_id: int, request: TasksRequest, status: TaskStatus = TaskStatus.REGISTERING
) -> TasksResponse:
    """Create tasks of one array, or find them by node; existing ones that are not DONE get the new definition.

    Args:
        tx: the transaction.
        workflow_id: the workflow.
        request: the tasks.
        status: the status of created tasks; REMOVED: they are not in the workflow yet.
    """
    _check_tasks(tx, workflow_id, request)
    node_ids, known = _nodes(tx, request)
    found = _tasks_of(tx, workflow_id, known)
    positions = range(len(node_ids))
    known_tasks = [(at, found[node_ids[at]]) for at in positions if node_ids[at] in found]
    superseded = _update_tasks(tx, workflow_id, request, known_tasks)
    new = [at for at in positions if node_ids[at] not in found]
    if new:
        found |= _insert_tasks(tx, workflow_id, request, node_ids, new, status)
        tx.audit_count(Actor.CLIENT, "define tasks", workflow_id, tasks=len(new))
        insert_task_args(tx, request.task_args, [(at, found[node_ids[at]][0]) for at in new])
    set_task_attributes(tx, {found[node_ids[at]][0]: named for at, named in request.attributes.items()})
    return TasksResponse(
        task_ids=[found[node_id][0] for node_id in node_ids],
        node_ids=node_ids,
        statuses=[found[node_id][1] for node_id in node_ids],
        superseded=superseded,
    )


@statement
def _array_by_id() -> Select[Any]:
    a = task_array.c
    return select(a.workflow_id, a.task_template_version_id).where(a.id == param("id"))


_KNOWN_RESOURCES = statement(lambda: select(task_resources.c.id).where(any_of(task_resources.c.id, "ids")))


def _check_tasks(tx: Transaction, workflow_id: int, request: TasksRequest) -> None:
    version_id = check_columns(tx, workflow_id, request)
    if version_id != request.task_template_version_id:
        raise InvalidValue(f"task_template_version_id: array {request.array_id} has version {version_id}.")
    if len(set(request.node_hashes)) != len(request.node_hashes):
        raise InvalidValue("node_hashes: two tasks have the same node.")


def check_columns(tx: Transaction, workflow_id: int, request: TaskColumns) -> int:
    """Check the columns and the rows that they refer to; return the template version of the array.

    Raises:
        InvalidValue: the columns have different lengths, an index or ID does not exist, or there are too many tasks.
        NotFound: the workflow has no such array.
    """
    _check_lengths(request)
    array = tx.row(_array_by_id, id=request.array_id)
    if array is None or array[0] != workflow_id:
        raise NotFound.of(f"array of workflow {workflow_id} with id", request.array_id)
    wanted = {resources_id for resources_id in request.task_resources_ids if resources_id is not None}
    known = tx.column(_KNOWN_RESOURCES, ids=wanted) if wanted else []
    if unknown := wanted.difference(known):
        raise InvalidValue(f"task_resources_ids: there is no {min(unknown)}.")
    return int(array[1])


_NODE_VALUES: Final = ("task_template_version_id", "hash")
_NODE_ARG_VALUES: Final = ("node_id", "argument_id", "value")


def _nodes(tx: Transaction, request: TasksRequest) -> tuple[list[int], list[int]]:
    """Find or create the nodes, with their arguments, in the order of the request; also return those with tasks.

    Usually either all are known, from another workflow, or none: so the first one decides whether to search for them.
    """
    version_id, hashes = request.task_template_version_id, request.node_hashes
    found = _nodes_of(tx, version_id, hashes) if _nodes_of(tx, version_id, hashes[:1]) else {}
    known = list(found.values())
    new = [at for at, node_hash in enumerate(hashes) if node_hash not in found]
    if new:
        new_hashes = [hashes[at] for at in new]
        rows = [(version_id, node_hash) for node_hash in new_hashes]
        ids = tx.insert_many(node, _NODE_VALUES, rows, ignore=True)
        if ids is not None:
            found |= zip(new_hashes, ids, strict=True)
        else:
            found |= _nodes_of(tx, version_id, new_hashes)
            known = list(found.values())
        names = argument_ids(tx, request.node_args)
        arguments = _argument_rows(request.node_args, names, [(at, found[hashes[at]]) for at in new])
        tx.insert_many(node_arg, _NODE_ARG_VALUES, arguments, ignore=True)
    return [found[node_hash] for node_hash in hashes], known


@statement
def _nodes_by_hash() -> Select[Any]:
    n = node.c
    return select(n.hash, n.id).where(n.task_template_version_id == param("version"), any_of(n.hash, "hashes"))


def _nodes_of(tx: Transaction, version_id: int, hashes: Sequence[str]) -> dict[str, int]:
    return dict(tx.rows(_nodes_by_hash, version=version_id, hashes=hashes))


def _argument_rows(
    columns: Mapping[str, Sequence[str]], names: Mapping[str, int], owners: Sequence[tuple[int, int]]
) -> list[tuple[int, int, str]]:
    """Return rows in the order of the primary key, so that the database appends."""
    ordered = sorted((names[name], column) for name, column in columns.items())
    return [(owner, name_id, column[at]) for at, owner in owners for name_id, column in ordered]


@statement
def _tasks_by_node() -> Select[Any]:
    return select(t.node_id, t.id, t.status).where(t.workflow_id == param("workflow"), any_of(t.node_id, "nodes"))


def _tasks_of(tx: Transaction, workflow_id: int, node_ids: Sequence[int]) -> dict[int, tuple[int, str]]:
    if not node_ids:
        return {}
    rows = tx.rows(_tasks_by_node, workflow=workflow_id, nodes=node_ids)
    return {node_id: (task_id, status) for node_id, task_id, status in rows}


#: Columns that usually have the same value in all tasks of a request.
_UNIFORM: Final = ("max_attempts", "task_resources_id", "scales", "fallback_queues", "defined_priority", "priority")


def _insert_tasks(
    tx: Transaction,
    workflow_id: int,
    request: TasksRequest,
    node_ids: Sequence[int],
    new: Sequence[int],
    status: TaskStatus,
) -> dict[int, tuple[int, str]]:
    """Create tasks; return ID and status by node."""
    columns = dict(zip(DEFINED, defined_columns(request), strict=True)) | {"node_id": node_ids}
    if len(new) < len(node_ids):
        columns = {name: [column[at] for at in new] for name, column in columns.items()}
    columns["priority"] = columns["defined_priority"]
    letter, kind = status.value, TaskKind.EXPANSION if request.are_expansions else TaskKind.COMMAND
    same = {"workflow_id": workflow_id, "array_id": request.array_id, "kind": kind.value, "status": letter}
    same |= {"status_at": tx.stamp, "num_attempts": 0, "attempt_count": 0, "uncharged_in_a_row": 0}
    same |= {name: columns.pop(name)[0] for name in _UNIFORM if len(set(columns[name])) == 1}
    tx.counts.add(workflow_id, request.array_id, letter, len(new))
    ids = tx.insert_many(task, tuple(columns), list(zip(*columns.values(), strict=True)), constants=same)
    if ids is None:
        return _tasks_of(tx, workflow_id, columns["node_id"])
    return {node_id: (task_id, letter) for node_id, task_id in zip(columns["node_id"], ids, strict=True)}


#: The columns of `task_arg`.
_TASK_ARG_VALUES: Final = ("task_id", "argument_id", "value")


def insert_task_args(tx: Transaction, columns: Mapping[str, Sequence[str]], owners: Sequence[tuple[int, int]]) -> None:
    """Record the arguments of tasks; `owners`: pairs of position in the columns and task ID."""
    if columns:
        names = argument_ids(tx, columns)
        tx.insert_many(task_arg, _TASK_ARG_VALUES, _argument_rows(columns, names, owners))


@statement
def _redefine_task() -> Update:
    return update(task).values(defined_values()).where(t.id == param("id"))


def _update_tasks(
    tx: Transaction, workflow_id: int, request: TaskColumns, found: Sequence[tuple[int, tuple[int, str]]]
) -> list[SupersededEdit]:
    """Write the definitions of tasks that are not DONE; return the edits that they supersede."""
    if not found:
        return []
    definitions = definitions_of(request)
    rows = [(*definitions[at], task_id) for at, (task_id, status) in found if status != TaskStatus.DONE]
    rows, superseded = with_edits(tx, workflow_id, rows)
    if rows:
        tx.run_many(_redefine_task, (*DEFINED, "id"), rows)
        tx.audit(Actor.CLIENT, "define tasks again", workflow_id, tasks=len(rows))
    return superseded


@statement
def _nodes_and_statuses() -> Select[Any]:
    asked = any_of(t.id, "ids"), unindexed(t.workflow_id) == param("workflow")
    return select(t.id, t.node_id, t.status).where(*asked)


@statement
def _in_other_arrays() -> Select[Any]:
    return grouped(any_of(t.id, "ids"), t.array_id != param("array"))


def count_moves_to_array(tx: Transaction, array_id: int, task_ids: Sequence[int]) -> None:
    """Note in the status counts that tasks are about to move to an array."""
    for workflow_id, source_id, status, number in tx.rows(_in_other_arrays, ids=task_ids, array=array_id):
        tx.counts.add(workflow_id, source_id, status, -number)
        tx.counts.add(workflow_id, array_id, status, number)


@statement
def _move_to_array() -> Update:
    return update(task).values(array_id=param("array")).where(any_of(t.id, "ids"), t.array_id != param("array"))


def redefine_tasks(tx: Transaction, workflow_id: int, request: RedefineRequest) -> TasksResponse:
    """Give recorded tasks that are not DONE a new definition that keeps their results valid.

    Raises:
        NotFound: one of them is not in the workflow.
    """
    check_columns(tx, workflow_id, request)
    rows = tx.rows(_nodes_and_statuses, ids=request.task_ids, workflow=workflow_id)
    found = {task_id: (node_id, status) for task_id, node_id, status in rows}
    if missing := set(request.task_ids) - found.keys():
        raise NotFound.of(f"task of workflow {workflow_id} with id", min(missing))
    statuses = [found[task_id][1] for task_id in request.task_ids]
    pairs = list(enumerate(zip(request.task_ids, statuses, strict=True)))
    superseded = _update_tasks(tx, workflow_id, request, pairs)
    unfinished = [task_id for task_id, (_, status) in found.items() if status != TaskStatus.DONE]
    count_moves_to_array(tx, request.array_id, unfinished)
    tx.run(_move_to_array, array=request.array_id, ids=unfinished)
    set_task_attributes(tx, {request.task_ids[at]: named for at, named in request.attributes.items()})
    return TasksResponse(
        task_ids=request.task_ids,
        node_ids=[found[task_id][0] for task_id in request.task_ids],
        statuses=statuses,
        superseded=superseded,
    )


_workflows_of_dag = statement(lambda: select(w.id).where(w.dag_id == param("dag")))
_IS_COMPLETE = statement(lambda: select(d.complete).where(d.id == param("id")))
#: The columns of `upstream_set_member`, and of `dag_node`.
SET_AND_NODE: Final = ("upstream_set_id", "node_id")


def add_edges(tx: Transaction, dag_id: int, request: EdgesRequest) -> None:
    """Record sets of upstream nodes and the nodes that have them; the last request closes the DAG.

    A closed DAG does not change.
    """
    complete = tx.value(_IS_COMPLETE, id=dag_id)
    if complete is None:
        raise NotFound.of("DAG", dag_id)
    if complete:
        return
    _check_edges(request)
    set_ids = _upstream_sets(tx, dag_id, request)
    members = [
        (set_ids[number], node_id)
        for number, nodes in zip(request.set_numbers, request.upstream_nodes, strict=True)
        for node_id in nodes
    ]
    tx.insert_many(upstream_set_member, SET_AND_NODE, members, ignore=True)
    owners = [(set_ids[number], node_id) for node_id, number in zip(request.node_ids, request.node_sets, strict=True)]
    tx.insert_many(dag_node, SET_AND_NODE, owners, ignore=True)
    for workflow_id in tx.column(_workflows_of_dag, dag=dag_id):
        tx.audit_count(Actor.CLIENT, "define dependencies", workflow_id, tasks=len(owners))
    if request.last:
        _close_dag(tx, dag_id, request.key)


def _check_edges(request: EdgesRequest) -> None:
    if len(request.set_numbers) != len(request.upstream_nodes):
        raise InvalidValue("upstream_nodes: must have as many entries as set_numbers.")
    if len(request.node_ids) != len(request.node_sets):
        raise InvalidValue("node_sets: must have as many entries as node_ids.")
    if sum(map(len, request.upstream_nodes)) + len(request.node_ids) > 2 * EDGES_PER_CHUNK_MAX:
        raise InvalidValue(f"upstream_nodes: at most {EDGES_PER_CHUNK_MAX} in one request.")


@statement
def _sets_by_number() -> Select[Any]:
    u = upstream_set.c
    return select(u.number, u.id).where(
        u.dag_id == param("dag"), u.caller == param("caller"), any_of(u.number, "numbers")
    )


def _upstream_sets(tx: Transaction, dag_id: int, request: EdgesRequest) -> dict[int, int]:
    """Find or create the sets by number."""
    rows = [(dag_id, request.key, number) for number in request.set_numbers]
    tx.insert_many(upstream_set, ("dag_id", "caller", "number"), rows, ignore=True)
    wanted = set(request.set_numbers) | set(request.node_sets)
    found = dict(tx.rows(_sets_by_number, dag=dag_id, caller=request.key, numbers=wanted))
    if unknown := wanted.difference(found):
        raise InvalidValue(f"node_sets: no set with number {min(unknown)} was sent.")
    return found


@statement
def _sets_of_others() -> Select[Any]:
    u = upstream_set.c
    return select(u.id).where(u.dag_id == param("dag"), u.caller != param("caller"))


@statements
def _delete_by_set(table: Table) -> Delete:
    return delete(table).where(any_of(table.c.upstream_set_id, "ids"))


_DELETE_SETS = statement(lambda: delete(upstream_set).where(any_of(upstream_set.c.id, "ids")))
_COMPLETE_DAG = statement(lambda: update(dag).values(complete=true()).where(d.id == param("id")))


def _close_dag(tx: Transaction, dag_id: int, key: str) -> None:
    """Keep only the sets of the first caller that has sent all of them."""
    others = tx.column(_sets_of_others, dag=dag_id, caller=key)
    for table in (upstream_set_member, dag_node):
        tx.run(_delete_by_set(table), ids=others)
    tx.run(_DELETE_SETS, ids=others)
    tx.run(_COMPLETE_DAG, id=dag_id)


@statement
def _progress_of_binding() -> Select[Any]:
    return select(w.task_count, d.complete, w.bound).select_from(_WORKFLOWS_WITH_DAGS).where(w.id == param("id"))


@statement
def _count_tasks() -> Select[Any]:
    return select(func.count()).select_from(task).where(t.workflow_id == param("workflow"), IS_IN_WORKFLOW)


_FINISH_BINDING = statement(lambda: update(workflow).values(bound=true()).where(w.id == param("id")))


def finish_binding(tx: Transaction, workflow_id: int) -> BoundResponse:
    """Check that the workflow is completely recorded, and mark it as bound.

    Raises:
        InvalidRequest: tasks or edges are missing.
    """
    row = tx.row(_progress_of_binding, id=workflow_id)
    if row is None:
        raise NotFound.of("workflow", workflow_id)
    wanted, dag_is_complete, bound = row
    if bound:
        return BoundResponse(workflow_id=workflow_id, task_count=wanted)
    count = tx.value(_count_tasks, workflow=workflow_id)
    if count != wanted:
        raise InvalidRequest(f"Workflow {workflow_id} has {count} recorded tasks, but {wanted} were announced.")
    if not dag_is_complete:
        raise InvalidRequest(f"The dependencies of workflow {workflow_id} are not all recorded.")
    tx.run(_FINISH_BINDING, id=workflow_id)
    tx.audit(Actor.CLIENT, "finish definition", workflow_id, tasks=count)
    return BoundResponse(workflow_id=workflow_id, task_count=count)
