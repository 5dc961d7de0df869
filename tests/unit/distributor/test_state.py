"""The distributor's decisions as pure functions of events."""

from collections import deque
from copy import deepcopy
from dataclasses import replace

import pytest

from jobmon.core import wire
from jobmon.core.cluster_protocol import Exit, RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.wire.launching import JobPlan, LaunchBatch, LaunchProblem, LiveAttempt, Report
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.inflight import (
    CLASSIC_WINDOW,
    DIRECT_WINDOW_MAX,
    HAND_AHEAD_FACTOR,
    HAND_AHEAD_FACTOR_MAX,
    NO_ARRAY,
    AttemptRecord,
    AttemptState,
    ClusterLimits,
    Doubt,
)
from jobmon.distributor.state import DistributorState

AROUND = Surroundings(1, 2, "/work", 0o022, "/logs/1", "/bin/sh")


def make(slots=2.0, memory=None):
    limits = {"here": ClusterLimits(True, slots, memory), "far": ClusterLimits(False)}
    return DistributorState(limits, AROUND)


def batch(*ids, cluster="here", number=1, **resources):
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


def live(identity, status, cluster="here", distributor_id=None, **resources):
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


def done(identity, **values):
    return Exit(task_instance_id=identity, distributor_id=str(identity), **{"exit_code": 0, "ended_at": 1.0, **values})


def remote(status, **values):
    return RemoteExit(status=TaskInstanceStatus[status], **values)


def spawned(state):
    return [launch.task_instance_id for launch in state.spawnable().get("here", [])]


def said(state):
    reports = state.take_reports(100)
    state.confirm_reports()
    return {one.task_instance_id: (str(one.status), one.cause) for one in reports}


def test_slots_are_filled_oldest_first():
    state = make()
    state.take([batch(1, 2, 3)])
    assert spawned(state) == [1, 2]
    assert spawned(state) == []
    state.ended([done(1)])
    assert spawned(state) == [3]


def test_a_wide_one_at_the_head_holds_its_place():
    state = make()
    state.take([batch(1), batch(2, cores=2), batch(3)])
    assert spawned(state) == [1]
    state.ended([done(1)])
    assert spawned(state) == [2]
    state.ended([done(2)])
    assert spawned(state) == [3]


def test_one_that_is_too_wide_runs_alone():
    state = make()
    state.take([batch(1, cores=64), batch(2)])
    assert spawned(state) == [1]
    state.ended([done(1)])
    assert spawned(state) == [2]


def test_fractions_of_cores_and_memory():
    state = make(memory=4.0)
    state.take([batch(*range(1, 9), cores=0.25), batch(9)])
    assert spawned(state) == list(range(1, 9))
    state.ended([done(one) for one in range(1, 9)])
    state.take([batch(10, 11, memory=3.0, cores=0.5)])
    assert spawned(state) == [9, 10]


def test_capacity_counts_what_waits_and_runs():
    state = make()
    window = state.capacity()
    assert window == {"here": 2 * HAND_AHEAD_FACTOR, "far": CLASSIC_WINDOW}
    state.take([batch(1, 2, 3), batch(4, 5, cluster="far")])
    spawned(state)
    assert state.capacity() == {"here": window["here"] - 3, "far": CLASSIC_WINDOW - 2}
    state.ended([done(1)])
    state.submittable()
    state.submitted("far", {4: "j4"})
    state.refused([5], "full")
    assert state.capacity() == {"here": window["here"] - 2, "far": CLASSIC_WINDOW - 1}
    state.drain()
    assert state.capacity() == {}


def test_the_window_counts_cores_and_not_attempts():
    state = make()
    state.take([batch(*range(1, 17), cores=0.05)])
    assert spawned(state) == list(range(1, 17))
    room = state.capacity()["here"]
    assert room == 2 * HAND_AHEAD_FACTOR * 20 - 16
    state.take([batch(*range(17, 41), cores=0.05)])
    assert spawned(state) == list(range(17, 41)), "40 of them fit on 2 slots"
    assert not state.is_well_supplied
    state.ended([done(one) for one in range(1, 41)])
    assert state.capacity()["here"] >= 40, "the next ones are thought to be like the last"


