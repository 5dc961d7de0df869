"""The outcome of a job, from accounting or, until that is available, from the controller. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.plugins.batch.endings import Ending, Verdict, by_user
from jobmon.plugins.batch.view import CANCELLED
from jobmon.plugins.slurm.commands import ENDED_STATES
from jobmon.plugins.slurm.parsing import AccountingRow, QueueRow, wait_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIGKILL: Final = 9
#: Slurm's own value in place of a signal: slurmd could not open the job's output file.
OUTPUT_NOT_OPENED: Final = 53
_TI = TaskInstanceStatus
#: State -> status, cause and message. States that are not listed need more than the state.
_PLAIN: Final = {
    "COMPLETED": (_TI.DONE, None, ""),
    "OUT_OF_MEMORY": (_TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, "out of memory"),
    "TIMEOUT": (_TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, "out of time"),
    "NODE_FAIL": (_TI.ERROR, Cause.NODE_FAILURE, "its node failed"),
    "BOOT_FAIL": (_TI.ERROR, Cause.NODE_FAILURE, "its node could not be booted"),
    "PREEMPTED": (_TI.ERROR, Cause.PREEMPTED, "preempted by another job"),
    "REQUEUED": (_TI.ERROR, Cause.REQUEUED, "put back into the queue by Slurm"),
    "DEADLINE": (_TI.ERROR, Cause.KILLED, "terminated at the deadline given at submission"),
    "REVOKED": (_TI.ERROR, Cause.KILLED, "revoked by another cluster of the federation"),
}


def ending_of_queue(row: QueueRow) -> Ending:
    """Return what the controller remembers about a job that has ended: its state, but not its usage."""
    code, signal = (None, None) if row.exit_status is None else wait_status(row.exit_status)
    return Ending(
        state=row.state,
        exit_code=code,
        signal=signal,
        host=row.host,
        ended_at=row.ended_at,
        is_accounted=False,
    )


def endings_of_accounting(rows: Iterable[AccountingRow]) -> dict[str, Ending]:
    """Return outcomes by the ids in Slurm's format; peak memory is the maximum over the steps."""
    found: dict[str, Ending] = {}
    for row in rows:
        job, _, _ = row.text.partition(".")
        if row.part:
            if job in found:
                found[job] = _with_usage(found[job], row)
        elif row.state in ENDED_STATES:
            found[job] = _ending(row)
    return found


def _ending(row: AccountingRow) -> Ending:
    return Ending(
        state=row.state,
        exit_code=row.exit_code,
        signal=row.signal or None,
        ended_by=row.ended_by,
        host=row.host,
        started_at=row.started_at,
        ended_at=row.ended_at,
        elapsed_seconds=row.elapsed_seconds,
        cpu_seconds=row.cpu_seconds,
        max_rss_bytes=row.max_rss_bytes,
        requested_bytes=row.requested_bytes,
    )


def _with_usage(ending: Ending, step: AccountingRow) -> Ending:
    peaks = [peak for peak in (ending.max_rss_bytes, step.max_rss_bytes) if peak is not None]
    return replace(ending, max_rss_bytes=max(peaks, default=None))


def verdict(ending: Ending, user_name: Callable[[str], str], own_user: str = "") -> Verdict:
    """Return what an outcome means.

    If users cancel their own job, they do not want it back: the task fails. (The distributor knows which kills Jobmon
    requested, and overrides this result.) Jobs cancelled by others are submitted again, up to a limit.

    Args:
        ending: what is known about the outcome.
        user_name: returns the name of a user id.
        own_user: the user id under which jobs are submitted.
    """
    if ending.state in _PLAIN:
        return _PLAIN[ending.state]
    if ending.state == CANCELLED and ending.ended_by == own_user:
        words = f"cancelled by you{by_user(ending, user_name).replace(' by ', ' as ')}; resume the workflow to run it"
        return _TI.ERROR_FATAL, Cause.KILLED, words
    if ending.state == CANCELLED:
        return _TI.ERROR, Cause.KILLED, f"cancelled{by_user(ending, user_name)}"
    if ending.state == "FAILED":
        return _failed(ending)
    return _TI.UNKNOWN_ERROR, Cause.WORKER_LOST, f"ended in state {ending.state}"


def _failed(ending: Ending) -> Verdict:
    if ending.signal == OUTPUT_NOT_OPENED:
        where = f" on {ending.host}" if ending.host else ""
        return (
            _TI.ERROR,
            Cause.COMMAND_NOT_STARTED,
            f"the job's output file could not be opened{where}: is Jobmon's data folder on a file system that this"
            " node shares?",
        )
    if ending.signal == SIGKILL and _is_above_request(ending):
        return _TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, "killed for using more memory than it requested"
    if ending.signal:
        return _TI.ERROR, Cause.SIGNAL, f"killed by signal {ending.signal}"
    return _TI.ERROR, Cause.EXIT_CODE, f"exit code {ending.exit_code}"


def _is_above_request(ending: Ending) -> bool:
    """Return whether the peak exceeds the request: if Slurm polls memory itself, it kills without giving a reason."""
    peak, requested = ending.max_rss_bytes, ending.requested_bytes
    return bool(peak and requested and peak >= requested)
