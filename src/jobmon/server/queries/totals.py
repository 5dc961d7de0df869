"""What the attempts of a workflow add up to, kept in memory and updated by what has changed: tiles of time, and usage.

To add up a million attempts takes the database two seconds. An attempt that has ended does not change any more, so its
share is added once:

* `known_until` is the newest attempt that was looked at, `_live` are those up to it that had not ended then. What has
  ended since is in `_live` but no longer live, or newer than `known_until`.
* The first time, attempts are added in ranges of IDs, each in a snapshot of its own; a reader may accept what has been
  added so far (`share`). Attempts that were live at the beginning are left out until all ranges are added.
* Live attempts are added for each reader, in the reader's snapshot.

Everything is added up anew if tasks were deleted or moved to another template, or if the usage of ended attempts became
known late, the latter not more often than every `OUTDATED_SECONDS_MAX`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from jobmon.core import fsm
from jobmon.server.constructs import BigInteger, cast, func, select
from jobmon.server.models import status_count, task, task_instance, workflow_run
from jobmon.server.queries.tiles import TILES_MAX, Tiles
from jobmon.server.sql import any_of, none_of, param, statement, statements, unindexed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import ColumnElement, Select

    from jobmon.server.sql import Session

#: How attempts are grouped: by template, with what they used, or by host.
Kind = Literal["template", "host"]

#: Number of IDs that one statement adds up: some 30 ms.
RANGE_IDS: Final = 15_000
#: With fewer attempts, they are added up for each reader.
KEPT_ATTEMPTS_MIN: Final = 20_000
#: Ranges of IDs are read as a whole if at least one attempt in so many belongs to the workflow.
DENSE_SHARE: Final = 10
#: Number of attempts in one list parameter.
LISTED_MAX: Final = 10_000
#: Tiles begin with this duration, and get longer, microseconds.
TILE_MICROSECONDS_MIN: Final = 100_000
#: After usage that became known late, sums are used for so long.
OUTDATED_SECONDS_MAX: Final = 600.0

ti, t, r, c = task_instance.c, task.c, workflow_run.c, status_count.c


class Group(NamedTuple):
    """Attempts that are added up together."""

    array_id: int
    resources_id: int
    status: str
    cause: str | None


@dataclass(slots=True)
class Usage:
    """What measured attempts used together. `byte_seconds`: of their peak memory."""

    count: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    byte_seconds: float = 0.0


@statement
def _runs() -> Select[Any]:
    return select(r.id, r.created_at).where(r.workflow_id == param("workflow")).order_by(r.id)


@statement
def _newest() -> Select[Any]:
    newest: ColumnElement[Any] = func.max(ti.id)
    return select(newest)


@statement
def _extent() -> Select[Any]:
    found: list[ColumnElement[Any]] = [func.count(), func.min(ti.id), func.max(ti.id)]
    return select(*found).where(any_of(ti.workflow_run_id, "runs"))


@statement
def _first_start() -> Select[Any]:
    return select(func.min(ti.started_at)).where(any_of(ti.workflow_run_id, "runs"))


@statement
def _queued_at() -> Select[Any]:
    return select(ti.queued_at).where(ti.id == param("id"))


@statement
def _live() -> Select[Any]:
    return select(ti.id).where(any_of(ti.workflow_run_id, "runs"), ti.status.in_(fsm.LIVE))


@statement
def _tasks_by_array() -> Select[Any]:
    """Count the recorded tasks, also removed ones."""
    return select(c.array_id, func.sum(c.number)).where(c.workflow_id == param("workflow")).group_by(c.array_id)


@statements
def _sums(kind: Kind, which: Literal["range", "sparse", "listed", "live"]) -> Select[Any]:
    """Add up attempts by the tiles in which they started and ended, and by template or host."""
    origin, tile = param("origin", BigInteger), param("tile", BigInteger)
    started, ended = cast(ti.started_at, BigInteger) - origin, cast(ti.ended_at, BigInteger) - origin
    keys: list[ColumnElement[Any]] = [func.coalesce(ti.host, "").label("name")]
    joined: Any = task_instance
    values: list[ColumnElement[Any]] = []
    if kind == "template":
        joined = task_instance.join(task, t.id == ti.task_id)
        keys = [t.array_id.label("name"), ti.task_resources_id, ti.status, ti.cause]
        measured = ti.wallclock_seconds
        values = [
            measured.label("seconds"),
            (ti.cpu_seconds + 0 * measured).label("cpu"),
            (measured * ti.max_rss_bytes).label("held"),
        ]
    columns = [*keys, (started // tile).label("first"), (ended // tile).label("last")]
    rows = select(*columns, started.label("a"), ended.label("b"), *values).select_from(joined)
    found = rows.where(*_wanted(which)).subquery("attempts")
    m = found.c  # a subquery: PostgreSQL does not recognise an expression with parameters as the one it groups by
    by = [m.name, *([m.task_resources_id, m.status, m.cause] if kind == "template" else []), m.first, m.last]
    moments = [cast(func.sum(moment // 1_000), BigInteger) for moment in (m.a, m.b)]
    used = [func.count(m.seconds), func.sum(m.seconds), func.sum(m.cpu), func.sum(m.held)] if values else []
    return select(*by, func.count(), *moments, *used).group_by(*by)


def _wanted(which: str) -> Sequence[ColumnElement[bool]]:
    of_runs = any_of(ti.workflow_run_id, "runs")
    if which == "live":
        return of_runs, ti.status.in_(fsm.LIVE), ti.started_at.is_not(None)
    if which == "listed":
        return any_of(ti.id, "ids"), unindexed(ti.status).in_(fsm.ENDED)
    if which == "range":
        of_runs = any_of(unindexed(ti.workflow_run_id), "runs")
    is_new = ti.id > param("after"), ti.id <= param("until"), none_of(ti.id, "live")
    return of_runs, unindexed(ti.status).in_(fsm.ENDED), *is_new


@dataclass(slots=True)
class Totals:
    """The sums for one workflow (see the module docstring). Belongs to who holds the lock of `server.kept`."""

    kind: Kind
    workflow_id: int
    tiles: Tiles = field(default_factory=lambda: Tiles(0, TILE_MICROSECONDS_MIN))
    used: dict[Group, Usage] = field(default_factory=dict)
    known_until: int = 0
    #: Whether usage became known late.
    is_outdated: bool = False
    #: Number of attempts of the workflow when they were last counted.
    attempts: int = 0
    _runs: list[int] = field(default_factory=list)
    _live: array[int] = field(default_factory=lambda: array("q"))
    _ranges: list[tuple[int, int]] = field(default_factory=list)
    _ids_left: int = 0
    _ids: int = 0
    _tasks: dict[int, int] = field(default_factory=dict)
    _began_at: float | None = None

    @property
    def is_large(self) -> bool:
        """Whether they are worth keeping."""
        return self.attempts >= KEPT_ATTEMPTS_MIN

    @property
    def share(self) -> float:
        """Which share of the attempts has been looked at."""
        return 1.0 if not self._ranges else 1.0 - self._ids_left / max(1, self._ids)

    @property
    def bytes(self) -> int:
        """Memory that they take, about."""
        return 1_000 + self.tiles.bytes + 8 * len(self._live) + 400 * len(self.used)

    def catch_up(self, session: Session, has_time: Callable[[], bool], monotonic: float) -> None:
        """Add what has ended, up to the snapshot of the session, or as long as there is time; see `share`."""
        self._require_same(session, monotonic)
        while True:
            if not self._ranges:
                self._look(session)
                if self._ranges and not has_time():
                    return
            if not self._ranges:
                return
            while self._ranges:
                after, until = self._ranges.pop()
                self._add_range(session, after, until)
                self._ids_left -= until - after
                if not has_time():
                    return

    def now(self, session: Session) -> tuple[Tiles, dict[Group, Usage]]:
        """Return the sums including live attempts, as the session sees them."""
        tiles, used = self.tiles.copy(), {group: replace(one) for group, one in self.used.items()}
        rows = self._read(session, "live", tiles, runs=self._runs) if self._runs else []
        self._fold(rows, tiles, used)
        return tiles, used

    def _require_same(self, session: Session, monotonic: float) -> None:
        """Begin anew if tasks were deleted or moved to another array, or usage became known late."""
        tasks = {array_id: int(number) for array_id, number in session.rows(_tasks_by_array, workflow=self.workflow_id)}
        is_same = all(tasks.get(array_id, 0) >= number for array_id, number in self._tasks.items())
        age = None if self._began_at is None else monotonic - self._began_at
        if not is_same or age is None or (self.is_outdated and age >= OUTDATED_SECONDS_MAX):
            self.tiles, self.used, self._ranges = Tiles(0, TILE_MICROSECONDS_MIN), {}, []
            self.known_until, self._live, self.is_outdated = 0, array("q"), False
            self._began_at = monotonic
        self._tasks = tasks

    def _look(self, session: Session) -> None:
        """Add what was live and has ended; list the ranges in which there may be new attempts."""
        found = session.rows(_runs, workflow=self.workflow_id)
        self._runs = [row[0] for row in found]
        newest = session.value(_newest) or 0 if found else 0
        live = array("q", sorted(session.column(_live, runs=self._runs))) if found else array("q")
        ended = sorted(set(self._live).difference(live))
        for at in range(0, len(ended), LISTED_MAX):
            self._fold(self._read(session, "listed", self.tiles, ids=ended[at : at + LISTED_MAX]))
        self._live = live
        if not found or newest <= self.known_until:
            return
        after = self.known_until
        if not after:
            self.attempts, first, last = session.row(_extent, runs=self._runs) or (0, None, None)
            after, newest_own = (first or newest + 1) - 1, last or 0
            is_dense = self.attempts * DENSE_SHARE >= newest_own - after
            self.tiles = self._empty_tiles(session, found[0][1], newest_own)
        else:
            self.attempts += newest - after
            newest_own, is_dense = newest, True
        step = RANGE_IDS if is_dense else max(1, newest_own - after)
        self._ranges = [(at, min(at + step, newest_own)) for at in range(after, newest_own, step)][::-1]
        self._ids = self._ids_left = newest_own - after
        self.known_until = newest

    def _empty_tiles(self, session: Session, run_created_at: int, newest: int) -> Tiles:
        if not self.is_large:
            return Tiles(session.value(_first_start, runs=self._runs) or 0, TILE_MICROSECONDS_MIN)
        tile = TILE_MICROSECONDS_MIN
        until = session.value(_queued_at, id=newest) or 0
        while (until - run_created_at) // tile >= TILES_MAX:  # they would be combined anyway
            tile *= 2
        return Tiles(run_created_at, tile)

    def _add_range(self, session: Session, after: int, until: int) -> None:
        live = self._live[bisect_right(self._live, after) : bisect_right(self._live, until)]
        which = "range" if until - after <= RANGE_IDS else "sparse"
        values = {"runs": self._runs, "after": after, "until": until, "live": live.tolist()}
        self._fold(self._read(session, which, self.tiles, **values))

    def _read(self, session: Session, which: Any, tiles: Tiles, **values: Any) -> Sequence[Sequence[Any]]:
        return session.rows(_sums(self.kind, which), origin=tiles.origin, tile=tiles.tile, **values)

    def _fold(
        self, rows: Iterable[Sequence[Any]], tiles: Tiles | None = None, used: dict[Group, Usage] | None = None
    ) -> None:
        """Add rows of `_sums`, to what is kept unless something else is given."""
        tiles, used = self.tiles if tiles is None else tiles, self.used if used is None else used
        if self.kind == "host":
            tiles.add(rows)  # type: ignore[arg-type]
            return
        rows = list(rows)
        tiles.add((row[0], *row[4:9]) for row in rows)
        for *group, _, _, _, _, _, count, seconds, cpu, held in rows:
            if count:
                one = used.setdefault(Group(*group), Usage())
                one.count += int(count)
                one.seconds += float(seconds or 0.0)
                one.cpu_seconds += float(cpu or 0.0)
                one.byte_seconds += float(held or 0.0)
