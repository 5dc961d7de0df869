"""Decide what happens to a task whose attempt failed. Pure functions: counts and causes in, a status out."""

from __future__ import annotations

from typing import Final

from jobmon.core.constants import Cause, TaskInstanceStatus, TaskStatus

#: Failures that are not the task's fault do not use up an attempt, but at most this many in a row.
UNCHARGED_IN_A_ROW_MAX: Final = 10

_UNCHARGED: Final = frozenset(
    {
        Cause.NODE_FAILURE,
        Cause.PREEMPTED,
        Cause.REQUEUED,
        Cause.KILLED,
        Cause.KILLED_FOR_RESUME,
        Cause.WORKER_LOST,
        Cause.SUPERVISOR_LOST,
        Cause.NEVER_CONNECTED,
        Cause.NO_PYTHON,
    }
)
#: What a cluster says of how a job ended is about its task only if a worker of it was there.
_OF_COMMAND: Final = frozenset(
    {Cause.EXIT_CODE, Cause.SIGNAL, Cause.OUT_OF_MEMORY, Cause.OUT_OF_TIME, Cause.COMMAND_NOT_STARTED, None}
)
#: Exit codes of a job script that cannot start the worker's Python, or of a Python that is too old for the worker.
#: No worker exits with these.
NO_PYTHON_EXIT_CODES: Final = frozenset({126, 127})


def cause_without_worker(cause: str | None, exit_code: int | None) -> str | None:
    """Return why an attempt failed whose job ran though no worker of it ever reached the server.

    Args:
        cause: how the cluster says that the job ended: a `Cause`, or None where that is not known.
        exit_code: of the job; None: not known.
    """
    if cause not in _OF_COMMAND:
        return cause
    return Cause.NO_PYTHON if exit_code in NO_PYTHON_EXIT_CODES else Cause.NEVER_CONNECTED


def is_charged(cause: str | None, uncharged_in_a_row: int) -> bool:
    """Return whether a failed attempt counts towards `max_attempts`.

    Args:
        cause: a `Cause`, or None if it is unknown.
        uncharged_in_a_row: how many attempts of this task directly before this one were not charged.
    """
    return cause not in _UNCHARGED or uncharged_in_a_row >= UNCHARGED_IN_A_ROW_MAX


def after_failure(
    instance_status: str,
    charged_attempts: int,
    max_attempts: int,
    *,
    charged: bool = True,
    cause: str | None = None,
) -> TaskStatus:
    """Return the next status of a task in ERROR_RECOVERABLE.

    Args:
        instance_status: the final status of the attempt; not DONE.
        charged_attempts: charged attempts of the task so far, including this one.
        max_attempts: how many attempts the task may have.
        charged: whether this attempt counts.
        cause: a `Cause`, or None if it is unknown.
    """
    if instance_status == TaskInstanceStatus.ERROR_FATAL:
        return TaskStatus.ERROR_FATAL
    if instance_status == TaskInstanceStatus.NO_DISTRIBUTOR_ID and cause == Cause.SUBMISSION_FAILED:
        return TaskStatus.ERROR_FATAL  # transient reasons were retried already: the cluster would reject it again
    if not charged:
        return TaskStatus.REGISTERING
    if charged_attempts >= max_attempts:
        return TaskStatus.ERROR_FATAL
    if instance_status == TaskInstanceStatus.RESOURCE_ERROR:
        return TaskStatus.ADJUSTING_RESOURCES
    return TaskStatus.REGISTERING
