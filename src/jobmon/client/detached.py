"""Start runs and scripts that outlive this process.

`Workflow.start` records the workflow and creates the run; a leader (`jobmon.client.leader`) runs it from the record.
`jobmon workflow start` runs a whole script detached (`jobmon.client.script`). Both processes have a watcher
(`jobmon.agent.watcher`) as their parent, which restarts them if they are killed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent import trust
from jobmon.agent import watcher as watcher_program
from jobmon.client import api_calls, running, succession, watched
from jobmon.client.expansion import Expansion
from jobmon.client.resuming import created_run
from jobmon.client.run_handle import RunHandle
from jobmon.core import paths
from jobmon.core.configuration import data_directory
from jobmon.core.constants import LOG_TAIL_BYTES_MAX, WorkflowRunStatus
from jobmon.core.exceptions import InvalidResources, WorkflowAlreadyComplete, WorkflowRunStateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.client.resuming import ResumeOptions
    from jobmon.client.running import RunOptions
    from jobmon.client.task import Task
    from jobmon.client.workflow import Workflow
    from jobmon.client.workflow_run import WorkflowRun
    from jobmon.core.requester import Requester

#: Maximum time until a leader reports that it leads its run.
LEADER_SECONDS_MAX: Final = 60.0
_LEADER: Final = (sys.executable, "-P", "-m", "jobmon.client.leader")
_READ_BYTES: Final = 65_536


def start(workflow: Workflow, options: RunOptions) -> RunHandle:
    """Start a detached run; see `Workflow.start`."""
    options = running.begin(workflow, options)
    require_no_functions(workflow)
    try:
        run = running.prepare(workflow, options)
    except WorkflowAlreadyComplete:
        if not running.may_be_complete(workflow, options):
            raise
        return _handle_of_complete(workflow)
    except succession.Concluded:
        return _handle_of_complete(workflow)
    handle = _handed_over(run, options)
    workflow.last_workflow_run_id = handle.workflow_run_id
    return handle


def resume(workflow_id: int, options: ResumeOptions, requester: Requester) -> RunHandle:
    """Resume a recorded workflow in a run that outlives this process; see `resuming.resume_workflow`."""
    run, run_options = created_run(workflow_id, options, requester)
    return _handed_over(run, run_options)


def _handed_over(run: WorkflowRun, options: RunOptions) -> RunHandle:
    """Start a leader for a run, and wait until it leads it."""
    log = watched.log_path(run.workflow_id, run.workflow_run_id)
    try:
        report = launch(_leader_command(run, options), log, LEADER_SECONDS_MAX)
        if report is None or "run" not in report:
            raise WorkflowRunStateError(_not_led(run, report, log))
    except BaseException as error:
        is_stopped = isinstance(error, KeyboardInterrupt)
        run.end(WorkflowRunStatus.STOPPED if is_stopped else WorkflowRunStatus.ERROR)
        raise
    return RunHandle(run.requester, run.workflow_id, report["run"], log)


def require_no_functions(workflow: Workflow) -> None:
    """Check that a workflow can be run from its record, which contains no Python functions.

    Raises:
        InvalidResources: a task has a `compute_resources_callable` or a scale that is a function.
    """
    checked: set[int] = set()
    for task in workflow.tasks.values():
        if isinstance(task, Expansion):
            _require_importable(task)
        elif id(task.options) not in checked:
            checked.add(id(task.options))
            if what := _function_of(task):
                raise InvalidResources(
                    f"Task {task.name!r} has {what}, which exists only in this process. Use run(), or:"
                    f" jobmon workflow start {_script_name()}"
                )


def _require_importable(expansion: Expansion) -> None:
    from jobmon.client import functions

    try:
        functions.load_installed(expansion.function_text)
    except functions.NotImportable as error:
        raise InvalidResources(
            f"Expansion {expansion.name!r} calls {expansion.function_text}, which another process cannot import:"
            f" {error}. Use run(), or: jobmon workflow start {_script_name()}"
        ) from None


def _function_of(task: Task) -> str:
    """Return what of a task is a Python function; "" if nothing is."""
    if task.compute_resources_callable is not None:
        return "a compute_resources_callable"
    functions = (f"a function as the scale of {key!r}" for key, one in task.resource_scales.items() if callable(one))
    return next(functions, "")


def _script_name() -> str:
    from jobmon.client.planning import running_script

    return running_script() or "SCRIPT"


def _handle_of_complete(workflow: Workflow) -> RunHandle:
    """Return a handle for a workflow that needs no run, with its newest one."""
    assert workflow.workflow_id is not None, "a recorded workflow has an id"
    summary = api_calls.workflow_summary(workflow.requester, workflow.workflow_id, counts=False)
    run_id = summary.last_workflow_run_id or 0
    return RunHandle(workflow.requester, summary.workflow_id, run_id, watched.log_path(summary.workflow_id, run_id))


def _leader_command(run: WorkflowRun, options: RunOptions) -> list[str]:
    seconds = options.seconds_until_timeout
    words = [
        *_LEADER,
        *("--workflow-id", str(run.workflow_id)),
        *("--former-pid", str(os.getpid())),
        *("--former-pid-start-time", repr(paths.process_start_time(os.getpid()) or 0.0)),
        *("--distributor-startup-timeout", str(options.distributor_startup_timeout)),
        *("--resume-timeout", str(options.resume_timeout)),
        # the clock is the same for all processes of a host, so a restarted leader has only the rest of the time
        *([] if seconds is None else ["--deadline", repr(time.monotonic() + seconds)]),
        *(["--fail-fast"] if options.fail_fast else []),
        *(["--log-messages"] if options.configure_logging else []),
    ]
    return [*words, str(run.workflow_run_id)]


def _not_led(run: WorkflowRun, report: dict[str, Any] | None, log: Path) -> str:
    what = f"did not start within {LEADER_SECONDS_MAX:g} s" if report is None else "has exited"
    return (
        f"The process that was to lead run {run.workflow_run_id} of workflow {run.workflow_id} {what}. The end of its"
        f" log, {log}:\n{log_tail(log)}"
    )


def launch(command: Sequence[str], log: Path, seconds_max: float) -> dict[str, Any] | None:
    """Start a process that outlives this one, with a watcher, and wait for the first thing that it reports.

    Args:
        command: its command line.
        log: path of the file for its output.
        seconds_max: maximum time to wait, in seconds; the process continues afterwards.

    Returns:
        `workflow`, `run` and `log` of the first run that it leads, or `exit`, its exit code (missing if its watcher was
        killed, too); None if it has reported nothing in time.

    Raises:
        UntrustedFile: the folder of the log is not ours alone.
        ConfigError: the folder cannot be created.
    """
    setup = {
        "command": list(command),
        "give_up": [*_LEADER, "--give-up"],
        "log": str(log),
        "token": str(uuid.uuid4()),
    }
    paths.make_private(log.parent)
    with paths.trusting():
        output = trust.open_file(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", watcher_program.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)
    assert process.stdin is not None, "it was started with a pipe"
    assert process.stdout is not None, "it was started with a pipe"
    with process.stdout as reports:
        with suppress(BrokenPipeError), process.stdin as sent:  # the watcher has exited already: there is no report
            sent.write(json.dumps(setup).encode())
        line = _read_line(reports.fileno(), time.monotonic() + seconds_max)
    process.returncode = process.returncode or 0  # it outlives this process; prevents a warning at our exit
    found: dict[str, Any] | None = json.loads(line) if line else None
    return found


def _read_line(descriptor: int, deadline: float) -> bytes:
    """Return a line from a pipe; an empty report if its other end was closed, or nothing if the time is up."""
    received = b""
    while b"\n" not in received:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return b""
        piece = os.read(descriptor, _READ_BYTES)
        if not piece:
            return b"{}"
        received += piece
    return received


def log_tail(log: Path) -> str:
    """Return the end of a log; "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES_MAX))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def start_script(script: Path, arguments: Sequence[str], seconds_max: float) -> tuple[dict[str, Any] | None, Path]:
    """Run a script detached; return what it reports first (see `launch`), and the path of its log.

    Args:
        script: path of the script.
        arguments: its arguments.
        seconds_max: maximum time to wait until it leads a run, in seconds.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{script.stem}-{uuid.uuid4().hex[:8]}.log"
    log = data_directory() / "logs" / watched.SCRIPTS_FOLDER / name
    command = [sys.executable, "-P", "-m", "jobmon.client.script", str(script), *arguments]
    report = launch(command, log, seconds_max)
    return report, Path(report["log"]) if report is not None and "log" in report else log
