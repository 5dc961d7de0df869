"""When a workflow is over, whichever process leads it; and when a restarted process continues it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from jobmon.client import detached
from jobmon.client.run_handle import RunHandle
from jobmon.client.succession import Concluded, require_unfinished
from jobmon.client.waiting import SUCCESSION_SECONDS_MAX, Waiter, wait, wait_for
from jobmon.client.workflow_run import host_name, own_start_time
from jobmon.core.constants import WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import InvalidRequest, InvalidResources, WorkflowRunStateError
from jobmon.core.wire.monitoring import WorkflowsResponse, WorkflowSummary
from jobmon.core.wire.run import ActiveRun, ActiveRunsResponse
from jobmon.core.wire.server import ServerTime

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
GONE_PID = 2**22 + 1  # above the largest pid of Linux


class Server:
    """Responds to the requests of a waiter; `moments` are the statuses that it reports, one after another."""

    def __init__(self, *moments, runs=(), age_seconds=0.0):
        self.moments = list(moments)
        self.runs = list(runs)
        self.ended_at = NOW - timedelta(seconds=age_seconds)

    def call(self, route, message, reply, method="post", **_):
        return {"/workflows": self.summary, "/time": self.time}.get(route, self.active_runs)()

    def time(self):
        return ServerTime(time=NOW.isoformat())

    def active_runs(self):
        return ActiveRunsResponse(workflow_id=5, workflow_status="R", runs=self.runs)

    def summary(self):
        if not self.moments:
            return WorkflowsResponse(workflows=[])
        status, name = self.moments[0] if len(self.moments) == 1 else self.moments.pop(0)
        found = WorkflowSummary(
            workflow_id=5,
            name="words",
            workflow_args="a",
            tool_name="tool",
            user="ann",
            status=status.value,
            created_at=self.ended_at,
            status_at=self.ended_at,
            counts={},
            task_count=1,
            attempt_count=0,
            last_workflow_run_id=7,
            status_name=name or status.name,
        )
        return WorkflowsResponse(workflows=[found])


class Time:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now = 100.0

    def sleep(self, seconds):
        self.now += seconds

    def monotonic(self):
        return self.now


RUNNING = (WorkflowStatus.RUNNING, "")
INTERRUPTED = (WorkflowStatus.FAILED, "INTERRUPTED")
HALTED = (WorkflowStatus.HALTED, "")
DONE = (WorkflowStatus.DONE, "")


def active(run_id=7, pid=None):
    return ActiveRun(
        workflow_run_id=run_id,
        status=WorkflowRunStatus.RUNNING.value,
        user="ann",
        host=host_name(),
        pid=pid or os.getpid(),
        pid_start_time=own_start_time(),
        heartbeat_overdue=False,
    )


def outcome_of(*moments, **options):
    time = Time()
    outcome = wait_for(Server(*moments, **options), 5, sleep=time.sleep, monotonic=time.monotonic)
    return outcome.status, outcome.name, time.now - 100.0


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (DONE, WorkflowRunStatus.DONE),
        ((WorkflowStatus.FAILED, "FAILED"), WorkflowRunStatus.ERROR),
        ((WorkflowStatus.FAILED, "STOPPED"), WorkflowRunStatus.STOPPED),
        ((WorkflowStatus.FAILED, "TIMED OUT"), WorkflowRunStatus.ERROR),
    ],
)
def test_a_workflow_that_is_over_is_not_waited_for(moment, expected):
    status, name, waited = outcome_of(moment)
    assert (status, name, waited) == (expected, moment[1] or moment[0].name, 0.0)


def test_waiting_goes_on_while_a_killed_leader_is_replaced():
    assert outcome_of(RUNNING, INTERRUPTED, HALTED, RUNNING, INTERRUPTED, RUNNING, DONE)[0] is WorkflowRunStatus.DONE


@pytest.mark.parametrize(
    ("moment", "expected"), [(INTERRUPTED, WorkflowRunStatus.ERROR), (HALTED, WorkflowRunStatus.TERMINATED)]
)
def test_waiting_ends_if_nobody_replaces_the_leader(moment, expected):
    status, _, waited = outcome_of(RUNNING, moment)
    assert status is expected
    assert SUCCESSION_SECONDS_MAX <= waited < SUCCESSION_SECONDS_MAX + 3


def test_a_workflow_that_was_interrupted_long_ago_is_over():
    assert outcome_of(INTERRUPTED, age_seconds=3600)[2] == 0.0


def test_a_server_whose_clock_jumped_back_does_not_extend_the_wait():
    assert outcome_of(INTERRUPTED, age_seconds=-3600)[2] < SUCCESSION_SECONDS_MAX + 3


def test_a_timeout_leaves_the_workflow_running():
    time = Time()
    with pytest.raises(TimeoutError, match=r"Workflow 5 is still running after 2\.5 s; it continues"):
        wait_for(Server(RUNNING), 5, 2.5, sleep=time.sleep, monotonic=time.monotonic)
    assert time.now == pytest.approx(102.5)
    with pytest.raises(TimeoutError):
        wait_for(Server(RUNNING), 5, 0, sleep=pytest.fail)


@pytest.mark.parametrize("timeout", [-1, "10", True, float("nan")])
def test_a_timeout_is_a_number_of_seconds(timeout):
    with pytest.raises(ValueError, match="timeout must be a number of seconds, or None"):
        wait_for(Server(DONE), 5, timeout)


def test_a_run_that_timed_out_raises_as_run_does():
    with pytest.raises(RuntimeError, match=r"Workflow 5 was not done when its timeout .* expired"):
        wait(Server((WorkflowStatus.FAILED, "TIMED OUT")), 5)


def test_only_a_started_workflow_can_be_waited_for():
    with pytest.raises(WorkflowRunStateError, match="no run of it has been started"):
        Waiter(Server((WorkflowStatus.REGISTERING, "")), 5).look()
    assert Waiter(Server((WorkflowStatus.REGISTERING, ""), runs=[active()]), 5).look() is None
    with pytest.raises(WorkflowRunStateError, match="aborted"):
        Waiter(Server((WorkflowStatus.ABORTED, "")), 5).look()
    with pytest.raises(InvalidRequest, match="no workflow 5"):
        Waiter(Server(), 5).look()


def test_a_handle_has_the_status_of_the_newest_run(tmp_path):
    def status(*moments, **options):
        return RunHandle(Server(*moments, **options), 5, 7, tmp_path / "log").status()

    assert status(RUNNING, runs=[active()]) == WorkflowRunStatus.RUNNING
    assert status(DONE) == WorkflowRunStatus.DONE
    assert status((WorkflowStatus.FAILED, "STOPPED")) == WorkflowRunStatus.STOPPED
    assert status((WorkflowStatus.REGISTERING, "")) == WorkflowRunStatus.TERMINATED


# -- succession ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [[active(7)], [active(8, GONE_PID)]])
def test_a_restarted_process_continues_a_run_that_nobody_leads(runs):
    """The first one is its predecessor's, even if the recorded process, which handed it over, is alive."""
    require_unfinished(Server(RUNNING, runs=runs), 5, 7)


