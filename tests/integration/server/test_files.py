"""Declared files: recorded per array, handed out with attempts, and recorded as attempts found them."""

import json
from datetime import UTC, datetime

import pytest
from agent_world import Agent
from pack_world import make_pack
from server_world import TI, Refused, report

from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING, Cause
from jobmon.core.wire.binding import ArraySpec, ArraysRequest, FilePattern, IdsResponse
from jobmon.core.wire.files import DeclaredFiles, SeenFile
from jobmon.core.wire.launching import FoundFile, LaunchFiles, WorkerStartRequest, WorkerStartResponse
from jobmon.core.wire.monitoring import TaskDetail
from jobmon.server import command_room


def patterns(*texts):
    return [FilePattern(name="", pattern=text) for text in texts]


async def declare(bound, inputs=(), outputs=()):
    """Declare the files of the workflow's only array, as a resume does."""
    spec = ArraySpec(
        task_template_version_id=bound.tasks.task_template_version_id,
        name="t",
        max_concurrently_running=MAX_CONCURRENTLY_RUNNING,
        inputs=patterns(*inputs),
        outputs=patterns(*outputs),
    )
    return await bound.world.post(f"/workflows/{bound.workflow_id}/arrays", IdsResponse, ArraysRequest(arrays=[spec]))


async def started(world, count=2, inputs=("in/{x}", "/ref/{y}.txt"), outputs=("out/{x}/",), **options):
    bound = await world.bound(count, **options)
    await declare(bound, inputs, outputs)
    run = await bound.start()
    await run.queue()
    return bound, run


async def test_each_attempt_gets_its_paths(world):
    _, run = await started(world)
    agent = await Agent.register(run)
    launches = (await agent.sync(cores_free=100.0)).launches
    assert [launches.files[one] for one in launches.task_instance_ids] == [
        LaunchFiles(inputs=["/tmp/in/0", "/ref/same.txt"], outputs=["/tmp/out/0/"]),
        LaunchFiles(inputs=["/tmp/in/1", "/ref/same.txt"], outputs=["/tmp/out/1/"]),
    ]


async def test_without_declared_files_nothing_is_sent(world):
    _, run = await started(world, inputs=(), outputs=())
    agent = await Agent.register(run)
    assert (await agent.sync(cores_free=100.0)).launches.files == {}
    assert world.rows("SELECT COUNT(*) FROM template_files") == [(0,)]


async def test_a_worker_gets_its_paths(world):
    _, run = await started(world, 1)
    await run.register()
    batch = await run.launched()
    request = WorkerStartRequest(
        task_instance_id=batch.task_instance_ids[0], host="node", pid=5, started_at=datetime(2026, 10, 1, tzinfo=UTC)
    )
    answer = await world.post("/worker/start", WorkerStartResponse, request)
    assert answer.files == LaunchFiles(inputs=["/tmp/in/0", "/ref/same.txt"], outputs=["/tmp/out/0/"])


async def test_what_is_declared_may_change_and_is_stored_once(world):
    bound, _ = await started(world)
    await declare(bound, ["in/{x}"])
    await declare(bound, ["in/{x}"])
    [(content,)] = world.rows(
        "SELECT content FROM template_files JOIN task_array ON files_id = template_files.id WHERE task_array.id = :id",
        id=bound.array_id,
    )
    assert json.loads(content) == {"inputs": [["", "in/{x}"]], "outputs": []}
    assert world.rows("SELECT COUNT(*) FROM template_files") == [(2,)]
    await declare(bound)
    assert world.rows("SELECT files_id FROM task_array WHERE id = :id", id=bound.array_id) == [(None,)]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("{z}", "unknown argument 'z'"), ("{x:>9999999999}", "formats 'x'"), ("", "non-empty"), ("{x", "cannot be read")],
)
async def test_an_invalid_pattern_is_rejected(world, pattern, message):
    bound = await world.bound(1)
    with pytest.raises(Refused, match=message) as caught:
        await declare(bound, [pattern])
    assert caught.value.status == 422


def found(is_output, path, size=5):
    return FoundFile(is_output=is_output, path=path, matches=1, size_bytes=size, modified=7)


async def test_what_an_attempt_found_is_recorded_once(world):
    bound, run = await started(world, 1)
    agent = await Agent.register(run)
    [attempt] = await agent.claim()
    done = report(attempt, TI.DONE, files=[found(False, "/tmp/in/0"), found(True, "/tmp/out/0/", 0)])
    await agent.sync(done)
    await agent.sync(done)
    rows = world.rows("SELECT is_output, path, matches, size_bytes, modified FROM attempt_file ORDER BY position")
    assert [(bool(row[0]), *row[1:]) for row in rows] == [
        (False, "/tmp/in/0", 1, 5, 7),
        (True, "/tmp/out/0/", 1, 0, 7),
    ]
    assert (await bound.statuses())[bound.task_ids[0]] == "D"


