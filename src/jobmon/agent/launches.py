"""Convert the server's answers with attempts into commands to start. Pure.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

from jobmon.agent import outputs
from jobmon.agent.devices import asked_of
from jobmon.agent.shells import shell_words
from jobmon.agent.starting import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Columns of an answer that contains launches.
_COLUMNS = ("task_instance_ids", "task_ids", "names", "commands", "attempts", "requests")


class Surroundings:
    """The settings that all commands of an agent share.

    Args:
        workflow_id: ID of the workflow.
        workflow_run_id: ID of the workflow run.
        directory: the working directory.
        umask: the file mode mask.
        log_folder: the log folder of the workflow.
        shell: the shell of commands that request no other shell.
        cores: the cores of this machine, which is the most that a command counts as.
        is_whole: whether every command takes all cores.
        server_identity: identity of the server that assigns the work.
    """

    def __init__(
        self,
        workflow_id: int,
        workflow_run_id: int,
        directory: str,
        umask: int,
        log_folder: str,
        shell: str,
        cores: float,
        is_whole: bool,
        server_identity: str,
    ) -> None:
        self.workflow_id = workflow_id
        self.workflow_run_id = workflow_run_id
        self.directory = directory
        self.umask = umask
        self.log_folder = log_folder
        self.shell = shell
        self.cores = cores
        self.is_whole = is_whole
        self.server_identity = server_identity


def launches_of(columns: dict[str, Any], around: Surroundings) -> list[Launch]:
    """Return the commands in an answer (`AgentLaunches`), in the order of the answer."""
    requested, cores, memory = columns["requested_resources"], columns["cores"], columns["memory_gib"]
    declared = columns.get("files") or {}
    found = []
    for identity, task_id, name, command, number, index in zip(*(columns[one] for one in _COLUMNS), strict=True):
        asked = requested[index]
        files = declared.get(str(identity)) or {}
        stdout, stderr = outputs.output_files(asked, name, identity, around.log_folder)
        environment = {
            "JOBMON_TASK_ID": str(task_id),
            "JOBMON_TASK_INSTANCE_ID": str(identity),
            "JOBMON_WORKFLOW_ID": str(around.workflow_id),
            "JOBMON_WORKFLOW_RUN_ID": str(around.workflow_run_id),
            "JOBMON_TASK_NAME": name,
            "JOBMON_ATTEMPT": str(number),
            "JOBMON_SERVER_IDENTITY": around.server_identity,
        }
        environment.update((str(key), str(value)) for key, value in (asked.get("env") or {}).items())
        found.append(
            Launch(
                identity,
                [*shell_words(asked.get("shell") or around.shell), command],
                environment,
                around.directory,
                around.umask,
                stdout,
                None if stderr == stdout else stderr,
                asked.get("runtime"),
                around.cores if around.is_whole else min(float(cores[index]), around.cores),
                float(memory[index]),
                asked_of(asked),
                int(task_id),
                files.get("inputs", ()),
                files.get("outputs", ()),
                asked,
            )
        )
    return found
