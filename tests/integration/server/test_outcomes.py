"""The displayed outcome of a run: a stop, a timeout and a dead client are not failures."""

from __future__ import annotations

import pytest
from server_world import ManualClock, Refused, open_world, report

from jobmon.core.constants import TaskInstanceStatus as TI
from jobmon.core.constants import WorkflowRunStatus as RUN
from jobmon.core.wire.failures import FailuresResponse
from jobmon.core.wire.monitoring import WorkflowsResponse
from jobmon.core.wire.run import RunStatusRequest, RunStatusResponse, StopRequest
from jobmon.core.wire.swarm import ErrorsResponse
from jobmon.server.reaper import Reaper


class Clock(ManualClock):
    """A clock whose time of day and monotonic time can be set."""

    def monotonic(self):
        return self.seconds


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path, clock=Clock()) as opened:
        opened.clock.seconds += 1000
        yield opened


async def shown(bound, **query):
    found = await bound.world.get("/workflows", WorkflowsResponse, total=True, **query)
    return {one.workflow_id: (one.status, one.status_name) for one in found.workflows}, found.total


async def end(run, reason):
    message = RunStatusRequest(status=RUN.ERROR, reason=reason)
    await run.bound.world.post(f"/workflow_runs/{run.id}/status", RunStatusResponse, message)


async def test_each_end_has_its_name_and_can_be_searched_for(world):
    bound = [await world.bound(1) for _ in range(4)]
    stopped, late, failed, dead = [await one.start() for one in bound]
    world.clock.seconds += 10
    await stopped.move(RUN.STOPPED)
    await end(late, "timed out")
    await end(failed, None)
    world.clock.seconds += 10_000
    services = world.app.state.services
    assert (await Reaper(services.writer, services.readers, services.settings, services.clock).do_pass()).runs == [
        dead.id
    ]
    names = ["STOPPED", "TIMED OUT", "FAILED", "INTERRUPTED"]
    everything, total = await shown(bound[0])
    assert [everything[one.workflow_id] for one in bound] == [("F", name) for name in names]
    assert total == 4
    for one, name in zip(bound, names, strict=True):
        if name != "FAILED":
            assert await shown(one, status=name) == ({one.workflow_id: ("F", name)}, 1)
    assert len((await shown(bound[0], status="F"))[0]) == 4
    assert len((await shown(bound[0], limit=2))[0]) == 2


async def test_a_reason_that_is_none_is_refused(world):
    run = await (await world.bound(1)).start()
    with pytest.raises(Refused, match="'tired' is not a reason; use one of timed out, interrupted"):
        await end(run, "tired")


async def test_what_a_stop_ended_is_no_error(world):
    bound = await world.bound(3)
    run = await bound.start()
    await run.register()
    await run.queue(bound.task_ids[:2])
    failing, running = (await run.launched()).task_instance_ids
    await run.sync(report(failing, TI.ERROR, error="no such file"), report(running, TI.RUNNING))
    await run.queue(bound.task_ids[2:])
    await world.post(f"/workflows/{bound.workflow_id}/stop", None, StopRequest(user="me", kill=True))
    await run.sync(report(running, TI.ERROR, cause="killed", error="killed"))
    found = await world.get(f"/workflows/{bound.workflow_id}/failures", FailuresResponse)
    assert (found.failures, [group.count for group in found.groups]) == (1, [1])
    assert found.uncharged == {"cancelled before launch": 1, "stopped": 1}
    errors = await world.get(f"/workflows/{bound.workflow_id}/errors", ErrorsResponse)
    assert [error.error for error in errors.errors] == ["no such file"]
