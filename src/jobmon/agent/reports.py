"""Build the reports of attempts that the server accepts (`Report` in `core.wire.launching`). Pure.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

from jobmon.agent import outcome, outputs
from jobmon.agent.locations import INPUT, LOST
from jobmon.agent.machine import iso_time
from jobmon.agent.patterns import shown

ERROR_CHARACTERS_MAX = 10_000  # as in `jobmon.core.texts`
#: Status letters of `jobmon.core.constants`; a test compares them.
RUNNING = "R"
ERROR_FATAL = "F"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jobmon.agent.attempts import Attempt


def of_start(attempt: Attempt, host: str) -> dict[str, Any]:
    """Return the report that a command is running."""
    stdout, stderr = paths(attempt)
    return {
        "task_instance_id": attempt.identity,
        "status": RUNNING,
        "host": host,
        "pid": attempt.pid,
        "started_at": iso_time(attempt.started_at),
        "stdout": clean(stdout),
        "stderr": clean(stderr),
    }


def of_end(attempt: Attempt, tail: bytes, host: str, *, is_killed: bool = False) -> dict[str, Any]:
    """Return the report of an attempt that has ended.

    Args:
        attempt: the record of the attempt.
        tail: the last bytes of its output.
        host: name of this host.
        is_killed: whether the attempt was to be killed, even if its record does not show that.
    """
    text = outputs.tail_text(tail)
    status, cause, error = _judge(attempt, text, is_killed)
    stdout, stderr = paths(attempt)
    return {
        "task_instance_id": attempt.identity,
        "status": status,
        "host": host,
        "pid": attempt.pid,
        "started_at": iso_time(attempt.started_at),
        "ended_at": iso_time(attempt.ended_at),
        "exit_code": attempt.exit_code,
        "signal": attempt.signal,
        "cause": cause,
        "error": clean(error),
        "log_tail": text or None,
        "stdout": clean(stdout),
        "stderr": clean(stderr),
        "wallclock_seconds": max(0.0, attempt.ended_at - attempt.started_at),
        "cpu_seconds": attempt.cpu_seconds,
        "max_rss_bytes": attempt.peak_bytes or None,
        "read_bytes": attempt.read_bytes,
        "written_bytes": attempt.written_bytes,
        **_files(attempt),
    }


def _files(attempt: Attempt) -> dict[str, Any]:
    """Return what was found of the declared files; nothing if none are declared."""
    kinds = ((False, attempt.inputs), (True, attempt.outputs))
    found = [
        {"is_output": is_output, "path": clean(path), "matches": count, "size_bytes": size, "modified": modified}
        for is_output, result in kinds
        if result is not None
        for path, count, size, modified in result.seen
    ]
    return {"files": found, "missing_file": attempt.missing_file or None} if found or attempt.missing_file else {}


def of_unstarted(identity: int, status: str, cause: str, error: str) -> dict[str, Any]:
    """Return the report of an attempt whose command was not started."""
    return {"task_instance_id": identity, "status": status, "cause": cause, "error": clean(error)}


def paths(attempt: Attempt) -> tuple[str, str]:
    """Return the paths of an attempt's stdout and stderr."""
    launch = attempt.launch
    return launch.stdout, launch.stderr or launch.stdout


def _judge(attempt: Attempt, tail: str, is_killed: bool) -> tuple[str, str | None, str | None]:
    if attempt.not_started is not None:
        if attempt.not_started.step == INPUT:
            return outcome.of_missing_input(shown(attempt.missing_file, attempt.launch.directory))
        if attempt.not_started.step == LOST:
            return outcome.UNKNOWN_ERROR, outcome.SUPERVISOR_LOST, attempt.not_started.why
        return outcome.ERROR, outcome.NOT_STARTED, f"not started: {attempt.not_started.why}"
    if attempt.missing_file:
        return outcome.of_missing_output(shown(attempt.missing_file, attempt.launch.directory))
    cause = attempt.cause or (outcome.KILLED if is_killed else None)
    launch = attempt.launch
    limit = int(launch.memory * outcome.GIB) if launch.memory else None
    last = outputs.last_line(tail)
    return outcome.judge(
        attempt.exit_code, attempt.signal, cause, attempt.seconds, last, limit, attempt.peak_bytes or None
    )


def clean(text: str | None) -> str | None:
    """Return a text that the server accepts: valid UTF-8 without NUL characters, of bounded length; None if empty."""
    if not text:
        return None
    return text[:ERROR_CHARACTERS_MAX].encode("utf-8", "replace").decode().replace("\0", "\ufffd")
