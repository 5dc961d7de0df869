"""The application put together: database, writer, readers, change feed, routes, reaper."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from jobmon.core import wire
from jobmon.core.clock import Clock, SystemClock
from jobmon.core.constants import MESSAGE_VERSION
from jobmon.core.wire.server import Health, Problem
from jobmon.server import migrations
from jobmon.server.auth import Gate
from jobmon.server.changes import ChangeFeed
from jobmon.server.database import dialect_of, open_engine, open_transaction
from jobmon.server.held import HeldSyncs
from jobmon.server.models.types import to_microseconds
from jobmon.server.queries import activity
from jobmon.server.readers import Readers
from jobmon.server.reaper import Reaper
from jobmon.server.routes import page
from jobmon.server.routes.document import describe
from jobmon.server.routes.shortcut import Shortcut
from jobmon.server.routes.table import ENDPOINTS, HOT
from jobmon.server.services import Requests, Services
from jobmon.server.transaction import Surroundings
from jobmon.server.writer import InlineExecutor, ThreadExecutor, Writer, WriterExecutor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from jobmon.server.settings import Settings

VERSION: Final = importlib.metadata.version("jobmon")


def create_app(
    settings: Settings,
    *,
    clock: Clock | None = None,
    executor: WriterExecutor | None = None,
    token: str | None = None,
    on_activity: Callable[[], None] | None = None,
) -> FastAPI:
    """Return the application; its database is opened when it starts (lifespan).

    `app.state` then has `services`, and from the beginning `begin_stop()` (answers all open polls; call it when the
    process is told to end) and `await is_idle()` (nobody needs this server now, nor did since the last question).

    Args:
        settings: see there.
        clock: the time.
        executor: where the writer runs; a thread of its own if not given. With `InlineExecutor` everything runs in
            place, in one thread.
        token: what requests over TCP must show; None: nothing.
        on_activity: called at every request.
    """
    feed = ChangeFeed()
    requests = _Requests(on_activity)
    server = _Server(settings, clock or SystemClock(), executor or ThreadExecutor(), feed, requests.counted)
    app = _App(
        title="Jobmon",
        version=VERSION,
        lifespan=server.lifespan,
        openapi_url=f"{wire.API_ROOT}/openapi.json",
        docs_url=f"{wire.API_ROOT}/docs",
        redoc_url=None,
        routes=[
            *(Route(wire.API_ROOT + endpoint.path, endpoint, methods=[endpoint.method]) for endpoint in ENDPOINTS),
            *page.ROUTES,
        ],
        exception_handlers={HTTPException: _unknown_route},
    )
    app.openapi = lambda: describe(ENDPOINTS, VERSION)  # type: ignore[method-assign]
    app.front = Gate(Shortcut(app.beyond, HOT), token=token, on_activity=requests.note)
    app.state.begin_stop = feed.close

    async def is_idle() -> bool:
        """Whether there is no open request, no living run, no living attempt, and was no request since last asked."""
        if requests.take() or feed.open_polls:
            return False
        services: Services = app.state.services
        return not await services.readers.run(activity.is_anything_alive, to_microseconds(services.clock.now()))

    app.state.is_idle = is_idle
    return app


class _App(FastAPI):
    """The framework behind our own door: what the hot routes answer never passes through its middleware."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.front(scope, receive, send)

    async def beyond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what the hot routes leave."""
        await super().__call__(scope, receive, send)


class _Requests:
    """How many requests there were, and whether any since last asked."""

    def __init__(self, on_activity: Callable[[], None] | None) -> None:
        self._on_activity = on_activity
        self._taken = 0
        self.counted = Requests()

    def note(self) -> None:
        self.counted.count += 1
        if self._on_activity is not None:
            self._on_activity()

    def take(self) -> bool:
        before, self._taken = self._taken, self.counted.count
        return self._taken > before


class _Server:
    """Opens everything at the start and closes it in the end."""

    def __init__(
        self, settings: Settings, clock: Clock, executor: WriterExecutor, feed: ChangeFeed, requests: Requests
    ) -> None:
        self._requests = requests
        self._settings = settings
        self._clock = clock
        self._executor = executor
        self._feed = feed

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        settings, clock = self._settings, self._clock
        engine = open_engine(settings.database_uri)
        migrations.upgrade(engine)
        started_at = clock.now()
        transaction = open_transaction(engine, Surroundings(settings, to_microseconds(started_at)))
        writer = Writer(transaction, self._executor, clock, self._feed, settings.writes_waiting_max)
        readers = Readers(engine, settings.readers_max, inline=isinstance(self._executor, InlineExecutor))
        app.state.services = Services(
            settings=settings,
            clock=clock,
            feed=self._feed,
            held=HeldSyncs(),
            writer=writer,
            readers=readers,
            requests=self._requests,
            health=Health(
                version=VERSION,
                message_version=MESSAGE_VERSION,
                pid=os.getpid(),
                started_at=started_at.isoformat(),
                database=dialect_of(engine),
            ),
        )
        writer.start()
        reaper = asyncio.create_task(Reaper(writer, readers, settings, clock).run())
        try:
            yield
        finally:
            reaper.cancel()
            self._feed.close()
            await writer.stop()
            readers.close()
            engine.dispose()


async def _unknown_route(request: Request, error: Any) -> Response:
    """A path or method that does not exist."""
    problem = Problem(kind="NotFound", message=f"{request.method} {request.url.path}: {error.detail}.")
    return Response(wire.encode(problem), status_code=error.status_code, media_type="application/json")
