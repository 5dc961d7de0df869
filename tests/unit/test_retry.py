"""What happens to a task after each kind of failure."""

from __future__ import annotations

import pytest

from jobmon.core.constants import Cause, TaskInstanceStatus, TaskStatus
from jobmon.core.retry import UNCHARGED_IN_A_ROW_MAX, after_failure, cause_without_worker, is_charged

FAILED = TaskInstanceStatus.ERROR
OUT_OF_RESOURCES = TaskInstanceStatus.RESOURCE_ERROR


def test_failure_with_attempts_left_is_tried_again():
    assert after_failure(FAILED, 1, 3) is TaskStatus.REGISTERING


def test_failure_of_the_last_attempt_is_fatal():
    assert after_failure(FAILED, 3, 3) is TaskStatus.ERROR_FATAL


def test_one_attempt_allowed_is_one_attempt():
    assert after_failure(FAILED, 1, 1) is TaskStatus.ERROR_FATAL


def test_more_attempts_than_allowed_after_the_maximum_was_lowered():
    assert after_failure(FAILED, 3, 2) is TaskStatus.ERROR_FATAL


def test_resource_error_with_attempts_left_asks_for_more():
    assert after_failure(OUT_OF_RESOURCES, 1, 3) is TaskStatus.ADJUSTING_RESOURCES


def test_resource_error_of_the_last_attempt_is_fatal():
    assert after_failure(OUT_OF_RESOURCES, 3, 3) is TaskStatus.ERROR_FATAL


def test_fatal_failure_is_not_tried_again_whatever_is_left():
    assert after_failure(TaskInstanceStatus.ERROR_FATAL, 1, 3) is TaskStatus.ERROR_FATAL
    assert after_failure(TaskInstanceStatus.ERROR_FATAL, 0, 3, charged=False) is TaskStatus.ERROR_FATAL


def test_failure_that_is_not_charged_is_tried_again_even_after_the_last_attempt():
    assert after_failure(FAILED, 3, 3, charged=False) is TaskStatus.REGISTERING


def test_resource_error_that_is_not_charged_asks_for_no_more():
    assert after_failure(OUT_OF_RESOURCES, 1, 3, charged=False) is TaskStatus.REGISTERING


@pytest.mark.parametrize(
    "status",
    [TaskInstanceStatus.UNKNOWN_ERROR, TaskInstanceStatus.NO_DISTRIBUTOR_ID, TaskInstanceStatus.NO_HEARTBEAT],
)
def test_lost_attempt_is_tried_again(status):
    assert after_failure(status, 1, 3) is TaskStatus.REGISTERING


def test_letters_as_they_come_from_the_database_serve_as_well():
    assert after_failure(OUT_OF_RESOURCES.value, 1, 3) is TaskStatus.ADJUSTING_RESOURCES


def test_which_causes_are_not_the_tasks_fault():
    assert {cause for cause in Cause if not is_charged(cause, 0)} == {
        Cause.NODE_FAILURE,
        Cause.PREEMPTED,
        Cause.REQUEUED,
        Cause.KILLED,
        Cause.KILLED_FOR_RESUME,
        Cause.WORKER_LOST,
        Cause.SUPERVISOR_LOST,
        Cause.NEVER_CONNECTED,
        Cause.NO_PYTHON,
    }


def test_unknown_cause_is_charged():
    assert is_charged(None, 0)


def test_cause_as_it_comes_from_the_database_serves_as_well():
    assert not is_charged(Cause.PREEMPTED.value, 0)


def test_the_eleventh_preemption_in_a_row_is_charged():
    assert not is_charged(Cause.PREEMPTED, UNCHARGED_IN_A_ROW_MAX - 1)
    assert is_charged(Cause.PREEMPTED, UNCHARGED_IN_A_ROW_MAX)


def test_a_rejected_submission_is_final_and_a_lost_one_is_not():
    rejected = TaskInstanceStatus.NO_DISTRIBUTOR_ID
    assert after_failure(rejected, 1, 3, cause=Cause.SUBMISSION_FAILED) is TaskStatus.ERROR_FATAL
    assert after_failure(rejected, 0, 3, charged=False, cause=Cause.WORKER_LOST) is TaskStatus.REGISTERING
    assert after_failure(rejected, 1, 3, cause=Cause.NO_DISTRIBUTOR_ID) is TaskStatus.REGISTERING


@pytest.mark.parametrize(
    ("cause", "exit_code", "found"),
    [
        (Cause.OUT_OF_TIME, None, Cause.NEVER_CONNECTED),
        (Cause.OUT_OF_MEMORY, None, Cause.NEVER_CONNECTED),
        (Cause.EXIT_CODE, 1, Cause.NEVER_CONNECTED),
        (Cause.EXIT_CODE, 127, Cause.NO_PYTHON),
        (Cause.EXIT_CODE, 126, Cause.NO_PYTHON),
        (None, None, Cause.NEVER_CONNECTED),
        (Cause.NODE_FAILURE, None, Cause.NODE_FAILURE),
        (Cause.SUBMISSION_FAILED, None, Cause.SUBMISSION_FAILED),
    ],
)
def test_a_job_without_a_worker_says_nothing_of_its_task(cause, exit_code, found):
    assert cause_without_worker(cause, exit_code) == found
    assert found == Cause.SUBMISSION_FAILED or not is_charged(found, 0)
