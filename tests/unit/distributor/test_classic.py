"""A classic cluster that responds late, wrongly or not at all, on simulated time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jobmon.core.cluster_protocol import (
    FIRST_STEP,
    SUBMISSION_TOKEN,
    ArraySubmission,
    ClusterDistributor,
    RemoteExit,
)
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import ClusterFull, ClusterUnavailable, SubmissionDeferred, SubmissionRejected
from jobmon.core.wire.launching import JobPlan, LaunchBatch, LiveAttempt
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.classic import EXIT_UNKNOWN_SECONDS, UNREPORTED_SECONDS, ClassicCluster, Watching
from jobmon.distributor.cluster_calls import ClusterCalls
from jobmon.distributor.state import DistributorState
from jobmon.distributor.submissions import PATIENCE_SECONDS
from jobmon.distributor.undelivered import StartErrors, UndeliveredReports
from jobmon.testing.gateways import FakeDistributorGateway

TI = TaskInstanceStatus


class Yard(ClusterDistributor):
    """A cluster in memory."""

    def __init__(self, shares_watch=False):
        super().__init__("yard")
        self.shares_watch = shares_watch
        self.worker_node_entry = "worker"
        self.jobs = {}  # id -> token
        self.ended = {}  # id -> RemoteExit, or None: not known yet
        self.trouble = None
        self.loses_answers = False
        self.mistake = None  # raised after it has submitted
        self.limit = None
        self.lengths = []
        self.answer = lambda ids: ids
        self.pending = {}
        self.hosts = {}
        self.killed = []
        self.views = []

    @property
    def worker_node_entry_point(self):
        return "worker"

    def submit_to_batch_distributor(self, command, name, requested_resources):
        return self._submit(requested_resources[SUBMISSION_TOKEN], 1)[0]

    def submit_array_to_batch_distributor(self, command, name, requested_resources, array_length):
        first = requested_resources.get(FIRST_STEP, 0)
        return self.answer(self._submit(requested_resources[SUBMISSION_TOKEN], array_length, first))

    def _submit(self, token, length, first=0):
        self.calls["submit"] += 1
        self.lengths.append(length)
        if self.trouble is not None and not self.loses_answers:
            raise self.trouble
        fits = length if self.limit is None else max(0, min(length, self.limit - len(self.jobs.keys() - self.ended)))
        if not fits:
            raise ClusterFull("no more jobs")
        ids = {step: f"{token}/{step}" for step in range(first, first + fits)}
        assert not self.jobs.keys() & set(ids.values()), "submitted twice"
        self.jobs.update(dict.fromkeys(ids.values(), token))
        if self.loses_answers:
            raise ClusterUnavailable("socket timed out")
        if self.mistake is not None:
            raise self.mistake
        return ids if fits == length else ArraySubmission(ids, ClusterFull("no more jobs"))

    def find_submitted(self, tokens):
        self._answer("find")
        found = {}
        for job, token in self.jobs.items():
            if token in tokens:
                found.setdefault(token, {})[int(job.rpartition("/")[2])] = job
        return found

    def _answer(self, call):
        self.calls[call] += 1
        if self.trouble is not None:
            raise self.trouble

    def look(self, since):
        self._answer("look")
        return {"jobs": sorted(self.jobs), "since": since}

    def show(self, view):
        self.views.append(view)

    def get_submitted_or_running(self, distributor_ids=None):
        if not self.shares_watch:
            self._answer("ask")
            return set(self.jobs) - set(self.ended)
        return set(self.views[-1]["jobs"]) - set(self.ended)

    def get_remote_exits(self, distributor_ids):
        return {one: self.ended[one] for one in distributor_ids if self.ended.get(one) is not None}

    def get_remote_exit_info(self, distributor_id):
        raise AssertionError("endings are asked for in bulk")

    def get_pending_reasons(self, distributor_ids):
        return self.pending

    def get_running_hosts(self, distributor_ids):
        return self.hosts

    def terminate_task_instances(self, distributor_ids):
        self._answer("kill")
        self.killed += distributor_ids


class Still:
    """A clock."""

    def __init__(self):
        self.seconds = 1_000.0

    def monotonic(self):
        return self.seconds

    def now(self):
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


async def in_place(work, argument):
    return work(argument)


class Lab:
    """A classic cluster with nothing real around it."""

    def __init__(self, folder, shares_watch=False):
        around = Surroundings(1, 2, str(folder), "cafe")
        self.yard = Yard(shares_watch)
        self.state = DistributorState(["yard"], around)
        self.clock = Still()
        self.gateway = FakeDistributorGateway([], str(folder))
        undelivered = UndeliveredReports(around.log_folder)
        self.calls = ClusterCalls("yard", self.yard, around, undelivered, StartErrors(str(folder), "yard"))
        self.cluster = ClassicCluster(
            self.yard,
            self.state,
            self.calls,
            Watching(holder="me", server="http://there:1"),
            self.gateway,
            self.clock,
            undelivered,
            in_place,
        )

    async def turn(self):
        """Let everything happen that is due now."""
        for _ in range(10):
            for name, batches in self.state.submittable().items():
                assert name == "yard"
                self.cluster.submit(batches)
            for doubts in self.state.doubtful().values():
                self.cluster.find(doubts)
            begun, due = self.cluster.advance()
            if not begun:
                return min(due, default=None)
            await asyncio.gather(*begun)
        raise AssertionError("it never comes to rest")

    async def pass_time(self, seconds):
        """Let time pass, and everything happen that is due meanwhile."""
        until = self.clock.seconds + seconds
        while True:
            due = await self.turn()
            if due is None or due > until:
                break
            assert due > self.clock.seconds, "it is due, and nothing happens"
            self.clock.seconds = due
        self.clock.seconds = until
        await self.turn()

    async def submitted(self, *ids):
        self.state.take([batch(*ids)])
        await self.turn()
        self.said()
        held = {identity: job for job, identity in self.state.classic("yard").items()}
        return [held[identity] for identity in ids]

    def said(self):
        reports = self.state.take_reports(100)
        self.state.confirm_reports()
        return {one.task_instance_id: one for one in reports}

    def endings(self):
        return {identity: (TI(one.status).name, one.cause) for identity, one in self.said().items()}


def batch(*ids, number=4):
    return LaunchBatch(
        batch_number=number,
        array_id=1,
        array_name="array",
        cluster_name="yard",
        queue_name="default",
        requested_resources={},
        task_instance_ids=list(ids),
        task_ids=list(ids),
        names=[f"t{one}" for one in ids],
        commands=["true" for _ in ids],
        attempts=[1 for _ in ids],
    )


@pytest.fixture(params=[False, True], ids=["asked", "looked at"])
def lab(request, tmp_path):
    return Lab(tmp_path, shares_watch=request.param)


async def test_an_array_is_submitted_under_the_token_of_its_batch(lab):
    lab.state.take([batch(1, 2), batch(3, number=5)])
    await lab.turn()
    assert lab.state.classic("yard") == {"jm-cafe-1-4/0": 1, "jm-cafe-1-4/1": 2, "jm-cafe-1-a3/0": 3}
    assert {identity: str(one.status) for identity, one in lab.said().items()} == dict.fromkeys([1, 2, 3], "O")


async def test_a_cluster_that_does_not_answer_fails_nothing(lab):
    lab.yard.trouble = ClusterUnavailable("Unable to contact slurm controller")
    lab.state.take([batch(1, 2)])
    await lab.pass_time(600)
    assert lab.said() == {}
    assert set(lab.state.alive()) == {1, 2}
    assert lab.yard.calls["submit"] == 1, "who knows whether it was submitted?"
    assert lab.yard.calls["find"] < 20
    lab.yard.trouble = None
    await lab.pass_time(60)
    assert lab.endings() == {1: ("NO_DISTRIBUTOR_ID", Cause.WORKER_LOST), 2: ("NO_DISTRIBUTOR_ID", Cause.WORKER_LOST)}
    assert not lab.state.classic("yard"), "they are queued again, not charged"


async def test_that_a_cluster_does_not_answer_is_said_once_and_that_it_does_again(lab, caplog):
    await lab.submitted(1)
    lab.yard.trouble = ClusterUnavailable("away")
    lab.state.take([batch(2, number=5)])
    await lab.pass_time(300)
    lab.yard.trouble = None
    await lab.pass_time(120)
    said = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert [one.split(";")[0].split(",")[0] for one in said] == [
        "Cluster yard is not responding",
        "Cluster yard is responding again",
    ]


async def test_a_submission_whose_answer_was_lost_is_found_again(lab):
    lab.yard.loses_answers = True
    lab.state.take([batch(1, 2), batch(3, number=5)])
    await lab.turn()
    lab.yard.loses_answers = False
    await lab.pass_time(5)
    assert lab.state.classic("yard") == {"jm-cafe-1-4/0": 1, "jm-cafe-1-4/1": 2, "jm-cafe-1-a3/0": 3}
    assert lab.yard.calls["submit"] == 2, "the first was looked up, the second had only waited"


async def test_a_full_cluster_is_tried_again(lab):
    lab.yard.trouble = ClusterFull("no more jobs")
    lab.state.take([batch(1, 2), batch(3, number=5)])
    await lab.pass_time(120)
    assert lab.said() == {}
    assert 3 <= lab.yard.calls["submit"] <= 10
    lab.yard.trouble = None
    await lab.pass_time(60)
    assert len(lab.state.classic("yard")) == 3


async def test_what_was_to_be_killed_while_the_cluster_was_away_is_killed_later(lab):
    jobs = await lab.submitted(1, 2)
    lab.yard.trouble = ClusterUnavailable("away")
    lab.cluster.terminate(lab.state.kill([1])["yard"])
    await lab.pass_time(30)
    lab.yard.trouble = None
    await lab.pass_time(60)
    assert lab.yard.killed == jobs[:1]
    del lab.yard.jobs[jobs[0]]
    await lab.pass_time(20)
    assert lab.endings() == {1: ("ERROR", Cause.KILLED_FOR_RESUME)}


async def test_how_it_ended_is_said_with_all_that_the_cluster_knows(lab):
    (job,) = await lab.submitted(1)
    lab.yard.ended[job] = RemoteExit(
        status=TI.RESOURCE_ERROR, cause=Cause.OUT_OF_MEMORY, message="out of memory", host="n1", max_rss_bytes=5,
        cpu_seconds=1.0, wallclock_seconds=2.0, started_at=3.0, ended_at=5.0,
    )  # fmt: skip
    await lab.pass_time(10)
    report = lab.said()[1]
    assert (report.status, report.cause, report.error) == (TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, "out of memory")
    assert (report.host, report.max_rss_bytes, report.cpu_seconds, report.wallclock_seconds) == ("n1", 5, 1.0, 2.0)
    assert report.started_at is None, "when its command started only its worker knows"
    assert report.ended_at.timestamp() == 5.0


async def test_an_ending_that_is_not_known_yet_is_waited_for(lab):
    (job,) = await lab.submitted(1)
    lab.yard.ended[job] = None
    await lab.pass_time(EXIT_UNKNOWN_SECONDS - 20)
    assert lab.said() == {}
    lab.yard.ended[job] = RemoteExit(status=TI.ERROR, exit_code=7, message="exit code 7")
    await lab.pass_time(15)
    assert lab.endings() == {1: ("ERROR", Cause.EXIT_CODE)}


async def test_an_ending_that_nobody_ever_knows_is_a_lost_worker(lab):
    (job,) = await lab.submitted(1)
    lab.yard.ended[job] = None
    await lab.pass_time(EXIT_UNKNOWN_SECONDS + 25)
    assert lab.endings() == {1: ("UNKNOWN_ERROR", Cause.WORKER_LOST)}


async def test_what_was_silent_for_long_and_is_gone_is_lost_at_once(lab):
    (job,) = await lab.submitted(1)
    lab.yard.ended[job] = None
    assert lab.state.triage([1]) == {"yard"}
    lab.cluster.urge()
    await lab.pass_time(5)
    assert lab.endings() == {1: ("UNKNOWN_ERROR", Cause.WORKER_LOST)}


async def test_what_was_killed_is_measured_if_the_cluster_can(lab):
    first, second = await lab.submitted(1, 2)
    lab.cluster.terminate(lab.state.kill([1, 2])["yard"])
    await lab.turn()
    lab.yard.ended.update({first: None, second: None})
    await lab.pass_time(3)
    assert lab.said() == {}
    lab.yard.ended[first] = RemoteExit(status=TI.ERROR, cause=Cause.KILLED, message="cancelled", max_rss_bytes=7)
    await lab.pass_time(10)
    reports = lab.said()
    assert {one.cause for one in reports.values()} == {Cause.KILLED_FOR_RESUME}
    assert [reports[one].max_rss_bytes for one in (1, 2)] == [7, None]


async def test_a_job_that_ended_well_waits_for_its_worker_s_word(lab):
    first, second = await lab.submitted(1, 2)
    for job in (first, second):
        lab.yard.ended[job] = RemoteExit(status=TI.DONE)
    await lab.pass_time(15)
    assert lab.said() == {}
    assert lab.cluster.wants_endings
    assert lab.cluster.alive() == []
    lab.cluster.forget(lab.state.classic_over([1]))
    await lab.pass_time(UNREPORTED_SECONDS + 20)
    assert lab.endings() == {2: ("UNKNOWN_ERROR", Cause.WORKER_LOST)}
    assert lab.state.is_idle


async def test_a_worker_s_start_error_becomes_the_error(lab, tmp_path):
    (job,) = await lab.submitted(1)
    job_file = tmp_path / "logs" / "start_errors" / "yard" / job
    job_file.parent.mkdir(parents=True)
    job_file.write_text("the server cannot be reached from n1 (tried http://192.0.2.1:8)")
    lab.yard.ended[job] = RemoteExit(status=TI.ERROR, exit_code=1, message="exit code 1")
    await lab.pass_time(15)
    error = lab.said()[1].error
    assert error == "exit code 1; its worker said: the server cannot be reached from n1 (tried http://192.0.2.1:8)"
    assert not job_file.exists()


async def test_what_was_taken_over_is_asked_about_at_once_and_submissions_in_doubt_are_looked_up(tmp_path):
    lab = Lab(tmp_path, shares_watch=True)
    lab.yard.jobs = {"jm-cafe-1-4/0": "jm-cafe-1-4", "old": "x"}
    attempts = [live(1, "I", step=0), live(2, "I", step=1), live(3, "R", "old"), live(4, "R", "gone")]
    lab.yard.ended["gone"] = RemoteExit(status=TI.ERROR, cause=Cause.NODE_FAILURE)
    lab.state.adopt(attempts)
    lab.cluster.urge()
    await lab.turn()
    assert lab.state.classic("yard") == {"jm-cafe-1-4/0": 1, "old": 3}
    assert lab.endings() == {
        1: ("LAUNCHED", None),
        2: ("NO_DISTRIBUTOR_ID", Cause.WORKER_LOST),
        4: ("ERROR", Cause.NODE_FAILURE),
    }
    assert lab.yard.views[0]["since"] < 50.0, "since they were handed out, and some more"


def live(identity, status, distributor_id=None, step=0):
    return LiveAttempt(
        task_instance_id=identity, task_id=identity, status=status, cluster_name="yard", distributor_id=distributor_id,
        array_id=1, batch_number=4, array_step_id=step, requested_resources={}, launched_at=600.0,
    )  # fmt: skip


async def test_what_was_submitted_after_a_look_began_is_not_missed_in_it(tmp_path):
    lab = Lab(tmp_path, shares_watch=True)
    await lab.submitted(1)
    gate = asyncio.Event()

    async def slowly(work, argument):
        result = work(argument)
        if work == lab.yard.look:
            await gate.wait()
        return result

    lab.cluster._watch._in_thread = slowly
    lab.clock.seconds += 100
    (look,), _ = lab.cluster.advance()
    await asyncio.sleep(0)
    lab.state.take([batch(2, number=6)])
    lab.cluster.submit(lab.state.submittable()["yard"])
    begun, _ = lab.cluster.advance()
    lab.clock.seconds += 1
    await asyncio.gather(*begun)
    lab.cluster.advance()
    gate.set()
    await look
    await lab.turn()
    assert len(lab.yard.views) == 1
    assert lab.endings() == {2: ("LAUNCHED", None)}
    assert lab.cluster.alive() == [1, 2]


async def test_a_quiet_run_costs_few_looks(lab):
    await lab.submitted(*range(1, 1001))
    await lab.pass_time(30)
    assert lab.yard.calls["look"] + lab.yard.calls["ask"] <= 4
    await lab.pass_time(100)
    assert lab.yard.calls["look"] + lab.yard.calls["ask"] <= 14


async def test_why_jobs_wait_is_told_when_it_changes(lab):
    job, _ = await lab.submitted(1, 2)
    lab.yard.pending = {job: "Resources"}
    await lab.pass_time(40)
    assert lab.state.outbox.take_changes().pending == {1: "Resources"}
    await lab.pass_time(60)
    assert lab.state.outbox.take_changes().pending == {}
    lab.yard.pending = {job: "Priority"}
    await lab.pass_time(60)
    assert lab.state.outbox.take_changes().pending == {1: "Priority"}


# -- what a cluster does not take ---------------------------------------------------------------------------------


@pytest.mark.parametrize("continues", [False, True])
async def test_what_fits_is_submitted_and_the_rest_waits_and_is_not_charged(lab, continues):
    lab.yard.limit, lab.yard.continues_arrays = 10, continues
    lab.state.take([batch(*range(1, 31))])
    await lab.turn()
    assert len(lab.state.classic("yard")) == 10
    assert lab.cluster.wants_endings, "their exits make room"
    assert lab.cluster.problem().waiting == 20
    assert lab.cluster.problem().text == "no more jobs"
    calls = lab.yard.calls["submit"]
    for round_ in range(1, 21):
        job, identity = next(iter(lab.state.classic("yard").items()))
        lab.yard.ended[job] = RemoteExit(status=TI.DONE)
        lab.cluster.forget(lab.state.classic_over([identity]))
        await lab.turn()
        assert len(lab.yard.jobs) == 10 + round_, "its place is taken at once"
    assert lab.yard.calls["submit"] - calls <= 20 * (1 if continues else 2)
    assert lab.cluster.problem() is None
    assert {str(one.status) for one in lab.said().values()} == {"O"}


async def test_the_rest_of_an_array_is_submitted_as_an_array_with_its_own_steps(lab):
    lab.yard.limit, lab.yard.continues_arrays = 2, True
    lab.state.take([batch(11, 12, 13, 14, 15)])
    await lab.turn()
    lab.yard.limit = None
    await lab.pass_time(30)
    held = {identity: job for job, identity in lab.state.classic("yard").items()}
    steps = {11: 0, 12: 1, 14: 3, 15: 4}
    assert held == {**{one: f"jm-cafe-1-4/{step}" for one, step in steps.items()}, 13: "jm-cafe-1-a13/0"}
    assert lab.yard.lengths == [5, 1, 2]


async def test_a_fault_that_passes_is_waited_for(lab):
    lab.yard.trouble = SubmissionDeferred("I/O error writing script")
    lab.state.take([batch(1, 2, 3)])
    await lab.pass_time(25)
    assert lab.said() == {}
    assert 4 <= lab.yard.calls["submit"] <= 6, "after 1, 2, 4, 8 s"
    assert lab.yard.calls["find"] == 0, "it is known that nothing was submitted"
    problem = lab.cluster.problem()
    assert (problem.text, problem.waiting) == ("I/O error writing script", 3)
    lab.yard.trouble = None
    await lab.pass_time(20)
    assert len(lab.state.classic("yard")) == 3
    assert lab.cluster.problem() is None


async def test_a_fault_that_does_not_pass_is_a_rejection_with_its_text_in_the_end(lab):
    lab.yard.trouble = SubmissionDeferred("I/O error writing script")
    lab.state.take([batch(1, 2, 3)])
    await lab.pass_time(PATIENCE_SECONDS + 70)
    reports = lab.said()
    assert {(str(one.status), one.cause, one.error) for one in reports.values()} == {
        ("W", Cause.SUBMISSION_FAILED, "I/O error writing script")
    }
    assert lab.yard.calls["submit"] < 25
    assert lab.state.is_idle


async def test_a_rejection_is_told_at_once_in_the_cluster_s_words(lab):
    lab.yard.trouble = SubmissionRejected("Slurm refused: Invalid account")
    lab.state.take([batch(1, 2, 3)])
    await lab.turn()
    assert {one.error for one in lab.said().values()} == {"Slurm refused: Invalid account"}
    assert lab.yard.calls["submit"] == 1


async def test_a_rejected_rest_keeps_the_reason(lab):
    lab.yard.answer = lambda ids: ArraySubmission({0: ids[0]}, SubmissionRejected("Invalid qos"))
    lab.state.take([batch(1, 2, 3)])
    await lab.turn()
    reports = lab.said()
    assert {identity: str(one.status) for identity, one in reports.items()} == {1: "O", 2: "W", 3: "W"}
    assert {reports[2].error, reports[3].error} == {"Invalid qos"}


@pytest.mark.parametrize("mistake", [AttributeError("group"), TypeError(), KeyError("id"), RuntimeError("?")], ids=repr)
async def test_a_mistake_of_a_plug_in_submits_nothing_twice(lab, mistake):
    lab.yard.mistake = mistake
    lab.state.take([batch(1, 2), batch(3, number=5)])
    await lab.pass_time(10)
    assert lab.state.classic("yard") == {"jm-cafe-1-4/0": 1, "jm-cafe-1-4/1": 2, "jm-cafe-1-a3/0": 3}
    assert lab.yard.calls["submit"] == 2
    assert {str(one.status) for one in lab.said().values()} == {"O"}


async def test_a_plug_in_that_always_fails_is_told_after_a_while_and_ends_nothing_else(lab):
    lab.yard.trouble = ValueError("cannot parse")
    lab.yard.find_submitted = lambda tokens: {}
    identity, said = 0, {}
    while not said:
        identity += 1  # what is nowhere is queued again by the server, as another attempt
        assert identity < 40
        lab.state.take([batch(identity, identity + 1_000, number=identity)])
        while not (reports := lab.said()):
            await lab.pass_time(5)
        said = {one.error for one in reports.values() if one.cause == Cause.SUBMISSION_FAILED}
    assert said == {"ValueError: cannot parse"}
    assert PATIENCE_SECONDS <= lab.clock.seconds - 1_000 <= PATIENCE_SECONDS + 200


@pytest.mark.parametrize(
    "answer",
    [dict, lambda ids: list(ids.values()), lambda ids: (ids, None), lambda ids: (list(ids.values()), None)],
    ids=["dict", "list", "pair", "pair with a list"],
)
async def test_what_plug_ins_return_of_an_array(lab, answer):
    lab.yard.answer = answer
    await lab.submitted(1, 2)
    assert lab.state.classic("yard") == {"jm-cafe-1-4/0": 1, "jm-cafe-1-4/1": 2}


async def test_a_pair_says_why_the_rest_was_not_submitted(lab):
    def answer(ids):
        del lab.yard.jobs[ids[1]]
        return [ids[0]], ClusterFull("no more jobs")

    lab.yard.answer = answer
    lab.state.take([batch(1, 2)])
    await lab.turn()
    assert list(lab.state.classic("yard").values()) == [1]
    assert lab.cluster.problem().waiting == 1


async def test_a_step_that_got_no_id_is_looked_up(lab):
    lab.yard.answer = lambda ids: {0: ids[0], 1: None}
    lab.state.take([batch(1, 2, 3)])
    await lab.pass_time(5)
    assert len(lab.state.classic("yard")) == 3
    assert lab.yard.calls["submit"] == 1


async def test_what_is_killed_while_it_waits_is_never_submitted(lab):
    lab.yard.trouble = ClusterFull("no more jobs")
    lab.state.take([batch(1, 2, 3)])
    await lab.pass_time(3)
    assert lab.state.kill([1, 2]) == {}
    lab.yard.trouble = None
    await lab.pass_time(20)
    assert list(lab.state.classic("yard").values()) == [3]
    assert {identity: one.cause for identity, one in lab.said().items() if identity != 3} == dict.fromkeys(
        [1, 2], Cause.KILLED_FOR_RESUME
    )


async def test_what_waits_when_nothing_more_is_launched_is_given_back(lab):
    lab.yard.trouble = ClusterFull("no more jobs")
    lab.state.take([batch(1, 2)])
    await lab.pass_time(3)
    lab.state.drain()
    await lab.turn()
    assert lab.endings() == dict.fromkeys([1, 2], ("UNKNOWN_ERROR", Cause.WORKER_LOST))
    assert lab.state.is_idle


async def test_a_pack_waits_whole_and_some_jobs_of_it_will_do(lab):
    from jobmon.core.wire import replace

    lab.yard.trouble = SubmissionDeferred("disk")
    lab.state.take([replace(batch(*range(1, 9)), plan=JobPlan(mode="pilot", jobs=4))])
    await lab.pass_time(5)
    assert lab.cluster.problem().waiting == 8
    assert lab.said() == {}
    lab.yard.trouble, lab.yard.limit = None, 2
    await lab.pass_time(10)
    assert len(lab.yard.jobs) == 2
    assert lab.cluster.problem() is None


def test_a_plug_in_says_whether_it_has_arrays_or_has_the_method(lab):
    class Plain(Yard):
        submit_array_to_batch_distributor = ClusterDistributor.submit_array_to_batch_distributor

    assert lab.calls._has_arrays()
    lab.yard.has_arrays = False
    assert not lab.calls._has_arrays()
    lab.calls._adapter = Plain()
    assert not lab.calls._has_arrays()


async def test_hosts_that_are_left_out_are_not_what_a_rejection_is_for(lab):
    from jobmon.core.wire import replace

    def answer(ids):
        raise SubmissionRejected("Requested node configuration is not available")

    lab.yard.answer = answer
    lab.state.take([replace(batch(1, 2), excluded_hosts=["n1"])])
    begun, _ = lab.cluster.advance()
    for batches in lab.state.submittable().values():
        lab.cluster.submit(batches)
    begun, _ = lab.cluster.advance()
    await asyncio.gather(*begun)
    assert lab.said() == {}
    lab.yard.jobs.clear()
    await lab.turn()
    assert {one.error for one in lab.said().values()} == {"Requested node configuration is not available"}
    assert lab.yard.calls["submit"] == 2


async def test_a_job_without_a_word_of_its_worker_is_reported_after_a_minute(lab):
    jobs = await lab.submitted(1, 2)
    lab.yard.hosts = dict.fromkeys(jobs, "n1")
    await lab.pass_time(30)
    assert lab.cluster.ask_unheard() == []
    await lab.pass_time(60)
    assert lab.cluster.ask_unheard() == [1, 2]
    lab.cluster.take_heard([2], [])
    assert lab.cluster.problem().text.startswith("jobs run on n1 but cannot reach the server at http://there:1")
    assert lab.state.outbox.take_changes().pending == {
        1: "its job runs on n1, but cannot reach the server at http://there:1"
    }
    lab.yard.ended[jobs[0]] = RemoteExit(status=TI.RESOURCE_ERROR, cause=Cause.OUT_OF_TIME)
    await lab.pass_time(30)
    assert lab.cluster.problem() is None
    assert lab.said()[1].of_job


async def test_a_job_that_somebody_cancels_is_reported_unless_it_was_to_end(lab):
    jobs = await lab.submitted(1, 2)
    for one in lab.state.kill([1]).values():
        lab.cluster.terminate(one)
    cancelled = RemoteExit(status=TI.ERROR_FATAL, cause=Cause.KILLED, message="cancelled by you")
    lab.yard.ended.update(dict.fromkeys(jobs, cancelled))
    await lab.pass_time(30)
    assert lab.cluster.problem().text.startswith(f"1 job ({jobs[1]}): cancelled by you; ")
