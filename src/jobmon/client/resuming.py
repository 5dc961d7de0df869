"""Resume a workflow of which only the ID is known: everything comes from the database."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.client import expanding, functions, running
from jobmon.client.changing import complete_version
from jobmon.client.clusters import Clusters
from jobmon.client.displays import SteadyDisplay, default_display
from jobmon.client.interrupts import ask_on_terminal, on_terminal
from jobmon.client.workflow_run import WorkflowRun, WorkflowRunFactory
from jobmon.core.exceptions import WorkflowNotResumable
from jobmon.core.wire.swarm import WorkflowMetadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.client.displays import Display
    from jobmon.client.interrupts import Ask
    from jobmon.client.swarm.orchestrator import OrchestratorResult
    from jobmon.core.requester import Requester

STARTUP_TIMEOUT_SECONDS: Final = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeOptions:
    """Options of a resume by ID.

    `cluster_name` is the cluster of tasks that name none; a recorded task names one. `timeout_seconds` limits the start
    of the distributor, unless `startup_timeout_seconds` does, and the wait for what an earlier run left behind.
    """

    cluster_name: str = ""
    reset_running_jobs: bool = False
    timeout_seconds: int = STARTUP_TIMEOUT_SECONDS
    startup_timeout_seconds: int | None = None
    execution_timeout_seconds: float | None = None  # None: the setting run.timeout
    keep_resources: bool = False
    force_cleanup: bool = False
    any_owner: bool = False
    fail_fast: bool = False
    #: The run whose leader was killed; then tasks that failed permanently are not retried.
    predecessor_run_id: int | None = None


def resume_workflow(
    workflow_id: int,
    options: ResumeOptions,
    requester: Requester,
    *,
    display: Callable[[], Display] = default_display,
    ask: Ask | None = None,
) -> OrchestratorResult:
    """Run the unfinished tasks of a recorded workflow. What ended the run early is in the `error` of the result.

    Args:
        workflow_id: ID of the workflow.
        options: options of the resume.
        requester: sends the requests.
        display: creates the display of its progress.
        ask: asks after an interrupt whether to stop; None asks on the terminal if there is one.

    Returns:
        The result of the run.

    Raises:
        InvalidRequest: the workflow does not exist, or it belongs to another user.
        WorkflowAlreadyComplete: every task is done.
        WorkflowNotResumable: another run did not make room in time, or the workflow is not recorded completely.
        InvalidResources: the cluster does not exist.
    """
    metadata = requester.call(f"/workflows/{workflow_id}/metadata", None, WorkflowMetadata, "get")
    run, run_options = created_run(workflow_id, options, requester)
    if ask is None and on_terminal():
        ask = ask_on_terminal
    subject = recorded_subject(metadata, requester)
    return running.Execution(subject, run, run_options, SteadyDisplay(display), ask).carry_out()


def created_run(
    workflow_id: int, options: ResumeOptions, requester: Requester
) -> tuple[WorkflowRun, running.RunOptions]:
    """Make room for a new run of a recorded workflow, reset its tasks, and create the run; see `resume_workflow`."""
    if options.cluster_name:
        Clusters(requester).get(options.cluster_name)
    run_options = running.with_timeout(
        running.RunOptions(
            seconds_until_timeout=options.execution_timeout_seconds,
            resume=True,
            reset_running_jobs=options.reset_running_jobs,
            distributor_startup_timeout=options.startup_timeout_seconds or options.timeout_seconds,
            resume_timeout=options.timeout_seconds,
            force_cleanup=options.force_cleanup,
            keep_resources=options.keep_resources,
            fail_fast=options.fail_fast,
            is_succession=options.predecessor_run_id is not None,
        )
    )
    complete_version(requester, workflow_id)
    expanding.require_functions(requester, workflow_id, functions.load_installed)
    gone = [] if options.predecessor_run_id is None else [options.predecessor_run_id]
    factory = WorkflowRunFactory(workflow_id, requester, any_owner=options.any_owner, gone_run_ids=gone)
    running.make_room(factory, run_options)
    try:
        run = factory.create_workflow_run()
    except WorkflowNotResumable:
        running.make_room(factory, run_options)
        run = factory.create_workflow_run()
    return run, run_options


def recorded_subject(metadata: WorkflowMetadata, requester: Requester) -> running.Subject:
    """Return what an `Execution` needs to run a workflow from its record."""
    from jobmon.client.swarm import resume_workflow_run

    return running.Subject(
        title=f"{metadata.name or metadata.tool_name} (workflow {metadata.workflow_id})",
        workflow_id=metadata.workflow_id,
        requester=requester,
        orchestrate=functools.partial(resume_workflow_run, metadata.workflow_id),
        statuses_before=dict,
    )
