"""Compute the answers to identical queries once: for concurrent readers, and as long as nothing changes.

A query is identified by its route with the IDs and the query string, and by whether secrets are shown. An answer is
labelled with the number of transactions that the writer had committed when its computation began. It is valid as long
as that number is the same. Otherwise the query is computed again: at most one computation of it runs and at most one
waits for the running one to finish; all requests that arrive meanwhile share the answer of the waiting one. Readers
therefore always see everything that was committed before their request, and many identical requests cost as much as
two.

A reader that accepts an older answer sends `Cache-Control: max-age=SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

#: Number of cached answers, and the maximum size of each; a larger answer is shared only by the requests that await it.
ANSWERS_MAX: Final = 64
ANSWER_BYTES_MAX: Final = 256 * 1024
#: Maximum age of an answer that a reader accepts although something has changed.
AGE_SECONDS_MAX: Final = 2.0
#: Smaller answers are not compressed: they fit into one packet.
COMPRESSED_BYTES_MIN: Final = 1_400
#: Favours speed over size: most readers are on this machine or behind `ssh -L`.
_LEVEL: Final = 1


class PartialContent(bytes):
    """The content of an answer to which the next request gets more: it is not kept."""


@dataclass(slots=True, eq=False)
class Answer:
    """An encoded answer.

    Args:
        content: the JSON.
        version: number of committed transactions when its computation began.
        began_at: start of its computation, monotonic seconds.
    """

    content: bytes
    version: int
    began_at: float
    _tag: bytes = b""
    _compressed: bytes = b""

    @property
    def tag(self) -> bytes:
        """The entity tag: equal for equal content."""
        if not self._tag:
            self._tag = b'"' + hashlib.sha256(self.content).hexdigest()[:16].encode() + b'"'
        return self._tag

    @property
    def compressed(self) -> bytes:
        """The content, compressed once; empty if compression is not worthwhile."""
        if not self._compressed and len(self.content) >= COMPRESSED_BYTES_MIN:
            self._compressed = gzip.compress(self.content, _LEVEL, mtime=0)
        return self._compressed


class Answers:
    """A cache of answers (see the module docstring). Belongs to the event loop.

    Args:
        version: returns the number of committed transactions.
        monotonic: returns the time in monotonic seconds.
    """

    def __init__(self, version: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._version = version
        self._monotonic = monotonic
        self._kept: OrderedDict[Hashable, Answer] = OrderedDict()
        self._running: dict[Hashable, tuple[int, asyncio.Task[Answer]]] = {}
        self._waiting: dict[Hashable, asyncio.Task[Answer]] = {}
        #: Number of computations so far.
        self.computed = 0

    async def answer(
        self,
        question: Hashable,
        compute: Callable[[], Awaitable[bytes]],
        *,
        age_seconds: float,
        unchanged_seconds: float,
    ) -> Answer:
        """Return the answer to a query.

        Args:
            question: identifies the query; equal for equal answers.
            compute: computes the encoded answer.
            age_seconds: maximum age of an answer that the reader accepts; limited to `AGE_SECONDS_MAX`.
            unchanged_seconds: how long an answer stays valid while nothing is written.
        """
        kept = self._kept.get(question)
        if kept is not None and self._holds(kept, age_seconds, unchanged_seconds):
            self._kept.move_to_end(question)
            return kept
        return await asyncio.shield(self._started(question, compute))

    def _holds(self, kept: Answer, age_seconds: float, unchanged_seconds: float) -> bool:
        age = self._monotonic() - kept.began_at
        return age < min(age_seconds, AGE_SECONDS_MAX) or (kept.version == self._version() and age < unchanged_seconds)

    def _started(self, question: Hashable, compute: Callable[[], Awaitable[bytes]]) -> asyncio.Task[Answer]:
        """Return a computation whose answer includes everything committed so far."""
        found = self._running.get(question)
        if found is None:
            return self._start(question, compute)
        version, running = found
        if version == self._version():
            return running
        waiting = self._waiting.get(question)
        if waiting is None:
            waiting = self._waiting[question] = asyncio.create_task(self._after(running, question, compute))
        return waiting

    def _start(self, question: Hashable, compute: Callable[[], Awaitable[bytes]]) -> asyncio.Task[Answer]:
        version = self._version()
        task = asyncio.create_task(self._compute(question, version, compute))
        self._running[question] = version, task
        return task

    async def _after(
        self, running: asyncio.Task[Answer], question: Hashable, compute: Callable[[], Awaitable[bytes]]
    ) -> Answer:
        with contextlib.suppress(Exception):  # the exception is raised in the requests that await that computation
            await running
        del self._waiting[question]
        return await self._start(question, compute)

    async def _compute(self, question: Hashable, version: int, compute: Callable[[], Awaitable[bytes]]) -> Answer:
        began_at = self._monotonic()
        self.computed += 1
        try:
            answer = Answer(await compute(), version, began_at)
        finally:
            del self._running[question]
        if len(answer.content) <= ANSWER_BYTES_MAX and not isinstance(answer.content, PartialContent):
            self._kept[question] = answer
            self._kept.move_to_end(question)
            while len(self._kept) > ANSWERS_MAX:
                self._kept.popitem(last=False)
        return answer


def age_seconds_of(cache_control: bytes) -> float:
    """Return the `max-age` of a request's header; 0 if it is missing or invalid."""
    for directive in cache_control.split(b","):
        name, _, value = directive.strip().partition(b"=")
        if name.lower() == b"max-age" and value.isdigit() and len(value) < 10:
            return float(value)
    return 0.0
