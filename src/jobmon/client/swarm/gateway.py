"""ServerGateway: sends all requests of the swarm to the server.

Each request is an `_Exchange` (route, message, how to parse the response), defined once and sent by an async or a sync
method. The requester decides how often a request is retried; the orchestrator uses one that retries without limit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from jobmon.client.defaults import checked_chunk_size
from jobmon.client.swarm.state import StateUpdate
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire import expanding, swarm
from jobmon.core.wire.binding import IdsResponse, ResourcesRequest, ResourcesSpec
from jobmon.core.wire.run import (
    ConcurrencyResponse,
    HeartbeatRequest,
    RunStatusRequest,
    RunStatusResponse,
    TerminateResponse,
    TriageResponse,
)
from jobmon.core.wire.server import ServerTime

if TYPE_CHECKING:
    from types import TracebackType

    from jobmon.client.task_resources import TaskResources
    from jobmon.core.constants import EndReason
    from jobmon.core.requester import AnySession, Requester

logger = logging.getLogger(__name__)

#: Extra time that a long poll may take beyond its wait.
LONG_POLL_GRACE_SECONDS: Final = 20.0

_Reply = TypeVar("_Reply")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class HeartbeatResponse:
    """Response from heartbeat logging: the current status of the run."""

    status: str


@dataclass(frozen=True, slots=True)
class StatusUpdateResponse:
    """Response from workflow run status update: the current status, which may differ from the requested one."""

    status: str


@dataclass(frozen=True, slots=True)
class QueueResponse:
    """Response from task queueing operations: all tasks by their current status; which are armed, and which held."""

    tasks_by_status: dict[str, list[int]]
    armed: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TaskStatusUpdatesResponse:
    """Response from task status synchronization. Pass `time` as `since` of the next request."""

    time: datetime
    tasks_by_status: dict[str, list[int]]
    workflow_run_status: str | None = None
    max_concurrently_running: int | None = None
    array_limits: dict[int, int] = field(default_factory=dict)
    resource_errors: dict[int, swarm.ResourceError] = field(default_factory=dict)
    launch_problems: dict[str, str] = field(default_factory=dict)
    notices: dict[str, str] = field(default_factory=dict)
    held: list[int] | None = None
    priorities: dict[int, int] | None = None
    array_priorities: dict[int, int] | None = None
    edited: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkflowMetadata:
    """Workflow metadata from the server."""

    workflow_id: int
    dag_id: int
    max_concurrently_running: int


@dataclass(frozen=True, slots=True)
class DownstreamTasksResponse:
    """Response from downstream tasks query: task -> (its node, its downstream tasks). Equal lists share one object."""

    downstream_tasks: dict[int, tuple[int, list[int]]]


@dataclass(frozen=True, slots=True)
class TaskMetadata:
    """What the server has recorded about a task to be run. Equal requests of a page share one object."""

    array_id: int
    node_id: int
    name: str
    status: str
    max_attempts: int
    num_attempts: int
    resources: swarm.ResourcesInfo | None
    resource_scales: dict[str, Any]
    fallback_queues: list[str]
    is_expansion: bool = False
    origin_id: int = 0


@dataclass(frozen=True, slots=True)
class RecordedExpansion:
    """A recorded expansion: its command names the function; `added` counts the tasks that it has added."""

    task_id: int
    name: str
    command: str
    status: str
    added: int


@dataclass(frozen=True, slots=True)
class _Exchange(Generic[_Reply, _Result]):
    """One request and how to parse its response."""

    route: str
    message: object
    reply: type[_Reply]
    read: Callable[[_Reply], _Result]
    method: str = "post"
    request_timeout: float | None = None


class ServerGateway:
    """Centralized HTTP communication with the Jobmon server.

    Args:
        requester: sends the requests.
        workflow_id: ID of the workflow.
        workflow_run_id: ID of the run.

    Use it as an async context manager, or pass in a session (`set_session`), which the gateway does not close. It opens
    its own session on first use, so that session belongs to the loop of that request.
    """

    def __init__(self, requester: Requester, workflow_id: int, workflow_run_id: int) -> None:
        self.requester = requester
        self.workflow_id = workflow_id
        self.workflow_run_id = workflow_run_id
        self._session: AnySession | None = None
        self._owns_session = False

    # -- the session -----------------------------------------------------------------------------------------------

    def set_session(self, session: AnySession) -> None:
        """Use an external session; the gateway does not close it."""
        self._session = session
        self._owns_session = False

    async def close(self) -> None:
        """Close the session if the gateway opened it."""
        session, self._session = (self._session, None) if self._owns_session else (None, self._session)
        self._owns_session = False
        if session is not None:
            await session.close()

    async def __aenter__(self) -> ServerGateway:
        """Return itself; the session is opened by the first request."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session if the gateway opened it."""
        await self.close()

    def _open(self) -> AnySession:
        if self._session is None:
            self._session = self.requester.open_session()
            self._owns_session = True
        return self._session

    async def _send(self, exchange: _Exchange[_Reply, _Result]) -> _Result:
        reply = await self.requester.call_async(
            self._open(),
            exchange.route,
            exchange.message,
            exchange.reply,
            exchange.method,
            request_timeout=exchange.request_timeout,
        )
        return exchange.read(reply)

    def _send_sync(self, exchange: _Exchange[_Reply, _Result]) -> _Result:
        reply = self.requester.call(
            exchange.route,
            exchange.message,
            exchange.reply,
            exchange.method,
            request_timeout=exchange.request_timeout,
        )
        return exchange.read(reply)

    # -- the run ---------------------------------------------------------------------------------------------------

    async def log_heartbeat(self, status: str, next_report_increment: float) -> HeartbeatResponse:
        """Send a heartbeat; the next one is due in `next_report_increment` seconds."""
        return await self._send(self._heartbeat(status, next_report_increment))

    def log_heartbeat_sync(self, status: str, next_report_increment: float) -> HeartbeatResponse:
        """Send a heartbeat, without a loop; see `log_heartbeat`."""
        return self._send_sync(self._heartbeat(status, next_report_increment))

    def _heartbeat(self, status: str, increment: float) -> _Exchange[RunStatusResponse, HeartbeatResponse]:
        message = HeartbeatRequest(status=str(status), next_report_increment=increment)
        return _Exchange(self._run("heartbeat"), message, RunStatusResponse, lambda r: HeartbeatResponse(r.status))

    async def update_status(self, status: str, reason: EndReason | None = None) -> StatusUpdateResponse:
        """Request a new status of the run; `reason` says why it ends if the status does not."""
        return await self._send(self._status(status, reason))

    def update_status_sync(self, status: str) -> StatusUpdateResponse:
        """Request a new status of the run, without a loop; see `update_status`."""
        return self._send_sync(self._status(status))

    def _status(
        self, status: str, reason: EndReason | None = None
    ) -> _Exchange[RunStatusResponse, StatusUpdateResponse]:
        message = RunStatusRequest(status=str(status), reason=None if reason is None else reason.value)
        return _Exchange(self._run("status"), message, RunStatusResponse, lambda r: StatusUpdateResponse(r.status))

    async def terminate_task_instances(self) -> None:
        """Terminate all attempts of this run: queued ones at once, the others through their agent or distributor."""
        await self._send(_Exchange(self._run("terminate_task_instances"), {}, TerminateResponse, _nothing))

    async def request_triage(self) -> None:
        """Ask the server to look for attempts whose heartbeat is overdue."""
        await self._send(_Exchange(self._run("triage"), {}, TriageResponse, _nothing))

    # -- tasks and limits ------------------------------------------------------------------------------------------

    async def get_task_status_updates(
        self, since: datetime | None = None, wait_seconds: float | None = None
    ) -> TaskStatusUpdatesResponse:
        """Return what changed.

        Args:
            since: the `time` of an earlier response; None returns the status of every task.
            wait_seconds: how long the server may hold the request until something changes; None: it responds at once.
        """
        query = {
            "since": None if since is None else since.isoformat(),
            "wait_seconds": wait_seconds,
            "workflow_run_id": self.workflow_run_id,
        }
        timeout = None if wait_seconds is None else wait_seconds + LONG_POLL_GRACE_SECONDS
        return await self._send(
            _Exchange(self._workflow("changes"), query, swarm.ChangesResponse, _updates, "get", timeout)
        )

    async def get_workflow_concurrency(self) -> int:
        """Return the concurrency limit of the workflow."""
        return await self._send(
            _Exchange(self._workflow("concurrency"), None, ConcurrencyResponse, _concurrency, "get")
        )

    async def get_array_concurrency(self, array_id: int) -> int:
        """Return the concurrency limit of an array."""
        return await self._send(
            _Exchange(f"/arrays/{array_id}/concurrency", None, ConcurrencyResponse, _concurrency, "get")
        )

    async def bind_task_resources(self, task_resources: Sequence[TaskResources]) -> list[int]:
        """Record resource requests; set their IDs and return the IDs in order."""
        specs = [
            ResourcesSpec(
                cluster_name=resources.cluster_name,
                queue_name=resources.queue_name,
                requested=dict(resources.requested_resources),
                kind=resources.kind.value,
                original=None if resources.original is None else dict(resources.original),
            )
            for resources in task_resources
        ]
        message = ResourcesRequest(resources=specs)
        ids = await self._send(_Exchange("/task_resources", message, IdsResponse, lambda r: r.ids))
        for resources, resources_id in zip(task_resources, ids, strict=True):
            resources.id = resources_id
        return ids

    async def queue_task_batch(
        self, array_id: int, task_ids: list[int], task_resources_id: int, cluster_id: int
    ) -> QueueResponse:
        """Queue tasks of one array with one request."""
        batch = swarm.QueueBatch(
            array_id=array_id, task_ids=task_ids, task_resources_id=task_resources_id, cluster_id=cluster_id
        )
        return await self.queue_task_batches([batch])

    async def queue_task_batches(
        self,
        batches: Sequence[swarm.QueueBatch],
        seen: datetime | None = None,
        armed: Sequence[swarm.TaskToArm] = (),
        disarm: Sequence[int] = (),
        fail_fast: bool = False,
        may_overtake: bool = False,
    ) -> QueueResponse:
        """Queue several batches in one transaction; in total at most `QUEUE_BATCH_MAX` tasks.

        Args:
            batches: the batches to queue.
            seen: the `time` up to which changes are known; tasks that changed later are not touched.
            armed: tasks that the server is to queue when their upstream tasks are done; requires `seen`.
            disarm: tasks that the server must no longer queue by itself.
            fail_fast: the server queues none of them after a permanent failure.
            may_overtake: some of them may be more urgent than tasks that were queued before.

        Raises:
            StaleRun: a newer run exists, or this run is final or was told to make room.
        """
        message = swarm.QueueRequest(
            batches=list(batches),
            seen=seen,
            armed=list(armed),
            disarm=list(disarm),
            fail_fast=fail_fast,
            may_overtake=may_overtake,
        )
        return await self._send(
            _Exchange(
                self._run("queue"),
                message,
                swarm.QueueResponse,
                lambda r: QueueResponse(r.tasks_by_status, r.armed, r.held),
            )
        )

    async def call_expansion(self, task_id: int, seen: datetime | None) -> expanding.CallResponse:
        """Announce a call of the function of an expansion; call it only if the response says RUNNING.

        Raises:
            StaleRun: a newer run exists, or this run is final or was told to make room.
        """
        message = expanding.CallRequest(seen=seen)
        route = self._run(f"expansions/{task_id}/call")
        return await self._send(_Exchange(route, message, expanding.CallResponse, lambda response: response))

    async def fail_expansion(self, task_id: int, error: str, *, is_final: bool) -> expanding.CallResponse:
        """Record that the function of an expansion failed; `is_final`: it is not called again in this run."""
        message = expanding.CallFailedRequest(error=error, is_final=is_final)
        route = self._run(f"expansions/{task_id}/failed")
        return await self._send(_Exchange(route, message, expanding.CallResponse, lambda response: response))

    # -- rebuilding a run ------------------------------------------------------------------------------------------

    async def get_workflow_metadata(self) -> WorkflowMetadata:
        """Return the IDs and the limit of the workflow.

        Raises:
            ValueError: the workflow does not exist.
        """
        try:
            return await self._send(self._metadata())
        except InvalidRequest as error:
            raise self._no_workflow(error) from error

    def get_workflow_metadata_sync(self) -> WorkflowMetadata:
        """Return the IDs and the limit of the workflow, without a loop; see `get_workflow_metadata`."""
        try:
            return self._send_sync(self._metadata())
        except InvalidRequest as error:
            raise self._no_workflow(error) from error

    def _no_workflow(self, error: InvalidRequest) -> ValueError:
        return ValueError(f"There is no workflow with ID {self.workflow_id}: {error}")

    def _metadata(self) -> _Exchange[swarm.WorkflowMetadata, WorkflowMetadata]:
        return _Exchange(self._workflow("metadata"), None, swarm.WorkflowMetadata, _metadata, "get")

    async def get_tasks(self, max_task_id: int = 0, chunk_size: int = 500) -> dict[int, Any]:
        """Return the next tasks to be run, by ID, as `TaskMetadata`; empty when there are no more.

        Args:
            max_task_id: the largest ID of the previous chunk.
            chunk_size: hint for the number of tasks.
        """
        return await self._send(self._tasks(max_task_id, chunk_size))

    def get_tasks_sync(self, max_task_id: int = 0, chunk_size: int = 500) -> dict[int, Any]:
        """Return the next tasks to be run, without a loop; see `get_tasks`."""
        return self._send_sync(self._tasks(max_task_id, chunk_size))

    def _tasks(self, max_task_id: int, chunk_size: int) -> _Exchange[swarm.TasksPage, dict[int, Any]]:
        query = {"max_task_id": max_task_id, "chunk_size": checked_chunk_size(chunk_size)}
        return _Exchange(self._workflow("tasks"), query, swarm.TasksPage, _tasks, "get")

    async def get_downstream_tasks(self, task_ids: list[int], dag_id: int) -> DownstreamTasksResponse:
        """Return the nodes and the downstream tasks of these tasks."""
        return await self._send(self._downstream(task_ids, dag_id))

    def get_downstream_tasks_sync(self, task_ids: list[int], dag_id: int) -> DownstreamTasksResponse:
        """Return nodes and downstream tasks, without a loop; see `get_downstream_tasks`."""
        return self._send_sync(self._downstream(task_ids, dag_id))

    def _downstream(
        self, task_ids: list[int], dag_id: int
    ) -> _Exchange[swarm.DownstreamResponse, DownstreamTasksResponse]:
        message = swarm.DownstreamRequest(task_ids=task_ids, dag_id=dag_id)
        return _Exchange(
            self._workflow("downstream"),
            message,
            swarm.DownstreamResponse,
            lambda reply: _downstream(task_ids, reply),
        )

    def get_task_status_updates_sync(self) -> TaskStatusUpdatesResponse:
        """Return the status of every task, without a loop."""
        query = {"workflow_run_id": self.workflow_run_id}
        return self._send_sync(_Exchange(self._workflow("changes"), query, swarm.ChangesResponse, _updates, "get"))

    def get_cursor_sync(self) -> TaskStatusUpdatesResponse:
        """Return what users changed besides statuses; its `time` is `since` of the first request for changes."""
        query = {"since": _END_OF_TIME.isoformat(), "steering": True}
        return self._send_sync(_Exchange(self._workflow("changes"), query, swarm.ChangesResponse, _updates, "get"))

    def get_arrays_sync(self) -> list[swarm.ArrayInfo]:
        """Return the arrays of the workflow."""
        return self._send_sync(
            _Exchange(self._workflow("arrays"), None, swarm.ArraysResponse, lambda r: r.arrays, "get")
        )

    def get_expansions_sync(self) -> Iterator[RecordedExpansion]:
        """Yield the recorded expansions by ID."""
        after = 0
        while True:
            query = {"after": after}
            route = self._workflow("expansions")
            page = self._send_sync(_Exchange(route, query, expanding.ExpansionsPage, lambda response: response, "get"))
            if not page.task_ids:
                return
            after = page.task_ids[-1]
            columns = zip(page.task_ids, page.names, page.commands, page.statuses, page.added, strict=True)
            yield from (RecordedExpansion(*row) for row in columns)

    async def get_server_time(self) -> datetime:
        """Return the server's current time. It is not a cursor of the change feed; `get_cursor_sync` returns one."""
        return await self._send(_SERVER_TIME)

    def get_server_time_sync(self) -> datetime:
        """Return the server's current time, without a loop; see `get_server_time`."""
        return self._send_sync(_SERVER_TIME)

    def _run(self, what: str) -> str:
        return f"/workflow_runs/{self.workflow_run_id}/{what}"

    def _workflow(self, what: str) -> str:
        return f"/workflows/{self.workflow_id}/{what}"


