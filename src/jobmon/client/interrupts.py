"""Waiting for a run while the user may stop it: Ctrl-C asks first on a terminal, a second one and SIGTERM do not.

Handlers only put a word into a queue; the waiting thread acts on it. Off the main thread no handler can be set, and
none is.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

Ask = Callable[[], bool]


class Wish(Enum):
    """What made the waiting thread look up."""

    FINISHED = "finished"
    ASK = "ask"
    STOP = "stop"


def ask_on_terminal() -> bool:
    """Ask the user whether to stop; no answer (end of input) means yes."""
    sys.stderr.write("\nStop this workflow and end its running tasks? [y/N] (Ctrl-C again: yes) ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    return not answer or answer.strip().lower() in ("y", "yes")


def on_terminal() -> bool:
    """Say whether there is somebody to ask."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


class Interrupts:
    """Wishes of the user while a run goes on.

    Args:
        ask: asks whether to stop; None: there is nobody to ask.
    """

    def __init__(self, ask: Ask | None) -> None:
        self._ask = ask
        self._wishes: queue.SimpleQueue[Wish] = queue.SimpleQueue()
        self._interrupts = 0
        self._is_asking = False
        self._is_stopping = False

    def finished(self) -> None:
        """Say that the run has ended; from any thread."""
        self._wishes.put(Wish.FINISHED)

    def wait(self) -> Wish:
        """Wait until the run has ended or the user wants it stopped."""
        while True:
            wish = self._wishes.get()
            if wish is Wish.ASK and not self._confirmed():
                self._interrupts = 0
                continue
            if wish is not Wish.FINISHED:
                self._is_stopping = True
                return Wish.STOP
            return wish

    def _confirmed(self) -> bool:
        assert self._ask is not None, "asking is wished for only where somebody can be asked"
        self._is_asking = True
        try:
            return self._ask()
        except KeyboardInterrupt:
            return True
        finally:
            self._is_asking = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM for the time of the block, on the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers: dict[signal.Signals, Any] = {
            signal.SIGINT: self._on_interrupt,
            signal.SIGTERM: self._on_terminate,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1
        if self._is_asking or self._is_stopping:
            raise KeyboardInterrupt  # ends the question with yes, or the waiting for a stop
        first = self._ask is not None and self._interrupts == 1
        self._wishes.put(Wish.ASK if first else Wish.STOP)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        if self._is_asking:
            raise KeyboardInterrupt
        self._wishes.put(Wish.STOP)
