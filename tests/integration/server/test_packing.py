"""Packed batches: what their jobs claim, what they are sent, and what happens when a job exits."""

import asyncio
import functools

import pytest
from pack_world import make_pack
from server_world import CLUSTER, RUN, TI, Refused, report

from jobmon.core.constants import Cause, TaskStatus
from jobmon.core.wire.monitoring import TaskExplanation, WorkflowExplanation


@pytest.fixture
def packed(world):
    """Return a function that queues and launches tasks with a request."""
    return functools.partial(make_pack, world)


async def test_the_plan_is_recorded_with_the_launch_and_repeated_with_it(world, packed):
    pack = await packed(submitted=())
    assert (pack.batch.plan.mode, pack.batch.plan.jobs, pack.batch.plan.width) == ("pack", 2, 1)
    await pack.run.sync(packing=[CLUSTER])
    (known,) = (await pack.run.register()).packed
    assert (known.untaken, known.submitted, known.distributor_ids) == (6, False, [])


async def test_a_lost_answer_to_the_distributor_brings_the_plan_again(world, packed):
    pack = await packed(submitted=())
    await pack.take(capacity=6)
    await pack.take("j1", *[report(one, TI.ERROR, exit_code=1) for one in pack.batch.task_instance_ids])
    await pack.queue()
    first = await pack.run.sync(capacity={CLUSTER: 1000}, packing=[CLUSTER], key="k")
    assert await pack.run.sync(capacity={CLUSTER: 1000}, packing=[CLUSTER], key="k") == first


async def test_a_cluster_that_takes_no_packs_gets_an_array(world):
    bound = await world.bound(3)
    run = await bound.start()
    await run.register()
    await run.queue()
    assert (await run.launched()).plan is None


async def test_jobs_take_what_they_start_as_running_and_what_they_take_ahead_as_launched(world, packed):
    pack = await packed()
    assert pack.statuses() == "OOOOOO"
    first = await pack.take("j1", capacity=1, ahead=2)
    assert first.tasks.task_instance_ids == [1, 2, 3]
    assert first.tasks.commands == ["echo 0", "echo 1", "echo 2"]
    assert (first.job.width, first.job.working_directory, first.over) == (1, "/tmp", False)
    second = await pack.take("j2", capacity=5)
    assert (second.tasks.task_instance_ids, second.over) == ([4, 5, 6], True)
    assert pack.statuses() == "ROORRR"
    assert [row[3] for row in pack.attempts()] == ["j1"] * 3 + ["j2"] * 3


async def test_an_attempt_that_a_job_has_is_not_given_to_another_that_chose_it_too(world, packed):
    pack = await packed()
    assert await pack.taken("j1", capacity=1, ahead=1) == [1, 2]
    pack.change("UPDATE packed_batch SET taken = 0")  # as a server reads it that does not know of j1's request
    assert await pack.taken("j2", capacity=1, ahead=2, key="1:a") == [3, 4]
    assert await pack.taken("j2", capacity=1, ahead=2, key="1:a") == [3, 4], "what is repeated is what was given"
    assert pack.statuses() == "ROROOO"
    assert [row[3] for row in pack.attempts()] == ["j1", "j1", "j2", "j2", None, None]


async def test_a_job_that_starts_before_its_submission_was_told_gets_its_work(world, packed):
    pack = await packed(submitted=())
    assert await pack.taken("j1", capacity=1, ahead=1) == [1, 2]
    assert pack.statuses() == "ROIIII"
    await pack.submit("j1", "j2")
    assert pack.statuses() == "ROOOOO"
    assert [row[3] for row in pack.attempts()] == ["j1", "j1", None, None, None, None]


async def test_an_answer_that_was_lost_comes_again(world, packed):
    pack = await packed()
    assert await pack.taken("j1", capacity=2, key="a") == [1, 2]
    assert await pack.taken("j1", capacity=2, key="a") == [1, 2]
    assert await pack.taken("j1", report(1, TI.DONE), capacity=2, key="a", alive=[2]) == [2]
    assert await pack.taken("j1", capacity=2, key="b") == [3, 4]


