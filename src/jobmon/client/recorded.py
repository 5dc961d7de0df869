"""The record of a workflow, fetched in columnar chunks. Read-only."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from jobmon.core.changes import Definition, Evidence, Reason
from jobmon.core.constants import Cause, TaskInstanceStatus, TaskStatus
from jobmon.core.wire.changes import (
    DEFINITION_TASKS_MAX,
    UPSTREAM_SETS_MAX,
    DefinitionPage,
    RecordedAttempt,
    RecordedEdit,
    RecordedTemplate,
    RecordedWorkflow,
    UpstreamsRequest,
    UpstreamsResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobmon.client.workflow import Workflow
    from jobmon.core.requester import Requester

_STOPPED = frozenset({Cause.KILLED, Cause.KILLED_FOR_RESUME})


class RecordedTask(msgspec.Struct, frozen=True):
    """A recorded task. There may be a million, and a struct is created several times as fast as a dataclass.

    Args:
        task_id: ID of the task.
        name: name of the task.
        status: letter of its status.
        command: its command.
        template: its template version.
        node_values: values of the node args, in their order in the template.
        task_values: values of the task args, in their order in the template.
        set_id: ID of its set of upstream tasks; 0 if it has none.
        seconds: duration of its newest attempt, in seconds, if the task is done.
        attempt: its newest attempt, if the task is not done.
        queued: logical time at which its newest started attempt was queued.
        ended: logical time at which that attempt succeeded.
        ran: the definition that attempt ran and the hash of its upstream tasks, if they differ from the current ones.
        accepted: hash of what its result was accepted for.
        is_requested: whether a rerun was requested.
        is_held: whether it is held, so that it is not launched until it is released.
        edit: the edit of it by a user, if there is one.
        origin_id: the expansion that added it; 0: the script defines it.
        is_expansion: whether it is an expansion; its newest call counts as its attempt.
    """

    task_id: int
    name: str
    status: str
    command: str
    template: RecordedTemplate
    node_values: tuple[str, ...]
    task_values: tuple[str, ...]
    set_id: int
    seconds: float | None
    attempt: RecordedAttempt | None
    queued: int | None = None
    ended: int | None = None
    ran: tuple[Definition, str] | None = None
    accepted: str | None = None
    is_requested: bool = False
    is_held: bool = False
    edit: RecordedEdit | None = None
    origin_id: int = 0
    is_expansion: bool = False

    @property
    def node_args(self) -> dict[str, str]:
        """Node args by name."""
        return dict(zip(self.template.node_args, self.node_values, strict=True))

    @property
    def definition(self) -> Definition:
        """The script's definition that determines its result; a user's edit is not part of it."""
        is_edited = self.edit is not None and self.edit.command is not None
        return self._defined_by(self.edit.command if is_edited else self.command)  # type: ignore[union-attr, arg-type]

    @property
    def edited_definition(self) -> Definition:
        """The definition that determines its result, with the user's edit."""
        return self._defined_by(self.command)

    def _defined_by(self, command: str) -> Definition:
        task_args = tuple(zip(self.template.task_args, self.task_values, strict=True))
        return Definition(self.template.command_template, command, task_args)

    @property
    def is_removed(self) -> bool:
        """Whether the current version of the workflow lacks the task."""
        return self.status == TaskStatus.REMOVED

    def evidence(self, changes: tuple[Reason, ...], *, is_accepted: bool) -> Evidence:
        """Return the evidence from which `core.changes.decide` decides about the task.

        Args:
            changes: how the new definition differs from what its newest started attempt ran.
            is_accepted: whether its result was accepted for the new definitions.
        """
        return Evidence(
            self.status,
            () if is_accepted else changes,
            succeeded=self.attempt is not None and self.attempt.is_success,
            queued=self.queued,
            ended=self.ended,
            accepted=is_accepted,
            requested=self.is_requested,
            unfinished=_unfinished(self.attempt),
        )

    @property
    def outcome(self) -> str:
        """How its newest attempt failed; "" if it did not fail."""
        attempt = self.attempt
        if attempt is None:
            return ""
        if attempt.exit_code is not None:
            return f"exit code {attempt.exit_code}"
        return f"signal {attempt.signal}" if attempt.signal is not None else attempt.cause or ""


