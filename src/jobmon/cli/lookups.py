"""Look-ups on the server that several commands need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core.exceptions import InvalidRequest

if TYPE_CHECKING:
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskDetail
    from jobmon.core.wire.server import Health, Metrics

#: How long commands that describe a shared server wait for it, seconds.
ANSWER_SECONDS_MAX: Final = 10.0


def shared_server() -> Requester | None:
    """Return a requester for the server of `http.service_url`; None if your local server is used."""
    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.requester import Requester

    config = JobmonConfig()
    return Requester.from_defaults(config).within(ANSWER_SECONDS_MAX) if config.get("http", "service_url") else None


def about(server: Requester) -> tuple[Health, Metrics]:
    """Return the health and activity of a server.

    Raises:
        ServerUnavailable: it does not respond.
    """
    from jobmon.core.wire.server import Health, Metrics

    health = server.call("/health", None, Health, "get", tenacious=False)
    return health, server.call("/metrics", None, Metrics, "get", tenacious=False)


def newest_workflow(requester: Requester) -> int:
    """Return the ID of the user's newest workflow.

    Raises:
        InvalidRequest: the user has no workflow.
    """
    from jobmon.core.paths import user_name
    from jobmon.core.wire.monitoring import WorkflowsResponse

    query = {"user": [user_name()], "limit": 1, "counts": "false"}
    found = requester.call("/workflows", query, WorkflowsResponse, "get").workflows
    if not found:
        raise InvalidRequest(f"There is no workflow of {user_name()}; specify one with -w.")
    return found[0].workflow_id


def task_detail(requester: Requester, task_id: int) -> TaskDetail:
    """Return a task with its attempts."""
    from jobmon.core.wire.monitoring import TaskDetail

    return requester.call(f"/tasks/{task_id}", {}, TaskDetail, "get")
