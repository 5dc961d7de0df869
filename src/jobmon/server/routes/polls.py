"""Requests that are held open until there is something to return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire import replace
from jobmon.server.longpolls import OpenPoll
from jobmon.server.queries import launching, swarm
from jobmon.server.transaction import Audience, Topic
from jobmon.server.usecases import queueing, reporting

if TYPE_CHECKING:
    from jobmon.core.wire.launching import SyncRequest, SyncResponse
    from jobmon.core.wire.swarm import ChangesResponse, QueueResponse
    from jobmon.server.queries.swarm import Changes, ChangesQuery
    from jobmon.server.routes.endpoint import Call
    from jobmon.server.services import Services

#: Maximum poll time, seconds, if limits were changed: queued attempts may wait for others to end, which wakes no poll.
HELD_BACK_SECONDS: Final = 2.0


async def changes(call: Call) -> ChangesResponse:
    """GET /workflows/{workflow_id}/changes."""
    (workflow_id,), query, services = call.ids, call.message, call.services
    until = until_of(services, query.wait_seconds)
    with services.feed.waiter((Audience.ORCHESTRATOR, workflow_id)) as waiter:
        while True:
            found = await _changes(services, workflow_id, query)
            if found.is_news or not await waiter.wait(until - services.clock.monotonic()):
                return found.response


async def _changes(services: Services, workflow_id: int, query: ChangesQuery) -> Changes:
    """Read changes. A full snapshot may be large, whereas recent changes are few."""
    read = services.readers.run if query.since is None else services.readers.glance
    return await read(swarm.changes, workflow_id, query)


async def sync(call: Call) -> SyncResponse:
    """POST /workflow_runs/{workflow_run_id}/sync, for polls and reports."""
    (run_id,), request, services = call.ids, call.message, call.services
    if request.reports:
        return await services.writer.run_urgently(reporting.sync, run_id, request)
    if request.wait_seconds <= 0:
        return await services.writer.run(reporting.sync, run_id, request)
    workflow_id, is_limited = await services.readers.glance(launching.place_of_run, run_id)
    if request.alive:
        await services.writer.run(reporting.sync, run_id, replace(request, capacity={}))
    until = until_of(services, min(request.wait_seconds, HELD_BACK_SECONDS) if is_limited else request.wait_seconds)
    topic = (Audience.DISTRIBUTOR, workflow_id)
    asks = LongPoll(
        call=(reporting.sync, run_id, request),
        looks=(launching.has_news, run_id, request),
        is_news=partial(_is_news, request),
        takes_work=any(count > 0 for count in request.capacity.values()),
        until=until,
    )
    found: SyncResponse | None = await hold(call, topic, run_id, asks)
    if found is None:
        found = await services.writer.run(reporting.sync, run_id, replace(request, capacity={}))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPoll:
    """How to hold a request open.

    Args:
        call: the use case that answers it, with its arguments.
        looks: the query that tells whether there may be something to return, with its arguments.
        is_news: returns whether an answer is worth returning.
        takes_work: whether it takes attempts.
        until: when to stop waiting, monotonic seconds.
        cluster_id: the cluster of the agent that asks; None: a distributor asks.
    """

    call: tuple[Callable[..., Any], int, Any]
    looks: tuple[Callable[..., bool], int, Any]
    is_news: Callable[[Any], bool]
    takes_work: bool
    until: float
    cluster_id: int | None = None


async def hold(call: Call, topic: Topic, run_id: int, asks: LongPoll) -> Any:
    """Hold a request open until there is something to return; return the answer, or None on timeout."""
    services = call.services
    with (
        services.feed.waiter(topic) as waiter,
        services.held.hold(run_id, OpenPoll(asks.call, asks.takes_work, asks.cluster_id, call.request, waiter)) as held,
    ):
        while held.answer is not None or not await call.request.is_disconnected():  # an answer would be lost
            for look in (_given, _found):
                response = await look(services, held, asks)
                if response is not None and asks.is_news(response):  # the other request may have been faster
                    return await _newest(services, held, asks, response)
            if not await waiter.wait(asks.until - services.clock.monotonic()) and held.answer is None:
                break
    return None


async def _newest(services: Services, held: OpenPoll, asks: LongPoll, response: Any) -> Any:
    """Return the answer, or a later one that is pending: the attempts in it were taken for this request only."""
    while (given := await _given(services, held, asks)) is not None:
        response = given
    return response


async def _given(services: Services, held: OpenPoll, asks: LongPoll) -> Any:
    """Return the answer that the queueing transaction computed for a held request, or None."""
    if held.answer is None:
        return None
    answer, held.answer = held.answer, None
    return await answer


async def _found(services: Services, held: OpenPoll, asks: LongPoll) -> Any:
    """Compute an answer if there may be something to return for a held request."""
    if not await services.readers.glance(*asks.looks):
        return None
    return await services.writer.run(*asks.call)


async def queue(call: Call) -> QueueResponse:
    """POST /workflow_runs/{workflow_run_id}/queue. A waiting distributor receives the work in the same transaction."""
    (run_id,), services = call.ids, call.services
    held = services.held.wanting(run_id, {batch.cluster_id for batch in call.message.batches})
    if not call.message.batches or held is None or await held.request.is_disconnected() or not held.wants_work:
        return await services.writer.run(queueing.queue, run_id, call.message)
    queued, held.answer = services.writer.run_together((queueing.queue, run_id, call.message), held.call)
    held.answer.add_done_callback(held.wake)
    return await queued


def _is_news(request: SyncRequest, response: SyncResponse) -> bool:
    return (
        bool(response.launches)
        or response.fenced
        or (response.retired and not request.retired)
        or request.known_status not in (None, response.workflow_run_status)
        or not set(response.kill) <= set(request.known_to_kill)
        or not set(response.triage) <= set(request.known_to_triage)
        or not all(response.untaken.values())
    )


def until_of(services: Services, wait_seconds: float) -> float:
    """Return when to stop holding a request that asks to wait this long, monotonic seconds."""
    return services.clock.monotonic() + min(wait_seconds, services.settings.long_poll_seconds_max)
