"""A server in this process on a real database, and helpers that send it messages."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from tests import databases

from jobmon.core import wire
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING, TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.wire import replace
from jobmon.core.wire.binding import (
    ArraySpec,
    ArraysRequest,
    EdgesRequest,
    IdsResponse,
    ResourcesRequest,
    ResourcesSpec,
    TasksRequest,
    TasksResponse,
    WorkflowRequest,
    WorkflowResponse,
)
from jobmon.core.wire.definition import (
    Cluster,
    ClusterRequest,
    QueueSpec,
    TemplateSpec,
    TemplatesRequest,
    TemplatesResponse,
    ToolRequest,
    ToolResponse,
)
from jobmon.core.wire.launching import (
    DistributorRequest,
    DistributorResponse,
    LaunchBatch,
    Report,
    SyncRequest,
    SyncResponse,
)
from jobmon.core.wire.monitoring import WorkflowsResponse
from jobmon.core.wire.run import RunRequest, RunResponse, RunStatusRequest, RunStatusResponse
from jobmon.core.wire.server import Problem
from jobmon.core.wire.swarm import ChangesResponse, QueueBatch, QueueRequest, QueueResponse
from jobmon.server.app import create_app
from jobmon.server.settings import Settings

#: Counts of the read model that differ from a recount of the tasks.
MISCOUNTED = """
SELECT array_id, status, SUM(kept), SUM(number) FROM (
    SELECT array_id, status, number AS kept, 0 AS number FROM status_count
    UNION ALL SELECT array_id, status, 0, COUNT(*) FROM task GROUP BY array_id, status) AS both_counts
GROUP BY array_id, status HAVING SUM(kept) <> SUM(number)
"""
RUN = WorkflowRunStatus
TI = TaskInstanceStatus
CLUSTER = "here"
UNDER_WAY = (RUN.LINKING, RUN.BOUND, RUN.INSTANTIATED, RUN.LAUNCHED, RUN.RUNNING)


class ManualClock:
    """A clock that advances only on request."""

    def __init__(self):
        self.seconds = 0.0

    def now(self):
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self):
        return self.seconds


class Refused(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, problem: Problem):
        super().__init__(status, problem.kind, problem.message)
        self.status, self.kind, self.message = status, problem.kind, problem.message
        self.server_identity = problem.server_identity


@dataclass
class World:
    """One server with one tool, one template and one cluster; `bound` makes a workflow."""

    http: httpx.AsyncClient
    app: Any
    clock: Any
    counter: Any = field(default_factory=itertools.count)

    async def call(self, method: str, route: str, reply: type | None = None, message: object = None, **query: Any):
        content = wire.encode(message if message is not None else {}) if method != "GET" else None
        answer = await self.http.request(method, wire.API_ROOT + route, content=content, params=query)
        if answer.status_code >= 300:
            raise Refused(answer.status_code, wire.decode(Problem, answer.content))
        return None if reply is None else wire.decode(reply, answer.content)

    async def post(self, route: str, reply: type | None = None, message: object = None):
        return await self.call("POST", route, reply, message)

    async def get(self, route: str, reply: type, **query: Any):
        return await self.call("GET", route, reply, **query)

    @property
    def database_uri(self) -> str:
        return self.app.state.services.settings.database_uri

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Read the database beside the server."""
        return databases.rows(self.database_uri, sql, **values)

    async def define(self):
        tool = await self.post("/tools", ToolResponse, ToolRequest(name="tool"))
        spec = TemplateSpec(name="t", command_template="echo {x} {y}", node_args=["x"], task_args=["y"], op_args=[])
        found = await self.post(
            f"/tool_versions/{tool.tool_version_ids[-1]}/task_templates",
            TemplatesResponse,
            TemplatesRequest(templates=[spec]),
        )
        cluster = await self.post(
            "/clusters", Cluster, ClusterRequest(name=CLUSTER, plugin="dummy", queues=[QueueSpec(queue_name="q")])
        )
        resources = await self.post(
            "/task_resources",
            IdsResponse,
            ResourcesRequest(
                resources=[ResourcesSpec(cluster_name=CLUSTER, queue_name="q", requested={"cores": 1}, kind="original")]
            ),
        )
        return tool.tool_version_ids[-1], found.task_template_version_ids[0], cluster.cluster_id, resources.ids[0]

    async def bound(
        self,
        count: int = 3,
        *,
        max_attempts: int = 3,
        edges: dict[int, list[int]] | None = None,
        commands: list[str] | None = None,
    ):
        """Record a workflow of so many tasks; `edges`: index -> indices of its upstreams."""
        version, template, cluster, resources = await self.define()
        name = f"w{next(self.counter)}"
        request = workflow_request(version, name, count, edge_set_count=len(edges or {}))
        found = await self.post("/workflows", WorkflowResponse, request)
        arrays = ArraysRequest(
            arrays=[
                ArraySpec(
                    task_template_version_id=template, name="t", max_concurrently_running=MAX_CONCURRENTLY_RUNNING
                )
            ]
        )
        array = (await self.post(f"/workflows/{found.workflow_id}/arrays", IdsResponse, arrays)).ids[0]
        tasks = tasks_request(array, template, name, count, resources, max_attempts)
        if commands is not None:
            tasks = replace(tasks, commands=commands)
        answer = await self.post(f"/workflows/{found.workflow_id}/tasks", TasksResponse, tasks)
        if edges:
            await self.post(f"/dags/{found.dag_id}/edges", None, edges_request(answer.node_ids, edges))
        await self.post(f"/workflows/{found.workflow_id}/bound")
        return Bound(self, found.workflow_id, found.dag_id, array, cluster, resources, answer.task_ids, request, tasks)


