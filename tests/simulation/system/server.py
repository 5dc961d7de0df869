"""The real server application on a SQLite file, which can be started, killed, frozen and restarted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from jobmon.server.app import create_app
from jobmon.server.settings import Settings
from jobmon.server.writer import InlineExecutor

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, MutableMapping
    from pathlib import Path

    from tests.simulation.system.clocks import PartClock

    from jobmon.server.writer import Job


#: How often a server is short of time, one of these for each world.
BUSY_SHARES: Final = (0.0, 0.0, 0.3, 0.9)


class _WatchedExecutor(InlineExecutor):
    """An executor that reports commits before anything else happens, and `rest`s after each."""

    def __init__(self, watch: Callable[[Job], None], rest: Callable[[], None]) -> None:
        self._watch = watch
        self._rest = rest

    def start(self, work: Callable[[list[Job]], list[Job]]) -> None:
        """Store the function that does the work."""

        def work_watched(jobs: list[Job]) -> list[Job]:
            left = work(jobs)
            self._rest()
            for job in jobs:
                if job not in left:
                    self._watch(job)
            return left

        super().start(work_watched)


class SimulatedServer:
    """One server process at a time on one database.

    Args:
        database: the database file.
        clock: the clock of the server.
        watch: called for every use case when it is committed or has failed.
        dice: decides when the server is short of time, in some worlds often.
    """

    def __init__(self, database: Path, clock: PartClock, watch: Callable[[Job], None], dice: random.Random) -> None:
        self._watch = watch
        self._dice = dice
        self._busy_share = dice.choice(BUSY_SHARES)
        self._settings = Settings(database_uri=f"sqlite:///{database}")
        self._clock = clock
        self._app: Any = None
        self._life: contextlib.AsyncExitStack | None = None
        self._requests: dict[asyncio.Task[Any], None] = {}
        self.ignored: int = 0

    @property
    def is_up(self) -> bool:
        """Whether the server is running."""
        return self._app is not None

    async def start(self) -> None:
        """Start a server on the existing database."""
        app = create_app(self._settings, clock=self._clock, executor=_WatchedExecutor(self._watch, self._get_busy))
        self._life = contextlib.AsyncExitStack()
        await self._life.enter_async_context(app.router.lifespan_context(app))
        self._app = app

    def _get_busy(self) -> None:
        """Perhaps leave the writer as if it had more to do than it has time for."""
        if self._app is not None and self._busy_share:
            self._app.state.services.writer.is_behind = self._dice.random() < self._busy_share

    async def kill(self) -> None:
        """Stop it as SIGKILL does: commits persist, and pending requests get no answer."""
        if self._app is None:
            return
        app, self._app = self._app, None
        self.ignored += app.state.services.writer.ignored.total()
        requests = list(self._requests)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        assert self._life is not None
        await self._life.aclose()

    async def serve(self, method: str, path: str, query: bytes, body: bytes, gone: asyncio.Event) -> tuple[int, bytes]:
        """Answer one request."""
        if self._app is None:
            raise aiohttp.ClientConnectionError("connection refused")
        task = asyncio.current_task()
        assert task is not None
        self._requests[task] = None
        try:
            return await _call(self._app, method, path, query, body, gone)
        finally:
            self._requests.pop(task, None)


async def _call(app: Any, method: str, path: str, query: bytes, body: bytes, gone: asyncio.Event) -> tuple[int, bytes]:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": query,
        "headers": [(b"content-type", b"application/json")],
        "client": ("simulated", 1),
        "server": ("simulated", 80),
        "state": {},
    }
    is_read = False
    status, content = 0, b""

    async def receive() -> dict[str, Any]:
        nonlocal is_read
        if is_read:
            await gone.wait()
            return {"type": "http.disconnect"}
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, content
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            content += message.get("body", b"")

    await app(scope, receive, send)
    return status, content
