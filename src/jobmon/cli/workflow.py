"""`jobmon workflow`: inspect and control workflows, run a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from jobmon.cli import (
    detached,
    explain,
    failures,
    files,
    holding,
    listing,
    logs,
    planning,
    report,
    resources,
    steering,
    versions,
)
from jobmon.cli.groups import Group
from jobmon.cli.references import WORKFLOW, option
from jobmon.cli.rendering import OUTPUT

_TIMEOUT: Final = "Stop the run after this time. Default: the setting run.timeout, which sets no limit unless changed."


@click.group(cls=Group)
def workflow() -> None:
    """Inspect and control workflows: status, tasks, errors, logs, resume, stop."""


workflow.add_command(detached.start)
workflow.add_command(detached.attach)
workflow.add_command(detached.wait)
workflow.add_command(resources.resources)
workflow.add_command(resources.efficiency)
workflow.add_command(steering.concurrency)
workflow.add_command(steering.reset)
workflow.add_command(holding.hold_template)
workflow.add_command(holding.release_template)
workflow.add_command(holding.prioritize_workflow)
workflow.add_command(steering.history)
workflow.add_command(explain.explain_workflow)
workflow.add_command(listing.status)
workflow.add_command(listing.tasks)
workflow.add_command(logs.workflow_logs)
workflow.add_command(files.outputs)
workflow.add_command(failures.errors)
workflow.add_command(planning.plan)
workflow.add_command(versions.versions)
workflow.add_command(report.report)


@workflow.command(epilog="Example: jobmon workflow run montage.json --scale 0.1")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-c", "--cluster", default="multiprocess", show_default=True, help="Cluster on which to run it.")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, max=1000),
    default=1.0,
    show_default=True,
    help="Factor on recorded times and sizes.",
)
@click.option("--workflow-args", default="", help="Identifies the run, to resume it. Default: random.")
@click.option("--resume", is_flag=True, help="Resume an earlier run with the same --workflow-args.")
@click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), help="Folder for its files, which is kept."
)
@click.option(
    "--cores-max", type=click.IntRange(min=1), default=1, show_default=True, help="Use at most N cores per task."
)
@click.option("--fail-fast", is_flag=True, help="Launch no more tasks after one has failed permanently.")
@option("--timeout", quiet=("-t",), type=click.IntRange(min=1), metavar="SECONDS", help=_TIMEOUT)
@OUTPUT
def run(
    *,
    file: Path,
    cluster: str,
    scale: float,
    workflow_args: str,
    resume: bool,
    directory: Path | None,
    cores_max: int,
    fail_fast: bool,
    timeout: int | None,
    output: str,
) -> None:
    """Replay a recorded workflow (WfFormat 1.5) and compare it with the recording.

    Each task uses the CPU for the recorded time and writes files of the recorded size, both scaled. Workflows of your
    own run from Python: python my_workflow.py
    """
    from jobmon.cli import recording

    if resume and not workflow_args:
        raise click.UsageError("--resume needs the --workflow-args of the run to resume.")
    request = recording.Request(
        file=file,
        cluster_name=cluster,
        scale=scale,
        workflow_args=workflow_args,
        resume=resume,
        directory=directory,
        cores_max=cores_max,
        fail_fast=fail_fast,
        timeout_seconds=timeout,
    )
    raise click.exceptions.Exit(recording.run(request, as_json=output == "json"))


@workflow.command(epilog="Example: jobmon workflow resume 5")
@WORKFLOW
@click.option("-c", "--cluster", default="", help="Cluster for tasks that specify none. Default: the recorded one.")
@click.option("--reset-running", is_flag=True, help="Stop and rerun running tasks. Default: let them finish.")
@option(
    "--timeout",
    quiet=("-t",),
    type=click.IntRange(min=1),
    default=180,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for an earlier run to end.",
)
@click.option("--execution-timeout", type=click.IntRange(min=1), metavar="SECONDS", help=_TIMEOUT)
@click.option("--keep-resources", is_flag=True, help="Keep the requests of the last attempts, which may be raised.")
@click.option("--force-cleanup", is_flag=True, help="Close attempts that were told to stop but no longer report.")
@click.option("--any-owner", is_flag=True, help="Act even if it belongs to another user.")
@click.option("--background", is_flag=True, help="Return once it runs; it continues when the terminal is closed.")
def resume(
    *,
    workflow_id: int,
    cluster: str,
    reset_running: bool,
    timeout: int,
    execution_timeout: int | None,
    keep_resources: bool,
    force_cleanup: bool,
    any_owner: bool,
    background: bool,
) -> None:
    """Resume a workflow from its record, without its script: run all tasks that are not done."""
    from jobmon.cli import resuming
    from jobmon.client.resuming import ResumeOptions

    options = ResumeOptions(
        cluster_name=cluster,
        reset_running_jobs=reset_running,
        timeout_seconds=timeout,
        execution_timeout_seconds=execution_timeout,
        keep_resources=keep_resources,
        force_cleanup=force_cleanup,
        any_owner=any_owner,
    )
    if background:
        resuming.resume_in_background(workflow_id, options)
    else:
        raise click.exceptions.Exit(resuming.resume(workflow_id, options))


@workflow.command(epilog="Example: jobmon workflow stop 5 --drain")
@WORKFLOW
@click.option("--kill/--drain", default=True, show_default=True, help="Stop running tasks, or let them finish.")
@steering.YES
@option(
    "--timeout",
    quiet=("-t",),
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for running tasks to stop.",
)
@click.option("--any-owner", is_flag=True, help="Act even if it belongs to another user.")
@OUTPUT
def stop(*, workflow_id: int, kill: bool, yes: bool, timeout: int, any_owner: bool, output: str) -> None:
    """Stop a workflow: no more tasks are launched. It can be resumed."""
    from jobmon.cli import resuming

    resuming.stop(
        workflow_id,
        kill=kill,
        is_sure=yes,
        timeout_seconds=timeout,
        any_owner=any_owner,
        as_json=output == "json",
    )
