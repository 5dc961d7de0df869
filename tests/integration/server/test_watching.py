"""Clusters whose jobs run elsewhere: which distributor polls, the rights of workers, and their messages."""

import asyncio

import pytest
from server_world import CLUSTER, RUN, TI, Refused, report

from jobmon.core.constants import Cause
from jobmon.core.wire import replace
from jobmon.core.wire.launching import (
    LaunchProblem,
    SyncRequest,
    WorkerReportRequest,
    WorkerReportResponse,
    WorkerStartRequest,
    WorkerStartResponse,
)
from jobmon.core.wire.monitoring import TaskDetail, TaskExplanation, WorkflowExplanation
from jobmon.core.wire.watching import ViewRequest, ViewResponse, WatchRequest, WatchResponse
from jobmon.server.usecases import timekeeping
from jobmon.server.usecases.reporting import sync, worker_reports
from jobmon.server.usecases.watching import PAUSE_SECONDS_MAX


class Watcher:
    """A distributor that watches the cluster."""

    def __init__(self, world, name, interval=2.0, since=1000.0):
        self.world, self.name, self.interval, self.since, self.known = world, name, interval, since, 0

    async def watch(self):
        request = WatchRequest(
            holder=self.name, interval=self.interval, silence=30.0, since=self.since, known=self.known
        )
        answer = await self.world.post(f"/clusters/{CLUSTER}/watch", WatchResponse, request)
        if answer.view is not None:
            self.known = answer.number
        return answer

    async def saw(self, view=None, problem=""):
        request = ViewRequest(holder=self.name, since=self.since, view=view, problem=problem)
        self.known = (await self.world.post(f"/clusters/{CLUSTER}/view", ViewResponse, request)).number
        return request


@pytest.fixture
async def cluster(world):
    await world.bound(1)
    return world


async def test_one_looks_and_the_others_see_what_it_saw(cluster):
    first, second = Watcher(cluster, "first"), Watcher(cluster, "second", since=500.0)
    alone = await first.watch()
    assert (alone.look, alone.since, alone.is_shared) == (True, 1000.0, False)
    assert not (await second.watch()).look, "the first one looks just now"
    cluster.clock.seconds += 1
    await first.saw("what first saw")
    seen = await second.watch()
    assert (seen.look, seen.view, seen.view_since, seen.age) == (False, "what first saw", 1000.0, 1.0)
    assert (await second.watch()).view is None, "it is known"
    cluster.clock.seconds += 1
    again = await second.watch()
    assert (again.look, again.since, again.is_shared) == (True, 500.0, True), "the view is as old as may be"


async def test_the_one_in_the_greatest_hurry_decides_how_often(cluster):
    slow, fast = Watcher(cluster, "slow", interval=10.0), Watcher(cluster, "fast", interval=1.0)
    looks = 0
    for _ in range(20):
        cluster.clock.seconds += 0.5
        for one in (slow, fast):
            if (await one.watch()).look:
                looks += 1
                await one.saw("view")
    assert looks == 10


async def test_after_a_look_in_vain_an_older_view_is_not_shown_as_though_it_were_new(cluster):
    first, second = Watcher(cluster, "first"), Watcher(cluster, "second")
    await first.watch()
    await second.watch()
    await first.saw("what first saw")
    cluster.clock.seconds += 100
    assert (await first.watch()).look
    await first.saw(problem="it does not answer")
    told = await second.watch()
    assert (told.look, told.view, told.problem) == (False, None, "it does not answer")
    cluster.clock.seconds += 100
    assert (await first.watch()).look
    await first.saw("what first sees now")
    assert (await second.watch()).view == "what first sees now"


