"""Minimal tests of faults that the simulation found, because seeds lose their meaning when the scenario changes."""

from __future__ import annotations

import pytest

from jobmon.agent.memory import Memory
from jobmon.agent.requests import PolledConnection
from jobmon.agent.servers import ServerAway
from jobmon.client.tool import Tool
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import ServerUnavailable
from jobmon.core.fsm import Machine, Verdict, judge
from jobmon.core.requester import Requester
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.state import DistributorState
from jobmon.worker_node.host import JobHost
from jobmon.worker_node.job import REPORT_TRIED_SECONDS, SAY_AWAY_SECONDS
from jobmon.worker_node.pilot import IDLE_SECONDS, Pilot
from jobmon.worker_node.single import SingleJob

TI = TaskInstanceStatus


def test_an_attempt_handed_out_in_an_answer_that_nobody_heard_can_be_doubted():
    assert judge(Machine.TASK_INSTANCE, TI.INSTANTIATED, TI.TRIAGING) is Verdict.LEGAL
    state = DistributorState(["far"], Surroundings(1, 2, "/logs"))
    state.triage([7])
    (report,) = state.take_reports(10)
    assert (report.status, report.cause) == (TI.UNKNOWN_ERROR, Cause.WORKER_LOST)


def test_a_server_that_is_away_is_not_a_wrong_request_for_resources():
    tool = Tool("found", requester=Requester("http://127.0.0.1:9", retries_attempts=1))
    workflow = tool.create_workflow(default_cluster_name="multiprocess")
    workflow.add_task(tool.get_task_template("t", "true {x}", node_args=["x"]).create_task(x=1))
    with pytest.raises(ServerUnavailable):
        workflow.bind()


class Clockwork(JobHost):
    """A machine on which time passes only during `wait`, with a server that answers one request."""

    def __init__(self):
        self.now = 0.0
        self.waits = 0
        self.answers = [(200, answer_to_a_dry_job())]
        self.said = []

    def say(self, text):
        self.said.append((self.now, text))

    def time(self):
        return self.now

    def monotonic(self):
        return self.now

    def connection(self):
        return OneAnswer(self)

    def commands(self, grace_seconds):
        return Idle()

    def heed_signals(self, note):
        """Ignore the call, because there are no signals."""

    def wait(self, connections, seconds):
        self.waits += 1
        self.now += max(seconds, 0.001)


class Idle:
    """Commands while none is running."""

    memory = Memory()
    live = {}  # noqa: RUF012 - stays empty

    def set_environment(self, values):
        """Do nothing."""

    def look(self):
        """Do nothing."""

    def next_look(self):
        return None

    def take_started(self):
        return []

    def take_ended(self):
        return []

    def stop(self, identities, cause, grace_seconds):
        """Do nothing, because no command runs."""

    def leave(self):
        """Do nothing, because there are no leftovers."""


class OneAnswer(PolledConnection):
    def __init__(self, access):
        super().__init__({})
        self._access = access

    def send(self, route, message, timeout):
        self.deadline = self._access.now + timeout
        self.is_busy = True

    def answer(self):
        if self.is_busy and self._access.answers:
            self.is_busy = False
            return self._access.answers.pop()
        if self.is_busy and self._access.now >= self.deadline:
            self.close()
            raise ServerAway("no answer in time")
        return None


def answer_to_a_dry_job():
    columns = ("task_instance_ids", "task_ids", "names", "commands", "attempts")
    job = {
        "width": 1,
        "heartbeat_interval": 90.0,
        "report_by_buffer": 3.1,
        "workflow_id": 1,
        "requested_resources": {},
        "runtime_seconds": None,
    }
    return {"job": job, "tasks": {name: [] for name in columns}, "kill": [], "over": False}


def test_a_pilot_that_leaves_while_the_server_is_away_waits_and_does_not_spin(tmp_path):
    access = Clockwork()
    request = {"array_id": 1, "batch_number": 1, "distributor_id": "7", "host": "here"}
    assert Pilot(request, {"JOBMON_DATA_DIR": str(tmp_path)}, access).work() == 0
    assert IDLE_SECONDS < access.now < IDLE_SECONDS + 2 * REPORT_TRIED_SECONDS
    assert access.waits < access.now


@pytest.mark.parametrize("kind", [SingleJob, Pilot])
def test_a_job_that_reaches_no_server_says_so_once_and_again_when_it_gives_up(tmp_path, kind):
    access = Clockwork()
    access.answers.clear()
    request = {"array_id": 1, "batch_number": 1, "distributor_id": "7", "host": "here"}
    assert kind(request, {"JOBMON_DATA_DIR": str(tmp_path)}, access).work() == 1
    (first_at, first), (last_at, last) = access.said
    assert "does not answer yet" in first
    assert SAY_AWAY_SECONDS <= first_at < 3 * SAY_AWAY_SECONDS
    assert "cannot be reached" in last
    assert last_at >= kind.START_TRIED_SECONDS
