"""An asyncio loop on virtual time: when nothing is ready, its clock jumps to the next timer. Ten hours take a moment.

If nothing is ready and no timer is left, it raises `Deadlock` instead of hanging. Threads cannot wake it.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_Result = TypeVar("_Result")


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is left: the loop would have waited forever."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: reports what is ready, or else advances the loop's clock by the time it should have waited."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Deadlock(f"Nothing is ready and no timer is left at {self.loop.time():g} s.")
        if not ready and timeout:
            self.loop.advance(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A selector loop whose `time()` is a number that starts at 0."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        jumping = None if selector is not None else _JumpingSelector()
        super().__init__(selector or jumping)
        if jumping is not None:
            jumping.loop = self
        self._now = 0.0

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the clock by a number of seconds."""
        self._now += seconds


def run_virtual(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to completion on a virtual-time loop, and return its result."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
