"""The distributor's loop with a direct cluster that runs real commands, and with one that runs none."""

import asyncio
import os
from pathlib import Path

from jobmon.core.constants import Cause, TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.wire.launching import ClusterInfo
from jobmon.distributor.service import Outcome


async def test_commands_run_and_are_reported(start):
    gateway = start.gateway()
    gateway.queue("echo hello", "exit 7", "echo oh; echo no >&2; kill -9 $$", "printf '\\377\\n'; exit 1")
    async with start.running(gateway) as (_, task):
        good, bad, killed, binary = await gateway.until_ended()
        gateway.set_run_status(WorkflowRunStatus.ERROR)
        assert await asyncio.wait_for(task, 5) is Outcome.DONE
    assert good.status == TaskInstanceStatus.DONE
    assert good.log_tail == "hello\n"
    assert read(good.stdout) == "hello\n"
    assert good.stdout == good.stderr
    assert good.wallclock_seconds >= 0
    assert (bad.status, bad.cause, bad.exit_code, bad.error) == (
        TaskInstanceStatus.ERROR,
        Cause.EXIT_CODE,
        7,
        "exit code 7",
    )
    assert (killed.cause, killed.signal) == (Cause.SIGNAL, 9)
    assert killed.error == "killed by signal 9 (SIGKILL): no"
    assert binary.error == "exit code 1: \ufffd"
    assert gateway.illegal == []


async def test_a_hundred_short_ones_need_few_requests(start):
    gateway = start.gateway("dummy")
    gateway.queue(*["true"] * 100)
    async with start.running(gateway):
        endings = await gateway.until_ended()
    assert {one.status for one in endings} == {TaskInstanceStatus.DONE}
    assert all(len(one.reports) == 1 for one in gateway.attempts.values()), "short ones are not reported as running"
    assert gateway.syncs < 150


async def test_work_that_comes_later_is_taken_at_once(start):
    gateway = start.gateway()
    async with start.running(gateway, long_poll=600.0):  # work that does not end a poll would wait for the next one
        for _ in range(5):
            await gateway.until_ended(*gateway.queue("true"))


async def test_a_long_one_is_reported_as_running(start):
    gateway = start.gateway()
    (identity,) = gateway.queue("sleep 0.4")
    async with start.running(gateway):
        (ending,) = await gateway.until_ended()
    running = gateway.attempts[identity].reports[0]
    assert (running.status, ending.status) == (TaskInstanceStatus.RUNNING, TaskInstanceStatus.DONE)


async def test_environment_directory_shell_and_files(start):
    gateway = start.gateway()
    out, err = start.folder / "out", start.folder / "err"
    resources = {"env": {"COLOUR": "red"}, "shell": "/bin/bash -c", "stdout": str(out), "stderr": str(err)}
    (identity,) = gateway.queue("env; pwd; echo $BASH >&2", name="a b", resources=resources)
    async with start.running(gateway):
        (ending,) = await gateway.until_ended()
    text = read(ending.stdout)
    for line in (
        "COLOUR=red",
        f"JOBMON_TASK_INSTANCE_ID={identity}",
        "JOBMON_TASK_ID=1001",
        "JOBMON_WORKFLOW_ID=1",
        "JOBMON_WORKFLOW_RUN_ID=7",
        "JOBMON_TASK_NAME=a b",
        "JOBMON_ATTEMPT=1",
        str(start.folder),
    ):
        assert line in text.splitlines()
    assert read(ending.stderr) == "/bin/bash\n"
    assert Path(ending.stdout).parent == out
    assert Path(ending.stderr).parent == err


async def test_what_cannot_be_started_says_why(start):
    gateway = start.gateway()
    gateway.queue("true", resources={"stdout": "/proc/nowhere"})
    gateway.queue("true", resources={"shell": "/no/such/shell"})
    async with start.running(gateway):
        folder, shell = await gateway.until_ended()
    assert {one.cause for one in (folder, shell)} == {Cause.COMMAND_NOT_STARTED}
    assert "not started: No such file or directory: /proc/nowhere/" in folder.error
    assert shell.error == "not started: No such file or directory: /no/such/shell"


async def test_out_of_time(start):
    gateway = start.gateway()
    gateway.queue("sleep 20", resources={"runtime": 0.2})
    async with start.running(gateway):
        (ending,) = await gateway.until_ended()
    assert (ending.status, ending.cause) == (TaskInstanceStatus.RESOURCE_ERROR, Cause.OUT_OF_TIME)
    assert ending.error.startswith("out of time after 0.")


async def test_kill_interrupts_then_kills_the_whole_group(start):
    gateway = start.gateway()
    pids = start.folder / "pids"
    stubborn, waiting, queued = gateway.queue(
        f"trap '' INT; sleep 50 & echo $! > {pids}; wait", "sleep 50", "sleep 50", resources={"cores": 1}
    )
    async with start.running(gateway):
        await gateway.until(lambda: pids.exists() and pids.read_text() != "")
        gateway.kill(stubborn, waiting, queued)
        endings = await gateway.until_ended()
    assert {one.cause for one in endings} == {Cause.KILLED_FOR_RESUME}
    assert {one.status for one in gateway.attempts.values()} == {TaskInstanceStatus.ERROR}
    assert not _is_alive(int(pids.read_text()))


async def test_triage_finds_the_living_and_the_lost(start):
    gateway = start.gateway()
    living, lost = gateway.queue("sleep 50", "sleep 50")
    gateway.attempts[lost].status = TaskInstanceStatus.DONE
    async with start.running(gateway):
        await gateway.until(lambda: gateway.attempts[living].status is TaskInstanceStatus.RUNNING)
        gateway.triage(living, lost)
        (ending,) = await gateway.until_ended(lost)
        await gateway.until(lambda: gateway.attempts[living].status is TaskInstanceStatus.RUNNING)
        gateway.kill(living)
        await gateway.until_ended()
    assert (ending.status, ending.cause) == (TaskInstanceStatus.UNKNOWN_ERROR, Cause.SUPERVISOR_LOST)


