"""Messages of an older version, literally: its jobs outlive the upgrade of their server."""

import json

import pytest
from pack_world import make_pack
from server_world import CLUSTER, TI

START = """{"task_instance_id": null, "array_id": @ARRAY@, "batch_number": @BATCH@, "array_step_id": 0,
"distributor_id": "4711_0", "host": "n1", "pid": 4242, "started_at": "2026-01-01T00:00:05.250000+00:00"}"""
BEAT = '{"reports": [], "alive": [@ATTEMPT@]}'
REPORT = """{"reports": [{"task_instance_id": @ATTEMPT@, "status": "D", "distributor_id": "4711_0", "host": "n1",
"pid": 4243, "started_at": "2026-01-01T00:00:05.500000+00:00", "ended_at": "2026-01-01T00:00:07.750000+00:00",
"exit_code": 0, "signal": null, "cause": null, "error": null, "log_tail": "gr\\u00fcn\\n", "stdout": "/logs/t.o",
"stderr": "/logs/t.e", "wallclock_seconds": 2.25, "cpu_seconds": 0.5, "max_rss_bytes": 12939264, "read_bytes": 0,
"written_bytes": 8192}], "alive": []}"""
TAKE = """{"array_id": @ARRAY@, "batch_number": @BATCH@, "distributor_id": "j1", "host": "n1", "reports": [],
"alive": [], "capacity": 1, "ahead": 1, "key": "1:a1b2c3", "leaving": false}"""
LISTEN = """{"array_id": @ARRAY@, "batch_number": @BATCH@, "distributor_id": "j1", "host": "n1", "wait_seconds": 0.01,
"wants_work": true, "known_to_kill": []}"""
LEAVE = """{"array_id": @ARRAY@, "batch_number": @BATCH@, "distributor_id": "j1", "host": "n1", "reports": [
{"task_instance_id": @ATTEMPT@, "status": "R", "distributor_id": "j1", "host": "n1", "pid": 7,
"started_at": "2026-01-01T00:00:05.500000+00:00", "stdout": "/logs/t.o", "stderr": "/logs/t.e"},
{"task_instance_id": @ATTEMPT@, "status": "U", "cause": "worker lost", "error": "not begun"}],
"alive": [], "capacity": 0, "ahead": 0, "key": "", "leaving": true}"""


@pytest.fixture
def send(world):
    """Return what posts a recorded message with numbers of today, and returns the answer."""

    async def post(route, message, **numbers):
        for name, number in numbers.items():
            message = message.replace(f"@{name}@", str(number))
        answer = await world.http.post(f"/api/v1{route}", content=message.encode())
        assert answer.status_code == 200, answer.text
        return json.loads(answer.content)

    return post


async def test_a_worker_starts_beats_and_reports(world, send):
    bound = await world.bound(1)
    run = await bound.start()
    await run.register()
    await run.queue()
    batch = await run.launched()
    (attempt,) = batch.task_instance_ids
    given = await send("/worker/start", START, ARRAY=bound.array_id, BATCH=batch.batch_number)
    assert (given["task_instance_id"], given["command"], given["attempt"]) == (attempt, "echo 0", 1)
    assert set(given) >= {"workflow_id", "task_id", "task_name", "requested_resources", "working_directory", "umask"}
    assert set(given) >= {"heartbeat_interval", "report_by_buffer", "workflow_run_id"}
    assert (await send("/worker/report", BEAT, ATTEMPT=attempt))["kill"] == []
    for _ in range(2):  # it may come twice
        assert (await send("/worker/report", REPORT, ATTEMPT=attempt))["kill"] == []
    assert await bound.statuses() == {bound.task_ids[0]: TI.DONE}
    values = "exit_code, max_rss_bytes, written_bytes, wallclock_seconds, distributor_id"
    assert world.rows(f"SELECT {values} FROM task_instance") == [(0, 12939264, 8192, 2.25, "4711_0")]
    assert world.rows("SELECT text FROM log_tail") == [("grün\n",)]


async def test_a_packed_job_takes_listens_reports_and_leaves(world, send):
    pack = await make_pack(world, 3)
    numbers = {"ARRAY": pack.bound.array_id, "BATCH": pack.batch.batch_number}
    given = await send("/worker/take", TAKE, **numbers)
    assert len(given["tasks"]["task_instance_ids"]) == 2
    assert set(given["tasks"]) == {"task_instance_ids", "task_ids", "names", "commands", "attempts", "files"}
    assert await send("/worker/take", TAKE, **numbers) == given  # the answer was lost: it comes again
    heard = await send("/worker/take", LISTEN, **numbers)
    assert (heard["over"], heard["has_work"]) == (False, True)
    attempt = given["tasks"]["task_instance_ids"][0]
    await send("/worker/take", LEAVE, ATTEMPT=attempt, **numbers)
    assert world.rows("SELECT status, cause FROM task_instance WHERE id = :id", id=attempt) == [("U", "worker lost")]


async def test_a_distributor_of_an_older_version_syncs(world, send):
    bound = await world.bound(1)
    run = await bound.start()
    await run.register()
    await run.queue()
    sync = (
        '{"epoch": @EPOCH@, "reports": [], "capacity": {"@CLUSTER@": 5}, "alive": [], "known_to_kill": [],'
        ' "known_to_triage": [], "known_status": null, "wait_seconds": 0.0, "key": "5f3c", "slots": {},'
        ' "ended_since": null, "pending": {}, "packing": [], "packed": [], "live_jobs": null, "submitted": [],'
        ' "ended_jobs": [], "local": ["@CLUSTER@"], "retired": false}'
    )
    answer = await send(f"/workflow_runs/{run.id}/sync", sync, EPOCH=run.epoch, CLUSTER=CLUSTER)
    assert answer["launches"][0]["task_ids"] == bound.task_ids
