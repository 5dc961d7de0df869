"""Reports precede everything else that waits for the writer, and a transaction ends in time."""

import asyncio
import threading

import pytest
from agent_world import Agent, ids_of
from server_world import TI, report

from jobmon.core.wire.agents import AgentSyncRequest
from jobmon.server.problems import InvalidValue
from jobmon.server.usecases import agents
from jobmon.server.writer import TRANSACTION_SECONDS

LONG_SECONDS = 0.6 * TRANSACTION_SECONDS
WAIT_SECONDS = 30


class Busy:
    """A writer that is busy, so that what is sent meanwhile waits; `log` notes what runs in which transaction."""

    def __init__(self, world):
        self.writer = world.app.state.services.writer
        self.clock = world.clock
        self.log = []
        self._sent = []
        self._may_go_on = threading.Event()

    async def __aenter__(self):
        is_busy = threading.Event()

        def occupy(tx):
            is_busy.set()
            assert self._may_go_on.wait(WAIT_SECONDS)

        self._first = asyncio.create_task(self.writer.run(occupy))
        assert await asyncio.to_thread(is_busy.wait, WAIT_SECONDS)
        return self

    async def __aexit__(self, *exception):
        await asyncio.sleep(0)  # they are submitted
        assert self.writer.waiting >= 1 + len(self._sent), "the server's own work may wait, too"
        self._may_go_on.set()
        self.answers = await asyncio.gather(*self._sent, return_exceptions=True)
        await self._first

    def note(self, name, tx, seconds=0.0):
        """Note that a use case runs, which takes a time."""
        self.log.append((self.writer.transactions, name))
        self.clock.seconds += seconds

    def sent(self, *awaitables):
        """Add what was sent."""
        self._sent += map(asyncio.ensure_future, awaitables)

    @property
    def turns(self):
        """What ran, by transaction."""
        by_number = {}
        for number, name in self.log:
            by_number.setdefault(number, []).append(name)
        return list(by_number.values())


def timed(busy, name, seconds):
    return lambda tx: busy.note(name, tx, seconds)


async def test_reports_precede_what_arrived_before_them(world):
    async with Busy(world) as busy:
        busy.sent(busy.writer.run(timed(busy, "queue", 0.0)), busy.writer.run_urgently(timed(busy, "report", 0.0)))
    assert busy.turns == [["report", "queue"]]


async def test_a_transaction_begins_nothing_more_after_its_time(world):
    async with Busy(world) as busy:
        busy.sent(*(busy.writer.run(timed(busy, name, LONG_SECONDS)) for name in "abcde"))
    assert busy.turns == [["a", "b"], ["c", "d"], ["e"]]


async def test_reports_of_any_length_let_one_other_progress(world):
    async with Busy(world) as busy:
        busy.sent(*(busy.writer.run(timed(busy, name, 0.0)) for name in "ab"))
        busy.sent(*(busy.writer.run_urgently(timed(busy, name, LONG_SECONDS)) for name in "RST"))
    assert busy.turns == [["R", "S", "T", "a"], ["b"]]


async def test_what_belongs_together_shares_a_transaction(world):
    async with Busy(world) as busy:
        busy.sent(busy.writer.run(timed(busy, "before", LONG_SECONDS)))
        await asyncio.sleep(0)  # it is submitted
        busy.sent(*busy.writer.run_together((_noted, busy, "queue"), (_noted, busy, "claim")))
        busy.sent(busy.writer.run(timed(busy, "after", 0.0)))
    assert busy.turns == [["before", "queue", "claim"], ["after"]]


def _noted(tx, busy, name):
    busy.note(name, tx, LONG_SECONDS)


async def test_a_writer_that_is_stopped_finishes_what_waits(world):
    async with Busy(world) as busy:
        busy.sent(*(busy.writer.run(timed(busy, name, 2 * LONG_SECONDS)) for name in "abc"))
        await asyncio.sleep(0)  # they are submitted
        stopping = asyncio.create_task(busy.writer.stop())
        async with asyncio.timeout(WAIT_SECONDS):
            while busy.writer._executor._jobs.qsize() <= len("abc"):  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.001)
    await asyncio.wait_for(stopping, WAIT_SECONDS)
    assert [name for _, name in busy.log] == ["a", "b", "c"]


async def test_a_fault_is_that_of_its_request_only(world):
    def fail(tx):
        raise InvalidValue("no")

    async with Busy(world) as busy:
        busy.sent(busy.writer.run(timed(busy, "a", 0.0)), busy.writer.run(fail))
        busy.sent(*(busy.writer.run(timed(busy, name, 2 * LONG_SECONDS)) for name in "bc"))
    assert [type(one) for one in busy.answers] == [type(None), InvalidValue, type(None), type(None)]
    assert [name for _, name in busy.log].count("c") == 1, "nothing is rerun that the failed transaction did not begin"


@pytest.fixture
async def working(world):
    """Two agents of a run with six tasks; each has claimed two."""
    bound = await world.bound(6)
    run = await bound.start()
    await run.queue()
    first, second = await Agent.register(run), await Agent.register(run, host="other")
    return bound, [(one, await one.claim(2.0)) for one in (first, second)]


def reporting(world, agent, *reports, **message):
    """Send an agent's reports to the writer, as its route does."""
    agent.key += 1
    request = AgentSyncRequest(key=agent.key, reports=list(reports), **message)
    return world.app.state.services.writer.run_jointly(agents.report, (agent.id, request))


async def test_agents_claim_by_their_reports_while_there_is_time(world, working):
    bound, ((first, of_first), (second, of_second)) = working
    async with Busy(world) as busy:
        busy.sent(
            reporting(world, first, *(report(one, TI.DONE) for one in of_first), cores_free=2.0),
            reporting(world, second, report(of_second[0], TI.DONE), report(of_first[0], TI.ERROR), cores_free=1.0),
        )
    one, other = busy.answers
    assert (len(ids_of(one)), len(ids_of(other))) == (2, 0), "two were left"
    assert not one.refused
    assert list(other.refused) == of_first[:1], "each agent is told of its own reports"
    assert list((await bound.statuses()).values()).count("D") == 3


async def test_an_agent_claims_by_a_poll_if_its_report_comes_at_a_busy_time(world, working):
    _, ((first, of_first), _) = working
    async with Busy(world) as busy:
        busy.sent(*(busy.writer.run(timed(busy, name, 2 * TRANSACTION_SECONDS)) for name in "ab"))
        busy.sent(busy.writer.run_urgently(timed(busy, "long", 2 * TRANSACTION_SECONDS)))
        busy.sent(reporting(world, first, *(report(one, TI.DONE) for one in of_first), cores_free=2.0))
    assert busy.answers[-1].launches is None
    assert not busy.answers[-1].refused
    found = await first.sync(cores_free=2.0, wait_seconds=5.0)
    assert len(ids_of(found)) == 2
