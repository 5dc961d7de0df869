"""The distributor's door to the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from jobmon.core.wire.launching import DistributorRequest, DistributorResponse, SyncRequest, SyncResponse
from jobmon.core.wire.watching import ViewRequest, ViewResponse, WatchRequest, WatchResponse

if TYPE_CHECKING:
    from jobmon.core.requester import AnySession, Requester


class Gateway(Protocol):
    """What the distributor asks of the server."""

    async def register(self, request: DistributorRequest) -> DistributorResponse:
        """Register, trying until the server answers."""

    async def sync(self, request: SyncRequest) -> SyncResponse:
        """Report, take work, hear. Tried until the server answers; its key brings back work whose answer was lost."""

    async def watch(self, cluster_name: str, request: WatchRequest) -> WatchResponse:
        """Ask whether to look at a cluster, or for what somebody else saw."""

    async def view(self, cluster_name: str, request: ViewRequest) -> ViewResponse:
        """Say what a look at a cluster brought."""


class ServerGateway:
    """The real door.

    Args:
        requester: sends.
        session: an open session; the caller closes it.
        workflow_run_id: the run.
        request_timeout: longest wait for an answer that is not held back, seconds.
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
