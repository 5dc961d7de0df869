"""The state machine of an attempt in an agent, and when it receives which signal."""

import signal
from resource import struct_rusage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.agent import outcome
from jobmon.agent.attempts import (
    AHEAD,
    CHECKING,
    CLEARING,
    ENDED,
    KILL_PAUSE_SECONDS,
    LEFT_GRACE_SECONDS,
    RUNNING,
    STOPPING,
    UNKILLABLE_SECONDS,
    Attempt,
    InvalidAttempt,
)
from jobmon.agent.files import Found
from jobmon.agent.starting import Launch, NotStarted

USAGE = struct_rusage([0.5, 0.25, 2048, *[0] * 13])
WELL, KILLED = 0, int(signal.SIGKILL)


def made(runtime=None):
    attempt = Attempt(Launch(1, ["/bin/true"], {}, "/", 0o022, "/o", runtime=runtime))
    attempt.validate()
    return attempt


def running(runtime=None):
    attempt = made(runtime)
    attempt.start(77, 100.0, 1_000.0, 50.0)
    attempt.validate()
    return attempt


def signals(attempt, until):
    """Return what it gets until then: (when, signal)."""
    found = []
    while attempt.due is not None and attempt.due <= until:
        now = attempt.due
        found.append((now, attempt.next_signal(now)))
        attempt.validate()
    return found


def test_a_command_that_exits_and_leaves_nothing():
    attempt = running()
    attempt.exit(WELL, USAGE, 3.0)
    attempt.validate()
    assert attempt.state == CLEARING
    attempt.clear()
    attempt.validate()
    assert (attempt.state, attempt.exit_code, attempt.ended_at, attempt.cpu_seconds) == (ENDED, 0, 1_003.0, 0.75)
    assert attempt.peak_bytes == 2048 * 1024


def test_a_command_that_succeeds_has_ended_once_its_outputs_were_searched_for():
    attempt = running()
    attempt.launch.outputs = ["/out"]
    attempt.exit(WELL, USAGE, 3.0)
    attempt.clear()
    attempt.validate()
    assert attempt.state == CHECKING
    assert not attempt.stop(outcome.KILLED, 1.0, 104.0)
    attempt.check_outputs(Found([], "/out"))
    attempt.validate()
    assert (attempt.state, attempt.missing_file) == (ENDED, "/out")


@pytest.mark.parametrize("status", [256, KILLED])
def test_the_outputs_of_a_command_that_fails_do_not_matter(status):
    attempt = running()
    attempt.launch.outputs = ["/out"]
    attempt.exit(status, USAGE, 3.0)
    attempt.clear()
    assert attempt.state == ENDED


def test_one_that_is_not_started():
    attempt = made()
    attempt.fail(NotStarted("why"), 5.0)
    attempt.validate()
    assert (attempt.state, attempt.ran) == (ENDED, False)


def test_what_is_stopped_gets_a_terminal_s_signal_then_sigterm_and_sigkill_until_nothing_is_left():
    attempt = running(runtime=60.0)
    assert attempt.due == 160.0
    assert attempt.stop(outcome.OUT_OF_TIME, 10.0, 160.0)
    attempt.validate()
    kill = 170.0
    assert signals(attempt, kill + KILL_PAUSE_SECONDS) == [
        (160.0, signal.SIGINT),
        (165.0, signal.SIGTERM),
        (kill, signal.SIGKILL),
        (kill + KILL_PAUSE_SECONDS, signal.SIGKILL),
    ]


def test_the_first_cause_counts_and_a_second_stop_does_not_put_off_the_deadline():
    attempt = running()
    assert attempt.stop(outcome.KILLED, 10.0, 100.0)
    assert not attempt.stop(outcome.OUT_OF_TIME, 10.0, 109.0)
    assert signals(attempt, 110.0)[-1] == (110.0, signal.SIGKILL)
    assert attempt.cause == outcome.KILLED


def test_what_uses_too_much_memory_while_it_is_stopped_is_killed_at_once():
    attempt = running()
    attempt.stop(outcome.KILLED, 10.0, 100.0)
    attempt.stop(outcome.OUT_OF_MEMORY, 0.0, 101.0)
    attempt.validate()
    assert signals(attempt, 101.0) == [(101.0, signal.SIGKILL)]


def test_what_a_stopped_command_leaves_keeps_its_deadline():
    attempt = running()
    attempt.stop(outcome.KILLED, 10.0, 100.0)
    attempt.next_signal(100.0)
    attempt.exit(int(signal.SIGINT), USAGE, 0.1)
    attempt.leave_behind(100.2)
    attempt.validate()
    assert signals(attempt, 110.0) == [(105.0, signal.SIGTERM), (110.0, signal.SIGKILL)]


def test_what_a_command_leaves_that_exited_by_itself_gets_sigterm_at_once():
    attempt = running(runtime=60.0)
    attempt.exit(WELL, USAGE, 1.0)
    attempt.leave_behind(101.0)
    attempt.leave_behind(101.5)
    attempt.validate()
    kill = 101.0 + LEFT_GRACE_SECONDS
    assert signals(attempt, kill) == [(101.0, signal.SIGTERM), (kill, signal.SIGKILL)]
    assert not attempt.is_unkillable(kill + UNKILLABLE_SECONDS)
    assert attempt.is_unkillable(kill + UNKILLABLE_SECONDS + 0.1), "asleep in the kernel"


def test_what_is_clearing_is_not_stopped_again():
    attempt = running()
    attempt.exit(WELL, USAGE, 1.0)
    assert not attempt.stop(outcome.KILLED, 10.0, 101.0)
    assert attempt.cause is None, "it finished before that"


@pytest.mark.parametrize("code", [WELL, 3 << 8])
def test_one_that_is_done_before_it_is_ended_for_its_memory_is_pardoned(code):
    attempt = running()
    attempt.stop(outcome.OUT_OF_MEMORY, 0.0, 100.0)
    attempt.exit(code, USAGE, 1.0)
    attempt.pardon()
    assert attempt.cause is None


EVENTS = {
    "start": lambda one, now: one.start(77, now, now, now),
    "fail": lambda one, now: one.fail(NotStarted("why"), now),
    "stop": lambda one, now: one.stop(outcome.KILLED, 10.0, now),
    "memory": lambda one, now: one.stop(outcome.OUT_OF_MEMORY, 0.0, now),
    "exit": lambda one, now: one.exit(KILLED, USAGE, 1.0),
    "left": lambda one, now: one.leave_behind(now),
    "clear": lambda one, now: one.clear(),
    "signal": lambda one, now: one.next_signal(now),
}
ALLOWED = {
    AHEAD: {"start", "fail"},
    RUNNING: {"exit", "fail"},
    STOPPING: {"exit", "fail"},
    CLEARING: {"left", "clear"},
    ENDED: set(),
}
ALWAYS = {"stop", "memory", "signal"}


@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.floats(0.0, 20.0)), max_size=12))
def test_whatever_happens_the_record_is_valid_or_refuses(events):
    attempt, now = made(), 100.0
    for name, seconds in events:
        now += seconds
        is_allowed = name in ALLOWED[attempt.state] | ALWAYS
        before = attempt.state
        try:
            EVENTS[name](attempt, now)
        except InvalidAttempt:
            assert not is_allowed
            assert attempt.state == before
        else:
            assert is_allowed
        attempt.validate()
