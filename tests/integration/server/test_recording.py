"""Tasks are recorded in the same way whether or not their nodes are known."""

import asyncio
from hashlib import sha256

import pytest
from server_world import Refused

from jobmon.core.wire import replace
from jobmon.core.wire.binding import RecordedTasks, TasksResponse
from jobmon.server.models import task_attribute
from jobmon.server.sql import ROWS_PER_INSERT

#: Some INSERTs of many rows, and some of one.
COUNT = 2 * ROWS_PER_INSERT + 7
KNOWN = 60
ORDERS = {
    "known first": [*range(KNOWN), *range(KNOWN, COUNT)],
    "new first": [*range(KNOWN, COUNT), *range(KNOWN)],
    "mixed": [at * 10 % COUNT for at in range(COUNT)],
    "none known": [COUNT + at for at in range(COUNT)],
}


def numbered(bound, numbers, workflow):
    """Tasks with nodes of these numbers."""
    return replace(
        bound.tasks,
        names=[f"t_{n}" for n in numbers],
        commands=[f"echo {n}" for n in numbers],
        node_hashes=[f"{n:064d}" for n in numbers],
        task_hashes=[f"{workflow}{n:060d}".zfill(64) for n in numbers],
        node_args={"x": [str(n) for n in numbers]},
        task_args={"y": [f"y{n}" for n in numbers]},
        attributes={},
        **{
            name: getattr(bound.tasks, name)[:1] * len(numbers)
            for name in ("max_attempts", "task_resources_ids", "scales_index", "fallback_index")
        },
    )


async def record(world, bound, numbers):
    tasks = numbered(bound, numbers, bound.workflow_id)
    return tasks, await world.post(f"/workflows/{bound.workflow_id}/tasks", TasksResponse, tasks)


@pytest.mark.parametrize("order", ORDERS)
async def test_every_task_has_its_node_and_its_arguments(world, order):
    first, second = await world.bound(1), await world.bound(1)
    _, before = await record(world, first, list(range(KNOWN)))
    numbers = ORDERS[order]
    tasks, found = await record(world, second, numbers)

    shared = {number: before.node_ids[number] for number in numbers if number < KNOWN}
    assert {number: node for number, node in zip(numbers, found.node_ids, strict=True) if number < KNOWN} == shared
    assert len(set(found.node_ids)) == len(set(found.task_ids)) == COUNT
    assert found.task_ids == sorted(found.task_ids)
    route, query = f"/workflows/{second.workflow_id}/recorded_tasks", {"after_id": second.task_ids[-1], "count": COUNT}
    recorded = await world.get(route, RecordedTasks, **query)
    assert (recorded.task_ids, recorded.node_ids) == (found.task_ids, found.node_ids)
    assert recorded.hash == sha256("".join(tasks.task_hashes).encode()).hexdigest()

    rows = world.rows(
        """
        SELECT t.command, n.hash, x.value, y.value FROM task t JOIN node n ON n.id = t.node_id
        JOIN node_arg x ON x.node_id = n.id JOIN task_arg y ON y.task_id = t.id
        WHERE t.workflow_id = :workflow_id AND t.id > :after_id ORDER BY t.id
        """,
        workflow_id=second.workflow_id,
        after_id=second.task_ids[-1],
    )
    columns = (tasks.commands, tasks.node_hashes, tasks.node_args["x"], tasks.task_args["y"])
    assert rows == list(zip(*columns, strict=True))
    _, again = await record(world, second, numbers)
    assert again == found


async def test_options_may_differ_from_task_to_task(world):
    bound = await world.bound(1)
    numbers = list(range(COUNT))
    tasks = replace(
        numbered(bound, numbers, bound.workflow_id),
        max_attempts=[1 + number % 3 for number in numbers],
        scales=[{}, {"memory": 0.5}],
        scales_index=[number % 2 for number in numbers],
        fallback_queues=[[], ["q"]],
        fallback_index=[number // 5 % 2 for number in numbers],
        priorities={number: number for number in numbers if number % 7 == 1},
        task_resources_ids=[None if number % 4 else bound.tasks.task_resources_ids[0] for number in numbers],
    )
    found = await world.post(f"/workflows/{bound.workflow_id}/tasks", TasksResponse, tasks)
    rows = world.rows(
        "SELECT name, max_attempts, scales, fallback_queues, priority, defined_priority, task_resources_id"
        " FROM task WHERE id >= :first_id ORDER BY id",
        first_id=found.task_ids[0],
    )
    assert rows == [
        (
            tasks.names[number],
            tasks.max_attempts[number],
            '{"memory":0.5}' if number % 2 else None,
            '["q"]' if number // 5 % 2 else None,
            *[number if number % 7 == 1 else 0] * 2,
            tasks.task_resources_ids[number],
        )
        for number in numbers
    ]


async def test_what_tasks_refer_to_exists(world):
    bound, other = await world.bound(1), await world.bound(1)
    tasks = numbered(bound, [1, 2], bound.workflow_id)
    before = world.rows("SELECT (SELECT COUNT(*) FROM task), (SELECT COUNT(*) FROM node)")
    wrong = {
        "no array": {"array_id": 10**9},
        "array of workflow": {"array_id": other.tasks.array_id},
        "task_template_version_id": {"task_template_version_id": 10**9},
        "task_resources_ids": {"task_resources_ids": [tasks.task_resources_ids[0], 10**9]},
    }
    for text, change in wrong.items():
        with pytest.raises(Refused) as refused:
            await world.post(f"/workflows/{bound.workflow_id}/tasks", None, replace(tasks, **change))
        assert refused.value.status in (404, 422)
        assert text in refused.value.message
    with pytest.raises(Refused, match="404"):
        await world.post(f"/workflows/{10**9}/tasks", None, tasks)
    assert world.rows("SELECT (SELECT COUNT(*) FROM task), (SELECT COUNT(*) FROM node)") == before


async def test_the_database_checks_references_of_other_changes_also_after_tasks_were_recorded(world):
    bound = await world.bound(1)
    writer = world.app.state.services.writer

    def add_orphan(tx):
        tx.add(task_attribute, task_id=10**9, argument_id=1, value="")

    await record(world, bound, [1])
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await writer.run(add_orphan)
    together = [record(world, bound, [2]), writer.run(add_orphan)]
    recorded, refused = await asyncio.gather(*together, return_exceptions=True)
    assert len(recorded[1].task_ids) == 1
    assert "foreign key" in str(refused).lower()
