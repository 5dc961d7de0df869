"""When the attempts of a workflow ran: the mean number of running attempts per tile, by template or host.

Two statements add up starts and ends per tile, so the response has a fixed size for any number of attempts: an attempt
that starts within a tile runs for the rest of it and in all later tiles, until its end is subtracted in the same way.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import BigInteger, cast, func, select

from jobmon.core.wire.timeline import Timeline, TimelineSeries
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW
from jobmon.server.models import task, task_array, task_instance, workflow_run
from jobmon.server.models.types import to_datetime
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.presence import require
from jobmon.server.sql import param, statement, statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Select

    from jobmon.server.recent import Recent
    from jobmon.server.sql import Session

TILES_MAX: Final = 500
#: With more templates or hosts, the ones that ran least are combined.
SERIES_MAX: Final = 12
#: Tiles of a shorter duration would show noise, microseconds.
TILE_MICROSECONDS_MIN: Final = 100_000
#: Maximum age of a timeline that is reused.
AGE_SECONDS_MAX: Final = 120.0
OTHERS: Final = "others"
_MICROSECONDS: Final = 1_000_000

ti, r, a = task_instance.c, workflow_run.c, task_array.c


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineQuery:
    """What to return.

    Args:
        by: one series per template, or per host.
        width: number of tiles.
    """

    by: Literal["template", "host"] = "template"
    width: int = 120


@statement
def _span() -> Select[Any]:
    """Select the first start and the last end of attempts, and how many are running."""
    running: ColumnElement[Any] = func.count() - func.count(ti.ended_at)
    return (
        select(func.min(ti.started_at), func.max(ti.ended_at), running)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(r.workflow_id == param("workflow"), ti.started_at.is_not(None))
    )


@statements
def _per_tile(by: str, *, of_ends: bool) -> Select[Any]:
    """Count starts or ends by series and tile, and add up their offsets from the origin, milliseconds."""
    moment: ColumnElement[Any] = ti.ended_at if of_ends else ti.started_at
    offset = cast(moment, BigInteger) - param("origin", BigInteger)
    joined = ATTEMPTS_OF_WORKFLOW
    name: ColumnElement[Any] = func.coalesce(ti.host, "")
    if by == "template":
        joined = joined.join(task, task.c.id == ti.task_id).join(task_array, a.id == task.c.array_id)
        name = a.name
    found = (
        select(name.label("name"), (offset // param("tile", BigInteger)).label("tile"), offset.label("shift"))
        .select_from(joined)
        .where(r.workflow_id == param("workflow"), ti.started_at.is_not(None), moment.is_not(None))
        .subquery("moments")
    )
    m = found.c  # a subquery: PostgreSQL does not recognise an expression with parameters as the one it groups by
    return select(m.name, m.tile, func.count(), cast(func.sum(m.shift // 1_000), BigInteger)).group_by(m.name, m.tile)


def timeline(session: Session, workflow_id: int, query: TimelineQuery, now: int, recent: Recent) -> Timeline:
    """Return when the attempts of a workflow ran.

    That of many attempts, which are all read, is reused for up to `AGE_SECONDS_MAX`: a small part of a tile of a run
    that long.

    Args:
        session: the session to read with.
        workflow_id: ID of the workflow.
        query: what to return.
        now: current time, microseconds; until then, attempts without an end have run.
        recent: recent results.

    Raises:
        NotFound: there is no such workflow.
        InvalidValue: the width is out of range.
    """
    if not 0 < query.width <= TILES_MAX:
        raise InvalidValue(f"width: must be from 1 to {TILES_MAX}.")
    require(session, "workflow", workflow_id)
    key = "timeline", workflow_id, query.by, query.width
    return recent.paced(key, lambda: _timeline(session, workflow_id, query, now), AGE_SECONDS_MAX)


def _timeline(session: Session, workflow_id: int, query: TimelineQuery, now: int) -> Timeline:
    first, last, running = session.row(_span, workflow=workflow_id) or (None, None, 0)
    if first is None:
        return Timeline(start=None, tile_seconds=0.0, series=[])
    end = max(first + 1, now if running else last)
    tile = max(TILE_MICROSECONDS_MIN, -(-(end - first) // query.width))
    width = min(query.width, -(-(end - first) // tile))
    values = {"workflow": workflow_id, "origin": first, "tile": tile}
    starts = session.rows(_per_tile(query.by, of_ends=False), **values)
    ends = session.rows(_per_tile(query.by, of_ends=True), **values)
    found = _largest(_series(starts, ends, tile / 1_000, width))
    return Timeline(start=to_datetime(first), tile_seconds=tile / _MICROSECONDS, series=found)


def _series(
    starts: Iterable[Sequence[Any]], ends: Iterable[Sequence[Any]], tile: float, width: int
) -> list[TimelineSeries]:
    """Return a series for each name; `tile` in milliseconds."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0] * width)
    offsets: dict[str, list[int]] = defaultdict(lambda: [0] * width)
    ended: dict[str, list[int]] = defaultdict(lambda: [0] * width)
    for rows, sign in ((starts, 1), (ends, -1)):
        for name, number, count, offset in rows:
            at = min(max(number, 0), width - 1)  # clocks of other hosts may differ
            counts[name][at] += sign * count
            offsets[name][at] += sign * offset
            if sign < 0:
                ended[name][at] += count
    return [
        TimelineSeries(name=name, running=_means(counts[name], offsets[name], tile), ended=ended[name])
        for name in counts
    ]


def _means(counts: Sequence[int], offsets: Sequence[int], tile: float) -> list[float]:
    """Return the mean number of running attempts in each tile."""
    found, before = [], 0
    for number, (count, offset) in enumerate(zip(counts, offsets, strict=True)):
        inside = (count * (number + 1) * tile - offset) / tile
        found.append(round(max(0.0, before + inside), 3))
        before += count
    return found


def _largest(series: Iterable[TimelineSeries]) -> list[TimelineSeries]:
    """Return the series that ran most, and the others combined."""
    ordered = sorted(series, key=lambda one: (-sum(one.running), one.name))
    if len(ordered) <= SERIES_MAX:
        return ordered
    rest = ordered[SERIES_MAX - 1 :]
    others = TimelineSeries(
        name=OTHERS,
        running=[round(sum(tile), 3) for tile in zip(*(one.running for one in rest), strict=True)],
        ended=[sum(tile) for tile in zip(*(one.ended for one in rest), strict=True)],
    )
    return [*ordered[: SERIES_MAX - 1], others]
