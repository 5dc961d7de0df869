"""A job that runs many tasks: it takes some at a time from the server until there are none left or its time is up.

It runs `width` commands concurrently, each with its own attempt, log, usage and time limit. Its messages carry reports
and heartbeats, and return work; the server holds the poll until there is an attempt to kill, or work after there was
none. Short tasks are prefetched, and outcomes are sent with the next request for work, so that a task costs only a
fraction of a request.
"""

from __future__ import annotations

from jobmon.worker_node.answers import columns_of, is_held_answer, is_take_answer
from jobmon.worker_node.job import Job

#: A pilot that has had no work for this long exits.
IDLE_SECONDS = 30.0
#: Maximum number of tasks that one request asks for; the server returns no more.
TASKS_PER_REQUEST_MAX = 1_000
#: The time left in the job that starting a task requires at least if tasks have no runtime limit.
RESERVE_SECONDS = 10.0
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from jobmon.agent.starting import Launch
    from jobmon.worker_node.host import JobHost


class Pilot(Job):
    """A packed job. See `Job` for the arguments."""

    START_TRIED_SECONDS = 3600.0
    KEEP_SECONDS = 5.0
    LONG_POLL_SECONDS = 30.0
    LISTEN_PAUSE_SECONDS = 4.5
    GATHER_SECONDS = 0.05

    _route = "/worker/take"

    def __init__(self, request: Mapping[str, Any], environment: Mapping[str, str], access: JobHost) -> None:
        super().__init__(request, environment, access)
        self._batch = {name: request[name] for name in ("array_id", "batch_number", "distributor_id", "host")}
        self._is_over = False  # no more work will come
        self._asked = (0, 0)
        self._count = 0
        self._awaits_work = False
        self._has_more = False  # reports that did not fit into the last request
        self._ends_at: float | None = None
        self._runtime: float | None = None
        self._idle = self._seconds("JOBMON_PILOT_IDLE_SECONDS", IDLE_SECONDS)

    # -- commands ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._signalled or not self._work.waiting:
            return
        if self._has_time():
            self._running.start()
        else:
            self._leave()

    def _has_time(self) -> bool:
        """Return whether to start another task: always until one has ended, then if enough time is left in the job."""
        if self._ends_at is None or not self._running.ended_count:
            return True
        needed = self._runtime if self._runtime is not None else max(RESERVE_SECONDS, 2 * self._work.mean_seconds)
        return self._access.monotonic() + needed <= self._ends_at

    def _keep_time(self, now: float) -> None:
        super()._keep_time(now)
        if self._is_idle and now - self._busy_at >= self._idle:
            self._leave()

    @property
    def _is_idle(self) -> bool:
        is_busy = self._work.waiting or self._commands.live
        return self._is_dry and not (is_busy or self._is_over or self._is_leaving)

    def _further_due(self, now: float) -> Iterable[float]:
        yield from super()._further_due(now)
        if self._is_idle:
            yield self._busy_at + self._idle

    @property
    def _has_ended(self) -> bool:
        """Whether no more work will come and no attempts are left."""
        return (self._is_over or self._is_leaving) and not (self._work.waiting or self._commands.live)

    @property
    def _has_enough(self) -> bool:
        return bool(self._work.waiting)

    def _wanted(self) -> tuple[int, int]:
        """Return how many tasks to request now, to start at once and to prefetch."""
        if self._is_over or self._is_dry or self._is_leaving:
            return 0, 0
        free, ahead = self._work.wanted()
        return int(free), min(int(ahead), max(0, TASKS_PER_REQUEST_MAX - int(free)))

    def _is_work_due(self) -> bool:
        if self._has_more or self._has_ended:
            return True
        free, ahead = self._wanted()
        return free > 0 or ahead * 2 > min(int(self._work.ahead), TASKS_PER_REQUEST_MAX)

    # -- messages ----------------------------------------------------------------------------------------------

    def _next_message(self, now: float) -> dict[str, Any]:
        """Return the next request. It announces that the job leaves only if it carries all remaining reports."""
        told = self._report(now)
        self._has_more = self._outbox.has_waiting
        self._asked = (0, 0) if self._has_ended else self._wanted()
        return {
            **self._batch,
            **told,
            "capacity": self._asked[0],
            "ahead": self._asked[1],
            "key": self._next_key() if sum(self._asked) else "",
            "leaving": self._has_ended and not self._signalled and not self._has_more,
        }

    def _next_key(self) -> str:
        self._count += 1
        return f"{self._count}:{self._access.random_bytes(8).hex()}"

    def _is_answer(self, content: Mapping[str, Any]) -> bool:
        return is_take_answer(content)

    def _job_in(self, content: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = content["job"]
        return found

    def _launches_in(self, content: dict[str, Any]) -> list[Launch]:
        job, tasks = content["job"], content["tasks"]
        return self._launches_of(columns_of(job, tasks), job) if tasks["task_instance_ids"] else []

    def _begin(self, content: dict[str, Any]) -> None:
        super()._begin(content)
        job = content["job"]
        runtime = job["requested_resources"].get("runtime")
        self._runtime = float(runtime) if isinstance(runtime, int | float) else None
        if end := self._environment.get("JOBMON_JOB_END_TIME"):
            self._ends_at = self._access.monotonic() + float(end) - self._access.time()
        elif job.get("runtime_seconds") is not None:
            self._ends_at = self._began_at + float(job["runtime_seconds"])

    def _hear(self, message: Mapping[str, Any], content: dict[str, Any]) -> None:
        """Take the requested tasks, those to start at once first, and kill attempts."""
        self._work.cores = self._work.granted = float(self._width)
        asked, here = self._asked, self._running.here
        taken = self._launches_in(content)
        counted = {launch.identity for launch in taken[: asked[0]]}
        self._running.take([launch for launch in taken if launch.identity not in here], counted - here)
        self._is_over = self._is_over or bool(content.get("over"))
        if sum(asked) > len(taken):
            self._is_dry = True
        self._has_more = self._outbox.has_waiting
        self._hear_kill(content)

    # -- the poll ----------------------------------------------------------------------------------------------

    def _next_poll(self) -> dict[str, Any] | None:
        is_of_use = self._is_begun and not self._signalled and not self._has_ended
        if not is_of_use or not (self._commands.live or self._is_dry):
            return None
        self._awaits_work = self._is_dry
        return {**self._batch, "wants_work": self._is_dry}

    def _is_poll_outdated(self) -> bool:
        return self._is_dry and not self._awaits_work

    def _is_news(self, content: Mapping[str, Any]) -> bool:
        return is_held_answer(content)

    def _hear_news(self, content: dict[str, Any]) -> None:
        self._running.kill(content["kill"])
        if content.get("has_work"):
            self._is_dry = False
        if content.get("over") and not self._is_over:
            self._is_over = True
            self._beat_at = 0.0  # a heartbeat tells whether running attempts are over as well
        elif content.get("over"):
            self._listen_at = self._access.monotonic() + self.LISTEN_PAUSE_SECONDS  # the server now answers at once
