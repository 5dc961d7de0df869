"""Usage of tasks, the server's counts, and unknown IDs."""

import itertools

import pytest
from server_world import TI, Refused, report

from jobmon.core.wire.monitoring import TemplateUsages, UsageRequest, UsageResponse
from jobmon.core.wire.server import Metrics

GIB = 1024**3


async def _ask(world, bound, **message):
    route = f"/task_template_versions/{bound.tasks.task_template_version_id}/resource_usage"
    return await world.post(route, UsageResponse, UsageRequest(**message))


async def _run(bound, endings):
    run = await bound.start()
    await run.register()
    await run.queue()
    batch = await run.launched()
    await run.sync(
        *(report(attempt, **ending) for attempt, ending in zip(batch.task_instance_ids, endings, strict=True))
    )
    return run, batch


def _done(seconds, gib):
    return {"status": TI.DONE, "exit_code": 0, "wallclock_seconds": seconds, "max_rss_bytes": int(gib * GIB)}


async def test_usage_counts_what_was_done_and_nothing_else(world):
    bound = await world.bound(4)
    await _run(bound, [_done(1.0, 1), _done(2.0, 2), _done(6.0, 0.5), {"status": TI.ERROR, "exit_code": 1}])
    usage = await _ask(world, bound, confidence=0.95)
    assert (usage.num_tasks, usage.min_runtime, usage.mean_runtime, usage.median_runtime, usage.max_runtime) == (
        (3, 1.0, 3.0, 2.0, 6.0)
    )
    assert (usage.min_mem, usage.median_mem, usage.max_mem) == (0.5, 1.0, 2.0)
    assert usage.ci_runtime == pytest.approx([3 - 6.5724, 3 + 6.5724], abs=1e-3)
    assert (await _ask(world, bound)).ci_runtime is None


async def test_usage_by_workflow_and_node_args(world):
    first, second = await world.bound(2), await world.bound(3)
    endings = [_done(1.0, 1), {"status": TI.DONE, "exit_code": 0}, _done(3.0, 3)]
    await _run(first, endings[:2])
    await _run(second, endings)
    assert (await _ask(world, first)).num_tasks == 5
    assert (await _ask(world, first, workflow_ids=[second.workflow_id])).num_tasks == 3
    assert (await _ask(world, first, workflow_ids=[])).num_tasks == 0
    assert (await _ask(world, first, node_args={"x": ["0", "2"]})).max_runtime == 3.0
    unmeasured = await _ask(world, first, node_args={"x": ["1"]}, confidence=0.9)
    assert (unmeasured.num_tasks, unmeasured.max_mem, unmeasured.ci_mem) == (2, None, None)
    assert (await _ask(world, first, node_args={"x": ["0"], "nobody": ["0"]})).num_tasks == 0


async def test_usage_of_a_workflow_and_of_a_tool_is_by_template(world):
    first, second = await world.bound(2), await world.bound(3)
    await _run(first, [_done(1.0, 1), _done(9.0, 2)])
    await _run(second, [_done(3.0, 3), _done(3.0, 3), {"status": TI.ERROR, "exit_code": 1}])
    request = UsageRequest(percentiles=[50], confidence=0.9)
    of_one = await world.post(f"/workflows/{second.workflow_id}/resource_usage", TemplateUsages, request)
    usage = of_one.templates.pop("t")
    assert (usage.num_tasks, usage.max_runtime, usage.percentiles_mem) == (2, 3.0, [3.0])
    assert of_one.templates == {}
    of_all = await world.post("/tools/1/resource_usage", TemplateUsages, request)
    assert (of_all.templates["t"].num_tasks, of_all.templates["t"].max_runtime) == (4, 9.0)
    narrow = UsageRequest(workflow_ids=[first.workflow_id], node_args={"x": ["1"]})
    assert (await world.post("/tools/1/resource_usage", TemplateUsages, narrow)).templates["t"].num_tasks == 1
    for owner in ("/tools/99", "/workflows/99"):
        with pytest.raises(Refused, match="NotFound"):
            await world.post(f"{owner}/resource_usage", TemplateUsages, request)


async def test_wrong_questions_about_usage_are_refused(world):
    bound = await world.bound(1)
    for level in (0.0, 1.0, -3.0):
        with pytest.raises(Refused, match="confidence: must be between 0 and 1"):
            await _ask(world, bound, confidence=level)
    with pytest.raises(Refused, match="at most 50 names"):
        await _ask(world, bound, node_args={f"a{number}": ["1"] for number in range(51)})


_UNKNOWN = (
    *(f"/workflows/99/{what}" for what in ("errors", "task_summaries", "metadata", "arrays", "tasks", "changes")),
    *(f"/workflows/99/{what}" for what in ("concurrency", "resume", "active_runs", "arrays/x/concurrency")),
    *("/arrays/99/concurrency", "/tasks/99", "/tasks/99/errors", "/task_instances/99/log_tail"),
    "/tool_versions/99/task_templates/x/versions",
)


async def test_an_unknown_id_is_not_found_and_named(world):
    asked = [("GET", route, None) for route in _UNKNOWN]
    asked.append(("POST", "/task_template_versions/99/resource_usage", {}))
    asked.append(("POST", "/workflows/99/downstream", {"dag_id": 1, "task_ids": []}))
    for method, route, message in asked:
        with pytest.raises(Refused, match="NotFound") as refused:
            await world.call(method, route, dict, message)
        assert (refused.value.status, refused.value.kind) == (404, "NotFound"), route
        assert "99" in refused.value.message


async def test_changes_that_came_too_late_are_counted_by_kind(world):
    bound = await world.bound(1)
    run, batch = await _run(bound, [_done(1.0, 1)])
    for status in itertools.repeat(TI.RUNNING, 2):
        await run.sync(report(batch.task_instance_ids[0], status))
    metrics = await world.get("/metrics", Metrics)
    late = {(one.machine, one.source, one.target): one.count for one in metrics.ignored}
    assert late[("task instance", TI.DONE, TI.RUNNING)] == 2
    assert metrics.transactions > 0
    assert (metrics.open_polls, metrics.writes_waiting) == (0, 0)
