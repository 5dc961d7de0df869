"""The implementation of `jobmon workflow run FILE`: read, build, run, compare."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobmon.cli import rendering
from jobmon.cli.main import EXIT_FAILED
from jobmon.client import wfformat
from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.core.constants import WorkflowRunStatus
from jobmon.core.descriptors import is_terminal
from jobmon.plugins.local.machine import usable_cpus

if TYPE_CHECKING:
    from jobmon.client.wfformat import Comparison, Recording
    from jobmon.client.workflow import Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of the command."""

    file: Path
    cluster_name: str
    scale: float
    workflow_args: str
    resume: bool
    directory: Path | None
    cores_max: int
    fail_fast: bool
    timeout_seconds: int | None


def run(request: Request, *, as_json: bool) -> int:
    """Run the recording, show the comparison, and return the exit code."""
    recording = wfformat.read_recording(request.file)
    from jobmon.client.tool import Tool  # loaded only if the file can be run

    options = _options(request, recording)
    _announce(request, recording, options)
    workflow = wfformat.build_workflow(recording, Tool(name=recording.name), options)
    done = _run(workflow, request)
    if done and request.directory is None:
        shutil.rmtree(options.directory, ignore_errors=True)
    _report(workflow, recording, request, as_json=as_json)
    return 0 if done else EXIT_FAILED


def _run(workflow: Workflow, request: Request) -> bool:
    """Run the workflow to completion; return whether all tasks are done."""
    try:
        status = workflow.run(
            fail_fast=request.fail_fast,
            seconds_until_timeout=request.timeout_seconds,
            resume=request.resume,
            configure_logging=not is_terminal(sys.stderr),  # on a terminal there is a live display
        )
    except RuntimeError as error:  # the timeout has expired
        raise click.ClickException(str(error)) from error
    return status == WorkflowRunStatus.DONE


def local_cores(cluster_name: str) -> int | None:
    """Return how many cores a cluster on this machine uses; None for other clusters."""
    if cluster_name == "sequential":
        return 1
    if cluster_name != "multiprocess":
        return None
    return int(JobmonConfig().get_float("multiprocess", "slots") or usable_cpus())


def _options(request: Request, recording: Recording) -> wfformat.BuildOptions:
    name = request.workflow_args or f"{recording.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}-{os.getpid()}"
    folder = request.directory or data_directory() / "recordings" / re.sub(r"[^\w.-]", "_", name)
    return wfformat.BuildOptions(
        directory=folder.absolute(),
        cluster_name=request.cluster_name,
        scale=request.scale,
        cores_max=request.cores_max,
        workflow_args=name,
    )


def _announce(request: Request, recording: Recording, options: wfformat.BuildOptions) -> None:
    written = sum(recording.file_sizes[name] for task in recording.tasks for name in task.output_files)
    work, data = rendering.duration(recording.work_seconds * request.scale), rendering.size(written * request.scale)
    click.echo(
        f"{recording.name}: {len(recording.tasks):,} tasks, {work} of work, {data} to write, scale {request.scale:g}.",
        err=True,
    )
    click.echo(f"Workflow args (for --resume): {options.workflow_args}", err=True)


def _report(workflow: Workflow, recording: Recording, request: Request, *, as_json: bool) -> None:
    result = workflow.last_result
    whole = result is not None and result.done_count == len(recording.tasks) and not result.num_previously_complete
    comparison = wfformat.compare(
        recording,
        scale=request.scale,
        makespan_seconds=result.elapsed_time if result is not None and whole else None,
        cores=local_cores(request.cluster_name),
    )
    if as_json:
        counts = {} if result is None else {"done": result.done_count, "failed": result.failed_count}
        rendering.show_json({"workflow_id": workflow.workflow_id, **counts, **comparison.as_dict()})
        return
    _show(comparison)
    if not whole:
        click.echo("The makespan is compared only when all tasks are done in one run.")


def _show(comparison: Comparison) -> None:
    timings = (comparison.recorded, comparison.scaled, comparison.run)
    time = rendering.duration
    rows = [
        ("makespan", *(time(timing.makespan_seconds) for timing in timings)),
        ("critical path (recorded durations)", *(time(timing.critical_path_seconds) for timing in timings)),
        ("work (recorded durations)", *(time(timing.work_seconds) for timing in timings)),
        ("cores", *(timing.cores for timing in timings)),
        ("critical path / makespan", *(rendering.share(timing.critical_path_share) for timing in timings)),
        ("parallel efficiency", *(rendering.share(timing.parallel_efficiency) for timing in timings)),
    ]
    columns = ("", "RECORDED", f"x {comparison.scale:g}", "THIS RUN")
    rendering.show_table(columns, rows, right=columns[1:])
