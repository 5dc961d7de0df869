"""A virtual-time loop with simulated descriptors, whose parts can be frozen as SIGSTOP freezes a process.

A part is everything that runs in a context with its name. While a part is frozen, its callbacks are deferred and time
continues for all others. When it is thawed, the deferred callbacks run at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import selectors
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobmon.testing.virtual_time import Deadlock, VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_Result = TypeVar("_Result")

PART: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("PART", default="")
#: The first descriptor that exists only in this loop.
FIRST_DESCRIPTOR: Final = 1 << 20


class _BlindSelector(selectors.DefaultSelector):
    """A selector that only advances the time: a simulation has no threads, pipes or sockets."""

    loop: SimulationLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock(f"Nothing is ready and no timer is left at {self.loop.time():g} s.")
        if timeout > 0:
            self.loop.advance(timeout)
        return []


class SimulationLoop(VirtualTimeLoop):
    """A virtual-time loop; see the module docstring."""

    def __init__(self) -> None:
        selector = _BlindSelector()
        super().__init__(selector)
        selector.loop = self
        self._frozen: dict[str, list[tuple[Any, ...]]] = {}
        self._descriptors = itertools.count(FIRST_DESCRIPTOR)
        self._readers: dict[int, tuple[Callable[..., Any], tuple[Any, ...], contextvars.Context]] = {}

    # -- parts -------------------------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """Call soon, or after a thaw if the part is frozen."""
        if self._frozen:
            part = PART.get() if context is None else context.get(PART, "")
            if part in self._frozen:
                context = context or contextvars.copy_context()
                handle = asyncio.Handle(callback, args, self, context)
                self._frozen[part].append((handle,))
                return handle
        return super().call_soon(callback, *args, context=context)

    def freeze(self, part: str) -> None:
        """Stop running callbacks of a part."""
        self._frozen.setdefault(part, [])

    def is_frozen(self, part: str) -> bool:
        """Return whether a part is frozen."""
        return part in self._frozen

    def thaw(self, part: str) -> None:
        """Resume a part."""
        for (handle,) in self._frozen.pop(part, ()):
            if not handle.cancelled():
                super().call_soon(handle._run)

    def spawn(self, part: str, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Start a task that belongs to a part."""
        context = contextvars.copy_context()
        context.run(PART.set, part)
        return self.create_task(work, context=context)

    def call_in(self, part: str, callback: Callable[..., Any], *args: Any) -> None:
        """Call a function as a part."""
        context = contextvars.copy_context()
        context.run(PART.set, part)
        self.call_soon(callback, *args, context=context)

    # -- descriptors -------------------------------------------------------------------------------------------

    def open_descriptor(self) -> int:
        """Return a descriptor that `add_reader` accepts and `ring` makes readable."""
        return next(self._descriptors)

    def ring(self, descriptor: int) -> None:
        """Make a descriptor readable once."""
        reader = self._readers.get(descriptor)
        if reader is not None:
            callback, args, context = reader
            self.call_soon(callback, *args, context=context)

    def add_reader(  # type: ignore[override]
        self, fd: Any, callback: Callable[..., Any], *args: Any
    ) -> None:
        """Register a callback for when the descriptor is readable."""
        if isinstance(fd, int) and fd >= FIRST_DESCRIPTOR:
            self._readers[fd] = callback, args, contextvars.copy_context()
            self.ring(fd)
        else:
            super().add_reader(fd, callback, *args)

    def remove_reader(self, fd: Any) -> bool:
        """Unregister the callback of a descriptor."""
        if isinstance(fd, int) and fd >= FIRST_DESCRIPTOR:
            return self._readers.pop(fd, None) is not None
        return super().remove_reader(fd)
