"""A real HTTP server for the swarm's messages on top of `FakeSwarmGateway`, in its own thread.

It replaces the real server in tests that control how attempts end and when the run's status changes.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from jobmon.core import wire
from jobmon.core.constants import DEFAULT_CLUSTER_NAME, TaskStatus
from jobmon.core.exceptions import JobmonError
from jobmon.core.requester import Requester
from jobmon.core.wire import binding, definition, run, server, swarm
from jobmon.testing.swarm_gateway import FakeSwarmGateway

sys.path.insert(0, str(Path(__file__).parent))  # makes `swarm_world` importable

PLUGIN = "dummy"
DAG_ID = 5
QUEUES = [
    definition.Queue(queue_id=1, queue_name="small", parameters={"max_memory": 2}),
    definition.Queue(queue_id=2, queue_name="large", parameters={"max_memory": 8}),
]


class HttpServer:
    """The server: `fake` decides, and this class translates."""

    def __init__(self, tasks, **kwargs):
        self.fake = FakeSwarmGateway(tasks, **kwargs)
        self.scales = {}
        self.fallback_queues = {}
        self.unbound = set()
        self.calls = []
        self.resources = {}
        self.is_failing = False
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self):
        self._thread.start()
        assert self._ready.wait(10)
        return Requester(self.url, retries_attempts=2, request_timeout=5)

    def stop(self):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def do(self, action, *args):
        """Run an action in the server's loop."""
        self._loop.call_soon_threadsafe(action, *args)

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self):
        self._end = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/api/v1/{route:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _answer(self, request):
        what = request.match_info["route"].split("/")[-1]
        self.calls.append(what)
        if self.is_failing:
            self.is_failing = False
            return web.Response(status=503, body=b"busy")
        try:
            reply = await getattr(self, what)(request)
        except JobmonError as error:
            problem = server.Problem(kind=type(error).__name__, message=str(error))
            return web.Response(status=409, body=wire.encode(problem))
        if reply is None:
            problem = server.Problem(kind="NotFound", message="There is no such workflow.")
            return web.Response(status=404, body=wire.encode(problem))
        return web.Response(body=wire.encode(reply), content_type="application/json")

    # -- one method per route, named after its last part -----------------------------------------------------------

    async def time(self, request):
        return server.ServerTime(time=datetime.now(UTC).isoformat())

    async def heartbeat(self, request):
        message = wire.decode(run.HeartbeatRequest, await request.read())
        return await self.fake.log_heartbeat(message.status, message.next_report_increment)

    async def status(self, request):
        return await self.fake.update_status(wire.decode(run.RunStatusRequest, await request.read()).status)

    async def queue(self, request):
        message = wire.decode(swarm.QueueRequest, await request.read())
        return await self.fake.queue_task_batches(message.batches, message.seen, message.armed, message.disarm)

    async def terminate_task_instances(self, request):
        self.fake.end_all()
        return run.TerminateResponse(ended=0, to_kill=0)

    async def triage(self, request):
        await self.fake.request_triage()
        return run.TriageResponse(triaging=0, no_heartbeat=0)

    async def changes(self, request):
        since = request.query.get("since")
        wait = request.query.get("wait_seconds")
        return await self.fake.get_task_status_updates(
            datetime.fromisoformat(since) if since else None, float(wait) if wait else None
        )

    async def task_resources(self, request):
        specs = wire.decode(binding.ResourcesRequest, await request.read()).resources
        ids = [self.resources.setdefault(wire.encode(spec), len(self.resources) + 100) for spec in specs]
        return binding.IdsResponse(ids=ids)

    async def concurrency(self, request):
        parts = request.match_info["route"].split("/")
        limit = self.fake.limit if parts[0] == "workflows" else self.fake.array_limits[int(parts[1])]
        return run.ConcurrencyResponse(max_concurrently_running=limit)

    async def clusters(self, request):
        cluster = definition.Cluster(
            cluster_id=7, name=DEFAULT_CLUSTER_NAME, plugin=PLUGIN, connection={}, queues=QUEUES
        )
        return definition.ClustersResponse(clusters=[cluster])

    async def metadata(self, request):
        if "/404/" in request.path:
            return None
        return swarm.WorkflowMetadata(
            workflow_id=1,
            dag_id=DAG_ID,
            max_concurrently_running=self.fake.limit,
            name="",
            workflow_args="",
            status="Q",
            task_count=len(self.fake.tasks),
            tool_name="",
            tool_version_id=1,
        )

    async def arrays(self, request):
        limits = self.fake.array_limits.items()
        infos = [swarm.ArrayInfo(array_id=n, name=f"a{n}", max_concurrently_running=limit) for n, limit in limits]
        return swarm.ArraysResponse(arrays=infos)

    async def tasks(self, request):
        """Return two tasks per page, regardless of the requested size, which is only a hint."""
        after = int(request.query["max_task_id"])
        left = [task for n, task in sorted(self.fake.tasks.items()) if n > after and task.status != TaskStatus.DONE]
        page = left[:2]
        info = swarm.ResourcesInfo(
            task_resources_id=50,
            cluster_id=7,
            cluster_name=DEFAULT_CLUSTER_NAME,
            queue_id=1,
            queue_name="small",
            requested={"memory": 1.5, "cores": 1},
        )
        return swarm.TasksPage(
            task_ids=[task.task_id for task in page],
            array_ids=[task.array_id for task in page],
            node_ids=[task.task_id + 1_000 for task in page],
            names=[f"t{task.task_id}" for task in page],
            statuses=[task.status for task in page],
            max_attempts=[task.max_attempts for task in page],
            num_attempts=[0 for _ in page],
            task_resources_ids=[None if task.task_id in self.unbound else 50 for task in page],
            scales=[self.scales.get(task.task_id, {}) for task in page],
            fallback_queues=[self.fallback_queues.get(task.task_id, []) for task in page],
            resources=[info],
        )

    async def downstream(self, request):
        message = wire.decode(swarm.DownstreamRequest, await request.read())
        assert message.dag_id == DAG_ID
        sets, index = [], []
        for task_id in message.task_ids:
            waiting = [task.task_id for task in self.fake.tasks.values() if task_id in task.upstreams]
            if waiting not in sets:
                sets.append(waiting)
            index.append(sets.index(waiting))
        return swarm.DownstreamResponse(node_ids=[n + 1_000 for n in message.task_ids], set_index=index, sets=sets)


@pytest.fixture
def serve():
    """Return a function that starts a server for tasks; it returns the server and a requester."""
    started = []

    def start(tasks, **kwargs):
        http_server = HttpServer(tasks, **kwargs)
        requester = http_server.start()
        started.append((http_server, requester))
        return http_server, requester

    yield start
    for http_server, requester in started:
        requester.close()
        http_server.stop()
