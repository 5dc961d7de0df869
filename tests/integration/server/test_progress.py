"""Counts by template, and the time left: unknown durations, chains, blocked tasks."""

from __future__ import annotations

import random
from datetime import timedelta

from server_world import RUN, TI, open_world, report
from tests.databases import change

from jobmon.core.wire.failures import FailuresResponse
from jobmon.core.wire.monitoring import ProgressResponse, WorkflowView
from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse
from jobmon.core.wire.steering import TaskUpdateResponse
from jobmon.server.kept import Kept
from jobmon.server.queries import failed
from jobmon.server.queries.blocked import Blocked
from jobmon.server.queries.progress import progress as progress_of
from jobmon.server.recent import Recent

SECONDS = 10.0


async def progress(world, bound) -> ProgressResponse:
    return await world.get(f"/workflows/{bound.workflow_id}/progress", ProgressResponse)


async def done(world, run, task_id, status=TI.DONE):
    """Have a task take ten seconds."""
    await run.queue([task_id])
    (attempt,) = (await run.launched()).task_instance_ids
    started = world.clock.now()
    world.clock.seconds += SECONDS
    times = {"started_at": started, "ended_at": started + timedelta(seconds=SECONDS), "wallclock_seconds": SECONDS}
    await run.sync(report(attempt, status, **times))


async def test_a_chain_takes_as_long_as_its_tasks(tmp_path):
    async with open_world(tmp_path) as world:
        bound = await world.bound(12, edges={number: [number - 1] for number in range(1, 12)})
        run = await bound.start()
        await run.register()
        found = await progress(world, bound)
        assert [(one.name, one.counts, one.seconds) for one in found.templates] == [("t", {"G": 12}, None)]
        assert (found.left_from, found.left_to) == (None, None)
        for number in range(6):
            await done(world, run, bound.task_ids[number])
        found = await progress(world, bound)
        assert (found.left_from, found.left_to, found.unknown, found.blocked) == (60.0, 60.0, 0, 0)
        assert found.templates[0].seconds == SECONDS
        route = f"/workflows/{bound.workflow_id}/concurrency"
        await world.call("PUT", route, ConcurrencyResponse, ConcurrencyRequest(max_concurrently_running=0, user="me"))
        assert (await progress(world, bound)).left_to is None  # paused: unknown


async def test_what_will_never_run_takes_no_time(tmp_path):
    async with open_world(tmp_path) as world:
        bound = await world.bound(10, max_attempts=1, edges={8: [7], 9: [8]})
        run = await bound.start()
        await run.register()
        for number in range(6):
            await done(world, run, bound.task_ids[number])
        before = await progress(world, bound)
        await done(world, run, bound.task_ids[7], TI.ERROR)
        after = await progress(world, bound)
        assert (before.blocked, after.blocked) == (0, 2)
        assert before.left_from == 30.0  # the chain of three
        assert (after.left_from, after.left_to) == (10.0, 10.0)
        await done(world, run, bound.task_ids[6])
        await run.move(RUN.ERROR)
        assert (await progress(world, bound)).left_to is None


async def test_blocked_tasks_are_counted_again_as_soon_as_something_else_failed_or_a_user_acted(world):
    bound = await world.bound(9, max_attempts=1, edges={3: [0], 4: [3], 5: [1], 6: [2]})
    run = await bound.start()
    await run.register()

    async def blocked():
        """Return how many tasks are blocked: what is kept, which must be what is found anew."""
        shown = (await progress(world, bound)).blocked
        assert (
            shown
            == (await world.app.state.services.readers.run(progress_of, bound.workflow_id, Recent(), Kept())).blocked
        )
        return shown

    assert await blocked() == 0
    await done(world, run, bound.task_ids[0], TI.ERROR)
    assert await blocked() == 2
    await done(world, run, bound.task_ids[1], TI.ERROR)
    assert await blocked() == 3
    await done(world, run, bound.task_ids[8])
    assert await blocked() == 3
    message = {"task_ids": [bound.task_ids[3]], "status": "S", "user": "me", "force": True}
    await world.post(f"/workflows/{bound.workflow_id}/task_updates", TaskUpdateResponse, message)
    assert await blocked() == 1
    message = {"task_ids": [bound.task_ids[1]], "status": "G", "user": "me", "force": True}
    await world.post(f"/workflows/{bound.workflow_id}/task_updates", TaskUpdateResponse, message)
    assert await blocked() == 0


