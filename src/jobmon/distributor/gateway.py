"""The distributor's door to the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from jobmon.core.wire.launching import DistributorRequest, DistributorResponse, SyncRequest, SyncResponse

if TYPE_CHECKING:
    import aiohttp

    from jobmon.core.requester import Requester


class Gateway(Protocol):
    """What the distributor asks of the server."""

    async def register(self, request: DistributorRequest) -> DistributorResponse:
        """Register, trying until the server answers."""

    async def sync(self, request: SyncRequest) -> SyncResponse:
        """Report, take work, hear. Tried until the server answers; its key brings back work whose answer was lost."""


class ServerGateway:
    """The real door.

    Args:
        requester: sends.
        session: an open session; the caller closes it.
        workflow_run_id: the run.
        request_timeout: longest wait for an answer that is not held back, seconds.
    """

    def __init__(
        self, requester: Requester, session: aiohttp.ClientSession, workflow_run_id: int, request_timeout: float
    ) -> None:
        self._requester = requester.without_limit()
        self._session = session
        self._route = f"/workflow_runs/{workflow_run_id}"
        self._request_timeout = request_timeout

    async def register(self, request: DistributorRequest) -> DistributorResponse:
        """See `Gateway`."""
        route = f"{self._route}/distributors"
        return await self._requester.call_async(self._session, route, request, DistributorResponse)

    async def sync(self, request: SyncRequest) -> SyncResponse:
        """See `Gateway`."""
        timeout = request.wait_seconds + self._request_timeout
        return await self._requester.call_async(
            self._session, f"{self._route}/sync", request, SyncResponse, request_timeout=timeout
        )
