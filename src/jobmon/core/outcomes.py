"""The displayed status of a workflow: a stop, a timeout or a dead client is not a failure. Pure functions."""

from __future__ import annotations

from typing import Final

from jobmon.core.constants import Cause, EndReason, WorkflowRunStatus, WorkflowStatus

STOPPED: Final = "STOPPED"
#: Displayed names of workflows that are stored as FAILED, with the status and end reason of their newest run.
OUTCOMES: Final[dict[str, tuple[WorkflowRunStatus, EndReason | None]]] = {
    STOPPED: (WorkflowRunStatus.STOPPED, None),
    "TIMED OUT": (WorkflowRunStatus.ERROR, EndReason.TIMED_OUT),
    "INTERRUPTED": (WorkflowRunStatus.ERROR, EndReason.INTERRUPTED),
}
#: Causes of attempts that Jobmon terminated on behalf of a user.
_STOPS: Final = (Cause.KILLED, Cause.KILLED_FOR_RESUME)


def status_name(status: str, run_status: str | None, end_reason: str | None) -> str:
    """Return the name of a workflow's status.

    Args:
        status: status letter of the workflow.
        run_status: status letter of its newest run; None: it has no run.
        end_reason: why that run ended, if recorded.

    >>> status_name("F", "S", None), status_name("F", "E", "timed out"), status_name("F", "E", None)
    ('STOPPED', 'TIMED OUT', 'FAILED')
    """
    if status == WorkflowStatus.FAILED:
        for name, (of_run, reason) in OUTCOMES.items():
            if run_status == of_run and (reason is None or end_reason == reason):
                return name
    return WorkflowStatus(status).name


def uncharged_text(cause: str | None, *, was_started: bool) -> str:
    """Describe the outcome of an attempt that does not count as a failure.

    >>> uncharged_text("killed", was_started=False), uncharged_text("killed", was_started=True)
    ('cancelled before launch', 'stopped')
    """
    if not was_started and cause in (*_STOPS, Cause.WORKER_LOST):
        return "cancelled before launch"
    if cause in _STOPS:
        return "stopped"
    return str(cause) if cause else "for an unknown reason"
