"""Move attempts, and their tasks with them.

`AttemptMoves` loads attempts with their tasks, judges every requested change, moves the task along if the attempt is
its newest, then writes everything in a few guarded statements. An outdated attempt never moves its task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm, retry
from jobmon.core.constants import Cause, TaskInstanceStatus, TaskStatus
from jobmon.core.files import FILES_PER_ATTEMPT_MAX
from jobmon.core.fsm import Machine, Verdict
from jobmon.core.texts import ERROR_CHARACTERS_MAX
from jobmon.core.wire import replace
from jobmon.core.wire.launching import Report
from jobmon.server.constructs import and_, func, select, update
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, ATTEMPTS_WITH_TASKS
from jobmon.server.models import attempt_file, log_tail, packed_batch, task, task_instance, workflow_run
from jobmon.server.sql import any_of, param, statement
from jobmon.server.times import to_microseconds
from jobmon.server.transaction import Audience
from jobmon.server.transitions.agent_states import may_report
from jobmon.server.transitions.statuses import assert_legal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Select, Update

    from jobmon.server.armed import ArmedTask
    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
_DEFAULT_CAUSES: Final = {TI.NO_HEARTBEAT: Cause.NO_HEARTBEAT, TI.NO_DISTRIBUTOR_ID: Cause.NO_DISTRIBUTOR_ID}

t, ti = task.c, task_instance.c


@statement
def _attempts_with_tasks() -> Select[Any]:
    """Select attempts with the columns of their tasks that decide how these follow; see `Attempt`."""
    return (
        select(
            *(ti.id, ti.status, ti.cause, ti.number, t.id, t.workflow_id, t.status, t.attempt_count, t.num_attempts),
            *(t.max_attempts, t.uncharged_in_a_row, ti.agent_id, t.array_id, ti.pid, t.requested_at, ti.queued_stamp),
        )
        .select_from(ATTEMPTS_WITH_TASKS)
        .where(any_of(ti.id, "ids"))
    )


_ATTEMPT_VALUES: Final = (
    *("status", "cause", "charged", "report_by", "started_at", "ended_at", "distributor_id", "host", "pid"),
    *("exit_code", "exit_signal", "error", "stdout", "stderr", "wallclock_seconds", "cpu_seconds", "max_rss_bytes"),
    *("read_bytes", "written_bytes", "ended_stamp", "id", "source"),
)
#: Columns that keep their values if a report does not contain them.
_KEPT: Final = frozenset({"started_at", "distributor_id", "host", "pid", "stdout", "stderr"})


@statement
def _write_attempt() -> Update:
    values = {name: param(name, ti[name].type) for name in _ATTEMPT_VALUES[:-2]}
    changes = {name: func.coalesce(value, ti[name]) if name in _KEPT else value for name, value in values.items()}
    return update(task_instance).values(changes).where(ti.id == param("id"), ti.status == param("source"))


_FILE_VALUES: Final = ("task_instance_id", "position", "is_output", "path", "matches", "size_bytes", "modified")
_TASK_VALUES: Final = ("status", "status_at", "num_attempts", "uncharged_in_a_row", "id", "source")


@statement
def _write_task() -> Update:
    values = {name: param(name) for name in _TASK_VALUES[:-2]}
    return update(task).values(values).where(t.id == param("id"), t.status == param("source"))


_USAGE_VALUES: Final = ("host", "wallclock_seconds", "cpu_seconds", "max_rss_bytes", "id")


@statement
def _write_late_usage() -> Update:
    """Add the usage from a late report: an attempt that could not report may be measured later."""
    values = {name: func.coalesce(ti[name], param(name, ti[name].type)) for name in _USAGE_VALUES[:-1]}
    return update(task_instance).values(values).where(ti.id == param("id"))


@statement
def _write_late_distributor_id() -> Update:
    known = func.coalesce(ti.distributor_id, param("distributor_id", ti.distributor_id.type))
    return update(task_instance).values(distributor_id=known).where(ti.id == param("id"))


@dataclass(slots=True)
class AttemptState:
    """An attempt with the state of its task; changed in memory before it is written."""

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
    agent_id: int | None
    array_id: int
    pid: int | None
    requested_at: int | None
    queued_stamp: int | None

    @property
    def is_outdated(self) -> bool:
        """Whether it was told to terminate, and a rerun of its task was requested after it had been queued."""
        was_told = self.status == TI.KILL_SELF and self.requested_at is not None and self.queued_stamp is not None
        return was_told and self.requested_at > self.queued_stamp  # type: ignore[operator]  # neither is None

    @property
    def is_newest(self) -> bool:
        """Whether the task follows this attempt."""
        return self.number == self.attempt_count


@dataclass(frozen=True, slots=True)
class TaskMove:
    """The new state of a task."""

    status: str
    num_attempts: int
    uncharged_in_a_row: int


class AttemptMoves:
    """Collects changes of attempts and their tasks; `write` writes them all at once."""

    def __init__(self, tx: Transaction, ids: Iterable[int]) -> None:
        self._tx = tx
        wanted = list(ids)
        self.attempts = {
            row[0]: AttemptState(*row) for row in (tx.rows(_attempts_with_tasks, ids=wanted) if wanted else ())
        }
        self.late: list[int] = []
        self.unknown: list[int] = []
        self.refused: dict[int, str] = {}
        #: Armed tasks whose last missing upstream task became DONE; if the caller does not queue them, the orchestrator
        #: does.
        self.due: list[ArmedTask] = []
        self._done: dict[int, list[int]] = {}
        self._failed: dict[int, list[int]] = {}
        self._attempt_rows: list[tuple[Any, ...]] = []
        self._task_rows: list[tuple[Any, ...]] = []
        self._log_tails: list[tuple[int, str]] = []
        self._files: list[tuple[Any, ...]] = []
        self._late_distributor_ids: list[tuple[str, int]] = []
        self._late_usage: list[tuple[Any, ...]] = []

    def report(self, reports: Sequence[Report], reporter: int | None = None) -> None:
        """Apply reports in order.

        Args:
            reports: the new states of attempts.
            reporter: the agent that reports; None: a distributor or its workers.
        """
        for report in reports:
            refusal = self._refusal(report, reporter)
            if refusal is None:
                self.move(report.task_instance_id, report.status, report)
            else:
                self.refused[report.task_instance_id] = refusal

    def _refusal(self, report: Report, reporter: int | None) -> str | None:
        """Return why a report must not be applied; None: it may be applied."""
        if report.status not in fsm.REPORTS:
            return f"{report.status!r} is not a status that can be reported."
        attempt = self.attempts.get(report.task_instance_id)
        if attempt is None or may_report(attempt.agent_id, reporter):
            return None
        owner = "the distributor" if attempt.agent_id is None else f"agent {attempt.agent_id}"
        return f"Attempt {attempt.id} belongs to {owner}: only its owner may report it."

    def move(self, attempt_id: int, target: str, report: Report | None = None, *, cause: str | None = None) -> None:
        """Move an attempt, and its task, if the table allows it; otherwise note it as late or refused."""
        target = str(target)
        attempt = self.attempts.get(attempt_id)
        if attempt is None:
            self.unknown.append(attempt_id)
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
        """Write the collected changes; return how many attempts changed."""
        if self._attempt_rows:
            self._tx.run_many(_write_attempt, _ATTEMPT_VALUES, self._attempt_rows)
        if self._task_rows:
            stamp = self._tx.stamp
            rows = [
                (status, stamp, attempts, in_a_row, *guard) for status, attempts, in_a_row, *guard in self._task_rows
            ]
            self._tx.run_many(_write_task, _TASK_VALUES, rows)
            self._note_outcomes()
        if self._log_tails:
            self._tx.insert_many(log_tail, ("task_instance_id", "text"), self._log_tails, ignore=True)
        if self._files:
            self._tx.insert_many(attempt_file, _FILE_VALUES, self._files, ignore=True)
        if self._late_distributor_ids:
            self._tx.run_many(_write_late_distributor_id, ("distributor_id", "id"), self._late_distributor_ids)
        if self._late_usage:
            self._tx.run_many(_write_late_usage, _USAGE_VALUES, self._late_usage)
        return len({row[-2] for row in self._attempt_rows})

    def _note_outcomes(self) -> None:
        """Inform the armed tasks which of their upstream tasks have completed."""
        armed = self._tx.armed
        for workflow_id, task_ids in self._failed.items():
            armed.failed(workflow_id, task_ids)
        for workflow_id, task_ids in self._done.items():
            self.due += armed.done(workflow_id, task_ids)

    def _ignore(self, attempt: AttemptState, target: str, report: Report | None) -> None:
        self.late.append(attempt.id)
        self._tx.effects.ignored[(Machine.TASK_INSTANCE, attempt.status, target)] += 1
        if report is not None and report.distributor_id is not None and attempt.status not in fsm.ENDED:
            self._late_distributor_ids.append((report.distributor_id, attempt.id))
        if report is not None and attempt.status in fsm.ENDED and _measured(report):
            self._late_usage.append((report.host, *_measured(report), attempt.id))
            self._tx.effects.measured_late.add(attempt.workflow_id)

    def _move(self, attempt: AttemptState, asked: str, report: Report) -> None:
        source, target = attempt.status, asked
        if report.of_job and attempt.pid is None and source != TI.KILL_SELF:
            report = without_worker(report)
            target = report.status
        if source == TI.KILL_SELF:
            target = fsm.effective_target(Machine.TASK_INSTANCE, source, asked)
        cause = _cause(attempt, target, report)
        in_a_row = _uncharged_in_a_row(attempt, cause)
        charged = target == TI.DONE or (target in fsm.ENDED and retry.is_charged(cause, in_a_row))
        if attempt.is_newest:
            refusal = self._follow(attempt, target, 0 if charged else in_a_row + 1, charged=charged, cause=cause)
            if refusal is not None:
                self.refused[attempt.id] = refusal
                return
        attempt.status, attempt.cause = target, cause
        self._attempt_rows.append(self._row(attempt, source, cause, report, charged=charged))
        if report.log_tail:
            self._log_tails.append((attempt.id, report.log_tail))
        if report.files:
            self._files += _file_rows(attempt.id, report)
        if target in fsm.ORDERS:
            self._tx.wake(Audience.DISTRIBUTOR, attempt.workflow_id)

    def _row(
        self, attempt: AttemptState, source: str, cause: str | None, report: Report, *, charged: bool
    ) -> tuple[Any, ...]:
        now, target = self._tx.now, attempt.status
        ended = target in fsm.ENDED
        has_deadline = not ended and attempt.agent_id is None
        started_at = _stored(report.started_at)
        if started_at is None and target == TI.RUNNING:
            started_at = now
        return (
            *(target, cause, charged, attempt_deadline(self._tx) if has_deadline else None, started_at),
            (_stored(report.ended_at) or now) if ended else None,
            *(report.distributor_id, report.host, report.pid, report.exit_code, report.signal),
            report.error[:ERROR_CHARACTERS_MAX] if report.error else None,
            *(report.stdout, report.stderr, report.wallclock_seconds, report.cpu_seconds),
            *(report.max_rss_bytes, report.read_bytes, report.written_bytes),
            *(self._tx.stamp if target == TI.DONE else None, attempt.id, source),
        )

    def _follow(
        self, attempt: AttemptState, target: str, in_a_row: int, *, charged: bool, cause: str | None
    ) -> str | None:
        """Move the task after its newest attempt; return the reason if the table forbids it."""
        wanted = fsm.TASK_OF_INSTANCE.get(TI(target))
        if wanted is None:
            return None
        source = attempt.task_status
        if source == wanted:
            return None
        verdict = fsm.judge_following(source, wanted)
        if verdict is Verdict.LATE:
            self._tx.effects.ignored[(Machine.TASK, source, wanted)] += 1
            return None
        if verdict is Verdict.ILLEGAL:
            return f"Its task {attempt.task_id} cannot go from {source} to {wanted}."
        move = _after(attempt, target, wanted, in_a_row, charged=charged, cause=cause)
        self._task_rows.append((move.status, move.num_attempts, move.uncharged_in_a_row, attempt.task_id, source))
        self._tx.counts.move(attempt.workflow_id, attempt.array_id, source, move.status)
        attempt.task_status = move.status
        if move.status == TaskStatus.DONE:
            self._done.setdefault(attempt.workflow_id, []).append(attempt.task_id)
        elif move.status == TaskStatus.ERROR_FATAL:
            self._failed.setdefault(attempt.workflow_id, []).append(attempt.task_id)
        attempt.num_attempts, attempt.uncharged_in_a_row = move.num_attempts, move.uncharged_in_a_row
        if move.status not in fsm.WAITING_TO_START:
            self._tx.wake(Audience.ORCHESTRATOR, attempt.workflow_id)
        return None


def _file_rows(attempt_id: int, report: Report) -> list[tuple[Any, ...]]:
    """Return the rows of the declared files that an attempt found."""
    return [
        (attempt_id, at, one.is_output, one.path, one.matches, one.size_bytes, one.modified)
        for at, one in enumerate(report.files[:FILES_PER_ATTEMPT_MAX])
    ]


def without_worker(report: Report) -> Report:
    """Return a cluster's report on a job without any worker that reached the server: its task did nothing."""
    cause = retry.cause_without_worker(report.cause, report.exit_code)
    if report.status not in fsm.BLAMED or cause == report.cause:
        return report
    error = f"{cause}: {report.error or 'its job is gone'}"
    return replace(report, status=TI.ERROR.value, cause=cause, error=error)


