"""Translations between the server's words and a cluster's: batch -> launches, ending -> report. Pure."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from jobmon.core.cluster_protocol import Exit, Launch, RemoteExit, weight_of
from jobmon.core.constants import LOG_TAIL_BYTES_MAX, Cause, TaskInstanceStatus
from jobmon.core.wire.launching import LaunchBatch, LiveAttempt, Report

LOG_SHARD_SIZE: Final = 1_000
TOKEN_PREFIX: Final = "jm"
FILE_NAME_CHARACTERS_MAX: Final = 60
ERROR_LINE_CHARACTERS_MAX: Final = 500
SHELLS_REMEMBERED_MAX: Final = 64
GIB: Final = 1024.0**3
UNSTARTED: Final = "Its distributor ended before it was started."
_ENDS_WELL: Final = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that the server handed over."""

    task_instance_id: int
    task_id: int
    cluster_name: str
    name: str
    command: str
    number: int
    resources: Mapping[str, Any]

    @property
    def cores(self) -> float:
        """How many cores it takes."""
        return weight_of(self.resources)[0]

    @property
    def memory(self) -> float:
        """How much memory it takes, GiB; 0: not asked for."""
        return weight_of(self.resources)[1]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all attempts of a workflow run have in common."""

    workflow_id: int
    workflow_run_id: int
    working_directory: str
    umask: int
    log_folder: str
    shell: str
    server_identity: str = ""

    def batch_token(self, batch_number: int) -> str:
        """Return the token under which a batch is submitted as an array."""
        return f"{TOKEN_PREFIX}-{self.server_identity}-{self.workflow_id}-{batch_number}"

    def attempt_token(self, task_instance_id: int) -> str:
        """Return the token under which an attempt is submitted alone."""
        return f"{TOKEN_PREFIX}-{self.server_identity}-{self.workflow_id}-a{task_instance_id}"


def attempts_of(batch: LaunchBatch) -> list[Attempt]:
    """Return the attempts of a batch, in order."""
    columns = zip(batch.task_instance_ids, batch.task_ids, batch.names, batch.commands, batch.attempts, strict=True)
    return [
        Attempt(instance, task, batch.cluster_name, name, command, number, batch.requested_resources)
        for instance, task, name, command, number in columns
    ]


def attempt_of(adopted: LiveAttempt) -> Attempt:
    """Return what is known of an attempt that an earlier distributor launched: not its command, but where it writes."""
    return Attempt(
        adopted.task_instance_id,
        adopted.task_id,
        adopted.cluster_name,
        adopted.name,
        "",
        0,
        adopted.requested_resources,
    )


def launch_of(attempt: Attempt, around: Surroundings) -> Launch:
    """Return all that a direct cluster needs to run an attempt."""
    stdout, stderr = output_files(attempt, around.log_folder)
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


def _identity(attempt: Attempt, around: Surroundings) -> dict[str, str]:
    return {
        "JOBMON_TASK_ID": str(attempt.task_id),
        "JOBMON_TASK_INSTANCE_ID": str(attempt.task_instance_id),
        "JOBMON_WORKFLOW_ID": str(around.workflow_id),
        "JOBMON_WORKFLOW_RUN_ID": str(around.workflow_run_id),
        "JOBMON_TASK_NAME": attempt.name,
        "JOBMON_ATTEMPT": str(attempt.number),
    }


def shell_words(shell: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return the words before the command: a shell given by its name alone gets "-c"."""
    words = _split(shell) if isinstance(shell, str) else tuple(shell)
    return words if len(words) > 1 else (*words, "-c")


@lru_cache(maxsize=SHELLS_REMEMBERED_MAX)
def _split(shell: str) -> tuple[str, ...]:
    return tuple(shlex.split(shell))


def output_files(attempt: Attempt, log_folder: str) -> tuple[str, str]:
    """Return the paths for stdout and stderr: one file for both unless both folders are asked for."""
    stdout, stderr = attempt.resources.get("stdout"), attempt.resources.get("stderr")
    stem = f"{attempt.name.replace('/', '_')[:FILE_NAME_CHARACTERS_MAX]}.{attempt.task_instance_id}"
    if stdout and stderr:
        return f"{stdout}/{stem}.out", f"{stderr}/{stem}.err"
    folder = stdout or stderr or f"{log_folder}/{attempt.task_instance_id // LOG_SHARD_SIZE}"
    return f"{folder}/{stem}.log", f"{folder}/{stem}.log"


