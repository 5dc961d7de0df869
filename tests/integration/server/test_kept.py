"""What is kept of large workflows is what the database contains, however it is read and whatever changes."""

from __future__ import annotations

import random
from contextlib import closing

import pytest
from server_world import TI, Refused, report
from tests.databases import change

from jobmon.core.constants import Cause
from jobmon.core.wire.monitoring import Matrix
from jobmon.core.wire.sizing import SizingRequest, SizingResponse
from jobmon.core.wire.timeline import Timeline
from jobmon.server import kept
from jobmon.server.kept import Kept
from jobmon.server.queries import letters, matrix, progress, sizing, timeline, totals
from jobmon.server.queries.timeline import TimelineQuery
from jobmon.server.recent import Recent

#: A day after the beginning of the tests' clock, microseconds.
NOW = 1_767_312_000_000_000
ROUNDS = 12


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Keep small workflows, too, and read them in small steps."""
    monkeypatch.setattr(letters, "KEPT_TASKS_MIN", 1)
    monkeypatch.setattr(letters, "READ_MAX", 4)
    monkeypatch.setattr(totals, "KEPT_ATTEMPTS_MIN", 1)
    monkeypatch.setattr(totals, "RANGE_IDS", 5)
    monkeypatch.setattr(progress, "LARGE_TASKS_MIN", 1)


def kept_of(world) -> Kept:
    return world.app.state.services.kept


def read(world, query, *arguments, with_kept=None):
    """Run a query in a snapshot of its own, with what the server keeps or with something else."""
    with closing(world.app.state.services.database.open_session()) as session:
        session.begin(writing=False)
        found = query(session, *arguments, with_kept or kept_of(world))
        session.end_reading()
        return found


def figures(world, flow, with_kept):
    tiles = [
        read(world, timeline.timeline, flow.workflow_id, TimelineQuery(by=by), NOW, with_kept=with_kept)
        for by in ("template", "host")
    ]
    used = read(world, sizing.workflow_sizing, flow.workflow_id, SizingRequest(), Recent(), with_kept=with_kept)
    return tiles, used


def comparable(tiles, used):
    """Sums of floating-point numbers depend on their order, and tiles on when they were combined."""
    parts = []
    for one in tiles:
        ran = {series.name: round(sum(series.running) * one.tile_seconds, -1) for series in one.series}
        parts.append((ran, {series.name: sum(series.ended) for series in one.series}))
    for template in used.templates:
        parts.append((template.template_name, template.attempts, template.measured, template.memory_used))
        for hours in (template.core_hours, template.gib_hours):
            parts += [round(value, 6) for value in (hours.held, hours.over_request, hours.failed, hours.killed)]
    return parts


async def test_figures_and_squares_are_those_of_the_database_after_every_change(world):
    flow = await world.bound(40, max_attempts=20)
    run = await flow.start()
    await run.register()
    chance = random.Random(3)
    live, waiting = [], list(flow.task_ids)
    for number in range(ROUNDS):
        if waiting:
            chosen, waiting = waiting[:7], waiting[7:]
            await run.queue(chosen)
            for batch in (await run.sync(capacity={"here": 1000})).launches:
                live += batch.task_instance_ids
        chance.shuffle(live)
        ending, live = live[:4], live[4:]
        now = world.clock.now()
        await run.sync(*(report(one, TI.RUNNING, host=f"h{one % 3}", started_at=now) for one in (*ending, *live)))
        world.clock.seconds += 90
        outcomes = [chance.choice((TI.DONE, TI.ERROR_FATAL)) for _ in ending]
        usage = {"wallclock_seconds": 90.0, "cpu_seconds": 30.5, "max_rss_bytes": 3 * 2**30}
        await run.sync(
            *(
                report(one, outcome, ended_at=world.clock.now(), exit_code=0, **usage)
                for one, outcome in zip(ending, outcomes, strict=True)
            )
        )
        if number % 3 != 2:  # sometimes several changes come together
            assert comparable(*figures(world, flow, None)) == comparable(*figures(world, flow, Kept()))
            recorded = "".join(row[0] for row in world.rows("SELECT status FROM task ORDER BY id"))
            shown = await world.get(f"/workflows/{flow.workflow_id}/matrix", Matrix)
            assert (shown.statuses, shown.total, shown.is_cut) == (recorded, 40, False)
    assert kept_of(world)._slots["host", flow.workflow_id].part.known_until > 30


async def ran(world, count):
    """Return a workflow whose tasks are done."""
    flow = await world.bound(count)
    run = await flow.start()
    await run.register()
    await run.queue()
    batch = await run.launched()
    now = world.clock.now()
    world.clock.seconds += 60
    values = {"host": "a", "started_at": now, "ended_at": world.clock.now()}
    usage = {"wallclock_seconds": 60.0, "cpu_seconds": 60.0, "max_rss_bytes": 2**30}
    await run.sync(*(report(one, TI.DONE, **values, **usage) for one in batch.task_instance_ids))
    return flow, run


async def test_a_reader_who_accepts_a_part_does_not_wait_for_the_rest(world, monkeypatch):
    flow, _ = await ran(world, 17)
    monkeypatch.setattr(kept, "STEP_SECONDS", -1.0)
    route = f"/workflows/{flow.workflow_id}"
    shares = [(await world.get(f"{route}/timeline", Timeline, partial=True)).share for _ in range(10)]
    assert (shares[0], shares[-1], shares) == (0.0, 1.0, sorted(shares))
    assert 0 < shares[1] < 1
    page, statuses = await world.get(f"{route}/matrix", Matrix), ""
    assert (len(page.statuses), page.is_cut, page.total) == (4, True, 17)
    while page.is_cut:
        statuses += page.statuses
        page = await world.get(f"{route}/matrix", Matrix, after=page.runs[-1].first + page.runs[-1].count - 1)
    assert statuses + page.statuses == "D" * 17
    # who does not accept a part gets all, and so does everybody afterwards
    sized = await world.post(f"{route}/sizing", SizingResponse, SizingRequest())
    assert (sized.share, sized.templates[0].attempts) == (1.0, 17)
    assert (await world.get(f"{route}/timeline", Timeline, by="host")).series[0].ended[-1] == 17


async def test_tasks_that_are_bound_later_and_tasks_that_move_are_noticed(world):
    flow, _ = await ran(world, 6)
    before = await world.get(f"/workflows/{flow.workflow_id}/matrix", Matrix)
    first = flow.task_ids[0]
    stamp = world.rows("SELECT stamp FROM logical_clock")[0][0] + 1
    change(world.database_uri, f"UPDATE task SET status = 'X', status_at = {stamp} WHERE id = {first}")
    change(world.database_uri, "UPDATE status_count SET number = number - 1 WHERE status = 'D'")
    change(
        world.database_uri,
        "INSERT INTO status_count (workflow_id, array_id, status, number)"
        f" SELECT workflow_id, array_id, 'X', 1 FROM task WHERE id = {first}",
    )
    change(world.database_uri, f"UPDATE logical_clock SET stamp = {stamp}")
    world.app.state.services.answers._kept.clear()  # the server does not know that something was written
    after = await world.get(f"/workflows/{flow.workflow_id}/matrix", Matrix)
    assert (len(before.statuses), after.statuses, after.runs[0].first) == (6, "DDDDD", first + 1)


def test_letters_with_gaps_and_in_any_order_are_those_of_their_tasks():
    found = letters.Letters(1)
    assert found._append_texts("1,2,3", "7,7,8", "GQD") == 3
    assert found._append_texts("9,5,4,6", "8,8,8,7", "FRQG") == 4
    assert found._append_texts("", "", "") == 0
    runs = [letters.Run(7, 1, 2), letters.Run(8, 3, 3), letters.Run(7, 6, 1), letters.Run(8, 9, 1)]
    assert found.page(0, 100, 100) == (runs, "GQDQRGF", False)
    assert found.last == 9


async def test_usage_that_becomes_known_late_is_added_after_a_while(world):
    flow = await world.bound(2)
    run = await flow.start()
    await run.register()
    await run.queue()
    lost, done = (await run.launched()).task_instance_ids
    usage = {"wallclock_seconds": 60.0, "cpu_seconds": 60.0, "max_rss_bytes": 2**30}
    await run.sync(report(lost, TI.ERROR_FATAL, cause=Cause.KILLED), report(done, TI.DONE, **usage))

    async def attempts():
        route = f"/workflows/{flow.workflow_id}/sizing"
        return (await world.post(route, SizingResponse, SizingRequest())).templates[0].attempts

    assert await attempts() == 1
    await run.sync(report(lost, TI.ERROR_FATAL, cause=Cause.KILLED, **usage))
    assert await attempts() == 1
    world.clock.seconds += totals.OUTDATED_SECONDS_MAX
    assert await attempts() == 2


async def test_a_large_workflow_is_read_ahead_when_its_page_is_opened(world):
    flow, _ = await ran(world, 9)
    warmer = world.app.state.services.warmer
    warmer.start(flow.workflow_id)
    warmer.start(flow.workflow_id)
    (warming,) = warmer._running.values()
    await warming
    letters, totals = (kept_of(world)._slots[kind, flow.workflow_id].part for kind in ("letters", "template"))
    assert (letters.is_whole, len(letters), totals.share, totals.attempts) == (True, 9, 1.0, 9)


async def test_memory_is_bounded(world, monkeypatch):
    flows = [(await ran(world, 5))[0] for _ in range(3)]
    for flow in flows:
        await world.get(f"/workflows/{flow.workflow_id}/matrix", Matrix)
    assert list(kept_of(world)._slots) == [("letters", flow.workflow_id) for flow in flows]
    monkeypatch.setattr(kept, "BYTES_MAX", 1)
    await world.get(f"/workflows/{flows[0].workflow_id}/timeline", Timeline)
    assert list(kept_of(world)._slots) == [("template", flows[0].workflow_id)]
    monkeypatch.setattr(letters, "KEPT_TASKS_MIN", 6)
    monkeypatch.setattr(totals, "KEPT_ATTEMPTS_MIN", 6)
    await world.get(f"/workflows/{flows[0].workflow_id}/timeline", Timeline, width=9)
    await world.get(f"/workflows/{flows[0].workflow_id}/matrix", Matrix, after=1)
    assert kept_of(world)._slots == {}
    with pytest.raises(Refused):
        await world.get("/workflows/99/matrix", Matrix)
    assert kept_of(world)._slots == {}


async def test_a_page_of_the_matrix_has_at_most_so_many_tasks_and_runs(world, monkeypatch):
    flow, _ = await ran(world, 10)
    monkeypatch.setattr(matrix, "TASKS_MAX", 3)
    page = await world.get(f"/workflows/{flow.workflow_id}/matrix", Matrix, after=flow.task_ids[1])
    assert ([(run.first, run.count) for run in page.runs], page.is_cut) == ([(flow.task_ids[2], 3)], True)
    last = await world.get(f"/workflows/{flow.workflow_id}/matrix", Matrix, after=flow.task_ids[-2])
    assert (last.statuses, last.is_cut) == ("D", False)
    none = await world.get(f"/workflows/{flow.workflow_id}/matrix", Matrix, after=flow.task_ids[-1])
    assert (none.runs, none.statuses, none.is_cut) == ([], "", False)