async def test_what_new_failures_block_is_added_once(world, monkeypatch):
    """A graph in which tasks are behind several failures, some of which come together, and others are done."""
    chance = random.Random(5)
    edges = {number: chance.sample(range(number), min(number, 3)) for number in range(4, 40) if number % 3}
    bound = await world.bound(40, max_attempts=1, edges=edges)
    run = await bound.start()
    await run.register()
    found = []
    find_all = Blocked._find_all
    monkeypatch.setattr(Blocked, "_find_all", lambda self, *given: found.append(self) or find_all(self, *given))
    kept = world.app.state.services.kept
    ready = [number for number in range(40) if number not in edges]
    ended, failures = set(), 0
    while ready:
        chosen = chance.sample(ready, min(len(ready), 3))
        for number in chosen:
            fails = chance.random() < 0.3
            failures += fails
            await done(world, run, bound.task_ids[number], TI.ERROR if fails else TI.DONE)
            ready.remove(number)
            if not fails:
                ended.add(number)
                ready += [one for one, before in edges.items() if number in before and ended.issuperset(before)]
        shown = (await progress(world, bound)).blocked
        fresh = await world.app.state.services.readers.run(progress_of, bound.workflow_id, Recent(), Kept())
        assert shown == fresh.blocked
    assert failures > 3
    own = kept._slots["blocked", bound.workflow_id].part
    assert found.count(own) == 1


async def test_a_failure_is_in_the_groups_at_once_also_if_earlier_ones_are_not_read_again(world, monkeypatch):
    monkeypatch.setattr(failed, "KEPT_FAILURES_MIN", 1)
    bound = await world.bound(4, max_attempts=1)
    run = await bound.start()
    await run.register()

    async def failures():
        found = await world.get(f"/workflows/{bound.workflow_id}/failures", FailuresResponse)
        return found.failures, sorted(group.task_id for group in found.groups)

    for number, ending in enumerate((TI.ERROR, TI.DONE, TI.ERROR)):
        await done(world, run, bound.task_ids[number], ending)
        count = 1 + (number > 1)
        assert (await failures())[0] == count
    await run.queue([bound.task_ids[3]])
    (attempt,) = (await run.launched()).task_instance_ids
    await run.sync(report(attempt, TI.ERROR, error="something else"))
    assert await failures() == (3, [bound.task_ids[2], bound.task_ids[3]])
    change(world.database_uri, f"UPDATE task_instance SET charged = (1 = 0) WHERE id = {attempt}")
    world.app.state.services.answers._kept.clear()  # the server does not know that something was written
    assert await failures() == (2, [bound.task_ids[2]])


async def test_an_answer_that_its_reader_has_is_not_sent_again_and_a_change_is_seen_at_once(world):
    flow = await world.bound(1)
    route = f"/api/v1/workflows/{flow.workflow_id}/progress"
    first = await world.http.get(route)
    again = await world.http.get(route, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    run = await flow.start()
    await run.queue()
    changed = await world.http.get(route, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.json()["templates"][0]["counts"] == {"Q": 1}


async def test_a_view_is_of_one_moment_and_compressed_for_readers_who_can_read_that(world):
    flow = await world.bound(3)
    view = await world.get(f"/workflows/{flow.workflow_id}/view", WorkflowView)
    assert view.progress.templates[0].counts == view.explanation.counts == {"G": 3}
    assert view.snapshot > 0
    answer = await world.http.get("/api/v1/workflows", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in answer.headers
