"""What becomes of a task whose attempt failed. Pure: counts and causes in, a status out."""

from __future__ import annotations

from typing import Final

from jobmon.core.constants import Cause, TaskInstanceStatus, TaskStatus

#: Failures that are not the task's fault do not use up an attempt, but not more often than this in a row.
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
    }
)


def is_charged(cause: str | None, uncharged_in_a_row: int) -> bool:
    """Say whether a failed attempt counts towards `max_attempts`.

    Args:
        cause: a `Cause`, or None where it is not known.
        uncharged_in_a_row: attempts of this task directly before this one that were not charged.
    """
    return cause not in _UNCHARGED or uncharged_in_a_row >= UNCHARGED_IN_A_ROW_MAX


def after_failure(
    instance_status: str, charged_attempts: int, max_attempts: int, *, charged: bool = True
) -> TaskStatus:
    """Choose where a task goes from ERROR_RECOVERABLE.

    Args:
        instance_status: how the attempt ended; not DONE.
        charged_attempts: charged attempts of the task so far, this one included.
        max_attempts: how many it may have.
        charged: whether this attempt counts.
    """
    if instance_status == TaskInstanceStatus.ERROR_FATAL:
        return TaskStatus.ERROR_FATAL
    if not charged:
        return TaskStatus.REGISTERING
    if charged_attempts >= max_attempts:
        return TaskStatus.ERROR_FATAL
    if instance_status == TaskInstanceStatus.RESOURCE_ERROR:
        return TaskStatus.ADJUSTING_RESOURCES
    return TaskStatus.REGISTERING
