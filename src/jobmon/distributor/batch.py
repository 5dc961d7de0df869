"""Translate between the server's and a cluster's data: batch -> launches, exit -> report. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from jobmon.agent import outcome, outputs
from jobmon.agent.shells import shell_words
from jobmon.core.cluster_protocol import Exit, Launch, RemoteExit, weight_of
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.texts import storable
from jobmon.core.wire import replace
from jobmon.core.wire.launching import EndedJob, LaunchBatch, LiveAttempt, Report

TOKEN_PREFIX: Final = "jm"
UNSTARTED: Final = "Its distributor exited before it started."


@dataclass(frozen=True, slots=True)
class ReceivedAttempt:
    """An attempt received from the server."""

    task_instance_id: int
    task_id: int
    cluster_name: str
    name: str
    command: str
    number: int
    resources: Mapping[str, Any]

    @property
    def cores(self) -> float:
        """The number of cores requested."""
        return weight_of(self.resources)[0]

    @property
    def memory(self) -> float:
        """The requested memory, GiB; 0 means that none was requested."""
        return weight_of(self.resources)[1]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The settings shared by all attempts of a workflow run."""

    workflow_id: int
    workflow_run_id: int
    working_directory: str
    umask: int
    log_folder: str
    shell: str
    server_identity: str = ""

    def batch_token(self, batch_number: int) -> str:
        """Return the token of a batch that is submitted as an array."""
        return f"{TOKEN_PREFIX}-{self.server_identity}-{self.workflow_id}-{batch_number}"

    def attempt_token(self, task_instance_id: int) -> str:
        """Return the token of an attempt that is submitted individually."""
        return f"{TOKEN_PREFIX}-{self.server_identity}-{self.workflow_id}-a{task_instance_id}"


def attempts_of(batch: LaunchBatch) -> list[ReceivedAttempt]:
    """Return the attempts of a batch, in order."""
    columns = zip(batch.task_instance_ids, batch.task_ids, batch.names, batch.commands, batch.attempts, strict=True)
    return [
        ReceivedAttempt(instance, task, batch.cluster_name, name, command, number, batch.requested_resources)
        for instance, task, name, command, number in columns
    ]


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


def attempt_of(adopted: LiveAttempt) -> ReceivedAttempt:
    """Return an adopted attempt. Its output files can be derived, but its command is not known."""
    return ReceivedAttempt(
        adopted.task_instance_id,
        adopted.task_id,
        adopted.cluster_name,
        adopted.name,
        "",
        0,
        adopted.requested_resources,
    )


def launch_of(attempt: ReceivedAttempt, around: Surroundings) -> Launch:
    """Return everything a direct cluster needs to run an attempt."""
    stdout, stderr = outputs.output_files(attempt.resources, attempt.name, attempt.task_instance_id, around.log_folder)
    asked = attempt.resources
    return Launch(
        task_instance_id=attempt.task_instance_id,
        name=attempt.name,
        command=attempt.command,
        shell=shell_words(asked.get("shell") or around.shell),
        env={**_identity(attempt, around), **{key: str(value) for key, value in (asked.get("env") or {}).items()}},
        working_directory=around.working_directory,
        umask=around.umask,
        stdout=stdout,
        stderr=stderr,
        runtime_seconds=asked.get("runtime"),
        requested_resources=asked,
    )


def _identity(attempt: ReceivedAttempt, around: Surroundings) -> dict[str, str]:
    return {
        "JOBMON_TASK_ID": str(attempt.task_id),
        "JOBMON_TASK_INSTANCE_ID": str(attempt.task_instance_id),
        "JOBMON_WORKFLOW_ID": str(around.workflow_id),
        "JOBMON_WORKFLOW_RUN_ID": str(around.workflow_run_id),
        "JOBMON_TASK_NAME": attempt.name,
        "JOBMON_ATTEMPT": str(attempt.number),
        "JOBMON_SERVER_IDENTITY": around.server_identity,
    }


def report_of(
    ending: Exit, *, host: str, launch: Launch | None = None, tail: str = "", kill_cause: Cause | None = None
) -> Report:
    """Return the report on a command that exited, was lost, or was never started.

    Args:
        ending: outcome of the command, as reported by the cluster.
        host: host on which it ran.
        launch: what was launched; None if an earlier distributor launched the attempt.
        tail: last part of its output.
        kill_cause: why termination was requested; None if it was not.
    """
    status, cause, error = _verdict(ending, tail, kill_cause)
    ran = ending.not_started is None and ending.lost is None
    return Report(
        task_instance_id=ending.task_instance_id,
        status=status,
        distributor_id=ending.distributor_id or None,
        host=host,
        started_at=moment(ending.started_at) if ran else None,
        ended_at=moment(ending.ended_at),
        exit_code=ending.exit_code,
        signal=ending.signal,
        cause=cause,
        error=storable(error) if error else None,
        log_tail=tail or None,
        stdout=storable(launch.stdout) if launch is not None else None,
        stderr=storable(launch.stderr) if launch is not None else None,
        wallclock_seconds=max(0.0, ending.ended_at - ending.started_at) if ran else None,
        cpu_seconds=ending.cpu_seconds,
        max_rss_bytes=ending.max_rss_bytes,
        read_bytes=ending.read_bytes,
        written_bytes=ending.written_bytes,
    )


#: The year 9990: later times reported by a cluster are invalid.
TIME_SECONDS_MAX: Final = 253_086_681_600.0


def moment(seconds: float) -> datetime | None:
    """Convert seconds since the epoch to a time of day; return None for 0 or a time out of range."""
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < TIME_SECONDS_MAX else None


#: Causes for statuses that a plug-in reports without a cause.
_REMOTE_CAUSES: Final = {TaskInstanceStatus.UNKNOWN_ERROR: Cause.WORKER_LOST}
_Verdict = tuple[TaskInstanceStatus, Cause | None, str | None]


def _verdict(ending: Exit, tail: str, kill_cause: Cause | None) -> _Verdict:
    last = outputs.last_line(tail)
    if ending.lost is not None or ending.not_started is not None:
        words = ending.lost if ending.lost is not None else f"not started: {ending.not_started}"
        if kill_cause is not None:
            return TaskInstanceStatus.ERROR, kill_cause, f"{kill_cause.value}: {words}"
        return *_unstarted(ending), f"{words}: {last}" if last else words
    status, cause, error = outcome.judge(
        ending.exit_code,
        ending.signal,
        _cause_of(ending, kill_cause),
        ending.ended_at - ending.started_at,
        last,
        ending.memory_limit_bytes,
        ending.max_rss_bytes,
    )
    return TaskInstanceStatus(status), None if cause is None else Cause(cause), error


def _unstarted(ending: Exit) -> tuple[TaskInstanceStatus, Cause]:
    if ending.lost is not None:
        return TaskInstanceStatus.UNKNOWN_ERROR, Cause.SUPERVISOR_LOST
    return TaskInstanceStatus.ERROR, Cause.COMMAND_NOT_STARTED


def _cause_of(ending: Exit, kill_cause: Cause | None) -> str | None:
    """Return why a command was terminated; None if it exited by itself before the request took effect."""
    if not ending.killed and ending.memory_limit_bytes is None and (ending.exit_code == 0 or kill_cause is None):
        return None
    if kill_cause is not None:
        return kill_cause.value
    if ending.timed_out:
        return outcome.OUT_OF_TIME
    return outcome.OUT_OF_MEMORY if ending.memory_limit_bytes is not None else outcome.KILLED


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
