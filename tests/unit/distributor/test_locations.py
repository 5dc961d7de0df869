"""Whether a location is the reason why a command could not be started, and when it is retried."""

import errno

import pytest

from jobmon.core.cluster_protocol import Exit, StartFault
from jobmon.distributor.locations import LocationTroubles, is_of_location

LOGS = "/data/logs/1"
OWN = f"{LOGS}/0/t.1.log"


@pytest.mark.parametrize(
    ("step", "number", "path", "expected"),
    [
        ("directory", errno.ENOENT, "/work", True),
        ("directory", errno.EACCES, "/work", True),
        ("directory", errno.ENAMETOOLONG, "/work", False),
        ("output", errno.ENOENT, OWN, True),
        ("output", errno.EACCES, OWN, True),
        ("output", errno.EROFS, OWN, True),
        ("output", errno.ENAMETOOLONG, OWN, False),
        ("output", errno.EACCES, "/theirs/t.1.log", False),
        ("output", errno.ENOTDIR, "/dev/null/t.1.log", False),
        ("output", errno.ENOENT, "/data/logs/11/t.1.log", False),
        ("output", errno.ENOSPC, "/theirs/t.1.log", True),
        ("output", errno.EDQUOT, "/theirs/t.1.log", True),
        ("output", errno.EMFILE, OWN, True),
        ("command", errno.ENOENT, "/bin/nosuchshell", False),
        ("command", errno.EACCES, "/etc/passwd", False),
        ("command", errno.EAGAIN, "/bin/sh", True),
        ("command", errno.ENOMEM, "/bin/sh", True),
    ],
)
def test_a_fault_is_the_location_s_or_the_task_s(step, number, path, expected):
    assert is_of_location(StartFault(step, number, path), LOGS) is expected


def test_what_is_not_known_is_the_task_s():
    assert not is_of_location(None, LOGS)


def failed(identity, at=100.0):
    fault = StartFault("directory", errno.ENOENT, "/work")
    return Exit(
        task_instance_id=identity, distributor_id=str(identity), not_started="gone", start_fault=fault, ended_at=at
    )


def test_one_at_a_time_is_tried_after_pauses_that_double():
    troubles = LocationTroubles(600.0)
    assert troubles.launches_max("here", 0.0) is None
    for identity in (1, 2, 3):  # launched together
        assert troubles.failed("here", failed(identity), 0.0)
    pauses, now = [], 0.0
    for _ in range(5):
        assert troubles.launches_max("here", now) == 0
        due = troubles.due()
        pauses.append(due - now)
        now = due
        assert troubles.launches_max("here", now) == 1
        troubles.launched("here")
        assert troubles.launches_max("here", now) == 0, "what becomes of it is waited for"
        assert troubles.failed("here", failed(1), now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]
    (problem,) = troubles.problems(now, {"here": 3}).values()
    assert (problem.text, problem.since_seconds, problem.next_seconds, problem.waiting) == ("gone", now, 32.0, 3)


def test_what_was_started_afterwards_shows_that_it_is_well_again_and_nothing_else_does():
    troubles = LocationTroubles(600.0)
    troubles.failed("here", failed(1, at=100.0), 0.0)
    assert not troubles.started("here", [99.0])
    assert not troubles.started("here", [])
    assert troubles.launches_max("here", 0.0) == 0
    assert troubles.started("here", [101.0])
    assert troubles.launches_max("here", 0.0) is None
    assert not troubles.problems(0.0, {})


def test_a_probe_that_ended_for_another_reason_is_followed_by_another_one():
    troubles = LocationTroubles(600.0)
    troubles.failed("here", failed(1), 0.0)
    assert troubles.launches_max("here", 1.0) == 1
    troubles.launched("here")
    troubles.ended("here", 1)
    assert troubles.launches_max("here", 1.0) == 1


def test_an_attempt_is_retried_for_a_limited_time():
    troubles = LocationTroubles(600.0)
    assert troubles.failed("here", failed(1), 0.0)
    assert troubles.failed("here", failed(2), 500.0)
    assert not troubles.failed("here", failed(1), 600.0)
    assert troubles.failed("here", failed(2), 600.0)
