"""Jobs that run many tasks each: which batches are packed, what their jobs take, and what is left when one ends.

A packed batch hands out its attempts in the order of their steps; what stands before `taken` belongs, or belonged, to
the job whose id the attempt carries. What a job was given to start at once is RUNNING, what it was given ahead is
LAUNCHED until it says that it runs. When a job is gone, what it was running ends by the job's cause, and what it had
not begun is lost, which is not charged. When no job is left that could take the rest, that is lost, too.

Usecases take `FOR UPDATE` of the batch first, so that two jobs never get the same attempt.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import packing
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.packing import Mode
from jobmon.core.wire.launching import (
    REPORTS_PER_REQUEST_MAX,
    EndedJob,
    JobPlan,
    PackedBatch,
    PackedJob,
    Report,
    SubmittedBatch,
    SyncRequest,
    WorkerTakeRequest,
    WorkerTakeResponse,
    WorkerTasks,
)
from jobmon.server import transitions
from jobmon.server.packed import open_pilots, queued, to_kill
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.transaction import Audience, to_json
from jobmon.server.transitions import AttemptMoves, attempt_deadline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
#: More than this are never handed to one job at once.
TASKS_PER_TAKE_MAX: Final = 1_000
#: How many of the newest attempts that are done tell how long tasks take.
MEASURED_MAX: Final = 200
#: An attempt that ran for this share of its job had the job's whole time.
WHOLE_TIME_SHARE: Final = 0.9
UNTAKEN_STATUSES: Final = (TI.INSTANTIATED, TI.LAUNCHED)
JOB_GONE: Final = "Its job ended without saying what became of it."
NO_JOB_LEFT: Final = "No job is left to run it."
NOT_BEGUN: Final = "Its job ended before it was begun."

_BATCH: Final = """
SELECT b.id, b.workflow_id, b.array_id, b.task_resources_id, p.mode, p.width, p.runtime_seconds, p.size, p.taken,
    p.submitted, b.number
