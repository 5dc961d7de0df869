"""Versions on the server: staged changes are invisible, sealed ones are completed and applied once."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from msgspec import structs
from server_world import Refused
from tests.databases import change

from jobmon.core.changes import StatusChange, upstreams_hash
from jobmon.core.wire.binding import TasksResponse
from jobmon.core.wire.changes import (
    DefinitionPage,
    DropRequest,
    RecordedWorkflow,
    SealRequest,
    StagedDefinitions,
    StagedStatuses,
    StagedTasks,
    StagedUpstreams,
    UpstreamsRequest,
    UpstreamsResponse,
    VersionRequest,
    VersionResponse,
)
from jobmon.core.wire.run import RunRequest, RunResponse
from jobmon.server.usecases import private_dag, versions

RUN = RunRequest(key="k", user="me", host="h", pid=1, pid_start_time=1.0, version="0", next_report_increment=90)


class Changer:
    """A client that changes a workflow of four tasks: a new one, a new command, another set, one removed."""

    def __init__(self, world, bound, key="one"):
        self.world, self.bound, self.key = world, bound, key
        self.number, self.parts = 0, 0
        self.route = f"/workflows/{bound.workflow_id}/versions"

    async def begin(self, base=1):
        request = VersionRequest(
            key=self.key,
            base=base,
            dag_hash="d" * 64,
            task_hash="t" * 64,
            task_count=4,
            task_counts={"t": 4},
            user="me",
            host="here",
            summary=["something else"],
        )
        self.number = (await self.world.post(self.route, VersionResponse, request)).number
        self.parts = 0

    async def send(self, kind, message, reply=None, **values):
        request = message(key=self.key, position=self.parts, **values)
        answers = [await self.world.post(f"{self.route}/{self.number}/{kind}", reply, request) for _ in range(2)]
        self.parts += 1
        assert answers[0] == answers[1]  # every request may arrive twice
        return answers[0]

    async def stage(self):
        tasks, ids = self.bound.tasks, self.bound.task_ids
        common = structs.asdict(tasks)
        one = {name: values[:1] if isinstance(values, list) else values for name, values in common.items()}
        new = one | {
            "names": ["new"],
            "commands": ["echo new"],
            "node_hashes": ["9" * 64],
            "task_hashes": ["8" * 64],
            "node_args": {"x": ["new"]},
            "task_args": {"y": ["new"]},
            "attributes": {},
        }
        found = await self.send("tasks", StagedTasks, TasksResponse, **new)
        self.added = found.task_ids[0]
        changed = {name: value for name, value in one.items() if name in StagedDefinitions.__struct_fields__}
        changed |= {"commands": ["echo changed"], "task_args": {"y": ["other"]}, "attributes": {}}
        await self.send("definitions", StagedDefinitions, **changed, task_ids=ids[:1], upstreams=[upstreams_hash(())])
        await self.send("upstreams", StagedUpstreams, set_numbers=[1], members=[[ids[0], self.added]])
        await self.send("upstreams", StagedUpstreams, task_ids=[ids[2]], task_sets=[1])
        await self.send("statuses", StagedStatuses, change=StatusChange.REMOVE, task_ids=[ids[3]])

    async def seal(self):
        request = SealRequest(key=self.key, parts=self.parts)
        return await self.world.post(f"{self.route}/{self.number}/seal", VersionResponse, request)


@pytest.fixture
async def bound(world):
    return await world.bound(4, edges={2: [0, 1], 3: [2]})


async def shown(world, bound):
    """Return commands, statuses and upstream tasks by id, and the version."""
    page = await world.get(f"/workflows/{bound.workflow_id}/definition", DefinitionPage)
    sets = sorted(filter(None, page.set_ids))
    answer = await world.post(
        f"/workflows/{bound.workflow_id}/upstreams", UpstreamsResponse, UpstreamsRequest(set_ids=sets)
    )
    members = dict(zip(sets, map(sorted, answer.task_ids), strict=True)) | {0: []}
    tasks = {
        task_id: (command, status, members[set_id])
        for task_id, command, status, set_id in zip(
            page.task_ids, page.commands, page.statuses, page.set_ids, strict=True
        )
    }
    version = (await world.get(f"/workflows/{bound.workflow_id}/recorded", RecordedWorkflow)).version
    return version, tasks


def wanted(bound, added):
    one, two, three, four = bound.task_ids
    commands = bound.tasks.commands
    return 2, {
        one: ("echo changed", "G", []),
        two: (commands[1], "G", []),
        three: (commands[2], "G", [one, added]),
        four: (commands[3], "X", [three]),
        added: ("echo new", "G", []),
    }


async def test_a_version_is_applied_as_a_whole(world, bound):
    before = await shown(world, bound)
    changer = Changer(world, bound)
    await changer.begin()
    await changer.stage()
    version, tasks = await shown(world, bound)
    assert (version, {task_id: tasks[task_id] for task_id in bound.task_ids}) == before
    assert tasks[changer.added][1] == "X"  # not in the workflow yet
    assert (await changer.seal()).number == 2
    assert await shown(world, bound) == wanted(bound, changer.added)
    assert (await changer.seal()).number == 2  # the answer was lost
    assert world.rows("SELECT revision FROM task ORDER BY id") == [(2,), (1,), (1,), (1,), (1,)]
    [(_, revision, command, args)] = world.rows("SELECT task_id, revision, command, task_args FROM task_revision")
    assert (revision, command) == (1, bound.tasks.commands[0])
    assert json.loads(args) == {"y": bound.tasks.task_args["y"][0]}


@pytest.mark.parametrize("applied", range(6))
async def test_a_crash_at_any_part_is_completed_by_whoever_comes_next(world, bound, applied):
    changer = Changer(world, bound)
    await changer.begin()
    await changer.stage()
    run = world.app.state.services.writer.run
    request = SealRequest(key=changer.key, parts=changer.parts)
    await run(versions.seal, bound.workflow_id, changer.number, request)
    for _ in range(applied):
        await run(versions.apply_part, bound.workflow_id)
    with pytest.raises(Refused, match=r"Version 2 of workflow .* is not completely applied. To complete it, resume"):
        await world.post(f"/workflows/{bound.workflow_id}/runs", RunResponse, RUN)
    with pytest.raises(Refused, match="is being changed by another client"):
        await Changer(world, bound, "other").begin()
    for _ in range(2):
        done = await world.post(f"/workflows/{bound.workflow_id}/complete_version", VersionResponse)
        assert done.number == 2
    assert await shown(world, bound) == wanted(bound, changer.added)
    await world.post(f"/workflows/{bound.workflow_id}/runs", RunResponse, RUN)


async def test_of_two_one_wins_and_the_other_is_told(world, bound):
    one, other = Changer(world, bound, "one"), Changer(world, bound, "other")
    await one.begin()
    await one.stage()
    await other.begin()  # drops what the first one staged
    with pytest.raises(Refused, match=r"was changed in the meantime\. Plan again") as refused:
        await one.seal()
    assert refused.value.kind == "WorkflowVersionConflict"
    await other.stage()
    await other.seal()
    with pytest.raises(Refused, match=r"was changed in the meantime \(version 2, me on here, .* UTC\)"):
        await one.begin()
    assert await shown(world, bound) == wanted(bound, other.added)


async def test_a_run_in_between_drops_what_was_staged(world, bound):
    changer = Changer(world, bound)
    await changer.begin()
    await changer.stage()
    await world.post(f"/workflows/{bound.workflow_id}/runs", RunResponse, RUN)
    with pytest.raises(Refused, match="Plan again"):
        await changer.seal()
    with pytest.raises(Refused, match="is being run by process 1 on h"):
        await Changer(world, bound, "other").begin()


async def test_a_version_can_be_dropped_until_a_part_is_in_force(world, bound):
    before = await shown(world, bound)
    run = world.app.state.services.writer.run
    route = f"/workflows/{bound.workflow_id}/drop_version"
    with pytest.raises(Refused, match="has no version that is waiting"):
        await world.post(route, None, DropRequest())
    changer = Changer(world, bound)
    await changer.begin()
    await changer.stage()
    request = SealRequest(key=changer.key, parts=changer.parts)
    await run(versions.seal, bound.workflow_id, changer.number, request)
    await world.post(route, None, DropRequest())
    version, tasks = await shown(world, bound)
    assert (version, {task_id: tasks[task_id] for task_id in bound.task_ids}) == before
    again = Changer(world, bound, "again")
    await again.begin()
    await again.stage()
    await run(versions.seal, bound.workflow_id, again.number, SealRequest(key="again", parts=again.parts))
    await run(versions.apply_part, bound.workflow_id)
    with pytest.raises(Refused, match=r"1 of 5 parts of version 2 .* are applied; it can only be completed"):
        await world.post(route, None, DropRequest())


async def test_parts_that_are_missing_are_noticed(world, bound):
    changer = Changer(world, bound)
    await changer.begin()
    await changer.stage()
    changer.parts += 1
    with pytest.raises(Refused, match="parts: 5 were sent, not 6"):
        await changer.seal()


@pytest.mark.parametrize("most", [1, 2, 100])
async def test_a_shared_dag_is_copied_in_parts_and_the_other_workflow_keeps_it(world, monkeypatch, most):
    monkeypatch.setattr(private_dag, "SETS_COPIED_PER_TRANSACTION", most)
    bound = await world.bound(4, edges={2: [0, 1], 3: [2]})
    [(dag_id,)] = world.rows("SELECT dag_id FROM workflow")
    other = await world.bound(1)
    change(world.database_uri, "UPDATE workflow SET dag_id = :dag WHERE id = :id", dag=dag_id, id=other.workflow_id)
    changer = Changer(world, bound)
    await changer.begin()
    await changer.stage()
    assert (await changer.seal()).dag_id != dag_id
    assert await shown(world, bound) == wanted(bound, changer.added)
    [(sets,)] = world.rows(f"SELECT count(*) FROM upstream_set WHERE dag_id = {dag_id}")
    assert sets == 2


@pytest.mark.parametrize("is_shared", [False, True])
async def test_a_set_that_all_its_users_change_is_edited_in_place(world, is_shared):
    bound = await world.bound(4, edges={2: [0, 1], 3: [2]})
    [(dag_id,)] = world.rows("SELECT dag_id FROM workflow")
    if is_shared:
        other = await world.bound(1)
        change(world.database_uri, "UPDATE workflow SET dag_id = :dag WHERE id = :id", dag=dag_id, id=other.workflow_id)
    one, two, three, four = bound.task_ids
    page = await world.get(f"/workflows/{bound.workflow_id}/definition", DefinitionPage)
    changer = Changer(world, bound)
    await changer.begin()
    edit = {"edited": [page.set_ids[2]], "gained": [[]], "lost": [[two]]}
    await changer.send("upstreams", StagedUpstreams, **edit)
    await changer.seal()
    _, tasks = await shown(world, bound)
    assert [tasks[task_id][2] for task_id in (three, four)] == [[one], [three]]
    members = world.rows(
        f"SELECT m.node_id FROM upstream_set_member m JOIN upstream_set u ON u.id = m.upstream_set_id"
        f" WHERE u.dag_id = {dag_id}"
    )
    assert len(members) == (3 if is_shared else 2)


async def test_what_does_not_fit_is_refused(world, bound):
    changer = Changer(world, bound)
    await changer.begin()
    for kind, message, values, text in (
        ("statuses", StagedStatuses, {"change": "burn", "task_ids": []}, "change: must be one of"),
        ("statuses", StagedStatuses, {"change": "accept", "task_ids": bound.task_ids}, "accepted: must have"),
        ("statuses", StagedStatuses, {"change": "add", "task_ids": [999_999]}, "999999"),
        ("upstreams", StagedUpstreams, {"set_numbers": [1]}, "must have as many entries"),
        ("upstreams", StagedUpstreams, {"edited": [99], "gained": [[]], "lost": [[]]}, "99"),
    ):
        with pytest.raises(Refused, match=text):
            await changer.send(kind, message, **values)


def test_hashes_of_sets_do_not_depend_on_order():
    assert upstreams_hash([3, 1, 2]) == upstreams_hash([1, 2, 3]) == sha256(b"1,2,3").hexdigest()
