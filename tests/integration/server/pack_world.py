"""A run with one packed batch, for tests of the server and of the jobs that take its work."""

from server_world import CLUSTER, TI
from tests.databases import change

from jobmon.core.wire.binding import IdsResponse, ResourcesRequest, ResourcesSpec
from jobmon.core.wire.launching import EndedJob, LaunchBatch, SubmittedBatch, WorkerTakeRequest, WorkerTakeResponse
from jobmon.core.wire.swarm import QueueBatch, QueueRequest, QueueResponse


class Pack:
    """A run with one packed batch, and short ways to speak as its jobs and its distributor."""

    def __init__(self, world, bound, run, resources):
        self.world, self.bound, self.run, self.resources = world, bound, run, resources

    async def queue(self, *indices):
        ids = [self.bound.task_ids[index] for index in indices] or self.bound.task_ids
        batch = QueueBatch(
            array_id=self.bound.array_id,
            task_ids=ids,
            task_resources_id=self.resources,
            cluster_id=self.bound.cluster_id,
        )
        await self.world.post(f"/workflow_runs/{self.run.id}/queue", QueueResponse, QueueRequest(batches=[batch]))

    async def launch(self) -> LaunchBatch:
        (self.batch,) = (await self.run.sync(capacity={CLUSTER: 1000}, packing=[CLUSTER])).launches
        return self.batch

    async def submit(self, *jobs):
        return await self.run.sync(
            submitted=[SubmittedBatch(batch_number=self.batch.batch_number, distributor_ids=list(jobs))],
            packed=[self.batch.batch_number],
        )

    async def take(self, job="j1", *reports, **message) -> WorkerTakeResponse:
        request = WorkerTakeRequest(
            array_id=self.bound.array_id,
            batch_number=message.pop("batch_number", self.batch.batch_number),
            distributor_id=job,
            host="n1",
            reports=list(reports),
            **message,
        )
        return await self.world.post("/worker/take", WorkerTakeResponse, request)

    async def taken(self, job="j1", *reports, **message) -> list[int]:
        return (await self.take(job, *reports, **message)).tasks.task_instance_ids

    async def end(self, job, status=TI.UNKNOWN_ERROR, cause=None, error=None):
        return await self.run.sync(
            ended_jobs=[EndedJob(distributor_id=job, status=status, cause=cause, error=error)],
            packed=[self.batch.batch_number],
        )

    def rows(self, sql):
        return self.world.rows(sql)

    def change(self, sql):
        change(self.world.database_uri, sql)

    def attempts(self):
        return self.rows("SELECT status, cause, charged, distributor_id FROM task_instance ORDER BY id")

    def statuses(self):
        return "".join(row[0] for row in self.rows("SELECT status FROM task_instance ORDER BY id"))


async def make_pack(
    world, count=6, requested=None, submitted=("j1", "j2"), commands=None, max_attempts=3, *, is_launched=True
):
    """Record a workflow, queue and launch its tasks with a request."""
    bound = await world.bound(count, commands=commands, max_attempts=max_attempts)
    spec = ResourcesSpec(cluster_name=CLUSTER, queue_name="q", requested=requested or {"pack": 3}, kind="original")
    resources = (await world.post("/task_resources", IdsResponse, ResourcesRequest(resources=[spec]))).ids[0]
    run = await bound.start()
    await run.register()
    pack = Pack(world, bound, run, resources)
    await pack.queue()
    if is_launched:
        await pack.launch()
        if submitted:
            await pack.submit(*submitted)
    return pack
