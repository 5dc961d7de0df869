"""Expansions on the server: who may call them, and what a version of an expansion does to the workflow."""

from __future__ import annotations

import pytest
from msgspec import structs
from server_world import Refused
from tests.databases import change

from jobmon.core.changes import StatusChange
from jobmon.core.constants import TaskStatus
from jobmon.core.wire.binding import TasksResponse
from jobmon.core.wire.changes import (
    DefinitionPage,
    SealRequest,
    StagedStatuses,
    StagedTasks,
    StagedUpstreams,
    UpstreamsRequest,
    UpstreamsResponse,
    VersionRequest,
    VersionResponse,
)
from jobmon.core.wire.expanding import CallFailedRequest, CallRequest, CallResponse, ExpansionsPage, UpstreamTasks
from jobmon.core.wire.run import RunStatusRequest, RunStatusResponse
from jobmon.core.wire.steering import AdjustRequest, EditRequest, EditResponse, TaskSetPlan, TaskSetRequest
from jobmon.server.usecases import versions

#: Positions of the tasks: what the expansion waits for, the expansion, and what waits for it.
FIRST, EXPANSION, LAST = range(3)


@pytest.fixture
async def bound(world):
    """A workflow whose middle task is an expansion."""
    bound = await world.bound(3, edges={1: [0], 2: [1]})
    change(world.database_uri, f"UPDATE task SET kind = 'E' WHERE id = {bound.task_ids[EXPANSION]}")
    return bound


class Call:
    """A client that calls the expansion of a workflow in a run, and adds two tasks."""

    def __init__(self, world, bound, run, key="one"):
        self.world, self.bound, self.run, self.key = world, bound, run, key
        self.task_id = bound.task_ids[EXPANSION]
        self.number, self.parts = 0, 0

    async def begin(self):
        """Announce the call, twice because every request may arrive twice."""
        route = f"/workflow_runs/{self.run.id}/expansions/{self.task_id}/call"
        await self.world.post(route, CallResponse, CallRequest())
        return await self.world.post(route, CallResponse, CallRequest())

    async def fail(self, *, is_final=True):
        route = f"/workflow_runs/{self.run.id}/expansions/{self.task_id}/failed"
        request = CallFailedRequest(error="ValueError: no", is_final=is_final)
        answers = [await self.world.post(route, CallResponse, request) for _ in range(2)]
        assert answers[0] == answers[1]
        return answers[0]

    async def stage(self):
        route = f"/workflows/{self.bound.workflow_id}/versions"
        request = VersionRequest(
            key=self.key,
            base=0,
            dag_hash="",
            task_hash="",
            task_count=0,
            task_counts={},
            user="me",
            host="here",
            summary=["2 tasks added"],
            expansion_id=self.task_id,
            workflow_run_id=self.run.id,
        )
        self.number = (await self.world.post(route, VersionResponse, request)).number
        self.parts = 0
        self.added = (await self.send("tasks", StagedTasks, TasksResponse, **self.new())).task_ids
        await self.send("upstreams", StagedUpstreams, set_numbers=[1], members=[[self.task_id]])
        await self.send("upstreams", StagedUpstreams, task_ids=self.added, task_sets=[1, 1])
        await self.send("statuses", StagedStatuses, change=StatusChange.EXPANDED, task_ids=[self.task_id])

    def new(self, names=("new one", "new two")):
        tasks = self.bound.tasks
        common = structs.asdict(tasks)
        two = {name: values[:2] if isinstance(values, list) else values for name, values in common.items()}
        digits = [str(8 + at) for at in range(2)]
        return two | {
            "names": list(names),
            "commands": [f"echo {name}" for name in names],
            "node_hashes": [digit * 64 for digit in digits],
            "task_hashes": [digit * 64 for digit in digits],
            "node_args": {"x": list(names)},
            "task_args": {"y": list(names)},
            "attributes": {},
        }

    async def send(self, kind, message, reply=None, **values):
        request = message(key=self.key, position=self.parts, **values)
        route = f"/workflows/{self.bound.workflow_id}/versions/{self.number}/{kind}"
        answers = [await self.world.post(route, reply, request) for _ in range(2)]
        self.parts += 1
        return answers[1]

    async def seal(self):
        request = SealRequest(key=self.key, parts=self.parts)
        route = f"/workflows/{self.bound.workflow_id}/versions/{self.number}/seal"
        await self.world.post(route, VersionResponse, request)
        return await self.world.post(route, VersionResponse, request)


async def shown(world, bound):
    """Return statuses and upstream tasks of all tasks that are not removed, by ID."""
    page = await world.get(f"/workflows/{bound.workflow_id}/definition", DefinitionPage)
    sets = sorted(filter(None, page.set_ids))
    request = UpstreamsRequest(set_ids=sets)
    answer = await world.post(f"/workflows/{bound.workflow_id}/upstreams", UpstreamsResponse, request)
    members = dict(zip(sets, map(sorted, answer.task_ids), strict=True)) | {0: []}
    rows = zip(page.task_ids, page.statuses, page.set_ids, strict=True)
    return {task_id: (status, members[set_id]) for task_id, status, set_id in rows if status != "X"}