def test_wide_attempts_leave_less_room():
    state = make(slots=4.0)
    state.take([batch(1, 2, cores=2)])
    assert state.capacity()["here"] == (4 * HAND_AHEAD_FACTOR - 4) // 2


def test_however_small_they_are_there_is_a_bound():
    state = make()
    state.take([batch(1, cores=0.0001)])
    assert state.capacity()["here"] == DIRECT_WINDOW_MAX - 1


def lost(identity, **values):
    return Exit(task_instance_id=identity, distributor_id=str(identity), lost="its parent died", **values)


def retried(identity, task_id):
    return wire.replace(batch(identity), task_ids=[task_id])


def test_short_commands_widen_the_window_up_to_a_bound():
    state = make()
    for identity in range(1, 200):
        state.take([batch(identity)])
        spawned(state)
        state.ended([done(identity, started_at=1.0, ended_at=1.0)])
    assert state.capacity()["here"] == 2 * HAND_AHEAD_FACTOR_MAX


def test_the_same_launch_twice_is_taken_once():
    state = make()
    state.take([batch(1)])
    state.take([batch(1)])
    assert spawned(state) == [1]
    state.take([batch(1)])
    assert spawned(state) == []


def test_kill_what_waits_runs_and_was_never_here():
    state = make(slots=1)
    state.take([batch(1, 2)])
    spawned(state)
    assert state.kill([1, 2, 3]) == {"here": ["1"]}
    assert set(state.known_to_kill) == {1, 2, 3}
    assert state.kill([1, 2, 3]) == {}
    assert said(state) == {2: ("E", Cause.KILLED_FOR_RESUME), 3: ("E", Cause.KILLED_FOR_RESUME)}
    (ended,) = state.ended([done(1, exit_code=None, signal=2)])
    assert ended.kill_cause is Cause.KILLED_FOR_RESUME
    state.take([batch(3)])
    assert spawned(state) == [], "its launch was overtaken by the wish to kill it"


def test_the_cause_of_a_kill_follows_the_run():
    state = make()
    state.set_run_status(WorkflowRunStatus.STOPPED)
    state.kill([1])
    assert said(state) == {1: ("E", Cause.KILLED)}


def test_triage():
    state = make()
    state.take([batch(1), batch(2, cluster="far")])
    spawned(state)
    state.submittable()
    state.submitted("far", {2: "j2"})
    said(state)
    assert state.triage([1, 2, 3]) == {"far"}
    assert set(state.known_to_triage) == {1, 2, 3}
    assert said(state) == {1: ("R", None), 3: ("U", Cause.WORKER_LOST)}
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


def test_a_lasting_one_is_told_to_run_once():
    state = make()
    state.take([batch(1, 2)])
    spawned(state)
    state.spawned({1: "a", 2: "b", 9: "unknown"})
    state.started({1: 100.0, 2: 100.05, 9: 1.0})
    assert state.report_running(100.0, "host") == pytest.approx(100.1)
    assert state.report_running(100.12, "host") == pytest.approx(100.15)
    state.ended([done(2)])
    assert state.report_running(200.0, "host") is None
    state.started({1: 100.0})
    assert state.report_running(300.0, "host") is None
    assert said(state) == {1: ("R", None)}


def test_a_final_run_gives_back_what_waits_and_takes_nothing():
    state = make(slots=1)
    state.take([batch(1, 2), batch(3, cluster="far")])
    spawned(state)
    state.set_run_status(WorkflowRunStatus.ERROR)
    state.take([batch(4)])
    lost = ("U", Cause.WORKER_LOST)
    assert said(state) == {2: lost, 3: lost, 4: lost}
    assert state.submittable() == {}
    assert not state.is_idle
    state.ended([done(1)])
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
    state.take([batch(*range(1, 7), cluster="far"), batch(7, cluster="nowhere")])
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
    state.take([batch(1, 2, 3, cluster="far")])
    state.kill([2])
    (given,) = state.submittable()["far"]
    assert (given.batch_number, given.task_instance_ids) == (NO_ARRAY, [1, 3])


