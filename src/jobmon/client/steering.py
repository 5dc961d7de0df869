"""Steer a recorded workflow: hold and release tasks, set priorities and statuses, rerun and skip tasks."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import TaskStatus
from jobmon.core.paths import user_name
from jobmon.core.wire.steering import (
    TASKS_UPDATED_MAX,
    HoldRequest,
    HoldResponse,
    PriorityRequest,
    PriorityResponse,
    TaskUpdatePlan,
    TaskUpdatePlanRequest,
    TaskUpdateRequest,
    TaskUpdateResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jobmon.core.requester import Requester

#: Upper bound; no template needs this many requests.
REQUESTS_MAX: Final = 10_000


def hold(
    requester: Requester,
    workflow_id: int,
    task_ids: Sequence[int] = (),
    template: str = "",
    *,
    held: bool = True,
    any_owner: bool = False,
    preview: bool = False,
) -> HoldResponse:
    """Hold tasks, or release them; return the totals.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        task_ids: IDs of its tasks; empty means all tasks of the template.
        template: name of a template; "" means the tasks in `task_ids`.
        held: True to hold the tasks, False to release them.
        any_owner: also allow a workflow of another user.
        preview: change nothing; return what would change, of a template at most `TASKS_UPDATED_MAX` tasks.
    """
    changed = recalled = unchanged = 0
    finished: list[int] = []
    for chunk in _chunks(task_ids):
        request = HoldRequest(
            task_ids=chunk, template=template, held=held, preview=preview, user=user_name(), any_owner=any_owner
        )
        answer = requester.call(f"/workflows/{workflow_id}/holds", request, HoldResponse)
        changed, recalled = changed + answer.changed, recalled + answer.recalled
        unchanged += answer.unchanged
        finished += answer.finished
        if template and (preview or not answer.changed):
            break
    return HoldResponse(changed=changed, recalled=recalled, unchanged=unchanged, finished=finished)


def _chunks(task_ids: Sequence[int]) -> Iterator[list[int]]:
    """Yield the task IDs of each request; empty lists if a template selects the tasks."""
    if not task_ids:
        yield from ([] for _ in range(REQUESTS_MAX))
    for start in range(0, len(task_ids), TASKS_UPDATED_MAX):
        yield list(task_ids[start : start + TASKS_UPDATED_MAX])


def update(
    requester: Requester,
    workflow_id: int,
    task_ids: Sequence[int],
    status: str,
    *,
    force: bool = False,
    any_owner: bool = False,
    accepted: Mapping[int, str] | None = None,
) -> tuple[int, int]:
    """Set the status of tasks; return how many changed, and how many attempts are being terminated.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        task_ids: IDs of its tasks.
        status: letter of DONE or REGISTERING.
        force: also while the workflow is running; terminate live attempts.
        any_owner: also allow a workflow of another user.
        accepted: hash of what a result is accepted for, by ID of each done task that must not be rerun because of this.
    """
    changed = to_kill = 0
    _accept(requester, workflow_id, accepted or {}, status, any_owner=any_owner)
    for start in range(0, len(task_ids), TASKS_UPDATED_MAX):
        chunk = list(task_ids[start : start + TASKS_UPDATED_MAX])
        request = TaskUpdateRequest(task_ids=chunk, status=status, user=user_name(), force=force, any_owner=any_owner)
        answer = requester.call(f"/workflows/{workflow_id}/task_updates", request, TaskUpdateResponse)
        changed += answer.changed
        to_kill += answer.to_kill
    return changed, to_kill


def _accept(
    requester: Requester, workflow_id: int, accepted: Mapping[int, str], status: str, *, any_owner: bool
) -> None:
    """Accept results before their upstream tasks are reopened, so that a crash in between reruns none of them."""
    for start in range(0, len(accepted), TASKS_UPDATED_MAX):
        chunk = dict(islice(accepted.items(), start, start + TASKS_UPDATED_MAX))
        request = TaskUpdateRequest(
            task_ids=[],
            status=status,
            user=user_name(),
            force=True,
            any_owner=any_owner,
            accepted_ids=list(chunk),
            accepted=list(chunk.values()),
        )
        requester.call(f"/workflows/{workflow_id}/task_updates", request, TaskUpdateResponse)


def skip(requester: Requester, workflow_id: int, task_ids: Sequence[int], *, any_owner: bool = False) -> int:
    """Skip tasks; return how many were not skipped before. If one cannot be skipped, none of its request is.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        task_ids: IDs of its tasks.
        any_owner: also allow a workflow of another user.
    """
    changed, _ = update(requester, workflow_id, task_ids, TaskStatus.SKIPPED.value, force=True, any_owner=any_owner)
    return changed


def prioritize(
    requester: Requester,
    workflow_id: int,
    priority: int,
    task_ids: Sequence[int] = (),
    template: str = "",
    *,
    any_owner: bool = False,
    preview: bool = False,
) -> PriorityResponse:
    """Set the priority of tasks, of a template, or of the workflow if neither is given.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        priority: the new priority.
        task_ids: IDs of its tasks.
        template: name of a template; "" means the tasks in `task_ids`.
        any_owner: also allow a workflow of another user.
        preview: change nothing; return what would change.
    """
    changed = recalled = 0
    finished: list[int] = []
    for start in range(0, max(1, len(task_ids)), TASKS_UPDATED_MAX):
        request = PriorityRequest(
            priority=priority,
            task_ids=list(task_ids[start : start + TASKS_UPDATED_MAX]),
            template=template,
            preview=preview,
            user=user_name(),
            any_owner=any_owner,
        )
        for _ in range(REQUESTS_MAX):
            answer = requester.call(f"/workflows/{workflow_id}/priorities", request, PriorityResponse)
            changed, recalled = changed + answer.changed, recalled + answer.recalled
            if answer.is_complete:
                break
        finished += answer.finished
    return PriorityResponse(changed=changed, recalled=recalled, finished=finished)


def plan_rerun(
    requester: Requester, workflow_id: int, task_ids: Sequence[int], *, only: bool = False
) -> TaskUpdatePlan:
    """Return the tasks that a rerun of some tasks affects, except those that run anyway.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        task_ids: IDs of the tasks to rerun.
        only: rerun only these tasks, not everything downstream.
    """
    question = TaskUpdatePlanRequest(task_ids=list(task_ids), status=TaskStatus.REGISTERING.value, recursive=not only)
    return requester.call(f"/workflows/{workflow_id}/task_updates/plan", question, TaskUpdatePlan)


def rerun(
    requester: Requester, workflow_id: int, task_ids: Sequence[int], *, only: bool = False, any_owner: bool = False
) -> tuple[int, int]:
    """Request a rerun of the tasks that `plan_rerun` returned; return the same as `update`.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        task_ids: IDs of its tasks.
        only: accept the results of done tasks directly downstream, so that nothing else is rerun.
        any_owner: also allow a workflow of another user.
    """
    accepted = _results_downstream(requester, workflow_id, set(task_ids)) if only and task_ids else {}
    return update(
        requester,
        workflow_id,
        task_ids,
        TaskStatus.REGISTERING.value,
        force=True,
        any_owner=any_owner,
        accepted=accepted,
    )


def accept_downstream(
    requester: Requester, workflow_id: int, task_ids: Sequence[int], *, any_owner: bool = False
) -> None:
    """Accept the results of done tasks directly downstream of some tasks, so that they are not rerun after these."""
    accepted = _results_downstream(requester, workflow_id, set(task_ids))
    _accept(requester, workflow_id, accepted, TaskStatus.REGISTERING.value, any_owner=any_owner)


def _results_downstream(requester: Requester, workflow_id: int, task_ids: set[int]) -> dict[int, str]:
    """Return the done tasks directly downstream of some tasks, and the hash of what to accept their results for."""
    from jobmon.client import comparison, recorded

    found = comparison.recorded_only(recorded.fetch(requester, recorded.find_by_id(requester, workflow_id)))
    ids = [task.task_id for task in found.recorded if task is not None]
    touched = {number for number, members in enumerate(found.sets) if any(ids[at] in task_ids for at in members)}
    return {
        ids[position]: found.acceptance(position, [ids[at] for at in found.upstreams(position)])
        for position, known in enumerate(found.recorded)
        if found.set_of[position] in touched
        and known is not None
        and known.status == TaskStatus.DONE
        and known.task_id not in task_ids
    }
