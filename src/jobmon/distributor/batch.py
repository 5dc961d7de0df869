"""Parts of batches, the tokens of submissions, and the reports on attempts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.texts import storable
from jobmon.core.wire import replace
from jobmon.core.wire.launching import EndedJob, LaunchBatch, Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.core.cluster_protocol import RemoteExit

TOKEN_PREFIX: Final = "jm"
UNSTARTED: Final = "Its distributor exited before it started."


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The settings shared by all attempts of a workflow run."""

    workflow_id: int
    workflow_run_id: int
    log_folder: str
    server_identity: str = ""

    def batch_token(self, batch_number: int) -> str:
        """Return the token of a batch that is submitted as an array."""
        return f"{TOKEN_PREFIX}-{self.server_identity}-{self.workflow_id}-{batch_number}"

    def attempt_token(self, task_instance_id: int) -> str:
        """Return the token of an attempt that is submitted individually."""
        return f"{TOKEN_PREFIX}-{self.server_identity}-{self.workflow_id}-a{task_instance_id}"


#: The fields of a batch that have a value for each attempt.
_COLUMNS: Final = ("task_instance_ids", "task_ids", "names", "commands", "attempts")


def picked(given: LaunchBatch, indices: Sequence[int]) -> LaunchBatch:
    """Return the batch with only the attempts at these indices."""
    columns: dict[str, Any] = {one: [getattr(given, one)[index] for index in indices] for one in _COLUMNS}
    return replace(given, **columns)


def joined(given: LaunchBatch, other: LaunchBatch) -> LaunchBatch:
    """Return the batch followed by the attempts of another."""
    columns: dict[str, Any] = {one: getattr(given, one) + getattr(other, one) for one in _COLUMNS}
    return replace(given, **columns)


#: The year 9990: later times reported by a cluster are invalid.
TIME_SECONDS_MAX: Final = 253_086_681_600.0


def moment(seconds: float) -> datetime | None:
    """Convert seconds since the epoch to a time of day; return None for 0 or a time out of range."""
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < TIME_SECONDS_MAX else None


#: Causes for statuses that a plug-in reports without a cause.
_REMOTE_CAUSES: Final = {TaskInstanceStatus.UNKNOWN_ERROR: Cause.WORKER_LOST}


def killed_report(task_instance_id: int, cause: Cause) -> Report:
    """Return the report on an attempt that was cancelled before its command started."""
    error = f"{cause.value}: cancelled before it started"
    return Report(task_instance_id=task_instance_id, status=TaskInstanceStatus.ERROR, cause=cause, error=error)


def remote_report(
    task_instance_id: int, distributor_id: str, ending: RemoteExit, kill_cause: Cause | None = None
) -> Report:
    """Return the report on an attempt, based on what its cluster knows about the job.

    The report has no start time: only the worker knows when the command started.

    Args:
        task_instance_id: the attempt.
        distributor_id: id of its job on the cluster.
        ending: how the job ended.
        kill_cause: why termination was requested; None if it was not.
    """
    status, cause, error = ending.status, ending.cause or _REMOTE_CAUSES.get(ending.status), ending.message
    if kill_cause is not None:
        status, cause, error = TaskInstanceStatus.ERROR, kill_cause, f"{kill_cause.value}: {error or 'it is gone'}"
    elif cause is None and status == TaskInstanceStatus.ERROR:
        cause = Cause.SIGNAL if ending.signal else Cause.EXIT_CODE if ending.exit_code is not None else None
    return Report(
        task_instance_id=task_instance_id,
        status=status,
        distributor_id=distributor_id,
        host=ending.host,
        ended_at=moment(ending.ended_at or 0.0),
        exit_code=ending.exit_code,
        signal=ending.signal,
        cause=cause,
        error=storable(error) if error else None,
        wallclock_seconds=ending.wallclock_seconds,
        cpu_seconds=ending.cpu_seconds,
        max_rss_bytes=ending.max_rss_bytes,
        of_job=True,
    )


def ended_job(distributor_id: str, ending: RemoteExit) -> EndedJob:
    """Return the report on a packed job that has ended."""
    return EndedJob(
        distributor_id=distributor_id,
        status=ending.status.value,
        cause=None if ending.cause is None else ending.cause.value,
        error=storable(ending.message) if ending.message else None,
        exit_code=ending.exit_code,
        host=ending.host,
    )


def lost_report(task_instance_id: int, cause: Cause, error: str) -> Report:
    """Return the report on an attempt whose outcome is unknown; its task is not charged."""
    status = TaskInstanceStatus.UNKNOWN_ERROR
    return Report(task_instance_id=task_instance_id, status=status, cause=cause, error=error)


def unsubmitted_report(task_instance_id: int) -> Report:
    """Return the report on an attempt whose submission an earlier distributor never confirmed; its task is not charged.

    If the submission did happen and its worker is already running, the server ignores this report as late.
    """
    return Report(
        task_instance_id=task_instance_id,
        status=TaskInstanceStatus.NO_DISTRIBUTOR_ID,
        cause=Cause.WORKER_LOST,
        error=UNSTARTED,
    )


def unstarted_report(task_instance_id: int) -> Report:
    """Return the report on an attempt that was received, and neither started nor submitted; its task is not charged."""
    error = "It was prefetched by the distributor but not started in time."
    return lost_report(task_instance_id, Cause.WORKER_LOST, error)