async def test_messages_that_come_again_late_make_no_view_younger(cluster):
    first, second = Watcher(cluster, "first"), Watcher(cluster, "second")
    await first.watch()
    await second.watch()
    cluster.clock.seconds += 10
    assert (await first.watch()).look, "it may not have heard the answer"
    upload = await first.saw("what first saw")
    seen = await second.watch()
    assert (seen.view, seen.age, seen.look) == (None, 0.0, True), "the view is as old as the first answer"
    await second.saw("what second saw")
    cluster.clock.seconds += 10
    again = await first.watch()
    late = ViewRequest(holder="first", since=1000.0, view=upload.view, after=again.number - 1)
    await cluster.post(f"/clusters/{CLUSTER}/view", ViewResponse, late)
    assert (await second.watch()).view is None, "it says what was seen before"
    assert (await first.saw("what first sees now")).view


async def test_a_view_grows_old_while_the_server_is_asleep_and_stays_as_old_when_its_clock_is_set(cluster):
    first, second = Watcher(cluster, "first", interval=60.0), Watcher(cluster, "second", interval=60.0)
    await first.watch()
    await second.watch()
    await first.saw("what first saw")
    writer = cluster.app.state.services.writer
    cluster.clock.seconds += 50
    await writer.run(timekeeping.prolong, 50.0, "the server was suspended")
    assert (await second.watch()).age == 50.0, "jobs that were submitted meanwhile are not in it"
    await writer.run(timekeeping.shift, 50.0)  # as though the clock had been set by so much in the moment before
    assert (await second.watch()).age == 0.0


async def test_whoever_was_told_to_look_and_is_silent_is_passed_over(cluster):
    dead, other = Watcher(cluster, "dead"), Watcher(cluster, "other")
    assert (await dead.watch()).look
    cluster.clock.seconds += 29
    assert not (await other.watch()).look
    cluster.clock.seconds += 1
    assert (await other.watch()).look
    await other.saw("new")
    await dead.saw("old")
    assert (await Watcher(cluster, "third").watch()).view == "new"


async def test_a_cluster_that_does_not_answer_is_asked_ever_more_seldom(cluster):
    one, other = Watcher(cluster, "one", interval=1.0), Watcher(cluster, "other", interval=1.0)
    asked = []
    for second in range(600):
        cluster.clock.seconds += 1
        for each in (one, other):
            answer = await each.watch()
            if answer.look:
                asked.append(second)
                await each.saw(problem="it does not answer")
            else:
                assert answer.problem or not asked
    assert len(asked) < 25
    assert asked[-1] - asked[-2] >= PAUSE_SECONDS_MAX - 1
    cluster.clock.seconds += PAUSE_SECONDS_MAX
    assert (await one.watch()).look
    await one.saw("here it is again")
    seen = await other.watch()
    assert (seen.view, seen.problem) == ("here it is again", "")


@pytest.mark.parametrize(
    ("wrong", "words"), [({"holder": ""}, "holder"), ({"interval": -1.0}, "interval"), ({"silence": 1e9}, "silence")]
)
async def test_wrong_values_are_refused(cluster, wrong, words):
    values = {"holder": "me", "interval": 1.0, "silence": 30.0, "since": 0.0, **wrong}
    with pytest.raises(Refused, match=words):
        await cluster.post(f"/clusters/{CLUSTER}/watch", WatchResponse, WatchRequest(**values))


async def test_a_cluster_that_nobody_knows_is_named(cluster):
    request = WatchRequest(holder="me", interval=1.0, silence=30.0, since=0.0)
    with pytest.raises(Refused, match="There is no cluster 'nowhere'"):
        await cluster.post("/clusters/nowhere/watch", WatchResponse, request)


# -- workers and their distributor -----------------------------------------------------------------------------


async def start_worker(world, attempt, *, pid=7, host="n1", distributor_id="5_0"):
    request = WorkerStartRequest(
        task_instance_id=attempt, distributor_id=distributor_id, host=host, pid=pid, started_at=world.clock.now()
    )
    return await world.post("/worker/start", WorkerStartResponse, request)


async def end_worker(world, *reports):
    await world.post("/worker/report", WorkerReportResponse, WorkerReportRequest(reports=list(reports)))


