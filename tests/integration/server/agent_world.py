"""Helpers for tests that act as an agent of a server in this process."""

from server_world import CLUSTER

from jobmon.core.wire.agents import AgentRequest, AgentResponse, AgentSyncRequest, AgentSyncResponse


class Agent:
    """An agent of a run, as the server sees it."""

    def __init__(self, run, answer):
        self.run = run
        self.world = run.bound.world
        self.answer = answer
        self.id = answer.agent_id
        self.key = 0

    @classmethod
    async def register(cls, run, *, key="", host="host", cluster=CLUSTER, pid=7, scope="host"):
        world = run.bound.world
        message = AgentRequest(
            workflow_run_id=run.id,
            cluster=cluster,
            scope=scope,
            host=host,
            boot_id="boot",
            pid=pid,
            pid_start_time=1.5,
            key=key or f"a{next(world.counter)}",
        )
        return cls(run, await world.post("/agents", AgentResponse, message))

    async def sync(self, *reports, **message):
        """Send a request; every one has a key of its own unless one is given."""
        self.key += 1
        request = AgentSyncRequest(key=message.pop("key", self.key), reports=list(reports), **message)
        return await self.world.post(f"/agents/{self.id}/sync", AgentSyncResponse, request)

    async def claim(self, cores=1000.0):
        """Claim so many cores' worth of attempts; return their ids."""
        return ids_of(await self.sync(cores_free=cores))


def ids_of(answer):
    return [] if answer.launches is None else answer.launches.task_instance_ids
