"""Interrupts by the user: Ctrl-C asks for confirmation on a terminal; a second Ctrl-C and SIGTERM do not.

Closing the terminal (SIGHUP) does not end a run.

Handlers raise KeyboardInterrupt in the thread that waits for the run (`swarm.run` calls `confirm`, then stops the run).
Off the main thread, no handlers are installed, because Python does not allow it.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from jobmon.core.descriptors import is_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Ask = Callable[[], bool]

#: Maximum time to try to record that the user stops a run, and the same after another interrupt.
RECORD_STOP_SECONDS_MAX: Final = 10.0
RECORD_STOP_AT_ONCE_SECONDS_MAX: Final = 2.0


def ask_on_terminal() -> bool:
    """Ask the user whether to stop.

    End of input, or Ctrl-C instead of an answer, means yes. A Ctrl-C immediately after a no asks again.
    """
    while True:
        try:
            sys.stderr.write("\nStop this workflow and terminate its running tasks? [y/N] (Ctrl-C again: yes) ")
            sys.stderr.flush()
            answer = sys.stdin.readline()
        except (OSError, ValueError):  # the terminal is gone: there is no one to ask
            return True
        is_meant = not answer or answer.strip().lower() in ("y", "yes")
        try:
            sys.stderr.write("Stopping.\n" if is_meant else "Continuing.\n")
            sys.stderr.flush()
            return is_meant
        except (OSError, ValueError):
            return is_meant
        except KeyboardInterrupt:
            if is_meant:
                return True


def on_terminal() -> bool:
    """Return whether the user can be asked on a terminal."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. Unlike SIG_IGN, child processes do not inherit this."""


class Interrupts:
    """Handles the user's signals during a run.

    Args:
        ask: asks whether to stop; None if the user cannot be asked.
    """

    def __init__(self, ask: Ask | None) -> None:
        self._ask = ask
        self._is_told_to_end = False
        self._times = 0

    @property
    def record_seconds_max(self) -> float:
        """Maximum time to try to record the stop, in seconds; shorter once the user has interrupted again."""
        return RECORD_STOP_SECONDS_MAX if self._times <= 1 else RECORD_STOP_AT_ONCE_SECONDS_MAX

    def confirm(self) -> bool:
        """Return whether to stop: always after SIGTERM; after Ctrl-C if the user confirms or cannot be asked."""
        is_meant = self._is_told_to_end or self._ask is None or self._ask()
        self._times = 1 if is_meant else 0
        return is_meant

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into KeyboardInterrupt inside the block, on the main thread.

        SIGHUP is ignored inside the block, unless the script has its own handler.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            signal.SIGINT: signal.signal(signal.SIGINT, self._on_interrupt),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._on_terminate),
        }
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, _ignore)
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
