"""Readers: a bounded number of connections of their own, off the event loop; they never wait for the writer."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from jobmon.server.database import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from jobmon.server.sql import Session

_Answer = TypeVar("_Answer")


class Readers:
    """Runs queries `(session, *arguments) -> answer`, each in one snapshot of the database."""

    def __init__(self, engine: Engine, readers_max: int, *, inline: bool) -> None:
        self._engine = engine
        self._inline = inline
        self._is_local = engine.dialect.name == "sqlite"
        self._idle: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(readers_max, thread_name_prefix="reader")

    async def run(self, query: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a query of any size."""
        if self._inline:
            return self._read(query, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, query, *arguments)

    async def glance(self, query: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a query of a few indexed rows: with SQLite in place, because a change of threads costs more than it."""
        if self._is_local:
            return self._read(query, *arguments)
        return await self.run(query, *arguments)

    def close(self) -> None:
        """Finish and give all connections back."""
        self._threads.shutdown()
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _read(self, query: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Read with a borrowed session. As many exist as were ever busy at once: the threads and the event loop."""
        try:
            session = self._idle.get_nowait()
        except queue.Empty:
            session = open_session(self._engine)
        try:
            session.begin(writing=False)
            answer = query(session, *arguments)
            session.rollback()
        except Exception:
            session.close()
            raise
        self._idle.put(session)
        return answer