async def launched(world, count=1, **message):
    bound = await world.bound(count)
    run = await bound.start()
    registered = await run.register()
    await run.queue()
    (batch,) = (await run.sync(capacity={CLUSTER: count}, ended_since=registered.stamp, **message)).launches
    return bound, run, registered, batch


async def test_every_server_has_an_identity_of_its_own(world, tmp_path):
    from server_world import open_world

    _, _, registered, _ = await launched(world)
    (tmp_path / "other").mkdir()
    async with open_world(tmp_path / "other") as other:
        _, _, elsewhere, _ = await launched(other)
    assert registered.server_identity.isalnum()
    assert registered.server_identity != elsewhere.server_identity


async def test_every_answer_to_those_who_report_names_the_server(world):
    _, run, registered, batch = await launched(world)
    (attempt,) = batch.task_instance_ids
    started = await start_worker(world, attempt)
    request = WorkerReportRequest(reports=[report(attempt, TI.DONE, exit_code=0)])
    reported = await world.post("/worker/report", WorkerReportResponse, request)
    names = {(one.server_identity, one.server_incarnation) for one in (registered, started, reported, await run.sync())}
    assert names == {(registered.server_identity, registered.server_incarnation)}
    assert registered.server_incarnation


async def test_a_report_about_an_attempt_that_is_not_recorded_is_said_to_be_unknown_and_the_others_count(world):
    _, run, _, batch = await launched(world)
    (attempt,) = batch.task_instance_ids
    await start_worker(world, attempt)
    request = WorkerReportRequest(reports=[report(999, TI.DONE), report(attempt, TI.DONE, exit_code=0)])
    answer = await world.post("/worker/report", WorkerReportResponse, request)
    assert (answer.unknown, list(answer.refused)) == ([999], [999])
    again = await run.sync(report(998, TI.DONE), report(attempt, TI.DONE, exit_code=0))
    assert (again.unknown, again.late) == ([998], [attempt])


async def test_an_attempt_that_has_ended_or_never_was_cannot_be_started(world):
    _, _, registered, batch = await launched(world)
    (attempt,) = batch.task_instance_ids
    await start_worker(world, attempt)
    await end_worker(world, report(attempt, TI.DONE, exit_code=0))
    for identity, status, kind in ((attempt, 409, "AttemptOver"), (999, 404, "AttemptUnknown")):
        with pytest.raises(Refused) as refused:
            await start_worker(world, identity)
        found = refused.value
        assert (found.status, found.kind, found.server_identity) == (status, kind, registered.server_identity)


async def test_an_attempt_is_run_by_one_worker_only(world):
    _, _, _, batch = await launched(world)
    (attempt,) = batch.task_instance_ids
    await start_worker(world, attempt)
    assert (await start_worker(world, attempt)).task_instance_id == attempt, "it may ask again"
    for other in ({"pid": 8}, {"host": "n2"}):
        with pytest.raises(Refused, match="was already started by process 7 on n1"):
            await start_worker(world, attempt, **other)


async def test_a_distributor_hears_what_its_workers_told_the_server(world):
    _, run, registered, batch = await launched(world, 3)
    first, second, third = batch.task_instance_ids
    assert (await run.sync()).ended_until is None, "it did not ask"
    for number, attempt in enumerate((first, second, third)):
        await start_worker(world, attempt, pid=number)
    await end_worker(world, report(first, TI.DONE, exit_code=0))
    heard = await run.sync(ended_since=registered.stamp)
    assert heard.ended == [first]
    await end_worker(world, report(second, TI.ERROR, exit_code=1, cause=Cause.EXIT_CODE))
    heard = await run.sync(ended_since=heard.ended_until)
    assert second in heard.ended
    assert third not in heard.ended
    assert (await run.sync(ended_since=heard.ended_until)).ended == []


