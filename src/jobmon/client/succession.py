"""The successor of a process that was killed while it led a run: whether to continue, and with which options."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from jobmon.client import api_calls, watched
from jobmon.client.waiting import active_runs
from jobmon.client.workflow_run import ThisHost
from jobmon.core import outcomes
from jobmon.core.constants import WorkflowRunStatus, WorkflowStatus

if TYPE_CHECKING:
    from jobmon.client.running import RunOptions
    from jobmon.client.workflow_run import Host
    from jobmon.core.requester import Requester


class Concluded(Exception):
    """There is nothing to continue: the run ended, or another process leads the workflow.

    Args:
        status: status of the run.
    """

    def __init__(self, status: WorkflowRunStatus) -> None:
        super().__init__(status.name)
        self.status = status


def require_unfinished(
    requester: Requester, workflow_id: int, predecessor_run_id: int, host: Host | None = None
) -> None:
    """Check that a workflow was left by the killed predecessor of this process, so that this process may resume it.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        predecessor_run_id: the run that the predecessor led.
        host: this host; None means the real one.

    Raises:
        Concluded: the run ended in order, for instance because somebody stopped it; or another process leads the
            workflow now.
    """
    host = host or ThisHost()
    active = active_runs(requester, workflow_id)
    if active.runs:
        newest = active.runs[-1]
        if newest.workflow_run_id != predecessor_run_id and not host.is_gone(newest):
            raise Concluded(WorkflowRunStatus.TERMINATED)
        return
    name = api_calls.workflow_summary(requester, workflow_id, counts=False).status_name
    if outcomes.is_between_runs(name):
        return
    is_reset = name == WorkflowStatus.REGISTERING.name
    raise Concluded(WorkflowRunStatus.TERMINATED if is_reset else outcomes.run_status_of(name))


def adapted(requester: Requester, workflow_id: int, options: RunOptions) -> RunOptions:
    """Return the options of a run in a restarted script: those given, or for a run that was cut off, a hot resume.

    Raises:
        Concluded: the script led a run of this workflow before it was killed, and that run has ended.
    """
    run_id = watched.run_before(workflow_id)
    if run_id is None:
        return options
    require_unfinished(requester, workflow_id, run_id)
    return dataclasses.replace(options, resume=True, reset_running_jobs=False, is_succession=True)
