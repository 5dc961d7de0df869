"""Taking over a workflow: judge its runs, clear its attempts, reset its tasks. `liveness.md` tells the whole story."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, Cause, TaskInstanceStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import InvalidRequest, WorkflowAlreadyComplete, WorkflowNotResumable
from jobmon.core.wire.run import (
    ActiveRun,
    ActiveRunsResponse,
    Distributor,
    ForceCleanupResponse,
    ResetRequest,
    ResumeRequest,
    ResumeResponse,
    StopRequest,
    StopResponse,
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
#: So many attempts that may be alive are named when they are closed by force.
ATTEMPTS_NAMED_MAX: Final = 10
MAKING_ROOM: Final = (WorkflowRunStatus.COLD_RESUME, WorkflowRunStatus.HOT_RESUME)


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
        InvalidRequest: it belongs to somebody else.
    """
    if require_workflow(tx, workflow_id) == WorkflowStatus.DONE:
        raise WorkflowAlreadyComplete
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    transitions.end_queued(tx, workflow_id, Cause.KILLED_FOR_RESUME)
    for run in active_runs(tx, workflow_id):
        is_lost = run.heartbeat_overdue or run.workflow_run_id in request.gone_run_ids
        _make_room(tx, run, is_lost=is_lost, cold=request.reset_running_jobs)
    if request.reset_running_jobs:
        transitions.kill_taken(tx, workflow_id, Cause.KILLED_FOR_RESUME)
    tx.audit(
        Actor.CLIENT,
        "resume",
        workflow_id,
        user=request.user,
        cold=request.reset_running_jobs,
        gone=request.gone_run_ids,
    )
    return resume_state(tx, workflow_id)


def require_owner(tx: Transaction, workflow_id: int, user: str, *, any_owner: bool) -> None:
    """Keep people from taking over by mistake what others run. It is no protection: users are what they say."""
    owner = tx.value("SELECT user_name FROM workflow WHERE id = :id", id=workflow_id)
    if user and user != owner and not any_owner:
        raise InvalidRequest(
            f"Workflow {workflow_id} belongs to {owner}, not to {user}. To act on it all the same, use"
            " `jobmon workflow resume` or `jobmon workflow stop` with --any-owner."
        )


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
        newest_run_id=tx.value("SELECT MAX(id) FROM workflow_run WHERE workflow_id = :id", id=workflow_id),
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
    """End the attempts in KILL_SELF, whose executors are gone as the caller says; name those that may not be."""
    require_workflow(tx, workflow_id)
    ids = transitions.live_attempts(tx, workflow_id, [TaskInstanceStatus.KILL_SELF])
    perhaps_alive = _signs_of_life(tx, ids)
    cleaned = transitions.move_all(tx, ids, TaskInstanceStatus.ERROR, None)
    if cleaned:
        tx.audit(Actor.USER, "force cleanup", workflow_id, cleaned=cleaned, perhaps_alive=perhaps_alive)
        tx.wake(Audience.DISTRIBUTOR, workflow_id)
    return ForceCleanupResponse(cleaned=cleaned, perhaps_alive=perhaps_alive)


def _signs_of_life(tx: Transaction, ids: list[int]) -> list[str]:
    """Name attempts that had begun and of which there was a sign of life before they are overdue."""
    rows = tx.rows(
        """
        SELECT ti.id, t.name, ti.host, ti.pid FROM task_instance ti JOIN task t ON t.id = ti.task_id
        WHERE ti.id IN (:ids...) AND ti.started_at IS NOT NULL AND ti.report_by > :now ORDER BY ti.id LIMIT :most
        """,
        ids=ids,
        now=tx.now,
        most=ATTEMPTS_NAMED_MAX,
    )
    return [
        f"attempt {attempt_id} of task {name}" + (f" on {host}, pid {pid}" if host else "")
        for attempt_id, name, host, pid in rows
    ]