async def test_what_ends_after_the_question_in_its_transaction_is_heard_the_next_time(world):
    """Requests that wait share a transaction and its stamp; under load an ending got lost between two questions."""
    _, run, registered, batch = await launched(world, 2)
    for number, attempt in enumerate(batch.task_instance_ids):
        await start_worker(world, attempt, pid=number)
    first, second = (
        WorkerReportRequest(reports=[report(attempt, TI.DONE, exit_code=0)]) for attempt in batch.task_instance_ids
    )
    question = SyncRequest(epoch=registered.epoch, ended_since=registered.stamp, key="between")

    def together(tx):
        worker_reports(tx, [first])
        answer = sync(tx, run.id, question)
        worker_reports(tx, [second])
        return answer

    heard = await world.app.state.services.writer.run(together)
    assert heard.ended == batch.task_instance_ids[:1]
    assert batch.task_instance_ids[1] in (await run.sync(ended_since=heard.ended_until)).ended


async def test_an_open_poll_that_hears_of_the_end_of_its_run_hears_of_the_last_endings(world):
    import asyncio

    _, run, registered, batch = await launched(world)
    (attempt,) = batch.task_instance_ids
    await start_worker(world, attempt)
    poll = asyncio.create_task(
        run.sync(ended_since=registered.stamp, wait_seconds=20.0, known_status=RUN.RUNNING, capacity={CLUSTER: 1})
    )
    await end_worker(world, report(attempt, TI.DONE, exit_code=0))
    await run.move(RUN.DONE)
    heard = await asyncio.wait_for(poll, 5)
    assert (heard.workflow_run_status, heard.ended) == (RUN.DONE, [attempt])


async def test_what_the_cluster_measured_is_added_to_what_has_ended_and_replaces_nothing(world):
    bound, run, _, batch = await launched(world, 2)
    lost, done = batch.task_instance_ids
    await run.sync(report(lost, TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST), report(done, TI.DONE, max_rss_bytes=10))
    answer = await run.sync(
        report(lost, TI.ERROR, max_rss_bytes=77, cpu_seconds=1.5, host="n1", error="too late"),
        report(done, TI.ERROR, max_rss_bytes=99, wallclock_seconds=3.0),
    )
    assert answer.late == [lost, done]
    rows = [(await world.get(f"/tasks/{task}", TaskDetail)).attempts[0] for task in bound.task_ids]
    assert [(one.status, one.max_rss_bytes, one.cpu_seconds, one.wallclock_seconds) for one in rows] == [
        (TI.UNKNOWN_ERROR, 77, 1.5, None),
        (TI.DONE, 10, None, 3.0),
    ]


async def test_hosts_on_which_workers_fail_are_left_out_while_others_do_better(world):
    bound, run, registered, batch = await launched(world, 4)
    bad, good, _, _ = batch.task_instance_ids
    failed = report(bad, TI.ERROR, cause=Cause.EXIT_CODE, exit_code=127, host="n3", distributor_id="5_0")
    world.clock.seconds += 1
    await run.sync(report(good, TI.LAUNCHED, distributor_id="5_1"), failed)

    async def excluded():
        await run.queue(bound.task_ids[:1])
        answer = await run.sync(capacity={CLUSTER: 1}, ended_since=registered.stamp)
        (given,) = answer.launches
        (attempt,) = given.task_instance_ids
        await run.sync(report(attempt, TI.ERROR, cause=Cause.NODE_FAILURE))
        return given.excluded_hosts

    assert await excluded() == [], "nothing shows that it is the host's fault"
    world.clock.seconds += 1
    await start_worker(world, good, host="n1")
    assert await excluded() == ["n3"]
    world.clock.seconds += 1
    await start_worker(world, batch.task_instance_ids[2], host="n3", pid=3)
    assert await excluded() == [], "it works again"


