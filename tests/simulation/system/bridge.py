"""Run synchronous code of the client on an asyncio loop: wherever the code waits, the loop continues.

The code has its own thread, but loop and code never run concurrently: the loop is blocked until the code waits for
something or returns. So the code is as deterministic as a coroutine.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_Result = TypeVar("_Result")


class Bridge:
    """A bridge for one function that runs while the loop waits, and waits while the loop runs."""

    def __init__(self) -> None:
        self._to_loop: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._to_code: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def wait_for(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Wait for a coroutine; called by the code."""
        self._to_loop.put(("wait", work))
        result, error = self._to_code.get()
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    async def carry(self, function: Callable[[], _Result]) -> _Result:
        """Run the function to completion; called on the loop."""
        thread = threading.Thread(target=contextvars.copy_context().run, args=(self._body, function), daemon=True)
        thread.start()
        while True:
            kind, value = self._to_loop.get()
            if kind != "wait":
                thread.join()
                if kind == "raised":
                    raise value
                return value  # type: ignore[no-any-return]
            try:
                answer = await value
            except (Exception, asyncio.CancelledError) as error:
                self._to_code.put((None, error))
            else:
                self._to_code.put((answer, None))

    def _body(self, function: Callable[[], Any]) -> None:
        try:
            self._to_loop.put(("returned", function()))
        except BaseException as error:
            self._to_loop.put(("raised", error))
