"""Give a workflow a DAG of its own before its definition changes, so that other workflows keep theirs."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from jobmon.server.constructs import Integer, func, insert, literal, select, update
from jobmon.server.models import dag, dag_node, upstream_set, upstream_set_member, workflow
from jobmon.server.sql import any_of, param, statement, statements, unindexed

if TYPE_CHECKING:
    from sqlalchemy import Insert, Select, Table, Update

    from jobmon.server.transaction import Transaction

#: Number of sets of upstream nodes that one transaction copies.
SETS_COPIED_PER_TRANSACTION: Final = 1_000
#: The recorded creator of the sets of a copied DAG.
COPY: Final = "copy"

w, d, u = workflow.c, dag.c, upstream_set.c


@statement
def _dag_of_workflow() -> Select[Any]:
    return select(w.dag_id).where(w.id == param("id"))


@statement
def _other_user_of_dag() -> Select[Any]:
    return select(w.id).where(w.dag_id == param("dag"), w.id != param("workflow")).limit(1)


@statement
def _dag_by_hash() -> Select[Any]:
    return select(d.id, d.complete).where(d.hash == param("hash"))


@statement
def _hash_of_dag() -> Select[Any]:
    return select(d.hash, w.defined_dag_hash).join_from(workflow, dag, d.id == w.dag_id).where(w.id == param("id"))


@statement
def _set_dag_hash() -> Update:
    return update(dag).values(hash=param("hash")).where(d.id == param("id"))


@statement
def _own_dag() -> Update:
    values = {"dag_id": param("dag"), "defined_dag_hash": param("hash")}
    return update(workflow).values(values).where(w.id == param("id"))


_COMPLETE_DAG = statement(lambda: update(dag).values(complete=literal(True)).where(d.id == param("id")))


@statement
def _next_sets_to_copy() -> Select[Any]:
    copied = select(func.coalesce(func.max(u.number), 0)).where(u.dag_id == param("copy")).scalar_subquery()
    return select(u.id).where(u.dag_id == param("dag"), u.id > copied).order_by(u.id).limit(param("most", Integer))


@statements
def _copy_of_sets(table: Table) -> Insert:
    """Copy the members or the users of sets to the copied sets, whose numbers are the original IDs."""
    columns = (u.id, table.c.node_id)
    rows = (
        select(*columns)
        .join_from(upstream_set, table, table.c.upstream_set_id == u.number)
        .where(u.dag_id == param("copy"), any_of(unindexed(u.number), "sets"))
    )
    return insert(table).from_select(["upstream_set_id", "node_id"], rows)


def make_dag_private(tx: Transaction, workflow_id: int) -> bool:
    """Give a workflow a DAG that no other workflow uses, in parts; return whether it has one now.

    A DAG that no other workflow uses, the usual case, is taken over by changing its hash; only a shared one is copied.
    """
    row = tx.row(_dag_of_workflow, id=workflow_id)
    assert row is not None
    dag_id = row[0]
    dag_hash, defined = tx.row(_hash_of_dag, id=workflow_id) or ("", None)
    private = sha256(f"workflow {workflow_id}".encode()).hexdigest()
    if dag_hash == private:
        return True
    if tx.value(_other_user_of_dag, dag=dag_id, workflow=workflow_id) is None and not _has_copy(tx, private):
        tx.run(_set_dag_hash, hash=private, id=dag_id)
        tx.run(_own_dag, dag=dag_id, hash=defined or dag_hash, id=workflow_id)
        return True
    tx.insert_many(dag, ("hash", "complete"), [(private, False)], ignore=True)
    copy_id = (tx.row(_dag_by_hash, hash=private) or (0, False))[0]
    sets = tx.column(_next_sets_to_copy, dag=dag_id, copy=copy_id, most=SETS_COPIED_PER_TRANSACTION)
    if not sets:
        tx.run(_COMPLETE_DAG, id=copy_id)
        tx.run(_own_dag, dag=copy_id, hash=defined or dag_hash, id=workflow_id)
        return True
    tx.insert_many(upstream_set, ("dag_id", "caller", "number"), [(copy_id, COPY, set_id) for set_id in sets])
    for table in (upstream_set_member, dag_node):
        tx.run(_copy_of_sets(table), copy=copy_id, sets=sets)
    return False


def _has_copy(tx: Transaction, private: str) -> bool:
    """Return whether a copy was started while another workflow used the DAG."""
    return tx.row(_dag_by_hash, hash=private) is not None
