"""What notifications say, to whom, and that addresses never show their secrets."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from jobmon.core.configuration import JobmonConfig
from jobmon.core.exceptions import ConfigError
from jobmon.server import notifications
from jobmon.server.notifications import EVENT_OF_RUN, Event, Message, RunSummary, compose, url_for
from jobmon.server.notifier import WAITING_MAX, Receiver

SECRET = "slack://T0KEN-A/T0KEN-B/T0KEN-C"
RUN = RunSummary(
    workflow_id=12,
    run_id=3,
    name="year",
    tool="census",
    user="ada",
    run_status="E",
    end_reason=None,
    is_inner=False,
    seconds=4805.2,
    counts={"D": 1990, "F": 10},
)
MESSAGE = Message(user="ada", title="t", body="b")


def of(**changes):
    return RunSummary(**{name: getattr(RUN, name) for name in RunSummary.__slots__} | changes)


def test_a_failed_run_is_told_with_numbers_the_next_command_and_a_link():
    assert compose(Event.FAILED, RUN, "https://jobmon.example.org/") == Message(
        event=Event.FAILED,
        user="ada",
        title="FAILED: workflow 12 year",
        body="1,990 of 2,000 tasks done, 10 failed.\nRun 3 of tool census for ada, 1:20:05 h.\n"
        "Details: jobmon workflow errors -w 12\nhttps://jobmon.example.org/#/workflows/12",
    )


@pytest.mark.parametrize(
    ("event", "changes", "heading"),
    [
        (Event.DONE, {"run_status": "D"}, "DONE"),
        (Event.STOPPED, {"run_status": "S"}, "STOPPED"),
        (Event.FAILED, {"end_reason": "timed out"}, "TIMED OUT"),
        (Event.FAILED, {"run_status": "A"}, "ABORTED"),
        (Event.FIRST_FAILURE, {"run_status": "R"}, "First failure"),
        (Event.STALLED, {"run_status": "R"}, "Stalled"),
    ],
)
def test_the_heading_says_what_happened(event, changes, heading):
    assert compose(event, of(**changes), "").title == f"{heading}: workflow 12 year"


def test_a_name_cannot_add_lines_or_control_a_terminal():
    message = compose(Event.DONE, of(run_status="D", name="a\r\nBcc: eve@example.org\x1b[31m"), "")
    assert message.title.isprintable()
    assert len(message.body.splitlines()) == 2


def test_every_final_status_but_the_one_of_a_resume_is_an_event():
    assert set(EVENT_OF_RUN.values()) == {Event.DONE, Event.FAILED, Event.STOPPED}
    assert set(notifications.fsm.FINAL_RUNS) - set(EVENT_OF_RUN) == {"T"}


@pytest.mark.parametrize("user", ["ada", "ada.l@example.org", "a+b-c_d"])
def test_a_user_may_be_part_of_an_address(user):
    assert url_for("mailto://host?to={user}", user).startswith("mailto://host?to=a")


@pytest.mark.parametrize("user", ["", "ada,eve", "a/b", "a&to=eve", "a b", "ädä", "x" * 65, "a\n"])
def test_other_names_are_part_of_no_address(user):
    assert url_for("mailto://host?to={user}", user) is None
    assert url_for("mailto://host?to=all", user) == "mailto://host?to=all"


def setting(key, value):
    config = JobmonConfig(dict_config={})
    config.set("notify", key, value)
    return config.parsed("notify", key)


def test_settings_are_lists_or_texts():
    both = ("json://a", "slack://b")
    assert setting("urls", "json://a\n  slack://b ") == both == setting("urls", list(both))
    assert setting("urls", "") == setting("urls", None) == ()
    assert setting("events", "done, stalled") == ("done", "stalled") == setting("events", ["done", "stalled"])
    assert setting("events", " ".join(Event)) == tuple(Event)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("urls", "no-scheme-but-secret"),
        ("urls", ["a://secret"] * 21),
        ("urls", {"secret": 1}),
        ("urls", [1]),
        ("events", "done finished"),
        ("events", [1]),
    ],
)
def test_a_wrong_setting_is_explained_without_its_secrets(key, value):
    with pytest.raises(ConfigError, match=rf"Setting notify\.{key} must be .*, not ") as caught:
        setting(key, value)
    assert "secret" not in str(caught.value)


# --- delivery ---------------------------------------------------------------------------------------------------------


def wait_for(state):
    deadline = time.monotonic() + 10
    while not state():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_message_is_sent_again_until_it_is_accepted():
    answers = iter(["down", "down", ""])
    receiver = Receiver(0, SECRET, lambda url, message: next(answers), pauses=(0.0, 0.0, 0.0))
    receiver.put(MESSAGE)
    wait_for(lambda: not receiver.pending)
    assert receiver.counts == {"sent": 1}


def test_a_message_that_nobody_accepts_is_given_up_and_told_without_secrets(caplog):
    tries = []

    def refuse(url, message):
        tries.append(url)
        return "Invalid token"

    receiver = Receiver(0, SECRET, refuse, pauses=(0.0, 0.0))
    with caplog.at_level(logging.WARNING):
        receiver.put(MESSAGE)
        wait_for(lambda: not receiver.pending)
    assert (tries, receiver.counts) == ([SECRET] * 3, {"failed": 1})
    assert "notify.urls 1 (slack://***): Invalid token" in caplog.text
    assert "T0KEN" not in caplog.text


def test_a_library_that_fails_ends_nothing(caplog):
    def crash(url, message):
        raise ValueError(url)

    receiver = Receiver(0, SECRET, crash)
    receiver.put(MESSAGE)
    receiver.put(MESSAGE)
    wait_for(lambda: not receiver.pending)
    assert receiver.counts == {"failed": 2}
    assert "T0KEN" not in caplog.text


def test_a_receiver_that_hangs_costs_a_bounded_queue():
    release = threading.Event()

    def hang(url, message):
        release.wait(30)
        return ""

    receiver = Receiver(0, SECRET, hang)
    receiver.put(MESSAGE)
    for _ in range(WAITING_MAX + 10):
        receiver.put(MESSAGE)
    assert receiver.counts["dropped"] >= 9
    assert receiver.pending <= WAITING_MAX + 1
    release.set()
    wait_for(lambda: not receiver.pending)


def test_a_server_that_exits_does_not_wait_for_retries():
    receiver = Receiver(0, SECRET, lambda url, message: "down", pauses=(600.0,))
    receiver.put(MESSAGE)
    receiver.stop()
    wait_for(lambda: not receiver.pending)
    assert receiver.counts == {"failed": 1}
