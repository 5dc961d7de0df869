"""The distributor's decisions as pure functions of events."""

from copy import deepcopy
from dataclasses import replace

import pytest

from jobmon.core import wire
from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.wire.launching import JobPlan, LaunchBatch, LaunchProblem, LiveAttempt, Report
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.inflight import CLUSTER_WINDOW, NO_ARRAY, AttemptRecord, AttemptState, Doubt
from jobmon.distributor.state import DistributorState

AROUND = Surroundings(1, 2, "/logs/1")


def make():
    return DistributorState(["far"], AROUND)


def submitted(state, *ids):
    """Take and submit attempts, and send the reports on that."""
    state.take([batch(*ids)])
    state.submittable()
    state.submitted("far", {one: f"j{one}" for one in ids})
    return said(state)


def batch(*ids, cluster="far", number=1, **resources):
    return LaunchBatch(
        batch_number=number,
        array_id=1,
        array_name="array",
        cluster_name=cluster,
        queue_name="default",
        requested_resources=resources,
        task_instance_ids=list(ids),
        task_ids=list(ids),
        names=[f"t{one}" for one in ids],
        commands=["true" for _ in ids],
        attempts=[1 for _ in ids],
    )


def live(identity, status, cluster="far", distributor_id=None, **resources):
    return LiveAttempt(
        task_instance_id=identity,
        task_id=identity,
        status=status,
        cluster_name=cluster,
        distributor_id=distributor_id,
        array_id=1,
        batch_number=1,
        array_step_id=0,
        requested_resources=resources,
    )


def remote(status, **values):
    return RemoteExit(status=TaskInstanceStatus[status], **values)


def said(state):
    reports = state.take_reports(100)
    state.confirm_reports()
    return {one.task_instance_id: (str(one.status), one.cause) for one in reports}


def test_capacity_counts_what_waits_and_runs():
    state = make()
    assert state.capacity() == {"far": CLUSTER_WINDOW}
    state.take([batch(4, 5)])
    assert state.capacity() == {"far": CLUSTER_WINDOW - 2}
    state.submittable()
    state.submitted("far", {4: "j4"})
    state.refused([5], "full")
    assert state.capacity() == {"far": CLUSTER_WINDOW - 1}
    state.drain()
    assert state.capacity() == {}


def test_the_same_launch_twice_is_taken_once():
    state = make()
    state.take([batch(1)])
    state.take([batch(1)])
    assert [one.task_instance_ids for one in state.submittable()["far"]] == [[1]]
    state.take([batch(1)])
    assert state.submittable() == {}


def test_kill_what_waits_runs_and_was_never_here():
    state = make()
    submitted(state, 1)
    state.take([batch(2)])
    assert state.kill([1, 2, 3]) == {"far": ["j1"]}
    assert set(state.known_to_kill) == {1, 2, 3}
    assert state.kill([1, 2, 3]) == {}
    assert said(state) == {2: ("E", Cause.KILLED_FOR_RESUME), 3: ("E", Cause.KILLED_FOR_RESUME)}
    state.classic_ended(1, remote("ERROR"))
    assert said(state) == {1: ("E", Cause.KILLED_FOR_RESUME)}
    state.take([batch(3)])
    assert state.submittable() == {}, "its launch was overtaken by the wish to kill it"


def test_the_cause_of_a_kill_follows_the_run():
    state = make()
    state.set_run_status(WorkflowRunStatus.STOPPED)
    state.kill([1])
    assert said(state) == {1: ("E", Cause.KILLED)}


def test_triage():
    state = make()
    submitted(state, 2)
    assert state.triage([2, 3]) == {"far"}
    assert set(state.known_to_triage) == {2, 3}
    assert said(state) == {3: ("U", Cause.WORKER_LOST)}
    assert state.known_to_triage == [2]
    for _ in range(2):
        state.classic_alive([2])
        assert state.known_to_triage == [2], "until the server has the answer"
    assert said(state) == {2: ("R", None)}
    assert state.known_to_triage == []