def workflow_request(version, name, count, **changes):
    values = {
        "tool_version_id": version,
        "workflow_args": name,
        "workflow_args_hash": name.ljust(64, "0"),
        "dag_hash": f"dag{name}".ljust(64, "0"),
        "task_hash": f"tasks{name}".ljust(64, "0"),
        "task_count": count,
        "edge_set_count": 0,
        "name": name,
        "description": "",
        "max_concurrently_running": 1000,
        "task_counts": {"t": count},
        "user": "me",
        "working_directory": "/tmp",
        "umask": 0o22,
        "workflow_attributes": {"colour": "green"},
    }
    return WorkflowRequest(**(values | changes))


def tasks_request(array, template, name, count, resources, max_attempts=3):
    return TasksRequest(
        array_id=array,
        task_template_version_id=template,
        names=[f"t_{i}" for i in range(count)],
        commands=[f"echo {i}" for i in range(count)],
        node_hashes=[f"node{i}{name}".ljust(64, "0") for i in range(count)],
        task_hashes=[f"task{i}{name}".ljust(64, "0") for i in range(count)],
        node_args={"x": [str(i) for i in range(count)]},
        task_args={"y": ["same"] * count},
        max_attempts=[max_attempts] * count,
        task_resources_ids=[resources] * count,
        scales=[{}, {"memory": 0.5}],
        scales_index=[i % 2 for i in range(count)],
        fallback_queues=[[]],
        fallback_index=[0] * count,
        attributes={0: {"kind": "first"}} if count else {},
    )


def edges_request(node_ids, edges, *, key="", last=True):
    return EdgesRequest(
        set_numbers=list(range(len(edges))),
        upstream_nodes=[[node_ids[up] for up in ups] for ups in edges.values()],
        node_ids=[node_ids[index] for index in edges],
        node_sets=list(range(len(edges))),
        last=last,
        key=key,
    )


@dataclass
class Bound:
    """A recorded workflow."""

    world: World
    workflow_id: int
    dag_id: int
    array_id: int
    cluster_id: int
    resources_id: int
    task_ids: list[int]
    request: WorkflowRequest
    tasks: TasksRequest

    async def start(
        self, *, pid: int = 1, until: str = RUN.RUNNING, key: str | None = None, host: str = "host", **message: Any
    ):
        """Create a run and take it as far as `until`."""
        run = await self.world.post(
            f"/workflows/{self.workflow_id}/runs",
            RunResponse,
            RunRequest(
                user=message.pop("user", "me"),
                host=host,
                pid=pid,
                pid_start_time=1.0,
                version="1",
                next_report_increment=93.0,
                key=key or f"run{next(self.world.counter)}",
                **message,
            ),
        )
        started = Run(self, run.workflow_run_id, host=host)
        for status in UNDER_WAY[: UNDER_WAY.index(until) + 1] if until != RUN.REGISTERED else ():
            await started.move(status)
        return started

    async def changes(self, **query: Any) -> ChangesResponse:
        return await self.world.get(f"/workflows/{self.workflow_id}/changes", ChangesResponse, **query)

    async def statuses(self) -> dict[int, str]:
        found = (await self.changes()).tasks_by_status
        return {task_id: status for status, ids in found.items() for task_id in ids}

    async def workflow_status(self) -> str:
        shown = await self.world.get("/workflows", WorkflowsResponse, workflow_id=self.workflow_id)
        return shown.workflows[0].status


@dataclass
class Run:
    """A run with its distributor's epoch."""

    bound: Bound
    id: int
    epoch: int = 0
    host: str = "host"

    async def move(self, status: str) -> str:
        message = RunStatusRequest(status=status)
        return (await self.bound.world.post(f"/workflow_runs/{self.id}/status", RunStatusResponse, message)).status

    async def register(self, key: str = "", *, epoch: int = 0) -> DistributorResponse:
        key = key or f"d{next(self.bound.world.counter)}"
        message = DistributorRequest(host=self.host, pid=2, pid_start_time=2.0, key=key, epoch=epoch)
        answer = await self.bound.world.post(f"/workflow_runs/{self.id}/distributors", DistributorResponse, message)
        self.epoch = answer.epoch
        return answer

    async def queue(
        self, task_ids: list[int] | None = None, seen: datetime | None = None, **message: Any
    ) -> dict[str, list[int]]:
        batch = QueueBatch(
            array_id=self.bound.array_id,
            task_ids=self.bound.task_ids if task_ids is None else task_ids,
            task_resources_id=self.bound.resources_id,
            cluster_id=self.bound.cluster_id,
        )
        route = f"/workflow_runs/{self.id}/queue"
        request = QueueRequest(batches=[batch], seen=seen, **message)
        return (await self.bound.world.post(route, QueueResponse, request)).tasks_by_status

    async def sync(self, *reports: Report, **message: Any) -> SyncResponse:
        request = SyncRequest(epoch=message.pop("epoch", self.epoch), reports=list(reports), **message)
        return await self.bound.world.post(f"/workflow_runs/{self.id}/sync", SyncResponse, request)

    async def launched(self, capacity: int = 1000) -> LaunchBatch:
        """Take what is queued, which must be one batch."""
        (batch,) = (await self.sync(capacity={CLUSTER: capacity})).launches
        return batch


def report(attempt_id: int, status: str, **values: Any) -> Report:
    return Report(task_instance_id=attempt_id, status=status, **values)


@contextlib.asynccontextmanager
async def open_world(folder, *, clock=None, executor=None, token=None, **settings):
    clock = clock or ManualClock()
    settings = Settings(database_uri=databases.current().uri(folder), **settings)
    app = create_app(settings, clock=clock, executor=executor, token=token)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server", timeout=None) as http,
    ):
        yield World(http, app, clock)
        assert databases.rows(settings.database_uri, MISCOUNTED) == []
