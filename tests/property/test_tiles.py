"""Tiles of time: sums that do not depend on how often tiles were combined, nor on the order of attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.server.queries import tiles
from jobmon.server.queries.tiles import Tiles

MOMENTS = st.integers(0, 50_000_000)
ATTEMPTS = st.lists(st.tuples(st.sampled_from("abc"), MOMENTS, st.none() | MOMENTS), min_size=1, max_size=40)


def rows_of(attempts, tile):
    for name, start, end in attempts:
        last, ended_ms = (None, None) if end is None else (end // tile, end // 1_000)
        yield name, start // tile, last, 1, start // 1_000, ended_ms


@given(ATTEMPTS, st.integers(1, 7))
def test_every_attempt_is_in_the_tiles_of_its_start_and_end(attempts, parts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILES_MAX", 16)
        patch.setattr(tiles, "TILES_MIN", 8)
        patch.setattr(tiles, "CELLS_MAX", 30)
        found = Tiles(0, 100_000)
        for at in range(parts):  # each part is counted with the tiles that are kept then
            found.add(list(rows_of(attempts[at::parts], found.tile)))
        assert found.count <= 16
        for name in {attempt[0] for attempt in attempts}:
            own = [attempt for attempt in attempts if attempt[0] == name]
            series = found.series[name]
            for moments, counts, sums in (
                ([start for _, start, _ in own], series.started, series.started_ms),
                ([end for _, _, end in own if end is not None], series.ended, series.ended_ms),
            ):
                for at, (count, total) in enumerate(zip(counts, sums, strict=True)):
                    inside = [moment for moment in moments if moment // found.tile == at]
                    assert (count, total) == (len(inside), sum(moment // 1_000 for moment in inside))
                assert sum(counts) == len(moments)


def test_more_series_than_can_be_kept_are_combined(monkeypatch):
    monkeypatch.setattr(tiles, "SERIES_MAX", 2)
    found = Tiles(0, 100_000)
    found.add((name, 0, None, 1, 0, None) for name in "abcd")
    assert {name: list(one.started) for name, one in found.series.items()} == {"a": [1], "b": [1], tiles.OTHERS: [2]}
