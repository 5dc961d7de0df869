"""The server against a model: use cases in any order, repeated and late; the database equals a dictionary.

The model is a few dictionaries that ask `core.fsm` and `core.retry` one attempt at a time. The server does the same in
bulk statements; this test is why one may believe them.
"""

import itertools
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select
from tests import databases

from jobmon.core import fsm, retry
from jobmon.core.constants import Cause, TaskInstanceStatus, TaskStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import InvalidRequest, WorkflowNotResumable
from jobmon.core.fsm import Machine, Verdict
from jobmon.core.wire import replace
from jobmon.core.wire.binding import ArraySpec, ArraysRequest, ResourcesRequest, ResourcesSpec, TasksRequest
from jobmon.core.wire.binding import WorkflowRequest as Workflow
from jobmon.core.wire.definition import ClusterRequest, QueueSpec, TemplateSpec, TemplatesRequest, ToolRequest
from jobmon.core.wire.launching import (
    DistributorRequest,
    EndedJob,
    Report,
    SubmittedBatch,
    SyncRequest,
    WorkerTakeRequest,
)
from jobmon.core.wire.run import ResetRequest, ResumeRequest, RunRequest, RunStatusRequest
from jobmon.core.wire.swarm import QueueBatch, QueueRequest
from jobmon.server import migrations, models
from jobmon.server.database import Database, open_engine
from jobmon.server.settings import Settings
from jobmon.server.sql import statement
from jobmon.server.times import to_microseconds
from jobmon.server.transaction import Surroundings, last_stamp
from jobmon.server.usecases import (
    binding,
    definitions,
    launching,
    packed_jobs,
    queueing,
    reporting,
    resuming,
    runs,
    triaging,
)

TASK, TI, RUN = TaskStatus, TaskInstanceStatus, WorkflowRunStatus
TASKS, MAX_ATTEMPTS = 4, 2
PLAIN, PACKED = 1, 2  # requests for resources
JOBS = ("j1", "j2")
START = to_microseconds(datetime(2026, 1, 1, tzinfo=UTC))
OVERDUE_MICROSECONDS = int(90 * 3.1 * 1e6) + 1_000_000
LIVE = frozenset("QIORTK")
REPORTS = st.sampled_from(sorted(status.value for status in fsm.REPORTS))
CAUSES = st.sampled_from([None, Cause.EXIT_CODE, Cause.NODE_FAILURE, Cause.OUT_OF_MEMORY])

t, ti = models.task.c, models.task_instance.c
TASK_ROWS = statement(lambda: select(t.id, t.status, t.num_attempts, t.uncharged_in_a_row, t.attempt_count))
COUNTED = statement(lambda: select(models.status_count.c.status, models.status_count.c.number))
ATTEMPT_ROWS = statement(lambda: select(ti.id, ti.task_id, ti.number, ti.status, ti.cause, ti.charged))
NEWEST_CHANGE = statement(lambda: select(func.max(t.status_at)))
WORKFLOW_STATUS = statement(lambda: select(models.workflow.c.status))
RUNS_OF_LIVE_ATTEMPTS = statement(lambda: select(ti.workflow_run_id).where(ti.ended_at.is_(None)).distinct())


class Server:
    """A server without HTTP: use cases, each in a transaction of its own."""

    def __init__(self, uri):
        self.database = Database(uri)
        self.now = START
        settings = Settings(database_uri="")
        self.tx = self.database.open_transaction(Surroundings(settings, START - OVERDUE_MICROSECONDS))

    def run(self, use_case, *arguments):
        self.now += 1000
        self.tx.start(self.now)
        try:
            answer = use_case(self.tx, *arguments)
        except Exception:
            self.tx.rollback()
            raise
        self.tx.commit()
        return answer

    def close(self):
        self.tx.close()
        self.database.close()


