"""The only module that writes a status column. It decides nothing itself: it asks `core.fsm` and `core.retry`.

An attempt moves by `AttemptMoves`: load the attempts with their tasks, judge every wish, follow with the task where
the attempt is its newest (a stale attempt never moves a task), then write everything in a few guarded statements. A
run moves by `move_run`; its workflow follows where the run leads it (`core.fsm`). All of it carries the
transaction's stamp.

LATE changes are ignored and counted; ILLEGAL ones are refused one by one (attempts) or raised (runs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm, retry
from jobmon.core.constants import (
    Actor,
    Cause,
    ResourceType,
    TaskInstanceStatus,
    TaskStatus,
    WorkflowRunStatus,
    WorkflowStatus,
)
from jobmon.core.exceptions import InvalidStateTransition
from jobmon.core.fsm import Machine, Verdict
from jobmon.core.wire.launching import Report
from jobmon.server.models.types import to_microseconds
from jobmon.server.problems import InvalidValue
from jobmon.server.transaction import Audience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
#: Attempts that somebody may be running: taken by a distributor and not ended.
TAKEN: Final = (TI.INSTANTIATED, TI.LAUNCHED, TI.RUNNING, TI.TRIAGING, TI.KILL_SELF)
LIVE: Final = (TI.QUEUED, *TAKEN)
#: What a queued or launched task becomes is news that nobody has to be woken for.
QUIET_TASK_STATUSES: Final = (TaskStatus.QUEUED, TaskStatus.INSTANTIATING, TaskStatus.LAUNCHED)
#: Runs whose orchestrator may queue, and whose distributor may launch.
QUEUING_RUNS: Final = (
    WorkflowRunStatus.BOUND,
    WorkflowRunStatus.INSTANTIATED,
    WorkflowRunStatus.LAUNCHED,
    WorkflowRunStatus.RUNNING,
)
#: Runs that lead their workflow though they are not bound yet; a signal to make room does not change that.
_RECORDING_RUNS: Final = (WorkflowRunStatus.LINKING, WorkflowRunStatus.COLD_RESUME, WorkflowRunStatus.HOT_RESUME)
FINAL_RUNS: Final = tuple(sorted(fsm.TERMINAL[Machine.WORKFLOW_RUN]))
ERROR_CHARACTERS_MAX: Final = 10_000
_DEFAULT_CAUSES: Final = {TI.NO_HEARTBEAT: Cause.NO_HEARTBEAT, TI.NO_DISTRIBUTOR_ID: Cause.NO_DISTRIBUTOR_ID}
_NOT_STARTED: Final = frozenset({TI.QUEUED, TI.INSTANTIATED})
_ENDED: Final = frozenset(status.value for status in fsm.TERMINAL[Machine.TASK_INSTANCE])

_LOAD = """
SELECT ti.id, ti.status, ti.cause, ti.number, t.id, t.workflow_id, t.status, t.attempt_count, t.num_attempts,
       t.max_attempts, t.uncharged_in_a_row
FROM task_instance ti JOIN task t ON t.id = ti.task_id WHERE ti.id IN (:ids...) FOR UPDATE
"""
_WRITE_ATTEMPT = """
UPDATE task_instance SET status = ?, cause = ?, charged = ?, report_by = ?, started_at = COALESCE(?, started_at),
    ended_at = ?, distributor_id = COALESCE(?, distributor_id), host = COALESCE(?, host), pid = COALESCE(?, pid),
    exit_code = ?, exit_signal = ?, error = ?, stdout = COALESCE(?, stdout), stderr = COALESCE(?, stderr),
    wallclock_seconds = ?, cpu_seconds = ?, max_rss_bytes = ?, read_bytes = ?, written_bytes = ?
