"""Dependencies: the neighbours of a task, everything upstream or downstream of nodes, and what failures block."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.server.constructs import and_, func, select
from jobmon.server.joins import IS_FATAL, IS_IN_WORKFLOW
from jobmon.server.models import dag_node, task, upstream_set, upstream_set_member, workflow
from jobmon.server.sql import any_of, param, statements, unindexed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import CTE, ColumnElement, Select, Table

    from jobmon.server.sql import Session

t, n, m, s = task.c, dag_node.c, upstream_set_member.c, upstream_set.c

#: For each side of a node: the table in which the node is looked up, and the table that holds its neighbours.
_SIDES: Final[Mapping[str, tuple[Table, Table]]] = {
    "upstream": (dag_node, upstream_set_member),
    "downstream": (upstream_set_member, dag_node),
}


def _beside(side: str) -> list[ColumnElement[bool]]:
    """Return the conditions for the tasks directly upstream or downstream of a node.

    They are nested subqueries: for a join SQLite has no statistics, and might start with all tasks of the workflow.
    """
    near, far = _SIDES[side]
    dag_id = select(workflow.c.dag_id).where(workflow.c.id == param("workflow")).scalar_subquery()
    sets = (
        select(near.c.upstream_set_id)
        .join_from(near, upstream_set, s.id == near.c.upstream_set_id)
        .where(near.c.node_id == param("node"), s.dag_id == dag_id)
    )
    nodes = select(far.c.node_id).where(far.c.upstream_set_id.in_(sets))
    return [t.workflow_id == param("workflow"), t.node_id.in_(nodes), IS_IN_WORKFLOW]


def tasks_upstream() -> list[ColumnElement[bool]]:
    """Return the conditions for the tasks directly upstream of a node; parameters: `workflow` and `node`."""
    return _beside("upstream")


@statements
def _neighbours(side: str, *, by_status: bool) -> Select[Any]:
    conditions = _beside(side)
    if by_status:
        conditions.append(any_of(t.status, "statuses"))
    # SQLite must sort these few instead of reading all tasks of the workflow in order.
    return select(t.id, t.name, t.status).where(*conditions).order_by(unindexed(t.id)).limit(param("most"))


def neighbours(
    session: Session, workflow_id: int, node_id: int, side: str, most: int, statuses: Iterable[str] | None = None
) -> list[tuple[int, str, str]]:
    """Return ID, name and status of the direct neighbours of a node, by ID.

    Args:
        session: the session to read with.
        workflow_id: the workflow of the tasks.
        node_id: the node.
        side: "upstream" or "downstream".
        most: maximum number of tasks to return.
        statuses: only tasks with one of these statuses; None: with any.
    """
    rows = session.rows(
        _neighbours(side, by_status=statuses is not None),
        node=node_id,
        workflow=workflow_id,
        most=most,
        statuses=sorted(statuses or ()),
    )
    return [(row[0], row[1], row[2]) for row in rows]


@statements
def _neighbour_counts(side: str) -> Select[Any]:
    return select(t.status, func.count()).where(*_beside(side)).group_by(t.status)


def neighbour_counts(session: Session, workflow_id: int, node_id: int, side: str) -> dict[str, int]:
    """Count the tasks directly upstream or downstream of a node by status."""
    return dict(session.rows(_neighbour_counts(side), node=node_id, workflow=workflow_id))


def blocked_sets() -> CTE:
    """Return the sets with a task that failed permanently, and the sets downstream of those, as `set_id`.

    It does not go beyond tasks that are done or skipped: others do not wait for these.

    The statement takes the parameters `workflow` and `dag`.
    """
    failed = task.join(upstream_set_member, m.node_id == t.node_id).join(upstream_set, s.id == m.upstream_set_id)
    blocked = (
        select(m.upstream_set_id.label("set_id"))
        .select_from(failed)
        .where(
            t.workflow_id == param("workflow"),
            IS_FATAL,
            s.dag_id == param("dag"),
        )
        .cte("blocked", recursive=True)
    )
    following = task.alias("following")
    waiting = following.c
    behind = (
        blocked.join(dag_node, n.upstream_set_id == blocked.c.set_id)
        .join(following, and_(waiting.workflow_id == param("workflow"), waiting.node_id == n.node_id))
        .join(upstream_set_member, m.node_id == n.node_id)
        .join(upstream_set, s.id == m.upstream_set_id)
    )
    waits = s.dag_id == param("dag"), unindexed(waiting.status).not_in(fsm.SATISFIED)
    return blocked.union(select(m.upstream_set_id).select_from(behind).where(*waits))


def blocked_nodes() -> Select[Any]:
    """Return the nodes downstream of tasks that failed permanently; see `blocked_sets`."""
    return select(n.node_id).where(n.upstream_set_id.in_(select(blocked_sets().c.set_id)))


def beyond(session: Session, dag_id: int, node_ids: Iterable[int], side: str) -> set[int]:
    """Return the nodes and everything upstream or downstream of them.

    It reads the whole DAG in two statements, because with one per level their number would be the depth of the DAG. The
    time is proportional to the number of edges.
    """
    users, members = _grouped(session, dag_node, dag_id), _grouped(session, upstream_set_member, dag_id)
    if side == "upstream":
        sets_of, nodes_of = _inverted(users), members
    else:
        sets_of, nodes_of = _inverted(members), users
    found = set(node_ids)
    frontier = list(found)
    sets_seen: set[int] = set()
    while frontier:
        sets = {number for node in frontier for number in sets_of.get(node, ())} - sets_seen
        sets_seen |= sets
        frontier = list({node for number in sets for node in nodes_of.get(number, ())} - found)
        found.update(frontier)
    return found


@statements
def _nodes_of_sets(table: Table) -> Select[Any]:
    joined = upstream_set.join(table, table.c.upstream_set_id == s.id)
    return select(s.id, table.c.node_id).select_from(joined).where(s.dag_id == param("dag"))


def _grouped(session: Session, table: Table, dag_id: int) -> dict[int, list[int]]:
    """Return the nodes of each set of a DAG: those that have it as upstream set, or those that it contains."""
    found: dict[int, list[int]] = defaultdict(list)
    for number, node_id in session.rows(_nodes_of_sets(table), dag=dag_id):
        found[number].append(node_id)
    return found


def _inverted(lists: dict[int, list[int]]) -> dict[int, Sequence[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for number, nodes in lists.items():
        for node_id in nodes:
            found[node_id].append(number)
    return dict(found)
