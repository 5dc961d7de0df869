"""A location at which no command can be started now: when to retry, and for how long. Pure.

`locations` decides which failures are a location's. Its attempts wait and are not charged; one of them is tried first.
"""

from __future__ import annotations

from jobmon.agent.locations import PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class LocationTrouble:
    """A problem that keeps commands from being started.

    Args:
        patience_seconds: how long each attempt is retried.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self._since: dict[int, float] = {}  # attempt -> when it first failed to start
        self._began_at = self._tried_at = self._until = 0.0
        self._pause = PAUSE_SECONDS_FIRST
        self._is_probed = False
        #: The last failure; "": there is no problem.
        self.text = ""

    def failed(self, identity: int, why: str, now: float) -> bool:
        """Record that an attempt could not be started; return whether to retry it."""
        since = self._since.setdefault(identity, now)
        if now - since >= self._patience:
            del self._since[identity]
            return False
        if not self.text:
            self._began_at = now
        elif self._is_probed:
            self._pause = min(2 * self._pause, PAUSE_SECONDS_MAX)
        self.text, self._tried_at, self._until, self._is_probed = why, now, now + self._pause, False
        return True

    def started(self, identity: int) -> None:
        """Record that a command was started, so the location is usable again."""
        self._since.pop(identity, None)
        self.text, self._pause, self._is_probed = "", PAUSE_SECONDS_FIRST, False

    def forget(self, identity: int) -> None:
        """Forget an attempt that ended for another reason."""
        self._since.pop(identity, None)
        self._is_probed = False

    def may_start(self, now: float) -> bool:
        """Return whether a command may be started now."""
        return not self.text or (now >= self._until and not self._is_probed)

    def probe(self) -> None:
        """Record that a command is being started to test whether the location is usable again."""
        self._is_probed = bool(self.text)

    @property
    def due(self) -> float | None:
        """When a command may be started again, monotonic seconds; None: there is no problem, or a test is running."""
        return self._until if self.text and not self._is_probed else None

    def told(self, waiting: int, now: float) -> dict[str, Any] | None:
        """Return the description for the server (`LaunchProblem`); None: there is no problem.

        Args:
            waiting: the number of waiting attempts.
            now: monotonic time, seconds.
        """
        if not self.text:
            return None
        return {
            "text": self.text,
            "since_seconds": max(0.0, now - self._began_at),
            "tried_seconds": max(0.0, now - self._tried_at),
            "next_seconds": max(0.0, self._until - now),
            "waiting": waiting,
        }
