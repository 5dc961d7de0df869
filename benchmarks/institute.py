"""Many workflows of many users at once on one shared server. Prints figures as JSON.

One load generator speaks the wire protocol: for each workflow it is the client, the orchestrator, and an agent whose
commands take no time, so that the server is always busy: each agent reports as soon as it has received work, which is
more than commands on as many hosts could do. Three connections per workflow: requests, the orchestrator's long poll,
and the agent's.

Like a real one, an agent asks for more work by each report, and by a poll if it received none. Agents that wait for an
answer, of whichever kind, are a closed circle: the sum of both times is the number of agents divided by the rate at
which the server serves them, which no order of serving changes. So both are measured: the times of reports ("report")
and those of polls for work ("claim").
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
from tests.databases import DURABLE, Databases, PostgreSQL, PostgreSQLDatabases

from benchmarks.timed_server import MARK
from jobmon.core import loops, wire
from jobmon.core.constants import TaskInstanceStatus, TaskStatus, WorkflowRunStatus
from jobmon.core.http import HttpSession
from jobmon.core.wire.agents import AgentRequest, AgentResponse, AgentSyncRequest, AgentSyncResponse
from jobmon.core.wire.binding import (
    ArraySpec,
    ArraysRequest,
    IdsResponse,
    ResourcesRequest,
    ResourcesSpec,
    TasksRequest,
    TasksResponse,
    WorkflowRequest,
    WorkflowResponse,
)
from jobmon.core.wire.credentials import TokenRequest, TokenResponse
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
from jobmon.core.wire.launching import Report
from jobmon.core.wire.run import RunRequest, RunResponse, RunStatusRequest, RunStatusResponse
from jobmon.core.wire.swarm import ChangesResponse, QueueBatch, QueueRequest, QueueResponse
from jobmon.server.connections import raise_descriptor_limit

CLUSTER: Final = "bench"
ADMINISTRATOR: Final = "token-of-the-administrator"
#: Cores of each agent, unless given: it has so many attempts at once, and as many prefetched.
CORES: Final = 8
#: How long the orchestrator lets changes accumulate before it asks again, as the real one does.
GATHER_SECONDS: Final = 0.05
POLL_SECONDS: Final = 20.0
#: Fewer than the server lets connect before they have shown a credential.
POLLS_AT_ONCE: Final = 100
ANSWER_SECONDS_MAX: Final = 600.0
START_SECONDS_MAX: Final = 60.0
RUN_SECONDS_MAX: Final = 3_600.0
#: Workflows that are recorded at the same time.
BINDING_MAX: Final = 8
MIB: Final = 2**20
#: The statuses of a run on its way to RUNNING.
_UNDER_WAY: Final = (
    WorkflowRunStatus.LINKING,
    WorkflowRunStatus.BOUND,
    WorkflowRunStatus.INSTANTIATED,
    WorkflowRunStatus.LAUNCHED,
    WorkflowRunStatus.RUNNING,
)

_Reply = TypeVar("_Reply")


class Failed(Exception):
    """The server did not answer as it should."""


@dataclass
class Load:
    """What the generator sends, and what it counts."""

    address: str
    tasks: int
    cores: int = CORES
    waits: list[float] = field(default_factory=list)
    requests: int = 0
    cluster_id: int = 0
    binding: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(BINDING_MAX))


class User:
    """A user with a personal token, and the connections of one workflow."""

    def __init__(self, load: Load, token: str, name: str = "administrator") -> None:
        self.load = load
        self.name = name
        self.session = HttpSession(load.address)
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    async def post(self, route: str, reply: type[_Reply], message: object = None, mark: str = "") -> _Reply:
        headers = self._headers | ({MARK: mark} if mark else {})
        return await self._send("POST", route, reply, wire.encode({} if message is None else message), headers)

    async def get(self, route: str, reply: type[_Reply]) -> _Reply:
        return await self._send("GET", route, reply, None, self._headers)

    async def _send(
        self, method: str, route: str, reply: type[_Reply], body: bytes | None, headers: dict[str, str]
    ) -> _Reply:
        self.load.requests += 1
        path = wire.API_ROOT + route
        try:
            status, content = await self.session.exchange(method, path, body, headers, ANSWER_SECONDS_MAX)
        except ConnectionResetError:  # the server closed an idle connection; every request may arrive twice
            status, content = await self.session.exchange(method, path, body, headers, ANSWER_SECONDS_MAX)
        if status >= 300:
            raise Failed(f"{route}: {status} {content[:300]!r}")
        return wire.decode(reply, content or b"{}")


class Workflow:
    """One workflow, from its definition to its end."""

    def __init__(self, user: User, name: str) -> None:
        self._user = user
        self._name = name

    async def bind(self) -> None:
        """Record the workflow and start its run."""
        post, count = self._user.post, self._user.load.tasks
        async with self._user.load.binding:
            tool = await post("/tools", ToolResponse, ToolRequest(name="bench"))
            spec = TemplateSpec(name="t", command_template="true {x}", node_args=["x"], task_args=[], op_args=[])
            version = tool.tool_version_ids[-1]
            templates = await post(
                f"/tool_versions/{version}/task_templates", TemplatesResponse, TemplatesRequest(templates=[spec])
            )
            requested = ResourcesSpec(cluster_name=CLUSTER, queue_name="q", requested={"cores": 1}, kind="original")
            resources = await post("/task_resources", IdsResponse, ResourcesRequest(resources=[requested]))
            workflow = await post("/workflows", WorkflowResponse, self._request(version, count))
            self.id, route = workflow.workflow_id, f"/workflows/{workflow.workflow_id}"
            template = templates.task_template_version_ids[0]
            array = ArraySpec(task_template_version_id=template, name="t", max_concurrently_running=10_000)
            arrays = await post(f"{route}/arrays", IdsResponse, ArraysRequest(arrays=[array]))
            message = self._tasks(arrays.ids[0], template, resources.ids[0], count)
            self._tasks_left = set((await post(f"{route}/tasks", TasksResponse, message)).task_ids)
            await post(f"{route}/bound", dict[str, Any])
        request = RunRequest(
            user=self._user.name,
            host="bench",
            pid=os.getpid(),
            pid_start_time=1.0,
            version="1",
            next_report_increment=RUN_SECONDS_MAX,
            key=self._name,
        )
        self._run_id = (await post(f"{route}/runs", RunResponse, request)).workflow_run_id
        for status in _UNDER_WAY:
            await self._move(status)
        self._batch = QueueBatch(
            array_id=arrays.ids[0],
            task_ids=sorted(self._tasks_left),
            task_resources_id=resources.ids[0],
            cluster_id=self._user.load.cluster_id,
        )

    async def _move(self, status: str) -> None:
        await self._user.post(
            f"/workflow_runs/{self._run_id}/status", RunStatusResponse, RunStatusRequest(status=status)
        )

    def _request(self, version: int, count: int) -> WorkflowRequest:
        return WorkflowRequest(
            tool_version_id=version,
            workflow_args=self._name,
            workflow_args_hash=_hash_of(self._name),
            dag_hash=_hash_of(f"dag {self._name}"),
            task_hash=_hash_of(f"tasks {self._name}"),
            task_count=count,
            edge_set_count=0,
            name=self._name,
            description="",
            max_concurrently_running=10_000,
            task_counts={"t": count},
            user=self._user.name,
            working_directory="/tmp",
            umask=0o22,
            workflow_attributes={},
        )

    def _tasks(self, array: int, template: int, resources: int, count: int) -> TasksRequest:
        numbers = range(count)
        return TasksRequest(
            array_id=array,
            task_template_version_id=template,
            names=[f"t_{number}" for number in numbers],
            commands=[f"true {number}" for number in numbers],
            node_hashes=[_hash_of(f"node {number} {self._name}") for number in numbers],
            task_hashes=[_hash_of(f"task {number} {self._name}") for number in numbers],
            node_args={"x": [str(number) for number in numbers]},
            task_args={},
            max_attempts=[3] * count,
            task_resources_ids=[resources] * count,
            scales=[{}],
            scales_index=[0] * count,
            fallback_queues=[[]],
            fallback_index=[0] * count,
            attributes={},
        )

    async def run(self) -> None:
        """Queue all tasks, run them, and end the run."""
        await asyncio.gather(self._orchestrate(), self._work())
        await self._move(WorkflowRunStatus.DONE)

    async def _orchestrate(self) -> None:
        message = QueueRequest(batches=[self._batch])
        await self._user.post(f"/workflow_runs/{self._run_id}/queue", QueueResponse, message, "queue")
        since = ""
        while self._tasks_left:
            await asyncio.sleep(GATHER_SECONDS)
            found = await self._user.get(
                f"/workflows/{self.id}/changes?workflow_run_id={self._run_id}&wait_seconds={POLL_SECONDS}{since}",
                ChangesResponse,
            )
            since = f"&since={found.time.isoformat().replace('+', '%2B')}"
            self._tasks_left.difference_update(found.tasks_by_status.get(TaskStatus.DONE, ()))

    async def _work(self) -> None:
        """Claim attempts and report them as done, until all are."""
        request = AgentRequest(
            workflow_run_id=self._run_id,
            cluster=CLUSTER,
            host="bench",
            boot_id="boot",
            pid=os.getpid(),
            pid_start_time=1.0,
            key=self._name,
        )
        agent = await self._user.post("/agents", AgentResponse, request)
        route, done = f"/agents/{agent.agent_id}/sync", 0
        has: list[int] = []
        for key in itertools.count(1):
            message = AgentSyncRequest(
                key=key,
                reports=[_report(one) for one in has],
                cores_free=float(self._user.load.cores),
                cores_ahead=float(self._user.load.cores),
                wait_seconds=0.0 if has else POLL_SECONDS,
            )
            began = time.perf_counter()
            answer = await self._user.post(route, AgentSyncResponse, message, "report" if has else "claim")
            if has:
                self._user.load.waits.append(time.perf_counter() - began)
            done += len(has)
            if answer.late or answer.refused or answer.unknown:
                raise Failed(f"a report of workflow {self.id} was not accepted: {answer}")
            has = [] if answer.launches is None else answer.launches.task_instance_ids
            if done == self._user.load.tasks:
                break
        await self._user.post(route, AgentSyncResponse, AgentSyncRequest(key=key + 1, leaving=True))


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _report(attempt_id: int) -> Report:
    now = datetime.now(UTC)
    return Report(
        task_instance_id=attempt_id,
        status=TaskInstanceStatus.DONE,
        distributor_id=str(attempt_id),
        host="bench",
        pid=1,
        started_at=now,
        ended_at=now,
        exit_code=0,
        wallclock_seconds=0.1,
        cpu_seconds=0.1,
        max_rss_bytes=10_000_000,
    )


class Server:
    """A shared server in a process of its own, with its database."""

    def __init__(self, folder: Path, dialect: str) -> None:
        self._folder = folder
        self._times = folder / "times.json"
        self._engine = PostgreSQL(**DURABLE) if dialect == "postgresql" else None
        databases = Databases()
        if self._engine is not None:
            self._engine.start()
            databases = PostgreSQLDatabases(self._engine.address)
            databases.make_template()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("JOBMON")},
            "JOBMON_DATA_DIR": str(folder),
            "JOBMON__DB__SQLALCHEMY_DATABASE_URI": databases.uri(folder),
            "JOBMON__HTTP__TOKEN": ADMINISTRATOR,
        }

    def __enter__(self) -> Server:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.timed_server", str(self._times)],
                env=self._environment,
                stderr=log,
            )
        self.process = psutil.Process(self._process.pid)
        deadline = time.monotonic() + START_SECONDS_MAX
        while " ready" not in (text := (self._folder / "log").read_text()):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise Failed(f"the server did not start: {text}")
            time.sleep(0.05)
        self.address = next(word for word in text.split() if word.startswith("http://"))
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._process.terminate()
        self._process.wait(timeout=START_SECONDS_MAX)
        if self._engine is not None:
            self._engine.remove()

    def times(self) -> dict[str, list[float]]:
        """Return the times inside the server, once it has exited."""
        return dict(json.loads(self._times.read_text()))

    def memory(self) -> dict[str, float]:
        """Return its resident memory now and at most, MiB."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        return {key: int(status[name].split()[0]) / 1024 for key, name in (("now", "VmRSS"), ("peak", "VmHWM"))}

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU time of the server and of its database."""
        of_database = 0.0
        if self._engine is not None and self._engine._process is not None:
            postmaster = psutil.Process(self._engine._process.pid)
            for one in (postmaster, *postmaster.children()):
                with contextlib.suppress(psutil.Error):
                    of_database += sum(one.cpu_times()[:2])
        return sum(self.process.cpu_times()[:2]), of_database


async def _measure(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    load = Load(server.address, options.tasks, options.cores)
    administrator = User(load, ADMINISTRATOR)
    queue = QueueSpec(queue_name="q")
    cluster = await administrator.post(
        "/clusters", Cluster, ClusterRequest(name=CLUSTER, plugin="dummy", queues=[queue])
    )
    load.cluster_id = cluster.cluster_id
    tokens = {}
    for number in range(min(options.users, options.workflows)):
        message = TokenRequest(label="bench", user=f"user{number}")
        tokens[message.user] = (await administrator.post("/tokens", TokenResponse, message)).secret
    names = itertools.cycle(tokens)
    users = [User(load, tokens[name], name) for _, name in zip(range(options.workflows), names, strict=False)]
    workflows = [Workflow(user, f"w{number}") for number, user in enumerate(users)]
    began = time.perf_counter()
    await asyncio.gather(*(one.bind() for one in workflows))
    bound = time.perf_counter()
    found: dict[str, Any] = {"bind_seconds": bound - began, "memory_bound": server.memory()["now"]}
    if options.polls:
        found |= await _hold_polls(server, users, workflows, options.polls)
    before, requests, bound = server.cpu_seconds(), load.requests, time.perf_counter()
    await asyncio.gather(*(one.run() for one in workflows))
    seconds, count = time.perf_counter() - bound, options.workflows * options.tasks
    server_cpu, database_cpu = (after - start for after, start in zip(server.cpu_seconds(), before, strict=True))
    metrics = await administrator.get("/metrics", dict[str, Any])
    for user in (administrator, *users):
        await user.session.close()
    return found | {
        "tasks_per_second": count / seconds,
        "run_seconds": seconds,
        "requests_per_task": (load.requests - requests) / count,
        "transactions_per_task": metrics["transactions"] / count,
        "server_cpu_us_per_task": 1e6 * server_cpu / count,
        "database_cpu_us_per_task": 1e6 * database_cpu / count,
        "outside": _percentiles(load.waits),
        "memory": server.memory(),
    }


async def _hold_polls(server: Server, users: list[User], workflows: list[Workflow], count: int) -> dict[str, Any]:
    """Hold so many long polls open; return what they cost."""
    before, since = server.memory()["now"], datetime.now(UTC).isoformat().replace("+", "%2B")
    sessions, polls, held = [], [], 0
    probe = User(users[0].load, ADMINISTRATOR)
    deadline = time.monotonic() + POLL_SECONDS
    for number in range(count):
        user, workflow = users[number % len(users)], workflows[number % len(users)]
        session = HttpSession(server.address)
        sessions.append(session)
        path = f"{wire.API_ROOT}/workflows/{workflow.id}/changes?wait_seconds=30&since={since}"
        polls.append(asyncio.create_task(session.exchange("GET", path, None, user._headers, ANSWER_SECONDS_MAX)))
        if len(polls) % POLLS_AT_ONCE == 0 or len(polls) == count:
            while held < len(polls):
                if time.monotonic() > deadline:
                    raise Failed(f"only {held} of {count} polls could be opened before the first ones ended")
                await asyncio.sleep(0.02)
                held = (await probe.get("/metrics", dict[str, Any]))["open_polls"]
    memory = server.memory()["now"]
    answers = await asyncio.gather(*polls)
    for session in (*sessions, probe.session):
        await session.close()
    if any(status != 200 for status, _ in answers):
        raise Failed("an open poll was answered with an error")
    return {"polls": held, "kib_per_poll": 1024 * (memory - before) / count}


def _percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"p{share}_ms": 1000 * ordered[len(ordered) * share // 100] for share in (50, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflows", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=1_000, help="tasks of each workflow")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--cores", type=int, default=CORES, help="cores of each agent")
    parser.add_argument("--polls", type=int, default=0, help="first hold so many long polls open")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    options = parser.parse_args()
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:
        with Server(Path(folder), options.database) as server:
            figures = loops.run(_measure(server, options))
        figures |= {f"inside_{kind}": _percentiles(times) for kind, times in server.times().items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
