"""The distributor's interface to the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from jobmon.core.wire.launching import DistributorRequest, DistributorResponse, SyncRequest, SyncResponse
from jobmon.core.wire.watching import ViewRequest, ViewResponse, WatchRequest, WatchResponse

if TYPE_CHECKING:
    from jobmon.core.requester import AnySession, Requester


class Gateway(Protocol):
    """The requests that a distributor sends to the server."""

    async def register(self, request: DistributorRequest) -> DistributorResponse:
        """Register; retry until the server responds."""

    async def sync(self, request: SyncRequest) -> SyncResponse:
        """Send reports, receive work and instructions; retry until the server responds. Its key recovers lost work."""

    async def watch(self, cluster_name: str, request: WatchRequest) -> WatchResponse:
        """Ask whether to poll a cluster, or for the view of another distributor."""

    async def view(self, cluster_name: str, request: ViewRequest) -> ViewResponse:
        """Upload the view of a cluster, or the reason why there is none."""


class ServerGateway:
    """The gateway to a real server.

    Args:
        requester: sends requests.
        session: an open session; the caller closes it.
        workflow_run_id: the run.
        request_timeout: longest wait for a response, in addition to the time of a long poll, seconds.
    """

    def __init__(self, requester: Requester, session: AnySession, workflow_run_id: int, request_timeout: float) -> None:
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

    async def watch(self, cluster_name: str, request: WatchRequest) -> WatchResponse:
        """See `Gateway`."""
        route = f"/clusters/{quote(cluster_name, safe='')}/watch"
        return await self._requester.call_async(self._session, route, request, WatchResponse)

    async def view(self, cluster_name: str, request: ViewRequest) -> ViewResponse:
        """See `Gateway`."""
        route = f"/clusters/{quote(cluster_name, safe='')}/view"
        return await self._requester.call_async(self._session, route, request, ViewResponse)
