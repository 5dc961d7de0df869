"""Recording a workflow: columns in, rows out, in bounded chunks that may be sent again."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import InvalidRequest, WorkflowAlreadyExists
from jobmon.core.fsm import Machine
from jobmon.core.wire.binding import (
    EDGES_PER_CHUNK_MAX,
    TASKS_PER_CHUNK_MAX,
    ArraysRequest,
    BoundResponse,
    EdgesRequest,
    IdsResponse,
    TasksRequest,
    TasksResponse,
    WorkflowRequest,
    WorkflowResponse,
)
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.transaction import to_json
from jobmon.server.usecases.definitions import argument_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jobmon.server.transaction import Transaction

#: So many tasks share a transaction, so that binding never keeps the writer from others for long.
TASKS_PER_TRANSACTION: Final = 2_500
_PER_TASK: Final = (
    *("names", "commands", "node_hashes", "task_hashes", "max_attempts", "task_resources_ids"),
    *("scales_index", "fallback_index"),
)


def find_workflow(tx: Transaction, request: WorkflowRequest) -> WorkflowResponse:
    """Find or create a workflow and its DAG.

    Raises:
        WorkflowAlreadyExists: one with the same arguments has other tasks.
    """
    if tx.value("SELECT id FROM tool_version WHERE id = :id", id=request.tool_version_id) is None:
        raise NotFound.of("tool version", request.tool_version_id)
    found = tx.row(
        """
        SELECT w.id, d.hash, w.task_hash, w.task_counts FROM workflow w JOIN dag d ON d.id = w.dag_id
        WHERE w.tool_version_id = :version AND w.workflow_args_hash = :hash
        """,
        version=request.tool_version_id,
        hash=request.workflow_args_hash,
    )
    if found is None:
        return _workflow(tx, _create_workflow(tx, request), newly_created=True)
    workflow_id, dag_hash, task_hash, task_counts = found
    if (dag_hash, task_hash) != (request.dag_hash, request.task_hash):
        raise WorkflowAlreadyExists(_difference(workflow_id, json.loads(task_counts), request.task_counts))
    set_workflow_limit(tx, workflow_id, request.max_concurrently_running)
    return _workflow(tx, workflow_id, newly_created=False)


def _difference(workflow_id: int, there: Mapping[str, int], here: Mapping[str, int]) -> str:
    """Say which templates have how many tasks."""
    parts = [
        f"template {name!r} has {there.get(name, 0)} tasks there and {here.get(name, 0)} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, 0) != here.get(name, 0)
    ]
    what = "; ".join(parts) or "the numbers of tasks agree, but their arguments or dependencies differ"
    return f"Workflow {workflow_id} has the same workflow_args but different tasks: {what}."


def _create_workflow(tx: Transaction, request: WorkflowRequest) -> int:
    tx.run(
        "INSERT INTO dag (hash, complete) VALUES (:hash, :complete) ON CONFLICT DO NOTHING",
        hash=request.dag_hash,
        complete=request.edge_set_count == 0,
    )
    workflow_id = tx.insert(
        "workflow",
        tool_version_id=request.tool_version_id,
        dag_id=tx.value("SELECT id FROM dag WHERE hash = :hash", hash=request.dag_hash),
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
        limit_at=tx.stamp,
        batch_count=0,
        created_at=tx.now,
        status=fsm.INITIAL[Machine.WORKFLOW].value,
        status_at=tx.stamp,
    )
    names = argument_ids(tx, request.workflow_attributes)
    tx.run_many(
        "INSERT INTO workflow_attribute (workflow_id, argument_id, value) VALUES (?, ?, ?)",
        [(workflow_id, names[name], to_json(value)) for name, value in request.workflow_attributes.items()],
    )
    return workflow_id


def _workflow(tx: Transaction, workflow_id: int, *, newly_created: bool) -> WorkflowResponse:
    row = tx.row(
        """
        SELECT w.dag_id, w.status, w.bound, d.complete,
               EXISTS (SELECT 1 FROM workflow_run r WHERE r.workflow_id = w.id AND r.bound_at IS NOT NULL)
        FROM workflow w JOIN dag d ON d.id = w.dag_id WHERE w.id = :id
        """,
        id=workflow_id,
    )
    assert row is not None
    return WorkflowResponse(
        workflow_id=workflow_id,
        dag_id=row[0],
        status=row[1],
        newly_created=newly_created,
        is_bound=bool(row[2]),
        was_started=bool(row[4]),
        dag_is_complete=bool(row[3]),
    )


def set_workflow_limit(tx: Transaction, workflow_id: int, limit: int) -> None:
    """Change how many tasks of a workflow may run at once."""
    changed = tx.run(
        """
        UPDATE workflow SET max_concurrently_running = :limit, limit_at = :stamp
        WHERE id = :id AND max_concurrently_running != :limit
        """,
        limit=limit,
        stamp=tx.stamp,
        id=workflow_id,
    )
    if changed:
        tx.wake_all(workflow_id)


def find_arrays(tx: Transaction, workflow_id: int, request: ArraysRequest) -> IdsResponse:
    """Find or create the arrays of a workflow, with these limits."""
    _require_workflow(tx, workflow_id)
    tx.run_many(
        """
        INSERT INTO task_array (workflow_id, task_template_version_id, name, max_concurrently_running, limit_at)
        VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
        """,
        [
            (workflow_id, spec.task_template_version_id, spec.name, spec.max_concurrently_running, tx.stamp)
            for spec in request.arrays
        ],
    )
    found = {
        version_id: (array_id, limit)
        for array_id, version_id, limit in tx.rows(
            "SELECT id, task_template_version_id, max_concurrently_running FROM task_array WHERE workflow_id = :id",
            id=workflow_id,
        )
    }
    ids = []
    for spec in request.arrays:
        array_id, limit = found[spec.task_template_version_id]
        if limit != spec.max_concurrently_running:
            set_array_limit(tx, workflow_id, array_id, spec.max_concurrently_running)
        ids.append(array_id)
    return IdsResponse(ids=ids)


def set_array_limit(tx: Transaction, workflow_id: int, array_id: int, limit: int) -> None:
    """Change how many tasks of an array may run at once."""
    tx.run(
        "UPDATE task_array SET max_concurrently_running = :limit, limit_at = :stamp WHERE id = :id",
        limit=limit,
        stamp=tx.stamp,
        id=array_id,
    )
    tx.run("UPDATE workflow SET limit_at = :stamp WHERE id = :id", stamp=tx.stamp, id=workflow_id)  # see `limits`
    tx.wake_all(workflow_id)


def _require_workflow(tx: Transaction, workflow_id: int) -> None:
    if tx.value("SELECT id FROM workflow WHERE id = :id", id=workflow_id) is None:
        raise NotFound.of("workflow", workflow_id)


def task_slices(request: TasksRequest) -> Iterator[TasksRequest]:
    """Check the columns, and cut them so that each piece is a short transaction.

    Raises:
        InvalidValue: the columns have different lengths, or there are too many tasks.
    """
    count = len(request.names)
    if count > TASKS_PER_CHUNK_MAX:
        raise InvalidValue(f"names: at most {TASKS_PER_CHUNK_MAX} tasks in one request.")
    columns = {name: getattr(request, name) for name in _PER_TASK}
    columns |= {f"node_args.{name}": column for name, column in request.node_args.items()}
    columns |= {f"task_args.{name}": column for name, column in request.task_args.items()}
    for name, column in columns.items():
        if len(column) != count:
            raise InvalidValue(f"{name}: has {len(column)} entries where names has {count}.")
    for start in range(0, count, TASKS_PER_TRANSACTION):
        yield _cut(request, start, start + TASKS_PER_TRANSACTION) if count > TASKS_PER_TRANSACTION else request


def _cut(request: TasksRequest, start: int, stop: int) -> TasksRequest:
    return replace(
        request,
        **{name: getattr(request, name)[start:stop] for name in _PER_TASK},
        node_args={name: column[start:stop] for name, column in request.node_args.items()},
        task_args={name: column[start:stop] for name, column in request.task_args.items()},
        attributes={index - start: named for index, named in request.attributes.items() if start <= index < stop},
    )


def join_tasks(parts: Sequence[TasksResponse]) -> TasksResponse:
    """Put the answers to slices together."""
    return TasksResponse(
        **{part.name: [item for one in parts for item in getattr(one, part.name)] for part in fields(TasksResponse)}
    )


def find_tasks(tx: Transaction, workflow_id: int, request: TasksRequest) -> TasksResponse:
    """Create tasks of one array, or find them by node; a found one that is not DONE gets the new definition."""
    _check_tasks(tx, workflow_id, request)
    node_ids, known = _nodes(tx, request)
    found = _tasks_of(tx, workflow_id, known)
    positions = range(len(node_ids))
    _update_tasks(tx, request, [(at, found[node_ids[at]]) for at in positions if node_ids[at] in found])
    new = [at for at in positions if node_ids[at] not in found]
    if new:
        found |= _insert_tasks(tx, workflow_id, request, node_ids, new)
        _insert_task_args(tx, request, [(at, found[node_ids[at]][0]) for at in new])
    _set_attributes(tx, request, [found[node_id][0] for node_id in node_ids])
    return TasksResponse(
        task_ids=[found[node_id][0] for node_id in node_ids],
        node_ids=node_ids,
        statuses=[found[node_id][1] for node_id in node_ids],
    )


def _check_tasks(tx: Transaction, workflow_id: int, request: TasksRequest) -> None:
    array = tx.row("SELECT workflow_id, task_template_version_id FROM task_array WHERE id = :id", id=request.array_id)
    if array is None or array[0] != workflow_id:
        raise NotFound.of(f"array of workflow {workflow_id} with id", request.array_id)
    if array[1] != request.task_template_version_id:
        raise InvalidValue(f"task_template_version_id: array {request.array_id} is of version {array[1]}.")
    if len(set(request.node_hashes)) != len(request.node_hashes):
        raise InvalidValue("node_hashes: two tasks have the same node.")
    wanted = {resources_id for resources_id in request.task_resources_ids if resources_id is not None}
    known = tx.column("SELECT id FROM task_resources WHERE id IN (:ids...)", ids=wanted) if wanted else []
    if unknown := wanted.difference(known):
        raise InvalidValue(f"task_resources_ids: there is no {min(unknown)}.")


def _nodes(tx: Transaction, request: TasksRequest) -> tuple[list[int], list[int]]:
    """Find or create the nodes, with their arguments, in the order of the request; also say which may have tasks.

    Mostly all are known, because another workflow has them, or none is: so the first tells whether to look for them.
    """
    version_id, hashes = request.task_template_version_id, request.node_hashes
    found = _nodes_of(tx, version_id, hashes) if _nodes_of(tx, version_id, hashes[:1]) else {}
    known = list(found.values())
    new = [at for at, node_hash in enumerate(hashes) if node_hash not in found]
    if new:
        new_hashes = [hashes[at] for at in new]
        ids = tx.insert_many(
            "INSERT INTO node (task_template_version_id, hash) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(version_id, node_hash) for node_hash in new_hashes],
        )
        if ids is not None:
            found |= zip(new_hashes, ids, strict=True)
        else:
            found |= _nodes_of(tx, version_id, new_hashes)
            known = list(found.values())
        names = argument_ids(tx, request.node_args)
        tx.run_many(
            "INSERT INTO node_arg (node_id, argument_id, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            _argument_rows(request.node_args, names, [(at, found[hashes[at]]) for at in new]),
        )
    return [found[node_hash] for node_hash in hashes], known


def _nodes_of(tx: Transaction, version_id: int, hashes: Sequence[str]) -> dict[str, int]:
    return dict(
        tx.rows(
            "SELECT hash, id FROM node WHERE task_template_version_id = :version AND hash IN (:hashes...)",
            version=version_id,
            hashes=hashes,
        )
    )


def _argument_rows(
    columns: Mapping[str, Sequence[str]], names: Mapping[str, int], owners: Sequence[tuple[int, int]]
) -> list[tuple[int, int, str]]:
    """Rows in the order of the primary key, so that the database appends."""
    ordered = sorted((names[name], column) for name, column in columns.items())
    return [(owner, name_id, column[at]) for at, owner in owners for name_id, column in ordered]


def _tasks_of(tx: Transaction, workflow_id: int, node_ids: Sequence[int]) -> dict[int, tuple[int, str]]:
    if not node_ids:
        return {}
    rows = tx.rows(
        "SELECT node_id, id, status FROM task WHERE workflow_id = :workflow AND node_id IN (:nodes...)",
        workflow=workflow_id,
        nodes=node_ids,
    )
    return {node_id: (task_id, status) for node_id, task_id, status in rows}


def _stored_or_none(values: Sequence[Any]) -> list[str | None]:
    return [to_json(value) if value else None for value in values]


def _definitions(request: TasksRequest) -> list[tuple[Any, ...]]:
    """What a new definition sets in a task, per task."""
    scales, fallbacks = _stored_or_none(request.scales), _stored_or_none(request.fallback_queues)
    return list(
        zip(
            request.names,
            request.commands,
            request.max_attempts,
            request.task_resources_ids,
            [scales[index] for index in request.scales_index],
            [fallbacks[index] for index in request.fallback_index],
            request.task_hashes,
            strict=True,
        )
    )


def _insert_tasks(
    tx: Transaction, workflow_id: int, request: TasksRequest, node_ids: Sequence[int], new: Sequence[int]
) -> dict[int, tuple[int, str]]:
    """Create tasks; return id and status by node."""
    definitions = _definitions(request)
    status, stamp = fsm.INITIAL[Machine.TASK].value, tx.stamp
    ids = tx.insert_many(
        """
        INSERT INTO task (workflow_id, array_id, node_id, status, status_at, num_attempts, attempt_count,
            uncharged_in_a_row, name, command, max_attempts, task_resources_id, scales, fallback_queues, hash)
        VALUES (?, ?, ?, ?, ?, 0, 0, 0, ?, ?, ?, ?, ?, ?, ?)
        """,
        [(workflow_id, request.array_id, node_ids[at], status, stamp, *definitions[at]) for at in new],
    )
    if ids is None:
        return _tasks_of(tx, workflow_id, [node_ids[at] for at in new])
    return {node_ids[at]: (task_id, status) for at, task_id in zip(new, ids, strict=True)}


def _insert_task_args(tx: Transaction, request: TasksRequest, owners: Sequence[tuple[int, int]]) -> None:
    if request.task_args:
        names = argument_ids(tx, request.task_args)
        tx.run_many(
            "INSERT INTO task_arg (task_id, argument_id, value) VALUES (?, ?, ?)",
            _argument_rows(request.task_args, names, owners),
        )


def _update_tasks(tx: Transaction, request: TasksRequest, found: Sequence[tuple[int, tuple[int, str]]]) -> None:
    if not found:
        return
    definitions = _definitions(request)
    tx.run_many(
        """
        UPDATE task SET name = ?, command = ?, max_attempts = ?, task_resources_id = ?, scales = ?,
            fallback_queues = ?, hash = ? WHERE id = ?
        """,
        [(*definitions[at], task_id) for at, (task_id, status) in found if status != TaskStatus.DONE],
    )


def _set_attributes(tx: Transaction, request: TasksRequest, task_ids: Sequence[int]) -> None:
    if not request.attributes:
        return
    names = argument_ids(tx, {name for named in request.attributes.values() for name in named})
    rows = [
        (task_ids[at], names[name], value) for at, named in request.attributes.items() for name, value in named.items()
    ]
    tx.run_many("DELETE FROM task_attribute WHERE task_id = ? AND argument_id = ?", [row[:2] for row in rows])
    tx.run_many("INSERT INTO task_attribute (task_id, argument_id, value) VALUES (?, ?, ?)", rows)


def add_edges(tx: Transaction, dag_id: int, request: EdgesRequest) -> None:
    """Record sets of upstream nodes and who has them; the last request closes the DAG. A closed one stays as it is."""
    complete = tx.value("SELECT complete FROM dag WHERE id = :id FOR UPDATE", id=dag_id)
    if complete is None:
        raise NotFound.of("DAG", dag_id)
    if complete:
        return
    _check_edges(request)
    set_ids = _upstream_sets(tx, dag_id, request)
    tx.run_many(
        "INSERT INTO upstream_set_member (upstream_set_id, node_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [
            (set_ids[number], node_id)
            for number, members in zip(request.set_numbers, request.upstream_nodes, strict=True)
            for node_id in members
        ],
    )
    tx.run_many(
        "INSERT INTO dag_node (upstream_set_id, node_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(set_ids[number], node_id) for node_id, number in zip(request.node_ids, request.node_sets, strict=True)],
    )
    if request.last:
        _close_dag(tx, dag_id, request.key)


def _check_edges(request: EdgesRequest) -> None:
    if len(request.set_numbers) != len(request.upstream_nodes):
        raise InvalidValue("upstream_nodes: must have as many entries as set_numbers.")
    if len(request.node_ids) != len(request.node_sets):
        raise InvalidValue("node_sets: must have as many entries as node_ids.")
    if sum(map(len, request.upstream_nodes)) + len(request.node_ids) > 2 * EDGES_PER_CHUNK_MAX:
        raise InvalidValue(f"upstream_nodes: at most {EDGES_PER_CHUNK_MAX} in one request.")


def _upstream_sets(tx: Transaction, dag_id: int, request: EdgesRequest) -> dict[int, int]:
    """Find or create the sets by their numbers."""
    tx.run_many(
        "INSERT INTO upstream_set (dag_id, caller, number) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(dag_id, request.key, number) for number in request.set_numbers],
    )
    wanted = set(request.set_numbers) | set(request.node_sets)
    found = dict(
        tx.rows(
            "SELECT number, id FROM upstream_set WHERE dag_id = :dag AND caller = :caller AND number IN (:numbers...)",
            dag=dag_id,
            caller=request.key,
            numbers=wanted,
        )
    )
    if unknown := wanted.difference(found):
        raise InvalidValue(f"node_sets: no set of number {min(unknown)} was sent.")
    return found


def _close_dag(tx: Transaction, dag_id: int, key: str) -> None:
    """Keep the sets of the caller who was first to send all of them."""
    others = tx.column("SELECT id FROM upstream_set WHERE dag_id = :dag AND caller != :caller", dag=dag_id, caller=key)
    for table in ("upstream_set_member", "dag_node"):
        tx.run(f"DELETE FROM {table} WHERE upstream_set_id IN (:ids...)", ids=others)
    tx.run("DELETE FROM upstream_set WHERE id IN (:ids...)", ids=others)
    tx.run("UPDATE dag SET complete = TRUE WHERE id = :id", id=dag_id)


def finish_binding(tx: Transaction, workflow_id: int) -> BoundResponse:
    """Check that everything is there, and say so.

    Raises:
        InvalidRequest: tasks or edges are missing.
    """
    row = tx.row(
        "SELECT w.task_count, d.complete, w.bound FROM workflow w JOIN dag d ON d.id = w.dag_id WHERE w.id = :id",
        id=workflow_id,
    )
    if row is None:
        raise NotFound.of("workflow", workflow_id)
    wanted, dag_is_complete, bound = row
    if bound:
        return BoundResponse(workflow_id=workflow_id, task_count=wanted)
    count = tx.value("SELECT COUNT(*) FROM task WHERE workflow_id = :id", id=workflow_id)
    if count != wanted:
        raise InvalidRequest(f"Workflow {workflow_id} has {count} tasks recorded where {wanted} were announced.")
    if not dag_is_complete:
        raise InvalidRequest(f"The dependencies of workflow {workflow_id} are not all recorded.")
    tx.run("UPDATE workflow SET bound = TRUE WHERE id = :id", id=workflow_id)
    return BoundResponse(workflow_id=workflow_id, task_count=count)
