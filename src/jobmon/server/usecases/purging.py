"""Delete a workflow with its tasks, attempts and output, in short transactions. Shared rows are kept.

The next purge resumes an interrupted one: a workflow whose purge has started cannot be run again, and its DAG is no
longer found by its hash. Nodes are deleted last, once nothing refers to them; the nodes of an interrupted purge are
found by `compact`. No ID of a workflow, task, run or attempt is ever reused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import Actor
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.texts import number_of
from jobmon.server import transitions
from jobmon.server.constructs import Integer, delete, false, func, select, update
from jobmon.server.counting import grouped
from jobmon.server.models import (
    agent,
    attempt_file,
    audit,
    batch,
    dag,
    dag_node,
    distributor,
    expansion,
    launch_problem,
    log_tail,
    node,
    node_arg,
    packed_batch,
    packed_job,
    slot_lease,
    status_count,
    task,
    task_arg,
    task_array,
    task_attribute,
    task_edit,
    task_instance,
    task_revision,
    upstream_set,
    upstream_set_member,
    workflow,
    workflow_attribute,
    workflow_change,
    workflow_run,
    workflow_version,
)
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.transaction import START_PURGE
from jobmon.server.usecases.binding import SET_AND_NODE
from jobmon.server.usecases.resuming import active_runs, require_owner
from jobmon.server.usecases.runs import require_workflow

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Delete, Select, Table, Update

    from jobmon.core.wire.steering import PurgeRequest
    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

#: Maximum number of rows of one table that a transaction deletes.
ROWS_PER_TRANSACTION: Final = 5_000
#: Maximum number of nodes that a transaction examines.
NODES_PER_TRANSACTION: Final = 1_000
#: Maximum number of sets of upstream nodes that a transaction deletes.
SETS_PER_TRANSACTION: Final = 1_000
#: Maximum number of rows in a page.
_MOST: Final = param("most", Integer)
#: Prefix of the hash of a workflow or DAG whose purge has started. Other hashes are hexadecimal.
_PURGED: Final = "purged-"
#: Tables that refer to a workflow, besides `task`; each before the tables that it refers to.
_BELONGINGS: Final = (
    *(packed_batch, batch, distributor, agent, launch_problem, slot_lease, workflow_attribute, audit, workflow_run),
    *(workflow_change, workflow_version, status_count, task_array),
)


@statement
def _mark_purged() -> Update:
    """Make it impossible to run a workflow, and to find it by its arguments."""
    return update(workflow).values(bound=false(), workflow_args_hash=param("hash")).where(workflow.c.id == param("id"))


def start_purge(tx: Transaction, workflow_id: int, request: PurgeRequest) -> tuple[int, int] | None:
    """Check that a workflow may be deleted; from now on it cannot be run or found by its arguments.

    Returns:
        The lowest and highest ID of its nodes; None if it has no tasks.

    Raises:
        InvalidRequest: it belongs to another user, or has an active run or live attempts.
    """
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    runs = active_runs(tx, workflow_id)
    if runs:
        raise InvalidRequest(
            f"Workflow {workflow_id} is being run by process {runs[0].pid} on {runs[0].host}. Stop it first: jobmon"
            f" workflow stop -w {workflow_id}."
        )
    live = transitions.live_attempts(tx, workflow_id)
    if live:
        raise InvalidRequest(
            f"{number_of(len(live), 'attempt')} of workflow {workflow_id} may still run. Stop the workflow first:"
            f" jobmon workflow stop -w {workflow_id} --kill."
        )
    highest = tx.keep_highest_ids()
    tx.audit(Actor.USER, START_PURGE, None, user=request.user, workflow=workflow_id, highest=highest)
    tx.run(_mark_purged, id=workflow_id, hash=f"{_PURGED}{workflow_id}")
    first, last = tx.rows(_range_of_nodes, workflow=workflow_id)[0]
    return None if first is None else (first, last)


@statement
def _range_of_nodes() -> Select[Any]:
    return select(func.min(task.c.node_id), func.max(task.c.node_id)).where(task.c.workflow_id == param("workflow"))


@statement
def _next_tasks() -> Select[Any]:
    of_workflow = task.c.workflow_id == param("workflow")
    return select(task.c.id).where(of_workflow).order_by(task.c.id).limit(_MOST)


@statements
def _delete_of_attempts(table: Table) -> Delete:
    attempts = select(task_instance.c.id).where(any_of(task_instance.c.task_id, "ids"))
    return delete(table).where(table.c.task_instance_id.in_(attempts))


@statements
def _delete_of_tasks(table: Table) -> Delete:
    return delete(table).where(any_of(table.c.task_id, "ids"))


@statement
def _counts_of() -> Select[Any]:
    return grouped(any_of(task.c.id, "ids"))


@statements
def _delete_by_id(table: Table) -> Delete:
    return delete(table).where(any_of(table.c.id, "ids"))


def purge_tasks(tx: Transaction, workflow_id: int) -> int:
    """Delete up to `ROWS_PER_TRANSACTION` tasks with all their attempts; return their number."""
    ids = tx.column(_next_tasks, workflow=workflow_id, most=ROWS_PER_TRANSACTION)
    if not ids:
        return 0
    for _, array_id, status, number in tx.rows(_counts_of, ids=ids):
        tx.counts.add(workflow_id, array_id, status, -number)
    for table in (log_tail, attempt_file):
        tx.run(_delete_of_attempts(table), ids=ids)
    for table in (task_instance, task_arg, task_attribute, task_revision, task_edit, expansion):
        tx.run(_delete_of_tasks(table), ids=ids)
    tx.run(_delete_by_id(task), ids=ids)
    return len(ids)


@statement
def _workflow_to_purge() -> Select[Any]:
    w = workflow.c
    return select(w.name, w.user_name, w.dag_id, w.task_count).where(w.id == param("id"))


@statement
def _delete_packed_jobs() -> Delete:
    batches = select(batch.c.id).where(batch.c.workflow_id == param("workflow"))
    return delete(packed_job).where(packed_job.c.batch_id.in_(batches))


@statements
def _delete_of_workflow(table: Table) -> Delete:
    return delete(table).where(table.c.workflow_id == param("workflow"))


_WORKFLOW_WITH_DAG = statement(lambda: select(workflow.c.id).where(workflow.c.dag_id == param("dag")).limit(1))


@statement
def _abandon_dag() -> Update:
    """Make it impossible to find a DAG, and let `purge_dags` delete it."""
    return update(dag).values(complete=false(), hash=param("hash")).where(dag.c.id == param("dag"))


def purge_rest(tx: Transaction, workflow_id: int, request: PurgeRequest) -> None:
    """Delete the workflow itself once no task is left; the audit trail records the user."""
    row = tx.row(_workflow_to_purge, id=workflow_id)
    if row is None:  # a concurrent purge has deleted it
        return
    name, owner, dag_id, task_count = row
    tx.run(_delete_packed_jobs, workflow=workflow_id)
    for table in _BELONGINGS:
        tx.run(_delete_of_workflow(table), workflow=workflow_id)
    tx.counts.forget_stored()
    tx.run(_delete_by_id(workflow), ids=[workflow_id])
    if tx.value(_WORKFLOW_WITH_DAG, dag=dag_id) is None:
        tx.run(_abandon_dag, dag=dag_id, hash=f"{_PURGED}{dag_id}")
    tx.audit(
        Actor.USER, "purge", None, user=request.user, workflow=workflow_id, name=name, owner=owner, tasks=task_count
    )
    tx.wake_all(workflow_id)


@statement
def _abandoned_dag() -> Select[Any]:
    """Select a DAG that no workflow has.

    LIKE alone uses no index, and the end of a range depends on the collation: some sort punctuation before digits.
    """
    return select(dag.c.id).where(dag.c.hash >= _PURGED, dag.c.hash.like(f"{_PURGED}%")).limit(1)


@statement
def _next_sets() -> Select[Any]:
    u = upstream_set.c
    return select(u.id).where(u.dag_id == param("dag")).order_by(u.id).limit(_MOST)


@statements
def _next_of_sets(table: Table) -> Select[Any]:
    columns = (table.c[name] for name in SET_AND_NODE)
    return select(*columns).where(any_of(table.c.upstream_set_id, "sets")).limit(_MOST)


@statements
def _delete_from_set(table: Table) -> Delete:
    return delete(table).where(*(table.c[name] == param(name) for name in SET_AND_NODE))


def purge_dags(tx: Transaction) -> bool:
    """Delete a part of a DAG that no workflow has; return whether more is left."""
    dag_id = tx.value(_abandoned_dag)
    if dag_id is None:
        return False
    sets = tx.column(_next_sets, dag=dag_id, most=SETS_PER_TRANSACTION)
    if not sets:
        tx.run(_delete_by_id(dag), ids=[dag_id])
        return True
    for table in (dag_node, upstream_set_member):
        rows = tx.rows(_next_of_sets(table), sets=sets, most=ROWS_PER_TRANSACTION)
        if rows:
            tx.run_many(_delete_from_set(table), SET_AND_NODE, rows)
            return True
    tx.run(_delete_by_id(upstream_set), ids=sets)
    return True


@statement
def _next_nodes() -> Select[Any]:
    n = node.c
    of_range = (n.id >= param("first"), n.id <= param("last"))
    return select(n.id).where(*of_range).order_by(n.id).limit(_MOST)


@statement
def _nodes_of_tasks() -> Select[Any]:
    """Select the nodes in a range that have a task, found in the index of each workflow's nodes."""
    t = task.c
    of_workflows = workflow.join(task, t.workflow_id == unindexed(workflow.c.id))
    return select(t.node_id).select_from(of_workflows).where(*_is_in_range(task)).distinct()


