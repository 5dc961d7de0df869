from __future__ import annotations

import asyncio
import time

import pytest

from jobmon.testing.virtual_time import Deadlock, run_virtual


def test_ten_hours_take_a_moment():
    async def beats():
        for _ in range(1_200):
            await asyncio.sleep(30)
        return asyncio.get_running_loop().time()

    started = time.process_time()
    assert run_virtual(beats()) == pytest.approx(36_000)
    assert time.process_time() - started < 5


def test_timeouts_come_in_their_order():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.sleep(20)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(10)


def test_waiting_for_nothing_is_reported_at_once():
    async def main():
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="no timer is left"):
        run_virtual(main())
