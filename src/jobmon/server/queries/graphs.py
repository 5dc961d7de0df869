"""Graphs to draw: the templates of a workflow with their dependencies, and the neighbourhood of a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire import replace
from jobmon.core.wire.graph import GraphTask, TaskEdge, TaskGraph, TemplateEdge, TemplateGraph
from jobmon.server.constructs import BigInteger, and_, cast, func, select
from jobmon.server.counting import counts_by_array
from jobmon.server.joins import IS_IN_WORKFLOW
from jobmon.server.models import dag_node, task, task_array, upstream_set, upstream_set_member, workflow
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries import graph
from jobmon.server.queries.blocked import newest_action
from jobmon.server.queries.presence import require
from jobmon.server.sql import any_of, param, statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Select, Subquery, Table

    from jobmon.server.recent import Recent
    from jobmon.server.sql import Session

STEPS_MAX: Final = 3
#: Maximum number of tasks in a neighbourhood, and of neighbours of one task on either side that are shown.
TASKS_MAX: Final = 60
NEIGHBOURS_SHOWN_MAX: Final = 8
#: Dependencies of templates are not read again for so long, as long as neither tasks nor actions of users are added.
GRAPH_SECONDS_MAX: Final = 600.0

t, a = task.c, task_array.c


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGraphQuery:
    """How many steps to go upstream and downstream."""

    steps: int = 2


# -- templates ---------------------------------------------------------------------------------------------------------


def _arrays_of_sets(table: Table, name: str) -> Subquery:
    """Select the arrays of the nodes in each upstream set of a DAG, or of those that have the set, and their number."""
    joined = upstream_set.join(table, table.c.upstream_set_id == upstream_set.c.id).join(
        task, and_(t.workflow_id == param("workflow"), t.node_id == table.c.node_id)
    )
    set_id = upstream_set.c.id
    return (
        select(set_id.label("set_id"), t.array_id.label("array_id"), func.count().label("number"))
        .select_from(joined)
        .where(upstream_set.c.dag_id == param("dag"), IS_IN_WORKFLOW)
        .group_by(set_id, t.array_id)
        .subquery(name)
    )


@statement
def _edges() -> Select[Any]:
    users, members = _arrays_of_sets(dag_node, "users").c, _arrays_of_sets(upstream_set_member, "members").c
    number = cast(func.sum(users.number), BigInteger)
    joined = select(members.array_id, users.array_id, number).where(users.set_id == members.set_id)
    return joined.group_by(members.array_id, users.array_id)


@statement
def _names() -> Select[Any]:
    return select(a.id, a.name).where(a.workflow_id == param("workflow")).order_by(a.id)


@statement
def _dag() -> Select[Any]:
    return select(workflow.c.dag_id).where(workflow.c.id == param("workflow"))


def template_graph(session: Session, workflow_id: int, recent: Recent) -> TemplateGraph:
    """Return the templates of a workflow and their dependencies. Reads all its dependencies, unless they are the same.

    Raises:
        NotFound: the workflow does not exist.
    """
    require(session, "workflow", workflow_id)
    names = dict(session.rows(_names, workflow=workflow_id))
    used = counts_by_array(session, workflow_id)
    sums: dict[tuple[str, str], int] = {}
    dag_id = session.value(_dag, workflow=workflow_id)
    edges = recent.while_same(
        ("template graph", workflow_id),
        (
            dag_id,
            newest_action(session, workflow_id),
            {array_id: sum(found.values()) for array_id, found in used.items()},
        ),
        lambda: session.rows(_edges, workflow=workflow_id, dag=dag_id),
        GRAPH_SECONDS_MAX,
    )
    for upstream, downstream, number in edges:
        key = names[upstream], names[downstream]
        sums[key] = sums.get(key, 0) + number
    return TemplateGraph(
        templates=list(dict.fromkeys(name for array_id, name in names.items() if array_id in used)),
        edges=[TemplateEdge(upstream=key[0], downstream=key[1], tasks=number) for key, number in sums.items()],
    )


# -- tasks -------------------------------------------------------------------------------------------------------------


@statement
def _task() -> Select[Any]:
    return select(t.name, t.status, t.workflow_id, t.node_id).where(t.id == param("id"))


@statement
def _nodes_of_tasks() -> Select[Any]:
    return select(t.id, t.node_id).where(any_of(t.id, "ids"))


@dataclass(slots=True)
class _Found:
    """The neighbourhood so far."""

    tasks: dict[int, GraphTask]
    edges: set[tuple[int, int]] = field(default_factory=set)

    def add(self, center: int, neighbours: Sequence[tuple[int, str, str]], total: int, step: int) -> list[int]:
        """Add neighbours of a task; return those that are new."""
        added = []
        shown = 0
        for task_id, name, status in neighbours:
            if task_id not in self.tasks:
                if len(self.tasks) >= TASKS_MAX:
                    continue
                self.tasks[task_id] = GraphTask(task_id=task_id, name=name, status=status, step=step)
                added.append(task_id)
            shown += 1
            self.edges.add((task_id, center) if step < 0 else (center, task_id))
        known = self.tasks[center]
        self.tasks[center] = replace(known, more=known.more + total - shown)
        return added


def task_graph(session: Session, task_id: int, query: TaskGraphQuery) -> TaskGraph:
    """Return the neighbourhood of a task.

    Raises:
        NotFound: the task does not exist.
        InvalidValue: the number of steps is out of range.
    """
    if not 0 < query.steps <= STEPS_MAX:
        raise InvalidValue(f"steps: must be from 1 to {STEPS_MAX}.")
    row = session.row(_task, id=task_id)
    if row is None:
        raise NotFound.of("task", task_id)
    name, status, workflow_id, _ = row
    found = _Found({task_id: GraphTask(task_id=task_id, name=name, status=status, step=0)})
    for side, sign in (("upstream", -1), ("downstream", 1)):
        frontier = [task_id]
        for step in range(1, query.steps + 1):
            frontier = _beyond(session, workflow_id, found, frontier, side, sign * step)
    edges = [TaskEdge(upstream=upstream, downstream=downstream) for upstream, downstream in sorted(found.edges)]
    return TaskGraph(task_id=task_id, tasks=list(found.tasks.values()), edges=edges)


def _beyond(
    session: Session, workflow_id: int, found: _Found, frontier: Iterable[int], side: str, step: int
) -> list[int]:
    """Add the neighbours of some tasks on one side; return the new ones."""
    added = []
    for center, node_id in session.rows(_nodes_of_tasks, ids=list(frontier)):
        near = graph.neighbours(session, workflow_id, node_id, side, NEIGHBOURS_SHOWN_MAX)
        total = len(near)
        if total == NEIGHBOURS_SHOWN_MAX:
            total = sum(graph.neighbour_counts(session, workflow_id, node_id, side).values())
        added += found.add(center, near, total, step)
    return added