async def test_why_an_attempt_waits_is_explained(world):
    bound, run, _, batch = await launched(world)
    (attempt,), (task,) = batch.task_instance_ids, bound.task_ids
    watcher = Watcher(world, "me")
    assert (await watcher.watch()).look
    await watcher.saw(problem="slurm_load_jobs error: Unable to contact slurm controller")
    pending = {attempt: "Resources; estimated start 2026-01-01 10:00"}
    await run.sync(report(attempt, TI.LAUNCHED, distributor_id="5_0"), pending=pending)
    explained = await world.get(f"/tasks/{task}/explanation", TaskExplanation)
    text = " ".join(one.text for one in explained.reasons)
    assert "The cluster reports: Resources; estimated start 2026-01-01 10:00." in text
    assert "Unable to contact slurm controller" in text


async def test_who_can_see_other_jobs_looks_for_itself(cluster):
    async def watch(user):
        request = WatchRequest(holder=f"of {user}", interval=2.0, silence=30.0, since=1000.0, scope=user)
        return await cluster.post(f"/clusters/{CLUSTER}/watch", WatchResponse, request)

    assert [(await watch(user)).look for user in ("ann", "bob")] == [True, True]
    request = ViewRequest(holder="of ann", since=1000.0, view="ann's jobs", scope="ann")
    await cluster.post(f"/clusters/{CLUSTER}/view", ViewResponse, request)
    cluster.clock.seconds += 1
    assert [(await watch(user)).view for user in ("ann", "bob")] == ["ann's jobs", None]


PROBLEM = LaunchProblem(
    text="Slurm could not take the job: I/O error.", since_seconds=60.0, tried_seconds=2.0, next_seconds=30.0, waiting=2
)


async def explained(world, task_id):
    found = await world.get(f"/tasks/{task_id}/explanation", TaskExplanation)
    return " ".join(one.text for one in found.reasons)


async def test_why_nothing_can_be_submitted_is_explained_with_the_next_try(world):
    bound = await world.bound(3)
    run = await bound.start()
    await run.register()
    await run.queue(bound.task_ids[:2])
    first, second = bound.task_ids[:2]
    await run.launched(1)
    assert "is submitting it" in await explained(world, first)
    await run.sync(launch_problems={CLUSTER: PROBLEM})
    for task_id in (first, second):
        text = await explained(world, task_id)
        assert "could not be launched" in text
        assert "and is not charged: Slurm could not take the job: I/O error. The last try was at " in text
        assert "waits there for its turn" not in text
    workflow = await world.get(f"/workflows/{bound.workflow_id}/explanation", WorkflowExplanation)
    assert f"2 tasks wait to be launched on cluster {CLUSTER}: Slurm could" in " ".join(
        one.text for one in workflow.reasons
    )
    await run.sync(launch_problems={})
    assert "could not be launched" not in await explained(world, first)


async def test_the_orchestrator_is_told_at_once_and_once(world):
    bound = await world.bound(1)
    run = await bound.start()
    await run.register()
    before = await bound.changes()
    assert before.launch_problems == {}
    waiting = asyncio.create_task(bound.changes(since=before.time.isoformat(), wait_seconds=20.0))
    await asyncio.sleep(0)
    await run.sync(launch_problems={CLUSTER: PROBLEM})
    news = await asyncio.wait_for(waiting, 10)
    assert news.launch_problems == {CLUSTER: PROBLEM.text}
    await run.sync(launch_problems={CLUSTER: replace(PROBLEM, next_seconds=60.0)})
    later = await bound.changes(since=news.time.isoformat(), wait_seconds=0.0)
    assert later.launch_problems == {CLUSTER: PROBLEM.text}


async def test_what_an_earlier_distributor_met_is_forgotten_and_others_hear_nothing_of_it(world):
    bound = await world.bound(1)
    run = await bound.start()
    await run.register()
    await run.sync(launch_problems={CLUSTER: PROBLEM, "nowhere": PROBLEM})
    assert (await run.sync()).workflow_run_status == RUN.RUNNING
    assert (await bound.changes()).launch_problems == {CLUSTER: PROBLEM.text}
    watched = await Watcher(world, "somebody").watch()
    assert watched.problem == ""
    await run.register("another")
    assert (await bound.changes()).launch_problems == {}
