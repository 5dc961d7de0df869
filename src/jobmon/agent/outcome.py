"""Decide what the exit of a command means: status, cause, and message. No other module decides this.

Pure; imports nothing because workers load it (`python -I -S`).
"""

from __future__ import annotations

#: The same values as in `jobmon.core.constants`; a test compares them.
DONE, ERROR, ERROR_FATAL, RESOURCE_ERROR, UNKNOWN_ERROR = "D", "E", "F", "Z", "U"
EXIT_CODE, SIGNAL, NOT_STARTED, KILLED = "exit code", "signal", "command not started", "killed"
OUT_OF_MEMORY, OUT_OF_TIME = "out of memory", "out of time"
INPUT_MISSING, OUTPUT_MISSING = "input missing", "output missing"
WORKER_LOST, SUPERVISOR_LOST, KILLED_ITS_PARENT = "worker lost", "supervisor lost", "killed its parent"
GIB = 1024.0**3


def judge(
    exit_code: int | None,
    signal: int | None,
    cause: str | None,
    seconds: float,
    last_line: str = "",
    memory_limit_bytes: int | None = None,
    peak_bytes: int | None = None,
) -> tuple[str, str | None, str | None]:
    """Return status, cause and message of a command that ran.

    Args:
        exit_code: exit code of the command; None: it was terminated by a signal.
        signal: number of that signal.
        cause: why the command was stopped: OUT_OF_TIME, OUT_OF_MEMORY, or a reason for a kill; None: it was not.
        seconds: how long the command ran.
        last_line: the last line of its output.
        memory_limit_bytes: the limit on the command; None: only its job was limited.
        peak_bytes: peak memory use, if known.
    """
    words = exit_in_words(exit_code, signal)
    if cause is None:
        if exit_code == 0:
            return DONE, None, None
        return ERROR, EXIT_CODE if signal is None else SIGNAL, _with(words, last_line)
    if cause == OUT_OF_TIME:
        return RESOURCE_ERROR, cause, _with(f"out of time after {seconds:.1f} s", last_line)
    if cause == OUT_OF_MEMORY:
        return RESOURCE_ERROR, cause, _with(_out_of_memory(words, memory_limit_bytes, peak_bytes), last_line)
    return ERROR, cause, f"{cause}: {words}"


def of_missing_input(path: str) -> tuple[str, str, str]:
    """Return status, cause and message of a command that was not started because a declared input is missing."""
    return ERROR_FATAL, INPUT_MISSING, f"Input {_missing(path)}"


def of_missing_output(path: str) -> tuple[str, str, str]:
    """Return status, cause and message of a command that exited with 0 without writing a declared output."""
    return ERROR, OUTPUT_MISSING, f"Output {_missing(path)}, although the command exited with code 0"


def _missing(path: str) -> str:
    return f"{path} {'matches no file' if '*' in path else 'is missing'}"


def _with(words: str, last_line: str) -> str:
    return f"{words}: {last_line}" if last_line else words


def exit_in_words(exit_code: int | None, signal: int | None) -> str:
    """Return how a command exited, in words."""
    return f"exit code {exit_code}" if signal is None else f"killed by signal {signal}{_name_of(signal)}"


def _name_of(number: int) -> str:
    import signal  # slow to import, and most commands are not killed by a signal

    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""


def _out_of_memory(words: str, limit_bytes: int | None, peak_bytes: int | None) -> str:
    if limit_bytes is None:
        return f"out of memory: the kernel killed it or one of its processes ({words})"
    limit = f"{limit_bytes / GIB:.3f} GiB"
    if peak_bytes is None or peak_bytes <= limit_bytes:  # a cgroup allowed no more
        return f"out of memory: it needed more than the {limit} that it requested"
    return f"out of memory: it used {peak_bytes / GIB:.3f} GiB, but requested {limit}"
