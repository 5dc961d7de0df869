"""Problems that keep a distributor from launching on a cluster, as reported to the server. Pure.

All problems are reported whenever they change. They are reported again if a request failed, or if the server may have
forgotten them (after another registration).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.wire import replace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.core.wire.launching import LaunchProblem


class LaunchProblems:
    """Track current problems, and what the server knows about them."""

    def __init__(self) -> None:
        self._now: dict[str, tuple[LaunchProblem, float]] = {}  # cluster -> problem, and when it was recorded
        self._keys: dict[str, object] = {}  # the part whose change is worth a message
        self._told: dict[str, object] | None = {}  # None: unknown
        self._in_flight: dict[str, object] | None = None

    def note(self, found: Mapping[str, LaunchProblem], now: float) -> None:
        """Replace all current problems.

        Args:
            found: problem by cluster name.
            now: monotonic seconds.
        """
        self._now = {name: (problem, now) for name, problem in found.items()}
        self._keys = {name: (one.text, one.waiting, round(now + one.next_seconds)) for name, one in found.items()}

    @property
    def has_changes(self) -> bool:
        """Whether there are changes to report to the server."""
        return self._in_flight is None and self._keys != self._told

    def take(self, now: float) -> dict[str, LaunchProblem] | None:
        """Return the problems to report as of now, or None. They stay unconfirmed until `confirm` or `restore`."""
        if not self.has_changes:
            return None
        self._in_flight = self._keys
        return {name: _aged(problem, now - noted) for name, (problem, noted) in self._now.items()}

    def confirm(self) -> None:
        """Mark the problems in flight as received by the server."""
        if self._in_flight is not None:
            self._told, self._in_flight = self._in_flight, None

    def restore(self) -> None:
        """Mark what the server knows as unknown: the request failed, or the server forgot it."""
        self._told = None if self._told or self._in_flight is not None else self._told
        self._in_flight = None


def _aged(problem: LaunchProblem, seconds: float) -> LaunchProblem:
    return replace(
        problem,
        since_seconds=problem.since_seconds + seconds,
        tried_seconds=problem.tried_seconds + seconds,
        next_seconds=max(0.0, problem.next_seconds - seconds),
    )
