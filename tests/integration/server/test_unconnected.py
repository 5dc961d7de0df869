"""Jobs that run although no worker reaches the server, and packed jobs that their user cancels."""

import pytest
from pack_world import make_pack
from server_world import CLUSTER, TI, report
from test_watching import PROBLEM, explained, start_worker
from tests.databases import change

from jobmon.core.constants import Cause, TaskStatus
from jobmon.core.wire import replace
from jobmon.core.wire.launching import EndedJob


@pytest.fixture
async def launched(world):
    """A run with three submitted attempts."""
    bound = await world.bound(3)
    run = await bound.start()
    await run.register()
    await run.queue()
    batch = await run.launched(3)
    await run.sync(*(report(one, TI.LAUNCHED, distributor_id=f"5_{one}") for one in batch.task_instance_ids))
    return world, bound, run, batch.task_instance_ids


def recorded(world):
    return world.rows("SELECT status, cause, charged, error FROM task_instance ORDER BY id")


async def test_a_job_whose_worker_never_came_is_neither_out_of_time_nor_charged(launched):
    world, bound, run, (first, second, third) = launched
    await run.sync(
        report(first, TI.RESOURCE_ERROR, cause=Cause.OUT_OF_TIME, error="Slurm: out of time", host="n1", of_job=True),
        report(second, TI.ERROR, cause=Cause.EXIT_CODE, exit_code=127, error="exec: not found", of_job=True),
        report(third, TI.ERROR, cause=Cause.NODE_FAILURE, error="its node failed", of_job=True),
    )
    assert recorded(world) == [
        ("E", "worker never connected", 0, "worker never connected: Slurm: out of time"),
        ("E", "no usable Python", 0, "no usable Python: exec: not found"),
        ("E", "node failure", 0, "its node failed"),
    ]
    assert set((await bound.statuses()).values()) == {TaskStatus.REGISTERING}


async def test_a_job_whose_worker_came_is_judged_by_how_it_ended(launched):
    world, _, run, (first, _, _) = launched
    await start_worker(world, first)
    await run.sync(report(first, TI.RESOURCE_ERROR, cause=Cause.OUT_OF_TIME, error="out of time", of_job=True))
    assert recorded(world)[0] == ("Z", "out of time", 1, "out of time")


async def test_a_job_that_was_to_end_ended_for_that(launched):
    world, _, run, (first, _, _) = launched
    change(world.database_uri, "UPDATE task_instance SET status = 'K', cause = 'killed'")
    await run.sync(report(first, TI.ERROR, cause=Cause.EXIT_CODE, exit_code=1, error="killed: gone", of_job=True))
    assert recorded(world)[0] == ("E", "killed", 0, "killed: gone")


async def test_the_server_knows_whose_worker_spoke(launched):
    world, _, run, (first, second, third) = launched
    await start_worker(world, first)
    await run.sync(report(third, TI.ERROR, cause=Cause.EXIT_CODE, exit_code=1, of_job=True))
    answer = await run.sync(unheard=[first, second, third])
    assert (answer.heard, answer.heard_jobs) == ([first, third], [])
    assert (await run.sync()).heard is None


async def test_the_server_knows_which_packed_job_spoke(world):
    pack = await make_pack(world)
    await pack.take("j1", capacity=1)
    answer = await pack.run.sync(unheard_jobs=["j1", "j2", "j3"])
    assert (answer.heard, answer.heard_jobs) == ([], ["j1"])


async def test_explain_says_that_a_job_runs_without_its_worker(launched):
    world, bound, run, (first, _, _) = launched
    await run.sync(pending={first: "its job runs on n1, but cannot reach the server at http://10.0.0.1:4000"})
    text = await explained(world, bound.task_ids[0])
    assert "; its job runs on n1, but cannot reach the server at http://10.0.0.1:4000." in text
    assert "waiting there" not in text


async def test_what_does_not_wait_is_a_notice_to_the_orchestrator(world):
    bound = await world.bound(1)
    run = await bound.start()
    await run.register()
    await run.sync(launch_problems={CLUSTER: replace(PROBLEM, waiting=0)})
    found = await bound.changes()
    assert (found.launch_problems, found.notices) == ({}, {CLUSTER: PROBLEM.text})


@pytest.mark.parametrize(
    ("exit_code", "cause"), [(127, "no usable Python"), (1, "worker never connected")], ids=["no Python", "no network"]
)
async def test_packed_jobs_that_never_came_charge_nothing_and_name_their_host(world, exit_code, cause):
    pack = await make_pack(world)
    for job in ("j1", "j2"):
        ended = EndedJob(distributor_id=job, status=TI.ERROR, cause=Cause.EXIT_CODE, exit_code=exit_code, host="n1")
        await pack.run.sync(ended_jobs=[replace(ended, error="exit code")], packed=[pack.batch.batch_number])
    assert {row[:3] for row in pack.attempts()} == {("E", cause, 0)}
    assert pack.rows("SELECT DISTINCT host, error FROM task_instance") == [("n1", f"{cause}: exit code")]
    assert set((await pack.bound.statuses()).values()) == {TaskStatus.REGISTERING}


async def test_packed_jobs_that_their_user_cancels_are_not_submitted_again(world):
    pack = await make_pack(world)
    await pack.take("j1", capacity=1, ahead=1)
    await pack.end("j1", TI.ERROR_FATAL, Cause.KILLED, "cancelled by you")
    assert pack.statuses() == "FFOOOO", "the other job continues with the unclaimed attempts"
    answer = await pack.end("j2", TI.ERROR_FATAL, Cause.KILLED, "cancelled by you")
    assert pack.statuses() == "FFFFFF"
    assert {row[1:3] for row in pack.attempts()} == {("killed", 0)}
    assert set((await pack.bound.statuses()).values()) == {TaskStatus.ERROR_FATAL}
    assert answer.over == [pack.batch.batch_number]
    assert (await pack.run.sync(capacity={CLUSTER: 1000}, packing=[CLUSTER])).launches == []
