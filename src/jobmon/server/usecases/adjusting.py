"""Edit what tasks request, on behalf of a page: resources and maximum number of attempts, never the command.

A page's session may steer recorded workflows, but not decide what they run (decision 37). The server merges the new
amounts with what each task requests now, and accepts what the limits of its queue allow. Other resources, which only
a plug-in understands, are edited with `jobmon task edit`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import resources as rules
from jobmon.core.constants import ResourceType
from jobmon.core.exceptions import InvalidRequest, JobmonError
from jobmon.core.wire.binding import RESOURCES_PER_CHUNK_MAX, ResourcesRequest, ResourcesSpec
from jobmon.core.wire.steering import TASKS_UPDATED_MAX, AdjustRequest, EditRequest, EditResponse
from jobmon.server.constructs import select
from jobmon.server.joins import RESOURCES_WITH_CLUSTERS
from jobmon.server.models import cluster, queue, task, task_resources
from jobmon.server.problems import InvalidValue
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.usecases.definitions import find_resources
from jobmon.server.usecases.editing import edit, require_commands
from jobmon.server.usecases.resuming import require_owner
from jobmon.server.usecases.runs import require_workflow
from jobmon.server.usecases.steering import require_unsteered, task_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Select

    from jobmon.server.transaction import Transaction

#: The resources that can be adjusted: every cluster knows them.
ADJUSTABLE: Final = tuple(rules.UNITS)

t, r = task.c, task_resources.c


@statement
def _revisions() -> Select[Any]:
    of_workflow = unindexed(t.workflow_id) == param("workflow")
    return select(t.id, t.revision, t.task_resources_id).where(any_of(t.id, "ids"), of_workflow)


@statement
def _requests() -> Select[Any]:
    return (
        select(r.id, cluster.c.name, queue.c.name, queue.c.parameters, r.requested)
        .select_from(RESOURCES_WITH_CLUSTERS)
        .where(any_of(r.id, "ids"))
    )


def adjust(tx: Transaction, workflow_id: int, request: AdjustRequest) -> EditResponse:
    """Edit what tasks request, for their next attempts.

    Raises:
        NotFound: the workflow does not exist, or a task is not in it.
        InvalidValue: there are too many tasks or nothing to change, or an amount is invalid or above the queue's limit.
        InvalidRequest: the workflow belongs to another user, or a task is done, is an expansion or was removed. Nothing
            has been changed.
        WorkflowVersionConflict: somebody else steered the workflow after the preview.
    """
    if len(request.task_ids) > TASKS_UPDATED_MAX:
        raise InvalidValue(f"task_ids: at most {TASKS_UPDATED_MAX} in one request.")
    asked = _asked(request)
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    require_unsteered(tx, workflow_id, request.unchanged_since)
    ids = sorted(set(request.task_ids))
    task_rows(tx, workflow_id, ids)
    require_commands(tx, ids)
    found = {row[0]: row[1:] for row in tx.rows(_revisions, ids=ids, workflow=workflow_id)}
    return edit(
        tx,
        workflow_id,
        EditRequest(
            task_ids=ids,
            revisions=[found[task_id][0] for task_id in ids],
            max_attempts=request.max_attempts,
            task_resources_ids=_recorded(tx, {one: found[one][1] for one in ids}, asked) if asked else [],
            reset=request.reset,
            user=request.user,
            any_owner=request.any_owner,
        ),
    )


def _asked(request: AdjustRequest) -> rules.Resources:
    """Return the new amounts in normal form.

    Raises:
        InvalidValue: one cannot be read.
    """
    words = {name: value for name in ADJUSTABLE if (value := getattr(request, name).strip())}
    try:
        return rules.normalized(words)
    except JobmonError as error:
        raise InvalidValue(str(error)) from None


def _recorded(tx: Transaction, requests: Mapping[int, int | None], asked: rules.Resources) -> list[int]:
    """Return the ID of the new request of each task, in order; tasks with equal requests share one."""
    for task_id, resources_id in requests.items():
        if resources_id is None:
            raise InvalidRequest(
                f"The resources of task {task_id} are determined by a function of its script when it is queued; they"
                " cannot be edited. Nothing was changed."
            )
    former = sorted({one for one in requests.values() if one is not None})
    rows = {row[0]: row[1:] for row in tx.rows(_requests, ids=former)}
    specs = [_merged(asked, *rows[one]) for one in former]
    recorded: dict[int | None, int] = {}
    for start in range(0, len(former), RESOURCES_PER_CHUNK_MAX):
        chunk: Sequence[int] = former[start : start + RESOURCES_PER_CHUNK_MAX]
        ids = find_resources(tx, ResourcesRequest(resources=specs[start : start + RESOURCES_PER_CHUNK_MAX])).ids
        recorded |= zip(chunk, ids, strict=True)
    return [recorded[one] for one in requests.values()]


def _merged(
    asked: rules.Resources, cluster_name: str, queue_name: str, parameters: str, requested: str
) -> ResourcesSpec:
    """Return a request with some amounts replaced.

    Raises:
        InvalidValue: the queue does not accept it.
    """
    merged = {**json.loads(requested), **asked}
    problems = rules.problems_with(rules.normalized(merged), json.loads(parameters))
    if problems:
        raise InvalidValue(
            f"{'; '.join(problems)} (queue {queue_name!r} of cluster {cluster_name!r}). Nothing was changed."
        )
    return ResourcesSpec(
        cluster_name=cluster_name, queue_name=queue_name, requested=merged, kind=ResourceType.VALIDATED.value
    )