def report_of(
    ending: Exit, *, host: str, launch: Launch | None = None, tail: str = "", kill_cause: Cause | None = None
) -> Report:
    """Say what became of an attempt.

    Args:
        ending: how its command ended.
        host: where it ran.
        launch: what was launched; None: by an earlier distributor.
        tail: last part of its output.
        kill_cause: why it was to be killed; None: it was not.
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
        error=error,
        log_tail=tail or None,
        stdout=launch.stdout if launch is not None else None,
        stderr=launch.stderr if launch is not None else None,
        wallclock_seconds=max(0.0, ending.ended_at - ending.started_at) if ran else None,
        cpu_seconds=ending.cpu_seconds,
        max_rss_bytes=ending.max_rss_bytes,
        read_bytes=ending.read_bytes,
        written_bytes=ending.written_bytes,
    )


def moment(seconds: float) -> datetime | None:
    """Return a time of day from seconds since the epoch; 0: not known."""
    return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None


#: Where a plug-in names no cause.
_REMOTE_CAUSES: Final = {TaskInstanceStatus.UNKNOWN_ERROR: Cause.WORKER_LOST}
_Verdict = tuple[TaskInstanceStatus, Cause | None, str | None]


def _verdict(ending: Exit, tail: str, kill_cause: Cause | None) -> _Verdict:
    if ending.exit_code == _ENDS_WELL and not ending.killed and ending.memory_limit_bytes is None:
        return TaskInstanceStatus.DONE, None, None
    if kill_cause is not None:
        return TaskInstanceStatus.ERROR, kill_cause, f"{kill_cause.value}: {ending_in_words(ending)}"
    status, cause = _status_and_cause(ending)
    error = ending_in_words(ending)
    last = last_line(tail)
    return status, cause, f"{error}: {last}" if last else error


def _status_and_cause(ending: Exit) -> tuple[TaskInstanceStatus, Cause]:
    if ending.lost is not None:
        return TaskInstanceStatus.UNKNOWN_ERROR, Cause.WORKER_LOST if ending.recalled else Cause.SUPERVISOR_LOST
    if ending.not_started is not None:
        return TaskInstanceStatus.ERROR, Cause.COMMAND_NOT_STARTED
    if ending.timed_out:
        return TaskInstanceStatus.RESOURCE_ERROR, Cause.OUT_OF_TIME
    if ending.memory_limit_bytes is not None:
        return TaskInstanceStatus.RESOURCE_ERROR, Cause.OUT_OF_MEMORY
    if ending.killed:
        return TaskInstanceStatus.ERROR, Cause.KILLED
    return TaskInstanceStatus.ERROR, Cause.SIGNAL if ending.signal is not None else Cause.EXIT_CODE


def ending_in_words(ending: Exit) -> str:
    """Say how a command ended, without its output."""
    if ending.lost is not None:
        return ending.lost
    if ending.not_started is not None:
        return f"not started: {ending.not_started}"
    if ending.timed_out:
        return f"out of time after {ending.ended_at - ending.started_at:.1f} s"
    if ending.memory_limit_bytes is not None:
        return _want_of_memory(ending.memory_limit_bytes, ending.max_rss_bytes)
    if ending.signal is not None:
        return f"killed by signal {ending.signal} ({signal_name(ending.signal)})"
    return f"exit code {ending.exit_code}"


def _want_of_memory(limit: int, used: int | None) -> str:
    if used is None or used <= limit:  # a cgroup gave it no more
        return f"out of memory: it needed more than the {limit / GIB:.3f} GiB that it had asked for"
    return f"out of memory: it used {used / GIB:.3f} GiB, and had asked for {limit / GIB:.3f} GiB"


def signal_name(number: int) -> str:
    """Return a signal's name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_line(tail: str) -> str:
    """Return the last line of an output that is not empty, cut to a bearable length."""
    lines = tail.rstrip().rsplit("\n", 1)
    return lines[-1].strip()[:ERROR_LINE_CHARACTERS_MAX]


def tail_text(content: bytes) -> str:
    """Return the end of an output as text; what is not UTF-8 is replaced, NUL bytes too (databases refuse them)."""
    return content[-LOG_TAIL_BYTES_MAX:].decode("utf-8", errors="replace").replace("\0", "\ufffd")


def killed_report(task_instance_id: int, cause: Cause) -> Report:
    """Say that an attempt ended before its command was started, because it was to be killed."""
    error = f"{cause.value}: before it was started"
    return Report(task_instance_id=task_instance_id, status=TaskInstanceStatus.ERROR, cause=cause, error=error)


def remote_report(
    task_instance_id: int, distributor_id: str, ending: RemoteExit, kill_cause: Cause | None = None
) -> Report:
    """Say what became of an attempt from what its cluster says of the job. When it started only its worker can tell.

    Args:
        task_instance_id: the attempt.
        distributor_id: its job.
        ending: how the job ended.
        kill_cause: why it was to be killed; None: it was not.
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
        error=error or None,
        wallclock_seconds=ending.wallclock_seconds,
        cpu_seconds=ending.cpu_seconds,
        max_rss_bytes=ending.max_rss_bytes,
    )


def lost_report(task_instance_id: int, cause: Cause, error: str) -> Report:
    """Say that nobody knows what became of an attempt; its task is not charged."""
    status = TaskInstanceStatus.UNKNOWN_ERROR
    return Report(task_instance_id=task_instance_id, status=status, cause=cause, error=error)


def unsubmitted_report(task_instance_id: int) -> Report:
    """Say that an earlier distributor ended before it told of a submission; its task is not charged.

    Should the submission have happened all the same and its worker be at work by now, this report counts as late.
    """
    return Report(
        task_instance_id=task_instance_id,
        status=TaskInstanceStatus.NO_DISTRIBUTOR_ID,
        cause=Cause.WORKER_LOST,
        error=UNSTARTED,
    )
