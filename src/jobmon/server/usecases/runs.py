"""Workflow runs: start, move, heartbeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core import fsm
from jobmon.core.constants import Actor, TaskInstanceStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import WorkflowAlreadyComplete, WorkflowNotResumable
from jobmon.core.fsm import Machine
from jobmon.core.wire.run import HeartbeatRequest, RunRequest, RunResponse, RunStatusRequest, RunStatusResponse
from jobmon.server import transitions
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.usecases import leasing

if TYPE_CHECKING:
    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions import RunRow


def require_run(tx: Transaction, run_id: int) -> RunRow:
    """Return a run.

    Raises:
        NotFound: there is none of this id.
    """
    run = transitions.run_row(tx, run_id)
    if run is None:
        raise NotFound.of("workflow run", run_id)
    return run


def require_workflow(tx: Transaction, workflow_id: int) -> str:
    """Return the status of a workflow.

    Raises:
        NotFound: there is none of this id.
    """
    status = tx.value("SELECT status FROM workflow WHERE id = :id FOR UPDATE", id=workflow_id)
    if status is None:
        raise NotFound.of("workflow", workflow_id)
    return str(status)


def create_run(tx: Transaction, workflow_id: int, request: RunRequest) -> RunResponse:
    """Create a run, or find the one that the same request created.

    Raises:
        WorkflowAlreadyComplete: every task is done.
        WorkflowNotResumable: another run is under way.
    """
    status = require_workflow(tx, workflow_id)
    found = tx.row("SELECT id, status FROM workflow_run WHERE request_key = :key", key=request.key)
    if found is not None:
        return RunResponse(workflow_run_id=found[0], status=found[1])
    if status == WorkflowStatus.DONE:
        raise WorkflowAlreadyComplete
    active = tx.row(
        "SELECT id, host, pid FROM workflow_run WHERE workflow_id = :id AND status NOT IN (:final...) LIMIT 1",
        id=workflow_id,
        final=transitions.FINAL_RUNS,
    )
    if active is not None:
        raise WorkflowNotResumable(
            f"Run {active[0]} of workflow {workflow_id} is under way: process {active[2]} on {active[1]}."
        )
    initial = fsm.INITIAL[Machine.WORKFLOW_RUN].value
    run_id = tx.insert(
        "workflow_run",
        workflow_id=workflow_id,
        request_key=request.key,
        user_name=request.user,
        host=request.host,
        pid=request.pid,
        pid_start_time=request.pid_start_time,
        version=request.version,
        created_at=tx.now,
        report_by=_deadline(tx, request.next_report_increment),
        status=initial,
        status_at=tx.stamp,
    )
    tx.wake_all(workflow_id)
    return RunResponse(workflow_run_id=run_id, status=initial)


def _deadline(tx: Transaction, seconds: float) -> int:
    return tx.now + int(seconds * 1e6)


def set_run_status(tx: Transaction, run_id: int, request: RunStatusRequest) -> RunStatusResponse:
    """Move a run as its client asks.

    Raises:
        InvalidStateTransition: the table does not have this change.
        WorkflowNotResumable: it may not become BOUND while attempts of an earlier run still have to end, or before
            everything is recorded.
    """
    run = require_run(tx, run_id)
    if request.status not in list(WorkflowRunStatus):
        raise InvalidValue(f"status: {request.status!r} is no state of a workflow run.")
    if request.status == WorkflowRunStatus.BOUND and run.status == WorkflowRunStatus.LINKING:
        _require_recorded(tx, run)
        _require_nothing_to_kill(tx, run)
    status = transitions.move_run(tx, run, request.status, Actor.CLIENT)
    if status in transitions.FINAL_RUNS:
        leasing.release(tx, run.workflow_id)
    return RunStatusResponse(status=status)


def _require_recorded(tx: Transaction, run: RunRow) -> None:
    if not tx.value("SELECT bound FROM workflow WHERE id = :id", id=run.workflow_id):
        raise WorkflowNotResumable(
            f"Workflow {run.workflow_id} is not recorded completely: run the script that defines it again."
        )


def _require_nothing_to_kill(tx: Transaction, run: RunRow) -> None:
    left = transitions.live_attempts(tx, run.workflow_id, [TaskInstanceStatus.KILL_SELF])
    if left:
        raise WorkflowNotResumable(
            f"{len(left)} attempts of workflow {run.workflow_id} were told to end and have not ended yet."
        )


def heartbeat(tx: Transaction, run_id: int, request: HeartbeatRequest) -> RunStatusResponse:
    """Note that the orchestrator lives; tell it how its run stands."""
    run = require_run(tx, run_id)
    if run.status not in transitions.FINAL_RUNS:
        tx.run(
            "UPDATE workflow_run SET report_by = :report_by WHERE id = :id",
            report_by=_deadline(tx, request.next_report_increment),
            id=run_id,
        )
    return RunStatusResponse(status=run.status)
