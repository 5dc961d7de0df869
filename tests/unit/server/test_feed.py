"""No wake-up is lost between reading and waiting."""

import asyncio

from jobmon.server.feed import ChangeFeed
from jobmon.server.transaction import Audience

TOPIC = (Audience.ORCHESTRATOR, 1)
OTHER = (Audience.DISTRIBUTOR, 1)


async def test_a_wake_up_between_listening_and_waiting_is_kept():
    feed = ChangeFeed()
    with feed.waiter(TOPIC) as waiter:
        feed.wake([TOPIC])
        assert await waiter.wait(60)


async def test_other_topics_wake_nobody_and_time_runs_out():
    feed = ChangeFeed()
    with feed.waiter(TOPIC) as waiter:
        feed.wake([OTHER])
        assert not await waiter.wait(0.001)
        assert not await waiter.wait(-1)


async def test_everybody_on_a_topic_is_woken_and_then_listens_anew():
    feed = ChangeFeed()
    with feed.waiter(TOPIC) as one, feed.waiter(TOPIC) as two:
        waiting = [asyncio.create_task(waiter.wait(60)) for waiter in (one, two)]
        await asyncio.sleep(0)
        feed.wake([TOPIC, OTHER])
        assert await asyncio.gather(*waiting) == [True, True]
        assert not await one.wait(0.001)
        assert feed.open_polls == 2
    assert feed.open_polls == 0


async def test_closing_ends_all_waiting_for_good():
    feed = ChangeFeed()
    with feed.waiter(TOPIC) as waiter:
        waiting = asyncio.create_task(waiter.wait(60))
        await asyncio.sleep(0)
        feed.close()
        assert not await waiting
        assert not await waiter.wait(60)
