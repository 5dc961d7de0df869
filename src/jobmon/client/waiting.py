"""Wait for a workflow, whichever process leads it, and find out how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from jobmon.client import api_calls, recorded
from jobmon.core import outcomes
from jobmon.core.constants import TaskStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import WorkflowRunStateError
from jobmon.core.fsm import CONCLUDED, Machine, is_terminal
from jobmon.core.wire.run import ActiveRunsResponse
from jobmon.core.wire.server import ServerTime

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.client.swarm.orchestrator import OrchestratorResult
    from jobmon.client.workflow import Workflow
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import WorkflowSummary

#: Maximum time until a workflow without an active run gets another one from a process that takes it over.
SUCCESSION_SECONDS_MAX: Final = 30.0
PAUSE_SECONDS_FIRST: Final = 0.05
PAUSE_SECONDS_MAX: Final = 1.0


def active_runs(requester: Requester, workflow_id: int) -> ActiveRunsResponse:
    """Return the active runs of a workflow, oldest first."""
    return requester.call(f"/workflows/{workflow_id}/active_runs", None, ActiveRunsResponse, "get")


def newest_status(requester: Requester, workflow_id: int) -> WorkflowRunStatus:
    """Return the status of the newest run of a workflow."""
    active = active_runs(requester, workflow_id).runs
    if active:
        return WorkflowRunStatus(active[-1].status)
    name = api_calls.workflow_summary(requester, workflow_id, counts=False).status_name
    is_reset = name == WorkflowStatus.REGISTERING.name
    return WorkflowRunStatus.TERMINATED if is_reset else outcomes.run_status_of(name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a workflow ended: the status of its newest run, and the displayed status."""

    status: WorkflowRunStatus
    name: str


class Waiter:
    """Finds out whether a workflow is over, whichever process leads it.

    A workflow whose leader was killed or replaced has no active run for a moment, which is not the end.

    Args:
        requester: sends requests to the server.
        workflow_id: ID of the workflow.
        monotonic: returns the time in seconds since an arbitrary moment.
    """

    def __init__(self, requester: Requester, workflow_id: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._requester = requester
        self._workflow_id = workflow_id
        self._monotonic = monotonic
        self._gap_since: float | None = None

    def look(self) -> Outcome | None:
        """Return how the workflow ended; None while it is running.

        Raises:
            InvalidRequest: the workflow does not exist.
            WorkflowRunStateError: no run of the workflow was started, or its recording was aborted.
        """
        summary = api_calls.workflow_summary(self._requester, self._workflow_id, counts=False)
        if not is_terminal(Machine.WORKFLOW, summary.status):
            self._gap_since = None
            self._require_started(summary.status)
            return None
        if summary.status == WorkflowStatus.ABORTED:
            raise self._not_running("its last run was aborted while the workflow was being recorded")
        if outcomes.is_between_runs(summary.status_name) and self._may_continue(summary.status_at):
            return None
        return Outcome(outcomes.run_status_of(summary.status_name), summary.status_name)

    def _require_started(self, status: str) -> None:
        if status == WorkflowStatus.REGISTERING and not active_runs(self._requester, self._workflow_id).runs:
            raise self._not_running("no run of it has been started")

    def _not_running(self, reason: str) -> WorkflowRunStateError:
        return WorkflowRunStateError(
            f"Workflow {self._workflow_id} is not running: {reason}. Start it with run() or start()."
        )

    def _may_continue(self, ended_at: datetime) -> bool:
        """Return whether a run ended so recently that another process may still be about to continue."""
        now = self._monotonic()
        if self._gap_since is None:
            response = self._requester.call("/time", None, ServerTime, "get")
            age = (datetime.fromisoformat(response.time) - ended_at).total_seconds()
            self._gap_since = now - max(0.0, age)
        return now - self._gap_since < SUCCESSION_SECONDS_MAX


def wait_for(
    requester: Requester,
    workflow_id: int,
    timeout: float | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Wait until a workflow is over, whichever process leads it, and return how it ended.

    Raises:
        TimeoutError: the timeout expired.
        ValueError: the timeout is not a number of seconds.
        InvalidRequest: the workflow does not exist.
        WorkflowRunStateError: no run of the workflow was started.
    """
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0):
        raise ValueError(f"timeout must be a number of seconds, or None, not {timeout!r}.")
    deadline = None if timeout is None else monotonic() + timeout
    waiter, pause = Waiter(requester, workflow_id, monotonic), PAUSE_SECONDS_FIRST
    while (outcome := waiter.look()) is None:
        left = PAUSE_SECONDS_MAX if deadline is None else deadline - monotonic()
        if left <= 0:
            raise TimeoutError(f"Workflow {workflow_id} is still running after {timeout:g} s; it continues.")
        sleep(min(pause, left))
        pause = min(pause * 2, PAUSE_SECONDS_MAX)
    return outcome


def wait_for_workflow(workflow: Workflow, timeout: float | None) -> str:
    """Wait until a workflow is over; see `Workflow.wait`."""
    workflow_id = workflow.workflow_id
    if workflow_id is None:
        found = recorded.find(workflow)
        workflow_id = None if found is None else found.workflow_id
    if workflow_id is None:
        raise ValueError("This workflow is not recorded: start() it first.")
    status = wait(workflow.requester, workflow_id, timeout)
    summary = api_calls.workflow_summary(workflow.requester, workflow_id, counts=False)
    workflow.last_workflow_run_id = summary.last_workflow_run_id
    if summary.last_workflow_run_id is not None:
        workflow.last_result = _recorded_result(workflow.requester, summary, summary.last_workflow_run_id, status)
    return status


def _recorded_result(requester: Requester, summary: WorkflowSummary, run_id: int, status: str) -> OrchestratorResult:
    """Return the result of the newest run of a workflow, from the record."""
    from jobmon.client.swarm import OrchestratorResult
    from jobmon.client.swarm.gateway import ServerGateway

    gateway = ServerGateway(requester, summary.workflow_id, run_id)
    found = gateway.get_task_status_updates_sync().tasks_by_status
    done, failed = (frozenset(found.get(one, [])) for one in CONCLUDED)
    return OrchestratorResult(
        final_status=status,
        elapsed_time=summary.last_run_seconds or 0.0,
        total_tasks=sum(map(len, found.values())),
        done_count=len(done),
        failed_count=len(failed),
        num_previously_complete=0,
        task_final_statuses={task_id: letter for letter, ids in found.items() for task_id in ids},
        done_task_ids=done,
        failed_task_ids=failed,
        skipped_task_ids=frozenset(found.get(TaskStatus.SKIPPED, [])),
    )


def wait(requester: Requester, workflow_id: int, timeout: float | None = None) -> str:
    """Wait until a workflow is over; return and raise what `Workflow.run` does."""
    outcome = wait_for(requester, workflow_id, timeout)
    if outcome.name == outcomes.TIMED_OUT:
        raise RuntimeError(
            f"Workflow {workflow_id} was not done when its timeout (seconds_until_timeout) expired. Submitted tasks"
            " keep running; run(resume=True) resumes it."
        )
    return outcome.status
