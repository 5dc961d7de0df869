"""Look-ups on the server that several commands need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.exceptions import InvalidRequest

if TYPE_CHECKING:
    from jobmon.core.requester import Requester


def newest_workflow(requester: Requester) -> int:
    """Return the ID of the user's newest workflow.

    Raises:
        InvalidRequest: the user has no workflow.
    """
    from jobmon.core.places import user_name
    from jobmon.core.wire.monitoring import WorkflowsResponse

    query = {"user": [user_name()], "limit": 1, "counts": "false"}
    found = requester.call("/workflows", query, WorkflowsResponse, "get").workflows
    if not found:
        raise InvalidRequest(f"There is no workflow of {user_name()}; specify one with -w.")
    return found[0].workflow_id
