"""Taking over a workflow: judge its runs, clear its attempts, reset its tasks. `liveness.md` tells the whole story."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, Cause, TaskInstanceStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import WorkflowAlreadyComplete, WorkflowNotResumable
from jobmon.core.wire.run import (
    ActiveRun,
    ActiveRunsResponse,
    Distributor,
    ForceCleanupResponse,
    ResetRequest,
    ResumeRequest,
    ResumeResponse,
    TerminateResponse,
)
from jobmon.server import transitions
from jobmon.server.transaction import Audience
from jobmon.server.usecases.runs import require_run, require_workflow

if TYPE_CHECKING:
    from jobmon.server.transaction import Transaction

#: So many tasks are reset in one transaction.
TASKS_PER_TRANSACTION: Final = 5_000
DISTRIBUTORS_SHOWN_MAX: Final = 10
_UNDER_WAY: Final = (WorkflowRunStatus.INSTANTIATED, WorkflowRunStatus.LAUNCHED, WorkflowRunStatus.RUNNING)


def is_overdue(tx: Transaction, report_by: int) -> bool:
    """Say whether a run that should have reported by then is lost. Not before the server's own grace is over."""
    grace = tx.started_at + int(tx.settings.run_deadline_seconds * 1e6)
    return tx.now > max(report_by, grace)


def active_runs(tx: Transaction, workflow_id: int) -> list[ActiveRun]:
    """Return the runs that are not final."""
    rows = tx.rows(
        """
        SELECT id, status, user_name, host, pid, pid_start_time, report_by FROM workflow_run
        WHERE workflow_id = :id AND status NOT IN (:final...) ORDER BY id
        """,
        id=workflow_id,
        final=transitions.FINAL_RUNS,
    )
    return [
        ActiveRun(
            workflow_run_id=row[0],
            status=row[1],
            user=row[2],
            host=row[3],
            pid=row[4],
            pid_start_time=row[5],
            heartbeat_overdue=is_overdue(tx, row[6]),
        )
        for row in rows
    ]


def active_runs_response(tx: Transaction, workflow_id: int) -> ActiveRunsResponse:
    """Return the runs that are not final, and how the workflow stands."""
    status = require_workflow(tx, workflow_id)
    return ActiveRunsResponse(workflow_id=workflow_id, workflow_status=status, runs=active_runs(tx, workflow_id))


def resume(tx: Transaction, workflow_id: int, request: ResumeRequest) -> ResumeResponse:
    """Ask to take over a workflow.

    Raises:
        WorkflowAlreadyComplete: every task is done.
    """
    if require_workflow(tx, workflow_id) == WorkflowStatus.DONE:
        raise WorkflowAlreadyComplete
    transitions.end_queued(tx, workflow_id, Cause.KILLED_FOR_RESUME)
    for run in active_runs(tx, workflow_id):
        is_lost = run.heartbeat_overdue or run.workflow_run_id in request.gone_run_ids
        _make_room(tx, run, is_lost=is_lost, cold=request.reset_running_jobs)
    if request.reset_running_jobs:
        transitions.kill_taken(tx, workflow_id, Cause.KILLED_FOR_RESUME)
    tx.audit(Actor.CLIENT, "resume", workflow_id, cold=request.reset_running_jobs, gone=request.gone_run_ids)
    return resume_state(tx, workflow_id)


def _make_room(tx: Transaction, run: ActiveRun, *, is_lost: bool, cold: bool) -> None:
    target = WorkflowRunStatus.COLD_RESUME if cold else WorkflowRunStatus.HOT_RESUME
    if is_lost:
        target = fsm.RUN_WHEN_LOST[WorkflowRunStatus(run.status)]
    transitions.move_run(tx, require_run(tx, run.workflow_run_id), target, Actor.SERVER)


def resume_state(tx: Transaction, workflow_id: int) -> ResumeResponse:
    """Say whether a new run may start."""
    status = require_workflow(tx, workflow_id)
    runs = active_runs(tx, workflow_id)
    kill_self = len(transitions.live_attempts(tx, workflow_id, [TaskInstanceStatus.KILL_SELF]))
    return ResumeResponse(
        is_resumable=not runs and not kill_self and status != WorkflowStatus.DONE,
        workflow_status=status,
        active_runs=runs,
        kill_self=kill_self,
        distributors=_distributors(tx, workflow_id),
    )


def _distributors(tx: Transaction, workflow_id: int) -> list[Distributor]:
    rows = tx.rows(
        """
        SELECT workflow_run_id, host, pid, pid_start_time, seen_at FROM distributor
        WHERE workflow_id = :id ORDER BY epoch DESC LIMIT :most
        """,
        id=workflow_id,
        most=DISTRIBUTORS_SHOWN_MAX,
    )
    return [
        Distributor(
            workflow_run_id=row[0],
            host=row[1],
            pid=row[2],
            pid_start_time=row[3],
            seen_seconds_ago=(tx.now - row[4]) / 1e6,
        )
        for row in rows
    ]


def force_cleanup(tx: Transaction, workflow_id: int) -> ForceCleanupResponse:
    """End the attempts in KILL_SELF, whose executors are gone as the caller says."""
    require_workflow(tx, workflow_id)
    ids = transitions.live_attempts(tx, workflow_id, [TaskInstanceStatus.KILL_SELF])
    cleaned = transitions.move_all(tx, ids, TaskInstanceStatus.ERROR, None)
    if cleaned:
        tx.audit(Actor.USER, "force cleanup", workflow_id, cleaned=cleaned)
        tx.wake(Audience.DISTRIBUTOR, workflow_id)
    return ForceCleanupResponse(cleaned=cleaned)


def start_reset(tx: Transaction, workflow_id: int, request: ResetRequest) -> int:
    """Check that tasks may be reset now, and end attempts that nobody launched; return the first id before the tasks.

    Raises:
        WorkflowNotResumable: a run is under way.
    """
    require_workflow(tx, workflow_id)
    running = [run.workflow_run_id for run in active_runs(tx, workflow_id) if run.status in _UNDER_WAY]
    if running:
        raise WorkflowNotResumable(f"Run {running[0]} of workflow {workflow_id} is under way; stop it first.")
    transitions.end_queued(tx, workflow_id, Cause.KILLED_FOR_RESUME)
    tx.audit(Actor.CLIENT, "reset tasks", workflow_id, reset_if_running=request.reset_if_running)
    return 0


def reset_chunk(tx: Transaction, workflow_id: int, after_id: int, request: ResetRequest) -> int | None:
    """Reset the next tasks; return where to go on, None at the end."""
    last_id = tx.value(
        """
        SELECT MAX(id) FROM (
            SELECT id FROM task WHERE workflow_id = :workflow AND id > :after ORDER BY id LIMIT :most) AS chunk
        """,
        workflow=workflow_id,
        after=after_id,
        most=TASKS_PER_TRANSACTION,
    )
    if last_id is not None:
        transitions.reset_tasks(tx, workflow_id, after_id, last_id, keep_running=not request.reset_if_running)
    return None if last_id is None else int(last_id)


def terminate(tx: Transaction, run_id: int) -> TerminateResponse:
    """End the attempts of the run's workflow: queued ones at once, the others by whoever runs them."""
    run = require_run(tx, run_id)
    ended = transitions.end_queued(tx, run.workflow_id, Cause.KILLED)
    to_kill = transitions.kill_taken(tx, run.workflow_id, Cause.KILLED)
    tx.audit(Actor.CLIENT, "terminate", run.workflow_id, run=run_id, ended=ended, to_kill=to_kill)
    return TerminateResponse(ended=ended, to_kill=to_kill)