def test_triage_leaves_alone_what_is_about_to_be_told():
    state = make()
    state.say(Report(task_instance_id=1, status=TaskInstanceStatus.DONE))
    state.triage([1])
    assert said(state) == {1: ("D", None)}


def test_a_final_run_gives_back_what_waits_and_takes_nothing():
    state = make()
    submitted(state, 1)
    state.take([batch(2)])
    state.set_run_status(WorkflowRunStatus.ERROR)
    state.take([batch(4)])
    lost = ("U", Cause.WORKER_LOST)
    assert said(state) == {2: lost, 4: lost}
    assert state.submittable() == {}
    assert not state.is_idle
    state.classic_over([1])
    assert state.is_idle


def test_reports_are_kept_until_the_server_has_them():
    state = make()
    for identity in (1, 2, 3):
        state.say(Report(task_instance_id=identity, status=TaskInstanceStatus.DONE))
    assert [one.task_instance_id for one in state.take_reports(2)] == [1, 2]
    assert not state.is_idle
    state.restore_reports()
    assert [one.task_instance_id for one in state.take_reports(2)] == [1, 2]
    assert state.confirm_reports() == [1, 2]
    assert state.has_reports


def test_classic_jobs_end_in_their_own_ways():
    state = make()
    state.take([batch(*range(1, 7)), batch(7, cluster="nowhere")])
    (given,) = state.submittable()["far"]
    assert given.batch_number == 1
    state.submitted("far", {one: f"j{one}" for one in range(1, 6)})
    state.refused([6], "full")
    assert state.classic("far") == {f"j{one}": one for one in range(1, 6)}
    assert said(state)[7] == ("U", Cause.WORKER_LOST)
    assert state.kill([4]) == {"far": ["j4"]}
    assert state.classic_over([1, 99]) == [1], "its worker told the server"
    state.classic_ended(2, remote("UNKNOWN_ERROR"))
    state.classic_ended(3, remote("RESOURCE_ERROR", cause=Cause.OUT_OF_MEMORY))
    state.classic_ended(4, remote("ERROR", message="cancelled"))
    state.classic_stuck(5, "will never start")
    state.classic_ended(99, remote("ERROR"))
    assert said(state) == {
        2: ("U", Cause.WORKER_LOST),
        3: ("Z", Cause.OUT_OF_MEMORY),
        4: ("E", Cause.KILLED_FOR_RESUME),
        5: ("E", Cause.SUBMISSION_FAILED),
    }
    assert state.is_idle


def test_an_array_that_lost_a_member_is_no_array_any_more():
    state = make()
    state.take([batch(1, 2, 3)])
    state.kill([2])
    (given,) = state.submittable()["far"]
    assert (given.batch_number, given.task_instance_ids) == (NO_ARRAY, [1, 3])


def test_adoption():
    state = make()
    submitted(state, 1, 2, 3)
    state.take([batch(9)])
    attempts = [
        live(1, "R", distributor_id="j1"),  # known from before
        live(2, "K", distributor_id="j2"),  # known from before, and is to be killed
        live(4, "R", cluster="nowhere"),
        live(5, "K", cluster="nowhere"),
        live(6, "O", distributor_id="j6"),
        live(7, "I"),  # it may have been submitted
        live(8, "I", cluster="nowhere"),
        live(9, "I"),  # waits here
        live(10, "R"),  # about to be told
    ]
    state.say(Report(task_instance_id=10, status=TaskInstanceStatus.DONE))
    assert state.adopt(attempts) == {"far": ["j2", "j3"]}, "the server has closed 3"
    assert said(state) == {
        10: ("D", None),
        4: ("U", Cause.SUPERVISOR_LOST),
        5: ("E", Cause.KILLED_FOR_RESUME),
        8: ("U", Cause.WORKER_LOST),
    }
    assert set(state.alive()) == {9, 7}
    assert state.classic("far") == {"j1": 1, "j2": 2, "j3": 3, "j6": 6}
    assert [one.task_instance_id for one in state.doubtful()["far"]] == [7]


