"""A real distributor, server and packed jobs, on a cluster whose jobs are processes of this machine."""

import asyncio
import contextlib
import os
import shlex
import subprocess
import sys

import pytest
from pack_world import make_pack
from server_world import CLUSTER

from jobmon.core.clock import SystemClock
from jobmon.core.cluster_protocol import SUBMISSION_TOKEN, ClusterDistributor, RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import RemoteExitInfoNotAvailable, SubmissionRejected
from jobmon.core.requester import Requester
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.gateway import ServerGateway
from jobmon.distributor.service import DistributorService, Identity, Outcome, Setting, Timings
from jobmon.worker_node import process


class Yard:
    """State that outlives a distributor: jobs, and why they exited if their exit code does not tell."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.running = {}
        self.submissions = {}  # token -> ids
        self.causes = {}
        self.cancelled = []
        self.refuses = None
        self.holds = False  # what is submitted waits
        self.requests = []

    def end(self, job, cause):
        self.causes[job] = cause
        self.running[job].kill()

    def leave(self):
        for job in self.running.values():
            if job is not None:
                job.kill()
                job.wait()


class YardDistributor(ClusterDistributor):
    def __init__(self, yard):
        super().__init__(CLUSTER)
        self.yard = yard

    @property
    def worker_node_entry_point(self):
        return f"{shlex.quote(sys.executable)} -I -S {shlex.quote(process.__file__)} --distributor-id-variable JOB"

    def submit_to_batch_distributor(self, command, name, requested_resources):
        raise AssertionError("arrays are asked for first")

    def submit_array_to_batch_distributor(self, command, name, requested_resources, array_length):
        yard = self.yard
        yard.requests.append((array_length, dict(requested_resources)))
        if yard.refuses is not None:
            raise yard.refuses
        ids = {step: f"{len(yard.submissions)}_{step}" for step in range(array_length)}
        yard.submissions[requested_resources[SUBMISSION_TOKEN]] = ids
        for job in ids.values():
            yard.running[job] = None if yard.holds else self._start(command, job)
        return ids

    def _start(self, command, job):
        environment = {
            **os.environ,
            "JOB": job,
            "JOBMON_SERVICE_URL": self.yard.jobs.url,
            "JOBMON_DATA_DIR": str(self.yard.jobs.folder),
            "JOBMON_PILOT_IDLE_SECONDS": "5",
        }
        return subprocess.Popen(shlex.split(command), env=environment, stderr=subprocess.DEVNULL)

    def find_submitted(self, tokens):
        return {token: ids for token, ids in self.yard.submissions.items() if token in tokens}

    def get_submitted_or_running(self, distributor_ids=None):
        running = self.yard.running
        alive = {job for job, one in running.items() if one is None or one.poll() is None}
        return {job for job in alive if job not in self.yard.cancelled and job in (distributor_ids or running)}

    def terminate_task_instances(self, distributor_ids):
        self.yard.cancelled += distributor_ids

    def get_remote_exit_info(self, distributor_id):
        raise RemoteExitInfoNotAvailable

    def get_remote_exits(self, distributor_ids):
        return {job: self._exit(job) for job in distributor_ids}

    def _exit(self, job):
        cause = self.yard.causes.get(job)
        if cause is not None:
            return RemoteExit(status=TaskInstanceStatus.ERROR, cause=cause, message=f"{cause}, says the yard")
        good = self.yard.running[job] is not None and self.yard.running[job].returncode == 0
        return RemoteExit(status=TaskInstanceStatus.DONE if good else TaskInstanceStatus.ERROR, message="it failed")


@pytest.fixture
def yard(jobs):
    yard = Yard(jobs)
    yield yard
    yard.leave()


@pytest.fixture
def service(jobs, yard):
    """Return a function that runs a distributor for a run while it is open."""

    @contextlib.asynccontextmanager
    async def run(pack):
        logs = jobs.folder / "logs" / str(pack.bound.workflow_id)
        setting = Setting(
            lambda info, response: YardDistributor(yard),
            lambda response: Surroundings(response.workflow_id, pack.run.id, str(logs), response.server_identity),
        )
        requester = Requester(jobs.url)
        async with requester.open_session() as session:
            gateway = ServerGateway(requester, session, pack.run.id, 20.0)
            timings = Timings(long_poll=5.0, cluster_poll=0.05)
            one = DistributorService(gateway, setting, Identity("h", 1, 1.0), timings, SystemClock())
            task = asyncio.create_task(one.run())
            try:
                yield task
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    return run


@pytest.fixture
def queued(world):
    """Return a function that queues commands that have not been launched."""

    async def make(*commands, requested=None, **more):
        return await make_pack(
            world, len(commands), requested or {"pack": 2}, commands=list(commands), is_launched=False, **more
        )

    return make


async def ended(task):
    return await asyncio.wait_for(task, 15)


async def test_a_packed_run_from_queue_to_end(queued, service, jobs, yard):
    pack = await queued("true", "exit 3", "true", "true", requested={"pack": 2, "cores": 1, "runtime": 9.0})
    async with service(pack) as task:
        await jobs.until(lambda: pack.statuses() == "DEDD")
        await pack.run.move("E")
        assert await ended(task) is Outcome.DONE
    ((length, request),) = yard.requests
    assert (length, request["cores"], request["runtime"]) == (2, 1, 78.0)
    assert "pack" not in request
    assert yard.cancelled == []


async def test_a_job_that_its_cluster_ends_costs_nothing_and_the_rest_runs(queued, service, jobs, yard, tmp_path):
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.01; done"
    pack = await queued(wait, wait, wait, wait, max_attempts=1)
    async with service(pack):
        await jobs.until(lambda: pack.statuses() == "RORO" or pack.statuses() == "ROOR")
        victim = pack.attempts()[0][3]
        yard.end(victim, Cause.NODE_FAILURE)
        await jobs.until(lambda: pack.statuses().count("U") == 2)
        lost = [row for row in pack.attempts() if row[0] == "U"]
        assert [row[1:] for row in lost] == [
            (Cause.NODE_FAILURE, 0, victim),
            (Cause.WORKER_LOST, 0, victim),
        ]
        (tmp_path / "go").touch()
        await jobs.until(lambda: pack.statuses().count("D") == 2)


async def test_when_all_jobs_are_gone_what_nobody_took_is_queued_again(queued, service, jobs, yard):
    yard.holds = True
    pack = await queued("true", "true", "true", max_attempts=1)
    async with service(pack):
        await jobs.until(lambda: pack.statuses() == "OOO")
        yard.causes = dict.fromkeys(yard.running, Cause.KILLED)
        yard.cancelled += list(yard.running)
        await jobs.until(lambda: pack.statuses() == "UUU")
    assert {row[1:3] for row in pack.attempts()} == {(Cause.WORKER_LOST, 0)}


async def test_jobs_that_nobody_needs_any_more_are_cancelled(world, queued, service, jobs, yard):
    yard.holds = True
    pack = await queued("true", "true", "true", "true")
    async with service(pack) as task:
        await jobs.until(lambda: pack.statuses() == "OOOO")
        await world.post(f"/workflow_runs/{pack.run.id}/terminate_task_instances")
        assert pack.statuses() == "EEEE"
        await pack.run.move("S")
        assert await ended(task) is Outcome.DONE
    assert sorted(yard.cancelled) == ["0_0", "0_1"]


async def test_a_distributor_that_goes_leaves_packs_running_for_the_next(queued, service, jobs, yard, tmp_path):
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.01; done"
    pack = await queued(wait, wait, wait, wait)
    async with service(pack):
        await jobs.until(lambda: pack.statuses().count("R") == 2)
    async with service(pack) as task:
        victim = pack.attempts()[0][3]
        yard.end(victim, Cause.PREEMPTED)
        await jobs.until(lambda: pack.statuses().count("U") == 2)
        (tmp_path / "go").touch()
        await jobs.until(lambda: pack.statuses().count("D") == 2)
        await pack.run.move("E")
        assert await ended(task) is Outcome.DONE
    assert len(yard.requests) == 1
    assert {row[1] for row in pack.attempts() if row[0] == "U"} == {Cause.PREEMPTED, Cause.WORKER_LOST}


@pytest.mark.parametrize("was_submitted", [True, False])
async def test_a_submission_that_nobody_told_of_is_looked_up(queued, service, jobs, yard, was_submitted):
    pack = await queued("true", "true", "true", "true")
    await pack.launch()  # as a distributor did that died at this point
    if was_submitted:
        token = f"jm-{(await pack.run.register()).server_identity}-{pack.bound.workflow_id}-{pack.batch.batch_number}"
        words = {SUBMISSION_TOKEN: token}
        adapter = YardDistributor(yard)
        command = adapter.build_worker_node_command(array_id=pack.bound.array_id, batch_number=1)
        adapter.submit_array_to_batch_distributor(f"{command} --packed yes", "t", words, 2)
    async with service(pack):
        await jobs.until(lambda: pack.statuses() == ("DDDD" if was_submitted else "UUUU"))
    assert {row[2] for row in pack.attempts()} == {1 if was_submitted else 0}
    assert len(yard.requests) == was_submitted


async def test_what_a_job_kept_on_disk_counts_before_its_end(queued, service, jobs, yard, tmp_path):
    pack = await queued(f"until [ -e {tmp_path}/go ]; do sleep 0.01; done", "true", max_attempts=1)
    await pack.launch()
    await pack.submit("j1")
    job = await jobs.start(pack, "j1")
    await jobs.until(lambda: pack.statuses() == "RO")
    job.kill()
    await job.wait()
    (tmp_path / "go").touch()  # its command is not terminated, as a batch system would do
    folder = jobs.folder / "logs" / str(pack.bound.workflow_id) / "0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1.report").write_text(
        '{"reports": [{"task_instance_id": 1, "status": "D", "exit_code": 0}], "alive": []}'
    )
    yard.running["j1"] = None
    yard.cancelled.append("j1")
    yard.causes["j1"] = Cause.NODE_FAILURE
    async with service(pack):
        await jobs.until(lambda: pack.statuses() == "DU")
        await jobs.until(lambda: not (folder / "1.report").exists())


async def test_a_refused_pack_is_the_fault_of_the_request(queued, service, jobs, yard):
    yard.refuses = SubmissionRejected("no such account")
    pack = await queued("true", "true")
    async with service(pack):
        await jobs.until(lambda: pack.statuses() == "WW")
    assert {row[1:3] for row in pack.attempts()} == {(Cause.SUBMISSION_FAILED, 1)}


async def test_pilots_go_on_with_what_becomes_ready(queued, service, jobs, yard):
    pack = await queued("exit 1", "true", requested={"pilot": True})
    async with service(pack) as task:
        await jobs.until(lambda: pack.statuses() == "ED")
        await pack.queue(0)
        await jobs.until(lambda: pack.statuses() == "EDE")
        await pack.queue(0)
        await jobs.until(lambda: pack.statuses() == "EDEE")
        await pack.run.move("E")
        assert await ended(task) is Outcome.DONE
    assert sum(length for length, _ in yard.requests) == 1, "one pilot did it all"