def bind(database):
    """Record the workflow that all examples start from."""
    run = database.run
    version = run(definitions.find_tool, ToolRequest(name="tool")).tool_version_ids[0]
    spec = TemplateSpec(name="t", command_template="{x}", node_args=["x"], task_args=[], op_args=[])
    template = run(definitions.find_templates, version, TemplatesRequest(templates=[spec])).task_template_version_ids[0]
    run(definitions.set_cluster, ClusterRequest(name="c", plugin="dummy", queues=[QueueSpec(queue_name="q")]))
    specs = [
        ResourcesSpec(cluster_name="c", queue_name="q", requested=requested, kind="original")
        for requested in ({}, {"pack": 2})
    ]
    resources, packed = run(definitions.find_resources, ResourcesRequest(resources=specs)).ids
    assert (resources, packed) == (PLAIN, PACKED)
    workflow = Workflow(
        tool_version_id=version,
        workflow_args="w",
        workflow_args_hash="w",
        dag_hash="d",
        task_hash="t",
        task_count=TASKS,
        edge_set_count=0,
        name="w",
        description="",
        max_concurrently_running=10,
        task_counts={},
        user="u",
        working_directory="/",
        umask=0,
    )
    workflow_id = run(binding.find_workflow, workflow).workflow_id
    spec = ArraySpec(task_template_version_id=template, name="t", max_concurrently_running=10)
    array = run(binding.find_arrays, workflow_id, ArraysRequest(arrays=[spec])).ids[0]
    numbers = [str(number) for number in range(TASKS)]
    tasks = TasksRequest(
        array_id=array,
        task_template_version_id=template,
        names=numbers,
        commands=numbers,
        node_hashes=numbers,
        task_hashes=numbers,
        node_args={"x": numbers},
        task_args={},
        max_attempts=[MAX_ATTEMPTS] * TASKS,
        task_resources_ids=[resources] * TASKS,
        scales=[{}],
        scales_index=[0] * TASKS,
        fallback_queues=[[]],
        fallback_index=[0] * TASKS,
    )
    run(binding.find_tasks, workflow_id, tasks)
    run(binding.finish_binding, workflow_id)


@pytest.fixture(scope="module", autouse=True)
def template_folder():
    folder = Path(tempfile.mkdtemp())
    uri = databases.current().uri(folder)
    engine = open_engine(uri)
    migrations.upgrade(engine)
    engine.dispose()
    database = Server(uri)
    bind(database)
    database.close()
    ServerMachine.template = uri
    yield
    shutil.rmtree(folder)


@dataclass
class Task:
    status: str = TASK.REGISTERING
    num_attempts: int = 0
    in_a_row: int = 0
    newest: int = 0


@dataclass
class Attempt:
    task: int
    number: int
    status: str = TI.QUEUED
    cause: str | None = None
    charged: bool = False


@dataclass
class Pack:
    """A packed batch: its attempts in order, how many jobs have taken, and its jobs: whether each lives."""

    number: int
    attempts: list[int]
    taken: int = 0
    submitted: bool = False
    jobs: dict[str, bool] = field(default_factory=dict)
    heard_of: set[str] = field(default_factory=set)  # jobs that reached the server


