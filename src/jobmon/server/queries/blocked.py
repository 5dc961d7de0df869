"""How many tasks of a workflow will never run, kept in memory and updated by what has failed since.

A task is blocked if it is downstream of one that failed permanently. To find all of them, the graph is followed from
every failed task; when more tasks fail, only from these. All are found anew after anything else that may change them:
an action of a user, another number of tasks, or a failed task that is to run again.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import TaskStatus
from jobmon.server.constructs import func, select
from jobmon.server.models import audit, dag_node, task, upstream_set, upstream_set_member
from jobmon.server.queries.graph import blocked_sets
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.transaction import last_stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Select

    from jobmon.server.sql import Session

#: The counts are used for so long without finding all blocked tasks anew: as a rule, and if some of them are in flight,
#: so that they may end.
AGE_SECONDS_MAX: Final = 600.0
FLYING_SECONDS_MAX: Final = 10.0
SET_BYTES: Final = 80

t, n, m, s = task.c, dag_node.c, upstream_set_member.c, upstream_set.c


@statement
def _sets() -> Select[Any]:
    return select(blocked_sets().c.set_id).distinct().order_by("set_id")


@statement
def _tasks_of_sets() -> Select[Any]:
    """Count the tasks that wait for any of these sets by array and status."""
    nodes = select(n.node_id).where(any_of(n.upstream_set_id, "sets"))
    waiting = t.workflow_id == param("workflow"), t.status.not_in(fsm.FINAL_TASKS), t.node_id.in_(nodes)
    return select(t.array_id, t.status, func.count()).where(*waiting).group_by(t.array_id, t.status)


@statement
def _failed_since() -> Select[Any]:
    failed = t.status == TaskStatus.ERROR_FATAL.value
    return select(t.node_id).where(t.workflow_id == param("workflow"), t.status_at > param("since"), failed)


@statement
def _following() -> Select[Any]:
    """Select the tasks that wait for any of these sets."""
    nodes = select(n.node_id).where(any_of(n.upstream_set_id, "sets"))
    return select(t.node_id, t.array_id, t.status).where(t.workflow_id == param("workflow"), t.node_id.in_(nodes))


@statement
def _sets_with() -> Select[Any]:
    """Select the sets of a DAG that contain any of these nodes."""
    found = select(m.upstream_set_id).join_from(upstream_set_member, upstream_set, s.id == m.upstream_set_id)
    return found.where(any_of(m.node_id, "nodes"), unindexed(s.dag_id) == param("dag")).distinct()


@statement
def _sets_before() -> Select[Any]:
    """Select the sets of a DAG for which these nodes wait."""
    found = select(n.node_id, n.upstream_set_id).join_from(dag_node, upstream_set, s.id == n.upstream_set_id)
    return found.where(any_of(n.node_id, "nodes"), unindexed(s.dag_id) == param("dag"))


@statement
def _newest_action() -> Select[Any]:
    a = audit.c
    newest = select(func.max(a.id)).where(a.workflow_id == param("workflow")).scalar_subquery()
    return select(a.id, a.details).where(a.id == newest)


def newest_action(session: Session, workflow_id: int) -> tuple[Any, ...] | None:
    """Return what identifies the newest action of a user on a workflow; similar ones may share an entry."""
    return session.row(_newest_action, workflow=workflow_id)


class Blocked:
    """The counts (see the module docstring). Belongs to who holds its lock in `server.kept`."""

    def __init__(self, workflow_id: int) -> None:
        self._workflow_id = workflow_id
        self.by_array: dict[int, int] = {}
        #: Sets with a task that failed or is blocked: in order those that were found at first, and later ones.
        self._first = array("q")
        self._later: set[int] = set()
        #: What the counts depend on, besides which tasks failed; empty: nothing is known.
        self._basis: tuple[Any, ...] = ()
        self._failed = self._stamp = 0
        self._known_until = 0.0

    @property
    def is_large(self) -> bool:
        """Whether they are worth keeping."""
        return bool(self._basis)

    @property
    def bytes(self) -> int:
        """Memory that they take, about."""
        return 1_000 + 8 * len(self._first) + SET_BYTES * len(self._later)

    def catch_up(
        self, session: Session, dag_id: int, counts: Mapping[int, Mapping[str, int]], monotonic: float
    ) -> dict[int, int]:
        """Return the number of blocked tasks by array, in the snapshot of the session.

        Args:
            session: the session to read with.
            dag_id: ID of the workflow's DAG.
            counts: its tasks by array and status.
            monotonic: current time, monotonic seconds.
        """
        failed = sum(found.get(TaskStatus.ERROR_FATAL.value, 0) for found in counts.values())
        if not failed:
            self._basis, self.by_array = (), {}
            return self.by_array
        action = newest_action(session, self._workflow_id)
        basis = dag_id, action, {array_id: sum(found.values()) for array_id, found in counts.items()}
        stamp: int = session.value(last_stamp)
        is_known = basis == self._basis and stamp >= self._stamp and monotonic < self._known_until
        if not is_known or not self._follow(session, dag_id, stamp, failed, monotonic):
            self._find_all(session, dag_id, monotonic)
        self._basis, self._stamp, self._failed = basis, stamp, failed
        return self.by_array

    def _find_all(self, session: Session, dag_id: int, monotonic: float) -> None:
        self._basis = ()
        self._first = array("q", session.column(_sets, workflow=self._workflow_id, dag=dag_id))
        self._later = set()
        rows = session.rows(_tasks_of_sets, workflow=self._workflow_id, sets=self._first.tolist())
        self.by_array = {}
        for array_id, _, number in rows:
            self.by_array[array_id] = self.by_array.get(array_id, 0) + number
        are_flying = any(status in fsm.IN_FLIGHT for _, status, _ in rows)
        self._known_until = monotonic + (FLYING_SECONDS_MAX if are_flying else AGE_SECONDS_MAX)

    def _follow(self, session: Session, dag_id: int, stamp: int, failed: int, monotonic: float) -> bool:
        """Add what is downstream of the tasks that have failed since; return False if all must be found anew."""
        if stamp == self._stamp:
            return True
        nodes = session.column(_failed_since, workflow=self._workflow_id, since=self._stamp)
        if failed != self._failed + len(nodes):
            return False
        if not nodes:
            return True
        if any(self._has(one) for _, one in session.rows(_sets_before, nodes=nodes, dag=dag_id)):
            return False  # a blocked task was in flight, and failed by itself
        self._basis = ()  # until all are added
        while sets := self._new_sets(session, dag_id, nodes):
            nodes = self._add(session, dag_id, sets, monotonic)
        return True

    def _new_sets(self, session: Session, dag_id: int, nodes: list[int]) -> list[int]:
        """Return the sets with any of these nodes that are not known yet."""
        found = session.column(_sets_with, nodes=nodes, dag=dag_id) if nodes else []
        return sorted(one for one in found if not self._has(one))

    def _add(self, session: Session, dag_id: int, sets: list[int], monotonic: float) -> list[int]:
        """Count the tasks that wait for new sets; return the nodes for which others wait."""
        rows = {row[0]: row for row in session.rows(_following, workflow=self._workflow_id, sets=sets)}
        counted = {node for node, one in session.rows(_sets_before, nodes=sorted(rows), dag=dag_id) if self._has(one)}
        self._later.update(sets)
        for node, array_id, status in rows.values():
            if status not in fsm.FINAL_TASKS and node not in counted:
                self.by_array[array_id] = self.by_array.get(array_id, 0) + 1
            if status in fsm.IN_FLIGHT:
                self._known_until = min(self._known_until, monotonic + FLYING_SECONDS_MAX)
        return [node for node, _, status in rows.values() if status not in fsm.SATISFIED]

    def _has(self, set_id: int) -> bool:
        at = bisect_left(self._first, set_id)
        return set_id in self._later or (at < len(self._first) and self._first[at] == set_id)
