"""Location faults: what keeps commands from starting here and is not the task's fault. Pure.

`jobmon.agent.locations` defines them. No attempt is charged: attempts that could not start wait and are retried with
doubling pauses, one attempt first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobmon.agent import locations
from jobmon.core.wire.launching import LaunchProblem
from jobmon.distributor.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobmon.core.cluster_protocol import Exit, StartFault


def is_of_location(fault: StartFault | None, log_folder: str) -> bool:
    """Return whether a location fault kept a command from starting; False if the fault is unknown."""
    return fault is not None and locations.is_of_location(fault.step, fault.errno, fault.path, log_folder)


@dataclass(slots=True)
class _Trouble:
    text: str
    since: float
    tried_at: float
    failed_at: float = 0.0  # by the clock of the process that starts commands
    backoff: Backoff = field(default_factory=Backoff)
    is_probed: bool = True  # whether an attempt was launched after the last pause whose outcome is unknown


class LocationTroubles:
    """Track the direct clusters whose location is unusable.

    Args:
        patience_seconds: how long an attempt that cannot start because of a location fault is retried.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self._troubles: dict[str, _Trouble] = {}
        self._since: dict[int, float] = {}  # attempt -> since when it cannot start
        self._checked_at = 0.0

    def failed(self, cluster_name: str, ending: Exit, now: float) -> bool:
        """Record that an attempt could not start; return whether to retry it."""
        since = self._since.setdefault(ending.task_instance_id, now)
        if now - since >= self._patience:
            del self._since[ending.task_instance_id]
            return False
        trouble = self._troubles.get(cluster_name)
        if trouble is None:
            trouble = self._troubles[cluster_name] = _Trouble("", now, now)
        trouble.text, trouble.tried_at = ending.not_started or "", now
        trouble.failed_at = max(trouble.failed_at, ending.ended_at)
        if trouble.is_probed:  # attempts launched with it fail for the same reason
            trouble.backoff.failed(now)
            trouble.is_probed = False
        return True

    def ended(self, cluster_name: str, identity: int) -> None:
        """Record that an attempt ended for another reason: if it was the probe, another one is needed."""
        self._since.pop(identity, None)
        if (trouble := self._troubles.get(cluster_name)) is not None:
            trouble.is_probed = False

    def started(self, cluster_name: str, times: Iterable[float]) -> bool:
        """Process the times at which commands started; return whether they show that the location works again."""
        trouble = self._troubles.get(cluster_name)
        if trouble is None or max(times, default=0.0) <= trouble.failed_at:
            return False
        del self._troubles[cluster_name]
        return True

    def launched(self, cluster_name: str) -> None:
        """Record that an attempt was launched on a cluster."""
        if (trouble := self._troubles.get(cluster_name)) is not None:
            trouble.is_probed = True

    def launches_max(self, cluster_name: str, now: float) -> int | None:
        """Return how many attempts may be launched now; None: all. After a pause it is 1, as a probe."""
        self._checked_at = now
        trouble = self._troubles.get(cluster_name)
        if trouble is None:
            return None
        return 0 if now < trouble.backoff.until or trouble.is_probed else 1

    def due(self) -> float | None:
        """Return when the next attempt may be launched; None if one may be launched already or is in flight."""
        times = (one.backoff.until for one in self._troubles.values() if not one.is_probed)
        return min((at for at in times if at > self._checked_at), default=None)

    def problems(self, now: float, waiting: dict[str, int]) -> dict[str, LaunchProblem]:
        """Return why commands cannot be started, for the server.

        Args:
            now: monotonic seconds.
            waiting: number of waiting attempts, by cluster name.
        """
        return {
            name: LaunchProblem(
                text=one.text,
                since_seconds=now - one.since,
                tried_seconds=now - one.tried_at,
                next_seconds=max(0.0, one.backoff.until - now),
                waiting=waiting.get(name, 0),
            )
            for name, one in self._troubles.items()
        }
