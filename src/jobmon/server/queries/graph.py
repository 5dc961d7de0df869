"""Who waits for whom: the tasks next to a task, and all that lie before or after some."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.server.sql import Session

# Nested and not joined: of joined tables SQLite, without statistics, may begin with all tasks of the workflow.
# `+` keeps it from reading all of them in order instead of sorting the few.
_UPSTREAM: Final = """
FROM task t WHERE t.workflow_id = :workflow AND t.node_id IN (
    SELECT m.node_id FROM upstream_set_member m WHERE m.upstream_set_id IN (
        SELECT n.upstream_set_id FROM dag_node n JOIN upstream_set s ON s.id = n.upstream_set_id
        WHERE n.node_id = :node AND s.dag_id = (SELECT dag_id FROM workflow WHERE id = :workflow)
    )
)
"""
_DOWNSTREAM: Final = """
FROM task t WHERE t.workflow_id = :workflow AND t.node_id IN (
    SELECT n.node_id FROM dag_node n WHERE n.upstream_set_id IN (
        SELECT m.upstream_set_id FROM upstream_set_member m JOIN upstream_set s ON s.id = m.upstream_set_id
        WHERE m.node_id = :node AND s.dag_id = (SELECT dag_id FROM workflow WHERE id = :workflow)
    )
)
"""
_NEIGHBOURS: Final = {"upstream": _UPSTREAM, "downstream": _DOWNSTREAM}


def neighbours(
    session: Session, workflow_id: int, node_id: int, side: str, most: int, statuses: Iterable[str] | None = None
) -> list[tuple[int, str, str]]:
    """Return id, name and status of the tasks directly upstream or downstream of a node, at most so many, by id."""
    condition = "" if statuses is None else "AND t.status IN (:statuses...)"
    values = {} if statuses is None else {"statuses": sorted(statuses)}
    rows = session.rows(
        f"SELECT t.id, t.name, t.status {_NEIGHBOURS[side]} {condition} ORDER BY +t.id LIMIT :most",
        node=node_id,
        workflow=workflow_id,
        most=most,
        **values,
    )
    return [(row[0], row[1], row[2]) for row in rows]


def neighbour_counts(session: Session, workflow_id: int, node_id: int, side: str) -> dict[str, int]:
    """Count the tasks directly upstream or downstream of a node by status."""
    return dict(
        session.rows(
            f"SELECT t.status, COUNT(*) {_NEIGHBOURS[side]} GROUP BY t.status",
            node=node_id,
            workflow=workflow_id,
        )
    )


def beyond(session: Session, dag_id: int, node_ids: Iterable[int], side: str) -> set[int]:
    """Return the nodes, and all that lie before ("upstream") or after ("downstream") them, however far.

    Reads the DAG once, because a level at a time would be as many questions as it is deep. In proportion to its edges.
    """
    users, members = _edges(session, dag_id)
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


def _edges(session: Session, dag_id: int) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Return for each upstream set who has it, and what is in it."""
    return _grouped(session, "dag_node", dag_id), _grouped(session, "upstream_set_member", dag_id)


def _grouped(session: Session, table: str, dag_id: int) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for number, node_id in session.rows(
        f"SELECT s.id, x.node_id FROM upstream_set s JOIN {table} x ON x.upstream_set_id = s.id WHERE s.dag_id = :dag",
        dag=dag_id,
    ):
        found[number].append(node_id)
    return found


def _inverted(lists: dict[int, list[int]]) -> dict[int, Sequence[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for number, nodes in lists.items():
        for node_id in nodes:
            found[node_id].append(number)
    return dict(found)
