"""Whether a run may start, and how an earlier run is stopped for it."""

from __future__ import annotations

import os

import pytest

from jobmon.client import running
from jobmon.client.workflow_run import WorkflowRun, WorkflowRunFactory, host_name, own_start_time
from jobmon.core.constants import WorkflowRunStatus
from jobmon.core.exceptions import WorkflowAlreadyExists, WorkflowNotResumable
from jobmon.core.paths import user_name
from jobmon.core.wire.run import ActiveRun, Distributor, ResetRequest, ResumeRequest, RunRequest

GONE_PID = 2**22 + 1  # above the largest pid of Linux


def _active(run_id=7, pid=None, start_time=None, host=None):
    return ActiveRun(
        workflow_run_id=run_id,
        status=WorkflowRunStatus.RUNNING.value,
        user="ann",
        host=host or host_name(),
        pid=pid or os.getpid(),
        pid_start_time=own_start_time() if start_time is None else start_time,
        heartbeat_overdue=False,
    )


def _distributor(pid, host=None, seen=1.0):
    return Distributor(workflow_run_id=7, host=host or host_name(), pid=pid, pid_start_time=1.0, seen_seconds_ago=seen)


class Time:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now = 0.0
        self.pauses = []

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def monotonic(self):
        return self.now


class Settling:
    """Records the runs whose leftovers had to be settled, and that it was released."""

    def __init__(self):
        self.runs = []
        self.stopped = 0

    def __call__(self, run_id):
        self.runs.append(run_id)
        return self

    def stop(self, wait_seconds=0.0):
        self.stopped += 1


@pytest.fixture
def recorded(server, make_workflow):
    workflow = make_workflow()
    workflow.bind()
    return next(iter(server.workflows.values()))


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def settling():
    return Settling()


@pytest.fixture
def factory(server, recorded, time, settling):
    return WorkflowRunFactory(recorded.workflow_id, server, settle=settling, sleep=time.sleep, monotonic=time.monotonic)


def _prepare(workflow, **kwargs):
    return running.prepare(workflow, running.RunOptions(**kwargs))


def test_a_run_is_registered_and_bound(server, recorded):
    run = WorkflowRun(recorded.workflow_id, server)
    assert run.status is None
    with pytest.raises(ValueError, match="no ID yet"):
        _ = run.workflow_run_id
    run.bind()
    run.bind()
    assert run.status == WorkflowRunStatus.BOUND
    request = server.sent(RunRequest)
    assert len(request) == 1
    assert (request[0].pid, request[0].host) == (os.getpid(), host_name())
    assert request[0].next_report_increment == pytest.approx(30 * 3.1)


def test_intervals_can_be_given(server, recorded):
    run = WorkflowRun(recorded.workflow_id, server, 10, 1.5)
    assert (run.heartbeat_interval, run.heartbeat_report_by_buffer) == (10, 1.5)


def test_a_second_start_needs_resume(server, make_workflow):
    _prepare(make_workflow())
    with pytest.raises(WorkflowAlreadyExists, match=r"'args' was already started \(.* is [A-Z]{2,}\).*resume=True"):
        _prepare(make_workflow())


def test_a_second_start_of_a_running_workflow_says_how_to_follow_it(make_workflow):
    text = str(running.already_exists(make_workflow(), "R"))
    assert "(its status is RUNNING). To follow it: jobmon workflow attach" in text
    assert "Pass resume=True to take it over" in text


def test_bound_then_run_sends_tasks_once(server, make_workflow):
    workflow = make_workflow()
    workflow.bind()
    before = len(server.requests)
    _prepare(workflow)
    assert len(server.requests) - before == 3  # run, LINKING, BOUND
    with pytest.raises(WorkflowAlreadyExists, match="resume=True"):
        _prepare(workflow)


def test_bind_of_a_running_workflow_learns_ids_only(server, make_workflow):
    _prepare(make_workflow())
    workflow = make_workflow()
    workflow.bind()
    assert workflow.workflow_id is not None
    assert not workflow.is_bound


def test_a_run_of_a_living_client_is_not_pushed_aside_without_resume(server, make_workflow):
    workflow = make_workflow()
    workflow.bind()
    next(iter(server.workflows.values())).active.append(_active())
    with pytest.raises(WorkflowAlreadyExists, match="is already running: Run 7 is active"):
        _prepare(make_workflow())


