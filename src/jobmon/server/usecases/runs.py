"""Workflow runs: start, move, heartbeat."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jobmon.core import fsm
from jobmon.core.changes import VersionState
from jobmon.core.constants import Actor, EndReason, TaskInstanceStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import StaleRun, WorkflowAlreadyComplete, WorkflowNotResumable
from jobmon.core.fsm import Machine
from jobmon.core.texts import number_of
from jobmon.core.wire.launching import ClusterInfo
from jobmon.core.wire.run import (
    HeartbeatRequest,
    LeadRequest,
    RunRequest,
    RunResponse,
    RunStatusRequest,
    RunStatusResponse,
)
from jobmon.server import transitions
from jobmon.server.constructs import delete, select, union, update
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, IS_ACTIVE_RUN
from jobmon.server.models import (
    cluster,
    queue,
    server_identity,
    task,
    task_instance,
    task_resources,
    workflow,
    workflow_run,
    workflow_version,
)
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.usecases import fair_share

if TYPE_CHECKING:
    from sqlalchemy import Delete, Select, Update

    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions import RunRow

r = workflow_run.c


@statement
def _workflow_status() -> Select[Any]:
    return select(workflow.c.status).where(workflow.c.id == param("id"))


@statement
def _reopened_task() -> Select[Any]:
    """Select a workflow with steered tasks and an unfinished one; only these are checked when a run is done."""
    t, w = task.c, workflow.c
    unfinished = select(t.id).where(t.workflow_id == w.id, t.status.not_in(fsm.SETTLED)).correlate(workflow).exists()
    return select(w.id).where(w.id == param("workflow"), w.steered_at > 0, unfinished)


@statement
def _is_bound() -> Select[Any]:
    """Select whether a workflow is recorded completely."""
    return select(workflow.c.bound).where(workflow.c.id == param("id"))


@statement
def _run_of_request() -> Select[Any]:
    return select(r.id, r.status).where(r.request_key == param("key"))


@statement
def _parent_attempt() -> Select[Any]:
    """Select an attempt of a user that may be running, if this server has the given identity."""
    ti, w = task_instance.c, workflow.c
    found = ATTEMPTS_OF_WORKFLOW.join(workflow, w.id == r.workflow_id)
    identity = select(server_identity.c.word).scalar_subquery()
    return (
        select(ti.id)
        .select_from(found)
        .where(
            ti.id == param("attempt"),
            any_of(unindexed(ti.status), "taken"),
            w.user_name == param("user"),
            identity == param("identity"),
        )
    )


@statement
def _active_run() -> Select[Any]:
    return select(r.id, r.host, r.pid).where(r.workflow_id == param("workflow"), IS_ACTIVE_RUN).limit(1)


@statement
def _leader_of_run() -> Select[Any]:
    return select(r.host, r.pid, r.pid_start_time).where(r.id == param("id"))


@statement
def _set_leader() -> Update:
    values = {name: param(name) for name in ("host", "pid", "pid_start_time", "report_by")}
    return update(workflow_run).values(values).where(r.id == param("id"))


@statement
def _set_report_by() -> Update:
    return update(workflow_run).values(report_by=param("report_by")).where(r.id == param("id"))


def require_run(tx: Transaction, run_id: int) -> RunRow:
    """Return a run.

    Raises:
        NotFound: there is no run with this ID.
    """
    run = transitions.run_row(tx, run_id)
    if run is None:
        raise NotFound.of("workflow run", run_id)
    return run


def require_workflow(tx: Transaction, workflow_id: int) -> str:
    """Return the status of a workflow.

    Raises:
        NotFound: there is no workflow with this ID.
    """
    status = tx.value(_workflow_status, id=workflow_id)
    if status is None:
        raise NotFound.of("workflow", workflow_id)
    return str(status)


@statement
def _clusters_of_workflow() -> Select[Any]:
    c, q, tr, ti = cluster.c, queue.c, task_resources.c, task_instance.c
    requests = select(task.c.task_resources_id).where(task.c.workflow_id == param("id")).distinct()
    asked = select(q.cluster_id).join_from(queue, task_resources, tr.queue_id == q.id).where(tr.id.in_(requests))
    used = (
        select(ti.cluster_id)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(workflow_run.c.workflow_id == param("id"), any_of(ti.status, "live"))
    )
    return select(c.id, c.name, c.plugin, c.connection).where(c.id.in_(union(asked, used))).order_by(c.id)


@statement
def _attempt_of_distributor() -> Select[Any]:
    ti = task_instance.c
    return (
        select(ti.id)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(r.workflow_id == param("id"), any_of(ti.status, "taken"), ti.agent_id.is_(None))
        .limit(1)
    )


def clusters_of(tx: Transaction, workflow_id: int) -> list[ClusterInfo]:
    """Return the clusters that tasks or live attempts of the workflow use."""
    rows = tx.rows(_clusters_of_workflow, id=workflow_id, live=transitions.LIVE)
    return [
        ClusterInfo(cluster_id=cluster_id, name=name, plugin=plugin, connection=json.loads(connection))
        for cluster_id, name, plugin, connection in rows
    ]


@statement
def _sealed_version() -> Select[Any]:
    v = workflow_version.c
    return select(v.number).where(v.workflow_id == param("workflow"), v.state == VersionState.SEALED.value)


@statement
def _drop_staged_version() -> Delete:
    v = workflow_version.c
    return delete(workflow_version).where(v.workflow_id == param("workflow"), v.state == VersionState.STAGED.value)


def _require_complete_version(tx: Transaction, workflow_id: int) -> None:
    """Refuse while a sealed version is not applied; drop one that is being staged, so it can no longer be sealed."""
    number = tx.value(_sealed_version, workflow=workflow_id)
    if number is not None:
        raise WorkflowNotResumable(
            f"Version {number} of workflow {workflow_id} is not completely applied. To complete it, resume the"
            f" workflow: run the script with resume=True, or jobmon workflow resume -w {workflow_id}."
        )
    tx.run(_drop_staged_version, workflow=workflow_id)


def create_run(tx: Transaction, workflow_id: int, request: RunRequest) -> RunResponse:
    """Create a run, or return the run that the same request created.

    Raises:
        NotFound: the workflow does not exist.
        WorkflowAlreadyComplete: every task is done.
        WorkflowNotResumable: another run is active.
    """
    status = require_workflow(tx, workflow_id)
    found = tx.row(_run_of_request, key=request.key)
    if found is not None:
        return _response(tx, workflow_id, *found)
    if status == WorkflowStatus.DONE:
        raise WorkflowAlreadyComplete
    active = tx.row(_active_run, workflow=workflow_id)
    if active is not None:
        raise WorkflowNotResumable(
            f"Run {active[0]} of workflow {workflow_id} is active: process {active[2]} on {active[1]}."
        )
    _require_complete_version(tx, workflow_id)
    initial = fsm.INITIAL[Machine.WORKFLOW_RUN].value
    run_id = tx.insert(
        workflow_run,
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
        parent_task_instance_id=_parent(tx, request),
    )
    tx.audit(Actor.CLIENT, "start run", workflow_id, user=request.user, run=run_id, host=request.host)
    tx.wake_all(workflow_id)
    return _response(tx, workflow_id, run_id, initial)


def find_run(tx: Transaction, run_id: int) -> RunResponse:
    """Return a run with the clusters that it needs.

    Raises:
        NotFound: there is no run with this ID.
    """
    run = require_run(tx, run_id)
    return _response(tx, run.workflow_id, run.id, run.status)


def _parent(tx: Transaction, request: RunRequest) -> int | None:
    if request.parent_task_instance_id is None:
        return None
    found = tx.value(
        _parent_attempt,
        attempt=request.parent_task_instance_id,
        taken=transitions.TAKEN,
        user=request.user,
        identity=request.parent_server_identity,
    )
    return None if found is None else int(found)


def _response(tx: Transaction, workflow_id: int, run_id: int, status: str) -> RunResponse:
    left = tx.value(_attempt_of_distributor, id=workflow_id, taken=transitions.TAKEN)
    return RunResponse(
        workflow_run_id=run_id,
        status=status,
        workflow_id=workflow_id,
        clusters=clusters_of(tx, workflow_id),
        has_attempts_of_distributors=left is not None,
    )


def _deadline(tx: Transaction, seconds: float) -> int:
    return tx.now + int(seconds * 1e6)


def lead_run(tx: Transaction, run_id: int, request: LeadRequest) -> RunResponse:
    """Record that another process of the same host leads a run from now on.

    Raises:
        StaleRun: the run is under way or over, or another process leads it.
    """
    run = require_run(tx, run_id)
    present = tx.row(_leader_of_run, id=run_id)
    if present != (request.host, request.pid, request.pid_start_time):
        former = (request.host, request.former_pid, request.former_pid_start_time)
        if run.status != WorkflowRunStatus.BOUND or present != former:
            raise StaleRun(
                f"Run {run_id} of workflow {run.workflow_id} is {WorkflowRunStatus(run.status).name}, or another"
                " process leads it; it cannot be handed over."
            )
        tx.run(
            _set_leader,
            id=run_id,
            host=request.host,
            pid=request.pid,
            pid_start_time=request.pid_start_time,
            report_by=_deadline(tx, request.next_report_increment),
        )
        tx.audit(Actor.CLIENT, "hand over run", run.workflow_id, run=run_id, host=request.host, pid=request.pid)
    return _response(tx, run.workflow_id, run_id, run.status)


def set_run_status(tx: Transaction, run_id: int, request: RunStatusRequest) -> RunStatusResponse:
    """Move a run as its client requests.

    Raises:
        InvalidStateTransition: the table does not allow this change.
        WorkflowNotResumable: it may not become BOUND while attempts of an earlier run have not been terminated, or
            before everything is recorded.
    """
    run = require_run(tx, run_id)
    if request.status not in list(WorkflowRunStatus):
        raise InvalidValue(f"status: {request.status!r} is not a status of a workflow run.")
    if request.reason is not None and request.reason not in list(EndReason):
        raise InvalidValue(f"reason: {request.reason!r} is not a reason; use one of {', '.join(EndReason)}.")
    if request.status == WorkflowRunStatus.BOUND and run.status == WorkflowRunStatus.LINKING:
        _require_recorded(tx, run)
        _require_nothing_to_kill(tx, run)
    if request.status == WorkflowRunStatus.DONE and tx.value(_reopened_task, workflow=run.workflow_id) is not None:
        return RunStatusResponse(status=run.status)
    reason = None if request.reason is None else EndReason(request.reason)
    status = transitions.move_run(tx, run, request.status, Actor.CLIENT, reason)
    if status in transitions.FINAL_RUNS:
        fair_share.release(tx, run.workflow_id)
    return RunStatusResponse(status=status)


def _require_recorded(tx: Transaction, run: RunRow) -> None:
    if not tx.value(_is_bound, id=run.workflow_id):
        raise WorkflowNotResumable(
            f"Workflow {run.workflow_id} is not completely recorded: rerun the script that defines it."
        )


def _require_nothing_to_kill(tx: Transaction, run: RunRow) -> None:
    left = transitions.live_attempts(tx, run.workflow_id, [TaskInstanceStatus.KILL_SELF])
    if left:
        raise WorkflowNotResumable(
            f"{number_of(len(left), 'attempt')} of workflow {run.workflow_id} told to terminate, but not ended yet."
        )


def heartbeat(tx: Transaction, run_id: int, request: HeartbeatRequest) -> RunStatusResponse:
    """Process a heartbeat of the orchestrator; return the status of its run."""
    run = require_run(tx, run_id)
    if run.status not in transitions.FINAL_RUNS:
        tx.run(_set_report_by, report_by=_deadline(tx, request.next_report_increment), id=run_id)
    return RunStatusResponse(status=run.status)
