"""Edit recorded tasks: merge new resources with what they request now, check the result, and send it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.client.binding import resources_spec
from jobmon.client.clusters import Clusters
from jobmon.client.defaults import checked_max_attempts, checked_resources
from jobmon.client.task_resources import TaskResources
from jobmon.client.task_template_version import check_command
from jobmon.core.constants import ResourceType, TaskStatus
from jobmon.core.exceptions import InvalidRequest, InvalidResources
from jobmon.core.paths import user_name
from jobmon.core.resources import is_auto
from jobmon.core.texts import checked_text, rerun_with_edit
from jobmon.core.wire.binding import RESOURCES_PER_CHUNK_MAX, IdsResponse, ResourcesRequest
from jobmon.core.wire.steering import TASKS_UPDATED_MAX, EditPlan, EditPlanRequest, EditRequest, EditResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.core.requester import Requester
    from jobmon.core.resources import Resources
    from jobmon.core.wire.swarm import ResourcesInfo

QUEUE: Final = "queue"


@dataclass(frozen=True, slots=True)
class Edit:
    """What to change in tasks. `compute_resources`: those to change, "queue" included."""

    command: str | None = None
    compute_resources: Mapping[str, Any] = field(default_factory=dict)
    max_attempts: int | None = None
    reset: bool = False

    @property
    def options(self) -> list[str]:
        """The options of `jobmon task edit` and `jobmon task rerun` that make this change."""
        is_given = {
            "command": self.command is not None,
            "set": bool(self.compute_resources.keys() - {QUEUE}),
            "max-attempts": self.max_attempts is not None,
            "queue": QUEUE in self.compute_resources,
            "reset": self.reset,
        }
        return [name for name, given in is_given.items() if given]

    def check(self) -> None:
        """Check what does not depend on the tasks.

        Raises:
            ValueError: there is nothing to change, or a value is invalid.
        """
        if not isinstance(self.compute_resources, Mapping):
            raise ValueError(f"compute_resources of an edit must be a dict, not {self.compute_resources!r}.")
        has_changes = self.command is not None or self.max_attempts is not None or bool(self.compute_resources)
        if has_changes == self.reset:
            raise ValueError(
                "An edit changes the command, resources or max_attempts, or it resets them; specify one of the two."
            )
        if self.command is not None and (not isinstance(self.command, str) or not self.command.strip()):
            raise ValueError(f"command must be a non-empty text, not {self.command!r}.")
        if self.command is not None:
            check_command(checked_text("command", self.command))
        checked_max_attempts(self.max_attempts)
        if any(is_auto(value) for value in self.compute_resources.values()):
            raise InvalidResources('compute_resources: an edit needs a value; "auto" works only in a script.')


def plan_edit(requester: Requester, workflow_id: int, task_ids: Sequence[int]) -> EditPlan:
    """Return the definitions of tasks; at most `TASKS_UPDATED_MAX` tasks.

    Raises:
        InvalidRequest: the workflow does not exist, or a task is not part of it.
    """
    if len(task_ids) > TASKS_UPDATED_MAX:
        raise InvalidRequest(f"At most {TASKS_UPDATED_MAX:,} tasks can be edited at once, not {len(task_ids):,}.")
    question = EditPlanRequest(task_ids=list(task_ids))
    return requester.call(f"/workflows/{workflow_id}/edits/plan", question, EditPlan)


def edit(
    requester: Requester,
    workflow_id: int,
    task_ids: Sequence[int],
    change: Edit,
    *,
    rerun: bool = False,
    only: bool = False,
    any_owner: bool = False,
    plan: EditPlan | None = None,
) -> EditResponse:
    """Edit tasks, all or none.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        task_ids: IDs of its tasks.
        change: what to change.
        rerun: also request a rerun of these tasks, in the same step; otherwise done tasks are refused.
        only: accept the results of done tasks directly downstream, so that they are not rerun because of this.
        any_owner: also allow a workflow of another user.
        plan: the definitions on which the edit is based; None fetches them.

    Raises:
        ValueError: there is nothing to change, or a value is invalid.
        InvalidResources: a task's cluster has no queue that can hold the request.
        InvalidRequest: a task is done, was removed, or was changed by somebody else in the meantime.
    """
    change.check()
    ids = list(dict.fromkeys(task_ids))
    if not ids:
        return EditResponse(changed=0)
    plan = plan or plan_edit(requester, workflow_id, ids)
    if not rerun:
        require_unfinished(ids, plan, change)
    resources_ids = _record_requests(requester, ids, plan, change.compute_resources) if change.compute_resources else []
    request = EditRequest(
        task_ids=ids,
        revisions=plan.revisions,
        command=change.command,
        max_attempts=change.max_attempts,
        task_resources_ids=resources_ids,
        reset=change.reset,
        rerun=rerun,
        user=user_name(),
        any_owner=any_owner,
    )
    if rerun and only:
        from jobmon.client import steering

        steering.accept_downstream(requester, workflow_id, ids, any_owner=any_owner)
    return requester.call(f"/workflows/{workflow_id}/edits", request, EditResponse)


def require_unfinished(ids: Sequence[int], plan: EditPlan, change: Edit) -> None:
    """Refuse to edit done tasks.

    Args:
        ids: the tasks, in the order of the plan.
        plan: their definitions and statuses.
        change: the edit.

    Raises:
        InvalidRequest: a task is done; the text says how to run it with the edit.
    """
    for task_id, status in zip(ids, plan.statuses, strict=True):
        if status == TaskStatus.DONE:
            raise InvalidRequest(rerun_with_edit(task_id, *change.options))


def require_requests(requester: Requester, ids: Sequence[int], plan: EditPlan, change: Edit) -> None:
    """Refuse an edit of resources that no queue accepts.

    Args:
        requester: sends the requests.
        ids: the tasks, in the order of the plan.
        plan: their definitions.
        change: the edit.

    Raises:
        InvalidResources: a value is invalid, or the cluster of a task has no queue that can hold the request.
    """
    if change.compute_resources:
        _edited_requests(requester, ids, plan, change.compute_resources)


def _edited_requests(
    requester: Requester, ids: Sequence[int], plan: EditPlan, changes: Mapping[str, Any]
) -> dict[int, TaskResources]:
    """Return the new requests by the IDs of the present ones; nothing is recorded."""
    clusters = Clusters(requester)
    now = {info.task_resources_id: info for info in plan.resources}
    made: dict[int, TaskResources] = {}
    for task_id, name, resources_id in zip(ids, plan.names, plan.task_resources_ids, strict=True):
        if resources_id is None:
            raise InvalidResources(
                f"The resources of task {task_id} are determined by a function of its script when it is queued; they"
                " cannot be edited."
            )
        if resources_id not in made:
            try:
                made[resources_id] = _edited(clusters, now[resources_id], changes)
            except InvalidResources as error:
                raise type(error)(f"Task {task_id} ({name}): {error} Nothing was changed.") from None
    return made


def _record_requests(requester: Requester, ids: Sequence[int], plan: EditPlan, changes: Mapping[str, Any]) -> list[int]:
    """Return the ID of the new request of each task; tasks with equal requests share one."""
    made = _edited_requests(requester, ids, plan, changes)
    distinct = list(dict.fromkeys(made.values()))
    recorded: dict[TaskResources, int] = {}
    for start in range(0, len(distinct), RESOURCES_PER_CHUNK_MAX):
        chunk = distinct[start : start + RESOURCES_PER_CHUNK_MAX]
        request = ResourcesRequest(resources=[resources_spec(one) for one in chunk])
        recorded |= zip(chunk, requester.call("/task_resources", request, IdsResponse).ids, strict=True)
    return [recorded[made[one]] for one in plan.task_resources_ids if one is not None]


def _edited(clusters: Clusters, now: ResourcesInfo, changes: Mapping[str, Any]) -> TaskResources:
    """Return a request with some resources changed.

    Raises:
        InvalidResources: a value is invalid, or the queue does not accept the request.
    """
    asked: Resources = checked_resources(changes, cluster_name=now.cluster_name)
    cluster = clusters.get(now.cluster_name)
    queue = cluster.queue(str(asked.pop(QUEUE, None) or now.queue_name))
    requested = {**now.requested, **asked}
    valid, problems = queue.validate_resources(strict=False, **requested)
    if valid:
        valid, problems = queue.validate_resources(strict=True, **requested)
        if not valid and (lack := cluster.lack_of_room(requested)):
            raise InvalidResources(lack)
    if not valid:
        where = f"queue {queue.queue_name!r} of cluster {cluster.name!r}"
        raise InvalidResources(f"{problems.rstrip('.')} ({where}).")
    coerced = queue.coerce_resources(**requested)
    coerced.pop(QUEUE, None)
    return TaskResources(coerced, queue, cluster.name, cluster.cluster_id, ResourceType.VALIDATED)