FROM packed_batch p JOIN batch b ON b.id = p.batch_id
"""


@dataclass(slots=True)
class _Batch:
    id: int
    workflow_id: int
    array_id: int
    task_resources_id: int
    mode: str
    width: int
    runtime_seconds: float | None
    size: int
    taken: int
    submitted: bool
    number: int


@dataclass(slots=True)
class _Job:
    id: int
    distributor_id: str
    started_at: int | None
    ended_at: int | None
    request_key: str | None
    handed_out: str | None


# -- at launch -------------------------------------------------------------------------------------------------


def plan_batch(
    tx: Transaction, workflow_id: int, batch_id: int, attempts: int, run_id: int, cluster_id: int
) -> JobPlan | None:
    """Decide how a new batch is submitted, and record it; None: one step of an array for each attempt."""
    row = tx.row(
        """
        SELECT b.array_id, b.task_resources_id, r.requested, q.parameters
        FROM batch b JOIN task_resources r ON r.id = b.task_resources_id JOIN queue q ON q.id = r.queue_id
        WHERE b.id = :id
        """,
        id=batch_id,
    )
    assert row is not None
    array_id, resources_id, requested, parameters = row
    request = json.loads(requested)
    pilots = _live_pilots(tx, workflow_id, array_id, resources_id) if request.get(packing.PILOT) else 0
    mean = _mean_seconds(tx, run_id, cluster_id, array_id)
    plan = packing.plan(request, attempts, mean, json.loads(parameters), pilots)
    if plan.mode is Mode.ARRAY:
        return None
    tx.run(
        """
        INSERT INTO packed_batch (batch_id, workflow_id, mode, jobs, width, runtime_seconds, size, taken, submitted)
        VALUES (:batch, :workflow, :mode, :jobs, :width, :runtime, :size, 0, FALSE)
        """,
        batch=batch_id,
        workflow=workflow_id,
        mode=plan.mode.value,
        jobs=plan.jobs,
        width=plan.width,
        runtime=plan.runtime_seconds,
        size=attempts,
    )
    return JobPlan(mode=plan.mode, jobs=plan.jobs, width=plan.width, runtime_seconds=plan.runtime_seconds)


def recorded_plan(tx: Transaction, batch_id: int) -> JobPlan | None:
    """Return how a batch was to be submitted."""
    row = tx.row("SELECT mode, jobs, width, runtime_seconds FROM packed_batch WHERE batch_id = :id", id=batch_id)
    return None if row is None else JobPlan(mode=row[0], jobs=row[1], width=row[2], runtime_seconds=row[3])


def _mean_seconds(tx: Transaction, run_id: int, cluster_id: int, array_id: int) -> float | None:
    """Return how long the newest attempts of an array took that are done in this run; None: none is."""
    mean = tx.value(
        """
        SELECT AVG(d.wallclock_seconds) FROM (
            SELECT task_id, wallclock_seconds FROM task_instance
            WHERE workflow_run_id = :run AND status = :done AND cluster_id = :cluster ORDER BY id DESC LIMIT :most
        ) AS d JOIN task t ON t.id = d.task_id WHERE t.array_id = :array
        """,
        run=run_id,
        done=TI.DONE.value,
        cluster=cluster_id,
        most=MEASURED_MAX,
        array=array_id,
    )
    return None if mean is None else float(mean)


def _live_pilots(tx: Transaction, workflow_id: int, array_id: int, resources_id: int) -> int:
    """Count the jobs that take work of an array and request, whatever batch they were submitted for.

    Not those of a submission that counts as refused: nobody looks after them, and nobody would say that they ended.
    """
    return int(
        tx.value(
            """
            SELECT COUNT(*) FROM packed_batch p JOIN batch b ON b.id = p.batch_id JOIN packed_job j ON j.batch_id = b.id
            WHERE p.workflow_id = :workflow AND p.mode = :mode AND b.array_id = :array
            AND b.task_resources_id = :resources AND j.ended_at IS NULL AND p.submitted
            """,
            workflow=workflow_id,
            mode=Mode.PILOT.value,
            array=array_id,
            resources=resources_id,
        )
    )


# -- what a job says and gets ----------------------------------------------------------------------------------


def take(tx: Transaction, request: WorkerTakeRequest) -> WorkerTakeResponse:
    """Take what a job reports; tell it what to end; give it work. See the wire module.

    Raises:
        NotFound: there is no such batch, or it is not packed.
        InvalidValue: more reports than allowed, or no id of the job.
    """
    if len(request.reports) > REPORTS_PER_REQUEST_MAX:
        raise InvalidValue(f"reports: at most {REPORTS_PER_REQUEST_MAX} in one request.")
    if not request.distributor_id:
        raise InvalidValue("distributor_id: a packed job has to name itself by its cluster's id for it.")
    batch = _batch_of(tx, request)
    job = _job(tx, batch.id, request.distributor_id, request.host)
    _take_reports(tx, request)
    if job.ended_at is not None:  # it was found gone, and what it had was given to others
        return _answer(tx, batch, [], kill=list(request.alive), over=True)
    if request.leaving:
        _end_job(tx, batch, job, EndedJob(distributor_id=job.distributor_id, status=TI.UNKNOWN_ERROR.value))
        return _answer(tx, batch, [], over=True)
    ids = _replayed(tx, job, request.key)
    if ids is None:
        ids = _hand_out(tx, batch, job, request)
    kill = to_kill(tx, batch.workflow_id, job.distributor_id, request.alive)
    return _answer(tx, batch, ids, kill=kill, over=_is_over(tx, batch))


def _batch_of(tx: Transaction, request: WorkerTakeRequest) -> _Batch:
    row = tx.row(
        _BATCH
        + """WHERE b.workflow_id = (SELECT workflow_id FROM task_array WHERE id = :array)
        AND b.number = :number AND b.array_id = :array FOR UPDATE""",
        array=request.array_id,
        number=request.batch_number,
    )
    if row is None:
        raise NotFound(f"There is no packed batch {request.batch_number} of array {request.array_id}.")
    return _Batch(*row)


def _job(tx: Transaction, batch_id: int, distributor_id: str, host: str) -> _Job:
    """Return the row of a job that has started; it may have done so before its distributor told of it."""
    find = """
        SELECT id, distributor_id, started_at, ended_at, request_key, handed_out FROM packed_job
        WHERE batch_id = :batch AND distributor_id = :job
        """
    row = tx.row(find, batch=batch_id, job=distributor_id)
    if row is None:
        tx.insert("packed_job", batch_id=batch_id, distributor_id=distributor_id, host=host, started_at=tx.now)
    elif row[2] is None:
        tx.run("UPDATE packed_job SET started_at = :now, host = :host WHERE id = :id", now=tx.now, host=host, id=row[0])
    else:
        return _Job(*row)
    row = tx.row(find, batch=batch_id, job=distributor_id)
    assert row is not None
    return _Job(*row)


def _take_reports(tx: Transaction, request: WorkerTakeRequest) -> None:
    if request.reports:
        moves = AttemptMoves(tx, [report.task_instance_id for report in request.reports])
        moves.report(request.reports)
        moves.write()
    if request.alive:
        tx.run(
            "UPDATE task_instance SET report_by = :deadline WHERE id IN (:ids...) AND status IN (:taken...)",
            deadline=attempt_deadline(tx),
            ids=request.alive,
            taken=transitions.TAKEN,
        )


def _replayed(tx: Transaction, job: _Job, key: str) -> list[int] | None:
    """Return what the same request got before, as far as it lives; None: it is a new one.

    One that was on its way for so long that its job has asked anew since gets nothing: nobody hears the answer.
    """
    if key and _number_of(key) < _number_of(job.request_key):
        return []
    if not key or job.request_key != key:
        return None
    ids = json.loads(job.handed_out or "[]")
    live = set(
        tx.column(
            "SELECT id FROM task_instance WHERE id IN (:ids...) AND status IN (:live...)",
            ids=ids,
            live=transitions.TAKEN,
        )
    )
    return [one for one in ids if one in live]


def _number_of(key: str | None) -> float:
    """Return the number before the colon of a key; a key without one is newer than all others."""
    number, colon, _ = (key or "").partition(":")
    return int(number) if colon and number.isdecimal() else math.inf if key else -math.inf


def _hand_out(tx: Transaction, batch: _Batch, job: _Job, request: WorkerTakeRequest) -> list[int]:
    now, ahead = max(0, request.capacity), max(0, request.ahead)
    wanted = min(now + ahead, TASKS_PER_TAKE_MAX)
    ids = _choose(tx, batch, wanted) if wanted else []
    if ids or request.key:
        tx.run(
            "UPDATE packed_job SET request_key = :key, handed_out = :ids WHERE id = :id",
            key=request.key,
            ids=to_json(ids),
            id=job.id,
        )
    if ids:
        _give(tx, ids, now, job.distributor_id, request.host)
    return ids


def _choose(tx: Transaction, batch: _Batch, wanted: int) -> list[int]:
    """Take so many attempts out of the batch; a pilot goes on with other batches of its kind, then with the queue."""
    ids = _next_steps(tx, batch, wanted)
    if batch.mode != Mode.PILOT or len(ids) == wanted:
        return ids
    for other in open_pilots(tx, batch.workflow_id, batch.array_id, batch.task_resources_id):
        if len(ids) < wanted:
            ids += _next_steps(tx, _require(tx, other), wanted - len(ids))
    if len(ids) < wanted:
        ids += _from_queue(tx, batch, wanted - len(ids))
    return ids


def _require(tx: Transaction, batch_id: int) -> _Batch:
    row = tx.row(_BATCH + "WHERE p.batch_id = :id FOR UPDATE", id=batch_id)
    assert row is not None
    return _Batch(*row)


def _next_steps(tx: Transaction, batch: _Batch, wanted: int) -> list[int]:
    if batch.taken >= batch.size:
        return []
    rows = tx.rows(
        """
        SELECT id, array_step_id FROM task_instance
        WHERE batch_id = :batch AND array_step_id >= :taken AND status IN (:untaken...)
        ORDER BY array_step_id LIMIT :count
        """,
        batch=batch.id,
        taken=batch.taken,
        untaken=list(UNTAKEN_STATUSES),
        count=wanted,
    )
    batch.taken = rows[-1][1] + 1 if len(rows) == wanted else batch.size
    tx.run("UPDATE packed_batch SET taken = :taken WHERE batch_id = :id", taken=batch.taken, id=batch.id)
    if batch.taken >= batch.size:
        tx.wake(Audience.DISTRIBUTOR, batch.workflow_id)  # there is room for more
    return [row[0] for row in rows]


def _from_queue(tx: Transaction, batch: _Batch, wanted: int) -> list[int]:
    """Take what is queued and no distributor has launched yet into the batch."""
    run = _newest_run(tx, batch.workflow_id)
    if run[1] not in transitions.QUEUING_RUNS:
        return []
    rows = queued(tx, run[0], batch.array_id, batch.task_resources_id, wanted)
    if not rows:
        return []
    ids = [row[0] for row in rows]
    transitions.launch(tx, batch.id, ids, [row[1] for row in rows], first_step=batch.size)
    batch.size += len(ids)
    batch.taken = batch.size
    tx.run("UPDATE packed_batch SET size = :size, taken = :size WHERE batch_id = :id", size=batch.size, id=batch.id)
    return ids


def _newest_run(tx: Transaction, workflow_id: int) -> tuple[int, str]:
    row = tx.row("SELECT id, status FROM workflow_run WHERE workflow_id = :id ORDER BY id DESC LIMIT 1", id=workflow_id)
    assert row is not None, "what was launched has a run"
    return row[0], row[1]


def _give(tx: Transaction, ids: Sequence[int], now: int, distributor_id: str, host: str) -> None:
    """They belong to this job from here on; the first `now` of them are started at once."""
    moves = AttemptMoves(tx, ids)
    for place, attempt_id in enumerate(ids):
        if place < now:
            report = Report(
                task_instance_id=attempt_id, status=TI.RUNNING.value, distributor_id=distributor_id, host=host
            )
            moves.move(attempt_id, TI.RUNNING, report)
        elif moves.attempts[attempt_id].status == TI.INSTANTIATED:
            moves.move(attempt_id, TI.LAUNCHED)
    moves.write()
    tx.run(
        "UPDATE task_instance SET distributor_id = :job, host = :host, report_by = :deadline WHERE id IN (:ids...)",
        job=distributor_id,
        host=host,
        deadline=attempt_deadline(tx),
        ids=list(ids),
    )


def _is_over(tx: Transaction, batch: _Batch) -> bool:
    if batch.taken < batch.size:
        return False
    if batch.mode != Mode.PILOT:
        return True
    if _newest_run(tx, batch.workflow_id)[1] in transitions.QUEUING_RUNS:
        return False
    return not open_pilots(tx, batch.workflow_id, batch.array_id, batch.task_resources_id)


def _answer(
    tx: Transaction, batch: _Batch, ids: Sequence[int], *, kill: list[int] | None = None, over: bool = False
) -> WorkerTakeResponse:
    row = tx.row(
        """
        SELECT r.requested, w.working_directory, w.umask FROM task_resources r, workflow w
        WHERE r.id = :resources AND w.id = :workflow
        """,
        resources=batch.task_resources_id,
        workflow=batch.workflow_id,
    )
    assert row is not None
    job = PackedJob(
        mode=batch.mode,
        width=batch.width,
        runtime_seconds=batch.runtime_seconds,
        workflow_id=batch.workflow_id,
        workflow_run_id=_newest_run(tx, batch.workflow_id)[0],
        requested_resources=json.loads(row[0]),
        working_directory=row[1],
        umask=row[2],
        heartbeat_interval=tx.settings.task_instance_interval_seconds,
        report_by_buffer=tx.settings.report_by_buffer,
    )
    return WorkerTakeResponse(job=job, tasks=_tasks(tx, ids), kill=kill or [], over=over)


def _tasks(tx: Transaction, ids: Sequence[int]) -> WorkerTasks:
    rows: Mapping[int, tuple[Any, ...]] = {}
    if ids:
        found = tx.rows(
            """
            SELECT ti.id, ti.task_id, t.name, t.command, ti.number
            FROM task_instance ti JOIN task t ON t.id = ti.task_id WHERE ti.id IN (:ids...)
            """,
            ids=list(ids),
        )
        rows = {row[0]: row for row in found}
    ordered = [rows[one] for one in ids]
    return WorkerTasks(
        task_instance_ids=[row[0] for row in ordered],
        task_ids=[row[1] for row in ordered],
        names=[row[2] for row in ordered],
        commands=[row[3] for row in ordered],
        attempts=[row[4] for row in ordered],
    )


# -- what a distributor says and asks --------------------------------------------------------------------------


def hear(tx: Transaction, workflow_id: int, request: SyncRequest) -> None:
    """Take what a distributor says about its packed jobs: submitted, living, ended."""
    for submitted in request.submitted:
        _submitted(tx, workflow_id, submitted)
    for ended in request.ended_jobs:
        for batch, job in _jobs_named(tx, workflow_id, ended.distributor_id):
            _end_job(tx, batch, job, ended)
    if request.live_jobs is not None:
        _keep_alive(tx, workflow_id, request.packed, set(request.live_jobs))


def _submitted(tx: Transaction, workflow_id: int, submitted: SubmittedBatch) -> None:
    row = tx.row(
        _BATCH + "WHERE b.workflow_id = :workflow AND b.number = :number FOR UPDATE",
        workflow=workflow_id,
        number=submitted.batch_number,
    )
    if row is None:
        return
    batch = _Batch(*row)
    for distributor_id in submitted.distributor_ids:
        if not tx.value("SELECT id FROM packed_job WHERE batch_id = :b AND distributor_id = :job", b=batch.id,
                        job=distributor_id):  # fmt: skip
            tx.insert("packed_job", batch_id=batch.id, distributor_id=distributor_id)
    tx.run("UPDATE packed_batch SET submitted = TRUE WHERE batch_id = :id", id=batch.id)
    transitions.submit_packed(tx, batch.id)
    _settle_untaken(tx, batch)


def _jobs_named(tx: Transaction, workflow_id: int, distributor_id: str) -> list[tuple[_Batch, _Job]]:
    rows = tx.rows(
        """
        SELECT j.batch_id, j.id, j.distributor_id, j.started_at, j.ended_at, j.request_key, j.handed_out
        FROM packed_batch p JOIN packed_job j ON j.batch_id = p.batch_id
        WHERE p.workflow_id = :workflow AND j.distributor_id = :job
        """,
        workflow=workflow_id,
        job=distributor_id,
    )
    return [(_require(tx, row[0]), _Job(*row[1:])) for row in rows]


def _end_job(tx: Transaction, batch: _Batch, job: _Job, ended: EndedJob) -> None:
    """A job is gone: end what it had, and what nobody can take any more."""
    if job.ended_at is None:
        tx.run("UPDATE packed_job SET ended_at = :now WHERE id = :id", now=tx.now, id=job.id)
    rows = tx.rows(
        """
        SELECT ti.id, ti.status, ti.started_at FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        WHERE r.workflow_id = :workflow AND ti.status IN (:taken...) AND ti.distributor_id = :job ORDER BY ti.id
        """,
        workflow=batch.workflow_id,
        taken=transitions.TAKEN,
        job=job.distributor_id,
    )
    moves = AttemptMoves(tx, [row[0] for row in rows])
    for attempt_id, status, started_at in rows:
        if status in UNTAKEN_STATUSES:
            target, cause, error = TI.UNKNOWN_ERROR, Cause.WORKER_LOST, NOT_BEGUN
        else:
            target, cause, error = _blame(ended, _share_of_job(tx.now, started_at, job.started_at))
        moves.move(
            attempt_id,
            target,
            Report(task_instance_id=attempt_id, status=target.value, cause=cause.value, error=error),
        )
    moves.write()
    _settle_untaken(tx, batch)


def _share_of_job(now: int, started_at: int | None, job_started_at: int | None) -> float:
    if started_at is None or job_started_at is None or now <= job_started_at:
        return 0.0
    return (now - started_at) / (now - job_started_at)


def _blame(ended: EndedJob, share: float) -> tuple[TI, Cause, str]:
    """Say how what ran in a job is to be counted that ended so: only what a task itself did is charged.

    Memory: all that ran had its part in it. Time: only what had (nearly) the whole of it. A job that failed otherwise,
    or ended well, with commands under way: that was its worker's doing.
    """
    error = ended.error or JOB_GONE
    if ended.cause == Cause.OUT_OF_MEMORY:
        return TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, error
    if ended.cause == Cause.OUT_OF_TIME and share >= WHOLE_TIME_SHARE:
        return TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, error
    if ended.cause in (Cause.NODE_FAILURE, Cause.PREEMPTED, Cause.REQUEUED):
        return TI.UNKNOWN_ERROR, Cause(ended.cause), error
    if ended.cause == Cause.KILLED:
        return TI.ERROR, Cause.KILLED, error
    return TI.UNKNOWN_ERROR, Cause.WORKER_LOST, error


def _settle_untaken(tx: Transaction, batch: _Batch) -> None:
    """Where no job is left to take the rest of a batch that was submitted, the rest is lost."""
    if batch.mode != Mode.PILOT:
        live = tx.value("SELECT id FROM packed_job WHERE batch_id = :id AND ended_at IS NULL LIMIT 1", id=batch.id)
        batches = [batch.id]
    else:
        live = _live_pilots(tx, batch.workflow_id, batch.array_id, batch.task_resources_id)
        batches = open_pilots(tx, batch.workflow_id, batch.array_id, batch.task_resources_id)
    if live:
        return
    for batch_id in batches:
        _give_up(tx, _require(tx, batch_id))


def _give_up(tx: Transaction, batch: _Batch) -> None:
    if not batch.submitted or batch.taken >= batch.size:
        return  # its jobs are still to come
    ids = _next_steps(tx, batch, batch.size - batch.taken + 1)
    moves = AttemptMoves(tx, ids)
    lost, cause = TI.UNKNOWN_ERROR.value, Cause.WORKER_LOST.value
    for attempt_id in ids:
        report = Report(task_instance_id=attempt_id, status=lost, cause=cause, error=NO_JOB_LEFT)
        moves.move(attempt_id, lost, report)
    moves.write()


def _keep_alive(tx: Transaction, workflow_id: int, numbers: Sequence[int], live_jobs: set[str]) -> None:
    """Move the deadlines of what waits for living jobs or in them; settle what is in doubt by whether its job lives.

    A job that pauses for long may have begun what it had taken ahead without having been able to say so.
    """
    deadline = attempt_deadline(tx)
    tx.run(
        """
        UPDATE task_instance SET report_by = :deadline
        WHERE status = :taken AND distributor_id IN (:jobs...) AND batch_id IN (
            SELECT b.id FROM batch b WHERE b.workflow_id = :workflow AND b.number IN (:numbers...))
        """,
        deadline=deadline,
        taken=TI.LAUNCHED.value,
        jobs=sorted(live_jobs),
        workflow=workflow_id,
        numbers=list(numbers),
    )
    tx.run(
        """
        UPDATE task_instance SET report_by = :deadline
        WHERE status IN (:untaken...) AND distributor_id IS NULL AND batch_id IN (
            SELECT b.id FROM batch b JOIN packed_batch p ON p.batch_id = b.id
            WHERE b.workflow_id = :workflow AND b.number IN (:numbers...) AND p.taken < p.size)
        """,
        deadline=deadline,
        untaken=list(UNTAKEN_STATUSES),
        workflow=workflow_id,
        numbers=list(numbers),
    )
    doubted = tx.rows(
        """
        SELECT ti.id, ti.distributor_id FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        JOIN packed_batch p ON p.batch_id = ti.batch_id
        WHERE r.workflow_id = :workflow AND ti.status = :triaging
        """,
        workflow=workflow_id,
        triaging=TI.TRIAGING.value,
    )
    moves = AttemptMoves(tx, [row[0] for row in doubted])
    for attempt_id, distributor_id in doubted:
        if distributor_id in live_jobs:
            moves.move(attempt_id, TI.RUNNING)
        else:
            moves.move(attempt_id, TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST)
    moves.write()
    # silent for long, and their distributor does not see them
    lost = {str(row[1]) for row in doubted if row[1]} - live_jobs
    for batch, job in [found for one in sorted(lost) for found in _jobs_named(tx, workflow_id, one)]:
        _end_job(tx, batch, job, EndedJob(distributor_id=job.distributor_id, status=TI.UNKNOWN_ERROR.value))


@dataclass(frozen=True, slots=True)
class Standing:
    """How batches stand: what nobody has taken; those that are over; jobs of these that have not begun."""

    untaken: dict[int, int]
    over: list[int]
    unstarted: list[str]


def standing(tx: Transaction, workflow_id: int, run_status: str, numbers: Sequence[int]) -> Standing:
    """Return how packed batches stand. A pilot's is over when no pilot could take more into it."""
    if not numbers:
        return Standing({}, [], [])
    rows = tx.rows(
        """
        SELECT b.number, p.size - p.taken, b.id, p.mode,
            EXISTS (SELECT 1 FROM task_instance ti WHERE ti.batch_id = b.id AND ti.status IN (:taken...)),
            EXISTS (SELECT 1 FROM packed_job j WHERE j.batch_id = b.id AND j.ended_at IS NULL),
            EXISTS (SELECT 1 FROM packed_batch op JOIN batch ob ON ob.id = op.batch_id
                JOIN task_instance oti ON oti.batch_id = ob.id
                WHERE op.workflow_id = p.workflow_id AND op.mode = p.mode AND op.taken < op.size
                AND ob.array_id = b.array_id AND ob.task_resources_id = b.task_resources_id
                AND oti.status IN (:untaken...))
        FROM batch b JOIN packed_batch p ON p.batch_id = b.id
        WHERE b.workflow_id = :workflow AND b.number IN (:numbers...) ORDER BY b.number
        """,
        taken=transitions.TAKEN,
        untaken=list(UNTAKEN_STATUSES),
        workflow=workflow_id,
        numbers=list(numbers),
    )
    may_grow = run_status in transitions.QUEUING_RUNS
    over = [row for row in rows if not row[4] and not (row[3] == Mode.PILOT and row[5] and (may_grow or row[6]))]
    return Standing(
        {row[0]: row[1] for row in rows}, [row[0] for row in over], _unstarted(tx, [row[2] for row in over])
    )