def test_what_is_being_submitted_when_the_client_goes_is_not_given_back():
    state = make()
    state.take([batch(1, 2), batch(3, number=2)])
    state.submittable()
    state.take([batch(4, number=3)])
    state.drain()
    assert said(state) == {4: ("U", Cause.WORKER_LOST)}
    assert not state.is_idle
    state.submitted("far", {1: "j1", 2: "j2"})
    state.refused([3], "no room")
    assert state.classic("far") == {"j1": 1, "j2": 2}


def test_what_is_told_to_end_while_it_is_being_submitted_is_terminated_once_it_has_an_id():
    state = make()
    state.take([batch(1, 2)])
    state.submittable()
    state.set_run_status(WorkflowRunStatus.STOPPED)
    assert state.kill([1]) == {}
    assert state.known_to_kill == [1]
    assert state.submitted("far", {1: "j1", 2: "j2"}) == ["j1"]
    state.classic_ended(1, remote("ERROR"))
    assert said(state)[1] == ("E", Cause.KILLED)


def test_a_job_of_which_its_cluster_knows_no_reason_for_its_end_is_not_charged_to_the_task():
    state = make()
    submitted(state, 1, 2)
    state.classic_ended(1, remote("UNKNOWN_ERROR", message="the job is gone"))
    state.classic_ended(2, remote("ERROR", message="the job failed"))
    assert said(state) == {1: ("U", Cause.WORKER_LOST), 2: ("E", None)}


def test_what_an_earlier_distributor_may_have_submitted_is_looked_up_by_its_tokens():
    around = replace(AROUND, server_identity="cafe")
    state = DistributorState(["far"], around)
    attempts = [wire.replace(live(one, "I"), batch_number=4, array_step_id=one - 1) for one in (1, 2, 3)]
    assert state.adopt([*attempts, live(4, "K")]) == {}
    assert state.doubtful() == {"far": [Doubt(one, "jm-cafe-1-4", one - 1, f"jm-cafe-1-a{one}") for one in (1, 2, 3)]}
    assert state.doubtful() == {}
    assert not state.is_idle
    assert state.alive() == [1, 2, 3], "they must not be declared lost meanwhile"
    assert state.kill([3]) == {}, "not before it is known whether it is there"
    assert state.submitted("far", {1: "j_0"}) == []
    state.unsubmitted([2, 3])
    assert said(state) == {
        1: ("O", None),
        2: ("W", Cause.WORKER_LOST),
        3: ("E", Cause.KILLED_FOR_RESUME),
        4: ("E", Cause.KILLED_FOR_RESUME),
    }
    assert state.classic("far") == {"j_0": 1}


def test_why_attempts_wait_is_told_until_the_server_has_it():
    state = make()
    submitted(state, 1, 2)
    assert not state.note_pending({1: "Resources", 2: "Priority", 9: "is not here"}, 0)
    assert state.note_pending({1: "Resources", 2: "Priority", 9: "is not here"}, 10)
    assert state.has_reports
    assert state.outbox.take_changes().pending == {1: "Resources", 2: "Priority"}
    assert state.note_pending({1: "Resources", 2: "Resources"}, 10)
    state.restore_reports()
    assert state.outbox.take_changes().pending == {1: "Resources", 2: "Resources"}
    state.confirm_reports()
    assert not state.note_pending({1: "Resources"}, 10)
    assert not state.has_reports


def test_endings_are_asked_for_where_they_matter():
    state = make()
    submitted(state, 1)
    assert not state.wants_endings
    state.drain()
    assert state.wants_endings, "nothing else keeps us here"
    state.classic_over([1])
    assert not state.wants_endings


def test_a_worker_that_ends_before_its_submission_is_heard_of_is_not_waited_for():
    state = make()
    state.take([batch(1, 2, 3, 4)])
    state.submittable()
    assert state.kill([3]) == {}
    assert state.classic_over([1, 3, 4, 99]) == []
    assert state.submitted("far", {1: "j1", 2: "j2", 3: "j3"}) == []
    state.unsubmitted([4])
    assert state.classic("far") == {"j2": 2}
    assert said(state) == {2: ("O", None)}
    state.classic_over([2])
    assert state.is_idle