def test_adoption():
    state = make()
    state.take([batch(9)])
    attempts = [
        live(1, "R", cores=2),  # lives
        live(2, "K"),  # lives and is to be killed
        live(3, "I"),  # was never started
        live(4, "R"),  # is gone
        live(5, "K"),  # is gone and was to be killed
        live(6, "O", cluster="far", distributor_id="j6"),
        live(7, "I", cluster="far"),
        live(8, "I", cluster="nowhere"),
        live(9, "I"),  # known from before
        live(10, "R"),  # about to be told
    ]
    state.say(Report(task_instance_id=10, status=TaskInstanceStatus.DONE))
    assert state.adopt(attempts, {"here": {1: "1", 2: "2"}}) == {"here": ["2"]}
    assert said(state) == {
        10: ("D", None),
        3: ("U", Cause.WORKER_LOST),
        4: ("U", Cause.SUPERVISOR_LOST),
        5: ("E", Cause.KILLED_FOR_RESUME),
        8: ("U", Cause.WORKER_LOST),
    }
    assert set(state.alive()) == {1, 2, 9, 7}
    assert state.classic("far") == {"j6": 6}
    assert [one.task_instance_id for one in state.doubtful()["far"]] == [7]
    assert spawned(state) == [], "the adopted ones fill the slots"
    assert state.held_count == 3


def test_what_is_being_submitted_when_the_client_goes_is_not_given_back():
    state = make()
    state.take([batch(1, 2, cluster="far"), batch(3, cluster="far", number=2)])
    state.submittable()
    state.take([batch(4, cluster="far", number=3)])
    state.drain()
    assert said(state) == {4: ("U", Cause.WORKER_LOST)}
    assert not state.is_idle
    state.submitted("far", {1: "j1", 2: "j2"})
    state.refused([3], "no room")
    assert state.classic("far") == {"j1": 1, "j2": 2}


def test_what_is_told_to_end_while_it_is_being_submitted_is_terminated_once_it_has_an_id():
    state = make()
    state.take([batch(1, 2, cluster="far")])
    state.submittable()
    state.set_run_status(WorkflowRunStatus.STOPPED)
    assert state.kill([1]) == {}
    assert state.known_to_kill == [1]
    assert state.submitted("far", {1: "j1", 2: "j2"}) == ["j1"]
    state.classic_ended(1, remote("ERROR"))
    assert said(state)[1] == ("E", Cause.KILLED)


def test_a_job_of_which_its_cluster_knows_no_reason_for_its_end_is_not_charged_to_the_task():
    state = make()
    state.take([batch(1, 2, cluster="far")])
    state.submittable()
    state.submitted("far", {1: "j1", 2: "j2"})
    said(state)
    state.classic_ended(1, remote("UNKNOWN_ERROR", message="the job is gone"))
    state.classic_ended(2, remote("ERROR", message="the job failed"))
    assert said(state) == {1: ("U", Cause.WORKER_LOST), 2: ("E", None)}


def test_what_an_earlier_distributor_may_have_submitted_is_looked_up_by_its_tokens():
    around = replace(AROUND, server_identity="cafe")
    state = DistributorState({"far": ClusterLimits(False)}, around)
    attempts = [wire.replace(live(one, "I", cluster="far"), batch_number=4, array_step_id=one - 1) for one in (1, 2, 3)]
    assert state.adopt([*attempts, live(4, "K", cluster="far")], {}) == {}
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
    state.take([batch(1, 2, cluster="far")])
    state.submittable()
    state.submitted("far", {1: "j1", 2: "j2"})
    said(state)
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
    state.take([batch(1, cluster="far")])
    state.submittable()
    state.submitted("far", {1: "j1"})
    assert not state.wants_endings
    state.drain()
    assert state.wants_endings, "nothing else keeps us here"
    state.classic_over([1])
    assert not state.wants_endings