#: Nothing changes after this time.
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)
_SERVER_TIME: Final[_Exchange[ServerTime, datetime]] = _Exchange(
    "/time", None, ServerTime, lambda reply: datetime.fromisoformat(reply.time), "get"
)


def _nothing(_: object) -> None:
    return None


def _concurrency(reply: ConcurrencyResponse) -> int:
    return reply.max_concurrently_running


def _updates(reply: swarm.ChangesResponse) -> TaskStatusUpdatesResponse:
    return TaskStatusUpdatesResponse(
        time=reply.time,
        tasks_by_status=reply.tasks_by_status,
        workflow_run_status=reply.workflow_run_status,
        max_concurrently_running=reply.max_concurrently_running,
        array_limits=reply.array_limits,
        resource_errors=reply.resource_errors,
        launch_problems=reply.launch_problems,
        notices=reply.notices,
        held=reply.held,
        priorities=reply.priorities,
        array_priorities=reply.array_priorities,
        edited=reply.edited,
    )


def steering_of(answer: TaskStatusUpdatesResponse) -> StateUpdate:
    """Return what users changed besides statuses."""
    return StateUpdate(
        held=None if answer.held is None else frozenset(answer.held),
        priorities=answer.priorities,
        array_priorities=answer.array_priorities,
        edited=answer.edited,
    )


def _metadata(reply: swarm.WorkflowMetadata) -> WorkflowMetadata:
    return WorkflowMetadata(reply.workflow_id, reply.dag_id, reply.max_concurrently_running)


def _tasks(page: swarm.TasksPage) -> dict[int, Any]:
    resources: Mapping[int | None, swarm.ResourcesInfo] = {info.task_resources_id: info for info in page.resources}
    columns = zip(
        page.task_ids,
        page.array_ids,
        page.node_ids,
        page.names,
        page.statuses,
        page.max_attempts,
        page.num_attempts,
        (resources.get(resources_id) for resources_id in page.task_resources_ids),
        page.scales,
        page.fallback_queues,
        strict=True,
    )
    expansions = set(page.expansions)
    found: dict[int, Any] = {}
    for at, (task_id, *row) in enumerate(columns):
        values = (*row, at in expansions, page.origins.get(at, 0))
        found[task_id] = TaskMetadata(*values)
    return found


def _downstream(task_ids: list[int], reply: swarm.DownstreamResponse) -> DownstreamTasksResponse:
    rows = zip(task_ids, reply.node_ids, reply.set_index, strict=True)
    return DownstreamTasksResponse({task_id: (node_id, reply.sets[number]) for task_id, node_id, number in rows})
