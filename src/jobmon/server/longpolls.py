"""Open long polls of distributors and agents, by their run, so that queued attempts can be handed to them at once.

Used only on the event loop. Memory is bounded by the number of open polls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from jobmon.server.feed import Waiter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


@dataclass(slots=True, eq=False)
class OpenPoll:
    """An open long poll.

    Args:
        call: the use case that answers it, with its arguments.
        takes_work: whether it takes attempts.
        cluster_id: the cluster whose attempts an agent takes; None: a distributor's poll.
        request: the HTTP request.
        waiter: wakes it.
        answer: the answer, if another request is already computing it.
        is_open: whether it is still held open.
    """

    call: tuple[Callable[..., Any], int, Any]
    takes_work: bool
    cluster_id: int | None
    request: Request
    waiter: Waiter
    answer: asyncio.Future[Any] | None = None
    is_open: bool = True

    @property
    def wants_work(self) -> bool:
        """Whether it is still open, takes attempts, and is not being given any yet."""
        return self.is_open and self.answer is None and self.takes_work

    def wake(self, answer: object) -> None:
        """Release the poll even if the answer is empty."""
        self.waiter.event.set()


class OpenPolls:
    """All open long polls."""

    def __init__(self) -> None:
        self._by_run: dict[int, dict[OpenPoll, None]] = {}

    @contextlib.contextmanager
    def hold(self, run_id: int, held: OpenPoll) -> Iterator[OpenPoll]:
        """Register a long poll while it is held open."""
        others = self._by_run.setdefault(run_id, {})
        others[held] = None
        try:
            yield held
        finally:
            held.is_open = False
            del others[held]
            if not others:
                self._by_run.pop(run_id, None)

    def wanting(self, run_id: int, cluster_ids: Collection[int]) -> OpenPoll | None:
        """Return the oldest poll of a run that takes attempts of these clusters, or None; an agent's comes first."""
        found = [held for held in self._by_run.get(run_id, ()) if held.wants_work]
        of_agents = (held for held in found if held.cluster_id in cluster_ids)
        of_distributor = (held for held in found if held.cluster_id is None)
        return next(of_agents, None) or next(of_distributor, None)
