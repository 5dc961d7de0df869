"""How many attempts started and ended in each tile of time, by series. Pure; memory is bounded.

A tile is twice as long whenever there would be too many: sums of two tiles are those of one twice as long.
"""

from __future__ import annotations

from array import array
from operator import add
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

#: Number of tiles that are kept for each series if there are few series, and if there are many.
TILES_MAX: Final = 2_048
TILES_MIN: Final = 256
#: Number of tiles of all series together, 32 bytes each, from which on there are fewer per series.
CELLS_MAX: Final = 500_000
#: Further series are combined.
SERIES_MAX: Final = 4_000
CELL_BYTES: Final = 32
OTHERS: Final = "others"


class Series:
    """Per tile: how many attempts started and ended, and the sums of these moments since the origin, milliseconds."""

    __slots__ = ("ended", "ended_ms", "started", "started_ms")

    def __init__(self) -> None:
        self.started, self.started_ms = array("q"), array("q")
        self.ended, self.ended_ms = array("q"), array("q")

    def columns(self) -> tuple[array[int], array[int], array[int], array[int]]:
        return self.started, self.started_ms, self.ended, self.ended_ms

    def grow(self, tiles: int) -> None:
        """Have at least so many tiles."""
        if (missing := tiles - len(self.started)) > 0:
            for column in self.columns():
                column.frombytes(bytes(8 * missing))

    def halve(self) -> None:
        """Combine every two tiles."""
        self.grow(len(self.started) + len(self.started) % 2)
        for column in self.columns():
            column[:] = array("q", map(add, column[::2], column[1::2]))

    @property
    def first(self) -> int | None:
        """The first tile in which something happened."""
        happened = zip(self.started, self.ended, strict=True)
        return next((at for at, (started, ended) in enumerate(happened) if started or ended), None)

    def add(self, other: Series) -> None:
        """Add what happened in another one."""
        self.grow(len(other.started))
        for mine, its in zip(self.columns(), other.columns(), strict=True):
            mine[: len(its)] = array("q", map(add, mine, its))

    def ran_ms(self, until_ms: float) -> float:
        """Return how long all attempts together ran until then, milliseconds."""
        running = sum(self.started) - sum(self.ended)
        return sum(self.ended_ms) - sum(self.started_ms) + running * until_ms

    def trim(self, tile_ms: float) -> None:
        """Drop the last tile if all that happened in it are ends at its very beginning: they are in the one before."""
        at = len(self.started) - 1
        if at > 0 and not self.started[at] and self.ended_ms[at] <= self.ended[at] * at * tile_ms:
            self.ended[at - 1] += self.ended[at]
            self.ended_ms[at - 1] += self.ended_ms[at]
            for column in self.columns():
                column.pop()

    def copy(self) -> Series:
        """Return one that changes separately."""
        found = Series()
        for mine, its in zip(found.columns(), self.columns(), strict=True):
            mine.extend(its)
        return found


class Tiles:
    """The tiles of several series.

    Args:
        origin: start of the first tile, microseconds; what happened before counts as in the first tile.
        tile: duration of a tile, microseconds.
    """

    def __init__(self, origin: int, tile: int) -> None:
        self.origin = origin
        self.tile = tile
        self.series: dict[Hashable, Series] = {}
        self._limit = TILES_MAX

    @property
    def count(self) -> int:
        """Number of tiles."""
        return max((len(one.started) for one in self.series.values()), default=0)

    @property
    def bytes(self) -> int:
        """Memory that they take, about."""
        return sum(CELL_BYTES * len(one.started) + 1_000 for one in self.series.values())

    def copy(self) -> Tiles:
        """Return tiles that change separately."""
        found = Tiles(self.origin, self.tile)
        found._limit = self._limit
        found.series = {name: one.copy() for name, one in self.series.items()}
        return found

    def add(self, rows: Iterable[tuple[Hashable, int | None, int | None, int, int | None, int | None]]) -> None:
        """Add attempts.

        Args:
            rows: for attempts that started in one tile and ended in one: name of their series, these tiles (None: not
                yet), how many, and the sums of both moments since the origin, milliseconds.
        """
        tile = self.tile
        for name, first, last, count, started_ms, ended_ms in rows:
            if first is None:
                continue
            one = self._of(name)
            at, until = self._place(first, tile), None if last is None else self._place(last, tile)
            while max(at, until or 0) >= self._limit:
                self._halve()
                at, until = self._place(first, tile), None if last is None else self._place(last, tile)
            one.grow(max(at, until or 0) + 1)
            one.started[at] += count
            one.started_ms[at] += int(started_ms or 0)
            if until is not None:
                one.ended[until] += count
                one.ended_ms[until] += int(ended_ms or 0)

    def reach(self, moment: int) -> int:
        """Have tiles long enough for a moment, microseconds; return the number of tiles until then."""
        while (moment - self.origin) // self.tile >= self._limit:
            self._halve()
        return max(0, -(-(moment - self.origin) // self.tile))

    def _place(self, number: int, tile: int) -> int:
        """Return where a tile of an earlier duration is now; clocks of other hosts may differ from ours."""
        return max(0, number) * tile // self.tile

    def _of(self, name: Hashable) -> Series:
        found = self.series.get(name)
        if found is None:
            if len(self.series) >= SERIES_MAX:
                name = OTHERS
            found = self.series.setdefault(name, Series())
            self._limit = max(TILES_MIN, min(TILES_MAX, CELLS_MAX // len(self.series)))
            while self.count > self._limit:
                self._halve()
        return found

    def _halve(self) -> None:
        self.tile *= 2
        for one in self.series.values():
            one.halve()
