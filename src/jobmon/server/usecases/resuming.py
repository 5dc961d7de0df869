"""Take over a workflow: judge its runs, clear its attempts, reset its tasks. See `docs/explanation/reliability.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, Cause, EndReason, TaskInstanceStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import (
    InvalidRequest,
    WorkflowAlreadyComplete,
    WorkflowNotResumable,
    WorkflowVersionConflict,
)
from jobmon.core.texts import number_of
from jobmon.core.wire.run import (
    ActiveRun,
    ActiveRunsResponse,
    BackgroundResumeRequest,
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
from jobmon.server.constructs import func, select
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, ATTEMPTS_WITH_TASKS, IS_ACTIVE_RUN
from jobmon.server.lookups import find_newest_run
from jobmon.server.models import agent, distributor, task, task_instance, workflow, workflow_run
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import Audience
from jobmon.server.usecases.agents import agent_processes
from jobmon.server.usecases.runs import require_run, require_workflow

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.transaction import Transaction

#: Number of tasks that are reset in one transaction.
TASKS_PER_TRANSACTION: Final = 5_000
DISTRIBUTORS_SHOWN_MAX: Final = 10
#: Maximum number of possibly live attempts that are listed when they are closed by force.
ATTEMPTS_NAMED_MAX: Final = 10

d, r, t, ti = distributor.c, workflow_run.c, task.c, task_instance.c


@statement
def _active_runs() -> Select[Any]:
    return (
        select(r.id, r.status, r.user_name, r.host, r.pid, r.pid_start_time, r.report_by)
        .where(r.workflow_id == param("workflow"), IS_ACTIVE_RUN)
        .order_by(r.id)
    )


@statement
def _owner() -> Select[Any]:
    return select(workflow.c.user_name).where(workflow.c.id == param("workflow"))


@statement
def _newest_distributors() -> Select[Any]:
    return (
        select(d.workflow_run_id, d.host, d.pid, d.pid_start_time, d.seen_at)
        .where(d.workflow_id == param("workflow"))
        .order_by(d.epoch.desc())
        .limit(param("most"))
    )


@statement
def _to_kill_by_agents() -> Select[Any]:
    """Select how many attempts of a workflow an agent was told to terminate."""
    return (
        select(func.count())
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(
            r.workflow_id == param("workflow"),
            ti.status == TaskInstanceStatus.KILL_SELF.value,
            ti.agent_id.is_not(None),
        )
    )


@statement
def _perhaps_alive() -> Select[Any]:
    """Select attempts that started and are not overdue."""
    return (
        select(ti.id, t.name, ti.host, ti.pid)
        .select_from(ATTEMPTS_WITH_TASKS.outerjoin(agent, agent.c.id == ti.agent_id))
        .where(
            any_of(ti.id, "ids"),
            ti.started_at.is_not(None),
            func.coalesce(agent.c.report_by, ti.report_by) > param("now"),
        )
        .order_by(ti.id)
        .limit(param("most"))
    )


@statement
def _end_of_chunk() -> Select[Any]:
    """Select the last ID of the next chunk of tasks of a workflow."""
    chunk = (
        select(t.id)
        .where(t.workflow_id == param("workflow"), t.id > param("after"))
        .order_by(t.id)
        .limit(param("most"))
        .subquery("chunk")
    )
    return select(func.max(chunk.c.id))


def is_overdue(tx: Transaction, report_by: int) -> bool:
    """Return whether a run with this deadline is lost. None is lost during the grace period after a server start."""
    grace = tx.started_at + int(tx.settings.run_deadline_seconds * 1e6)
    return tx.now > max(report_by, grace)


def active_runs(tx: Transaction, workflow_id: int) -> list[ActiveRun]:
    """Return the active runs of a workflow, oldest first."""
    rows = tx.rows(_active_runs, workflow=workflow_id)
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
    """Return the active runs of a workflow, and its status."""
    status = require_workflow(tx, workflow_id)
    return ActiveRunsResponse(workflow_id=workflow_id, workflow_status=status, runs=active_runs(tx, workflow_id))


def resume(tx: Transaction, workflow_id: int, request: ResumeRequest) -> ResumeResponse:
    """Prepare to take over a workflow.

    Raises:
        WorkflowAlreadyComplete: every task is done.
        InvalidRequest: it belongs to another user.
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
    """Prevent users from taking over another user's workflow by mistake. User names are not verified.

    Raises:
        InvalidRequest: the workflow belongs to another user.
    """
    owner = tx.value(_owner, workflow=workflow_id)
    if user and user != owner and not any_owner:
        raise InvalidRequest(
            f"Workflow {workflow_id} belongs to {owner}, not to {user}. To act on it anyway, add --any-owner."
        )


def _make_room(tx: Transaction, run: ActiveRun, *, is_lost: bool, cold: bool) -> None:
    target = WorkflowRunStatus.COLD_RESUME if cold else WorkflowRunStatus.HOT_RESUME
    if is_lost:
        target = fsm.RUN_WHEN_LOST[WorkflowRunStatus(run.status)]
    reason = EndReason.INTERRUPTED if is_lost else None
    transitions.move_run(tx, require_run(tx, run.workflow_run_id), target, Actor.SERVER, reason)


def order_resume(tx: Transaction, workflow_id: int, request: BackgroundResumeRequest) -> None:
    """Check that a run in the background may be started, and record who ordered it.

    Raises:
        WorkflowAlreadyComplete: every task is done.
        InvalidRequest: it belongs to another user.
        WorkflowVersionConflict: a run is active.
    """
    if require_workflow(tx, workflow_id) == WorkflowStatus.DONE:
        raise WorkflowAlreadyComplete
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    runs = active_runs(tx, workflow_id)
    if runs:
        raise WorkflowVersionConflict(
            f"Workflow {workflow_id} is being run by process {runs[-1].pid} on {runs[-1].host} since the preview."
            " Nothing was changed now."
        )
    tx.audit(Actor.USER, "resume in the background", workflow_id, user=request.user)