def test_a_run_that_died_before_it_was_bound_makes_room(server, make_workflow):
    make_workflow().bind()
    next(iter(server.workflows.values())).active.append(_active(pid=GONE_PID))
    _prepare(make_workflow())
    assert server.sent(ResumeRequest)[0].gone_run_ids == [7]


def test_resume_takes_over_and_resets(server, make_workflow):
    _prepare(make_workflow())
    known = next(iter(server.workflows.values()))
    known.active = [_active(run_id=9, pid=GONE_PID)]
    workflow = make_workflow()
    run = _prepare(workflow, resume=True, reset_running_jobs=False)
    assert server.sent(ResumeRequest)[-1] == ResumeRequest(reset_running_jobs=False, gone_run_ids=[9], user=user_name())
    assert server.sent(ResetRequest) == [ResetRequest(reset_if_running=False)]
    assert workflow.last_workflow_run_id == run.workflow_run_id
    assert workflow.is_bound


def test_a_reused_pid_is_another_process(server, recorded, factory):
    recorded.active = [_active(start_time=1.0)]
    factory.set_workflow_resume()
    assert factory.workflow_is_resumable


def test_a_run_on_another_host_cannot_be_judged(server, recorded, factory):
    recorded.active = [_active(pid=GONE_PID, host="elsewhere")]
    with pytest.raises(WorkflowNotResumable, match=r"run 7 of ann on elsewhere \(pid \d+\) is still active"):
        factory.set_workflow_resume(resume_timeout=3)
    assert server.sent(ResumeRequest)[0].gone_run_ids == []


def test_waiting_backs_off_up_to_a_second(recorded, factory, time):
    recorded.active = [_active()]
    with pytest.raises(WorkflowNotResumable, match="within 10 s"):
        factory.wait_for_workflow_resume(10)
    assert time.pauses[:3] == [0.05, 0.1, 0.2]
    assert max(time.pauses) == 1.0


def test_a_client_that_dies_while_one_waits_is_reported(server, recorded, factory):
    recorded.active = [_active()]
    server.resume_answers = [lambda _: None, lambda known: setattr(known, "active", [_active(pid=GONE_PID)])]
    factory.set_workflow_resume()
    assert [request.gone_run_ids for request in server.sent(ResumeRequest)] == [[], [7]]


def test_what_a_dead_distributor_left_is_settled_by_another(server, recorded, factory, settling):
    recorded.kill_self, recorded.distributors = 2, [_distributor(GONE_PID)]
    server.resume_answers = [lambda _: None] * 3 + [lambda known: setattr(known, "kill_self", 0)]
    factory.set_workflow_resume()
    assert settling.runs == [9], "for the newest run, whichever left it"
    assert settling.stopped == 1


def test_a_living_distributor_settles_itself(recorded, factory, settling):
    recorded.kill_self, recorded.distributors = 2, [_distributor(GONE_PID, host="elsewhere", seen=3.0)]
    with pytest.raises(WorkflowNotResumable, match=r"2 attempts told to terminate.*last seen 3 s ago.*force_cleanup"):
        factory.set_workflow_resume(resume_timeout=5)
    assert settling.runs == []


def test_no_distributor_is_started_for_what_agents_are_terminating(recorded, factory, settling):
    recorded.kill_self, recorded.kill_self_of_agents, recorded.distributors = 2, 2, [_distributor(GONE_PID)]
    with pytest.raises(WorkflowNotResumable):
        factory.set_workflow_resume(resume_timeout=5)
    assert settling.runs == []
    recorded.kill_self = 3
    with pytest.raises(WorkflowNotResumable):
        factory.set_workflow_resume(resume_timeout=5)
    assert settling.runs == [9], "the third belongs to a distributor"


def test_force_cleanup_closes_stuck_attempts(recorded, factory):
    recorded.kill_self = 2
    factory.set_workflow_resume(resume_timeout=5, force_cleanup=True)
    assert factory.workflow_is_resumable
    recorded.kill_self = 3
    assert factory.force_cleanup_kill_self() == 3


def test_reset_waits_until_it_may(server, recorded, factory):
    factory.reset_task_statuses(reset_if_running=False)
    assert factory.workflow_is_resumable
    assert server.sent(ResetRequest) == [ResetRequest(reset_if_running=False)]