def stop(tx: Transaction, workflow_id: int, request: StopRequest) -> StopResponse:
    """Stop what is active of a workflow, as a person wants it. Again: changes nothing.

    Raises:
        InvalidRequest: it belongs to somebody else.
    """
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    ended = transitions.end_queued(tx, workflow_id, Cause.KILLED)
    stopped = [run for run in active_runs(tx, workflow_id) if run.status not in MAKING_ROOM]
    for run in stopped:
        transitions.move_run(tx, require_run(tx, run.workflow_run_id), WorkflowRunStatus.STOPPED, Actor.USER)
    to_kill = transitions.kill_taken(tx, workflow_id, Cause.KILLED) if request.kill else 0
    run_ids = [run.workflow_run_id for run in stopped]
    if run_ids or ended or to_kill:
        tx.audit(Actor.USER, "stop", workflow_id, user=request.user, kill=request.kill, runs=run_ids, to_kill=to_kill)
    return StopResponse(
        workflow_status=require_workflow(tx, workflow_id),
        run_ids=run_ids,
        ended=ended,
        to_kill=to_kill,
        left_running=len(transitions.live_attempts(tx, workflow_id, transitions.TAKEN)) - to_kill,
    )


def start_reset(tx: Transaction, workflow_id: int, request: ResetRequest) -> int:
    """Check that tasks may be reset now, and end attempts that nobody launched; return the first id before the tasks.

    Raises:
        WorkflowNotResumable: a run is active, or attempts are that were not told to end.
    """
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    _require_no_run(tx, workflow_id)
    transitions.end_queued(tx, workflow_id, Cause.KILLED_FOR_RESUME)
    live = len(transitions.live_attempts(tx, workflow_id)) if request.reset_if_running else 0
    if live:
        raise WorkflowNotResumable(
            f"{live} attempts of workflow {workflow_id} may still run; stop them or leave their tasks alone."
        )
    tx.audit(
        Actor.USER if request.user else Actor.CLIENT,
        "reset tasks",
        workflow_id,
        user=request.user,
        reset_if_running=request.reset_if_running,
        keep_resources=request.keep_resources,
        keep_done=request.keep_done,
    )
    return 0


def _require_no_run(tx: Transaction, workflow_id: int) -> None:
    """A run that was created meanwhile must not have its tasks reset under it: they would be launched twice."""
    runs = active_runs(tx, workflow_id)
    if runs:
        raise WorkflowNotResumable(
            f"Run {runs[0].workflow_run_id} of workflow {workflow_id} is under way: process {runs[0].pid} on"
            f" {runs[0].host}."
        )


def reset_chunk(tx: Transaction, workflow_id: int, after_id: int, request: ResetRequest) -> int | None:
    """Reset the next tasks; return where to go on, None at the end.

    Raises:
        WorkflowNotResumable: a run was created meanwhile.
    """
    _require_no_run(tx, workflow_id)
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
        if not request.keep_done:
            _reopen(tx, workflow_id)
        transitions.reset_tasks(
            tx,
            workflow_id,
            after_id,
            last_id,
            keep_running=not request.reset_if_running,
            keep_resources=request.keep_resources,
            keep_done=request.keep_done,
        )
    return None if last_id is None else int(last_id)


def _reopen(tx: Transaction, workflow_id: int) -> None:
    """What is done is done no more; with each chunk, since the reaper may find all tasks done before the first."""
    status = require_workflow(tx, workflow_id)
    if status == WorkflowStatus.DONE:
        transitions.move_workflow(tx, workflow_id, status, WorkflowStatus.REGISTERING)


def terminate(tx: Transaction, run_id: int) -> TerminateResponse:
    """End the attempts of the run's workflow: queued ones at once, the others by whoever runs them."""
    run = require_run(tx, run_id)
    ended = transitions.end_queued(tx, run.workflow_id, Cause.KILLED)
    to_kill = transitions.kill_taken(tx, run.workflow_id, Cause.KILLED)
    tx.audit(Actor.CLIENT, "terminate", run.workflow_id, run=run_id, ended=ended, to_kill=to_kill)
    return TerminateResponse(ended=ended, to_kill=to_kill)