async def test_an_old_request_for_work_that_comes_late_takes_nothing(world, packed):
    pack = await packed()
    assert await pack.taken("j1", capacity=1, key="1:a") == [1]
    assert await pack.taken("j1", report(1, TI.DONE), capacity=1, key="2:b") == [2]
    assert await pack.taken("j1", capacity=1, key="1:a") == []
    assert await pack.taken("j1", capacity=1, key="2:b") == [2]
    assert await pack.taken("j1", report(2, TI.DONE), capacity=1, key="10:c") == [3]
    assert await pack.taken("j2", capacity=1, key="1:d") == [4]


async def test_endings_and_the_next_work_travel_together(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=1)
    answer = await pack.take("j1", report(1, TI.DONE, exit_code=0), capacity=1)
    assert answer.tasks.task_instance_ids == [2]
    assert (await pack.bound.statuses())[pack.bound.task_ids[0]] == TaskStatus.DONE
    await pack.take("j1", report(2, TI.ERROR, exit_code=3, cause=Cause.EXIT_CODE))
    assert pack.attempts()[1][:3] == ("E", Cause.EXIT_CODE, 1)


async def test_what_ran_in_a_lost_job_ends_by_its_cause_and_the_rest_goes_on_elsewhere(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=1, ahead=1)
    await pack.end("j1", TI.ERROR, Cause.NODE_FAILURE, "node n1 failed")
    assert pack.attempts()[0][:3] == ("U", Cause.NODE_FAILURE, 0)
    assert pack.attempts()[1][:3] == ("U", Cause.WORKER_LOST, 0)
    assert pack.statuses() == "UUOOOO", "unclaimed attempts wait for the other job"
    answer = await pack.end("j2")
    assert pack.statuses() == "UUUUUU"
    assert answer.over == [pack.batch.batch_number]
    assert set((await pack.bound.statuses()).values()) == {TaskStatus.REGISTERING}


async def test_running_out_of_memory_is_charged_to_what_ran_only(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=1, ahead=1)
    await pack.end("j1", TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, "it used too much")
    assert [row[:3] for row in pack.attempts()[:2]] == [("Z", Cause.OUT_OF_MEMORY, 1), ("U", Cause.WORKER_LOST, 0)]


async def test_running_out_of_time_is_charged_to_what_had_the_whole_of_it(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=1)
    world.clock.seconds += 50
    await pack.take("j1", capacity=1, alive=[1])
    world.clock.seconds += 10
    await pack.end("j1", TI.RESOURCE_ERROR, Cause.OUT_OF_TIME)
    assert [row[:3] for row in pack.attempts()[:2]] == [("Z", Cause.OUT_OF_TIME, 1), ("U", Cause.WORKER_LOST, 0)]


@pytest.mark.parametrize(("status", "cause"), [(TI.DONE, None), (TI.ERROR, Cause.EXIT_CODE)])
async def test_a_job_that_ends_with_commands_under_way_is_its_workers_fault(world, packed, status, cause):
    pack = await packed()
    await pack.take("j1", capacity=1)
    await pack.end("j1", status, cause)
    assert pack.attempts()[0][:3] == ("U", Cause.WORKER_LOST, 0)


async def test_a_job_that_was_found_gone_and_comes_back_gets_nothing_and_ends_all_that_it_has(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=2)
    await pack.end("j1", TI.ERROR, Cause.NODE_FAILURE)
    answer = await pack.take("j1", alive=[1, 2], capacity=2)
    assert (answer.tasks.task_instance_ids, answer.kill, answer.over) == ([], [1, 2], True)
    held = await pack.take("j1", alive=[1, 2], wait_seconds=5)
    assert (held.kill, held.over) == ([1, 2], True)


async def test_a_job_that_leaves_gives_back_what_it_did_not_report(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=1, ahead=1)
    await pack.take("j1", report(1, TI.DONE), leaving=True)
    assert pack.statuses() == "DUOOOO"


async def test_what_was_not_submitted_is_queued_again_without_being_charged(world, packed):
    pack = await packed(submitted=())
    await pack.submit()
    assert {row[:3] for row in pack.attempts()} == {("U", Cause.WORKER_LOST, 0)}
    answer = await pack.take("late", capacity=3)
    assert (answer.tasks.task_instance_ids, answer.over) == ([], True)


