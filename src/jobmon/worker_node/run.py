"""The logic of a worker: takes facts and returns what to send. No I/O, no clock.

run = Run(request)                           the request to start
run.answered(status, content)                -> None, or why there is nothing to run
run.shell_words(...), run.output_files(...)  -> the command
run.beat(), run.told(content)                -> each heartbeat, and whether its answer asks to kill the command
run.ended(...)                               -> the final report
"""

from __future__ import annotations

from jobmon.agent import outputs, reports
from jobmon.agent.environment import for_command
from jobmon.agent.processes import DATA_VARIABLE
from jobmon.agent.settlement import is_problem
from jobmon.agent.shells import shell_words

HTTP_OK = 200
HTTP_UNAUTHORIZED = 401
HTTP_TOO_LARGE = 413
HTTP_TOO_MANY = 429
HTTP_SERVER_FAULT = 500
#: Required fields of the answer to a start request, and their types.
START_FIELDS = (
    ("task_instance_id", int),
    ("task_id", int),
    ("workflow_id", int),
    ("workflow_run_id", int),
    ("attempt", int),
    ("umask", int),
    ("task_name", str),
    ("command", str),
    ("working_directory", str),
    ("requested_resources", dict),
    ("heartbeat_interval", (int, float)),
)
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jobmon.agent.attempts import Attempt


def is_last_word(status: int, content: Any) -> bool:
    """Return whether an answer is our server's final refusal to let a worker start; after other refusals it retries.

    A rejected credential is not final: the server may be restarted with another one, or another program may be
    answering in its place.
    """
    is_passing = status in (HTTP_UNAUTHORIZED, HTTP_TOO_LARGE, HTTP_TOO_MANY)
    is_final = 400 <= status < HTTP_SERVER_FAULT and not is_passing
    return is_final and is_problem(content)


def is_start_answer(content: Any) -> bool:
    """Return whether decoded content is an answer to a start request (`WorkerStartResponse`)."""
    return isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in START_FIELDS)


def is_report_answer(content: Mapping[str, Any]) -> bool:
    """Return whether decoded content is an answer to a report or heartbeat (`WorkerReportResponse`)."""
    return is_list_of_numbers(content.get("kill", [])) and is_list_of_numbers(content.get("unknown", []))


def is_list_of_numbers(value: Any) -> bool:
    """Return whether decoded content is a list of IDs."""
    return isinstance(value, list) and all(isinstance(one, int) for one in value)


class Run:
    """One attempt of a worker.

    Args:
        request: body of the start request.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.job: dict[str, Any] = {}
        self.is_killed = False

    @property
    def identity(self) -> int:
        """The attempt's ID."""
        return int(self.job["task_instance_id"])

    @property
    def heartbeat_interval(self) -> float:
        """The interval between two heartbeats, seconds."""
        return float(self.job["heartbeat_interval"])

    @property
    def server_identity(self) -> str:
        """The server's identity in its first answer; "": it named none."""
        return str(self.job.get("server_identity") or "")

    def answered(self, status: int, content: Any) -> str | None:
        """Process the answer to the start request; return why there is nothing to run, or None."""
        if status == HTTP_OK and is_start_answer(content):
            self.job = content
            return None
        message = content.get("message") if isinstance(content, dict) else None
        return str(message or f"the server responded with status {status}")

    def command_environment(self, environment: Mapping[str, str], own_server_folder: str = "") -> dict[str, str]:
        """Return the environment of the command.

        Args:
            environment: environment of this process.
            own_server_folder: the data folder whose embedded server assigned the attempt; "": another server did.
        """
        job = self.job
        result = for_command(environment)
        result.update(
            JOBMON_TASK_ID=str(job["task_id"]),
            JOBMON_TASK_INSTANCE_ID=str(job["task_instance_id"]),
            JOBMON_WORKFLOW_ID=str(job["workflow_id"]),
            JOBMON_WORKFLOW_RUN_ID=str(job["workflow_run_id"]),
            JOBMON_TASK_NAME=job["task_name"],
            JOBMON_ATTEMPT=str(job["attempt"]),
            JOBMON_SERVER_IDENTITY=self.server_identity,
        )
        if own_server_folder:
            result[DATA_VARIABLE] = own_server_folder
        asked = job["requested_resources"].get("env") or {}
        result.update((str(key), str(value)) for key, value in asked.items())
        return result

    def shell_words(self, default: str) -> list[str]:
        """Return the words of the command line."""
        return [*shell_words(self.job["requested_resources"].get("shell") or default), self.job["command"]]

    def output_files(self, data_folder: str) -> tuple[str, str]:
        """Return the paths for stdout and stderr."""
        job = self.job
        logs = f"{data_folder}/logs/{job['workflow_id']}"
        return outputs.output_files(job["requested_resources"], job["task_name"], self.identity, logs)

    @property
    def declared_files(self) -> tuple[list[str], list[str]]:
        """The declared inputs and outputs of the command."""
        found = self.job.get("files") or {}
        return list(found.get("inputs", ())), list(found.get("outputs", ()))

    def beat(self, pending: str | None = None) -> dict[str, Any]:
        """Return the body of a heartbeat.

        Args:
            pending: why the command does not run yet; "": it is running now; None: omit this information.
        """
        why = {} if pending is None else {str(self.identity): pending}
        return {"reports": [], "alive": [self.identity], "pending": why}

    def told(self, content: Mapping[str, Any]) -> bool:
        """Process the answer to a heartbeat; return True if the command must be killed now."""
        if self.is_killed or self.identity not in content.get("kill", ()):
            return False
        self.is_killed = True
        return True

    def ended(self, attempt: Attempt, tail: bytes, host: str) -> dict[str, Any]:
        """Return the final report.

        Args:
            attempt: the record of the attempt.
            tail: the last bytes of its output.
            host: name of this host.
        """
        report = reports.of_end(attempt, tail, host, is_killed=self.is_killed)
        return {**report, "distributor_id": self.request.get("distributor_id")}