WHERE id = ? AND status = ?
"""
_WRITE_TASK = """
UPDATE task SET status = ?, status_at = ?, num_attempts = ?, uncharged_in_a_row = ? WHERE id = ? AND status = ?
"""
_WRITE_LOG_TAIL = "INSERT INTO log_tail (task_instance_id, text) VALUES (?, ?) ON CONFLICT DO NOTHING"
#: What a late report knows besides: an attempt that could not report may be measured later.
_WRITE_USAGE = """
UPDATE task_instance SET host = COALESCE(host, ?), wallclock_seconds = COALESCE(wallclock_seconds, ?),
    cpu_seconds = COALESCE(cpu_seconds, ?), max_rss_bytes = COALESCE(max_rss_bytes, ?)
WHERE id = ?
"""
_WRITE_DISTRIBUTOR_ID = "UPDATE task_instance SET distributor_id = COALESCE(distributor_id, ?) WHERE id = ?"


@dataclass(slots=True)
class Attempt:
    """An attempt with what its task needs to follow it; changed in memory before it is written."""

    id: int
    status: str
    cause: str | None
    number: int
    task_id: int
    workflow_id: int
    task_status: str
    attempt_count: int
    num_attempts: int
    max_attempts: int
    uncharged_in_a_row: int

    @property
    def is_newest(self) -> bool:
        """Whether the task follows it."""
        return self.number == self.attempt_count


@dataclass(frozen=True, slots=True)
class TaskMove:
    """What a task becomes."""

    status: str
    num_attempts: int
    uncharged_in_a_row: int


class AttemptMoves:
    """Changes of attempts and their tasks, collected, then written at once by `write`."""

    def __init__(self, tx: Transaction, ids: Iterable[int]) -> None:
        self._tx = tx
        wanted = list(ids)
        self.attempts = {row[0]: Attempt(*row) for row in (tx.rows(_LOAD, ids=wanted) if wanted else ())}
        self.late: list[int] = []
        self.refused: dict[int, str] = {}
        self._attempt_rows: list[tuple[Any, ...]] = []
        self._task_rows: list[tuple[Any, ...]] = []
        self._log_tails: list[tuple[int, str]] = []
        self._late_distributor_ids: list[tuple[str, int]] = []
        self._late_usage: list[tuple[Any, ...]] = []

    def report(self, reports: Sequence[Report]) -> None:
        """Take what distributors and workers say, in their order."""
        for report in reports:
            if report.status in fsm.REPORTS:
                self.move(report.task_instance_id, report.status, report)
            else:
                self.refused[report.task_instance_id] = f"{report.status!r} is nothing that can be reported."

    def move(self, attempt_id: int, target: str, report: Report | None = None, *, cause: str | None = None) -> None:
        """Move an attempt, and its task, if the table says so; else note it as late or refused."""
        target = str(target)
        attempt = self.attempts.get(attempt_id)
        if attempt is None:
            self.refused[attempt_id] = f"There is no attempt {attempt_id}."
            return
        verdict = fsm.judge(Machine.TASK_INSTANCE, attempt.status, target)
        if verdict is Verdict.LEGAL:
            self._move(attempt, target, report or _nothing(attempt_id, target, cause))
        elif verdict is Verdict.LATE:
            self._ignore(attempt, target, report)
        else:
            self.refused[attempt_id] = f"An attempt cannot go from {attempt.status} to {target}."

    def write(self) -> int:
        """Write what was collected; return how many attempts changed."""
        if self._attempt_rows:
            self._tx.run_many(_WRITE_ATTEMPT, self._attempt_rows)
        if self._task_rows:
            stamp = self._tx.stamp
            rows = [
                (status, stamp, attempts, in_a_row, *guard) for status, attempts, in_a_row, *guard in self._task_rows
            ]
            self._tx.run_many(_WRITE_TASK, rows)
        if self._log_tails:
            self._tx.run_many(_WRITE_LOG_TAIL, self._log_tails)
        if self._late_distributor_ids:
            self._tx.run_many(_WRITE_DISTRIBUTOR_ID, self._late_distributor_ids)
        if self._late_usage:
            self._tx.run_many(_WRITE_USAGE, self._late_usage)
        return len({row[-2] for row in self._attempt_rows})

    def _ignore(self, attempt: Attempt, target: str, report: Report | None) -> None:
        self.late.append(attempt.id)
        self._tx.effects.ignored[(Machine.TASK_INSTANCE, attempt.status, target)] += 1
        if report is not None and report.distributor_id is not None and attempt.status not in _ENDED:
            self._late_distributor_ids.append((report.distributor_id, attempt.id))
        if report is not None and attempt.status in _ENDED and _measured(report):
            self._late_usage.append((report.host, *_measured(report), attempt.id))

    def _move(self, attempt: Attempt, asked: str, report: Report) -> None:
        source, target = attempt.status, asked
        if source == TI.KILL_SELF:
            target = fsm.effective_target(Machine.TASK_INSTANCE, source, asked)
        cause = _cause(attempt, target, report)
        in_a_row = _uncharged_in_a_row(attempt, cause)
        charged = target == TI.DONE or (target in _ENDED and retry.is_charged(cause, in_a_row))
        if attempt.is_newest:
            refusal = self._follow(attempt, target, 0 if charged else in_a_row + 1, charged=charged)
            if refusal is not None:
                self.refused[attempt.id] = refusal
                return
        attempt.status, attempt.cause = target, cause
        self._attempt_rows.append(self._row(attempt.id, source, target, cause, report, charged=charged))
        if report.log_tail:
            self._log_tails.append((attempt.id, report.log_tail))
        if target in (TI.KILL_SELF, TI.TRIAGING):
            self._tx.wake(Audience.DISTRIBUTOR, attempt.workflow_id)

    def _row(
        self, attempt_id: int, source: str, target: str, cause: str | None, report: Report, *, charged: bool
    ) -> tuple[Any, ...]:
        now = self._tx.now
        ended = target in _ENDED
        started_at = _stored(report.started_at)
        if started_at is None and target == TI.RUNNING:
            started_at = now
        return (
            *(target, cause, charged, None if ended else attempt_deadline(self._tx), started_at),
            (_stored(report.ended_at) or now) if ended else None,
            *(report.distributor_id, report.host, report.pid, report.exit_code, report.signal),
            report.error[:ERROR_CHARACTERS_MAX] if report.error else None,
            *(report.stdout, report.stderr, report.wallclock_seconds, report.cpu_seconds),
            *(report.max_rss_bytes, report.read_bytes, report.written_bytes, attempt_id, source),
        )

    def _follow(self, attempt: Attempt, target: str, in_a_row: int, *, charged: bool) -> str | None:
        """Move the task after its newest attempt; return why not, if the table calls that illegal."""
        wanted = fsm.TASK_OF_INSTANCE.get(TI(target))
        if wanted is None:
            return None
        source = attempt.task_status
        if source == wanted:
            return None
        verdict = fsm.judge(Machine.TASK, source, wanted)
        if verdict is Verdict.LATE:
            self._tx.effects.ignored[(Machine.TASK, source, wanted)] += 1
            return None
        if verdict is Verdict.ILLEGAL:
            return f"Its task {attempt.task_id} cannot go from {source} to {wanted}."
        move = _after(attempt, target, wanted, in_a_row, charged=charged)
        self._task_rows.append((move.status, move.num_attempts, move.uncharged_in_a_row, attempt.task_id, source))
        attempt.task_status = move.status
        attempt.num_attempts, attempt.uncharged_in_a_row = move.num_attempts, move.uncharged_in_a_row
        if move.status not in QUIET_TASK_STATUSES:
            self._tx.wake(Audience.ORCHESTRATOR, attempt.workflow_id)
        return None


def _nothing(attempt_id: int, target: str, cause: str | None) -> Report:
    """A change that the server makes by itself."""
    return Report(task_instance_id=attempt_id, status=target, cause=cause)


def _measured(report: Report) -> tuple[float | None, ...]:
    """Return what a report says of usage; nothing if it says nothing."""
    usage = (report.wallclock_seconds, report.cpu_seconds, report.max_rss_bytes)
    return usage if any(value is not None for value in usage) else ()


def _stored(time: datetime | None) -> int | None:
    return None if time is None else to_microseconds(time)


def _cause(attempt: Attempt, target: str, report: Report) -> str | None:
    """Why it ended. One that was told to end, and failed then, ended for the reason for which it was told."""
    if target == TI.DONE:
        return None
    if attempt.status == TI.KILL_SELF:
        return attempt.cause or Cause.KILLED.value
    cause = report.cause or _DEFAULT_CAUSES.get(TI(target))
    return None if cause is None else str(cause)


def _uncharged_in_a_row(attempt: Attempt, cause: str | None) -> int:
    """Return how many uncharged attempts went before; one that was handed out but never started is none itself."""
    was_started = cause != Cause.WORKER_LOST or attempt.status not in _NOT_STARTED
    return attempt.uncharged_in_a_row - (not was_started)


def _after(attempt: Attempt, target: str, wanted: TaskStatus, in_a_row: int, *, charged: bool) -> TaskMove:
    """Say what becomes of the task; ERROR_RECOVERABLE is left at once."""
    if target not in _ENDED:
        return TaskMove(wanted.value, attempt.num_attempts, attempt.uncharged_in_a_row)
    num_attempts = attempt.num_attempts + charged
    status = wanted
    if wanted is TaskStatus.ERROR_RECOVERABLE:
        status = retry.after_failure(target, num_attempts, attempt.max_attempts, charged=charged)
        _assert_legal(Machine.TASK, attempt.task_id, wanted, status)
    return TaskMove(status.value, num_attempts, in_a_row)


def _assert_legal(machine: Machine, identity: object, source: str, target: str) -> None:
    if fsm.judge(machine, source, target) is not Verdict.LEGAL:
        raise InvalidStateTransition.of(machine, identity, source, target)


def attempt_deadline(tx: Transaction) -> int:
    """Return when an attempt that showed a sign of life now is overdue."""
    return tx.now + int(tx.settings.attempt_deadline_seconds * 1e6)


# The three statements below move thousands of rows at once; their guards come from the table.


def queue_tasks(
    tx: Transaction, run: RunRow, task_ids: Sequence[int], task_resources_id: int, cluster_id: int, seen: int
) -> None:
    """Move tasks to QUEUED, with a new attempt each. Tasks that may not be queued stay as they are.

    So do those that changed after `seen`: whoever asks does not know yet.
    """
    values = {
        "ids": task_ids,
        "workflow": run.workflow_id,
        "sources": _sources(Machine.TASK, TaskStatus.QUEUED),
        "resources": task_resources_id,
        "seen": seen,
    }
    tx.run(
        """
        INSERT INTO task_instance
            (task_id, number, workflow_run_id, cluster_id, task_resources_id, status, queued_at, charged)
        SELECT id, attempt_count + 1, :run, :cluster, :resources, :queued, :now, FALSE FROM task
        WHERE id IN (:ids...) AND +workflow_id = :workflow AND +status IN (:sources...)
        AND +status_at <= :seen ORDER BY id
        """,
        **values,
        run=run.id,
        cluster=cluster_id,
        queued=TI.QUEUED.value,
        now=tx.now,
    )
    queued = tx.run(
        """
        UPDATE task SET status = :queued, status_at = :stamp, attempt_count = attempt_count + 1,
            task_resources_id = :resources
        WHERE id IN (:ids...) AND +workflow_id = :workflow AND +status IN (:sources...)
        AND +status_at <= :seen
        """,
        **values,
        queued=TaskStatus.QUEUED.value,
        stamp=tx.stamp,
    )
    if queued:
        tx.wake(Audience.DISTRIBUTOR, run.workflow_id)


def launch(
    tx: Transaction, batch_id: int, attempt_ids: Sequence[int], task_ids: Sequence[int], first_step: int = 0
) -> None:
    """Move QUEUED attempts, which are the newest of their tasks, to INSTANTIATED in a batch."""
    deadline = attempt_deadline(tx)
    sources = _sources(Machine.TASK_INSTANCE, TI.INSTANTIATED)
    assert sources == [TI.QUEUED.value], "the statement below is written for this table"
    tx.run_many(
        "UPDATE task_instance SET status = ?, batch_id = ?, array_step_id = ?, launched_at = ?, report_by = ? "
        "WHERE id = ? AND status = ?",
        [
            (TI.INSTANTIATED.value, batch_id, step, tx.now, deadline, attempt_id, TI.QUEUED.value)
            for step, attempt_id in enumerate(attempt_ids, first_step)
        ],
    )
    tx.run(
        "UPDATE task SET status = :target, status_at = :stamp WHERE id IN (:ids...) AND status IN (:sources...)",
        target=TaskStatus.INSTANTIATING.value,
        stamp=tx.stamp,
        ids=task_ids,
        sources=_sources(Machine.TASK, TaskStatus.INSTANTIATING),
    )


def reset_tasks(
    tx: Transaction,
    workflow_id: int,
    after_id: int,
    last_id: int,
    *,
    keep_running: bool,
    keep_resources: bool,
    keep_done: bool = True,
) -> None:
    """Move tasks of a range of ids to REGISTERING with no attempts used."""
    live = "" if not keep_running else _HAS_NO_LIVE_ATTEMPT
    values = {"workflow": workflow_id, "after": after_id, "last": last_id, "target": TaskStatus.REGISTERING.value}
    if keep_running:
        values["live"] = list(LIVE)
    sources = set(_sources(Machine.TASK, TaskStatus.REGISTERING)) - ({TaskStatus.DONE.value} if keep_done else set())
    where = f"WHERE workflow_id = :workflow AND id > :after AND id <= :last {live}"
    changed = tx.run(
        f"UPDATE task SET status = :target, status_at = :stamp {where} AND status IN (:sources...)",
        **values,
        stamp=tx.stamp,
        sources=sources,
    )
    tx.run(f"UPDATE task SET num_attempts = 0, uncharged_in_a_row = 0 {where} AND status = :target", **values)
    if not keep_resources:
        adjusted = ResourceType.ADJUSTED.value
        tx.run(_LOWER_RESOURCES.format(where=where), **values, adjusted=adjusted)
    if changed:
        tx.wake(Audience.ORCHESTRATOR, workflow_id)


#: What a user may say of a task.
SETTABLE: Final = (TaskStatus.DONE, TaskStatus.REGISTERING)


def settable_status(letter: str) -> TaskStatus:
    """Return the status that a user wants for tasks.

    Raises:
        InvalidValue: it is none that a user may set.
    """
    if letter not in SETTABLE:
        names = " or ".join(f"{status.value} ({status.name})" for status in SETTABLE)
        raise InvalidValue(f"status: must be {names}, not {letter!r}.")
    return TaskStatus(letter)


def set_tasks(tx: Transaction, workflow_id: int, task_ids: Sequence[int], target: TaskStatus) -> int:
    """Move tasks without a live attempt to where a user says that they are, with no attempts used; return how many."""
    changed = tx.run(
        f"""
        UPDATE task SET status = :target, status_at = :stamp, num_attempts = 0, uncharged_in_a_row = 0
        WHERE id IN (:ids...) AND +workflow_id = :workflow AND +status IN (:sources...) {_HAS_NO_LIVE_ATTEMPT}
        """,
        ids=task_ids,
        workflow=workflow_id,
        target=target.value,
        stamp=tx.stamp,
        sources=sorted(fsm.sources(Machine.TASK, target, Actor.USER)),
        live=list(LIVE),
    )
    if changed:
        tx.wake(Audience.ORCHESTRATOR, workflow_id)
    return changed


#: Back to the newest request that was not raised after a failure.
_LOWER_RESOURCES: Final = """
UPDATE task SET task_resources_id = COALESCE((
    SELECT ti.task_resources_id FROM task_instance ti JOIN task_resources r ON r.id = ti.task_resources_id
    WHERE ti.task_id = task.id AND r.kind != :adjusted ORDER BY ti.number DESC LIMIT 1), task_resources_id)
{where} AND status = :target
AND task_resources_id IN (SELECT id FROM task_resources WHERE kind = :adjusted)
"""
_HAS_NO_LIVE_ATTEMPT: Final = """AND NOT EXISTS (
    SELECT 1 FROM task_instance ti
    WHERE ti.task_id = task.id AND ti.number = task.attempt_count AND ti.status IN (:live...))"""


def _sources(machine: Machine, target: str) -> list[str]:
    return sorted(fsm.sources(machine, target))


def live_attempts(tx: Transaction, workflow_id: int, statuses: Sequence[str] = LIVE) -> list[int]:
    """Return the attempts of a workflow, of all its runs, that are in one of these states."""
    return tx.column(
        """
        SELECT ti.id FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        WHERE r.workflow_id = :workflow AND ti.status IN (:statuses...) ORDER BY ti.id
        """,
        workflow=workflow_id,
        statuses=list(statuses),
    )


def end_queued(tx: Transaction, workflow_id: int, cause: Cause) -> int:
    """End the attempts of a workflow that nobody launched; return how many."""
    return move_all(tx, live_attempts(tx, workflow_id, [TI.QUEUED]), TI.ERROR, cause)


def kill_taken(tx: Transaction, workflow_id: int, cause: Cause) -> int:
    """Tell whoever runs an attempt of a workflow to end it; return how many were not told before."""
    ids = live_attempts(tx, workflow_id, [status for status in TAKEN if status != TI.KILL_SELF])
    killed = move_all(tx, ids, TI.KILL_SELF, cause)
    end_untaken(tx, workflow_id, cause)
    return killed


def end_untaken(tx: Transaction, workflow_id: int, cause: Cause) -> None:
    """End those attempts in KILL_SELF that wait for a packed job to take them: there is nobody who could."""
    ids = tx.column(
        """
        SELECT ti.id FROM packed_batch p JOIN task_instance ti
            ON ti.batch_id = p.batch_id AND ti.array_step_id >= p.taken
        WHERE p.workflow_id = :workflow AND p.taken < p.size AND ti.status = :kill ORDER BY ti.id
        """,
        workflow=workflow_id,
        kill=TI.KILL_SELF.value,
    )
    move_all(tx, ids, TI.ERROR, cause)


def submit_packed(tx: Transaction, batch_id: int) -> None:
    """Move what no job has taken yet of a batch to LAUNCHED: its jobs were submitted."""
    deadline = attempt_deadline(tx)
    tx.run(
        """
        UPDATE task_instance SET status = :target, report_by = :deadline
        WHERE batch_id = :batch AND status = :source
        """,
        target=TI.LAUNCHED.value,
        deadline=deadline,
        batch=batch_id,
        source=TI.INSTANTIATED.value,
    )
    tx.run(
        """
        UPDATE task SET status = :target, status_at = :stamp
        WHERE id IN (SELECT task_id FROM task_instance WHERE batch_id = :batch AND status = :launched)
        AND status IN (:sources...)
        """,
        target=TaskStatus.LAUNCHED.value,
        stamp=tx.stamp,
        batch=batch_id,
        launched=TI.LAUNCHED.value,
        sources=_sources(Machine.TASK, TaskStatus.LAUNCHED),
    )


def move_all(tx: Transaction, ids: Sequence[int], target: str, cause: Cause | None) -> int:
    """Move attempts to one state; return how many changed."""
    moves = AttemptMoves(tx, ids)
    for attempt_id in ids:
        moves.move(attempt_id, target, cause=cause)
    return moves.write()


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as it stands, with its workflow.

    `is_newest`: no later run of the workflow exists. `leads`: the workflow follows this one; it is the newest of those
    that came as far as LINKING, or the newest of all where none did.
    """

    id: int
    status: str
    workflow_id: int
    workflow_status: str
    is_newest: bool
    leads: bool