async def test_a_stop_ends_what_nobody_took_and_tells_jobs_at_their_open_request(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=1, ahead=1)
    held = asyncio.create_task(pack.take("j1", wait_seconds=30))
    await asyncio.sleep(0)
    await world.post(f"/workflow_runs/{pack.run.id}/terminate_task_instances")
    assert (await held).kill == [1, 2]
    assert pack.statuses() == "KKEEEE"
    answer = await pack.run.sync(packed=[pack.batch.batch_number])
    assert (answer.kill, answer.over) == ([], []), "a distributor has no hand in it"
    await pack.take("j1", report(1, TI.ERROR, cause=Cause.KILLED), report(2, TI.UNKNOWN_ERROR))
    assert pack.statuses() == "EEEEEE"
    assert (await pack.run.sync(packed=[pack.batch.batch_number])).over == [pack.batch.batch_number]


async def test_attempts_that_were_to_end_are_settled_when_their_job_is_gone(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=1)
    await world.post(f"/workflow_runs/{pack.run.id}/terminate_task_instances")
    await pack.end("j1", TI.ERROR, Cause.KILLED)
    assert pack.statuses() == "EEEEEE"


async def test_what_waits_for_living_jobs_is_not_overdue_and_doubt_is_settled_by_them(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=1)
    await pack.take("j2", capacity=1)
    world.clock.seconds += 250
    await pack.run.sync(packed=[pack.batch.batch_number], live_jobs=["j1"])
    world.clock.seconds += 200
    await world.post(f"/workflow_runs/{pack.run.id}/triage")
    assert pack.statuses() == "TTOOOO"
    answer = await pack.run.sync(packed=[pack.batch.batch_number], live_jobs=["j1"])
    assert (pack.statuses(), answer.triage) == ("RUOOOO", [])


async def test_what_a_living_job_took_ahead_is_not_given_up_while_it_pauses(world, packed):
    """It may have started the task without being able to report it."""
    pack = await packed()
    await pack.take("j1", capacity=1, ahead=2)
    await pack.take("j2", capacity=1, ahead=1)
    world.clock.seconds += 250
    await pack.run.sync(packed=[pack.batch.batch_number], live_jobs=["j1"])
    world.clock.seconds += 200
    await world.post(f"/workflow_runs/{pack.run.id}/triage")
    assert pack.statuses() == "TOOTUO"
    await pack.take("j1", report(2, TI.DONE, exit_code=0))
    assert pack.statuses() == "TDOTUO"


async def test_a_distributor_hears_at_its_open_poll_that_a_batch_is_taken(world, packed):
    pack = await packed()
    number = pack.batch.batch_number
    poll = asyncio.create_task(pack.run.sync(packed=[number], wait_seconds=30, known_status=RUN.RUNNING))
    await asyncio.sleep(0)
    await pack.take("j1", capacity=6)
    assert (await poll).untaken == {number: 0}


async def test_pilots_go_on_with_what_is_queued_later(world, packed):
    pack = await packed(4, {"pilot": True}, submitted=("p1",))
    assert pack.batch.plan.jobs == 1
    assert await pack.taken("p1", capacity=4) == [1, 2, 3, 4]
    held = asyncio.create_task(pack.take("p1", wants_work=True, wait_seconds=30))
    await pack.take("p1", *[report(one, TI.ERROR, exit_code=1) for one in (1, 2, 3, 4)])
    await pack.queue(0, 1)
    answer = await held
    assert (answer.has_work, answer.over) == (True, False)
    assert await pack.taken("p1", capacity=1, key="x") == [5]
    await pack.queue(2)
    await pack.launch()
    assert pack.batch.plan.jobs == 0, "the pilot that lives sees to it"
    await pack.submit()
    assert pack.statuses()[4:] == "ROO"
    number = pack.batch.batch_number
    answer = await pack.take("p1", capacity=5, batch_number=1)
    assert answer.tasks.task_instance_ids == [6, 7]
    assert number == 2


