"""The event loop that every actor runs on: uvloop where there is one, which halves what a request costs."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_Result = TypeVar("_Result")
NEW_OBJECTS_PER_SEARCH: Final = 10_000


def run(main: Coroutine[object, object, _Result]) -> _Result:
    """Run a coroutine to its end in a loop of its own, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


def run_process(main: Coroutine[object, object, _Result]) -> _Result:
    """As `run`, for a process that is ours alone: garbage is searched for seldom, and never in what is there already.

    That is a hundred thousand objects of modules, which a search goes through while everybody waits.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS_PER_SEARCH)
    gc.enable()
    return run(main)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # PyPy and others have none
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
