"""A cluster with its own queue, with a third-party plug-in and real workers."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from jobmon.core import wire
from jobmon.core.constants import Cause, TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.wire.launching import ClusterInfo, WorkerReportRequest, WorkerStartRequest
from jobmon.testing.gateways import FakeDistributorGateway


@pytest.fixture
async def backyard(start):
    """Return a function that makes a gateway whose workers can reach it by HTTP."""
    runners = []

    async def make(arrays=False, heartbeat_interval=90.0):
        gateway = FakeDistributorGateway([], str(start.folder), heartbeat_interval)
        runner = web.AppRunner(_application(gateway))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append(runner)
        host, port = site._server.sockets[0].getsockname()
        connection = {"url": f"http://{host}:{port}", "arrays": arrays}
        gateway._clusters.append(ClusterInfo(cluster_id=1, name="backyard", plugin="backyard", connection=connection))
        return gateway

    yield make
    for runner in runners:
        await runner.cleanup()


def read(path):
    return Path(path).read_text()


def _application(gateway):
    async def start(request):
        if gateway.is_away:
            return web.Response(status=503)
        answer = gateway.worker_start(wire.decode(WorkerStartRequest, await request.read()))
        if answer is None:
            return web.json_response({"kind": "StaleRun", "message": "it has ended"}, status=409)
        return web.Response(body=wire.encode(answer), content_type="application/json")

    async def report(request):
        if gateway.is_away:
            return web.Response(status=503)
        answer = gateway.worker_report(wire.decode(WorkerReportRequest, await request.read()))
        return web.Response(body=wire.encode(answer), content_type="application/json")

    application = web.Application()
    application.router.add_post("/api/v1/worker/start", start)
    application.router.add_post("/api/v1/worker/report", report)
    return application


@pytest.mark.parametrize("arrays", [False, True])
async def test_workers_run_what_was_submitted(start, backyard, arrays):
    gateway = await backyard(arrays)
    good, bad = gateway.queue("echo $JOBMON_TASK_INSTANCE_ID $JOBMON_ATTEMPT", "echo oh dear; exit 3")
    async with start.running(gateway):
        done, failed = await gateway.until_ended()
    assert done.status == TaskInstanceStatus.DONE
    assert read(done.stdout) == f"{good} 1\n"
    assert done.max_rss_bytes > 0
    assert (failed.cause, failed.exit_code, failed.error) == (Cause.EXIT_CODE, 3, "exit code 3: oh dear")
    assert gateway.attempts[bad].distributor_id.isdecimal()
    assert [str(one.status) for one in gateway.attempts[good].reports][-2:] == ["R", "D"]
    assert gateway.illegal == []


async def test_a_refused_submission(start, backyard):
    gateway = await backyard()
    gateway.queue("true", resources={"refuse": True})
    async with start.running(gateway):
        (refused,) = await gateway.until_ended()
    assert (refused.status, refused.cause) == (TaskInstanceStatus.NO_DISTRIBUTOR_ID, Cause.SUBMISSION_FAILED)
    assert refused.error == "not in this backyard"


async def test_a_worker_hears_at_its_heartbeat_that_it_is_to_end(start, backyard):
    gateway = await backyard(heartbeat_interval=0.1)
    (identity,) = gateway.queue("sleep 50")
    async with start.running(gateway):
        await gateway.until(lambda: [identity] in gateway.beats)
        gateway.kill(identity)
        (ending,) = await gateway.until_ended()
    assert gateway.attempts[identity].status is TaskInstanceStatus.ERROR
    assert ending.cause in {Cause.KILLED, Cause.KILLED_FOR_RESUME}


async def test_triage_finds_a_living_job(start, backyard):
    gateway = await backyard()
    (identity,) = gateway.queue("sleep 0.6")
    async with start.running(gateway):
        await gateway.until(lambda: gateway.attempts[identity].status is TaskInstanceStatus.RUNNING)
        gateway.triage(identity)
        await gateway.until(lambda: gateway.attempts[identity].status is TaskInstanceStatus.RUNNING)
        (ending,) = await gateway.until_ended()
    assert ending.status == TaskInstanceStatus.DONE


async def test_a_report_that_could_not_be_delivered_is_kept_and_delivered_by_the_next_worker(start, backyard):
    gateway = await backyard(heartbeat_interval=0.1)
    (first,) = gateway.queue("sleep 0.3")
    async with start.running(gateway):
        await gateway.until(lambda: gateway.attempts[first].status is TaskInstanceStatus.RUNNING)
        gateway.is_away = True
        folder = start.folder / "data" / "reports" / "1"
        await gateway.until((folder / f"{first}.report").exists)
        assert (folder / f"{first}.report").stat().st_mode & 0o077 == 0
        gateway.is_away = False
        gateway.queue("true")
        endings = await gateway.until_ended()
    assert [str(one.status) for one in endings] == ["D", "D"]
    assert not (folder / f"{first}.report").exists()


async def test_a_report_kept_on_disk_is_delivered_by_the_next_distributor(start, backyard):
    gateway = await backyard(heartbeat_interval=0.1)
    (identity,) = gateway.queue("sleep 0.3")
    folder = start.folder / "data" / "reports" / "1"
    async with start.running(gateway):
        await gateway.until(lambda: gateway.attempts[identity].status is TaskInstanceStatus.RUNNING)
        gateway.is_away = True
        await gateway.until((folder / f"{identity}.report").exists)
    gateway.is_away = False
    async with start.running(gateway):
        (ending,) = await gateway.until_ended()
        await gateway.until(lambda: not (folder / f"{identity}.report").exists())
    assert (ending.status, ending.exit_code) == (TaskInstanceStatus.DONE, 0)
    assert gateway.illegal == []


async def test_a_distributor_without_its_client_asks_calmly_what_has_ended(start, backyard):
    gateway = await backyard()
    (identity,) = gateway.queue("sleep 1.5")
    async with start.running(gateway) as (service, task):
        await gateway.until(lambda: gateway.attempts[identity].status is TaskInstanceStatus.RUNNING)
        syncs = gateway.syncs
        service.drain()
        await gateway.until_ended()
        assert gateway.syncs - syncs < 20
        await task


async def test_a_run_ends_without_the_cluster_being_asked_once_more(start, backyard):
    gateway = await backyard(arrays=True)
    gateway.queue("true", "true")
    async with start.running(gateway, cluster_poll=600.0) as (_, task):
        await gateway.until_ended()
        gateway.set_run_status(WorkflowRunStatus.DONE)
        await asyncio.wait_for(task, 10)


async def test_a_worker_waits_for_a_working_folder_that_is_away_and_says_so(start, backyard):
    gateway = await backyard()
    work = start.folder / "work"
    gateway._working_directory = str(work)
    (identity,) = gateway.queue("pwd")
    async with start.running(gateway):
        await gateway.until(lambda: gateway.worker_pending.get(identity))
        assert f"'{work}'" in gateway.worker_pending[identity]
        assert "and is not charged" in gateway.worker_pending[identity]
        work.mkdir()
        (ending,) = await gateway.until_ended()
    assert (ending.status, read(ending.stdout)) == (TaskInstanceStatus.DONE, f"{work}\n")
    assert gateway.worker_pending[identity] == ""


async def test_an_output_folder_that_is_impossible_is_the_task_s_own_fault(start, backyard):
    gateway = await backyard()
    no_folder = start.folder / "note"
    no_folder.touch()
    gateway.queue("true", resources={"stdout": f"{no_folder}/"})
    async with start.running(gateway):
        (ending,) = await gateway.until_ended()
    assert (ending.status, ending.cause) == (TaskInstanceStatus.ERROR, Cause.COMMAND_NOT_STARTED)
    assert str(no_folder) in ending.error
