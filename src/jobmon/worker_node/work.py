"""What a job that runs many tasks has and knows: no I/O; times are handed in (monotonic)."""

from __future__ import annotations

from collections import deque

from jobmon.worker_node.run import UNKNOWN_ERROR, WORKER_LOST, Run

#: So much work is taken ahead, but never more tasks than this.
AHEAD_SECONDS = 0.25
AHEAD_MAX = 64
NEWEST_SHARE = 0.2
NOT_BEGUN = "It was handed to a job ahead of need and not started in time."
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jobmon.worker_node.child import Child


class Task:
    """An attempt that this job has."""

    def __init__(self, job: dict[str, Any], told_running: bool) -> None:
        self.run = Run({})
        self.run.job = job
        self.told_running = told_running
        self.child: Child | None = None
        self.outputs = ("", "")
        self.started_at = 0.0
        self.kill_at: float | None = None
        self.end_at: float | None = None
        self.oom_kills = 0

    @property
    def identity(self) -> int:
        """The attempt's id."""
        return self.run.identity

    def due(self, running_delay: float) -> list[float]:
        """Return when something is to be done about it."""
        found = [at for at in (self.kill_at, self.end_at) if at is not None]
        return found if self.told_running else [*found, self.started_at + running_delay]


class Work:
    """Tasks, reports, and what the server said."""

    def __init__(self) -> None:
        self.width = 1
        self.queue: deque[Task] = deque()
        self.running: dict[int, Task] = {}
        self.reports: list[dict[str, Any]] = []
        self.is_over = False
        self.is_dry = False  # the server had less than was asked for
        self.is_leaving = False
        self.mean_seconds = AHEAD_SECONDS

    def learn(self, seconds: float) -> None:
        """Note how long a command took."""
        self.mean_seconds += NEWEST_SHARE * (seconds - self.mean_seconds)

    @property
    def free(self) -> int:
        """How many more commands could run than there are tasks for."""
        return max(0, self.width - len(self.running) - len(self.queue))

    def ahead(self) -> int:
        """Return how many tasks should wait here."""
        return min(AHEAD_MAX, int(AHEAD_SECONDS * self.width / max(self.mean_seconds, 1e-3)))

    def wanted(self) -> tuple[int, int]:
        """Return how many tasks to start at once, and how many ahead, are to be asked for now."""
        if self.is_over or self.is_dry or self.is_leaving:
            return 0, 0
        missing = self.ahead() - max(0, len(self.queue) - max(0, self.width - len(self.running)))
        return self.free, max(0, missing)

    def is_hungry(self) -> bool:
        """Whether work is to be asked for without waiting for another reason to."""
        now, ahead = self.wanted()
        return now > 0 or ahead * 2 > self.ahead()

    @property
    def identities(self) -> list[int]:
        """All attempts that are here."""
        return [*self.running, *(task.identity for task in self.queue)]

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left but to say so."""
        return (self.is_over or self.is_leaving) and not self.queue and not self.running

    def take(self, content: Mapping[str, Any], asked: tuple[int, int]) -> None:
        """Take the server's answer to a request for so many."""
        job, tasks = content["job"], content["tasks"]
        self.width = int(job["width"])
        columns = ("task_instance_ids", "task_ids", "names", "commands", "attempts")
        rows = list(zip(*(tasks[column] for column in columns), strict=True))
        known = set(self.identities)
        for place, (identity, task_id, name, command, attempt) in enumerate(rows):
            if identity in known:
                continue
            own = {"task_instance_id": identity, "task_id": task_id, "task_name": name, "command": command}
            self.queue.append(Task({**job, **own, "attempt": attempt}, told_running=place < asked[0]))
        self.is_over = self.is_over or bool(content["over"])
        if sum(asked) > len(rows):
            self.is_dry = True

    def give_back(self) -> None:
        """What was not started is not to be started here any more."""
        while self.queue:
            self.reports.append(_given_back(self.queue.popleft().identity))


def _given_back(identity: int) -> dict[str, Any]:
    return {"task_instance_id": identity, "status": UNKNOWN_ERROR, "cause": WORKER_LOST, "error": NOT_BEGUN}
