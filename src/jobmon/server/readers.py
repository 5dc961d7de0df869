"""Readers: a bounded number of separate connections, off the event loop; they never wait for the writer."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from jobmon.server.database import is_lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.server.database import Database
    from jobmon.server.sql import Session

_Answer = TypeVar("_Answer")


class Readers:
    """Runs queries `(session, *arguments) -> answer`, each in one snapshot of the database."""

    def __init__(self, database: Database, readers_max: int, *, inline: bool) -> None:
        self._database = database
        self._inline = inline
        self._is_local = database.dialect == "sqlite"
        self._idle: queue.SimpleQueue[Session] = queue.SimpleQueue()
        large = max(1, readers_max // 2)
        self._threads = ThreadPoolExecutor(max(1, readers_max - large), thread_name_prefix="reader")
        self._large_threads = ThreadPoolExecutor(large, thread_name_prefix="large-reader")

    async def run(self, query: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a query that reads a few rows, or one page of them."""
        return await self._run_in(self._threads, query, *arguments)

    async def run_large(self, query: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a query that may read a whole workflow. Other queries have separate threads and do not wait for it."""
        return await self._run_in(self._large_threads, query, *arguments)

    async def _run_in(self, threads: ThreadPoolExecutor, query: Callable[..., _Answer], *arguments: Any) -> _Answer:
        if self._inline:
            return self._read(query, *arguments)
        return await asyncio.get_running_loop().run_in_executor(threads, self._read, query, *arguments)

    async def glance(self, query: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a query of a few indexed rows: in place with SQLite, because a thread switch costs more than that."""
        if self._is_local:
            return self._read(query, *arguments)
        return await self.run(query, *arguments)

    def close(self) -> None:
        """Finish running queries and close all connections."""
        self._threads.shutdown()
        self._large_threads.shutdown()
        self._close_idle()

    def _close_idle(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                _close(self._idle.get_nowait())

    def _read(self, query: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Read with a pooled session.

        The pool grows to the largest number in use at once: the threads and the event loop. An idle session may have
        lost its connection, and so have the others: the query is then rerun.
        """
        try:
            session = self._idle.get_nowait()
        except queue.Empty:
            return self._read_with(self._database.open_session(), query, *arguments)
        try:
            return self._read_with(session, query, *arguments)
        except Exception as error:
            if not is_lost(error):
                raise
        self._close_idle()
        return self._read_with(self._database.open_session(), query, *arguments)

    def _read_with(self, session: Session, query: Callable[..., _Answer], *arguments: Any) -> _Answer:
        try:
            session.begin(writing=False)
            answer = query(session, *arguments)
            session.end_reading()
        except Exception:
            _close(session)
            raise
        self._idle.put(session)
        return answer


def _close(session: Session) -> None:
    with contextlib.suppress(Exception):  # its connection may be lost
        session.close()
