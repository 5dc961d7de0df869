"""Assemble the application: database, writer, readers, change feed, routes, reaper."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from jobmon.core import wire
from jobmon.core.clock import Clock, SystemClock
from jobmon.core.configuration import data_directory
from jobmon.core.constants import MESSAGE_VERSION
from jobmon.core.exceptions import ServerUnavailable
from jobmon.core.wire.login import OIDC
from jobmon.core.wire.server import Health, Problem
from jobmon.server import migrations
from jobmon.server.answers import Answers
from jobmon.server.auth import Gate
from jobmon.server.authority import Authority
from jobmon.server.background import Resumer
from jobmon.server.database import Database, explained, meaning
from jobmon.server.feed import ChangeFeed
from jobmon.server.kept import Kept, Warmer
from jobmon.server.longpolls import OpenPolls
from jobmon.server.notifier import Notifier, open_notifier
from jobmon.server.oidc import Provider, open_provider
from jobmon.server.output_files import OutputFiles
from jobmon.server.queries import activity
from jobmon.server.readers import Readers
from jobmon.server.reaper import Reaper
from jobmon.server.recent import Recent
from jobmon.server.retention import Retention
from jobmon.server.routes import page
from jobmon.server.routes.document import describe
from jobmon.server.routes.shortcut import Shortcut
from jobmon.server.routes.table import ENDPOINTS, HOT
from jobmon.server.services import Name, Requests, Services, Streams
from jobmon.server.times import to_microseconds
from jobmon.server.transaction import Effects, Surroundings
from jobmon.server.usecases import credentials
from jobmon.server.writer import InlineExecutor, ThreadExecutor, Writer, WriterExecutor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from jobmon.server.settings import Settings

VERSION: Final = importlib.metadata.version("jobmon")
#: How often the active server looks whether it still has the lock of its database.
LOCK_LOOK_SECONDS: Final = 0.5
#: The same while the database does not respond: each look then writes to the log.
LOCK_RETRY_SECONDS: Final = 5.0


def open_database(settings: Settings, *, stand_by: bool = False) -> Database:
    """Open the database as its only active server and upgrade its schema.

    Args:
        settings: see `Settings`.
        stand_by: whether another server may be active; then the schema is not upgraded.

    Raises:
        ConfigError: it cannot be opened, was written by a newer version, or has another active server.
    """
    with explained(settings.database_uri):
        database = Database(settings.database_uri)
        try:
            database.activate(settings.database_startup_seconds, stand_by=stand_by)
            if not stand_by:
                migrations.ensure(database)
        except BaseException:
            database.close()
            raise
        return database


def create_app(
    settings: Settings,
    *,
    database: Database | None = None,
    clock: Clock | None = None,
    executor: WriterExecutor | None = None,
    token: str | None = None,
    is_embedded: bool = False,
    on_activity: Callable[[], None] | None = None,
) -> Starlette:
    """Return the application; its database is open for the duration of the lifespan.

    During the lifespan, `app.state` has `services`. It always has `begin_stop()` (answers all open polls; call it when
    the process is told to exit), `await is_idle()` (nothing needs this server now, and no request arrived since the
    last call), and `await is_needed_elsewhere(runs)` (something on another host needs it). Set `on_deposed` before the
    lifespan to be notified when another server has become the active one of the database; the
    application must not be used any more then.

    Args:
        settings: see `Settings`.
        database: the result of `open_database`; by default opened when the application starts.
        clock: the clock; by default the system's.
        executor: where the writer runs; by default a separate thread. With `InlineExecutor` everything runs in place,
            in one thread.
        token: the owner's token; None: requests need no credential.
        is_embedded: whether this is the server of one data folder; see `Authority`.
        on_activity: called for every request.
    """
    feed = ChangeFeed()
    requests = _Requests(on_activity)
    clock = clock or SystemClock()
    authority = _authority(settings, clock, token, is_strict=is_embedded)
    server = _Server(settings, database, clock, executor or ThreadExecutor(), feed, requests.counted, authority)
    if is_embedded:
        server.output_files = OutputFiles(data_directory())
        server.resumer = Resumer(data_directory())
    app = _App(
        lifespan=server.lifespan,
        routes=_routes(),
        exception_handlers={HTTPException: _unknown_route},
    )
    app.front = Gate(Shortcut(app.beyond, HOT), authority, on_activity=requests.note)
    app.state.begin_stop = feed.close
    app.state.on_deposed = lambda: None

    async def is_idle() -> bool:
        """Whether there is no open request, live run or live attempt, and no request arrived since the last call."""
        if requests.take() or feed.open_polls:
            return False
        services: Services = app.state.services
        if services.notifier is not None and services.notifier.pending:
            return False
        return not await services.readers.run(activity.is_anything_alive, to_microseconds(services.clock.now()))

    async def is_needed_elsewhere(runs: set[int] | None) -> bool:
        """Whether one of these runs (None: any run) is active, or an attempt is live on another host."""
        services: Services = app.state.services
        now = to_microseconds(services.clock.now())
        return await services.readers.run(activity.is_needed_elsewhere, now, runs)

    app.state.is_idle = is_idle
    app.state.is_needed_elsewhere = is_needed_elsewhere
    return app


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """Return all routes, which are the same in every application of this process."""
    return (
        *(Route(endpoint.address, endpoint, methods=[endpoint.method]) for endpoint in ENDPOINTS),
        Route(f"{wire.API_ROOT}/openapi.json", _document, methods=["GET"]),
        *page.ROUTES,
    )


def _authority(settings: Settings, clock: Clock, token: str | None, *, is_strict: bool) -> Authority:
    return Authority(
        token,
        lambda: clock.now().timestamp(),
        is_strict=is_strict,
        roles=settings.roles,
        proxy=settings.proxy,
        sharing=settings.sharing,
        has_login=bool(settings.oidc.issuer),
    )


class _App(Starlette):
    """Starlette behind our own gate: requests of the hot routes never pass through its middleware."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.front(scope, receive, send)

    async def beyond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer requests that are not of a hot route."""
        await super().__call__(scope, receive, send)


class _Requests:
    """Counts requests, and reports whether any arrived since the last call of `take`."""

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
    """Opens all resources at startup and closes them at shutdown."""

    def __init__(
        self,
        settings: Settings,
        database: Database | None,
        clock: Clock,
        executor: WriterExecutor,
        feed: ChangeFeed,
        requests: Requests,
        authority: Authority,
    ) -> None:
        self._authority = authority
        self.output_files: OutputFiles | None = None
        self.resumer: Resumer | None = None
        self._database = database
        self._requests = requests
        self._settings = settings
        self._clock = clock
        self._executor = executor
        self._feed = feed

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        settings, clock = self._settings, self._clock
        database = self._database or open_database(settings)
        started_at = clock.now()
        open_transaction = partial(database.open_transaction, Surroundings(settings, to_microseconds(started_at)))
        readers = Readers(database, settings.readers_max, inline=isinstance(self._executor, InlineExecutor))
        notifier = open_notifier(settings.notifying, readers, clock)
        provider = open_provider(settings.oidc, clock)
        kept, recent = Kept(clock.monotonic), Recent(clock.monotonic)
        writer = Writer(
            open_transaction,
            self._executor,
            clock,
            self._feed,
            settings.writes_waiting_max,
            _listener(kept, notifier),
            app.state.on_deposed,
        )
        app.state.services = Services(
            settings=settings,
            database=database,
            clock=clock,
            feed=self._feed,
            held=OpenPolls(),
            writer=writer,
            readers=readers,
            requests=self._requests,
            authority=self._authority,
            output_files=self.output_files,
            resumer=self.resumer,
            notifier=notifier,
            provider=provider,
            recent=recent,
            kept=kept,
            warmer=Warmer(readers, kept, recent),
            streams=Streams(),
            answers=Answers(lambda: writer.transactions, clock.monotonic),
            name=Name(database.identity(), str(to_microseconds(started_at))),
            health=_health(started_at, database, provider),
        )
        writer.start()
        self._authority.know(await writer.run(credentials.load))
        beside = [asyncio.create_task(Reaper(writer, readers, settings, clock).run())]
        if database.dialect == "postgresql":
            beside.append(asyncio.create_task(_watch_lock(database, writer)))
        if notifier is not None:
            notifying = asyncio.create_task(notifier.run())
        if settings.retention_days > 0:
            beside.append(
                asyncio.create_task(Retention(database, writer, readers, clock, settings.retention_days).run())
            )
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await app.state.services.warmer.stop()
            self._feed.close()
            await writer.stop()
            if notifier is not None:
                await notifier.stop()
                notifying.cancel()
                await asyncio.gather(notifying, return_exceptions=True)
            readers.close()
            database.close()


def _health(started_at: datetime, database: Database, provider: Provider | None) -> Health:
    return Health(
        version=VERSION,
        message_version=MESSAGE_VERSION,
        pid=os.getpid(),
        started_at=started_at.isoformat(),
        database=database.dialect,
        login="" if provider is None else OIDC,
    )


def _listener(kept: Kept, notifier: Notifier | None) -> Callable[[Effects], None]:
    """Return what is told of the effects of transactions."""

    def note(effects: Effects) -> None:
        kept.note(effects)
        if notifier is not None:
            notifier.note(effects)

    return note


async def _watch_lock(database: Database, writer: Writer) -> None:
    """Reconnect soon after the lock is lost, or learn that another server has taken it; until cancelled.

    Otherwise an idle server would notice only at the next write, and its long polls would miss all changes meanwhile.
    """
    pause = LOCK_LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        pause = LOCK_LOOK_SECONDS
        if database.has_lost_lock():
            try:
                await writer.run(lambda tx: None)
            except Exception as error:
                if meaning(error) is None and not isinstance(error, ServerUnavailable):
                    raise
                pause = LOCK_RETRY_SECONDS


async def _document(request: Request) -> Response:
    """Answer with the OpenAPI document."""
    return Response(wire.encode(describe(ENDPOINTS, VERSION)), media_type="application/json")


async def _unknown_route(request: Request, error: Any) -> Response:
    """Answer a request whose path or method does not exist."""
    problem = Problem(kind="NotFound", message=f"{request.method} {request.url.path}: {error.detail}.")
    return Response(wire.encode(problem), status_code=error.status_code, media_type="application/json")