@pytest.mark.parametrize("moment", [INTERRUPTED, HALTED])
def test_a_restarted_process_continues_a_workflow_whose_run_was_closed_because_of_the_kill(moment):
    require_unfinished(Server(moment), 5, 7)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Server(RUNNING, runs=[active(8)]), WorkflowRunStatus.TERMINATED),
        (Server((WorkflowStatus.FAILED, "STOPPED")), WorkflowRunStatus.STOPPED),
        (Server((WorkflowStatus.FAILED, "FAILED")), WorkflowRunStatus.ERROR),
        (Server((WorkflowStatus.FAILED, "TIMED OUT")), WorkflowRunStatus.ERROR),
        (Server(DONE), WorkflowRunStatus.DONE),
        (Server((WorkflowStatus.REGISTERING, "")), WorkflowRunStatus.TERMINATED),
    ],
    ids=["taken over", "stopped", "failed", "timed out", "done", "reset"],
)
def test_a_restarted_process_does_not_continue_what_ended_in_order(server, expected):
    with pytest.raises(Concluded) as concluded:
        require_unfinished(server, 5, 7)
    assert concluded.value.status is expected


# -- what cannot be passed on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"compute_resources_callable": lambda: {"cores": 1}}, "a compute_resources_callable"),
        ({"resource_scales": {"memory": lambda old: old * 2}}, "a function as the scale of 'memory'"),
    ],
)
def test_functions_are_refused_before_anything_is_recorded(server, make_workflow, options, what):
    workflow = make_workflow()
    template = next(iter(workflow.tasks.values())).template_version.template
    workflow.add_task(template.create_task(name="fit_1", **dict.fromkeys(_arguments(template), "other"), **options))
    before = len(server.requests)
    with pytest.raises(
        InvalidResources, match=rf"Task 'fit_1' has {what}, which exists only in this process\. Use run"
    ):
        workflow.start()
    assert len(server.requests) == before


def _arguments(template):
    return [*template.active_task_template_version.arguments.node_args, *_rest(template)]


def _rest(template):
    arguments = template.active_task_template_version.arguments
    return [*arguments.task_args, *arguments.op_args]


def test_scales_that_can_be_recorded_are_accepted(make_workflow):
    workflow = make_workflow()
    template = next(iter(workflow.tasks.values())).template_version.template
    scales = {"memory": 0.5, "runtime": iter([10, 20, 30])}
    workflow.add_task(
        template.create_task(name="fit_1", **dict.fromkeys(_arguments(template), "other"), resource_scales=scales)
    )
    detached.require_no_functions(workflow)
