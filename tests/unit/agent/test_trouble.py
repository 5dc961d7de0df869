"""A location where no command can be started: one is tried after each pause, up to a limit."""

from jobmon.agent.locations import PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX
from jobmon.agent.trouble import LocationTrouble


def test_one_command_is_tried_after_each_pause_and_pauses_grow():
    trouble, now, pause = LocationTrouble(10_000.0), 0.0, PAUSE_SECONDS_FIRST
    assert trouble.may_start(now)
    assert trouble.failed(1, "no folder", now)
    assert trouble.failed(2, "no folder", now)  # it was started together with the first: no news
    for _ in range(10):
        assert not trouble.may_start(now + pause - 0.01)
        now += pause
        assert trouble.due == now
        assert trouble.may_start(now)
        trouble.probe()
        assert not trouble.may_start(now)
        assert trouble.failed(1, "no folder", now)
        pause = min(2 * pause, PAUSE_SECONDS_MAX)
    assert trouble.told(3, now + 1.0)["waiting"] == 3


def test_a_command_that_starts_ends_the_trouble():
    trouble = LocationTrouble(600.0)
    trouble.failed(1, "no folder", 0.0)
    trouble.started(1)
    assert (trouble.may_start(0.0), trouble.due, trouble.told(0, 0.0)) == (True, None, None)


def test_an_attempt_is_given_up_after_the_patience():
    trouble = LocationTrouble(600.0)
    assert trouble.failed(1, "no folder", 0.0)
    assert trouble.failed(1, "no folder", 599.0)
    assert not trouble.failed(1, "no folder", 600.0)


def test_a_probe_that_was_killed_lets_another_be_tried():
    trouble = LocationTrouble(600.0)
    trouble.failed(1, "no folder", 0.0)
    trouble.probe()
    trouble.forget(1)
    assert trouble.may_start(PAUSE_SECONDS_FIRST)
