"""Graphs to draw: compared with what is computed from the edges, task by task."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from server_world import Refused
from tests.databases import change

from jobmon.core.wire.graph import CriticalPath, TaskGraph, TemplateGraph
from jobmon.server.queries import critical, graphs

START = 1_700_000_000_000_000
SECOND = 1_000_000


async def read(flow, route, reply, **query):
    return await flow.world.get(f"/workflows/{flow.workflow_id}/{route}", reply, **query)


async def neighbourhood(flow, task, **query) -> TaskGraph:
    return await flow.world.get(f"/tasks/{flow.task_ids[task]}/graph", TaskGraph, **query)


def random_edges(chance, count):
    """Return index -> indices of upstream tasks."""
    return {
        number: sorted(chance.sample(range(number), chance.randint(1, min(3, number))))
        for number in range(1, count)
        if chance.random() < 0.8
    }


def split(world, flow, second):
    """Move some tasks to a second template, `u`."""
    change(
        world.database_uri,
        "INSERT INTO task_array (workflow_id, task_template_version_id, name, max_concurrently_running, limit_at)"
        f" SELECT workflow_id, task_template_version_id + 1000, 'u', 1000, limit_at FROM task_array"
        f" WHERE workflow_id = {flow.workflow_id}",
    )
    ids = ", ".join(str(flow.task_ids[number]) for number in second)
    own = "(SELECT id FROM task_array WHERE name = 'u')"
    change(world.database_uri, f"UPDATE task SET array_id = {own} WHERE id IN ({ids})")
    change(world.database_uri, f"UPDATE status_count SET number = number - {len(second)}")
    change(
        world.database_uri,
        f"INSERT INTO status_count SELECT workflow_id, {own}, status, {len(second)} FROM status_count",
    )


@pytest.mark.sqlite_only(reason="moves tasks to a template version that does not exist")
async def test_templates_depend_on_each_other_as_their_tasks_do(world):
    chance = random.Random(3)
    edges = random_edges(chance, 12)
    flow = await world.bound(12, edges=edges)
    second = [3, 4, 5, 9]
    split(world, flow, second)
    expected = Counter()
    for task, upstreams in edges.items():
        for template in {"u" if one in second else "t" for one in upstreams}:
            expected[template, "u" if task in second else "t"] += 1
    found = await read(flow, "template_graph", TemplateGraph)
    assert found.templates == ["t", "u"]
    assert {(one.upstream, one.downstream): one.tasks for one in found.edges} == expected


async def test_a_workflow_without_dependencies_has_templates_only(world):
    found = await read(await world.bound(2), "template_graph", TemplateGraph)
    assert (found.templates, found.edges) == (["t"], [])


async def test_a_neighbourhood_ends_after_its_steps(world):
    # 0 -> 1 -> 2 -> 3 -> 4 -> 5, and 6 -> 3
    flow = await world.bound(7, edges={1: [0], 2: [1], 3: [2, 6], 4: [3], 5: [4]})
    index = {task_id: number for number, task_id in enumerate(flow.task_ids)}
    found = await neighbourhood(flow, 3, steps=2)
    assert {index[one.task_id]: one.step for one in found.tasks} == {3: 0, 2: -1, 6: -1, 1: -2, 4: 1, 5: 2}
    edges = {(index[one.upstream], index[one.downstream]) for one in found.edges}
    assert edges == {(2, 3), (6, 3), (1, 2), (3, 4), (4, 5)}
    assert {one.more for one in found.tasks} == {0}
    assert {index[one.task_id] for one in (await neighbourhood(flow, 3, steps=1)).tasks} == {2, 3, 4, 6}


async def test_a_task_with_many_neighbours_shows_some_and_counts_the_rest(world):
    count = graphs.NEIGHBOURS_SHOWN_MAX + 5
    flow = await world.bound(count + 1, edges={count: list(range(count))})
    found = await neighbourhood(flow, count)
    assert (len(found.tasks), found.tasks[0].more) == (graphs.NEIGHBOURS_SHOWN_MAX + 1, 5)


async def test_a_neighbourhood_is_limited(world, monkeypatch):
    monkeypatch.setattr(graphs, "TASKS_MAX", 3)
    flow = await world.bound(8, edges={7: [0, 1, 2, 3, 4, 5, 6]})
    found = await neighbourhood(flow, 7)
    assert (len(found.tasks), found.tasks[0].more) == (3, 5)


@pytest.mark.parametrize("steps", [0, 4])
async def test_steps_out_of_range_are_refused(world, steps):
    flow = await world.bound(1)
    with pytest.raises(Refused) as refused:
        await neighbourhood(flow, 0, steps=steps)
    assert (refused.value.status, "steps: must be from 1 to 3" in refused.value.message) == (422, True)


# -- the critical path -------------------------------------------------------------------------------------------------


async def ran(world, edges, spans):
    """Return a workflow whose attempts ran from and until these seconds; None: it runs."""
    flow = await world.bound(len(spans), edges=edges)
    run = await flow.start()
    await run.register()
    await run.queue()
    attempts = (await run.launched()).task_instance_ids
    for attempt, (start, end) in zip(attempts, spans, strict=True):
        ended = f"NULL, status = 'R' WHERE id = {attempt}" if end is None else f"{at(end)} WHERE id = {attempt}"
        change(world.database_uri, f"UPDATE task_instance SET started_at = {at(start)}, ended_at = {ended}")
    return flow


def at(seconds):
    return START + int(seconds * SECOND)


async def path(flow):
    return await read(flow, "critical_path", CriticalPath)


async def test_nothing_ran(world):
    found = await path(await world.bound(2, edges={1: [0]}))
    assert (found.tasks, found.is_cut) == ([], False)


@pytest.mark.parametrize("seed", range(3))
async def test_each_task_on_the_path_follows_the_upstream_task_that_ended_last(world, seed):
    chance = random.Random(seed)
    edges = random_edges(chance, 15)
    spans = []
    for number in range(15):
        begin = max((spans[one][1] for one in edges.get(number, [])), default=0.0) + chance.randint(0, 9)
        spans.append((begin, begin + chance.randint(1, 50) + number / 100))
    flow = await ran(world, edges, spans)
    last = max(range(15), key=lambda number: spans[number][1])
    expected = [last]
    while edges.get(expected[-1]):
        expected.append(max(edges[expected[-1]], key=lambda number: spans[number][1]))
    expected.reverse()
    found = await path(flow)
    assert [one.task_id for one in found.tasks] == [flow.task_ids[number] for number in expected]
    ends = [spans[expected[0]][0], *(spans[number][1] for number in expected)]
    waits = [spans[number][0] - before for number, before in zip(expected, ends[:-1], strict=True)]
    assert [one.waited_seconds for one in found.tasks] == pytest.approx(waits, abs=1e-5)
    assert [(one.ended_at - one.started_at).total_seconds() for one in found.tasks] == pytest.approx(
        [spans[number][1] - spans[number][0] for number in expected], abs=1e-5
    )


async def test_the_path_of_a_running_workflow_ends_with_the_task_that_runs_the_longest(world):
    flow = await ran(world, {2: [0], 3: [1]}, [(0, 5), (0, 9), (6, None), (10, None)])
    found = await path(flow)
    assert [one.task_id for one in found.tasks] == [flow.task_ids[0], flow.task_ids[2]]
    assert (found.tasks[-1].ended_at, found.tasks[-1].waited_seconds) == (None, 1)


async def test_the_path_leads_through_expansions(world):
    flow = await ran(world, {1: [0], 2: [1], 3: [1, 2]}, [(0, 5), (0, 0), (9, 12), (14, 15)])
    expansion, run = flow.task_ids[1], world.rows("SELECT id FROM workflow_run")[0][0]
    change(world.database_uri, f"UPDATE task SET kind = 'E', attempt_count = 0 WHERE id = {expansion}")
    change(
        world.database_uri,
        "INSERT INTO expansion (task_id, workflow_run_id, calls, called_at, done_at, revision)"
        f" VALUES ({expansion}, {run}, 1, {at(6)}, {at(8)}, 1)",
    )
    found = await path(flow)
    assert [one.task_id for one in found.tasks] == flow.task_ids
    assert [one.waited_seconds for one in found.tasks] == [0, 1, 1, 2]


async def test_a_long_path_loses_its_beginning(world, monkeypatch):
    monkeypatch.setattr(critical, "TASKS_MAX", 2)
    flow = await ran(world, {1: [0], 2: [1]}, [(0, 1), (2, 3), (4, 5)])
    found = await path(flow)
    assert ([one.task_id for one in found.tasks], found.is_cut) == (flow.task_ids[1:], True)
    assert found.tasks[0].waited_seconds == 1
