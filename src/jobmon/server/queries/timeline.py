"""When the attempts of a workflow ran: the mean number of running attempts per tile, by template or host.

Starts and ends are added up per tile (`totals`), so the response has a fixed size for any number of attempts: one that
starts within a tile runs for the rest of it and in all later tiles, until its end is subtracted in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from jobmon.core.wire.timeline import Timeline, TimelineSeries
from jobmon.server.constructs import select
from jobmon.server.models import task_array
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.presence import require
from jobmon.server.queries.tiles import OTHERS, Series
from jobmon.server.sql import param, statement
from jobmon.server.times import to_datetime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select

    from jobmon.server.kept import Kept
    from jobmon.server.queries.tiles import Tiles
    from jobmon.server.sql import Session

TILES_MAX: Final = 500
#: With more templates or hosts, the ones that ran least are combined.
SERIES_MAX: Final = 12
_MICROSECONDS: Final = 1_000_000

a = task_array.c


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineQuery:
    """What to return.

    Args:
        by: one series per template, or per host.
        width: maximum number of tiles.
        partial: whether what has been added up so far is enough, if adding up takes long; see `share`.
    """

    by: Literal["template", "host"] = "template"
    width: int = 120
    partial: bool = False


@statement
def _names() -> Select[Any]:
    return select(a.id, a.name).where(a.workflow_id == param("workflow"))


def timeline(session: Session, workflow_id: int, query: TimelineQuery, now: int, kept: Kept) -> Timeline:
    """Return when the attempts of a workflow ran.

    Args:
        session: the session to read with; it has read nothing yet.
        workflow_id: ID of the workflow.
        query: what to return.
        now: current time, microseconds; until then, attempts without an end have run.
        kept: sums of attempts.

    Raises:
        NotFound: the workflow does not exist.
        InvalidValue: the width is out of range.
    """
    if not 0 < query.width <= TILES_MAX:
        raise InvalidValue(f"width: must be from 1 to {TILES_MAX}.")
    with kept.totals(workflow_id, query.by) as totals:
        require(session, "workflow", workflow_id)
        totals.catch_up(session, kept.deadline(may_wait=not query.partial), kept.monotonic())
        tiles, _ = totals.now(session)
        share = totals.share
    names = dict(session.rows(_names, workflow=workflow_id)) if query.by == "template" else {}
    return _timeline(tiles, names, query.width, now, share)


def _timeline(tiles: Tiles, names: dict[int, str], width: int, now: int, share: float) -> Timeline:
    """Return tiles of the wanted number, each of which consists of several of those that are kept."""
    one_each: dict[str, Series] = {}
    is_running = any(sum(series.started) > sum(series.ended) for series in tiles.series.values())
    until_now = tiles.reach(now) if is_running else 0
    for key, series in tiles.series.items():  # templates that were changed have two arrays
        name = names.get(key, str(key))  # type: ignore[call-overload]
        if name in one_each:
            one_each[name].add(series)
        else:
            one_each[name] = series
    one_each = _largest(one_each, (now - tiles.origin) / 1_000)
    for series in one_each.values():
        series.trim(tiles.tile / 1_000)
    filled = [at for series in one_each.values() for at in (series.first, len(series.started)) if at is not None]
    if not filled:
        return Timeline(start=None, tile_seconds=0.0, series=[], share=share)
    first, last = min(filled), max(*filled, until_now)
    each = -(-(last - first) // width)
    tile = each * tiles.tile
    return Timeline(
        start=to_datetime(tiles.origin + first * tiles.tile),
        tile_seconds=tile / _MICROSECONDS,
        series=[_series(name, series, first, each, last, tile / 1_000) for name, series in one_each.items()],
        share=round(share, 3),
    )


def _series(name: str, series: Series, first: int, each: int, last: int, tile: float) -> TimelineSeries:
    """Return a series in tiles that consist of `each` kept ones; `tile` is their duration, milliseconds."""
    width = -(-(last - first) // each)
    series.grow(first + width * each)
    begin = first * tile / each

    def combined(column: Sequence[int]) -> list[int]:
        return [sum(column[at : at + each]) for at in range(first, first + width * each, each)]

    started, started_ms, ended, ended_ms = (combined(column) for column in series.columns())
    counts = [plus - minus for plus, minus in zip(started, ended, strict=True)]
    offsets = [plus - minus - count * begin for plus, minus, count in zip(started_ms, ended_ms, counts, strict=True)]
    return TimelineSeries(name=name, running=_means(counts, offsets, tile), ended=ended)


def _means(counts: Sequence[int], offsets: Sequence[float], tile: float) -> list[float]:
    """Return the mean number of running attempts in each tile."""
    found, before = [], 0
    for number, (count, offset) in enumerate(zip(counts, offsets, strict=True)):
        inside = (count * (number + 1) * tile - offset) / tile
        found.append(round(max(0.0, before + inside), 3))
        before += count
    return found


def _largest(series: dict[str, Series], until_ms: float) -> dict[str, Series]:
    """Return the series that ran most, and the others combined."""
    ordered = sorted(series, key=lambda name: (-series[name].ran_ms(until_ms), name))
    if len(ordered) <= SERIES_MAX:
        return {name: series[name] for name in ordered}
    others = Series()
    for name in ordered[SERIES_MAX - 1 :]:
        others.add(series[name])
    return {name: series[name] for name in ordered[: SERIES_MAX - 1]} | {OTHERS: others}
