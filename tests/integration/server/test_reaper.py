"""What the reaper terminates and what it waits for; a clock that jumps makes it terminate nothing alive."""

import os
import socket
import sqlite3

import pytest
from server_world import RUN, TI, ManualClock, open_world, report
from sqlalchemy import select
from tests.databases import change

from jobmon.core import paths
from jobmon.core.constants import Cause, TaskStatus, WorkflowStatus
from jobmon.core.wire.monitoring import TaskDetail
from jobmon.core.wire.run import ActiveRunsResponse, HeartbeatRequest, ResumeRequest, RunStatusResponse
from jobmon.server.models import audit
from jobmon.server.reaper import Reaper, is_gone, own_name
from jobmon.server.usecases import timekeeping

TASK = TaskStatus
HOUR = 3600.0


class JumpingClock(ManualClock):
    """A clock of which the time of day can be set."""

    def __init__(self):
        super().__init__()
        self.monotonic_seconds = 0.0

    def pass_(self, seconds):
        self.seconds += seconds
        self.monotonic_seconds += seconds

    def monotonic(self):
        return self.monotonic_seconds


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path, clock=JumpingClock()) as opened:
        opened.clock.pass_(1000)
        yield opened


def reaper_of(world):
    services = world.app.state.services
    return Reaper(services.writer, services.readers, services.settings, services.clock)


async def running(world, count=2):
    bound = await world.bound(count)
    run = await bound.start()
    await run.register()
    await run.queue()
    ids = (await run.launched()).task_instance_ids
    await run.sync(*(report(attempt, TI.RUNNING) for attempt in ids))
    return bound, run, ids


async def active(bound):
    found = await bound.world.get(f"/workflows/{bound.workflow_id}/active_runs", ActiveRunsResponse)
    return [(run.workflow_run_id, run.heartbeat_overdue) for run in found.runs]


async def attempts_of(bound):
    details = [await bound.world.get(f"/tasks/{task_id}", TaskDetail) for task_id in bound.task_ids]
    return [(attempt.status, attempt.cause, attempt.charged) for detail in details for attempt in detail.attempts]


# -- orphans ---------------------------------------------------------------------------------------------------------


async def test_attempts_that_nobody_looks_after_end_and_are_not_charged(world):
    bound = await world.bound(3)
    run = await bound.start()
    await run.register()
    await run.queue()
    taken, launched, runs = (await run.launched()).task_instance_ids
    await run.sync(report(launched, TI.LAUNCHED, distributor_id="7"), report(runs, TI.RUNNING))
    world.clock.pass_(278)
    assert (await reaper_of(world).do_pass()).attempts == 0
    world.clock.pass_(10)
    assert (await reaper_of(world).do_pass()).attempts == 3
    assert await attempts_of(bound) == [(TI.UNKNOWN_ERROR, Cause.WORKER_LOST, False)] * 3
    assert set((await bound.statuses()).values()) == {TASK.REGISTERING}
    assert await active(bound) == []
    assert taken


async def test_overdue_attempts_go_to_triage_while_a_distributor_is_there(world):
    _bound, run, ids = await running(world)
    await run.move(RUN.ERROR)
    world.clock.pass_(288)
    assert (await run.sync()).triage == []
    assert (await reaper_of(world).do_pass()).attempts == 0
    assert (await run.sync()).triage == ids


async def test_attempts_whose_worker_beats_are_left_alone_though_no_distributor_is_there(world):
    _bound, _run, ids = await running(world)
    for _ in range(3):
        world.clock.pass_(200)
        await world.post("/worker/report", None, {"alive": ids})
        assert (await reaper_of(world).do_pass()).attempts == 0


async def test_a_lost_run_that_makes_room_waits_for_its_attempts(world):
    bound, run, _ids = await running(world)
    await world.post(f"/workflows/{bound.workflow_id}/resume", None, ResumeRequest())
    world.clock.pass_(100)
    assert (await reaper_of(world).do_pass()).runs == []
    world.clock.pass_(200)
    reaped = await reaper_of(world).do_pass()
    assert (reaped.attempts, reaped.runs) == (2, [run.id])
    assert await attempts_of(bound) == [(TI.ERROR, Cause.KILLED_FOR_RESUME, False)] * 2
    assert await bound.workflow_status() == WorkflowStatus.HALTED


