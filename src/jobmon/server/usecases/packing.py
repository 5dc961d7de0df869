"""Plan packed batches, whose jobs run many tasks each, and exchange their status with distributors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm, packing
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.packing import Mode
from jobmon.core.wire.launching import (
    REPORTS_PER_REQUEST_MAX,
    EndedJob,
    JobPlan,
    PackedBatch,
    SubmittedBatch,
    SyncRequest,
)
from jobmon.server import transitions
from jobmon.server.constructs import func, or_, select, true, update
from jobmon.server.joins import (
    ATTEMPTS_OF_WORKFLOW,
    ATTEMPTS_WITH_TASKS,
    PACKED_BATCHES,
    TASKS_WITH_NEWEST_ATTEMPTS,
)
from jobmon.server.models import (
    batch,
    cluster,
    packed_batch,
    packed_job,
    queue,
    task,
    task_array,
    task_instance,
    task_resources,
    workflow_run,
)
from jobmon.server.problems import require_at_most
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transitions import AttemptMoves, attempt_deadline
from jobmon.server.usecases.packed_batches import (
    JOB_COLUMNS,
    BatchRow,
    JobRow,
    batch_rows,
    count_live_pilots,
    end_job,
    require_batch,
    settle_untaken,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select, Update

    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
#: Number of the newest completed attempts from which the duration of tasks is estimated.
MEASURED_MAX: Final = 200
#: If none is completed in this run: number of earlier arrays of the template, and of nodes, that are examined.
EARLIER_ARRAYS_MAX: Final = 5
NODES_MAX: Final = 50

b, p, j, ti = batch.c, packed_batch.c, packed_job.c, task_instance.c


# -- at launch -------------------------------------------------------------------------------------------------


@statement
def _request_of_batch() -> Select[Any]:
    r = task_resources.c
    return (
        select(b.array_id, b.task_resources_id, r.requested, queue.c.parameters)
        .select_from(batch.join(task_resources, r.id == b.task_resources_id).join(queue, queue.c.id == r.queue_id))
        .where(b.id == param("id"))
    )


@statement
def _plan_of_batch() -> Select[Any]:
    return select(p.mode, p.jobs, p.width, p.runtime_seconds).where(p.batch_id == param("id"))


@statement
def _mean_wallclock_seconds() -> Select[Any]:
    """Select the mean duration of those among the newest DONE attempts of a run that belong to an array."""
    newest = (
        select(ti.task_id, ti.wallclock_seconds)
        .where(ti.workflow_run_id == param("run"), ti.status == param("done"), ti.cluster_id == param("cluster"))
        .order_by(ti.id.desc())
        .limit(param("most"))
        .subquery("newest")
    )
    return (
        select(func.avg(newest.c.wallclock_seconds))
        .join_from(newest, task, task.c.id == newest.c.task_id)
        .where(task.c.array_id == param("array"))
    )


@statement
def _earlier_arrays() -> Select[Any]:
    """Select the newest earlier arrays of an array's template, with their workflows."""
    a, this = task_array.c, task_array.alias("this")
    return (
        select(a.id, a.workflow_id)
        .join_from(task_array, this, this.c.task_template_version_id == a.task_template_version_id)
        .where(this.c.id == param("array"), a.id < this.c.id)
        .order_by(a.id.desc())
        .limit(param("most"))
    )


@statement
def _nodes_of_batch() -> Select[Any]:
    t = task.c
    return (
        select(t.node_id)
        .select_from(ATTEMPTS_WITH_TASKS)
        .where(ti.batch_id == param("batch"))
        .order_by(ti.array_step_id)
        .limit(param("most"))
    )


def _done_earlier() -> Select[Any]:
    """Select the durations of the done tasks of some workflows."""
    t = task.c
    return (
        select(ti.wallclock_seconds.label("seconds"))
        .select_from(TASKS_WITH_NEWEST_ATTEMPTS)
        .where(any_of(t.workflow_id, "workflows"), ti.status == param("done"), ti.wallclock_seconds.is_not(None))
    )


@statement
def _mean_of_nodes() -> Select[Any]:
    found = _done_earlier().where(any_of(task.c.node_id, "nodes")).limit(param("most")).subquery("found")
    return select(func.avg(found.c.seconds))


@statement
def _mean_of_arrays() -> Select[Any]:
    newest = _done_earlier().where(any_of(task.c.array_id, "arrays")).order_by(task.c.id.desc()).limit(param("most"))
    found = newest.subquery("found")
    return select(func.avg(found.c.seconds))


