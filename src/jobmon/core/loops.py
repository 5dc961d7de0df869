"""The event loop of every component: uvloop if it is installed, which halves the cost of a request."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_Result = TypeVar("_Result")
NEW_OBJECTS_PER_SEARCH: Final = 10_000


def run(main: Coroutine[object, object, _Result]) -> _Result:
    """Run a coroutine to completion in its own loop, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


def run_process(main: Coroutine[object, object, _Result]) -> _Result:
    """Run a coroutine like `run`, in a process that is ours alone: collect garbage rarely, and ignore existing objects.

    Modules hold about a hundred thousand objects, which every full collection would traverse while requests wait.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS_PER_SEARCH)
    gc.enable()
    return run(main)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not available for PyPy and others
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
