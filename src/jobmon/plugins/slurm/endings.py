"""How a job ended, from what accounting or, while that lags, the controller says of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.plugins.slurm.commands import ENDED_STATES
from jobmon.plugins.slurm.parsing import AccountingRow, QueueRow, wait_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SIGKILL: Final = 9
NOTE_CHARACTERS_MAX: Final = 500
#: Whoever begins a line like this names the job.
_NAME_THEIR_JOB: Final = ("jobmon worker", "slurmstepd")
#: Slurm's own numbers in place of a signal: slurmd could not open the job's output file.
OUTPUT_NOT_OPENED: Final = 53
_TI = TaskInstanceStatus
#: State -> status, cause and what to say. What is left out depends on more than the state.
_PLAIN: Final = {
    "COMPLETED": (_TI.DONE, None, ""),
    "OUT_OF_MEMORY": (_TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, "out of memory"),
    "TIMEOUT": (_TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, "out of time"),
    "NODE_FAIL": (_TI.ERROR, Cause.NODE_FAILURE, "its node failed"),
    "BOOT_FAIL": (_TI.ERROR, Cause.NODE_FAILURE, "its node could not be booted"),
    "PREEMPTED": (_TI.ERROR, Cause.PREEMPTED, "preempted by another job"),
    "REQUEUED": (_TI.ERROR, Cause.REQUEUED, "put back into the queue by Slurm"),
    "DEADLINE": (_TI.ERROR, Cause.KILLED, "ended at the deadline it was submitted with"),
    "REVOKED": (_TI.ERROR, Cause.KILLED, "revoked by another cluster of the federation"),
}


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known of the end of one job. A value that is not known is None."""

    state: str
    exit_code: int | None = None
    signal: int | None = None
    ended_by: str | None = None
    host: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    elapsed_seconds: float | None = None
    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None
    requested_bytes: int | None = None
    is_accounted: bool = True

    def values(self) -> list[Any]:
        """Return it as JSON values."""
        return [getattr(self, name) for name in _FIELDS]

    @classmethod
    def of_values(cls, values: Iterable[Any]) -> Ending:
        """Read what `values` gave."""
        return cls(*values)


_FIELDS: Final = tuple(Ending.__dataclass_fields__)


def ending_of_queue(row: QueueRow) -> Ending:
    """Return what the controller remembers of a job that is over: its state, not its usage."""
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
    """Return how jobs ended, by the ids that Slurm wrote; memory and CPU are those of the hungriest of their steps."""
    found: dict[str, Ending] = {}
    for row in rows:
        job, _, _ = row.text.partition(".")
        if row.ids.part:
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


def remote_exit(ending: Ending, user_name: Callable[[str], str], note: str = "") -> RemoteExit:
    """Return an ending in Jobmon's terms.

    Args:
        ending: what is known.
        user_name: the name of a user id.
        note: what else is known of a failure, e.g. the last line of the job's own output.
    """
    status, cause, words = _verdict(ending, user_name)
    ran = ending.started_at is not None
    return RemoteExit(
        status=status,
        message=f"Slurm: {words}{f' ({note})' if note and ending.state == 'FAILED' else ''}" if words else "",
        cause=cause,
        exit_code=ending.exit_code if cause is Cause.EXIT_CODE else None,
        signal=ending.signal if cause is Cause.SIGNAL else None,
        host=ending.host,
        started_at=ending.started_at,
        ended_at=ending.ended_at,
        wallclock_seconds=ending.elapsed_seconds if ran else None,
        cpu_seconds=ending.cpu_seconds if ran else None,
        max_rss_bytes=ending.max_rss_bytes,
    )


_Verdict = tuple[TaskInstanceStatus, Cause | None, str]


def _verdict(ending: Ending, user_name: Callable[[str], str]) -> _Verdict:
    if ending.state in _PLAIN:
        return _PLAIN[ending.state]
    if ending.state == "CANCELLED":
        by = f" by {user_name(ending.ended_by)}" if ending.ended_by else ""
        return _TI.ERROR, Cause.KILLED, f"cancelled{by}"
    if ending.state == "FAILED":
        return _failed(ending)
    return _TI.UNKNOWN_ERROR, Cause.WORKER_LOST, f"ended in state {ending.state}"


def _failed(ending: Ending) -> _Verdict:
    if ending.signal == OUTPUT_NOT_OPENED:
        where = f" on {ending.host}" if ending.host else ""
        return (
            _TI.ERROR,
            Cause.COMMAND_NOT_STARTED,
            f"the job's output file could not be opened{where}: is Jobmon's data folder on a file system that this"
            " node shares?",
        )
    if ending.signal == SIGKILL and _is_above_request(ending):
        return _TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, "killed when it used more memory than it had asked for"
    if ending.signal:
        return _TI.ERROR, Cause.SIGNAL, f"killed by signal {ending.signal}"
    return _TI.ERROR, Cause.EXIT_CODE, f"exit code {ending.exit_code}"


def _is_above_request(ending: Ending) -> bool:
    """Where Slurm watches memory instead of having the kernel fence it, it kills without saying why."""
    peak, requested = ending.max_rss_bytes, ending.requested_bytes
    return bool(peak and requested and peak >= requested)


def last_words(written: Sequence[str], identity: str) -> str:
    """Return the last line that names this job, else the last one that names none.

    A job is named by its id as a word of its own, or in the path of its script; the id must not be found in a time.
    """
    naming = re.compile(rf"(?<![\w:./-]){re.escape(identity)}(?![\w./-]|:\d)|/job0*{re.escape(identity)}/")
    own = [line for line in written if naming.search(line)]
    common = [line for line in written if not line.startswith(_NAME_THEIR_JOB)]
    return next(reversed(own or common), "")[:NOTE_CHARACTERS_MAX]