def _unstarted(tx: Transaction, batch_ids: Sequence[int]) -> list[str]:
    """Return jobs that have not begun though there is nothing left for them; should they begin, they get nothing."""
    if not batch_ids:
        return []
    where = "batch_id IN (:batches...) AND started_at IS NULL"
    tx.run(f"UPDATE packed_job SET ended_at = :now WHERE {where} AND ended_at IS NULL", now=tx.now, batches=batch_ids)
    return tx.column(f"SELECT distributor_id FROM packed_job WHERE {where} ORDER BY id", batches=batch_ids)


def packed_batches(tx: Transaction, workflow_id: int) -> list[PackedBatch]:
    """Return the packed batches of which attempts or jobs live, for a distributor that registers."""
    rows = tx.rows(
        """
        SELECT b.id, b.number, c.name, p.size - p.taken, p.submitted
        FROM packed_batch p JOIN batch b ON b.id = p.batch_id JOIN task_resources r ON r.id = b.task_resources_id
        JOIN queue q ON q.id = r.queue_id JOIN cluster c ON c.id = q.cluster_id
        WHERE p.workflow_id = :workflow AND (
            EXISTS (SELECT 1 FROM task_instance ti WHERE ti.batch_id = b.id AND ti.status IN (:taken...))
            OR EXISTS (SELECT 1 FROM packed_job j WHERE j.batch_id = b.id AND j.ended_at IS NULL)) ORDER BY b.number
        """,
        workflow=workflow_id,
        taken=transitions.TAKEN,
    )
    return [
        PackedBatch(
            batch_number=row[1],
            cluster_name=row[2],
            untaken=row[3],
            submitted=bool(row[4]),
            distributor_ids=tx.column(
                "SELECT distributor_id FROM packed_job WHERE batch_id = :id AND ended_at IS NULL ORDER BY id", id=row[0]
            ),
        )
        for row in rows
    ]
