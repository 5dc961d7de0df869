"""Joins and subqueries that several statements share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import TaskInstanceStatus, TaskStatus
from jobmon.server.constructs import Boolean, and_, func, literal_column, or_, select
from jobmon.server.models import (
    batch,
    cluster,
    packed_batch,
    queue,
    task,
    task_array,
    task_instance,
    task_resources,
    task_revision,
    tool,
    tool_version,
    workflow,
    workflow_run,
)
from jobmon.server.sql import any_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Join, ScalarSelect

#: The attempts of all runs of a workflow: filter by `workflow_run.c.workflow_id`.
ATTEMPTS_OF_WORKFLOW: Final[Join] = workflow_run.join(
    task_instance, task_instance.c.workflow_run_id == workflow_run.c.id
)
#: Attempts with their tasks.
ATTEMPTS_WITH_TASKS: Final[Join] = task_instance.join(task, task.c.id == task_instance.c.task_id)
#: Whether an attempt is the newest of its task.
IS_NEWEST_ATTEMPT: Final[ColumnElement[bool]] = and_(
    task_instance.c.task_id == task.c.id, task_instance.c.number == task.c.attempt_count
)
#: Whether a task belongs to the current version of its workflow. Totals and neighbours do not include removed tasks.
IS_IN_WORKFLOW: Final[ColumnElement[bool]] = task.c.status != TaskStatus.REMOVED.value
#: Whether a task failed permanently. The status is no parameter, so that SQLite uses the index of failed tasks.
IS_FATAL: Final[ColumnElement[bool]] = task.c.status == literal_column(f"'{TaskStatus.ERROR_FATAL.value}'")
#: Whether an attempt failed and is charged to its task, in the words of the index of failed attempts.
IS_FAILURE: Final[ColumnElement[bool]] = and_(
    literal_column("task_instance.charged", Boolean()),
    task_instance.c.status != literal_column(f"'{TaskInstanceStatus.DONE.value}'"),
)
#: Whether a run is active: its status is not final.
IS_ACTIVE_RUN: Final[ColumnElement[bool]] = workflow_run.c.status.not_in(fsm.FINAL_RUNS)
#: Tasks with their newest attempts; tasks without an attempt are left out.
TASKS_WITH_NEWEST_ATTEMPTS: Final[Join] = task.join(task_instance, IS_NEWEST_ATTEMPT)
#: The newest attempts of tasks, with their tasks and the arrays to which these belonged when they were queued: a task
#: whose template has changed since is in another array. Filter by columns of the array.
ARRAYS_WITH_NEWEST_ATTEMPTS: Final[Join] = task_array.join(
    task,
    and_(
        task.c.workflow_id == task_array.c.workflow_id,
        or_(task.c.array_id == task_array.c.id, task.c.revision > 1),  # others cannot match: attempts are not read
    ),
).join(
    task_instance,
    and_(
        IS_NEWEST_ATTEMPT,
        or_(
            and_(task_instance.c.revision == task.c.revision, task.c.array_id == task_array.c.id),
            select(task_revision.c.task_id)
            .where(
                task_revision.c.task_id == task_instance.c.task_id,
                task_revision.c.revision == task_instance.c.revision,
                task_revision.c.task_template_version_id == task_array.c.task_template_version_id,
            )
            .correlate(task_instance, task_array)
            .exists(),
        ),
    ),
)
#: Resource requests with their queues and clusters.
RESOURCES_WITH_CLUSTERS: Final[Join] = task_resources.join(queue, queue.c.id == task_resources.c.queue_id).join(
    cluster, cluster.c.id == queue.c.cluster_id
)
#: Workflows with their tools.
WORKFLOWS_WITH_TOOLS: Final[Join] = workflow.join(tool_version, tool_version.c.id == workflow.c.tool_version_id).join(
    tool, tool.c.id == tool_version.c.tool_id
)
#: Packed batches with the columns that they share with other batches.
PACKED_BATCHES: Final[Join] = packed_batch.join(batch, batch.c.id == packed_batch.c.batch_id)


def newest_run(workflow_id: ColumnElement[Any]) -> ScalarSelect[Any]:
    """Return a subquery for the ID of the newest run of a workflow."""
    newest = workflow_run.alias("newest")
    found = select(func.max(newest.c.id)).where(newest.c.workflow_id == workflow_id)
    return found.correlate_except(newest).scalar_subquery()


def changes_hold(*, held: bool) -> ColumnElement[bool]:
    """Return whether a request to hold or release a task changes it."""
    return and_(task.c.held != held, task.c.status.not_in(fsm.SETTLED))


def has_live_attempt(statuses: str) -> ColumnElement[bool]:
    """Return whether the newest attempt of a task has one of the states in the list parameter of that name."""
    return (
        select(task_instance.c.id)
        .where(
            IS_NEWEST_ATTEMPT,
            any_of(task_instance.c.status, statuses),
        )
        .correlate(task)
        .exists()
    )