def test_a_packed_batch_stays_whole_if_some_of_its_attempts_are_cancelled():
    state = make()
    state.take([wire.replace(batch(1, 2), plan=JobPlan(mode="pack", jobs=1))])
    state.kill([1])
    (given,) = state.submittable()["far"]
    assert (given.batch_number, given.task_instance_ids) == (1, [1, 2])
    state.validate()
    state.packed_handed_over(given)
    state.packed_found(given.batch_number, ["j1"])
    assert said(state) == {1: ("E", Cause.KILLED_FOR_RESUME)}
    assert state.outbox.is_empty is False, "the server is told its jobs"


def test_why_nothing_can_be_launched_is_told_when_it_changes_and_again_where_it_may_be_lost():
    state = make()
    told = state.launch_problems
    problem = LaunchProblem(text="full", since_seconds=1.0, tried_seconds=0.0, next_seconds=5.0, waiting=3)
    assert not state.has_reports
    told.note({"far": problem}, 10.0)
    assert state.has_reports
    (sent,) = told.take(12.0).values()
    assert (sent.since_seconds, sent.tried_seconds, sent.next_seconds) == (3.0, 2.0, 3.0)
    state.restore_reports()
    assert told.take(12.0) is not None
    state.confirm_reports()
    told.note({"far": wire.replace(problem, since_seconds=3.0, next_seconds=3.0)}, 12.0)
    assert not state.has_reports, "nothing is new"
    told.note({}, 13.0)
    assert told.take(13.0) == {}
    state.confirm_reports()
    assert told.take(13.0) is None


# -- one state per attempt -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda state: state.records.end(1), "ended and not in the outbox"),
        (lambda state: setattr(state.records.get(1), "state", AttemptState.WAITING), "contents do not fit the state"),
        (lambda state: state.records.add(AttemptRecord(2, AttemptState.WAITING, "far")), "not in a queue of far"),
        (lambda state: state.records.add(AttemptRecord(-1, AttemptState.UNCONFIRMED, "far")), "identity and a batch"),
        (lambda state: setattr(state.records.get(1), "is_reported", True), "contents do not fit the state"),
        (lambda state: setattr(state._clusters["far"], "count", 2), "far has the wrong count"),
        (lambda state: state._clusters["far"].jobs.update(j2=2), "far has the wrong jobs"),
    ],
)
def test_an_invalid_record_is_noticed(break_it, words):
    state = deepcopy(make())  # which is not looked at after the test
    submitted(state, 1)
    state.validate()
    break_it(state)
    with pytest.raises(AssertionError, match=words):
        state.validate()


@pytest.mark.parametrize("told", ["submitted", "unsubmitted", "refused", "withdrawn"])
def test_a_submission_is_settled_once_whatever_was_reported_before(told):
    """An attempt whose outcome is in the outbox, or is known to the server, stays ended."""
    state = make()
    state.take([batch(1, 2, 3)])
    state.submittable()
    state.say(Report(task_instance_id=1, status=TaskInstanceStatus.DONE))
    state.classic_over([2])
    settle = {
        "submitted": lambda: state.submitted("far", {1: "j1", 2: "j2"}),
        "unsubmitted": lambda: state.unsubmitted([1, 2]),
        "refused": lambda: state.refused([1, 2], "no"),
        "withdrawn": lambda: state.withdrawn([1, 2]),
    }[told]
    settle()
    assert state.classic("far") == {}
    assert said(state) == {1: ("D", None)}
    assert state.alive() == [3]


def test_what_ended_while_it_was_to_be_submitted_and_is_withdrawn_leaves_nothing():
    """Found by the simulation (seed 65): it was reported as lost, and remembered for good."""
    state = make()
    state.take([batch(1, 2)])
    state.submittable()
    state.classic_over([1])
    state.withdrawn([1, 2])
    assert [one.task_instance_id for one in state.take_reports(10)] == [2]
    state.validate()