def resume_state(tx: Transaction, workflow_id: int) -> ResumeResponse:
    """Return whether a new run may start, and what prevents it."""
    status = require_workflow(tx, workflow_id)
    runs = active_runs(tx, workflow_id)
    kill_self = len(transitions.live_attempts(tx, workflow_id, [TaskInstanceStatus.KILL_SELF]))
    newest = find_newest_run(tx, workflow_id)
    return ResumeResponse(
        is_resumable=not runs and not kill_self and status != WorkflowStatus.DONE,
        workflow_status=status,
        active_runs=runs,
        kill_self=kill_self,
        kill_self_of_agents=tx.value(_to_kill_by_agents, workflow=workflow_id) if kill_self else 0,
        distributors=_distributors(tx, workflow_id),
        agents=agent_processes(tx, workflow_id),
        newest_run_id=None if newest is None else newest[0],
    )


def _distributors(tx: Transaction, workflow_id: int) -> list[Distributor]:
    rows = tx.rows(_newest_distributors, workflow=workflow_id, most=DISTRIBUTORS_SHOWN_MAX)
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
    """End the attempts in KILL_SELF without waiting for them; name those that may still be running."""
    require_workflow(tx, workflow_id)
    ids = transitions.live_attempts(tx, workflow_id, [TaskInstanceStatus.KILL_SELF])
    perhaps_alive = _signs_of_life(tx, ids)
    cleaned = transitions.move_all(tx, ids, TaskInstanceStatus.ERROR, None)
    if cleaned:
        tx.audit(Actor.USER, "force cleanup", workflow_id, cleaned=cleaned, perhaps_alive=perhaps_alive)
        tx.wake(Audience.DISTRIBUTOR, workflow_id)
    return ForceCleanupResponse(cleaned=cleaned, perhaps_alive=perhaps_alive)


def _signs_of_life(tx: Transaction, ids: list[int]) -> list[str]:
    """Describe the attempts that started and are not overdue."""
    rows = tx.rows(_perhaps_alive, ids=ids, now=tx.now, most=ATTEMPTS_NAMED_MAX)
    return [
        f"attempt {attempt_id} of task {name}" + (f" on {host}, pid {pid}" if host else "")
        for attempt_id, name, host, pid in rows
    ]


def stop(tx: Transaction, workflow_id: int, request: StopRequest) -> StopResponse:
    """Stop the active runs of a workflow at a user's request. Idempotent.

    Raises:
        InvalidRequest: it belongs to another user.
        WorkflowVersionConflict: the run to stop is not the active one.
    """
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    stopped = [run for run in active_runs(tx, workflow_id) if run.status not in fsm.MAKING_ROOM]
    expected = request.workflow_run_id
    if expected is not None and [run.workflow_run_id for run in stopped] != [expected]:
        raise WorkflowVersionConflict(
            f"Run {expected} of workflow {workflow_id} is no longer active. Nothing was stopped."
        )
    ended = transitions.end_queued(tx, workflow_id, Cause.KILLED)
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
    """Check that tasks may be reset now, and end queued attempts; return the task ID to start after.

    Raises:
        WorkflowNotResumable: a run is active, or attempts that would be reset are live.
    """
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    _require_no_run(tx, workflow_id)
    transitions.end_queued(tx, workflow_id, Cause.KILLED_FOR_RESUME)
    live = len(transitions.live_attempts(tx, workflow_id)) if request.reset_if_running else 0
    if live:
        raise WorkflowNotResumable(
            f"{number_of(live, 'attempt')} of workflow {workflow_id} may still run; stop the workflow"
            " first, or leave the tasks of these attempts unchanged."
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
    """Refuse to reset the tasks of an active run, because they would be launched twice."""
    runs = active_runs(tx, workflow_id)
    if runs:
        raise WorkflowNotResumable(
            f"Run {runs[0].workflow_run_id} of workflow {workflow_id} is active: process {runs[0].pid} on"
            f" {runs[0].host}."
        )


def reset_chunk(tx: Transaction, workflow_id: int, after_id: int, request: ResetRequest) -> int | None:
    """Reset the next tasks; return the last of their IDs, or None if no tasks are left.

    Raises:
        WorkflowNotResumable: a run was created in the meantime.
    """
    _require_no_run(tx, workflow_id)
    last_id = tx.value(_end_of_chunk, workflow=workflow_id, after=after_id, most=TASKS_PER_TRANSACTION)
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
    """Reopen a done workflow before each chunk: the reaper may mark it as done again before the first task is reset."""
    status = require_workflow(tx, workflow_id)
    if status == WorkflowStatus.DONE:
        transitions.move_workflow(tx, workflow_id, status, WorkflowStatus.REGISTERING)


def terminate(tx: Transaction, run_id: int) -> TerminateResponse:
    """End the queued attempts of the run's workflow, and order the termination of the others."""
    run = require_run(tx, run_id)
    tx.armed.release(run.workflow_id, tx.known_until)
    ended = transitions.end_queued(tx, run.workflow_id, Cause.KILLED)
    to_kill = transitions.kill_taken(tx, run.workflow_id, Cause.KILLED)
    tx.audit(Actor.CLIENT, "terminate", run.workflow_id, run=run_id, ended=ended, to_kill=to_kill)
    return TerminateResponse(ended=ended, to_kill=to_kill)