def run_row(tx: Transaction, run_id: int) -> RunRow | None:
    """Return a run, or None."""
    row = tx.row(
        """
        SELECT r.id, r.status, r.workflow_id, w.status,
               (SELECT MAX(id) FROM workflow_run newest WHERE newest.workflow_id = r.workflow_id),
               (SELECT MAX(id) FROM workflow_run leader WHERE leader.workflow_id = r.workflow_id
                AND (leader.bound_at IS NOT NULL OR leader.status IN (:recording...)))
        FROM workflow_run r JOIN workflow w ON w.id = r.workflow_id WHERE r.id = :id FOR UPDATE
        """,
        id=run_id,
        recording=_RECORDING_RUNS,
    )
    if row is None:
        return None
    newest, leader = row[4], row[5]
    leads = run_id == (newest if leader is None else leader)
    return RunRow(row[0], row[1], row[2], row[3], is_newest=newest == run_id, leads=leads)


def move_run(tx: Transaction, run: RunRow, target: str, actor: Actor) -> str:
    """Move a run, and its workflow after it; return the status that stands then.

    Raises:
        InvalidStateTransition: the table calls it illegal, or this actor may not ask for it.
    """
    verdict = fsm.judge(Machine.WORKFLOW_RUN, run.status, target)
    if verdict is Verdict.LATE:
        tx.effects.ignored[(Machine.WORKFLOW_RUN, run.status, target)] += 1
        return run.status
    if verdict is Verdict.ILLEGAL or not fsm.may_ask(Machine.WORKFLOW_RUN, run.status, target, actor):
        raise InvalidStateTransition.of("Workflow run", run.id, run.status, target)
    tx.run(
        "UPDATE workflow_run SET status = :target, status_at = :stamp WHERE id = :id AND status = :source",
        target=target,
        stamp=tx.stamp,
        id=run.id,
        source=run.status,
    )
    for consequence in _CONSEQUENCES.get(WorkflowRunStatus(target), ()):
        consequence(tx, run)
    if run.leads or (run.is_newest and target == WorkflowRunStatus.LINKING):
        _follow_run(tx, run, target)
    tx.wake_all(run.workflow_id)
    return target