@statement
def _set_reason() -> Update:
    return update(batch).values(reason=param("reason")).where(b.id == param("id"))


def plan_batch(
    tx: Transaction, workflow_id: int, batch_id: int, attempts: int, run_id: int, cluster_id: int
) -> JobPlan | None:
    """Decide how a new batch is submitted, and record it; None: as an array with one step per attempt."""
    row = tx.row(_request_of_batch, id=batch_id)
    assert row is not None
    array_id, resources_id, requested, parameters = row
    request = json.loads(requested)
    pilots = count_live_pilots(tx, workflow_id, array_id, resources_id) if request.get(packing.PILOT) else 0
    measured = _measured(tx, run_id, cluster_id, array_id, batch_id)
    mean = measured.seconds if measured is not None else None
    plan = packing.plan(request, attempts, mean, json.loads(parameters), pilots)
    tx.run(_set_reason, reason=packing.reason(request, attempts, measured), id=batch_id)
    if plan.mode is Mode.ARRAY:
        return None
    tx.add(
        packed_batch,
        batch_id=batch_id,
        workflow_id=workflow_id,
        mode=plan.mode.value,
        jobs=plan.jobs,
        width=plan.width,
        runtime_seconds=plan.runtime_seconds,
        size=attempts,
        taken=0,
        submitted=False,
    )
    return JobPlan(mode=plan.mode, jobs=plan.jobs, width=plan.width, runtime_seconds=plan.runtime_seconds)


def recorded_plan(tx: Transaction, batch_id: int) -> JobPlan | None:
    """Return the recorded plan of a batch; None: it is not packed."""
    row = tx.row(_plan_of_batch, id=batch_id)
    return None if row is None else JobPlan(mode=row[0], jobs=row[1], width=row[2], runtime_seconds=row[3])


def _measured(tx: Transaction, run_id: int, cluster_id: int, array_id: int, batch_id: int) -> packing.Measured | None:
    """Return the mean duration of tasks like a batch's: in this run, else in earlier workflows; None: none is done."""
    mean = _mean_seconds(tx, run_id, cluster_id, array_id)
    if mean is not None:
        return packing.Measured(mean, packing.Basis.THIS_RUN)
    earlier = tx.rows(_earlier_arrays, array=array_id, most=EARLIER_ARRAYS_MAX)
    if not earlier:
        return None
    values = {"workflows": sorted({row[1] for row in earlier}), "done": TI.DONE.value, "most": MEASURED_MAX}
    nodes = tx.column(_nodes_of_batch, batch=batch_id, most=NODES_MAX)
    mean = tx.value(_mean_of_nodes, **values, nodes=nodes)
    if mean is not None:
        return packing.Measured(float(mean), packing.Basis.SAME_ARGUMENTS)
    mean = tx.value(_mean_of_arrays, **values, arrays=[row[0] for row in earlier])
    return None if mean is None else packing.Measured(float(mean), packing.Basis.TEMPLATE)


def _mean_seconds(tx: Transaction, run_id: int, cluster_id: int, array_id: int) -> float | None:
    """Return the mean duration of the newest DONE attempts of an array in this run, seconds; None without any."""
    mean = tx.value(
        _mean_wallclock_seconds,
        run=run_id,
        done=TI.DONE.value,
        cluster=cluster_id,
        most=MEASURED_MAX,
        array=array_id,
    )
    return None if mean is None else float(mean)


# -- reports and requests of distributors ----------------------------------------------------------------------


@statement
def _batch_of_workflow() -> Select[Any]:
    return batch_rows().where(b.workflow_id == param("workflow"), b.number == param("number"))


@statement
def _note_submitted() -> Update:
    return update(packed_batch).values(submitted=true()).where(p.batch_id == param("id"))


@statement
def _jobs_with_distributor_id() -> Select[Any]:
    return (
        select(j.batch_id, *JOB_COLUMNS)
        .join_from(packed_batch, packed_job, j.batch_id == p.batch_id)
        .where(p.workflow_id == param("workflow"), j.distributor_id == param("job"))
    )


@statement
def _started_jobs() -> Select[Any]:
    return (
        select(j.distributor_id)
        .join_from(packed_batch, packed_job, j.batch_id == p.batch_id)
        .where(p.workflow_id == param("workflow"), any_of(j.distributor_id, "jobs"), j.started_at.is_not(None))
    )


@statement
def _keep_prefetched() -> Update:
    """Extend the deadlines of attempts that live jobs have prefetched."""
    batches = select(b.id).where(b.workflow_id == param("workflow"), any_of(b.number, "numbers"))
    return (
        update(task_instance)
        .values(report_by=param("deadline"))
        .where(ti.status == param("launched"), any_of(ti.distributor_id, "jobs"), ti.batch_id.in_(batches))
    )


