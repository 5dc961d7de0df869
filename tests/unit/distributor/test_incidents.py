"""Jobs without contact to their worker, and cancelled jobs: what is reported, and when."""

import pytest

from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.distributor.incidents import ASK_SECONDS, ASKED_MAX, CANCELLED_SECONDS, UNHEARD_SECONDS, Incidents

TI = TaskInstanceStatus
OWN = RemoteExit(status=TI.ERROR_FATAL, cause=Cause.KILLED, message="Slurm: cancelled by you as ann")
OTHER = RemoteExit(status=TI.ERROR, cause=Cause.KILLED, message="Slurm: cancelled by root")


@pytest.fixture
def incidents():
    return Incidents("http://10.0.0.1:4000")


def test_a_job_is_asked_about_after_a_minute_and_then_every_ten_seconds(incidents):
    incidents.saw_running({1: "n1"}, 0.0)
    assert incidents.ask(UNHEARD_SECONDS - 0.1) == []
    assert incidents.due() == UNHEARD_SECONDS
    assert incidents.ask(UNHEARD_SECONDS) == [1]
    assert incidents.ask(UNHEARD_SECONDS + ASK_SECONDS - 0.1) == []
    assert incidents.ask(UNHEARD_SECONDS + ASK_SECONDS) == [1]


def test_a_job_whose_worker_spoke_is_not_asked_about_again(incidents):
    incidents.saw_running({1: "n1"}, 0.0)
    assert incidents.answered([1], [1], 60.0) == {}
    incidents.saw_running({1: "n1"}, 70.0)
    assert (incidents.ask(1e6), incidents.due(), incidents.problem(1e6)) == ([], None, None)


def test_silent_jobs_are_reported_with_their_hosts_and_the_address_until_they_speak(incidents):
    incidents.saw_running({1: "n2", 2: "n1", -3: "n1", 4: "n3"}, 0.0)
    incidents.ask(60.0)
    words = "its job runs on n2, but cannot reach the server at http://10.0.0.1:4000"
    assert incidents.answered([1, 2, -3, 4], [4], 60.0)[1] == words
    found = incidents.problem(65.0)
    assert found.text.startswith("jobs run on n1, n2 but cannot reach the server at http://10.0.0.1:4000.")
    assert (found.waiting, found.since_seconds, found.tried_seconds, found.next_seconds) == (3, 5.0, 5.0, 5.0)
    assert incidents.answered([1, 2, -3], [], 70.0) == {}, "it was reported already"
    incidents.answered([1, 2, -3], [1, 2], 80.0)
    incidents.forget([-3])
    assert incidents.problem(80.0) is None


def test_a_bounded_number_is_asked_about_at_once(incidents):
    incidents.saw_running(dict.fromkeys(range(1, ASKED_MAX + 10), "n1"), 0.0)
    assert len(incidents.ask(60.0)) == ASKED_MAX


def test_what_the_user_cancelled_is_reported_as_long_as_the_run_lasts(incidents):
    for number in range(7):
        incidents.cancelled(f"12_{number}", OWN, 1.0)
    found = incidents.problem(1e6)
    jobs = "7 jobs (12_0, 12_1, 12_2, 12_3, 12_4 and 2 more)"
    assert found.text == f"{jobs}: Slurm: cancelled by you as ann; nothing is submitted again before that"
    assert found.waiting == 0


def test_what_somebody_else_cancelled_is_reported_for_a_while(incidents):
    incidents.cancelled("12", OTHER, 0.0)
    assert incidents.problem(1.0).text == "1 job (12): Slurm: cancelled by root; submitted again"
    assert incidents.problem(CANCELLED_SECONDS) is None


def test_other_endings_are_no_incidents(incidents):
    incidents.cancelled("12", RemoteExit(status=TI.ERROR, cause=Cause.EXIT_CODE, message="exit code 1"), 0.0)
    assert incidents.problem(0.0) is None
