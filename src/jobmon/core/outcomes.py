"""How statuses are displayed: a stop is not a failure of its workflow, and tasks are counted by groups of statuses."""

from __future__ import annotations

from typing import Final

from jobmon.core.constants import Cause, EndReason, TaskStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.fsm import LAUNCHED_TASKS, WORKFLOW_OF_RUN

STOPPED: Final = "STOPPED"
TIMED_OUT: Final = "TIMED OUT"
INTERRUPTED: Final = "INTERRUPTED"
#: Displayed names of workflows that are stored as FAILED, with the status and end reason of their newest run.
OUTCOMES: Final[dict[str, tuple[WorkflowRunStatus, EndReason | None]]] = {
    STOPPED: (WorkflowRunStatus.STOPPED, None),
    TIMED_OUT: (WorkflowRunStatus.ERROR, EndReason.TIMED_OUT),
    INTERRUPTED: (WorkflowRunStatus.ERROR, EndReason.INTERRUPTED),
}
#: Displayed names of workflows whose newest run made way, or whose client died: another run may follow at once.
_BETWEEN_RUNS: Final = (WorkflowStatus.HALTED.name, INTERRUPTED)
#: Displayed name of a workflow -> status of its newest run. A stopped run is displayed as STOPPED, not as FAILED.
_RUN_OF_WORKFLOW: Final = {of_workflow.name: run for run, of_workflow in WORKFLOW_OF_RUN.items()} | {
    WorkflowStatus.FAILED.name: WorkflowRunStatus.ERROR
}
#: Causes of attempts that Jobmon terminated on behalf of a user.
_STOPS: Final = (Cause.KILLED, Cause.KILLED_FOR_RESUME)

#: Groups of task statuses, used by the counts in tables and by `-s`.
TASK_GROUPS: Final = ("PENDING", "RUNNING", "DONE", "FATAL", "SKIPPED")


def group_of(status: str) -> str:
    """Return the group of a task's status.

    >>> group_of("G"), group_of("O"), group_of("F")
    ('PENDING', 'RUNNING', 'FATAL')
    """
    if status in LAUNCHED_TASKS:
        return "RUNNING"
    groups = {
        TaskStatus.DONE: "DONE",
        TaskStatus.ERROR_FATAL: "FATAL",
        TaskStatus.SKIPPED: "SKIPPED",
        TaskStatus.REMOVED: "REMOVED",
    }
    return groups.get(TaskStatus(status), "PENDING")


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


def is_between_runs(name: str) -> bool:
    """Return whether a workflow with this displayed status has no run because the last one was taken over or abandoned.

    >>> is_between_runs("HALTED"), is_between_runs("INTERRUPTED"), is_between_runs("STOPPED")
    (True, True, False)
    """
    return name in _BETWEEN_RUNS


def run_status_of(name: str) -> WorkflowRunStatus:
    """Return the status of the newest run of a workflow without an active run, from the displayed status.

    >>> run_status_of("DONE").name, run_status_of("STOPPED").name, run_status_of("FAILED").name
    ('DONE', 'STOPPED', 'ERROR')
    """
    return OUTCOMES[name][0] if name in OUTCOMES else _RUN_OF_WORKFLOW[name]


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