async def test_a_workflow_whose_last_tasks_finish_after_its_run_failed_is_done(world):
    bound, run, ids = await running(world)
    await run.move(RUN.ERROR)
    assert (await reaper_of(world).do_pass()).repaired == []
    await run.sync(*(report(attempt, TI.DONE) for attempt in ids))
    assert await bound.workflow_status() == WorkflowStatus.FAILED
    assert (await reaper_of(world).do_pass()).repaired == [bound.workflow_id]
    assert await bound.workflow_status() == WorkflowStatus.DONE
    actions = await world.app.state.services.readers.run(
        lambda session: session.rows(select(audit.c.actor, audit.c.action).where(audit.c.actor == "reaper"))
    )
    assert actions == [("reaper", "repair")]


# -- the lease -------------------------------------------------------------------------------------------------------


def set_holder(world, holder, expires_in):
    at = int((world.clock.now().timestamp() + expires_in) * 1e6)
    change(world.database_uri, "DELETE FROM lease")
    sql = "INSERT INTO lease (name, holder, expires_at) VALUES ('reaper', :holder, :at)"
    change(world.database_uri, sql, holder=holder, at=at)


@pytest.mark.parametrize(
    ("holder", "expires_in", "is_taken"),
    [
        ("elsewhere:1:5.00", 100, False),
        ("elsewhere:1:5.00", -1, True),
        (f"formerly:{os.getpid()}:{paths.process_start_time(os.getpid()) - 100:.2f}", 100, True),
        ("elsewhere:1:5.00", 100 * HOUR, True),
    ],
    ids=["held elsewhere", "expired", "held by a dead process of this machine", "from a clock that was ahead"],
)
async def test_the_lease_is_taken_from_who_is_gone(world, holder, expires_in, is_taken):
    _bound, run, _ = await running(world)
    world.clock.pass_(100)
    set_holder(world, holder, expires_in)
    assert (await reaper_of(world).do_pass()).runs == ([run.id] if is_taken else [])


def test_a_holder_is_known_by_machine_pid_and_start():
    assert not is_gone(own_name())
    assert not is_gone("elsewhere:1:0.00")
    assert not is_gone("what an older version wrote")
    started = paths.process_start_time(os.getpid())
    assert is_gone(f"{socket.gethostname()}:{os.getpid()}:{started - 100:.2f}")
    assert is_gone(f"what it was called before:{os.getpid()}:{started - 100:.2f}")
    assert not is_gone(f"{socket.gethostname()}:{os.getpid()}:{started + paths.BOOT_AXIS_SECONDS:.2f}")


# -- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_jump_of_the_servers_clock_ends_nothing_that_lives(world, jump):
    bound, run, _ = await running(world)
    world.clock.pass_(10)
    world.clock.seconds += jump
    reaped = await reaper_of(world).do_pass()
    assert (reaped.runs, reaped.attempts) == ([], 0)
    assert await active(bound) == [(run.id, False)]
    assert (await run.sync()).triage == []
    beat = HeartbeatRequest(status=RUN.RUNNING, next_report_increment=93.0)
    await world.post(f"/workflow_runs/{run.id}/heartbeat", RunStatusResponse, beat)
    world.clock.pass_(80)
    assert await active(bound) == [(run.id, False)]
    world.clock.pass_(20)
    assert await active(bound) == [(run.id, True)]
    assert (await reaper_of(world).do_pass()).runs == [run.id]


async def test_a_clock_that_was_set_back_while_no_server_ran_does_not_keep_the_dead_alive(tmp_path):
    clock = JumpingClock()
    async with open_world(tmp_path, clock=clock) as world:
        bound, run, _ = await running(world)
    clock.seconds -= HOUR
    async with open_world(tmp_path, clock=clock) as world:
        bound.world = world
        await world.app.state.services.writer.run(timekeeping.begin)
        assert await active(bound) == [(run.id, False)]
        clock.pass_(94)
        assert await active(bound) == [(run.id, True)]


async def test_deadlines_wait_while_the_server_was_asleep(world):
    bound, run, _ = await running(world)
    world.clock.pass_(600)  # stopped (SIGSTOP): no heartbeat could arrive
    await world.app.state.services.writer.run(timekeeping.prolong, 600.0, "the server was suspended")
    reaped = await reaper_of(world).do_pass()
    assert (reaped.runs, reaped.attempts) == ([], 0)
    assert await active(bound) == [(run.id, False)]


async def test_deadlines_wait_while_the_database_does_not_respond(world):
    def fail(tx):
        raise sqlite3.OperationalError("database or disk is full")

    bound, run, _ = await running(world)
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            await world.app.state.services.writer.run(fail)
        world.clock.pass_(300)  # heartbeats are answered with 503 and not recorded
    reaped = await reaper_of(world).do_pass()
    assert (reaped.runs, reaped.attempts) == ([], 0)
    assert await active(bound) == [(run.id, False)]
    world.clock.pass_(94)
    assert await active(bound) == [(run.id, True)]
