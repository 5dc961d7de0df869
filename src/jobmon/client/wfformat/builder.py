"""Build a workflow from a recording: a template per kind of task, the recorded dependencies, the initial files."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.client.wfformat import burner
from jobmon.client.wfformat.reader import place_of
from jobmon.core.exceptions import ConfigError

if TYPE_CHECKING:
    from jobmon.client.task import Task
    from jobmon.client.task_template import TaskTemplate
    from jobmon.client.tool import Tool
    from jobmon.client.wfformat.document import RecordedTask, Recording
    from jobmon.client.workflow import Workflow

COMMAND_TEMPLATE: Final = "{python} -I -S {burner} {jobs} {offset} {scale} {task}"
JOBS_FILE: Final = "jobs"
FILES_FOLDER: Final = "files"
HEADER_BYTES_MAX: Final = 64 * 1024
#: Recorded shares are slightly inaccurate: 100.5 % of a core counts as one core.
SHARE_TOLERANCE: Final = 0.05
_NOT_IN_A_NAME: Final = re.compile(r"""[/\\'"\s]""")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How to run a recording.

    Attributes:
        directory: folder for the jobs and files of the run; it must be visible on every machine that runs tasks.
        cluster_name: cluster on which the tasks run.
        scale: factor on times and sizes.
        cores_max: maximum number of cores that one task requests. A task that kept more cores busy keeps that many
        busy,
            for the recorded time.
        workflow_args: identifies the workflow; "" generates a random value.
    """

    directory: Path
    cluster_name: str
    scale: float = 1.0
    cores_max: int = 1
    workflow_args: str = ""


def cores_of(task: RecordedTask, cores_max: int) -> int:
    """Return the number of cores that a task requests: those it kept busy, within the limit."""
    return min(cores_max, max(1, math.ceil(task.cpu_share - SHARE_TOLERANCE)))


def prepare_directory(recording: Recording, options: BuildOptions) -> dict[str, int]:
    """Write the jobs file and the files that no task produces; return the offset of each task's line.

    A second call writes the same, so that a resumed run finds everything in its place. The initial files are sparse if
    the file system allows it, since their content is not read.

    Raises:
        ConfigError: the folder cannot be written, or contains something else that would be overwritten.
    """
    try:
        _check_mine(recording, options)
        offsets = _write_jobs(recording, options)  # first: the jobs file identifies the run that owns the folder
        _prepare_files(recording, options)
    except OSError as error:
        raise ConfigError(f"{error.filename or options.directory} cannot be written: {error.strerror}.") from error
    return offsets


def _check_mine(recording: Recording, options: BuildOptions) -> None:
    """Check that the folder is unused, or belongs to an earlier run of the same recording at the same scale."""
    jobs = options.directory / JOBS_FILE
    if jobs.exists():
        with jobs.open("rb") as stream:
            mine = stream.readline(HEADER_BYTES_MAX) == _header(recording, options)
    else:
        mine = not (options.directory / FILES_FOLDER).exists()
    if not mine:
        raise ConfigError(
            f"{options.directory} is not the folder of a run of {recording.name!r} at scale {options.scale!r}. "
            "Choose another folder, or remove that one."
        )


def _header(recording: Recording, options: BuildOptions) -> bytes:
    return json.dumps({"recording": recording.name, "scale": options.scale}).encode() + b"\n"


def _prepare_files(recording: Recording, options: BuildOptions) -> None:
    files = options.directory / FILES_FOLDER
    files.mkdir(parents=True, exist_ok=True)
    for file_id in recording.prepared_files:
        path = files / place_of(file_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.truncate(burner.scaled_bytes(recording.file_sizes[file_id], options.scale))


def _write_jobs(recording: Recording, options: BuildOptions) -> dict[str, int]:
    options.directory.mkdir(parents=True, exist_ok=True)
    offsets: dict[str, int] = {}
    temporary = options.directory / f".{JOBS_FILE}"
    with temporary.open("wb") as stream:
        stream.write(_header(recording, options))
        for task in recording.tasks:
            offsets[task.task_id] = stream.tell()
            stream.write(_line(recording, task, options.cores_max))
    temporary.replace(options.directory / JOBS_FILE)
    return offsets


def build_workflow(recording: Recording, tool: Tool, options: BuildOptions) -> Workflow:
    """Prepare the folder of the run and define the workflow in it.

    The node arg of a task is its recorded ID, so runs of one recording share their DAG and can be compared. The scale
    is a task arg; paths are op args.
    """
    offsets = prepare_directory(recording, options)
    workflow = tool.create_workflow(
        workflow_args=options.workflow_args,
        name=recording.name,
        description=recording.description,
        workflow_attributes={"recording": recording.name, "scale": repr(options.scale)},
        default_cluster_name=options.cluster_name,
    )
    templates = {name: _template(tool, name) for name in dict.fromkeys(task.category for task in recording.tasks)}
    tasks: dict[str, Task] = {}
    for task in recording.tasks:
        tasks[task.task_id] = templates[task.category].create_task(
            name=task_name(task.task_id),
            upstream_tasks=[tasks[parent] for parent in task.parents],
            compute_resources={"cores": cores_of(task, options.cores_max)},
            **_arguments(task, offsets[task.task_id], options),
        )
    workflow.add_tasks(tasks.values())
    return workflow


def task_name(task_id: str) -> str:
    """Return a name that Jobmon accepts, derived from a recorded ID."""
    name = _NOT_IN_A_NAME.sub("_", task_id)
    return f"task_{name}" if name[0].isdigit() else name


def _template(tool: Tool, category: str) -> TaskTemplate:
    return tool.get_task_template(
        template_name=category,
        command_template=COMMAND_TEMPLATE,
        node_args=["task"],
        task_args=["scale"],
        op_args=["python", "burner", "jobs", "offset"],
    )


def _arguments(task: RecordedTask, offset: int, options: BuildOptions) -> dict[str, Any]:
    return {
        "python": shlex.quote(sys.executable),
        "burner": shlex.quote(burner.__file__),
        "jobs": shlex.quote(str(options.directory.absolute() / JOBS_FILE)),
        "offset": offset,
        "scale": repr(options.scale),
        "task": shlex.quote(task.task_id),
    }


def _line(recording: Recording, task: RecordedTask, cores_max: int) -> bytes:
    def pairs(names: tuple[str, ...]) -> list[tuple[str, int]]:
        return [(place_of(name), recording.file_sizes[name]) for name in names]

    busy_cores = min(task.cpu_share, cores_of(task, cores_max))
    return burner.job_line(
        task.task_id, task.duration_seconds, busy_cores, pairs(task.input_files), pairs(task.output_files)
    )
