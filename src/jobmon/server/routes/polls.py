"""Requests that are held open until there is something to say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jobmon.server.queries import launching, leasing, swarm
from jobmon.server.transaction import Audience
from jobmon.server.usecases import queueing, reporting

if TYPE_CHECKING:
    from jobmon.core.wire.launching import SyncRequest, SyncResponse
    from jobmon.core.wire.swarm import ChangesResponse, QueueResponse
    from jobmon.server.held import HeldSync
    from jobmon.server.queries.swarm import Changes, ChangesQuery
    from jobmon.server.routes.endpoint import Call
    from jobmon.server.services import Services

#: Where limits were changed, work may be held back until others have ended, of which nobody wakes a distributor.
HELD_BACK_SECONDS: Final = 2.0


async def changes(call: Call) -> ChangesResponse:
    """GET /workflows/{workflow_id}/changes."""
    (workflow_id,), query, services = call.ids, call.message, call.services
    until = _until(services, query.wait_seconds)
    with services.feed.waiter((Audience.ORCHESTRATOR, workflow_id)) as waiter:
        while True:
            found = await _changes(services, workflow_id, query)
            if found.is_news or not await waiter.wait(until - services.clock.monotonic()):
                return found.response


async def _changes(services: Services, workflow_id: int, query: ChangesQuery) -> Changes:
    """A full snapshot may be large; what changed since a moment ago is not."""
    read = services.readers.run if query.since is None else services.readers.glance
    return await read(swarm.changes, workflow_id, query)


async def sync(call: Call) -> SyncResponse:
    """POST /workflow_runs/{workflow_run_id}/sync, both lanes."""
    (run_id,), request, services = call.ids, call.message, call.services
    if request.reports or request.wait_seconds <= 0:
        return await services.writer.run(reporting.sync, run_id, request)
    workflow_id, is_limited = await services.readers.glance(launching.place_of_run, run_id)
    if request.alive or await services.readers.glance(leasing.is_renewal_due, workflow_id, request.slots):
        await services.writer.run(reporting.sync, run_id, replace(request, capacity={}))
    until = _until(services, min(request.wait_seconds, HELD_BACK_SECONDS) if is_limited else request.wait_seconds)
    topic = (Audience.DISTRIBUTOR, workflow_id)
    with services.feed.waiter(topic) as waiter, services.held.hold(run_id, request, call.request, waiter) as held:
        while held.answer is not None or not await call.request.is_disconnected():  # nobody would hear what it got
            for look in (_given, _found):
                response = await look(services, run_id, held)
                if response is not None and _is_news(request, response):  # the other lane may have been faster
                    return await _newest(services, run_id, held, response)
            if not await waiter.wait(until - services.clock.monotonic()) and held.answer is None:
                break
    return await services.writer.run(reporting.sync, run_id, replace(request, capacity={}))


async def _newest(services: Services, run_id: int, held: HeldSync, response: SyncResponse) -> SyncResponse:
    """Return the answer, or a later one that is on its way: what that holds was taken for this request and no other."""
    while (given := await _given(services, run_id, held)) is not None:
        response = given
    return response


async def _given(services: Services, run_id: int, held: HeldSync) -> SyncResponse | None:
    """Return what the transaction that queued gave to a held request, if there was one."""
    if held.answer is None:
        return None
    answer, held.answer = held.answer, None
    return await answer


async def _found(services: Services, run_id: int, held: HeldSync) -> SyncResponse | None:
    """Look whether there is news for a held request."""
    if not await services.readers.glance(launching.has_news, run_id, held.message):
        return None
    return await services.writer.run(reporting.sync, run_id, held.message)


async def queue(call: Call) -> QueueResponse:
    """POST /workflow_runs/{workflow_run_id}/queue. A distributor that waits gets the work in the same transaction."""
    (run_id,), services = call.ids, call.services
    held = services.held.wanting(run_id)
    if held is None or await held.request.is_disconnected() or not held.wants_work:
        return await services.writer.run(queueing.queue, run_id, call.message)
    queued, held.answer = services.writer.run_together(
        (queueing.queue, run_id, call.message), (reporting.sync, run_id, held.message)
    )
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
        or any(granted.version != request.slots[name].version for name, granted in response.slots.items())
        or not all(response.untaken.values())
    )


def _until(services: Services, wait_seconds: float) -> float:
    return services.clock.monotonic() + min(wait_seconds, services.settings.long_poll_seconds_max)