@statement
def _keep_untaken() -> Update:
    """Extend the deadlines of attempts that wait for jobs."""
    batches = (
        select(b.id)
        .select_from(PACKED_BATCHES)
        .where(b.workflow_id == param("workflow"), any_of(b.number, "numbers"), p.taken < p.size)
    )
    return (
        update(task_instance)
        .values(report_by=param("deadline"))
        .where(any_of(ti.status, "untaken"), ti.distributor_id.is_(None), ti.batch_id.in_(batches))
    )


@statement
def _attempts_in_triage() -> Select[Any]:
    return (
        select(ti.id, ti.distributor_id)
        .select_from(ATTEMPTS_OF_WORKFLOW.join(packed_batch, p.batch_id == ti.batch_id))
        .where(workflow_run.c.workflow_id == param("workflow"), ti.status == param("triaging"))
    )


def hear(tx: Transaction, workflow_id: int, request: SyncRequest) -> None:
    """Record what a distributor reports about its packed jobs: submitted, live, ended."""
    for submitted in request.submitted:
        _submitted(tx, workflow_id, submitted)
    for ended in request.ended_jobs:
        for found in _jobs_named(tx, workflow_id, ended.distributor_id):
            end_job(tx, *found, ended)
    if request.live_jobs is not None:
        _keep_alive(tx, workflow_id, request.packed, set(request.live_jobs))


def started_jobs(tx: Transaction, workflow_id: int, distributor_ids: Sequence[str]) -> list[str]:
    """Return which of these packed jobs have reached the server."""
    require_at_most(REPORTS_PER_REQUEST_MAX, len(distributor_ids), "unheard_jobs")
    return tx.column(_started_jobs, workflow=workflow_id, jobs=distributor_ids) if distributor_ids else []


def _submitted(tx: Transaction, workflow_id: int, submitted: SubmittedBatch) -> None:
    row = tx.row(_batch_of_workflow, workflow=workflow_id, number=submitted.batch_number)
    if row is None:
        return
    batch = BatchRow(*row)
    jobs = [(batch.id, distributor_id) for distributor_id in submitted.distributor_ids]
    tx.insert_many(packed_job, ("batch_id", "distributor_id"), jobs, ignore=True)
    tx.run(_note_submitted, id=batch.id)
    transitions.submit_packed(tx, batch.id)
    settle_untaken(tx, batch)


def _jobs_named(tx: Transaction, workflow_id: int, distributor_id: str) -> list[tuple[BatchRow, JobRow]]:
    rows = tx.rows(_jobs_with_distributor_id, workflow=workflow_id, job=distributor_id)
    return [(require_batch(tx, row[0]), JobRow(*row[1:])) for row in rows]


def _keep_alive(tx: Transaction, workflow_id: int, numbers: Sequence[int], live_jobs: set[str]) -> None:
    """Extend the deadlines of attempts that wait for live jobs or in them; settle attempts in triage by their jobs.

    A job that was suspended for a long time may have started prefetched attempts without reporting it.
    """
    deadline = attempt_deadline(tx)
    tx.run(
        _keep_prefetched,
        deadline=deadline,
        launched=TI.LAUNCHED.value,
        jobs=live_jobs,
        workflow=workflow_id,
        numbers=numbers,
    )
    tx.run(_keep_untaken, deadline=deadline, untaken=fsm.UNSTARTED, workflow=workflow_id, numbers=numbers)
    doubted = tx.rows(_attempts_in_triage, workflow=workflow_id, triaging=TI.TRIAGING.value)
    moves = AttemptMoves(tx, [row[0] for row in doubted])
    for attempt_id, distributor_id in doubted:
        if distributor_id in live_jobs:
            moves.move(attempt_id, TI.RUNNING)
        else:
            moves.move(attempt_id, TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST)
    moves.write()
    # jobs that were silent for a long time and that their distributor does not see
    lost = {str(row[1]) for row in doubted if row[1]} - live_jobs
    for distributor_id in sorted(lost):
        ended = EndedJob(distributor_id=distributor_id, status=TI.UNKNOWN_ERROR.value)
        for found in _jobs_named(tx, workflow_id, distributor_id):
            end_job(tx, *found, ended)


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """The status of packed batches.

    `untaken`: batch number -> attempts that no job has taken. `over`: batches that no job works for any more.
    `unstarted`: jobs of these batches that have not started.
    """

    untaken: dict[int, int]
    over: list[int]
    unstarted: list[str]


