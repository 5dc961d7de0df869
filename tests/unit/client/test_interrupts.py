"""Ctrl-C asks for confirmation, SIGTERM does not; off the main thread no handler is installed."""

from __future__ import annotations

import io
import os
import signal
import threading

import pytest

from jobmon.client.interrupts import (
    RECORD_STOP_AT_ONCE_SECONDS_MAX,
    RECORD_STOP_SECONDS_MAX,
    Interrupts,
    ask_on_terminal,
)


def _get(number):
    os.kill(os.getpid(), number)
    signal.pause()


@pytest.mark.parametrize("answer", [True, False])
def test_an_interrupt_is_meant_when_the_user_says_so(answer):
    interrupts = Interrupts(lambda: answer)
    with interrupts.handled(), pytest.raises(KeyboardInterrupt):
        _get(signal.SIGINT)
    assert interrupts.confirm() is answer


def test_without_anybody_to_ask_it_is_meant():
    assert Interrupts(None).confirm()


def test_sigterm_is_meant():
    interrupts = Interrupts(lambda: False)
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.handled(), pytest.raises(KeyboardInterrupt):
        _get(signal.SIGTERM)
    assert interrupts.confirm()
    assert signal.getsignal(signal.SIGTERM) is before


def test_who_insists_waits_less_for_the_record_and_who_goes_on_has_not_insisted():
    answers = [False, True]
    interrupts = Interrupts(lambda: answers.pop(0))
    with interrupts.handled():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                _get(signal.SIGINT)
            interrupts.confirm()
            assert interrupts.record_seconds_max == RECORD_STOP_SECONDS_MAX
        with pytest.raises(KeyboardInterrupt):
            _get(signal.SIGTERM)
    assert interrupts.record_seconds_max == RECORD_STOP_AT_ONCE_SECONDS_MAX


def test_off_the_main_thread_no_handler_is_set():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        with Interrupts(None).handled():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


# -- asked, and pressed again ----------------------------------------------------------------------------------------


class ImpatientTerminal(io.StringIO):
    """Presses Ctrl-C as soon as it reads that the run continues."""

    def __init__(self):
        super().__init__()
        self.presses = 1

    def write(self, text):
        super().write(text)
        if text == "Continuing.\n" and self.presses:
            self.presses -= 1
            raise KeyboardInterrupt


def test_ctrl_c_right_after_a_no_is_asked_about_anew(monkeypatch):
    terminal = ImpatientTerminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\nn\n"))
    assert ask_on_terminal() is False
    assert terminal.getvalue().count("[y/N]") == 2