def _nothing(attempt_id: int, target: str, cause: str | None) -> Report:
    """Return a report for a change that the server makes by itself."""
    return Report(task_instance_id=attempt_id, status=target, cause=cause)


def _measured(report: Report) -> tuple[float | None, ...]:
    """Return the usage in a report; an empty tuple if there is none."""
    usage = (report.wallclock_seconds, report.cpu_seconds, report.max_rss_bytes)
    return usage if any(value is not None for value in usage) else ()


def _stored(time: datetime | None) -> int | None:
    return None if time is None else to_microseconds(time)


def _cause(attempt: AttemptState, target: str, report: Report) -> str | None:
    """Return why an attempt ended. One that failed after it was told to stop ended for the reason of that order."""
    if target == TI.DONE:
        return None
    if attempt.status == TI.KILL_SELF:
        return attempt.cause or Cause.KILLED.value
    cause = report.cause or _DEFAULT_CAUSES.get(TI(target))
    return None if cause is None else str(cause)


def _uncharged_in_a_row(attempt: AttemptState, cause: str | None) -> int:
    """Return the number of preceding uncharged attempts, without this one if it was claimed but never started."""
    was_started = cause != Cause.WORKER_LOST or attempt.status not in fsm.UNSUBMITTED
    return attempt.uncharged_in_a_row - (not was_started)


