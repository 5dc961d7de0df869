"""Forgetting a workflow: its tasks, attempts and output, in short transactions. What workflows share stays.

An interrupted purge is taken up by the next one: a workflow that began to go cannot be run again, and its DAG is found
under no hash any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Actor
from jobmon.core.exceptions import InvalidRequest
from jobmon.server import transitions
from jobmon.server.usecases.resuming import active_runs, require_owner
from jobmon.server.usecases.runs import require_workflow

if TYPE_CHECKING:
    from jobmon.core.wire.steering import PurgeRequest
    from jobmon.server.transaction import Transaction

#: Rows of one table that go in one transaction.
ROWS_PER_TRANSACTION: Final = 5_000
SETS_PER_TRANSACTION: Final = 1_000
_PURGED: Final = "purged-"
#: What refers to a workflow beside its tasks; those first to which others of them refer last.
_BELONGINGS: Final = (
    *("packed_batch", "batch", "distributor", "slot_lease", "workflow_attribute", "audit", "workflow_run"),
    "task_array",
)


def start_purge(tx: Transaction, workflow_id: int, request: PurgeRequest) -> None:
    """Check that a workflow may go; from here on it cannot be run or found by its arguments.

    Raises:
        InvalidRequest: it belongs to somebody else, a run is active, or attempts are.
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
            f"{len(live)} attempts of workflow {workflow_id} may still run. End them first: jobmon workflow stop -w"
            f" {workflow_id} --kill."
        )
    _require_older(tx, workflow_id)
    tx.run(
        "UPDATE workflow SET bound = FALSE, workflow_args_hash = :hash WHERE id = :id",
        id=workflow_id,
        hash=f"{_PURGED}{workflow_id}",
    )


def _require_older(tx: Transaction, workflow_id: int) -> None:
    """SQLite would give the highest numbers again, and what still bears them elsewhere would be taken for the new ones.

    Such as jobs in a cluster's records, log files, and reports that were held up.
    """
    if tx.dialect != "sqlite":
        return
    newest = (
        "SELECT MAX(id) FROM workflow",
        "SELECT workflow_id FROM task WHERE id = (SELECT MAX(id) FROM task)",
        "SELECT workflow_id FROM workflow_run WHERE id = (SELECT MAX(id) FROM workflow_run)",
        """
        SELECT r.workflow_id FROM task_instance ti JOIN workflow_run r ON r.id = ti.workflow_run_id
        WHERE ti.id = (SELECT MAX(id) FROM task_instance)
        """,
    )
    if any(tx.value(sql) == workflow_id for sql in newest):
        raise InvalidRequest(
            f"Workflow {workflow_id} has the highest numbers on this server, which must not be given again: it can go"
            " when a later workflow has run."
        )


def purge_tasks(tx: Transaction, workflow_id: int) -> int:
    """Forget some tasks with all their attempts; return how many."""
    ids = tx.column(
        "SELECT id FROM task WHERE workflow_id = :workflow ORDER BY id LIMIT :most",
        workflow=workflow_id,
        most=ROWS_PER_TRANSACTION,
    )
    if not ids:
        return 0
    attempts = "(SELECT id FROM task_instance WHERE task_id IN (:ids...))"
    tx.run(f"DELETE FROM log_tail WHERE task_instance_id IN {attempts}", ids=ids)
    for table in ("task_instance", "task_arg", "task_attribute"):
        tx.run(f"DELETE FROM {table} WHERE task_id IN (:ids...)", ids=ids)
    tx.run("DELETE FROM task WHERE id IN (:ids...)", ids=ids)
    return len(ids)


def purge_rest(tx: Transaction, workflow_id: int, request: PurgeRequest) -> None:
    """Forget the workflow itself once no task is left; who did it stays in the audit trail."""
    row = tx.row("SELECT name, user_name, dag_id, task_count FROM workflow WHERE id = :id", id=workflow_id)
    if row is None:  # another purge was faster
        return
    name, owner, dag_id, task_count = row
    tx.run("DELETE FROM packed_job WHERE batch_id IN (SELECT id FROM batch WHERE workflow_id = :id)", id=workflow_id)
    for table in _BELONGINGS:
        tx.run(f"DELETE FROM {table} WHERE workflow_id = :id", id=workflow_id)
    tx.run("DELETE FROM workflow WHERE id = :id", id=workflow_id)
    if tx.value("SELECT id FROM workflow WHERE dag_id = :dag LIMIT 1", dag=dag_id) is None:
        tx.run("UPDATE dag SET complete = FALSE, hash = :hash WHERE id = :dag", dag=dag_id, hash=f"{_PURGED}{dag_id}")
    tx.audit(
        Actor.USER, "purge", None, user=request.user, workflow=workflow_id, name=name, owner=owner, tasks=task_count
    )
    tx.wake_all(workflow_id)


def purge_dags(tx: Transaction) -> bool:
    """Forget a part of a DAG that no workflow has; return whether there is more."""
    dag_id = tx.value(
        "SELECT id FROM dag WHERE hash >= :first AND hash < :end LIMIT 1", first=_PURGED, end=f"{_PURGED}~"
    )
    if dag_id is None:
        return False
    sets = tx.column(
        "SELECT id FROM upstream_set WHERE dag_id = :dag ORDER BY id LIMIT :most", dag=dag_id, most=SETS_PER_TRANSACTION
    )
    if not sets:
        tx.run("DELETE FROM dag WHERE id = :dag", dag=dag_id)
        return True
    for table in ("dag_node", "upstream_set_member"):
        rows = tx.rows(
            f"SELECT upstream_set_id, node_id FROM {table} WHERE upstream_set_id IN (:sets...) LIMIT :most",
            sets=sets,
            most=ROWS_PER_TRANSACTION,
        )
        if rows:
            tx.run_many(f"DELETE FROM {table} WHERE upstream_set_id = ? AND node_id = ?", rows)
            return True
    tx.run("DELETE FROM upstream_set WHERE id IN (:sets...)", sets=sets)
    return True
