"""Distributors' requests that are held open, found by their run: what is queued can be handed to them at once.

Used on the event loop only. Memory is bounded by the open polls.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from jobmon.core.wire.launching import SyncRequest, SyncResponse
from jobmon.server.changes import Waiter

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True, eq=False)
class HeldSync:
    """One of them. `answer`: on its way, because somebody else looked for it."""

    message: SyncRequest
    request: Request
    waiter: Waiter
    answer: asyncio.Future[SyncResponse] | None = None
    is_open: bool = True

    @property
    def wants_work(self) -> bool:
        """Whether it is still held, takes attempts, and nobody gives it any yet."""
        return self.is_open and self.answer is None and any(count > 0 for count in self.message.capacity.values())

    def wake(self, answer: object) -> None:
        """Have it take its answer, also when that holds no news."""
        self.waiter.event.set()


class HeldSyncs:
    """All of them."""

    def __init__(self) -> None:
        self._by_run: dict[int, dict[HeldSync, None]] = {}

    @contextlib.contextmanager
    def hold(self, run_id: int, message: SyncRequest, request: Request, waiter: Waiter) -> Iterator[HeldSync]:
        """Let a request be found as long as it is held."""
        held = HeldSync(message, request, waiter)
        others = self._by_run.setdefault(run_id, {})
        others[held] = None
        try:
            yield held
        finally:
            held.is_open = False
            del others[held]
            if not others:
                self._by_run.pop(run_id, None)

    def wanting(self, run_id: int) -> HeldSync | None:
        """Return the oldest that takes work of a run, or None."""
        return next((held for held in self._by_run.get(run_id, ()) if held.wants_work), None)