@statement
def _batch_status() -> Select[Any]:
    other, other_batch, other_attempt = packed_batch.alias(), batch.alias(), task_instance.alias()
    o, ob, oti = other.c, other_batch.c, other_attempt.c
    has_untaken_of_its_kind = (
        select(oti.id)
        .select_from(other.join(other_batch, ob.id == o.batch_id).join(other_attempt, oti.batch_id == ob.id))
        .where(
            o.workflow_id == p.workflow_id,
            o.mode == p.mode,
            o.taken < o.size,
            ob.array_id == b.array_id,
            ob.task_resources_id == b.task_resources_id,
            any_of(oti.status, "untaken"),
        )
        .correlate(packed_batch, batch)
        .exists()
    )
    return (
        select(
            *(b.number, (p.size - p.taken).label("untaken"), b.id, p.mode),
            *(_has_attempts("taken"), _has_live_job(), has_untaken_of_its_kind),
        )
        .select_from(PACKED_BATCHES)
        .where(b.workflow_id == param("workflow"), any_of(b.number, "numbers"))
        .order_by(b.number)
    )


def _has_attempts(statuses: str) -> ColumnElement[bool]:
    """Return whether a batch has attempts in one of the states in the list parameter of that name."""
    return select(ti.id).where(ti.batch_id == b.id, any_of(ti.status, statuses)).correlate(batch).exists()


def _has_live_job() -> ColumnElement[bool]:
    """Return whether a job of a batch has not ended."""
    return select(j.id).where(j.batch_id == b.id, j.ended_at.is_(None)).correlate(batch).exists()


def _is_unstarted() -> list[ColumnElement[bool]]:
    return [any_of(j.batch_id, "batches"), j.started_at.is_(None)]


@statement
def _close_unstarted() -> Update:
    return update(packed_job).values(ended_at=param("now")).where(*_is_unstarted(), j.ended_at.is_(None))


@statement
def _unstarted_jobs() -> Select[Any]:
    return select(j.distributor_id).where(*_is_unstarted()).order_by(j.id)


@statement
def _live_batches() -> Select[Any]:
    r, q, c = task_resources.c, queue.c, cluster.c
    return (
        select(b.id, b.number, c.name, (p.size - p.taken).label("untaken"), p.submitted)
        .select_from(
            PACKED_BATCHES.join(task_resources, r.id == b.task_resources_id)
            .join(queue, q.id == r.queue_id)
            .join(cluster, c.id == q.cluster_id)
        )
        .where(p.workflow_id == param("workflow"), or_(_has_attempts("taken"), _has_live_job()))
        .order_by(b.number)
    )


@statement
def _live_jobs_of_batch() -> Select[Any]:
    return select(j.distributor_id).where(j.batch_id == param("id"), j.ended_at.is_(None)).order_by(j.id)


def batch_status(tx: Transaction, workflow_id: int, run_status: str, numbers: Sequence[int]) -> BatchStatus:
    """Return the status of packed batches. A batch of pilots is over when no pilot could take more into it."""
    if not numbers:
        return BatchStatus({}, [], [])
    rows = tx.rows(_batch_status, taken=transitions.TAKEN, untaken=fsm.UNSTARTED, workflow=workflow_id, numbers=numbers)
    may_grow = run_status in transitions.QUEUING_RUNS
    over = [row for row in rows if not row[4] and not (row[3] == Mode.PILOT and row[5] and (may_grow or row[6]))]
    return BatchStatus(
        {row[0]: row[1] for row in rows}, [row[0] for row in over], _unstarted(tx, [row[2] for row in over])
    )


def _unstarted(tx: Transaction, batch_ids: Sequence[int]) -> list[str]:
    """Return jobs that have not started and have nothing left to do; one that starts nevertheless gets nothing."""
    if not batch_ids:
        return []
    tx.run(_close_unstarted, now=tx.now, batches=batch_ids)
    return tx.column(_unstarted_jobs, batches=batch_ids)


def live_batches(tx: Transaction, workflow_id: int) -> list[PackedBatch]:
    """Return the packed batches that have live attempts or jobs, for a distributor that registers."""
    rows = tx.rows(_live_batches, workflow=workflow_id, taken=transitions.TAKEN)
    return [
        PackedBatch(
            batch_number=row[1],
            cluster_name=row[2],
            untaken=row[3],
            submitted=bool(row[4]),
            distributor_ids=tx.column(_live_jobs_of_batch, id=row[0]),
        )
        for row in rows
    ]