class Model:
    """Check the invariants."""

    def __init__(self):
        self.tasks = {task_id: Task() for task_id in range(1, TASKS + 1)}
        self.attempts: dict[int, Attempt] = {}
        self.ids = itertools.count(1)
        self.packs: list[Pack] = []
        self.owners: dict[int, str] = {}

    def queue(self, task_ids):
        for task_id in sorted(set(task_ids)):
            task = self.tasks[task_id]
            if fsm.judge(Machine.TASK, task.status, TASK.QUEUED) is Verdict.LEGAL:
                task.status = TASK.QUEUED
                task.newest += 1
                self.attempts[next(self.ids)] = Attempt(task_id, task.newest)

    def move(self, attempt_id, asked, cause=None):
        attempt = self.attempts[attempt_id]
        if fsm.judge(Machine.TASK_INSTANCE, attempt.status, asked) is not Verdict.LEGAL:
            return
        target = fsm.effective_target(Machine.TASK_INSTANCE, attempt.status, asked)
        if target == TI.DONE:
            cause = None
        elif attempt.status == TI.KILL_SELF:
            cause = attempt.cause or Cause.KILLED
        elif cause is None:
            cause = {TI.NO_HEARTBEAT: Cause.NO_HEARTBEAT, TI.NO_DISTRIBUTOR_ID: Cause.NO_DISTRIBUTOR_ID}.get(target)
        task = self.tasks[attempt.task]
        ended = fsm.is_terminal(Machine.TASK_INSTANCE, target)
        charged = ended and (target == TI.DONE or retry.is_charged(cause, task.in_a_row))
        attempt.status, attempt.cause, attempt.charged = target, cause, charged
        if attempt.number == task.newest:
            self.follow(task, target, ended=ended, charged=charged)

    def follow(self, task, target, *, ended, charged):
        wanted = fsm.TASK_OF_INSTANCE.get(TI(target))
        if wanted is None or fsm.judge(Machine.TASK, task.status, wanted) is not Verdict.LEGAL:
            return
        if ended:
            task.num_attempts += charged
            task.in_a_row = 0 if charged else task.in_a_row + 1
        task.status = wanted
        if wanted == TASK.ERROR_RECOVERABLE:
            task.status = retry.after_failure(target, task.num_attempts, MAX_ATTEMPTS, charged=charged)

    def live(self, statuses=LIVE):
        return [attempt_id for attempt_id, one in self.attempts.items() if one.status in statuses]

    @property
    def packed(self):
        return {one for pack in self.packs for one in pack.attempts}

    def take(self, pack, job, now, ahead):
        """Return what a job of a batch gets: the next attempts that have not ended, in order."""
        given = []
        while pack.taken < len(pack.attempts) and len(given) < now + ahead:
            attempt_id = pack.attempts[pack.taken]
            pack.taken += 1
            if self.attempts[attempt_id].status in "IO":
                given.append(attempt_id)
        while pack.taken < len(pack.attempts) and len(given) < now + ahead:
            pack.taken += 1
        for place, attempt_id in enumerate(given):
            self.owners[attempt_id] = job
            self.move(attempt_id, TI.RUNNING if place < now else TI.LAUNCHED)
        return given

    def end_job(self, pack, job, cause, left=(TI.UNKNOWN_ERROR, Cause.WORKER_LOST)):
        """`left`: the outcome of unclaimed attempts if no job is left."""
        pack.jobs[job] = False
        for attempt_id in [one for one in self.live("IORTK") if self.owners.get(one) == job]:
            begun = self.attempts[attempt_id].status not in "IO"
            self.move(attempt_id, TI.UNKNOWN_ERROR, cause if begun else Cause.WORKER_LOST)
        self.settle(pack, *left)

    def settle(self, pack, status=TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST):
        if pack.submitted and not any(pack.jobs.values()):
            for attempt_id in pack.attempts[pack.taken :]:
                if self.attempts[attempt_id].status in "IO":
                    self.move(attempt_id, status, cause)
            pack.taken = len(pack.attempts)

    def kill(self, cause, *, running=True):
        for attempt_id in self.live("Q"):
            self.move(attempt_id, TI.ERROR, cause)
        for attempt_id in self.live("IORT") if running else ():
            self.move(attempt_id, TI.KILL_SELF, cause)
        for pack in self.packs if running else ():
            for attempt_id in pack.attempts[pack.taken :]:
                self.move(attempt_id, TI.ERROR, cause)  # no process could terminate it

    def reset(self):
        for task in self.tasks.values():
            if task.status != TASK.DONE:
                task.status, task.num_attempts, task.in_a_row = TASK.REGISTERING, 0, 0


