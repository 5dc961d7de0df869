"""`jobmon workflow`: run a recording, see how workflows stand, resume and stop them."""

from __future__ import annotations

from pathlib import Path

import click

from jobmon.cli import explain, failures, listing, logs, resources, steering
from jobmon.cli.rendering import OUTPUT


@click.group()
def workflow() -> None:
    """Workflows: run a recording, status, tasks, errors, resume, stop."""


workflow.add_command(resources.resources)
workflow.add_command(resources.efficiency)
workflow.add_command(steering.concurrency)
workflow.add_command(steering.reset)
workflow.add_command(steering.history)
workflow.add_command(explain.explain_workflow)
workflow.add_command(listing.status)
workflow.add_command(listing.tasks)
workflow.add_command(logs.workflow_logs)
workflow.add_command(failures.errors)


@workflow.command(epilog="Example: jobmon workflow run montage.json --scale 0.1")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-c", "--cluster", default="multiprocess", show_default=True, help="Where to run it.")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, max=1000),
    default=1.0,
    show_default=True,
    help="Factor on recorded times and sizes.",
)
@click.option("--workflow-args", default="", help="Name of this run; needed to resume it. Made up if not given.")
@click.option("--resume", is_flag=True, help="Go on with an earlier run of the same --workflow-args.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), help="Folder for its files, kept after.")
@click.option("--cores-max", type=click.IntRange(min=1), default=1, show_default=True, help="Most cores for a task.")
@click.option("--fail-fast", is_flag=True, help="Launch nothing more after the first task that failed for good.")
@click.option(
    "-t", "--timeout", type=click.IntRange(min=1), default=36_000, show_default=True, help="Give up after, seconds."
)
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
    timeout: int,
    output: str,
) -> None:
    """Run a recorded workflow (WfFormat 1.5) again and compare it with the recording.

    Each task keeps a core busy as it did then, for the scaled time, and writes files of the scaled size.
    """
    from jobmon.cli import recording

    if resume and not workflow_args:
        raise click.UsageError("--resume needs the --workflow-args of the run to go on with.")
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


@workflow.command(epilog="Example: jobmon workflow resume -w 5 -c multiprocess")
@steering.WORKFLOW
@click.option(
    "-c", "--cluster", required=True, help="Where tasks run that name no cluster; others stay where they are."
)
@click.option("--reset-running", is_flag=True, help="End what runs and run it again; else it may finish.")
@click.option(
    "-t",
    "--timeout",
    type=click.IntRange(min=1),
    default=180,
    show_default=True,
    help="Wait for what runs still, seconds.",
)
@click.option(
    "--execution-timeout", type=click.IntRange(min=1), default=36_000, show_default=True, help="Give up after, seconds."
)
@click.option("--keep-resources", is_flag=True, help="Ask for as much as the last attempts did, not as defined.")
@click.option("--force-cleanup", is_flag=True, help="Close attempts that were told to end without waiting for that.")
@click.option("--any-owner", is_flag=True, help="Also if somebody else recorded it.")
def resume(
    *,
    workflow_id: int,
    cluster: str,
    reset_running: bool,
    timeout: int,
    execution_timeout: int,
    keep_resources: bool,
    force_cleanup: bool,
    any_owner: bool,
) -> None:
    """Go on with a workflow of which only the id is known: all that is not done is run."""
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
    raise click.exceptions.Exit(resuming.resume(workflow_id, options))


@workflow.command(epilog="Example: jobmon workflow stop -w 5 --drain")
@steering.WORKFLOW
@click.option("--kill/--drain", default=True, show_default=True, help="End what runs, or let it finish.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "-t",
    "--timeout",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Wait for the end of it, seconds.",
)
@click.option("--any-owner", is_flag=True, help="Also if somebody else recorded it.")
def stop(*, workflow_id: int, kill: bool, yes: bool, timeout: int, any_owner: bool) -> None:
    """Stop a workflow: nothing more is launched. It can be resumed."""
    from jobmon.cli import resuming

    resuming.stop(workflow_id, kill=kill, is_sure=yes, timeout_seconds=timeout, any_owner=any_owner)
