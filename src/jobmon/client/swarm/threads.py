"""Threads beside the orchestrator's loop, for code that blocks: requests, and the functions of expansions."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.client.swarm.services.expander import Growth, Look
    from jobmon.client.swarm.state import SwarmState

_Result = TypeVar("_Result")


class Threads:
    """Runs blocking functions in threads. The simulation replaces it by one on virtual time."""

    async def run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run a function that ends soon, and return its result."""
        return await asyncio.to_thread(function, *arguments)

    async def call(self, expand: Callable[[Look], Growth], state: SwarmState) -> Growth:
        """Run a function that may never end in a daemon thread, and return its result. A cancelled caller leaves it.

        Args:
            expand: the function; called with what looks at the state.
            state: the state, which only the loop changes.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Growth] = loop.create_future()
        context = contextvars.copy_context()

        def look(function: Callable[[SwarmState], _Result]) -> _Result:
            async def looked() -> _Result:
                return function(state)

            return asyncio.run_coroutine_threadsafe(looked(), loop).result()

        def settle(result: Growth | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = context.run(expand, look)
            except BaseException as raised:
                error = raised
            with suppress(RuntimeError):  # the loop has ended: nobody waits for the result
                loop.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=run, name="jobmon-expansion", daemon=True).start()
        return await future