async def test_added_tasks_are_upstream_of_whatever_waits_for_the_expansion(world, bound):
    call = Call(world, bound, await bound.start())
    assert await call.begin() == CallResponse(status=TaskStatus.RUNNING, calls=1)
    await call.stage()
    first, expansion, last = bound.task_ids
    assert await shown(world, bound) == {first: ("G", []), expansion: ("R", [first]), last: ("G", [expansion])}
    assert (await call.seal()).number == 2
    one, two = call.added
    assert await shown(world, bound) == {
        first: ("G", []),
        expansion: ("D", [first]),
        last: ("G", [expansion, one, two]),
        one: ("G", [expansion]),
        two: ("G", [expansion]),
    }
    page = await world.get(f"/workflows/{bound.workflow_id}/definition", DefinitionPage)
    assert page.expansions == [EXPANSION]
    assert page.origins == {3: expansion, 4: expansion}
    assert page.queued[EXPANSION] < page.ended[EXPANSION]
    found = await world.get(f"/workflows/{bound.workflow_id}/expansions", ExpansionsPage)
    assert (found.task_ids, found.statuses, found.added, found.errors) == ([expansion], ["D"], [2], {})
    upstream = await world.get(f"/tasks/{last}/upstream_tasks", UpstreamTasks)
    assert (upstream.task_ids, upstream.is_last) == ([one, two], True)


@pytest.mark.parametrize("applied", range(5))
async def test_a_crash_between_two_parts_is_completed_once(world, bound, applied):
    run = await bound.start()
    call = Call(world, bound, run)
    await call.begin()
    await call.stage()
    write = world.app.state.services.writer.run
    await write(versions.seal, bound.workflow_id, call.number, SealRequest(key="one", parts=call.parts))
    for _ in range(applied):
        await write(versions.apply_part, bound.workflow_id)
    await world.post(f"/workflows/{bound.workflow_id}/complete_version", VersionResponse)
    await world.post(f"/workflows/{bound.workflow_id}/complete_version", VersionResponse)
    found = await shown(world, bound)
    assert [found[task_id][0] for task_id in (call.task_id, *call.added)] == ["D", "G", "G"]
    assert found[bound.task_ids[LAST]][1] == [call.task_id, *call.added]


async def test_a_run_that_ended_can_neither_call_nor_add(world, bound):
    run = await bound.start()
    call = Call(world, bound, run)
    await call.begin()
    await call.stage()
    await world.post(f"/workflow_runs/{run.id}/status", RunStatusResponse, RunStatusRequest(status="E"))
    assert (await shown(world, bound))[call.task_id][0] == "G", "the next run calls it again"
    for refused in (call.seal, call.begin, call.stage):
        with pytest.raises(Refused, match="may no longer add tasks"):
            await refused()
    again = Call(world, bound, await bound.start(), key="two")
    assert (await again.begin()).calls == 2
    await again.stage()
    await again.seal()
    assert len(await shown(world, bound)) == 5


async def test_failed_calls(world, bound):
    call = Call(world, bound, await bound.start())
    await call.begin()
    assert (await call.fail(is_final=False)).status == "G"
    assert (await call.begin()).calls == 2
    assert (await call.fail()).status == "F"
    assert (await call.begin()).status == "F"
    found = await world.get(f"/workflows/{bound.workflow_id}/expansions", ExpansionsPage)
    assert found.errors == {0: "ValueError: no"}


async def test_what_is_no_expansion_of_the_workflow(world, bound):
    run = await bound.start()
    for task_id in (bound.task_ids[FIRST], 999):
        with pytest.raises(Refused, match=f"expansion of workflow {bound.workflow_id} with id"):
            await world.post(f"/workflow_runs/{run.id}/expansions/{task_id}/call", CallResponse, CallRequest())


async def test_tasks_that_exist_are_refused_and_nothing_is_changed(world, bound):
    call = Call(world, bound, await bound.start())
    await call.begin()
    before = await shown(world, bound)
    tasks = bound.tasks
    existing = {"node_hashes": tasks.node_hashes[:2], "commands": ["echo other"] * 2}
    call.new = lambda: Call.new(call) | existing
    with pytest.raises(Refused, match="is already in workflow"):
        await call.stage()
    assert await shown(world, bound) == before


async def test_a_version_says_of_no_other_expansion_that_it_is_done(world, bound):
    call = Call(world, bound, await bound.start())
    await call.begin()
    await call.stage()
    with pytest.raises(Refused, match="must be the expansion of the version"):
        await call.send("statuses", StagedStatuses, change=StatusChange.EXPANDED, task_ids=bound.task_ids[:1])


async def test_an_expansion_is_never_queued(world, bound):
    run = await bound.start()
    assert await run.queue([bound.task_ids[EXPANSION]]) == {"G": [bound.task_ids[EXPANSION]]}


async def test_what_an_expansion_added_is_read_from_its_own_workflow_only(world, bound):
    other = await world.bound(1)
    call = Call(world, bound, await bound.start())
    await call.begin()
    await call.stage()
    await call.seal()
    for workflow, added in ((bound, call.added), (other, [])):
        route = f"/workflows/{workflow.workflow_id}/definition"
        assert (await world.get(route, DefinitionPage, origin=call.task_id)).task_ids == added


# -- steering ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"command": "expansion 1 1 os:system"}, {"max_attempts": 5}])
async def test_an_expansion_cannot_be_edited(world, bound, change):
    ids = [bound.task_ids[FIRST], bound.task_ids[EXPANSION]]
    route = f"/workflows/{bound.workflow_id}"
    with pytest.raises(Refused, match=f"Task {ids[1]} is an expansion"):
        await world.post(
            f"{route}/edits", EditResponse, EditRequest(task_ids=ids, revisions=[1, 1], user="me", **change)
        )
    with pytest.raises(Refused, match=f"Task {ids[1]} is an expansion"):
        await world.post(f"{route}/adjustments", EditResponse, AdjustRequest(task_ids=ids, memory="2G", user="me"))
    assert world.rows("SELECT DISTINCT revision FROM task") == [(1,)]
    found = await world.post(f"{route}/task_sets/plan", TaskSetPlan, TaskSetRequest(action="edit", task_ids=ids))
    assert (found.task_ids, found.unchanged) == (ids[:1], 1)