async def failed(world, bound, run, path, **values):
    agent = await Agent.register(run)
    attempt = (await agent.claim())[-1]
    await agent.sync(report(attempt, TI.ERROR_FATAL, cause=Cause.INPUT_MISSING, missing_file=path, **values))
    [(task_id,)] = world.rows("SELECT task_id FROM task_instance WHERE id = :id", id=attempt)
    assert (await bound.statuses())[task_id] == "F"
    return world.rows("SELECT error, cause FROM task_instance WHERE id = :id", id=attempt)[0]


async def test_the_message_names_the_task_that_writes_a_missing_input(world):
    bound = await world.bound(2, edges={1: [0]})
    await declare(bound, [], ["out/{x}.csv"])
    run = await bound.start()
    await run.queue([bound.task_ids[0]])
    agent = await Agent.register(run)
    [first] = await agent.claim()
    await agent.sync(report(first, TI.DONE))
    await run.queue([bound.task_ids[1]])
    error, cause = await failed(world, bound, run, "/tmp/out/0.csv")
    assert cause == "input missing"
    writer = bound.task_ids[0]
    assert error == f"Input out/0.csv is missing; task t_0 ({writer}) writes it: jobmon task rerun {writer}"


async def test_the_message_names_all_tasks_that_write_a_missing_input(world):
    bound = await world.bound(3, edges={2: [0, 1]})
    await declare(bound, [], ["out/{x}.csv"])
    run = await bound.start()
    first, second, last = bound.task_ids
    await run.queue([first, second])
    agent = await Agent.register(run)
    for attempt in await agent.claim():
        await agent.sync(report(attempt, TI.DONE))
    await run.queue([last])
    error, _ = await failed(world, bound, run, "/tmp/out/*.csv")
    assert error == (
        f"Input out/*.csv matches no file; tasks t_0 ({first}), t_1 ({second}) write it: jobmon task rerun {first}"
        f" {second}"
    )


async def test_the_message_says_that_no_task_writes_a_missing_input(world):
    bound, run = await started(world, 1)
    error, _ = await failed(world, bound, run, "/ref/*.txt")
    assert error == (
        "Input /ref/*.txt matches no file; no task of the workflow writes it. Create it, then resume:"
        f" jobmon workflow resume -w {bound.workflow_id}"
    )
    detail = await world.get(f"/tasks/{bound.task_ids[0]}", TaskDetail)
    assert detail.attempts[-1].error == error


async def test_a_missing_output_is_charged_and_retried(world):
    bound, run = await started(world, 1, max_attempts=2)
    agent = await Agent.register(run)
    [attempt] = await agent.claim()
    await agent.sync(report(attempt, TI.ERROR, cause=Cause.OUTPUT_MISSING, missing_file="/tmp/out/0/", exit_code=0))
    assert world.rows("SELECT charged, cause FROM task_instance WHERE id = :id", id=attempt) == [
        (True, "output missing")
    ]
    assert (await bound.statuses())[bound.task_ids[0]] == "G"


async def test_the_files_of_a_workflow_are_listed_in_pages(world):
    bound, run = await started(world, 3)
    agent = await Agent.register(run)
    attempts = await agent.claim()
    await agent.sync(report(attempts[0], TI.DONE, files=[found(False, "/tmp/in/0"), found(True, "/tmp/out/0/", 0)]))
    route = f"/workflows/{bound.workflow_id}/files"
    listed = await world.get(route, DeclaredFiles)
    assert [(one.task_id, one.path) for one in listed.files] == [
        (task_id, f"/tmp/out/{at}/") for at, task_id in enumerate(bound.task_ids)
    ]
    assert listed.is_last
    assert [one.found for one in listed.files] == [
        SeenFile(task_instance_id=attempts[0], matches=1, size_bytes=0, modified=7),
        None,
        None,
    ]
    assert (listed.files[0].template, listed.files[0].status, listed.files[1].status) == ("t", "D", "I")
    first = await world.get(route, DeclaredFiles, count=2, inputs="true")
    assert [one.path for one in first.files] == ["/tmp/in/0", "/ref/same.txt", "/tmp/in/1", "/ref/same.txt"]
    rest = await world.get(route, DeclaredFiles, count=2, inputs="true", after=first.last_task)
    assert ([one.path for one in rest.files], first.is_last, rest.is_last) == (
        ["/tmp/in/2", "/ref/same.txt"],
        False,
        True,
    )
    assert not (await world.get(route, DeclaredFiles, template="other")).files
    with pytest.raises(Refused, match="count: must be from 1 to"):
        await world.get(route, DeclaredFiles, count=100_000)


async def test_packed_tasks_get_their_paths_as_far_as_the_answer_has_space(world, monkeypatch):
    pack = await make_pack(world)
    await declare(pack.bound, ["in/{x}"])
    first = await pack.take("j1", capacity=1, ahead=1)
    assert first.tasks.files == {1: LaunchFiles(inputs=["/tmp/in/0"]), 2: LaunchFiles(inputs=["/tmp/in/1"])}
    space = 2 * (len("echo 2") + len("/tmp/in/2"))
    monkeypatch.setattr(command_room.CommandRoom.__init__, "__defaults__", (space,))
    assert await pack.taken("j1", capacity=4) == [3, 4]
