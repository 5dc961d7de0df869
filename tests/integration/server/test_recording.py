"""Tasks are recorded in the same way whether or not their nodes are known."""

from hashlib import sha256

import pytest

from jobmon.core.wire import replace
from jobmon.core.wire.binding import RecordedTasks, TasksResponse
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
