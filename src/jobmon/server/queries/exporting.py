"""Export a whole workflow, page by page: tasks, their dependencies, and all their attempts."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.monitoring import ExportedTask, ExportPage
from jobmon.server.constructs import select
from jobmon.server.joins import IS_IN_WORKFLOW
from jobmon.server.models import (
    argument,
    dag_node,
    node_arg,
    task,
    task_arg,
    task_array,
    task_resources,
    upstream_set,
    upstream_set_member,
    workflow,
)
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.monitoring import attempts_of
from jobmon.server.queries.presence import require
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.times import to_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Column, Select

    from jobmon.server.sql import Session

EXPORTED_TASKS_MAX: Final = 2_000

t = task.c


@statement
def _tasks() -> Select[Any]:
    """Select the next tasks with the exported columns."""
    a, r = task_array.c, task_resources.c
    return (
        select(
            *(t.id, t.name, a.name, t.status, t.status_at, t.command, t.max_attempts, t.num_attempts, t.node_id),
            r.requested,
        )
        .join_from(task, task_array, a.id == t.array_id)
        .outerjoin(task_resources, r.id == t.task_resources_id)
        .where(t.workflow_id == param("workflow"), t.id > param("after"), IS_IN_WORKFLOW)
        .order_by(t.id)
        .limit(param("most"))
    )


@statements
def _args_of(owner: Column[int]) -> Select[Any]:
    """Select the arguments of tasks or nodes; `owner` is the column of their IDs."""
    x = owner.table.c
    return (
        select(owner, argument.c.name, x.value)
        .join_from(owner.table, argument, argument.c.id == x.argument_id)
        .where(any_of(owner, "owners"))
        .order_by(argument.c.name)
    )


@statement
def _sets() -> Select[Any]:
    """Select the upstream sets of nodes in the DAG of a workflow."""
    n, s = dag_node.c, upstream_set.c
    dag = select(workflow.c.dag_id).where(workflow.c.id == param("workflow")).scalar_subquery()
    return (
        select(n.node_id, n.upstream_set_id)
        .join_from(dag_node, upstream_set, s.id == n.upstream_set_id)
        .where(any_of(n.node_id, "nodes"), unindexed(s.dag_id) == dag)
        .order_by(n.upstream_set_id)
    )


@statement
def _set_members() -> Select[Any]:
    """Select the tasks in upstream sets. SQLite must begin with the few sets: otherwise it may read all tasks."""
    m = upstream_set_member.c
    return (
        select(m.upstream_set_id, t.id)
        .join_from(upstream_set_member, task, t.node_id == unindexed(m.node_id))
        .where(any_of(m.upstream_set_id, "sets"), t.workflow_id == param("workflow"), IS_IN_WORKFLOW)
        .order_by(unindexed(t.id))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportQuery:
    """Which page to return: at most `limit` tasks with IDs above `after`."""

    after: int = 0
    limit: int = 1_000


def export_page(session: Session, workflow_id: int, query: ExportQuery) -> ExportPage:
    """Return the next tasks by ID, and the upstream sets that they depend on.

    Raises:
        NotFound: the workflow does not exist.
        InvalidValue: the limit is out of range.
    """
    if not 0 < query.limit <= EXPORTED_TASKS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {EXPORTED_TASKS_MAX}.")
    require(session, "workflow", workflow_id)
    rows = session.rows(_tasks, workflow=workflow_id, after=query.after, most=query.limit)
    task_ids, nodes = [row[0] for row in rows], [row[8] for row in rows]
    node_args = args_of(session, node_arg.c.node_id, nodes)
    task_args = args_of(session, task_arg.c.task_id, task_ids)
    sets = sets_of(session, workflow_id, nodes)
    attempts = attempts_of(session, task_ids)
    return ExportPage(
        tasks=[
            ExportedTask(
                task_id=row[0],
                name=row[1],
                template=row[2],
                status=row[3],
                status_at=to_datetime(row[4]),
                command=row[5],
                max_attempts=row[6],
                num_attempts=row[7],
                node_args=node_args[row[8]],
                task_args=task_args[row[0]],
                requested_resources=json.loads(row[9]) if row[9] else {},
                upstream_sets=sets[row[8]],
                attempts=attempts[row[0]],
            )
            for row in rows
        ],
        sets=_members(session, workflow_id, {number for numbers in sets.values() for number in numbers}),
    )


def sets_of(session: Session, workflow_id: int, node_ids: Sequence[int]) -> dict[int, list[int]]:
    """Return the IDs of the upstream sets of nodes in the DAG of a workflow, by node."""
    sets: dict[int, list[int]] = defaultdict(list)
    for node_id, set_id in session.rows(_sets, nodes=node_ids, workflow=workflow_id):
        sets[node_id].append(set_id)
    return sets


def args_of(session: Session, owner_id: Column[int], owners: Sequence[int]) -> dict[int, dict[str, str]]:
    """Return arguments by owner and name; `owner_id` is the column of the IDs of tasks or nodes."""
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for owner, name, value in session.rows(_args_of(owner_id), owners=owners):
        found[owner][name] = value
    return found


def _members(session: Session, workflow_id: int, sets: Iterable[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for set_id, task_id in session.rows(_set_members, sets=sorted(sets), workflow=workflow_id):
        found[set_id].append(task_id)
    return dict(found)