async def test_a_pilot_that_has_not_begun_stays_for_what_waits_in_another_batch_when_its_run_makes_room(world, packed):
    pack = await packed(2, {"pilot": True}, submitted=("p1", "p2"))
    await pack.take("p1", capacity=2)
    await pack.take("p1", *[report(one, TI.ERROR, exit_code=1) for one in (1, 2)])
    await pack.queue(0)
    await pack.launch()
    await pack.submit()
    await pack.take("p1", leaving=True, batch_number=1)
    await world.post(f"/workflows/{pack.bound.workflow_id}/resume", None, {"reset_running_jobs": False})
    await pack.run.sync(packed=[1, 2])
    assert pack.statuses()[2:] == "O"
    assert await pack.taken("p2", capacity=1, batch_number=1) == [3]


async def test_a_pilot_of_a_submission_that_was_refused_is_not_relied_on(world, packed):
    """Its cluster accepted it anyway; its distributor does not know it, so its exit would never be reported."""
    pack = await packed(2, {"pilot": True}, submitted=())
    await pack.take("p1", capacity=2)
    await pack.take("p1", *[report(one, TI.ERROR, exit_code=1) for one in (1, 2)])
    await pack.queue()
    await pack.launch()
    assert pack.batch.plan.jobs == 1


async def test_a_pilot_that_is_silent_and_that_nobody_sees_is_gone(world, packed):
    pack = await packed(4, {"pilot": True}, submitted=("p1",))
    await pack.take("p0", capacity=1)  # its cluster did not say its id
    world.clock.seconds += 250
    await pack.run.sync(packed=[1], live_jobs=["p1"])
    world.clock.seconds += 200
    await world.post(f"/workflow_runs/{pack.run.id}/triage")
    await pack.run.sync(packed=[1], live_jobs=["p1"])
    assert pack.statuses() == "UOOO"
    await pack.end("p1")
    assert pack.statuses() == "UUUU"
    assert (await pack.take("p0", capacity=1)).over


async def test_the_last_pilot_gives_up_what_only_pilots_could_take(world, packed):
    pack = await packed(3, {"pilot": True}, submitted=("p1",))
    await pack.take("p1", capacity=1)
    await pack.take("p1", report(1, TI.DONE), leaving=True)
    assert [row[:3] for row in pack.attempts()[1:]] == [("U", Cause.WORKER_LOST, 0)] * 2


async def test_pilots_are_over_with_their_run(world, packed):
    pack = await packed(2, {"pilot": True}, submitted=("p1",))
    await pack.take("p1", capacity=2)
    held = asyncio.create_task(pack.take("p1", wants_work=True, wait_seconds=30))
    await pack.take("p1", report(1, TI.DONE), report(2, TI.DONE))
    await pack.run.move(RUN.DONE)
    assert (await held).over


async def test_a_hot_resume_keeps_packs_and_a_new_distributor_learns_of_them(world, packed):
    pack = await packed()
    await pack.take("j1", capacity=1)
    await world.post(f"/workflows/{pack.bound.workflow_id}/resume", None, {"reset_running_jobs": False})
    await pack.run.move(RUN.TERMINATED)
    pack.run = await pack.bound.start()
    answer = await pack.run.register()
    (known,) = answer.packed
    assert (known.untaken, known.distributor_ids, known.cluster_name) == (5, ["j1", "j2"], CLUSTER)
    assert all(attempt.packed for attempt in answer.attempts)
    assert await pack.taken("j2", capacity=2) == [2, 3]


async def test_a_job_has_to_say_which_it_is(world, packed):
    pack = await packed()
    with pytest.raises(Refused, match="must send the ID"):
        await pack.take("", capacity=1)
    with pytest.raises(Refused, match="no packed batch 9 of array"):
        await pack.take("j1", batch_number=9)
    with pytest.raises(Refused, match="no packed batch 9 of array"):
        await pack.take("j1", batch_number=9, wait_seconds=1)