class ServerMachine(RuleBasedStateMachine):
    """Rules are what clients, distributors and people may ask, at any time."""

    template: str
    only_packs = False

    @initialize()
    def open(self):
        self.open_world()

    def open_world(self):
        if hasattr(self, "folder"):
            return
        self.folder = Path(tempfile.mkdtemp())
        self.mark = databases.current().mark()
        uri = databases.current().copy(self.template, self.folder)
        self.database, self.model, self.keys = Server(uri), Model(), itertools.count()
        self.last_reports = []
        self.start_run()

    def teardown(self):
        self.database.close()
        databases.current().drop_since(self.mark)
        shutil.rmtree(self.folder)

    def start_run(self):
        key = f"run {next(self.keys)}"
        request = RunRequest(
            user="u", host="h", pid=1, pid_start_time=0.0, version="1", next_report_increment=1e6, key=key
        )
        self.run_id = self.database.run(runs.create_run, 1, request).workflow_run_id
        assert self.database.run(runs.create_run, 1, request).workflow_run_id == self.run_id
        for status in (RUN.LINKING, RUN.BOUND, RUN.INSTANTIATED, RUN.LAUNCHED, RUN.RUNNING):
            self.database.run(runs.set_run_status, self.run_id, RunStatusRequest(status=status))
        request = DistributorRequest(host="h", pid=2, pid_start_time=0.0, key=key)
        self.epoch = self.database.run(launching.register, self.run_id, request).epoch

    def sync(self, **message):
        return self.database.run(reporting.sync, self.run_id, SyncRequest(epoch=self.epoch, **message))

    @precondition(lambda self: not self.only_packs)
    @rule(
        task_ids=st.lists(st.integers(1, TASKS), min_size=1, unique=True),
        resources=st.sampled_from([PLAIN, PACKED]),
        repeat=st.booleans(),
    )
    def queue(self, task_ids, resources, repeat):
        batch = QueueBatch(array_id=1, task_ids=task_ids, task_resources_id=resources, cluster_id=1)
        answer = self.database.run(queueing.queue, self.run_id, QueueRequest(batches=[batch]))
        if repeat:
            assert self.database.run(queueing.queue, self.run_id, QueueRequest(batches=[batch])) == answer
        self.model.queue(task_ids)
        told = {task_id: status for status, ids in answer.tasks_by_status.items() for task_id in ids}
        assert told == {task_id: self.model.tasks[task_id].status for task_id in task_ids}

    @precondition(lambda self: not self.only_packs)
    @rule(capacity=st.integers(1, 3), repeat=st.booleans())
    def launch(self, capacity, repeat):
        self.launch_some(capacity, repeat)

    def launch_all(self):
        self.launch_some(TASKS, repeat=False)

    def launch_some(self, capacity, repeat):
        key = f"sync {next(self.keys)}"
        answer = self.sync(capacity={"c": capacity}, key=key, packing=["c"])
        if repeat and answer.launches:
            assert self.sync(capacity={"c": capacity}, key=key, packing=["c"]) == answer
        oldest = sorted(self.model.live("Q"))[:capacity]
        assert sorted(attempt_id for batch in answer.launches for attempt_id in batch.task_instance_ids) == oldest
        for attempt_id in oldest:
            self.model.move(attempt_id, TI.INSTANTIATED)
        for batch in answer.launches:
            is_packed = batch.requested_resources == {"pack": 2} and len(batch.task_ids) > 1
            assert (batch.plan is not None) == is_packed
            if is_packed:
                self.model.packs.append(Pack(batch.batch_number, batch.task_instance_ids))

    @rule(jobs=st.sampled_from([["j1"], ["j1", "j2"]]))
    def pack(self, jobs):
        self.start_a_pack(jobs)

    def start_a_pack(self, jobs):
        """Perform all steps up to a packed batch at once."""
        packs = len(self.model.packs)
        self.queue_packed()
        self.launch_all()
        if len(self.model.packs) > packs:
            self.submit_as(self.model.packs[-1], jobs)

    def queue_packed(self):
        task_ids = list(self.model.tasks)
        batch = QueueBatch(array_id=1, task_ids=task_ids, task_resources_id=PACKED, cluster_id=1)
        self.database.run(queueing.queue, self.run_id, QueueRequest(batches=[batch]))
        self.model.queue(task_ids)

    @precondition(lambda self: self.model.packs)
    @rule(data=st.data(), jobs=st.sampled_from([[], ["j1"], ["j1", "j2"]]))
    def submit(self, data, jobs):
        self.submit_as(data.draw(st.sampled_from(self.model.packs)), jobs)

    def submit_as(self, pack, jobs):
        self.sync(submitted=[SubmittedBatch(batch_number=pack.number, distributor_ids=self.names(pack, jobs))])
        for job in self.names(pack, jobs):
            pack.jobs.setdefault(job, True)
        pack.submitted = True
        for attempt_id in pack.attempts:
            if self.model.attempts[attempt_id].status == TI.INSTANTIATED:
                self.model.move(attempt_id, TI.LAUNCHED)
        self.model.settle(pack)

    @staticmethod
    def names(pack, jobs):
        return [f"{pack.number}{job}" for job in jobs]

    @precondition(lambda self: self.model.packs)
    @rule(
        data=st.data(),
        job=st.sampled_from(JOBS),
        now=st.integers(0, 2),
        ahead=st.integers(0, 2),
        repeat=st.booleans(),
        reported=st.integers(0, 1),
        status=REPORTS,
        ends=st.sampled_from([None, None, None, "leaving", Cause.WORKER_LOST, Cause.NODE_FAILURE]),
    )
    def take(self, data, job, now, ahead, repeat, reported, status, ends):
        """A job reports the oldest that it has, and takes the next."""
        model = self.model
        pack = data.draw(st.sampled_from(model.packs[-2:]))
        (name,) = self.names(pack, [job])
        mine = [one for one in sorted(pack.attempts) if model.owners.get(one) == name and one in model.live("IORTK")]
        request = WorkerTakeRequest(
            array_id=1,
            batch_number=pack.number,
            distributor_id=name,
            reports=[Report(task_instance_id=one, status=status) for one in mine[:reported]],
            alive=mine[reported:],
            capacity=now,
            ahead=ahead,
            key=f"take {next(self.keys)}",
            leaving=ends == "leaving",
        )
        answer = self.database.run(packed_jobs.take, request)
        for one in mine[:reported]:
            model.move(one, status)
        lives = pack.jobs.setdefault(name, True)
        pack.heard_of.add(name)
        if not lives or ends == "leaving":
            assert answer.over
            assert answer.tasks.task_instance_ids == []
            if lives:
                model.end_job(pack, name, Cause.WORKER_LOST)
            return
        expected = model.take(pack, name, now, ahead)
        assert answer.tasks.task_instance_ids == expected
        assert answer.over == (pack.taken == len(pack.attempts))
        assert set(answer.kill) == {one for one in model.live("K") if model.owners.get(one) == name}
        if repeat:
            again = self.database.run(packed_jobs.take, replace(request, reports=[]))
            assert again.tasks.task_instance_ids == expected
        if ends is not None:
            self.job_is_gone(pack, name, ends)

    @precondition(lambda self: self.model.packs and not self.only_packs)
    @rule(data=st.data(), job=st.sampled_from(JOBS), cause=st.sampled_from([None, Cause.NODE_FAILURE]))
    def end_job(self, data, job, cause):
        pack = data.draw(st.sampled_from(self.model.packs[-2:]))
        (name,) = self.names(pack, [job])
        self.job_is_gone(pack, name, cause)

    def job_is_gone(self, pack, name, cause):
        self.sync(ended_jobs=[EndedJob(distributor_id=name, status=TI.ERROR, cause=cause)])
        if name not in pack.jobs:
            return
        left = (TI.UNKNOWN_ERROR, Cause.WORKER_LOST)
        idle_cause = retry.cause_without_worker(cause, None)
        if name not in pack.heard_of and idle_cause != cause:
            left = (TI.ERROR, idle_cause)
        self.model.end_job(pack, name, cause or Cause.WORKER_LOST, left)

    @precondition(lambda self: self.model.attempts)
    @rule(data=st.data())
    def report(self, data):
        ids = st.sampled_from(sorted(self.model.attempts))
        live = self.model.live("IORTK")
        chosen = st.one_of(ids, st.sampled_from(live)) if live else ids
        wanted = data.draw(st.lists(st.tuples(chosen, REPORTS, CAUSES), min_size=1, max_size=4))
        self.last_reports = [Report(task_instance_id=one, status=status, cause=cause) for one, status, cause in wanted]
        late_or_refused = self.sync(reports=self.last_reports)
        for attempt_id, status, cause in wanted:
            self.model.move(attempt_id, status, cause)
        for status, told in (("K", late_or_refused.kill), ("T", late_or_refused.triage)):
            assert sorted(told) == [one for one in self.model.live(status) if one not in self.model.packed]

    @precondition(lambda self: not self.only_packs)
    @rule()
    def send_the_last_reports_again(self):
        """Only what is still to come can happen: a repeat of an applied report changes nothing."""
        self.sync(reports=self.last_reports)
        for one in self.last_reports:
            self.model.move(one.task_instance_id, one.status, one.cause)

    @rule()
    def triage(self):
        self.database.now += OVERDUE_MICROSECONDS
        self.database.run(triaging.triage, self.run_id)
        for attempt_id in self.model.live("O"):
            if attempt_id in self.model.packed:
                self.model.move(attempt_id, TI.UNKNOWN_ERROR, Cause.WORKER_LOST)
            else:
                self.model.move(attempt_id, TI.NO_HEARTBEAT)
        for attempt_id in self.model.live("IR"):
            self.model.move(attempt_id, TI.TRIAGING)

    @rule()
    def stop(self):
        self.database.run(resuming.terminate, self.run_id)
        self.model.kill(Cause.KILLED)

    @precondition(lambda self: not self.only_packs)
    @rule()
    def force_cleanup(self):
        assert self.database.run(resuming.force_cleanup, 1).cleaned == len(self.model.live("K"))
        for attempt_id in self.model.live("K"):
            self.model.move(attempt_id, TI.ERROR)

    @precondition(lambda self: not self.only_packs)
    @rule(cold=st.booleans(), gone=st.booleans())
    def resume(self, cold, gone):
        request = ResumeRequest(reset_running_jobs=cold, gone_run_ids=[self.run_id] if gone else [])
        for _ in range(2):
            answer = self.database.run(resuming.resume, 1, request)
            assert len(answer.active_runs) == (not gone)
        batch = QueueBatch(array_id=1, task_ids=[1], task_resources_id=1, cluster_id=1)
        with pytest.raises(InvalidRequest):
            self.database.run(queueing.queue, self.run_id, QueueRequest(batches=[batch]))
        self.database.run(runs.set_run_status, self.run_id, RunStatusRequest(status=RUN.TERMINATED))
        self.model.kill(Cause.KILLED_FOR_RESUME, running=cold)
        self.force_cleanup()
        if cold:
            self.database.run(resuming.reset_chunk, 1, 0, ResetRequest())
            self.model.reset()
        self.start_run()

    @precondition(lambda self: not self.only_packs)
    @rule()
    def reset_is_refused_while_running(self):
        with pytest.raises(WorkflowNotResumable):
            self.database.run(resuming.start_reset, 1, ResetRequest())

    @invariant()
    def database_equals_model(self):
        tx = self.database.tx
        tasks = tx.rows(TASK_ROWS)
        assert {row[0]: Task(*row[1:]) for row in tasks} == self.model.tasks
        attempts = tx.rows(ATTEMPT_ROWS)
        found = {row[0]: Attempt(row[1], row[2], row[3], row[4], bool(row[5])) for row in attempts}
        assert found == self.model.attempts

    @invariant()
    def counts_equal_a_recount(self):
        counted = {status: number for status, number in self.database.tx.rows(COUNTED) if number}
        assert counted == Counter(task.status for task in self.model.tasks.values())

    @invariant()
    def promises_hold(self):
        tx = self.database.tx
        assert all(task.num_attempts <= MAX_ATTEMPTS for task in self.model.tasks.values())
        for task_id in self.model.tasks:
            live = [one for one in self.model.attempts.values() if one.task == task_id and one.status in LIVE]
            assert len(live) <= 1
        stamp = tx.value(last_stamp)
        assert tx.value(NEWEST_CHANGE) <= stamp
        assert tx.value(WORKFLOW_STATUS) == WorkflowStatus.RUNNING
        handed_over = tx.column(RUNS_OF_LIVE_ATTEMPTS)
        assert handed_over in ([], [self.run_id])


class PackMachine(ServerMachine):
    """Mostly what concerns packed batches, so that it comes to something."""

    only_packs = True

    @initialize(jobs=st.sampled_from([["j1"], ["j1", "j2"]]))
    def begin(self, jobs):
        self.open_world()
        self.start_a_pack(jobs)


#: An example needs a database of its own, and on PostgreSQL a statement needs a message to another process.
EXAMPLES = settings.default.max_examples // (2 if databases.current().dialect == databases.SQLITE else 5)
TestServerAgainstModel = ServerMachine.TestCase
TestPacksAgainstModel = PackMachine.TestCase
TestPacksAgainstModel.settings = settings(stateful_step_count=20, max_examples=EXAMPLES)
TestServerAgainstModel.settings = settings(stateful_step_count=30, max_examples=EXAMPLES)
