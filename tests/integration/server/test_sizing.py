"""Wasted resources of a workflow's tasks, and the proposed requests."""

import pytest
from server_world import CLUSTER, TI, Refused, report

from jobmon.core.constants import Cause
from jobmon.core.wire.binding import IdsResponse, ResourcesRequest, ResourcesSpec
from jobmon.core.wire.definition import Cluster, ClusterRequest, QueueSpec
from jobmon.core.wire.monitoring import UsageRequest, UsageResponse
from jobmon.core.wire.sizing import HistoryResponse, SizingRequest, SizingResponse, Waste
from jobmon.core.wire.swarm import ChangesResponse, ResourceError

GIB = 1024**3
HOUR = 3600.0


async def _size(world, bound, **request):
    route = f"/workflows/{bound.workflow_id}/sizing"
    return (await world.post(route, SizingResponse, SizingRequest(**request))).templates


def _ended(status, hours, gib, **more):
    usage = {"wallclock_seconds": hours * HOUR, "cpu_seconds": hours * HOUR / 2, "max_rss_bytes": int(gib * GIB)}
    return {"status": status, **usage, **more}


@pytest.fixture
async def ran(world):
    """Four tasks that asked for 2 cores and 8 GiB: two done, one failed, one killed for its memory."""
    spec = ResourcesSpec(
        cluster_name=CLUSTER, queue_name="q", requested={"cores": 2, "memory": 8, "runtime": 36000}, kind="validated"
    )
    bound = await world.bound(4)
    ids = await world.post("/task_resources", IdsResponse, ResourcesRequest(resources=[spec]))
    bound.resources_id = ids.ids[0]
    run = await bound.start()
    await run.register()
    await run.queue()
    batch = await run.launched()
    endings = [
        _ended(TI.DONE, 1.0, 2.0),
        _ended(TI.DONE, 3.0, 4.0),
        _ended(TI.ERROR, 1.0, 1.0, cause=Cause.EXIT_CODE),
        _ended(TI.RESOURCE_ERROR, 0.5, 8.5, cause=Cause.OUT_OF_MEMORY),
    ]
    await run.sync(
        *(report(attempt, **ending) for attempt, ending in zip(batch.task_instance_ids, endings, strict=True))
    )
    return bound


async def test_what_was_held_for_nothing_is_split_by_cause(world, ran):
    (template,) = await _size(world, ran)
    assert (template.template_name, template.tool_name, template.queues) == ("t", "tool", {CLUSTER: "q"})
    assert (template.attempts, template.measured) == (4, 2)
    assert template.core_hours == Waste(held=11.0, over_request=6.0, failed=2.0, killed=1.0)
    assert template.gib_hours == Waste(held=44.0, over_request=18.0, failed=8.0, killed=4.0)
    assert (template.memory_used.minimum, template.memory_used.mean, template.memory_used.maximum) == (2.0, 3.0, 4.0)
    assert (template.memory_requested.minimum, template.cores_requested.maximum) == (8.0, 2.0)


async def test_a_proposal_says_what_it_saves_and_whom_it_kills(world, ran):
    (template,) = await _size(world, ran)
    assert template.proposed == {"cores": 1, "memory": "4916M", "runtime": "16200s"}
    assert template.saved_core_hours == 11.0 - 5.0
    assert template.saved_gib_hours == pytest.approx(44.0 - 5.0 * 4916 / 1024)
    assert template.would_kill == 0
    (bold,) = await _size(world, ran, memory_strategy="min", runtime_strategy="q50")
    assert (bold.proposed["memory"], bold.proposed["runtime"], bold.would_kill) == ("2458M", "5400s", 1)


async def test_a_proposal_is_never_more_than_a_queue_allows(world, ran):
    queues = [QueueSpec(queue_name="q", parameters={"max_memory": "4.5G", "max_runtime": "4h", "max_cores": 2})]
    await world.post("/clusters", Cluster, ClusterRequest(name=CLUSTER, plugin="dummy", queues=queues))
    (template,) = await _size(world, ran)
    assert (template.proposed, template.would_kill) == ({"cores": 1, "memory": "4608M", "runtime": "14400s"}, 0)


async def test_sizing_by_one_task(world, ran):
    (template,) = await _size(world, ran, task_id=ran.task_ids[0])
    assert (template.attempts, template.proposed["memory"]) == (1, "2458M")
    (failed,) = await _size(world, ran, task_id=ran.task_ids[2])
    assert (failed.measured, failed.proposed, failed.would_kill) == (0, {}, 0)


async def test_wrong_questions_about_sizes_are_refused(world, ran):
    for strategy in ("most", "q101", "q", ""):
        with pytest.raises(Refused, match=r"avg, min, max, or a quantile such as q95"):
            await _size(world, ran, cores_strategy=strategy)
    with pytest.raises(Refused, match="NotFound"):
        await _size(world, ran, task_id=99)
    with pytest.raises(Refused, match="NotFound"):
        await world.post("/workflows/99/sizing", SizingResponse, SizingRequest())
    fresh = await world.bound(1)
    assert await _size(world, fresh) == []


async def test_percentiles_of_usage(world, ran):
    route = f"/task_template_versions/{ran.tasks.task_template_version_id}/resource_usage"
    usage = await world.post(route, UsageResponse, UsageRequest(percentiles=[50, 51, 100]))
    assert usage.percentiles_mem == [2.0, 4.0, 4.0]
    assert usage.percentiles_runtime == [HOUR, 3 * HOUR, 3 * HOUR]
    assert usage.percentiles_cores == [0.5, 0.5, 0.5]
    with pytest.raises(Refused, match="percentiles: at most"):
        await world.post(route, UsageResponse, UsageRequest(percentiles=[101]))


async def test_the_changes_say_what_an_attempt_was_short_of(world, ran):
    changes = await world.get(f"/workflows/{ran.workflow_id}/changes", ChangesResponse)
    assert changes.resource_errors == {
        ran.task_ids[3]: ResourceError(
            cause=Cause.OUT_OF_MEMORY, max_rss_bytes=int(8.5 * GIB), wallclock_seconds=HOUR / 2
        )
    }


async def test_the_history_of_a_template_has_its_node_args(world, ran):
    version = ran.tasks.task_template_version_id
    history = await world.get(f"/task_template_versions/{version}/history", HistoryResponse)
    assert history == HistoryResponse(
        seconds=[3 * HOUR, HOUR], cpu_seconds=[1.5 * HOUR, HOUR / 2], memory_gib=[4.0, 2.0], node_args={"x": ["1", "0"]}
    )
    with pytest.raises(Refused, match="NotFound"):
        await world.get("/task_template_versions/99/history", HistoryResponse)