def _unfinished(attempt: RecordedAttempt | None) -> Reason:
    """Return why a task is not done."""
    if attempt is None:
        return Reason.NOT_RUN
    if attempt.status == TaskInstanceStatus.DONE:
        return Reason.REQUESTED
    if attempt.cause in _STOPPED:
        return Reason.STOPPED if attempt.is_started else Reason.NOT_RUN
    is_over = attempt.cause is not None or attempt.exit_code is not None
    return Reason.FAILED if is_over else Reason.NOT_RUN


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded workflow. `upstreams` has the IDs of the tasks in each set of upstream tasks."""

    workflow: RecordedWorkflow
    tasks: list[RecordedTask]
    upstreams: dict[int, tuple[int, ...]]

    def upstream_ids(self, task: RecordedTask) -> tuple[int, ...]:
        """Return the IDs of the upstream tasks of a task."""
        return self.upstreams.get(task.set_id, ())


def find(workflow: Workflow) -> RecordedWorkflow | None:
    """Return the record with the `workflow_args` of a workflow; None if there is none."""
    version_id = workflow.tool_version.id
    query = {
        "tool_name": workflow.tool.name,
        "tool_version_id": version_id or 0,
        "workflow_args_hash": args_hash(workflow),
    }
    found = workflow.requester.call("/recorded_workflow", query, RecordedWorkflow, "get")
    return None if found.workflow_id is None else found


def find_by_id(requester: Requester, workflow_id: int) -> RecordedWorkflow:
    """Return the record of a workflow.

    Raises:
        InvalidRequest: the workflow does not exist.
    """
    return requester.call(f"/workflows/{workflow_id}/recorded", None, RecordedWorkflow, "get")


def args_hash(workflow: Workflow) -> str:
    """Return the hash by which the server finds a workflow."""
    return sha256(workflow.workflow_args.encode()).hexdigest()


def fetch(requester: Requester, workflow: RecordedWorkflow, expansion_id: int = 0) -> Recorded:
    """Fetch the tasks and dependencies of a workflow.

    Args:
        requester: sends the requests.
        workflow: the workflow.
        expansion_id: fetch only the tasks that this expansion has added; 0: all.
    """
    tasks: list[RecordedTask] = []
    while True:
        query = {"after": tasks[-1].task_id if tasks else 0, "count": DEFINITION_TASKS_MAX, "origin": expansion_id}
        page = requester.call(f"/workflows/{workflow.workflow_id}/definition", query, DefinitionPage, "get")
        tasks += _tasks_of(page)
        if page.is_last:
            break
    set_ids = dict.fromkeys(task.set_id for task in tasks if task.set_id)
    return Recorded(workflow, tasks, _upstreams(requester, workflow, set_ids))


def _tasks_of(page: DefinitionPage) -> Iterable[RecordedTask]:
    columns = zip(
        page.task_ids,
        page.names,
        page.statuses,
        page.commands,
        page.template_index,
        page.node_args,
        page.task_args,
        page.set_ids,
        page.seconds,
        page.queued,
        page.ended,
        strict=True,
    )
    templates, attempts, requested, held = page.templates, page.attempts, set(page.requested), set(page.held)
    expansions = set(page.expansions)
    for position, (task_id, name, status, command, index, node_args, task_args, set_id, *measured) in enumerate(
        columns
    ):
        seconds, queued, ended = measured
        yield RecordedTask(
            task_id,
            name,
            status,
            command,
            templates[index],
            tuple(node_args),
            tuple(task_args),
            set_id,
            seconds,
            attempts.get(position),
            queued,
            ended,
            _ran(page, position),
            page.accepted.get(position),
            position in requested,
            position in held,
            page.edits.get(position),
            page.origins.get(position, 0),
            position in expansions,
        )


def _ran(page: DefinitionPage, position: int) -> tuple[Definition, str] | None:
    """Return the definition that the newest started attempt ran, if the task has another one by now."""
    ran = page.ran.get(position)
    if ran is None:
        return None
    template = page.templates[ran.template_index]
    task_args = tuple(zip(template.task_args, ran.task_args, strict=True))
    return Definition(template.command_template, ran.command, task_args), ran.upstreams


def _upstreams(requester: Requester, workflow: RecordedWorkflow, set_ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Fetch the tasks of each set; a set that is larger than one response arrives in parts."""
    found: dict[int, list[int]] = {set_id: [] for set_id in set_ids}
    left, after = list(found), 0
    start = 0
    while start < len(left):
        request = UpstreamsRequest(set_ids=left[start : start + UPSTREAM_SETS_MAX], after_task=after)
        answer = requester.call(f"/workflows/{workflow.workflow_id}/upstreams", request, UpstreamsResponse)
        for set_id, task_ids in zip(request.set_ids, answer.task_ids, strict=False):
            found[set_id] += task_ids
        after = answer.last_task
        start += len(answer.task_ids) - bool(after)
    return {set_id: tuple(task_ids) for set_id, task_ids in found.items()}
