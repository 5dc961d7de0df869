"""Lower a limit while everything is queued: attempts above it are not handed out."""

import asyncio

from server_world import CLUSTER, TI, report

from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse


async def limited(bound, most, what=""):
    message = ConcurrencyRequest(max_concurrently_running=most, user="me")
    await bound.world.call("PUT", f"/workflows/{bound.workflow_id}{what}/concurrency", ConcurrencyResponse, message)


async def queued(world, count=6):
    bound = await world.bound(count)
    run = await bound.start()
    await run.register()
    await run.queue()
    return bound, run


async def taken(run, capacity=10):
    launches = (await run.sync(capacity={CLUSTER: capacity})).launches
    return [identity for batch in launches for identity in batch.task_instance_ids]


async def test_a_pause_holds_back_what_is_queued(world):
    bound, run = await queued(world)
    ids = await taken(run, 2)
    await limited(bound, 0)
    assert await taken(run) == []
    await run.sync(*(report(one, TI.DONE) for one in ids))
    assert await taken(run) == []
    await limited(bound, 3)
    assert len(await taken(run)) == 3


async def test_a_lower_limit_counts_what_was_handed_out(world):
    bound, run = await queued(world)
    ids = await taken(run, 3)
    await limited(bound, 2)
    assert await taken(run) == []
    await run.sync(*(report(one, TI.DONE) for one in ids[:2]))
    assert len(await taken(run)) == 1
    assert await taken(run) == []


async def test_a_paused_template_holds_back_its_own_tasks(world):
    bound, run = await queued(world)
    await limited(bound, 0, "/arrays/t")
    assert await taken(run) == []
    await limited(bound, 1, "/arrays/t")
    assert len(await taken(run)) == 1
    assert await taken(run) == []
    await limited(bound, 10_000, "/arrays/t")
    assert len(await taken(run)) == 5


async def test_the_end_of_a_pause_wakes_the_distributor(world):
    bound, run = await queued(world)
    await limited(bound, 0)
    poll = asyncio.create_task(run.sync(capacity={CLUSTER: 10}, wait_seconds=20.0, known_status="R"))
    done, _ = await asyncio.wait([poll], timeout=0.3)
    assert not done
    await limited(bound, 4)
    (batch,) = (await asyncio.wait_for(poll, 5)).launches
    assert len(batch.task_ids) == 4
