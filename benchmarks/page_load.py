"""What goes on while the page is measured: a run whose tasks change, and readers of the routes that a page requests."""

from __future__ import annotations

import http.client
import os
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.big_database import BUSY_SHARE, DONE_SHARE, FAILED_SHARE, SIMULATIONS, SUMMARIES, TASKS_PER_LOCATION
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.wire.launching import DistributorRequest, DistributorResponse, Report, SyncRequest, SyncResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jobmon.core.requester import Requester

#: Each task changes five times: queued, instantiated, launched, running, done.
CHANGES_PER_TASK: Final = 5
CHANGES_PER_SECOND: Final = 1_000
STEPS_PER_SECOND: Final = 5
#: One task in so many fails permanently.
FAILED_EACH: Final = 200
FAILURE: Final = "cannot open table"
RUN: Final = "/workflow_runs/1"
CLUSTER: Final = "multiprocess"
REQUEST_SECONDS_MAX: Final = 60


class Truth(NamedTuple):
    """What the server had confirmed at a time, `time.monotonic()`."""

    at: float
    done: int
    failed: int


class Changes:
    """A thread that lets waiting tasks of the large workflow run: `per_second` changes of status."""

    def __init__(self, requester: Requester, locations: int) -> None:
        self._requester = requester
        self._tasks = _waiting(locations)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="changes", daemon=True)
        self._launched: deque[int] = deque()
        self.error: BaseException | None = None
        #: May be set at any time.
        self.per_second = CHANGES_PER_SECOND
        self.changes = 0
        self.late_seconds = 0.0
        self.truths: list[Truth] = [Truth(time.monotonic(), 0, 0)]

    def __enter__(self) -> Changes:
        request = DistributorRequest(host="bench", pid=os.getpid(), pid_start_time=0.0, key=secrets.token_hex(8))
        self._epoch = self._requester.call(f"{RUN}/distributors", request, DistributorResponse).epoch
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                self.late_seconds = max(self.late_seconds, time.monotonic() - due)
                self._step(self.per_second // CHANGES_PER_TASK // STEPS_PER_SECOND)
                due = max(due + 1 / STEPS_PER_SECOND, time.monotonic() - 1)
        except BaseException as error:
            self.error = error

    def _step(self, count: int) -> None:
        """Queue some tasks; report those of the previous step as launched, running and ended; take the queued ones."""
        chosen = list(islice(self._tasks, count))
        if len(chosen) < count:
            raise RuntimeError("no task waits any more: the data set is too small for this measurement")
        batches = [
            {
                "array_id": array_id,
                "task_ids": [task_id for of, task_id in chosen if of == array_id],
                "task_resources_id": 1,
                "cluster_id": 1,
            }
            for array_id in {of for of, _ in chosen}
        ]
        status, content = self._requester.send_request(f"{RUN}/queue", {"batches": batches}, "post")
        if status >= 300:
            raise RuntimeError(f"queue: {content}")
        attempts = list(self._launched)
        self._launched.clear()
        self._sync([Report(task_instance_id=one, status="O", distributor_id=str(one)) for one in attempts])
        now = datetime.now(UTC)
        running = TaskInstanceStatus.RUNNING.value
        self._sync([Report(task_instance_id=one, status=running, host=_host(one), started_at=now) for one in attempts])
        answer = self._sync([_ended(one, now) for one in attempts], capacity=count)
        self._launched.extend(one for found in answer.launches for one in found.task_instance_ids)
        last = self.truths[-1]
        failed = sum(1 for one in attempts if one % FAILED_EACH == 0)
        self.truths.append(Truth(time.monotonic(), last.done + len(attempts) - failed, last.failed + failed))
        self.changes += CHANGES_PER_TASK * len(attempts)

    def _sync(self, reports: list[Report], capacity: int = 0) -> SyncResponse:
        wanted = {CLUSTER: capacity} if capacity else {}
        request = SyncRequest(epoch=self._epoch, reports=reports, capacity=wanted, key=secrets.token_hex(8))
        return self._requester.call(f"{RUN}/sync", request, SyncResponse)

    def age_of(self, seen_at: float, *, done: int | None = None, failed: int | None = None) -> float:
        """Return for how long a number that was seen had been out of date, seconds; 0: it was not."""
        for truth in self.truths:
            if (done is not None and truth.done > done) or (failed is not None and truth.failed > failed):
                return max(0.0, seen_at - truth.at)
        return 0.0


def _waiting(locations: int) -> Iterator[tuple[int, int]]:
    """Yield arrays and tasks that wait, as `big_database` wrote them: those of `simulate`, then those of `summarise`.

    A real run would not start the latter where one of the former has failed; only a small data set gets that far.
    """
    waiting = range(int(locations * (DONE_SHARE + FAILED_SHARE + BUSY_SHARE)) + 1, locations)
    for array_id, begin, count in ((2, 2, SIMULATIONS), (3, 2 + SIMULATIONS, SUMMARIES)):
        for location in waiting:
            first = location * TASKS_PER_LOCATION + begin
            yield from ((array_id, task_id) for task_id in range(first, first + count))


def _host(attempt: int) -> str:
    return f"n{attempt % 200}"


def _ended(attempt: int, now: datetime) -> Report:
    failed = attempt % FAILED_EACH == 0
    return Report(
        task_instance_id=attempt,
        status=(TaskInstanceStatus.ERROR_FATAL if failed else TaskInstanceStatus.DONE).value,
        host=_host(attempt),
        started_at=now,
        ended_at=now,
        exit_code=int(failed),
        cause=Cause.EXIT_CODE.value if failed else None,
        error=f"{FAILURE} {attempt}" if failed else None,
        wallclock_seconds=0.2,
        cpu_seconds=0.1,
        max_rss_bytes=10_000_000,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the page: how often it sends it; None: once, and it reads the response for as long as it goes on."""

    path: str
    every_seconds: float | None


class Readers:
    """Threads that request what a page requests, as often, each on its own connections and with its own tags."""

    def __init__(
        self, address: tuple[str, int], headers: Mapping[str, str], asked: Sequence[Asked], count: int
    ) -> None:
        self._address = address
        self._headers = dict(headers)
        self._stopping = threading.Event()
        self._streams: list[http.client.HTTPConnection] = []
        self.errors: list[BaseException] = []
        self.responses = 0
        self._threads = [
            threading.Thread(target=self._guarded, args=(one, number / count), daemon=True)
            for number in range(count)
            for one in asked
        ]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for stream in list(self._streams):
            if stream.sock is not None:
                stream.sock.shutdown(2)
        for thread in self._threads:
            thread.join()

    def _guarded(self, one: Asked, offset: float) -> None:
        try:
            if one.every_seconds is None:
                self._follow(one.path)
            else:
                self._repeat(one.path, one.every_seconds, offset)
        except BaseException as error:
            if not self._stopping.is_set():
                self.errors.append(error)

    def _repeat(self, path: str, every_seconds: float, offset: float) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=REQUEST_SECONDS_MAX)
        tag = ""
        wait = offset * every_seconds
        while not self._stopping.wait(wait):
            connection.request("GET", path, headers=self._headers | ({"If-None-Match": tag} if tag else {}))
            response = connection.getresponse()
            response.read()
            if response.status not in (200, 304):
                raise RuntimeError(f"{path}: {response.status}")
            tag, wait = response.headers.get("ETag", ""), every_seconds
            self.responses += 1
        connection.close()

    def _follow(self, path: str) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=REQUEST_SECONDS_MAX)
        self._streams.append(connection)
        connection.request("GET", path, headers=self._headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status}")
        while not self._stopping.is_set() and response.readline():
            self.responses += 1
