"""The status of every task as letters: pages, and later changes."""

from __future__ import annotations

from server_world import TI, report

from jobmon.core.wire.monitoring import Matrix, TaskRun
from jobmon.server.queries import matrix


async def read(world, flow, **query) -> Matrix:
    return await world.get(f"/workflows/{flow.workflow_id}/matrix", Matrix, **query)


async def test_all_tasks_come_in_pages_and_then_only_what_changed(world, monkeypatch):
    flow = await world.bound(5)
    first, last = flow.task_ids[0], flow.task_ids[-1]
    whole = await read(world, flow)
    assert (whole.runs, whole.statuses, whole.is_cut) == ([TaskRun(template="t", first=first, count=5)], "GGGGG", False)
    run = await flow.start()
    await run.register()
    await run.queue([flow.task_ids[1], last])
    changes = await read(world, flow, since=whole.snapshot)
    assert {(one.first, one.count) for one in changes.runs} == {(flow.task_ids[1], 1), (last, 1)}
    assert changes.statuses == "QQ"
    assert (await read(world, flow, since=changes.snapshot)).statuses == ""
    batch = await run.launched()
    await run.sync(report(batch.task_instance_ids[0], TI.DONE))
    assert "D" in (await read(world, flow, since=changes.snapshot)).statuses
    monkeypatch.setattr(matrix, "TASKS_MAX", 3)
    monkeypatch.setattr(matrix, "CHANGES_MAX", 1)
    page = await read(world, flow, after=first - 1)
    assert (len(page.statuses), page.is_cut) == (3, True)
    rest = await read(world, flow, after=flow.task_ids[2])
    assert (len(rest.statuses), rest.is_cut) == (2, False)
    assert (await read(world, flow, since=whole.snapshot)).is_cut
