"""Helpers for tests of the orchestrator: workflows of the fake server, and runs on virtual time."""

from __future__ import annotations

import asyncio

from jobmon.client.clusters import KnownCluster
from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.orchestrator import OrchestratorConfig, WorkflowRunOrchestrator
from jobmon.client.swarm.state import SwarmState
from jobmon.client.swarm.task import SwarmTask
from jobmon.client.task_resources import TaskResources
from jobmon.core.wire import definition
from jobmon.testing.swarm_gateway import FakeTask
from jobmon.testing.virtual_time import run_virtual

CLUSTER = KnownCluster(
    definition.Cluster(
        cluster_id=7,
        name="here",
        plugin="dummy",
        connection={},
        queues=[
            definition.Queue(queue_id=1, queue_name="all.q", parameters={"max_memory": "4G", "default_cores": 1}),
            definition.Queue(queue_id=2, queue_name="big.q", parameters={"max_memory": "200G"}),
        ],
    ),
    find_more=lambda _cluster, _name: None,
)


def resources(**requested):
    return TaskResources(requested or {"cores": 1}, CLUSTER.queue(""), CLUSTER.name, CLUSTER.cluster_id)


def state_of(server, make_resources=resources, **task_kwargs):
    """The memory that a builder would make of what the server has."""
    state = SwarmState(1, 10, 5, server.limit, server.status)
    for array_id, limit in server.array_limits.items():
        state.add_array(SwarmArray(array_id, limit))
    for fake in server.tasks.values():
        asked = make_resources() if make_resources else None
        task = SwarmTask(fake.task_id, fake.array_id, fake.status, fake.max_attempts, asked, CLUSTER, **task_kwargs)
        task.num_upstreams = len(fake.upstreams)
        state.add_task(task)
        state.arrays[fake.array_id].add_task(task)
    for fake in server.tasks.values():
        for upstream in fake.upstreams:
            state.tasks[upstream].downstream_swarm_tasks.add(state.tasks[fake.task_id])
    return state


def run(server, script=None, alive=lambda: True, state=None, on_change=None, **config):
    """Run to the end; `script` is a coroutine function that plays beside it. Check what must always hold."""
    state = state or state_of(server)
    config.setdefault("timeout", 36_000)
    orchestrator = WorkflowRunOrchestrator(state, server, OrchestratorConfig(**config), on_change)

    async def main():
        async with asyncio.TaskGroup() as group:
            running = group.create_task(orchestrator.run(alive))
            if script is not None:
                group.create_task(script(running))
        return running.result()

    result = run_virtual(main())
    state.validate()
    assert server.breaches == []
    return result


def chain(length, **kwargs):
    return [FakeTask(n, upstreams=frozenset({n - 1} if n > 1 else ()), **kwargs) for n in range(1, length + 1)]


def independent(count, **kwargs):
    return [FakeTask(n, **kwargs) for n in range(1, count + 1)]
