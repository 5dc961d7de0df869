"""Lead a detached run: `python -P -m jobmon.client.leader RUN`, started by a watcher on behalf of `Workflow.start`.

The leader runs the workflow from its record. If it is restarted because it was killed, it resumes the workflow hot, in
a new run. With `--give-up WORKFLOW:RUN`, it only records that nobody leads these runs any more.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from typing import TYPE_CHECKING, Final

from jobmon.client import running, watched
from jobmon.client.displays import SteadyDisplay, configure_logging, default_display
from jobmon.client.resuming import ResumeOptions, recorded_subject, resume_workflow
from jobmon.client.succession import Concluded, require_unfinished
from jobmon.client.waiting import active_runs
from jobmon.client.workflow_run import ThisHost, WorkflowRun
from jobmon.core.constants import EndReason, WorkflowRunStatus
from jobmon.core.exceptions import DistributorInterruptedError, JobmonError, WorkflowAlreadyComplete
from jobmon.core.fsm import RUN_WHEN_LOST
from jobmon.core.requester import Requester
from jobmon.core.wire.run import RunStatusRequest, RunStatusResponse
from jobmon.core.wire.swarm import WorkflowMetadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.client.swarm.orchestrator import OrchestratorResult

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
#: Timeout of a leader that was restarted after the deadline of its run.
LEAST_SECONDS: Final = 0.001

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Lead a run, or give up runs; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.log_messages:
        configure_logging()
    try:
        requester = Requester.from_defaults()
        if options.give_up:
            for words in options.runs:
                _give_up(requester, *map(int, words.split(":")))
            return 0
        return _exit_code(_lead(requester, options))
    except WorkflowAlreadyComplete:
        return 0  # the predecessor was killed after the last task
    except Concluded as concluded:
        _say(f"Nothing to continue: the run is {concluded.status.name}.")
        return 0
    except JobmonError as error:
        _say(f"{type(error).__name__}: {error}")
        return EXIT_FAILED


def _exit_code(result: OrchestratorResult) -> int:
    if result.error is not None:
        _say(f"{type(result.error).__name__}: {result.error}")
    if isinstance(result.error, DistributorInterruptedError):
        return EXIT_INTERRUPTED
    return 0 if result.final_status == WorkflowRunStatus.DONE else EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jobmon.client.leader", description="Lead a detached run.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="ID of the run; with --give-up, WORKFLOW:RUN.")
    parser.add_argument("--give-up", action="store_true", help="Record that nobody leads the runs any more.")
    parser.add_argument("--workflow-id", type=int, default=0, help="ID of the workflow.")
    parser.add_argument("--former-pid", type=int, default=0, help="ID of the process that created the run.")
    parser.add_argument("--former-pid-start-time", type=float, default=0.0, help="Start time of that process.")
    parser.add_argument("--deadline", type=float, help="When the run times out, on the clock time.monotonic().")
    parser.add_argument("--distributor-startup-timeout", type=float, default=180, help="Seconds.")
    parser.add_argument("--resume-timeout", type=float, default=300, help="Seconds.")
    parser.add_argument("--fail-fast", action="store_true", help="Launch nothing after a permanent failure.")
    parser.add_argument("--log-messages", action="store_true", help="Write log messages, too.")
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _lead(requester: Requester, options: argparse.Namespace) -> OrchestratorResult:
    workflow_id = options.workflow_id
    seconds = None if options.deadline is None else max(LEAST_SECONDS, options.deadline - time.monotonic())
    if watched.is_restart():
        predecessor = watched.run_before(workflow_id) or int(options.runs[0])
        require_unfinished(requester, workflow_id, predecessor)
        succeeding = ResumeOptions(
            timeout_seconds=options.resume_timeout,
            startup_timeout_seconds=options.distributor_startup_timeout,
            execution_timeout_seconds=seconds,
            keep_resources=True,
            fail_fast=options.fail_fast,
            predecessor_run_id=predecessor,
        )
        return resume_workflow(workflow_id, succeeding, requester)
    metadata = requester.call(f"/workflows/{workflow_id}/metadata", None, WorkflowMetadata, "get")
    run = WorkflowRun(workflow_id, requester)
    run.lead(int(options.runs[0]), options.former_pid, options.former_pid_start_time)
    run_options = running.RunOptions(
        fail_fast=options.fail_fast,
        seconds_until_timeout=seconds,
        distributor_startup_timeout=options.distributor_startup_timeout,
    )
    subject = recorded_subject(metadata, requester)
    return running.Execution(subject, run, run_options, SteadyDisplay(default_display), None).carry_out()


def _give_up(requester: Requester, workflow_id: int, run_id: int) -> None:
    """End a run whose leader was killed too often, unless it is over or led by another process."""
    host = ThisHost()
    for run in active_runs(requester, workflow_id).runs:
        if run.workflow_run_id == run_id or host.is_gone(run):
            status = RUN_WHEN_LOST[WorkflowRunStatus(run.status)]
            request = RunStatusRequest(status=status, reason=EndReason.INTERRUPTED)
            requester.call(f"/workflow_runs/{run.workflow_run_id}/status", request, RunStatusResponse)


if __name__ == "__main__":
    sys.exit(main())
