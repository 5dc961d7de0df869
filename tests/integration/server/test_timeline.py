"""When attempts ran, as tiles: compared with what is computed attempt by attempt."""

from __future__ import annotations

import random

import pytest
from server_world import Refused
from tests.databases import change

from jobmon.core.wire.timeline import Timeline
from jobmon.server.queries import timeline

START = 1_700_000_000_000_000
SECOND = 1_000_000


async def read(flow, **query) -> Timeline:
    return await flow.world.get(f"/workflows/{flow.workflow_id}/timeline", Timeline, **query)


async def ran(world, spans, hosts=("a",)):
    """Return a workflow whose attempts ran from and until these seconds; None: it still runs."""
    flow = await world.bound(len(spans))
    run = await flow.start()
    await run.register()
    await run.queue()
    attempts = (await run.launched()).task_instance_ids
    for number, (attempt, (start, end)) in enumerate(zip(attempts, spans, strict=True)):
        ended = "NULL" if end is None else START + int(end * SECOND)
        change(
            world.database_uri,
            f"UPDATE task_instance SET started_at = {START + int(start * SECOND)}, ended_at = {ended},"
            f" host = '{hosts[number % len(hosts)]}' WHERE id = {attempt}",
        )
    return flow


def overlap(spans, start, end):
    return sum(max(0.0, min(until, end) - max(since, start)) for since, until in spans)


async def test_nothing_ran(world):
    flow = await world.bound(2)
    found = await read(flow)
    assert (found.start, found.series) == (None, [])


async def test_the_mean_number_of_running_attempts_is_that_of_each_attempts_overlap(world):
    chance = random.Random(7)
    spans = [(0.0, 3.0)]
    for _ in range(30):
        since = chance.uniform(0, 90)
        spans.append((since, min(100.0, since + chance.uniform(0.01, 40))))
    flow = await ran(world, spans)
    found = await read(flow, width=20)
    (series,) = found.series
    assert (series.name, sum(series.ended), len(series.running)) == ("t", len(spans), 20)
    for number, mean in enumerate(series.running):
        start = number * found.tile_seconds
        expected = overlap(spans, start, start + found.tile_seconds) / found.tile_seconds
        assert mean == pytest.approx(expected, abs=0.02)


async def test_hosts_are_told_apart_and_those_that_ran_least_are_combined(world, monkeypatch):
    monkeypatch.setattr(timeline, "SERIES_MAX", 2)
    flow = await ran(world, [(0, 9), (0, 4), (0, 2)], hosts=("a", "b", "<c>"))
    found = await read(flow, by="host", width=9)
    assert [one.name for one in found.series] == ["a", "others"]
    assert found.series[1].running == [2, 2, 1, 1, 0, 0, 0, 0, 0]


async def test_an_attempt_without_an_end_runs_until_now(world):
    world.clock.seconds = START / SECOND + 10 - world.clock.now().timestamp()
    flow = await ran(world, [(0, 5), (5, None)])
    (series,) = (await read(flow, width=10)).series
    assert series.running == [1] * 10
    assert sum(series.ended) == 1


@pytest.mark.parametrize("query", [{"width": 0}, {"width": 501}, {"by": "moon"}])
async def test_a_question_that_is_wrong_is_refused(world, query):
    flow = await world.bound(1)
    with pytest.raises(Refused) as refused:
        await read(flow, **query)
    assert refused.value.status == 422
