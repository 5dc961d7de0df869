"""When the attempts of a workflow ran, as tiles of equal duration."""

from __future__ import annotations

from datetime import datetime

from jobmon.core.wire import Message


class TimelineSeries(Message, frozen=True, kw_only=True):
    """The attempts of one template or host. In each tile: `running`, the mean number that ran; how many `ended`."""

    name: str
    running: list[float]
    ended: list[int]


class Timeline(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/timeline?by=&width=&partial=: when attempts ran.

    Tiles from `start` on, `tile_seconds` each; null: nothing ran.
    `by`: template or host. The series with the most running time first; the last ones are combined as "others".
    `share`: of the attempts, how many are in it: less than 1 only if `partial=true` was requested, for a moment.
    """

    start: datetime | None
    tile_seconds: float
    series: list[TimelineSeries]
    share: float = 1.0

    @property
    def is_partial(self) -> bool:
        """Whether there will soon be more."""
        return self.share < 1