async def test_a_lost_answer_loses_no_attempt(start):
    gateway = start.gateway()
    gateway.answers_to_lose = 1
    gateway.queue("true", "true")
    async with start.running(gateway):
        endings = await gateway.until_ended()
    assert gateway.registrations == 2
    assert {one.cause for one in endings} == {Cause.WORKER_LOST}


async def test_the_server_goes_away_and_comes_back(start):
    gateway = start.gateway()
    first = gateway.queue("sleep 0.3; echo done")
    async with start.running(gateway):
        await gateway.until(lambda: gateway.attempts[1].status is not TaskInstanceStatus.QUEUED)
        gateway.is_away = True
        await asyncio.sleep(0.6)
        gateway.is_away = False
        (ending,) = await gateway.until_ended(*first)
        assert ending.status == TaskInstanceStatus.DONE
        assert ending.log_tail == "done\n"


async def test_work_handed_ahead_expires(start):
    gateway = start.gateway()
    gateway.queue(*["sleep 0.8"] * 6)
    async with start.running(gateway, hand_ahead_expiry=0.3):
        await gateway.until(lambda: gateway.attempts[6].status is TaskInstanceStatus.INSTANTIATED)
        gateway.is_away = True
        await asyncio.sleep(1.2)
        gateway.is_away = False
        endings = await gateway.until_ended()
    assert sorted(str(one.status) for one in endings) == ["D", "D", "U", "U", "U", "U"]


async def test_fenced_it_leaves_and_the_next_one_adopts(start):
    gateway = start.gateway()
    living, *_ = gateway.queue("sleep 1; echo late", "sleep 0.1", "echo queued", resources={"cores": 2})
    async with start.running(gateway) as (_, task):
        await gateway.until(lambda: gateway.attempts[living].status is TaskInstanceStatus.RUNNING)
        gateway.take_over()
        assert await asyncio.wait_for(task, 5) is Outcome.FENCED
    async with start.running(gateway):
        endings = await gateway.until_ended()
    assert [str(one.status) for one in endings] == ["D", "U", "U"]
    assert endings[0].log_tail == "late\n"


async def test_endings_while_no_distributor_lived_are_reported_by_the_next(start):
    gateway = start.gateway()
    (identity,) = gateway.queue("sleep 0.5; echo finished")
    async with start.running(gateway):
        await gateway.until(lambda: gateway.attempts[identity].status is TaskInstanceStatus.RUNNING)
    await asyncio.sleep(0.8)  # the cluster notes how it ended
    async with start.running(gateway):
        (ending,) = await gateway.until_ended()
    assert ending.status == TaskInstanceStatus.DONE


async def test_the_output_of_an_adopted_attempt_is_found_where_its_user_wanted_it(start, tmp_path):
    gateway = start.gateway()
    (identity,) = gateway.queue("sleep 0.5; echo oh dear; exit 4", resources={"stdout": str(tmp_path / "mine")})
    async with start.running(gateway):
        await gateway.until(lambda: gateway.attempts[identity].status is TaskInstanceStatus.RUNNING)
    await asyncio.sleep(0.8)
    async with start.running(gateway):
        (ending,) = await gateway.until_ended()
    assert ending.error == "exit code 4: oh dear"
    assert ending.stdout.startswith(f"{tmp_path}/mine/")


async def test_a_request_that_nobody_can_read_ends_no_distributor(start):
    gateway = start.gateway()
    gateway.queue("true", resources={"memory": "0.1G", "cores": "1"})
    gateway.queue("true", resources={"memory": "plenty"})
    async with start.running(gateway):
        endings = await gateway.until_ended()
    assert [str(one.status) for one in endings] == ["D", "D"]


async def test_the_client_is_gone(start):
    gateway = start.gateway()
    ids = gateway.queue(*["sleep 0.5"] * 4)
    async with start.running(gateway) as (service, task):
        await gateway.until(lambda: gateway.attempts[ids[0]].status is TaskInstanceStatus.RUNNING)
        service.drain()
        assert await asyncio.wait_for(task, 5) is Outcome.DONE
    assert sorted(str(one.status) for one in gateway.attempts.values()) == ["D", "D", "U", "U"]


async def test_heartbeats_are_batched(start):
    gateway = start.gateway(heartbeat_interval=0.1)
    gateway.queue("sleep 0.5", "sleep 0.5")
    async with start.running(gateway):
        await gateway.until(lambda: [1, 2] in [sorted(beat) for beat in gateway.beats])


async def test_dummy_runs_nothing(start):
    gateway = start.gateway("dummy")
    gateway.queue(*["false"] * 50)
    async with start.running(gateway):
        endings = await gateway.until_ended()
    assert {one.status for one in endings} == {TaskInstanceStatus.DONE}
    assert not (start.folder / "data" / "logs" / "1" / "0" / "t.1.log").exists()


def read(path):
    return Path(path).read_text()


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


async def test_clusters_whose_commands_agents_run_are_left_to_them(start):
    gateway = start.gateway()
    gateway._clusters.append(ClusterInfo(cluster_id=2, name="multiprocess", plugin="multiprocess", connection={}))
    (mine,) = gateway.queue("true")
    (theirs,) = gateway.queue("true", cluster="multiprocess")
    async with start.running(gateway):
        (ending,) = await gateway.until_ended(mine)
        assert gateway.attempts[theirs].status is TaskInstanceStatus.QUEUED
    assert ending.status == TaskInstanceStatus.DONE
