"""A distributor's state of packed jobs."""

from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.wire.launching import JobPlan, LaunchBatch, LiveAttempt, PackedBatch, SyncResponse
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.inflight import CLUSTER_WINDOW
from jobmon.distributor.state import DistributorState

AROUND = Surroundings(1, 2, "/logs")
FAILED = RemoteExit(status=TaskInstanceStatus.ERROR, cause=Cause.NODE_FAILURE, message="node n1 failed")


def batch(number=1, count=4, jobs=2):
    ids = list(range(1, count + 1))
    return LaunchBatch(
        batch_number=number,
        array_id=1,
        array_name="t",
        cluster_name="c",
        queue_name="q",
        requested_resources={"pack": 2},
        task_instance_ids=ids,
        task_ids=ids,
        names=["t"] * count,
        commands=["true"] * count,
        attempts=[1] * count,
        plan=JobPlan(mode="pack", jobs=jobs),
    )


def state(*launches):
    one = DistributorState(["c"], AROUND)
    one.take(launches)
    return one


def submitted(*ids):
    one = state(batch())
    (given,) = one.submittable()["c"]
    one.packed_handed_over(given)
    one.packed_found(given.batch_number, ids)
    return one


def test_a_packed_batch_is_submitted_and_told_as_jobs():
    one = submitted("7_0", "7_1")
    changes = one.outbox.take_changes()
    assert [(told.batch_number, told.distributor_ids) for told in changes.submitted] == [(1, ["7_0", "7_1"])]
    assert sorted(one.classic("c")) == ["7_0", "7_1"]
    assert one.live_jobs(one.classic("c").values()) == ["7_0", "7_1"]
    assert one.alive() == []
    assert not one.is_idle


def test_what_nobody_has_taken_counts_as_handed_over():
    one = submitted("7_0", "7_1")
    assert one.capacity() == {"c": CLUSTER_WINDOW - 4 - 2}
    one.hear_packed(SyncResponse(workflow_run_status="R", untaken={1: 1}))
    assert one.capacity() == {"c": CLUSTER_WINDOW - 1 - 2}
    assert one.packed.untaken_numbers == [1]
    one.hear_packed(SyncResponse(workflow_run_status="R", untaken={1: 0}))
    assert one.packed.untaken_numbers == []


def test_a_job_that_is_gone_is_told_with_its_cause_again_until_the_server_has_it():
    one = submitted("7_0", "7_1")
    one.outbox.take_changes()
    one.confirm_reports()
    one.classic_ended(one.classic("c")["7_0"], FAILED)
    for _ in range(2):
        assert one.has_reports
        (ended,) = one.outbox.take_changes().ended
        assert (ended.distributor_id, ended.cause, ended.error) == ("7_0", Cause.NODE_FAILURE, "node n1 failed")
        one.restore_reports()
    one.outbox.take_changes()
    one.confirm_reports()
    assert not one.has_reports
    assert sorted(one.classic("c")) == ["7_1"]


def test_what_never_starts_is_told_too():
    one = submitted("7_0")
    one.outbox.take_changes()
    one.classic_stuck(one.classic("c")["7_0"], "no such partition")
    (ended,) = one.outbox.take_changes().ended
    assert (ended.status, ended.cause, ended.error) == ("E", Cause.SUBMISSION_FAILED, "no such partition")


def test_a_batch_that_is_over_is_forgotten_and_its_jobs_that_did_not_begin_are_cancelled():
    one = submitted("7_0", "7_1")
    one.outbox.take_changes()
    one.confirm_reports()
    answer = SyncResponse(workflow_run_status="R", untaken={1: 0}, over=[1], unstarted=["7_1"])
    assert one.hear_packed(answer) == {"c": ["7_1"]}
    assert one.is_idle
    assert one.hear_packed(answer) == {}
    assert one.capacity() == {"c": CLUSTER_WINDOW}


def test_a_batch_that_pilots_see_to_has_no_jobs_of_its_own():
    one = state(batch(jobs=0))
    (given,) = one.submittable()["c"]
    one.packed_handed_over(given)
    one.packed_found(given.batch_number, [])
    assert one.outbox.take_changes().submitted[0].distributor_ids == []
    assert one.packed.numbers == [1]
    assert not one.is_idle


def test_packed_batches_are_taken_over_by_their_jobs():
    one = state()
    attempt = LiveAttempt(
        task_instance_id=1,
        task_id=1,
        status="R",
        cluster_name="c",
        distributor_id="7_0",
        array_id=1,
        batch_number=1,
        array_step_id=0,
        requested_resources={},
        packed=True,
    )
    assert one.adopt([attempt]) == {}
    known = PackedBatch(batch_number=1, cluster_name="c", untaken=3, submitted=True, distributor_ids=["7_0"])
    unknown = PackedBatch(batch_number=2, cluster_name="c", untaken=4, submitted=False, distributor_ids=[])
    assert one.adopt_packed([known, unknown]) == {"c": [2]}
    assert sorted(one.classic("c")) == ["7_0"]
    assert not one.has_reports
    one.packed_found(2, ["8_0"])
    assert sorted(one.classic("c")) == ["7_0", "8_0"]
    assert one.adopt([attempt]) == {}, "registering again kills nothing"
    assert one.adopt_packed([known, unknown]) == {}


def test_registering_anew_doubts_nothing_that_is_being_submitted_here():
    one = state(batch())
    known = PackedBatch(batch_number=1, cluster_name="c", untaken=4, submitted=False, distributor_ids=[])
    assert one.adopt_packed([known]) == {}
    (given,) = one.submittable()["c"]
    assert one.adopt_packed([known]) == {}
    one.packed_handed_over(given)
    one.packed_found(given.batch_number, ["7_0"])
    one.take([batch()])
    assert one.submittable() == {}, "it came twice"


def test_what_was_not_submitted_is_told_as_nothing():
    one = state()
    one.adopt_packed([PackedBatch(batch_number=2, cluster_name="c", untaken=4, submitted=False, distributor_ids=[])])
    one.packed_found(2, [])
    assert one.outbox.take_changes().submitted[0].distributor_ids == []


def test_a_packed_batch_that_comes_too_late_is_given_back():
    one = state()
    one.drain()
    one.take([batch()])
    assert [report.status for report in one.take_reports(10)] == ["U"] * 4
    assert one.submittable() == {}


def test_a_packed_batch_that_waits_here_is_given_back_when_the_client_goes():
    one = state(batch())
    one.drain()
    assert [report.status for report in one.take_reports(10)] == ["U"] * 4
    assert one.submittable() == {}
