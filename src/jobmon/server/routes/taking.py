"""POST /worker/take: answer at once, or hold the request until there is something for the packed job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.server.queries import packing as reading
from jobmon.server.transaction import Audience
from jobmon.server.usecases import packed_jobs

if TYPE_CHECKING:
    from jobmon.core.wire.launching import WorkerTakeRequest, WorkerTakeResponse
    from jobmon.server.routes.endpoint import Call


async def take(call: Call) -> WorkerTakeResponse:
    """Answer a packed job's request."""
    request: WorkerTakeRequest = call.message
    if request.wait_seconds <= 0 or request.reports or request.leaving:
        return await call.services.writer.run(packed_jobs.take, request)
    return await _wait(call, request)


async def _wait(call: Call, request: WorkerTakeRequest) -> WorkerTakeResponse:
    services = call.services
    workflow_id = await services.readers.glance(reading.workflow_of_array, request.array_id)
    until = services.clock.monotonic() + min(request.wait_seconds, services.settings.long_poll_seconds_max)
    with services.feed.waiter((Audience.DISTRIBUTOR, workflow_id)) as waiter:
        while True:
            found = await services.readers.glance(reading.new_work, request)
            is_news = (
                found.over
                or (found.has_work and request.wants_work)
                or not set(found.kill) <= set(request.known_to_kill)
            )
            if is_news or not await waiter.wait(until - services.clock.monotonic()):
                return found
