"""POST /agents/{agent_id}/sync: answer at once, or hold the request until there is something for the agent."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from jobmon.core.wire import replace
from jobmon.server.agent_rows import require_agent
from jobmon.server.queries import agents as reading
from jobmon.server.queries import fair_share, launching
from jobmon.server.routes.polls import HELD_BACK_SECONDS, LongPoll, hold, until_of
from jobmon.server.transaction import Audience
from jobmon.server.usecases import agents

if TYPE_CHECKING:
    from jobmon.core.wire.agents import AgentSyncRequest, AgentSyncResponse
    from jobmon.server.routes.endpoint import Call


async def sync(call: Call) -> AgentSyncResponse:
    """Answer an agent's request."""
    (agent_id,), request, services = call.ids, call.message, call.services
    if request.reports:
        return await services.writer.run_jointly(agents.report, (agent_id, request))
    if request.leaving or request.wait_seconds <= 0:
        return await services.writer.run(agents.sync, agent_id, request)
    takes_work = request.cores_free + request.cores_ahead > 0 and not request.drain
    if takes_work and services.writer.is_behind:  # there is probably work, which its last report could not claim
        found = await services.writer.run(agents.sync, agent_id, request)
        if _is_news(request, found):
            return found
    row = await services.readers.glance(require_agent, agent_id)
    _, is_limited = await services.readers.glance(launching.place_of_run, row.run_id)
    without_work = replace(request, cores_free=0.0, cores_ahead=0.0)
    if request.running is not None or (
        request.slots is not None
        and await services.readers.glance(fair_share.is_renewal_due, row.holder, request.slots)
    ):
        await services.writer.run(agents.sync, agent_id, without_work)
    asks = LongPoll(
        call=(agents.sync, agent_id, request),
        looks=(reading.has_news, agent_id, request),
        is_news=partial(_is_news, request),
        takes_work=takes_work,
        cluster_id=row.cluster_id,
        until=until_of(services, min(request.wait_seconds, HELD_BACK_SECONDS) if is_limited else request.wait_seconds),
    )
    held: AgentSyncResponse | None = await hold(call, (Audience.DISTRIBUTOR, row.workflow_id), row.run_id, asks)
    if held is None:
        held = await services.writer.run(agents.sync, agent_id, without_work)
    return held


def _is_news(request: AgentSyncRequest, response: AgentSyncResponse) -> bool:
    has_other_grant = response.slots is not None and request.slots is not None
    return (
        response.launches is not None
        or (response.over and not request.drain)
        or not set(response.kill) <= set(request.known_to_kill)
        or (has_other_grant and response.slots.version != request.slots.version)  # type: ignore[union-attr]
    )
