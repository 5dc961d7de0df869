"""The user's wish to stop a run: Ctrl-C asks first on a terminal; a second Ctrl-C and SIGTERM do not ask.

Handlers raise KeyboardInterrupt in the thread that waits for the run (`swarm.run` asks `confirm`, then ends the run).
Off the main thread no handler can be set, and none is.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Ask = Callable[[], bool]

#: How long the server is tried to be told that the user stops a run, and after one more interrupt.
RECORD_STOP_SECONDS_MAX: Final = 10.0
RECORD_STOP_AT_ONCE_SECONDS_MAX: Final = 2.0


def ask_on_terminal() -> bool:
    """Ask the user whether to stop.

    No answer (end of input, or Ctrl-C instead of one) means yes. A Ctrl-C that follows a no at once asks again.
    """
    while True:
        sys.stderr.write("\nStop this workflow and end its running tasks? [y/N] (Ctrl-C again: yes) ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        is_meant = not answer or answer.strip().lower() in ("y", "yes")
        try:
            sys.stderr.write("Stopping.\n" if is_meant else "Going on.\n")
            sys.stderr.flush()
            return is_meant
        except KeyboardInterrupt:
            if is_meant:
                return True


def on_terminal() -> bool:
    """Say whether there is somebody to ask."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


class Interrupts:
    """Signals of the user while a run goes on.

    Args:
        ask: asks whether to stop; None: there is nobody to ask.
    """

    def __init__(self, ask: Ask | None) -> None:
        self._ask = ask
        self._is_told_to_end = False
        self._times = 0

    @property
    def record_seconds_max(self) -> float:
        """How long the server may be tried to be told: hardly, once the user has insisted."""
        return RECORD_STOP_SECONDS_MAX if self._times <= 1 else RECORD_STOP_AT_ONCE_SECONDS_MAX

    def confirm(self) -> bool:
        """Say whether an interrupt was meant: SIGTERM always is, Ctrl-C when the user says so or cannot be asked."""
        is_meant = self._is_told_to_end or self._ask is None or self._ask()
        self._times = 1 if is_meant else 0
        return is_meant

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into KeyboardInterrupt for the time of the block, on the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            signal.SIGINT: signal.signal(signal.SIGINT, self._on_interrupt),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._on_terminate),
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._times += 1
        raise KeyboardInterrupt

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        self._is_told_to_end = True
        self._on_interrupt(number, frame)