def _follow_run(tx: Transaction, run: RunRow, target: str) -> None:
    wanted = fsm.WORKFLOW_OF_RUN.get(WorkflowRunStatus(target))
    if wanted is not None:
        move_workflow(tx, run.workflow_id, run.workflow_status, wanted)


def move_workflow(tx: Transaction, workflow_id: int, source: str, target: WorkflowStatus) -> None:
    """Move a workflow, unless that is late.

    Raises:
        InvalidStateTransition: the table calls it illegal.
    """
    if source == target:
        return
    if fsm.judge(Machine.WORKFLOW, source, target) is Verdict.LATE:
        tx.effects.ignored[(Machine.WORKFLOW, source, target)] += 1
        return
    _assert_legal(Machine.WORKFLOW, workflow_id, source, target)
    tx.run(
        "UPDATE workflow SET status = :target, status_at = :stamp WHERE id = :id AND status = :source",
        target=target.value,
        stamp=tx.stamp,
        id=workflow_id,
        source=source,
    )


def _note_bound(tx: Transaction, run: RunRow) -> None:
    tx.run("UPDATE workflow_run SET bound_at = :now WHERE id = :id", now=tx.now, id=run.id)


def _take_over(tx: Transaction, run: RunRow) -> None:
    """Attempts that an earlier run left running belong to the new one from here on."""
    tx.run(
        "UPDATE task_instance SET workflow_run_id = :run WHERE id IN (:ids...)",
        run=run.id,
        ids=live_attempts(tx, run.workflow_id, TAKEN),
    )


def _end_queued(tx: Transaction, run: RunRow) -> None:
    """Nobody launches anything for a run that is over."""
    ids = tx.column(
        "SELECT id FROM task_instance WHERE workflow_run_id = :run AND status = :queued",
        run=run.id,
        queued=TI.QUEUED.value,
    )
    move_all(tx, ids, TI.ERROR, Cause.KILLED)


_CONSEQUENCES: Final[Mapping[WorkflowRunStatus, Sequence[Callable[[Transaction, RunRow], None]]]] = {
    WorkflowRunStatus.BOUND: (_note_bound, _take_over),
    **{WorkflowRunStatus(status): (_end_queued,) for status in FINAL_RUNS},
}
