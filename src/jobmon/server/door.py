"""Decide when an embedded server stops listening for other hosts. Pure: no clock, no I/O."""

from __future__ import annotations

from typing import Final

#: The server stops listening for other hosts after this long without need, so that jobs can still learn that all is
#: over.
UNNEEDED_SECONDS: Final = 60.0


class Door:
    """Whether other hosts may connect, and for which runs.

    Args:
        unneeded_seconds: how long it stays open after it is no longer needed.
        is_inherited: whether it was open when this server started; which runs asked for it is then unknown.
    """

    def __init__(self, unneeded_seconds: float, *, is_inherited: bool) -> None:
        self._unneeded_seconds = unneeded_seconds
        self._unneeded_since: float | None = None
        #: The runs that asked for it; None: any run may have.
        self.runs: set[int] | None = None if is_inherited else set()

    def ask(self, run_id: int | None) -> None:
        """Note that a run needs it; None: the requester did not name a run."""
        self._unneeded_since = None
        if run_id is None:
            self.runs = None
        elif self.runs is not None:
            self.runs.add(run_id)

    def is_to_be_closed(self, is_needed: bool, now: float) -> bool:
        """Return whether to close it.

        Args:
            is_needed: whether one of `runs` is active, or an attempt is live on another host.
            now: monotonic time, seconds.
        """
        if is_needed:
            self._unneeded_since = None
            return False
        if self._unneeded_since is None:
            self._unneeded_since = now
        return now >= self._unneeded_since + self._unneeded_seconds

    def closed(self) -> None:
        """Note that it was closed; runs that need it have to ask again."""
        self.runs, self._unneeded_since = set(), None