def _after(
    attempt: AttemptState, target: str, wanted: TaskStatus, in_a_row: int, *, charged: bool, cause: str | None
) -> TaskMove:
    """Return the new state of the task; ERROR_RECOVERABLE is left immediately.

    So is DONE if the attempt finished although it was to be terminated for a rerun.
    """
    if target not in fsm.ENDED:
        return TaskMove(wanted.value, attempt.num_attempts, attempt.uncharged_in_a_row)
    if wanted is TaskStatus.DONE and attempt.is_outdated:
        assert_legal(Machine.TASK, attempt.task_id, wanted, TaskStatus.REGISTERING)
        return TaskMove(TaskStatus.REGISTERING.value, 0, 0)
    num_attempts = attempt.num_attempts + charged
    status = wanted
    if wanted is TaskStatus.ERROR_RECOVERABLE:
        status = retry.after_failure(target, num_attempts, attempt.max_attempts, charged=charged, cause=cause)
        assert_legal(Machine.TASK, attempt.task_id, wanted, status)
    return TaskMove(status.value, num_attempts, in_a_row)


def attempt_deadline(tx: Transaction) -> int:
    """Return the time after which an attempt that was in contact now is overdue, microseconds."""
    return tx.now + int(tx.settings.attempt_deadline_seconds * 1e6)


