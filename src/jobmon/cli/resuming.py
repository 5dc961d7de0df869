"""`jobmon workflow resume` and `jobmon workflow stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobmon.cli.main import EXIT_FAILED
from jobmon.cli.rendering import show_json
from jobmon.cli.steering import make_sure
from jobmon.client.resuming import resume_workflow
from jobmon.client.stopping import stop_workflow
from jobmon.core.constants import WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import JobmonError
from jobmon.core.requester import Requester
from jobmon.core.texts import number_of
from jobmon.core.wire.run import StopResponse
from jobmon.core.wire.swarm import WorkflowMetadata

if TYPE_CHECKING:
    from jobmon.client.resuming import ResumeOptions
    from jobmon.client.swarm.orchestrator import OrchestratorResult


def resume(workflow_id: int, options: ResumeOptions) -> int:
    """Run the remaining tasks of a workflow, print the outcome, and return the exit code."""
    result = resume_workflow(workflow_id, options, Requester.from_defaults())
    skipped = f", {len(result.skipped_task_ids)} skipped" if result.skipped_task_ids else ""
    click.echo(
        f"Workflow {workflow_id} is {WorkflowRunStatus(result.final_status).name}: {result.done_count} of"
        f" {result.total_tasks} tasks done ({result.num_previously_complete} before), {result.failed_count} failed"
        f"{skipped}."
    )
    return _exit_code(result)


def resume_in_background(workflow_id: int, options: ResumeOptions) -> None:
    """Hand a new run of a workflow to a process that outlives this one."""
    from jobmon.client import detached

    handle = detached.resume(workflow_id, options, Requester.from_defaults())
    click.echo(
        f"Workflow {workflow_id} runs in the background (run {handle.workflow_run_id}). Its output: {handle.log_path}\n"
        f"To follow it: jobmon workflow attach {workflow_id}"
    )


def _exit_code(result: OrchestratorResult) -> int:
    if isinstance(result.error, JobmonError):
        raise result.error
    if result.error is not None:  # the timeout has expired
        raise click.ClickException(str(result.error)) from result.error
    return 0 if result.final_status == WorkflowRunStatus.DONE else EXIT_FAILED


def stop(workflow_id: int, *, kill: bool, is_sure: bool, timeout_seconds: int, any_owner: bool, as_json: bool) -> None:
    """Stop a workflow; with `kill`, wait until all its commands have stopped."""
    requester = Requester.from_defaults()
    metadata = requester.call(f"/workflows/{workflow_id}/metadata", None, WorkflowMetadata, "get")
    if metadata.status == WorkflowStatus.DONE:
        _show(
            StopResponse(workflow_status=metadata.status, run_ids=[], ended=0, to_kill=0, left_running=0),
            f"Workflow {workflow_id} is done; there is nothing to stop.",
            as_json=as_json,
        )
        return
    tasks = "its running tasks will be stopped" if kill else "its running tasks will finish"
    name = metadata.name or metadata.tool_name
    make_sure(f"Workflow {workflow_id} ({name}) will be stopped; {tasks}.", is_sure=is_sure)
    answer = stop_workflow(requester, workflow_id, kill=kill, timeout_seconds=timeout_seconds, any_owner=any_owner)
    _show(answer, _told(workflow_id, answer), as_json=as_json)


def _show(answer: StopResponse, text: str, *, as_json: bool) -> None:
    if as_json:
        show_json(answer)
    else:
        click.echo(text)


def _told(workflow_id: int, answer: StopResponse) -> str:
    if not (answer.run_ids or answer.ended or answer.to_kill):
        running = f"; {number_of(answer.left_running, 'attempt')} may still finish" if answer.left_running else ""
        return f"Workflow {workflow_id} was not running{running}."
    parts = [f"{number_of(answer.ended, 'attempt')} cancelled before launch"]
    if answer.to_kill:
        parts.append(f"{answer.to_kill:,} stopped")
    if answer.left_running:
        parts.append(f"{answer.left_running:,} finishing")
    return f"Workflow {workflow_id} is stopped: {', '.join(parts)}. To resume it: jobmon workflow resume {workflow_id}"
