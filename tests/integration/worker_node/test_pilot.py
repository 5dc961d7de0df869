"""Jobs that run many tasks: real processes, a real server."""

import json
import signal
import stat

import pytest

from jobmon.core.constants import Cause
from jobmon.core.wire import replace
from jobmon.core.wire.launching import EndedJob


async def test_a_job_runs_all_tasks_of_its_batch_each_with_its_own_log_and_usage(packed, jobs):
    pack = await packed("echo one", "echo two; exit 3", "echo $JOBMON_TASK_INSTANCE_ID $JOBMON_ATTEMPT", "true")
    assert await jobs.run(pack) == 0
    assert [row[:3] for row in pack.attempts()] == [
        ("D", None, 1),
        ("E", Cause.EXIT_CODE, 1),
        ("D", None, 1),
        ("D", None, 1),
    ]
    assert [jobs.log(one) for one in (1, 2, 3)] == ["one\n", "two\n", "3 1\n"]
    rows = pack.rows("SELECT host, pid, max_rss_bytes, started_at, ended_at, error FROM task_instance")
    assert all(row[0] and row[1] and row[2] > 0 and row[3] <= row[4] for row in rows)
    assert rows[1][5] == "exit code 3: two"
    assert pack.rows("SELECT COUNT(*) FROM packed_job WHERE ended_at IS NOT NULL") == [(1,)]