def move_all(tx: Transaction, ids: Sequence[int], target: str, cause: Cause | None) -> int:
    """Move attempts to one state; return how many changed."""
    moves = AttemptMoves(tx, ids)
    for attempt_id in ids:
        moves.move(attempt_id, target, cause=cause)
    return moves.write()


@statement
def _live_attempts() -> Select[Any]:
    return (
        select(ti.id)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(workflow_run.c.workflow_id == param("workflow"), any_of(ti.status, "statuses"))
        .order_by(ti.id)
    )


def live_attempts(tx: Transaction, workflow_id: int, statuses: Sequence[str] = fsm.LIVE) -> list[int]:
    """Return the attempts of a workflow, of all its runs, that are in one of these states."""
    return tx.column(_live_attempts, workflow=workflow_id, statuses=statuses)


def end_queued(tx: Transaction, workflow_id: int, cause: Cause) -> int:
    """End the queued attempts of a workflow; return their number."""
    return move_all(tx, live_attempts(tx, workflow_id, [TI.QUEUED]), TI.ERROR, cause)


def kill_taken(tx: Transaction, workflow_id: int, cause: Cause) -> int:
    """Order the termination of the taken attempts of a workflow; return how many had no such order yet."""
    ids = live_attempts(tx, workflow_id, [status for status in fsm.TAKEN if status != TI.KILL_SELF])
    killed = move_all(tx, ids, TI.KILL_SELF, cause)
    end_untaken(tx, workflow_id, cause)
    return killed


@statement
def _untaken() -> Select[Any]:
    p = packed_batch.c
    return (
        select(ti.id)
        .join_from(packed_batch, task_instance, and_(ti.batch_id == p.batch_id, ti.array_step_id >= p.taken))
        .where(p.workflow_id == param("workflow"), p.taken < p.size, ti.status == param("status"))
        .order_by(ti.id)
    )


def end_untaken(tx: Transaction, workflow_id: int, cause: Cause) -> None:
    """End the attempts in KILL_SELF that no packed job has taken: no process exists that could terminate them."""
    move_all(tx, tx.column(_untaken, workflow=workflow_id, status=TI.KILL_SELF.value), TI.ERROR, cause)
