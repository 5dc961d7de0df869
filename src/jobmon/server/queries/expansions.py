"""Return the expansions of a workflow, and what clients show to their functions: the upstream tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobmon.core.constants import TaskKind, TaskStatus
from jobmon.core.wire.expanding import EXPANSIONS_PER_PAGE_MAX, UPSTREAM_TASKS_MAX, ExpansionsPage, UpstreamTasks
from jobmon.server.constructs import and_, func, select
from jobmon.server.declared_files import declared_of, paths_of
from jobmon.server.joins import IS_IN_WORKFLOW, IS_NEWEST_ATTEMPT
from jobmon.server.models import (
    IS_EXPANSION,
    dag_node,
    expansion,
    node_arg,
    task,
    task_array,
    task_instance,
    task_template,
    task_template_version,
    upstream_set,
    upstream_set_member,
    workflow,
)
from jobmon.server.queries.exporting import args_of
from jobmon.server.queries.presence import require
from jobmon.server.sql import any_of, param, statement, unindexed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Select

    from jobmon.core.files import Files, Pattern
    from jobmon.server.sql import Session

t, e, a, ti = task.c, expansion.c, task_array.c, task_instance.c


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterQuery:
    """Which page to return: tasks with IDs above `after`."""

    after: int = 0


@statement
def _expansions() -> Select[Any]:
    return (
        select(t.id, t.name, t.command, t.status, e.error)
        .outerjoin_from(task, expansion, e.task_id == t.id)
        .where(t.workflow_id == param("workflow"), IS_EXPANSION, t.id > param("after"), IS_IN_WORKFLOW)
        .order_by(t.id)
        .limit(param("most"))
    )


@statement
def _count_added() -> Select[Any]:
    is_added = any_of(t.origin_id, "ids"), t.origin_id.is_not(None), IS_IN_WORKFLOW
    return select(t.origin_id, func.count()).where(*is_added).group_by(t.origin_id)


def expansions_page(session: Session, workflow_id: int, query: AfterQuery) -> ExpansionsPage:
    """Return the next expansions of a workflow.

    Raises:
        NotFound: the workflow does not exist.
    """
    require(session, "workflow", workflow_id)
    rows = session.rows(_expansions, workflow=workflow_id, after=query.after, most=EXPANSIONS_PER_PAGE_MAX)
    added = dict(session.rows(_count_added, ids=[row[0] for row in rows])) if rows else {}
    return ExpansionsPage(
        task_ids=[row[0] for row in rows],
        names=[row[1] for row in rows],
        commands=[row[2] for row in rows],
        statuses=[row[3] for row in rows],
        added=[added.get(row[0], 0) for row in rows],
        errors={at: row[4] for at, row in enumerate(rows) if row[4] is not None},
    )


@statement
def _place() -> Select[Any]:
    w = workflow.c
    return select(w.id, w.dag_id, t.node_id).join_from(task, workflow, w.id == t.workflow_id).where(t.id == param("id"))


@statement
def _upstream_tasks() -> Select[Any]:
    """Select the next upstream tasks of a node, with their newest attempts."""
    n, s, m = dag_node.c, upstream_set.c, upstream_set_member.c
    v, p = task_template_version.c, task_template.c
    sets = (
        select(n.upstream_set_id)
        .join_from(dag_node, upstream_set, s.id == n.upstream_set_id)
        .where(n.node_id == param("node"), s.dag_id == param("dag"))
    )
    nodes = select(m.node_id).where(m.upstream_set_id.in_(sets))
    return (
        select(t.id, t.array_id, t.node_id, t.name, t.status, p.name, ti.id, ti.stdout, ti.stderr)
        .join_from(task, task_array, a.id == t.array_id)
        .join(task_template_version, v.id == a.task_template_version_id)
        .join(task_template, p.id == v.task_template_id)
        .outerjoin(task_instance, and_(IS_NEWEST_ATTEMPT))
        .where(
            *(t.workflow_id == param("workflow"), t.node_id.in_(nodes), unindexed(t.id) > param("after")),
            *(t.kind == TaskKind.COMMAND.value, t.status != TaskStatus.REMOVED.value),
        )
        .order_by(unindexed(t.id))
        .limit(param("most"))
    )


def upstream_tasks(session: Session, task_id: int, query: AfterQuery) -> UpstreamTasks:
    """Return the next upstream tasks of a task, without expansions.

    Raises:
        NotFound: the task does not exist.
    """
    require(session, "task", task_id)
    workflow_id, dag_id, node_id = session.row(_place, id=task_id) or (0, 0, 0)
    values = {"workflow": workflow_id, "dag": dag_id, "node": node_id, "after": query.after}
    rows = session.rows(_upstream_tasks, **values, most=UPSTREAM_TASKS_MAX)
    node_args = args_of(session, node_arg.c.node_id, [row[2] for row in rows])
    declared = declared_of(session, (row[1] for row in rows)) if rows else {}
    paths = paths_of(session, (row[:2] for row in rows), declared)
    return UpstreamTasks(
        task_ids=[row[0] for row in rows],
        names=[row[3] for row in rows],
        statuses=[row[4] for row in rows],
        templates=[row[5] for row in rows],
        node_args=[node_args[row[2]] for row in rows],
        outputs=[_outputs(paths[row[0]], declared[row[1]].files.outputs) if row[0] in paths else {} for row in rows],
        attempts=[row[6] or 0 for row in rows],
        stdout=[row[7] for row in rows],
        stderr=[row[8] for row in rows],
        is_last=len(rows) < UPSTREAM_TASKS_MAX,
    )


def _outputs(paths: Files, patterns: Iterable[Pattern]) -> dict[str, str]:
    """Return the paths of declared outputs, by name or, without a name, by their number from 0."""
    named = zip(patterns, paths.outputs, strict=True)
    return {pattern.name or str(at): path for at, (pattern, path) in enumerate(named)}
