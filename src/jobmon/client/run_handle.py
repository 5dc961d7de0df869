"""What `Workflow.start` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from jobmon.core.requester import Requester


class RunHandle:
    """A run that `Workflow.start` started. The handle is not needed: the run continues without it.

    Args:
        requester: sends requests to the server.
        workflow_id: ID of the workflow.
        workflow_run_id: ID of the run. If its leader is killed, another run takes over.
        log_path: the file that contains what the leader writes.
    """

    def __init__(self, requester: Requester, workflow_id: int, workflow_run_id: int, log_path: Path) -> None:
        self._requester = requester
        self.workflow_id = workflow_id
        self.workflow_run_id = workflow_run_id
        self.log_path = log_path

    def __repr__(self) -> str:
        """Name the run and its workflow."""
        return f"<RunHandle: run {self.workflow_run_id} of workflow {self.workflow_id}>"

    def status(self) -> str:
        """Return the status of the newest run of the workflow, a `WorkflowRunStatus`."""
        from jobmon.client.waiting import newest_status

        return newest_status(self._requester, self.workflow_id)

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the workflow has no active run any more; see `Workflow.wait`.

        Args:
            timeout: maximum time, in seconds; None means no limit.

        Returns:
            The status of the newest run, a `WorkflowRunStatus`.

        Raises:
            TimeoutError: the timeout expired; the run continues.
            RuntimeError: the run timed out.
        """
        from jobmon.client.waiting import wait

        return wait(self._requester, self.workflow_id, timeout)

    def stop(self, kill: bool = True) -> None:
        """Stop the run: no more tasks are launched. `Workflow.run(resume=True)` resumes the workflow.

        Args:
            kill: terminate running tasks and wait until they have ended; False lets them finish.

        Raises:
            WorkflowNotResumable: running tasks have not ended within 60 s.
        """
        from jobmon.client.stopping import stop_workflow

        stop_workflow(self._requester, self.workflow_id, kill=kill)