async def test_two_jobs_share_a_batch_and_no_task_runs_twice(packed, jobs, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    pack = await packed(*[f"mkdir {marks}/{one}" for one in range(40)], submitted=("j1", "j2"))
    first, second = await jobs.start(pack, "j1"), await jobs.start(pack, "j2")
    assert [await first.wait(), await second.wait()] == [0, 0]
    assert pack.statuses() == "D" * 40


async def test_side_by_side_as_many_as_asked_for(packed, jobs, tmp_path):
    wait = f"echo >> {tmp_path}/s; until [ $(wc -l < {tmp_path}/s) -ge 3 ]; do sleep 0.01; done"
    pack = await packed(wait, wait, wait, requested={"pack": 3, "pack_width": 3})
    assert await jobs.run(pack) == 0
    assert pack.statuses() == "DDD"


async def test_tasks_side_by_side_have_gpus_of_their_own(packed, jobs, tmp_path):
    wait = f"echo $CUDA_VISIBLE_DEVICES >> {tmp_path}/s; until [ $(wc -l < {tmp_path}/s) -ge 2 ]; do sleep 0.01; done"
    pack = await packed(wait, wait, wait, wait, requested={"pack": 4, "pack_width": 2, "gpus": 1})
    job = await jobs.start(pack, CUDA_VISIBLE_DEVICES="3,5")
    assert await job.wait() == 0
    assert pack.statuses() == "DDDD"
    used = (tmp_path / "s").read_text().split()
    assert sorted(used[:2]) == ["3", "5"]
    assert set(used) == {"3", "5"}


async def test_forty_small_tasks_run_at_once_in_a_job_of_two_cores(packed, jobs, tmp_path):
    wait = f"echo >> {tmp_path}/s; until [ $(wc -l < {tmp_path}/s) -ge 40 ]; do sleep 0.2; done"
    pack = await packed(*[wait] * 40, requested={"pack": 40, "pack_width": 40, "cores": 0.05})
    assert await jobs.run(pack) == 0
    assert pack.statuses() == "D" * 40


async def test_tasks_wait_uncharged_for_a_missing_working_folder(packed, jobs, tmp_path):
    folder = tmp_path / "later"
    pack = await packed("pwd", "true")
    pack.change(f"UPDATE workflow SET working_directory = '{folder}'")
    job = await jobs.start(pack)
    await jobs.until(lambda: "not charged" in str(pack.rows("SELECT pending_reason FROM task_instance WHERE id = 1")))
    folder.mkdir()
    assert await job.wait() == 0
    assert pack.statuses() == "DD"
    assert jobs.log(1) == f"{folder}\n"


async def test_a_task_that_takes_too_long_is_ended_and_the_others_run(packed, jobs):
    stubborn = "trap '' INT; sleep 30"
    pack = await packed("sleep 30", stubborn, "true", requested={"pack": 3, "runtime": 0.3})
    assert await jobs.run(pack) == 0
    assert [row[:2] for row in pack.attempts()] == [
        ("Z", Cause.OUT_OF_TIME),
        ("Z", Cause.OUT_OF_TIME),
        ("D", None),
    ]


async def test_a_command_that_cannot_be_started(packed, jobs):
    pack = await packed("true", "true", requested={"pack": 2, "shell": "/nowhere/sh"})
    assert await jobs.run(pack) == 0
    assert {row[:2] for row in pack.attempts()} == {("E", Cause.COMMAND_NOT_STARTED)}


async def test_a_task_taken_ahead_is_reported_as_running_when_it_is(packed, jobs):
    pack = await packed("sleep 0.05", "sleep 0.5", "true")
    job = await jobs.start(pack)
    await jobs.until(lambda: pack.statuses() == "DRO")
    assert await job.wait() == 0
    assert pack.statuses() == "DDD"


async def test_what_is_to_be_killed_is_ended_at_once_and_the_job_leaves(world, packed, jobs):
    pack = await packed("sleep 30", "sleep 30", "sleep 30", submitted=("j1",))
    job = await jobs.start(pack)
    await jobs.until(lambda: pack.statuses() == "ROO")
    await world.post(f"/workflow_runs/{pack.run.id}/terminate_task_instances")
    await jobs.until(lambda: pack.statuses() == "EEE")
    assert await job.wait() == 0
    assert {row[1] for row in pack.attempts()} == {Cause.KILLED}
    assert "SIGINT" in pack.rows("SELECT error FROM task_instance WHERE id = 1")[0][0]


async def test_a_job_that_is_ended_by_its_cluster_tells_nothing_of_what_it_had_to_end(packed, jobs):
    pack = await packed("sleep 30", "true")
    job = await jobs.start(pack)
    await jobs.until(lambda: pack.statuses()[0] == "R")
    job.send_signal(signal.SIGTERM)
    assert await job.wait() == 1
    assert pack.statuses()[0] == "R", "the cluster tells why"
    await pack.end("j1", "E", Cause.PREEMPTED)
    assert pack.attempts()[0][:3] == ("U", Cause.PREEMPTED, 0)
    assert pack.attempts()[1][2] == 0


async def test_a_job_about_to_leave_passes_on_that_its_cluster_ends_it(packed, jobs, tmp_path):
    import time

    checkpoint = f"trap 'echo saved > {tmp_path}/saved; exit 1' TERM; touch {tmp_path}/begun; sleep 30 & wait"
    short = f"until [ -e {tmp_path}/begun ]; do sleep 0.01; done; sleep 3"  # then no 30 s are left for the third
    pack = await packed(checkpoint, short, "true", requested={"pack": 3, "pack_width": 2, "runtime": 30})
    job = await jobs.start(pack, JOBMON_JOB_END_TIME=str(time.time() + 32.5))
    await jobs.until(lambda: pack.statuses() == "RDU")
    job.send_signal(signal.SIGTERM)
    assert await job.wait() == 1
    await jobs.until((tmp_path / "saved").exists)


async def test_what_a_job_that_was_killed_had_is_found_and_run_again(packed, jobs):
    pack = await packed("sleep 30", "true", "true", submitted=("j1", "j2"))
    job = await jobs.start(pack)
    await jobs.until(lambda: pack.statuses()[:2] == "RO")
    job.kill()
    await job.wait()
    await pack.end("j1", "U", None)
    assert [row[:3] for row in pack.attempts()[:2]] == [("U", Cause.WORKER_LOST, 0)] * 2
    await jobs.run(pack, "j2")
    assert pack.statuses() == "UUD"


async def test_an_attempt_that_was_given_up_is_ended_where_it_still_runs(packed, jobs, tmp_path):
    pack = await packed(f"trap 'echo ended > {tmp_path}/e; exit 1' INT; sleep 30 & wait", "true")
    job = await jobs.start(pack)
    await jobs.until(lambda: pack.statuses() == "RO")
    await pack.run.sync(ended_jobs=[EndedJob(distributor_id="j1", status="U")], packed=[1])
    assert await job.wait() == 0
    assert (tmp_path / "e").read_text() == "ended\n"
    assert pack.attempts()[0][:2] == ("U", Cause.WORKER_LOST)


async def test_a_pilot_waits_for_work_and_ends_when_there_is_none(packed, jobs):
    pack = await packed("true", "true", requested={"pilot": True}, submitted=("p1",))
    job = await jobs.start(pack, "p1", JOBMON_PILOT_IDLE_SECONDS="1.5")
    await jobs.until(lambda: pack.statuses() == "DD")
    assert job.returncode is None
    pack2 = await packed("true", requested={"pilot": True}, submitted=())
    assert pack2.statuses() == "DDI", "that is another workflow"
    assert await job.wait() == 0


async def test_a_pilot_takes_what_becomes_ready_later(packed, jobs):
    pack = await packed("exit 1", "true", requested={"pilot": True}, submitted=("p1",))
    job = await jobs.start(pack, "p1", JOBMON_PILOT_IDLE_SECONDS="10")
    await jobs.until(lambda: pack.statuses() == "ED")
    await pack.queue(0)
    await jobs.until(lambda: pack.statuses() == "EDE")
    await pack.run.move("E")
    assert await job.wait() == 0


async def test_a_job_whose_time_is_nearly_over_begins_nothing_more(packed, jobs):
    import time

    pack = await packed("sleep 0.4", "true", requested={"pack": 2, "runtime": 30})
    assert await jobs.run(pack, JOBMON_JOB_END_TIME=str(time.time() + 30.2)) == 0
    assert [row[:3] for row in pack.attempts()] == [("D", None, 1), ("U", Cause.WORKER_LOST, 0)]


async def test_a_server_that_goes_away_and_comes_back_hears_everything(tmp_path, jobs, served):
    from pack_world import make_pack
    from server_world import open_world

    from jobmon.core.clock import SystemClock

    async with open_world(tmp_path, clock=SystemClock()) as world:
        async with served(world) as port:
            jobs.url = f"http://127.0.0.1:{port}"
            pack = await make_pack(world, 2, commands=[f"until [ -e {tmp_path}/go ]; do sleep 0.01; done", "true"])
            job = await jobs.start(pack)
            await jobs.until(lambda: pack.statuses() == "RO")
        (tmp_path / "go").touch()
        await jobs.until(lambda: len(list(jobs.folder.glob("logs/*/0/*.log"))) == 2)
        async with served(world, port):
            assert await job.wait() == 0
    assert pack.statuses() == "DD"
    assert jobs.undelivered() == []


async def test_what_a_server_that_stays_away_does_not_hear_is_kept_on_disk(tmp_path, jobs, served):
    from pack_world import make_pack
    from server_world import open_world

    async with open_world(tmp_path) as world:
        async with served(world) as port:
            jobs.url = f"http://127.0.0.1:{port}"
            pack = await make_pack(world, 2, commands=[f"until [ -e {tmp_path}/go ]; do sleep 0.01; done", "true"])
            job = await jobs.start(pack, JOBMON_WORKER_REPORT_SECONDS="0.3")
            await jobs.until(lambda: pack.statuses() == "RO")
        (tmp_path / "go").touch()
        assert (await job.communicate(), job.returncode) == ((None, b""), 0)
    assert [name.partition("-")[0] for name in jobs.undelivered()] == ["1", "2"]
    (path,) = jobs.folder.glob("reports/*/1-*.report")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["reports"][0]["status"] == "D"


@pytest.mark.parametrize(
    ("environment", "words"), [({"JOB": ""}, "does not provide the ID"), ({}, "no packed batch 99")]
)
async def test_a_job_that_cannot_begin_says_why(packed, jobs, environment, words):
    pack = await packed("true", "true")
    if "JOB" not in environment:
        pack.batch = replace(pack.batch, batch_number=99)
    job = await jobs.start(pack, **environment)
    _, errors = await job.communicate()
    assert job.returncode == 1
    assert words in errors.decode()
