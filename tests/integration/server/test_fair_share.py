"""Leases on cores are granted at once, returned before they are granted again, and expire."""

import asyncio

from agent_world import Agent
from server_world import RUN, TI, report

from jobmon.core.wire.launching import SlotsGranted, SlotsWanted
from jobmon.core.wire.monitoring import WorkflowExplanation
from jobmon.server.fair_share import TURN_SECONDS
from jobmon.server.usecases.fair_share import LEASE_SECONDS

TOTAL = 2.0


class Sharer:
    """An agent that shares the pool."""

    def __init__(self, agent):
        self.agent = agent
        self.run = agent.run
        self.version = 0
        self.granted = 0.0

    @classmethod
    async def join(cls, world, tasks=3):
        bound = await world.bound(tasks)
        return cls(await Agent.register(await bound.start()))

    async def ask(self, *reports, held=None, wanted=TOTAL, head=1.0, total=TOTAL, hears=True, **message):
        held = self.granted if held is None else held
        slots = SlotsWanted(pool="host:cluster", total=total, version=self.version, held=held, wanted=wanted, head=head)
        granted = (await self.agent.sync(*reports, slots=slots, **message)).slots
        if hears:
            self.granted, self.version = granted.cores, granted.version
        return granted.cores


async def test_a_lone_lease_has_all_and_two_share(world):
    first, second = await Sharer.join(world), await Sharer.join(world)
    assert await first.ask() == 2
    assert await second.ask() == 0  # the first may still use both
    assert await first.ask() == 1
    assert await second.ask() == 0  # not given back yet: one of its commands still runs
    assert await first.ask(held=2) == 1
    assert await second.ask() == 0
    assert await first.ask() == 1
    assert await second.ask() == 1


async def test_an_open_poll_hears_of_another_grant(world):
    first, second = await Sharer.join(world), await Sharer.join(world)
    await first.ask()
    poll = asyncio.create_task(first.ask(wait_seconds=20.0))
    await second.ask()
    assert await asyncio.wait_for(poll, 5) == 1
    await first.ask()
    assert await second.ask() == 1
    poll = asyncio.create_task(second.ask(wait_seconds=20.0))
    await first.run.move(RUN.STOPPED)
    assert await asyncio.wait_for(poll, 5) == 2


async def test_a_request_that_was_sent_before_the_grant_was_heard_gives_nothing_back(world):
    first, second = await Sharer.join(world), await Sharer.join(world)
    assert await first.ask(hears=False) == 2  # this answer is still under way
    assert await second.ask() == 0
    assert await first.ask(held=0, hears=False) == 1
    assert await second.ask() == 0


async def test_cores_of_a_silent_agent_count_until_its_attempts_end(world):
    first, second = await Sharer.join(world, tasks=1), await Sharer.join(world)
    await first.run.queue()
    (attempt,) = await first.agent.claim()
    await first.ask(report(attempt, TI.RUNNING))
    world.clock.seconds += LEASE_SECONDS + 1
    assert await second.ask() == 1  # one of two still runs its only attempt
    ended = report(attempt, TI.DONE, exit_code=0)
    for reports in ([ended], []):  # what it holds is believed once it has heard of the newest grant
        assert await first.ask(*reports, held=0, head=0, wanted=0) == 0
    assert await second.ask() == 2


async def test_a_distributor_of_an_earlier_version_has_all_cores_to_itself(world):
    agent = await Sharer.join(world)
    assert await agent.ask() == 2
    bound = await world.bound(1)
    run = await bound.start()
    await run.register()
    wanted = SlotsWanted(pool="host:cluster", total=TOTAL, version=4, held=0.0, wanted=1.0, head=1.0)
    assert (await run.sync(slots={"here": wanted})).slots == {"here": SlotsGranted(cores=TOTAL, version=5)}


async def test_who_leaves_gives_its_cores_back(world):
    first, second = await Sharer.join(world), await Sharer.join(world)
    await first.ask()
    assert await second.ask() == 0
    await first.ask(total=0.0, held=0.0, wanted=0.0, head=0.0)
    assert await second.ask() == 2


async def test_a_wide_command_gets_the_cores_that_come_free(world):
    narrow, wide = await Sharer.join(world), await Sharer.join(world)
    await narrow.ask()
    assert await wide.ask(head=2.0) == 0
    world.clock.seconds += TURN_SECONDS
    assert await narrow.ask() == 0
    assert await narrow.ask(held=1.0) == 0
    assert await wide.ask(head=2.0) == 0
    assert await narrow.ask() == 0
    assert await wide.ask(head=2.0) == 2


async def nested(world, *, tasks=2, **message):
    """Return a workflow one of whose commands runs, and one that this command runs."""
    outer = await Sharer.join(world, tasks=tasks)
    await outer.run.queue()
    attempt = (await outer.agent.claim())[0]
    bound = await world.bound(1)
    named = {"parent_task_instance_id": attempt, "parent_server_identity": outer.agent.answer.server_identity}
    return outer, attempt, Sharer(await Agent.register(await bound.start(**named | message)))


async def test_the_cores_of_a_command_are_lent_to_the_workflow_that_it_runs(world):
    outer, attempt, inner = await nested(world)
    assert await outer.ask(total=1.0, wanted=1.0, held=1.0, head=0.0) == 1
    assert await inner.ask(total=1.0, wanted=1.0) == 1
    assert await outer.ask(total=1.0, wanted=1.0, held=1.0, head=0.0) == 1  # it keeps what its command uses
    assert "1 task waits for workflows that it started." in await texts_of(world, outer.run)
    await inner.run.move(RUN.STOPPED)
    assert "started." not in await texts_of(world, outer.run)
    assert attempt


async def texts_of(world, run):
    found = await world.get(f"/workflows/{run.bound.workflow_id}/explanation", WorkflowExplanation)
    return " ".join(reason.text for reason in found.reasons)


async def test_nothing_is_lent_by_an_attempt_of_another_server_or_another_user_or_one_that_ended(world):
    for message in (
        {"parent_server_identity": "elsewhere"},
        {"user": "somebody"},
        {"parent_task_instance_id": 10**9},
        {"parent_task_instance_id": None},
    ):
        outer, _, inner = await nested(world, tasks=1, **message)
        assert await outer.ask(total=1.0, wanted=1.0, held=1.0, head=0.0) == 1
        assert await inner.ask(total=1.0, wanted=1.0) == 0
        for one in (outer, inner):
            await one.ask(total=0.0, held=0.0, wanted=0.0, head=0.0)
    outer, attempt, inner = await nested(world)
    assert await outer.ask(report(attempt, TI.DONE, exit_code=0), total=1.0, wanted=1.0, held=1.0, head=1.0) == 1
    assert await inner.ask(total=1.0, wanted=1.0) == 0
