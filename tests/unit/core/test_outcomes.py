"""A stop, a timeout and a dead client are not failures, nor are attempts that a stop cancelled."""

from __future__ import annotations

import pytest

from jobmon.core.constants import Cause, EndReason, WorkflowRunStatus, WorkflowStatus
from jobmon.core.outcomes import status_name, uncharged_text


@pytest.mark.parametrize(
    ("run", "reason", "name"),
    [
        ("S", None, "STOPPED"),
        ("E", EndReason.TIMED_OUT, "TIMED OUT"),
        ("E", EndReason.INTERRUPTED, "INTERRUPTED"),
        ("E", None, "FAILED"),
        ("T", EndReason.INTERRUPTED, "FAILED"),
        (None, None, "FAILED"),
    ],
)
def test_names_of_workflows_that_are_stored_as_failed(run, reason, name):
    assert status_name("F", run, reason) == name


@pytest.mark.parametrize("status", [status for status in WorkflowStatus if status != "F"])
@pytest.mark.parametrize("run", list(WorkflowRunStatus))
def test_other_statuses_keep_their_names(status, run):
    assert status_name(status, run, EndReason.TIMED_OUT) == status.name


@pytest.mark.parametrize(
    ("cause", "was_started", "text"),
    [
        (Cause.KILLED, False, "cancelled before launch"),
        (Cause.KILLED_FOR_RESUME, False, "cancelled before launch"),
        (Cause.WORKER_LOST, False, "cancelled before launch"),
        (Cause.KILLED, True, "stopped"),
        (Cause.KILLED_FOR_RESUME, True, "stopped"),
        (Cause.WORKER_LOST, True, "worker lost"),
        (Cause.PREEMPTED, False, "preempted"),
        (None, True, "for an unknown reason"),
    ],
)
def test_how_attempts_ended_that_are_not_charged(cause, was_started, text):
    assert uncharged_text(cause, was_started=was_started) == text