@statements
def _nodes_of_dags(table: Table) -> Select[Any]:
    return select(table.c.node_id).where(*_is_in_range(table)).distinct()


def _is_in_range(table: Table) -> list[ColumnElement[bool]]:
    return [table.c.node_id >= param("first"), table.c.node_id <= param("last")]


_DELETE_NODE_ARGS: Final = statement(lambda: delete(node_arg).where(any_of(node_arg.c.node_id, "ids")))


def delete_unused_nodes(session: Session, first: int, last: int) -> int | None:
    """Examine the next `NODES_PER_TRANSACTION` nodes; delete those without task or dependency.

    It has its own transaction (`Writer.run_alone`), because tasks have no index of their nodes: it would slow binding
    down. A node is created in the same transaction as its first task, so a node without task is not about to get one.

    Args:
        session: the writer's session.
        first: the lowest ID of the nodes to examine.
        last: the highest ID of the nodes to examine.

    Returns:
        The ID at which to resume; None if no node is left to examine.
    """
    with session.unchecked():
        ids = session.column(_next_nodes, first=first, last=last, most=NODES_PER_TRANSACTION)
        if not ids:
            return None
        given = {"first": ids[0], "last": ids[-1]}
        used = set(session.column(_nodes_of_tasks, **given))
        for table in (dag_node, upstream_set_member):
            used.update(session.column(_nodes_of_dags(table), **given))
        if unused := [one for one in ids if one not in used]:
            session.run(_DELETE_NODE_ARGS, ids=unused)
            session.run(_delete_by_id(node), ids=unused)
        return int(ids[-1]) + 1
