"""Outcomes of jobs in terms shared by all schedulers, and the last output of jobs. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NOTE_CHARACTERS_MAX: Final = 500
#: Lines with these prefixes name their job.
_NAME_THEIR_JOB: Final = ("jobmon worker", "slurmstepd")


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known about the outcome of one job. Unknown values are None.

    Args:
        state: the scheduler's own term, which the plug-in interprets.
        exit_code: exit code of the job's script.
        signal: number of the signal that killed it.
        ended_by: the user who cancelled it, as written by the scheduler.
        host: host on which it ran.
        started_at: seconds since the epoch.
        ended_at: seconds since the epoch.
        elapsed_seconds: wall-clock time.
        cpu_seconds: CPU time.
        max_rss_bytes: peak memory.
        requested_bytes: requested memory.
        is_accounted: whether this comes from accounting and is therefore final.
        requested_seconds: requested run time.
        detail: further information in the scheduler's own words.
    """

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
    requested_seconds: float | None = None
    detail: str = ""

    def values(self) -> list[Any]:
        """Return the fields as JSON values."""
        return [getattr(self, name) for name in _FIELDS]

    @classmethod
    def of_values(cls, values: Iterable[Any]) -> Ending:
        """Create an instance from the result of `values`."""
        return cls(*values)


_FIELDS: Final = tuple(Ending.__dataclass_fields__)

#: The meaning of an outcome: status, cause, and message ("": none). A cause of None means success.
Verdict = tuple[TaskInstanceStatus, Cause | None, str]


def remote_exit(system: str, ending: Ending, verdict: Verdict, note: str = "") -> RemoteExit:
    """Return an outcome in Jobmon's terms.

    Args:
        system: the scheduler's name in messages.
        ending: what is known about the outcome.
        verdict: its meaning.
        note: last line of the job's own output; shown if the job failed by itself.
    """
    status, cause, words = verdict
    is_own_failure = cause in (Cause.EXIT_CODE, Cause.SIGNAL, Cause.COMMAND_NOT_STARTED)
    ran = ending.started_at is not None
    return RemoteExit(
        status=status,
        message=f"{system}: {words}{f' ({note})' if note and is_own_failure else ''}" if words else "",
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


def by_user(ending: Ending, user_name: Callable[[str], str]) -> str:
    """Return " by NAME", or "" if the scheduler does not report who cancelled a job."""
    return f" by {user_name(ending.ended_by)}" if ending.ended_by else ""


def last_words(written: Sequence[str], identity: str) -> str:
    """Return the last line that names this job, or else the last line that names no job.

    A line names a job by its id as a separate word, or in the path of its script. An id must not match part of a time.
    """
    naming = re.compile(rf"(?<![\w:./-]){re.escape(identity)}(?![\w./-]|:\d)|/job0*{re.escape(identity)}/")
    own = [line for line in written if naming.search(line)]
    common = [line for line in written if not line.startswith(_NAME_THEIR_JOB)]
    return next(reversed(own or common), "")[:NOTE_CHARACTERS_MAX]
