"""A standby: a second server process on a PostgreSQL database, which takes over when the active one is gone.

It waits for the lock of the database (`database.py`). Meanwhile it answers all requests except health checks with 503,
so that proxies and clients with several addresses use the active server. Once it has the lock, it upgrades the schema
if necessary and opens the application, as a server does that starts. Nothing is taken over from memory: the database
has the whole record, and clients repeat every request that was not answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import State

from jobmon.core import wire
from jobmon.core.constants import MESSAGE_VERSION
from jobmon.core.wire.server import Health, Problem
from jobmon.server import migrations
from jobmon.server.auth import NOT_GUESSED, NOT_STORED
from jobmon.server.database import first_line, is_lost, meaning

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette
    from starlette.types import Message, Receive, Scope, Send

    from jobmon.server.database import Database

#: How often a standby asks for the lock.
ASK_SECONDS: Final = 0.5
HEALTH_PATH: Final = f"{wire.API_ROOT}/health"
_PROBLEM: Final = wire.encode(
    Problem(
        kind="ServerUnavailable",
        message="This server is a standby: another server is active on its database.",
        details={"role": "standby"},
    )
)

logger = logging.getLogger("jobmon.server")


class Standby:
    """An ASGI application: a standby, and the real application as soon as this process is the active server.

    Args:
        database: the database, which responds.
        open_app: returns the application; called when this process has become the active server.
        on_failure: called with the reason if it cannot become the active server.
    """

    def __init__(
        self, database: Database, open_app: Callable[[], Starlette], on_failure: Callable[[Exception], None]
    ) -> None:
        self._database = database
        self._open_app = open_app
        self._on_failure = on_failure
        self._app: Starlette | None = None
        self._is_stopping = asyncio.Event()
        self.state = State({"begin_stop": self._begin_stop})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["path"] == HEALTH_PATH:
            await _answer(send, 200, wire.encode(Health(message_version=MESSAGE_VERSION)))
        else:
            await _answer(send, 503, _PROBLEM, (b"retry-after", b"1"), (b"connection", b"close"))

    def _begin_stop(self) -> None:
        self._is_stopping.set()
        if self._app is not None:
            self._app.state.begin_stop()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        serving = asyncio.create_task(self._serve())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._is_stopping.set()
        await serving
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self) -> None:
        """Wait for the lock, then serve until told to stop."""
        try:
            if await self._is_active_at_last():
                await asyncio.to_thread(migrations.ensure, self._database)
                app = self._open_app()
                async with app.router.lifespan_context(app):
                    self._app = app
                    logger.info("active: this server has taken over")
                    await self._is_stopping.wait()
        except Exception as error:
            self._on_failure(error)
        finally:
            self._database.close()

    async def _is_active_at_last(self) -> bool:
        """Wait until this process is the active server; return False if it is told to stop before."""
        last = ""
        while not self._is_stopping.is_set():
            try:
                holder = await asyncio.to_thread(self._database.try_to_activate)
            except Exception as error:
                if not is_lost(error) and meaning(error) is None:
                    raise
                said = f"standby: the database does not respond: {first_line(error)}"
            else:
                if holder is None:
                    return True
                said = f"standby: {holder} is active"
            if said != last:
                logger.info(said)
                last = said
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await self._is_stopping.wait()
        return False


async def _answer(send: Send, status: int, content: bytes, *more: tuple[bytes, bytes]) -> None:
    headers: list[Any] = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        *(NOT_STORED, NOT_GUESSED),
        *more,
    ]
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": content})