async def test_explain_says_how_tasks_were_submitted(world, packed):
    pack = await packed(requested={"pack": 3, "pack_width": 2})
    await pack.take("j1", capacity=1)
    for task_id, kind in zip(pack.bound.task_ids, ("running", "waiting for the cluster"), strict=False):
        found = await world.get(f"/tasks/{task_id}/explanation", TaskExplanation)
        assert found.reasons[0].kind == kind
        assert found.reasons[-1].text == (
            "It shares jobs with others (as requested): 2 jobs for a batch of 6 tasks, 2 at a time per job."
        )
    found = await world.get(f"/workflows/{pack.bound.workflow_id}/explanation", WorkflowExplanation)
    assert "Tasks share jobs: 6 attempts in 2 pack jobs, of which 1 is running." in [one.text for one in found.reasons]


async def test_short_tasks_are_packed_without_being_asked_once_that_is_known(world, packed):
    pack = await packed(20, {"pack": 1}, submitted=())
    assert pack.batch.plan is None
    first, *others = pack.batch.task_instance_ids
    await pack.run.sync(report(first, TI.DONE, wallclock_seconds=0.5))
    pack.resources = pack.bound.resources_id
    await pack.run.sync(*[report(one, TI.ERROR, exit_code=1) for one in others])
    await pack.queue(*range(1, 20))
    batch = await pack.launch()
    assert (batch.plan.mode, batch.plan.jobs) == ("pack", 4)
    found = await world.get(f"/tasks/{pack.bound.task_ids[5]}/explanation", TaskExplanation)
    words = "because tasks of its template are short: tasks took 0.5 s on average in this run"
    assert words in found.reasons[-1].text


async def reason_of(world, task_id):
    found = await world.get(f"/tasks/{task_id}/explanation", TaskExplanation)
    return found.reasons[-1].text


async def finished(pack, seconds):
    await pack.run.sync(
        *[
            report(one, TI.DONE, wallclock_seconds=each)
            for one, each in zip(pack.batch.task_instance_ids, seconds, strict=True)
        ]
    )


async def test_tasks_are_packed_by_what_their_template_took_in_earlier_workflows(world, packed):
    known = await packed(20, {"pack": 1}, submitted=())
    assert await reason_of(world, known.bound.task_ids[0]) == "It has its own job (as requested)."
    await finished(known, [0.5] * 20)
    again = await packed(20, {"cores": 1.0}, submitted=())
    assert (again.batch.plan.mode, again.batch.plan.jobs) == ("pack", 4)
    text = await reason_of(world, again.bound.task_ids[0])
    assert text.startswith(
        "It shares jobs with others (because tasks of its template are short: tasks took 0.5 s on ave"
    )
    assert "rage of its template in earlier workflows): 4 jobs for a batch of 20 tasks" in text


async def test_the_same_node_arguments_tell_more_than_the_template(world, packed):
    known = await packed(20, {"pack": 1}, submitted=())
    await finished(known, [60.0] * 10 + [1.0] * 10)
    same = await packed(10, {"cores": 1.0}, is_launched=False)
    same.change("UPDATE task SET node_id = node_id - 20 WHERE id > 20")
    await same.launch()
    assert same.batch.plan is None
    words = "because tasks took 60 s on average with the same node arguments in earlier workflows, more than 5 s"
    assert await reason_of(world, same.bound.task_ids[0]) == f"It has its own job ({words})."


@pytest.mark.parametrize(
    ("count", "requested", "words"),
    [
        (3, {"cores": 1.0}, "because 3 of its array were ready, fewer than 8"),
        (20, {"cores": 1.0}, "because no task of its template is done yet"),
    ],
)
async def test_explain_says_why_each_task_has_a_job_of_its_own(world, packed, count, requested, words):
    pack = await packed(count, requested, submitted=())
    assert pack.batch.plan is None
    assert await reason_of(world, pack.bound.task_ids[0]) == f"It has its own job ({words})."


async def test_what_is_still_being_submitted_is_not_said_to_be_at_the_cluster(world, packed):
    pack = await packed(3, {"cores": 1.0}, submitted=())
    found = await world.get(f"/tasks/{pack.bound.task_ids[0]}/explanation", TaskExplanation)
    assert "is submitting it" in found.reasons[0].text
