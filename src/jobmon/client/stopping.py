"""Stop a workflow, whichever process leads it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from jobmon.client.workflow_run import WorkflowRunFactory
from jobmon.core.exceptions import WorkflowAlreadyComplete
from jobmon.core.paths import user_name
from jobmon.core.wire.run import StopRequest, StopResponse

if TYPE_CHECKING:
    from jobmon.core.requester import Requester

STOP_SECONDS: Final = 60


def stop_workflow(
    requester: Requester,
    workflow_id: int,
    *,
    kill: bool = True,
    timeout_seconds: int = STOP_SECONDS,
    any_owner: bool = False,
) -> StopResponse:
    """Stop a workflow; with `kill`, wait until all its commands have stopped.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        kill: terminate running tasks; False lets them finish.
        timeout_seconds: maximum time to wait until running tasks have ended.
        any_owner: also stop a workflow of another user.

    Returns:
        What was stopped.

    Raises:
        InvalidRequest: the workflow does not exist, or it belongs to another user.
        WorkflowNotResumable: the timeout expired.
    """
    request = StopRequest(user=user_name(), kill=kill, any_owner=any_owner)
    response = requester.call(f"/workflows/{workflow_id}/stop", request, StopResponse)
    if kill:
        with suppress(WorkflowAlreadyComplete):  # the tasks finished before they could be stopped
            WorkflowRunFactory(workflow_id, requester).wait_for_workflow_resume(timeout_seconds)
    return response
