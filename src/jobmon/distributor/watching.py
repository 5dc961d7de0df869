"""Poll a cluster for all jobs of the server, shared with the other distributors of the server.

The server selects the distributor that polls, one at a time. That distributor uploads its view if others want it, and
they show it to their plug-ins. The cluster is thus polled as often as the most urgent distributor requires, regardless
of their number.
"""

from __future__ import annotations

import base64
import json
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from jobmon.core.exceptions import ClusterUnavailable
from jobmon.core.wire.watching import ViewRequest, WatchRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobmon.core.clock import Clock
    from jobmon.core.cluster_protocol import ClusterDistributor
    from jobmon.distributor.backoff import PollingInterval
    from jobmon.distributor.gateway import Gateway

logger = logging.getLogger(__name__)
#: A distributor that was selected but stays silent for this many of the longest intervals is skipped.
SILENT_INTERVALS: Final = 3
SILENT_SECONDS_LEAST: Final = 1.0
#: The longest interval that the server accepts.
INTERVAL_SECONDS_MAX: Final = 3_600.0
#: While another distributor is polling, its view is fetched after this time.
FETCH_SECONDS: Final = 0.5
VIEW_BYTES_MAX: Final = 64 * 1024 * 1024
PROBLEM_CHARACTERS_MAX: Final = 1_000
_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


class InThread(Protocol):
    """Run a function without blocking the event loop, as `asyncio.to_thread` does."""

    def __call__(self, work: Callable[[_Argument], _Result], argument: _Argument, /) -> Awaitable[_Result]:
        """Run the function."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The state of a cluster at one moment (of this host's monotonic clock), with exits since `since`.

    No view: there is nothing new, or `problem` says why there is none. `retry`: the earliest time to ask again.
    """

    began_at: float = 0.0
    since: float = 0.0
    view: Mapping[str, Any] | None = None
    problem: str = ""
    retry: float = 0.0


class Watch:
    """Take part in the shared polling of one cluster.

    Args:
        adapter: the cluster's plug-in.
        gateway: interface to the server.
        holder: unique name of this distributor.
        pace: the polling interval.
        clock: source of time.
        in_thread: runs a poll without blocking the event loop.
    """

    def __init__(
        self,
        adapter: ClusterDistributor,
        gateway: Gateway,
        holder: str,
        pace: PollingInterval,
        clock: Clock,
        in_thread: InThread,
    ) -> None:
        self._adapter = adapter
        self._gateway = gateway
        self._holder = holder
        self._pace = pace
        self._clock = clock
        self._in_thread = in_thread
        self._known = 0

    async def see(self, since: float) -> Sight:
        """Poll the cluster, or fetch the view of another distributor.

        Args:
            since: include exits from this time on, seconds since the epoch.
        """
        pace = self._pace
        asked_at = self._clock.monotonic()
        request = WatchRequest(
            holder=self._holder,
            interval=min(pace.interval, INTERVAL_SECONDS_MAX),
            silence=min(SILENT_INTERVALS * max(pace.most, SILENT_SECONDS_LEAST), INTERVAL_SECONDS_MAX),
            since=since,
            known=self._known,
            scope=self._adapter.watch_scope,
        )
        answer = await self._gateway.watch(self._adapter.cluster_name, request)
        if answer.look:
            return await self._look(answer.since, answer.number, is_shared=answer.is_shared)
        now = self._clock.monotonic()
        if answer.view is not None:
            self._known = answer.number
            began_at = asked_at - answer.age  # the earlier bound: jobs submitted after it are not in the view
            view = await self._in_thread(unpacked, answer.view)
            pace.looked(now)
            pace.saw(max(began_at, now - pace.interval))
            return Sight(began_at, answer.view_since, view)
        if answer.problem:
            pace.failed(now)
        return Sight(problem=answer.problem, retry=now + FETCH_SECONDS)

    async def _look(self, since: float, after: int, *, is_shared: bool) -> Sight:
        name, calls_before = self._adapter.cluster_name, self._adapter.calls.total()
        began_at = self._clock.monotonic()
        try:
            view = await self._in_thread(self._adapter.look, since)
            packed_view = await self._in_thread(packed, view) if is_shared else None
        except ClusterUnavailable as error:
            return await self._failed(since, after, str(error))
        except Exception as error:  # a bug in a plug-in must not terminate the run
            logger.exception("The plug-in of cluster %s failed to poll.", name)
            return await self._failed(since, after, f"{type(error).__name__}: {error}")
        now = self._clock.monotonic()
        self._pace.looked(now, now - began_at, self._adapter.calls.total() - calls_before)
        request = ViewRequest(
            holder=self._holder, since=since, view=packed_view, scope=self._adapter.watch_scope, after=after
        )
        uploaded = await self._gateway.view(name, request)
        self._known = uploaded.number
        return Sight(began_at, since, view)

    async def _failed(self, since: float, after: int, problem: str) -> Sight:
        pause = self._pace.failed(self._clock.monotonic())
        problem = problem[:PROBLEM_CHARACTERS_MAX] or "it does not respond"
        request = ViewRequest(
            holder=self._holder, since=since, problem=problem, scope=self._adapter.watch_scope, after=after
        )
        await self._gateway.view(self._adapter.cluster_name, request)
        return Sight(problem=problem, retry=self._clock.monotonic() + pause)


def packed(view: Mapping[str, Any]) -> str:
    """Encode a view for storage and transfer."""
    return base64.b64encode(zlib.compress(json.dumps(view).encode())).decode()


def unpacked(text: str) -> Mapping[str, Any]:
    """Decode a view that another distributor encoded."""
    unpacker = zlib.decompressobj()
    view: Mapping[str, Any] = json.loads(unpacker.decompress(base64.b64decode(text), VIEW_BYTES_MAX))
    return view
