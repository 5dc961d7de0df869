"""What a worker does, without doing it: facts go in, the next step comes out. No I/O, no clock.

run = Run(request)
("start", body)  ->  run.answered(status, content)  ->  ("run",) or ("leave", why)
("run",)         ->  run.started(at, stdout, stderr) or run.not_started(why, at)
then, whenever something happens: run.beat(), run.told(kill), run.ended(...) -> what to send
"""

from __future__ import annotations

LOG_TAIL_BYTES_MAX = 10 * 1024
ERROR_LINE_CHARACTERS_MAX = 500
TOKEN_VARIABLES = ("JOBMON_TOKEN", "JOBMON__HTTP__TOKEN")
#: Letters and words of `jobmon.core.constants`; a test compares them.
RUNNING, DONE, ERROR, RESOURCE_ERROR, UNKNOWN_ERROR = "R", "D", "E", "Z", "U"
EXIT_CODE, SIGNAL, NOT_STARTED, KILLED = "exit code", "signal", "command not started", "killed"
OUT_OF_MEMORY, OUT_OF_TIME, WORKER_LOST = "out of memory", "out of time", "worker lost"
HTTP_OK = 200
HTTP_SERVER_FAULT = 500
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jobmon.worker_node.child import Ending


class Run:
    """One attempt.

    Args:
        request: body of the start request.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.job: dict[str, Any] = {}
        self.is_killed = False
        self.is_timed_out = False
        self.is_starved = False
        self._outputs = ("", "")

    @property
    def identity(self) -> int:
        """The attempt's id."""
        return int(self.job["task_instance_id"])

    @property
    def heartbeat_interval(self) -> float:
        """Between two beats, seconds."""
        return float(self.job["heartbeat_interval"])

    def answered(self, status: int, content: dict[str, Any]) -> str | None:
        """Take the answer to the start request; return why there is nothing to do, or None."""
        if status == HTTP_OK:
            self.job = content
            return None
        return str(content.get("message") or f"the server answered {status}")

    def command_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the command."""
        job = self.job
        result = {key: value for key, value in environment.items() if key not in TOKEN_VARIABLES}
        result.update(
            JOBMON_TASK_ID=str(job["task_id"]),
            JOBMON_TASK_INSTANCE_ID=str(job["task_instance_id"]),
            JOBMON_WORKFLOW_ID=str(job["workflow_id"]),
            JOBMON_WORKFLOW_RUN_ID=str(job["workflow_run_id"]),
            JOBMON_TASK_NAME=job["task_name"],
            JOBMON_ATTEMPT=str(job["attempt"]),
        )
        asked = job["requested_resources"].get("env") or {}
        result.update((str(key), str(value)) for key, value in asked.items())
        return result

    def shell_words(self, default: str) -> list[str]:
        """Return the words of the command line; a shell given by its name alone gets "-c"."""
        shell = self.job["requested_resources"].get("shell") or default
        words = shell.split() if isinstance(shell, str) else list(shell)
        return [*words, *([] if len(words) > 1 else ["-c"]), self.job["command"]]

    def output_files(self, data_folder: str) -> tuple[str, str]:
        """Return the paths for stdout and stderr, as `jobmon.distributor.batch.output_files` does."""
        asked, identity = self.job["requested_resources"], self.identity
        stdout, stderr = asked.get("stdout"), asked.get("stderr")
        stem = f"{self.job['task_name'].replace('/', '_')[:60]}.{identity}"
        if stdout and stderr:
            self._outputs = f"{stdout}/{stem}.out", f"{stderr}/{stem}.err"
        else:
            logs = f"{data_folder}/logs/{self.job['workflow_id']}/{identity // 1000}"
            path = f"{stdout or stderr or logs}/{stem}.log"
            self._outputs = path, path
        return self._outputs

    def beat(self) -> dict[str, Any]:
        """Return the body of a heartbeat."""
        return {"reports": [], "alive": [self.identity]}

    def told(self, content: Mapping[str, Any]) -> bool:
        """Take the answer to a heartbeat; return True when the command is to be ended now."""
        if self.is_killed or self.identity not in content.get("kill", ()):
            return False
        self.is_killed = True
        return True

    def ended(self, ending: Ending, tail: bytes, host: str) -> dict[str, Any]:
        """Return the body of the last report."""
        status, cause, error = self._verdict(ending, _text(tail))
        report = {
            "task_instance_id": self.identity,
            "status": status,
            "distributor_id": self.request.get("distributor_id"),
            "host": host,
            "pid": ending.pid,
            "started_at": iso_time(ending.started_at),
            "ended_at": iso_time(ending.ended_at),
            "exit_code": ending.exit_code,
            "signal": ending.signal,
            "cause": cause,
            "error": error,
            "log_tail": _text(tail) or None,
            "stdout": self._outputs[0] or None,
            "stderr": self._outputs[1] or None,
            "wallclock_seconds": max(0.0, ending.ended_at - ending.started_at),
            "cpu_seconds": ending.cpu_seconds,
            "max_rss_bytes": ending.max_rss_bytes,
            "read_bytes": ending.read_bytes,
            "written_bytes": ending.written_bytes,
        }
        return {"reports": [report], "alive": []}

    def _verdict(self, ending: Ending, tail: str) -> tuple[str, str | None, str | None]:
        if ending.not_started:
            return ERROR, NOT_STARTED, f"not started: {ending.not_started}"
        words = f"exit code {ending.exit_code}" if ending.signal is None else _signal_words(ending.signal)
        if self.is_killed:
            return ERROR, KILLED, f"killed: {words}"
        if self.is_timed_out:
            seconds = max(0.0, ending.ended_at - ending.started_at)
            return RESOURCE_ERROR, OUT_OF_TIME, f"out of time after {seconds:.1f} s"
        if ending.exit_code == 0:
            return DONE, None, None
        if self.is_starved:
            return RESOURCE_ERROR, OUT_OF_MEMORY, f"out of memory: the kernel ended it or a process of it ({words})"
        last = tail.rstrip().rsplit("\n", 1)[-1].strip()[:ERROR_LINE_CHARACTERS_MAX]
        cause = EXIT_CODE if ending.signal is None else SIGNAL
        return ERROR, cause, f"{words}: {last}" if last else words


def _signal_words(number: int) -> str:
    import signal as signals

    try:
        return f"killed by signal {number} ({signals.Signals(number).name})"
    except ValueError:
        return f"killed by signal {number}"


def _text(content: bytes) -> str:
    return content[-LOG_TAIL_BYTES_MAX:].decode("utf-8", errors="replace").replace("\0", "\ufffd")


def iso_time(seconds: float) -> str:
    """Return seconds since the epoch as a UTC time."""
    import time

    whole = int(seconds)
    micro = int((seconds - whole) * 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micro:06d}Z"