def test_a_worker_that_ends_before_its_submission_is_heard_of_is_not_waited_for():
    state = make()
    state.take([batch(1, 2, 3, 4, cluster="far")])
    state.submittable()
    assert state.kill([3]) == {}
    assert state.classic_over([1, 3, 4, 99]) == []
    assert state.submitted("far", {1: "j1", 2: "j2", 3: "j3"}) == []
    state.unsubmitted([4])
    assert state.classic("far") == {"j2": 2}
    assert said(state) == {2: ("O", None)}
    state.classic_over([2])
    assert state.is_idle


def test_one_that_retires_keeps_what_runs_here_and_forgets_what_others_can_see():
    state = make(slots=1.0)
    state.take([batch(1, 2), batch(10, 11, cluster="far", number=2), batch(20, cluster="far", number=3)])
    assert spawned(state) == [1]
    state.submittable()
    state.submitted("far", {10: "job 10", 11: "job 11"})
    state.take([batch(30, cluster="far", number=4)])
    said(state)
    state.retire()
    assert said(state) == {2: ("U", Cause.WORKER_LOST)}  # prefetched, and no other component knows that it never ran
    assert state.alive() == [1]
    assert state.classic("far") == {}
    assert (state.submittable(), state.capacity()) == ({}, {})
    state.take([batch(40)])
    assert said(state) == {40: ("U", Cause.WORKER_LOST)}
    state.ended([done(1)])
    assert state.is_idle


def test_killing_what_waits_does_not_walk_the_queue():
    """Killed attempts are skipped when their turn comes."""

    class Counted(deque):
        walks = 0

        def __iter__(self):
            Counted.walks += 1
            return super().__iter__()

    state = make()
    state.take([batch(*range(1, 502))])
    cluster = state._clusters["here"]
    cluster.waiting = Counted(cluster.waiting)
    state.kill(range(1, 501))
    assert Counted.walks == 0
    assert len(said(state)) == 100
    assert spawned(state) == [501]
    assert not cluster.waiting


def test_a_packed_batch_stays_whole_if_some_of_its_attempts_are_cancelled():
    state = make()
    state.take([wire.replace(batch(1, 2, cluster="far"), plan=JobPlan(mode="pack", jobs=1))])
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
        (lambda state: state.records.add(AttemptRecord(2, AttemptState.WAITING, "here")), "not in a queue of here"),
        (lambda state: state.records.add(AttemptRecord(-1, AttemptState.UNCONFIRMED, "far")), "identity and a batch"),
        (lambda state: setattr(state.records.get(1), "is_reported", True), "contents do not fit the state"),
        (lambda state: setattr(state.records.get(1), "cluster_name", "far"), "here has the wrong count"),
        (lambda state: state._clusters["far"].jobs.update(j1=1), "far has the wrong jobs"),
    ],
)
def test_an_invalid_record_is_noticed(break_it, words):
    state = deepcopy(make())  # which is not looked at after the test
    state.take([batch(1)])
    state.spawnable()
    state.validate()
    break_it(state)
    with pytest.raises(AssertionError, match=words):
        state.validate()


@pytest.mark.parametrize("total", ["count", "closed", "cores", "memory"])
def test_a_cluster_that_miscounts_is_noticed(total):
    state = deepcopy(make())
    state.take([batch(1)])
    setattr(state._clusters["here"], total, 2)
    with pytest.raises(AssertionError, match="here has the wrong"):
        state.validate()


@pytest.mark.parametrize("told", ["submitted", "unsubmitted", "refused", "withdrawn"])
def test_a_submission_is_settled_once_whatever_was_reported_before(told):
    """An attempt whose outcome is in the outbox, or is known to the server, stays ended."""
    state = make()
    state.take([batch(1, 2, 3, cluster="far")])
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
    state.take([batch(1, 2, cluster="far")])
    state.submittable()
    state.classic_over([1])
    state.withdrawn([1, 2])
    assert [one.task_instance_id for one in state.take_reports(10)] == [2]
    state.validate()
