"""A batch system, as clusters have it: jobs wait in its queue, then a node runs a stand-alone worker for each.

It may be slow, silent, and wrong about its jobs: `scenario.Lies` says how often.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import signal
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import SUBMISSION_TOKEN, ClusterDistributor
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.exceptions import ClusterUnavailable, RemoteExitInfoNotAvailable
from jobmon.testing.simulation.ferry import Ferry
from jobmon.testing.simulation.nodes import Ground, Node
from jobmon.testing.simulation.scenario import Lies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from jobmon.testing.simulation.network import Part

JOB_VARIABLE: Final = "GRID_JOB"
STEP_VARIABLE: Final = "GRID_STEP"
#: A command of the cluster takes so long, mostly.
CALL_SECONDS_MAX: Final = 1.0
CALL_SECONDS_SLOW: Final = 60.0
#: A job that is told to end has so long before all of it is killed.
GRACE_SECONDS: Final = 30.0
CLEANUP_SECONDS_MAX: Final = 3.0
#: So long after its end a cluster may not know how a job ended, or still list it.
ACCOUNTING_SECONDS_MAX: Final = 60.0
LISTED_SECONDS_MAX: Final = 600.0
SLOW_START_SECONDS_MAX: Final = 1800.0
#: Until a lost node is noticed.
NODE_LOSS_SECONDS_MAX: Final = 300.0
SILENCE_SECONDS_MAX: Final = 1200.0
STUCK_NOTICED_SECONDS: Final = 120.0

#: The ferry on which the plug-in's code is just now.
FERRY: Final[contextvars.ContextVar[Ferry]] = contextvars.ContextVar("FERRY")
TI = TaskInstanceStatus


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Do as `asyncio.to_thread`, on virtual time."""
    ferry = Ferry()
    FERRY.set(ferry)
    return await ferry.carry(lambda: function(*arguments))


@dataclass(slots=True, eq=False)
class Job:
    """One job, or one step of an array."""

    identity: str
    step: int
    command: str
    token: str | None
    launched_by: str
    ready_at: float
    is_stuck: bool = False
    is_lied_about: bool = False
    node: Node | None = None
    told_to_end: bool = False
    ended_at: float | None = None
    ending: tuple[TaskInstanceStatus, str] = field(default=(TI.UNKNOWN_ERROR, "nothing is known of it"))
    known_from: float = 0.0
    listed_until: float = 0.0

    def lie(self) -> None:
        """Something was told of it that is not so."""
        self.is_lied_about = True
        if self.node is not None:
            self.node.is_lied_about = True


class Grid:
    """See the module.

    Args:
        ground: what its nodes stand on.
        slots: how many jobs run at once.
        lies: how it errs; `honest` puts an end to that.
    """

    def __init__(self, ground: Ground, slots: int, lies: Lies) -> None:
        self.ground = ground
        self.slots = slots
        self.lies = lies
        self.jobs: dict[str, Job] = {}
        self.faults: Counter[str] = Counter()
        self.silent_until = 0.0
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._numbers = itertools.count(1)
        self._loop = ground.loop
        self._dice = ground.dice

    @property
    def now(self) -> float:
        """The virtual time."""
        return self._loop.time()

    @property
    def is_busy(self) -> bool:
        """Whether something waits that will start, or runs."""
        return bool(self._running) or any(not job.is_stuck for job in self._waiting)

    def errs(self, how: str) -> bool:
        """Throw the dice whether it errs so now."""
        chance = getattr(self.lies, how)
        happens = chance > 0 and self._dice.random() < chance
        if happens:
            self.faults[f"grid {how.replace('_', ' ')}"] += 1
        return bool(happens)

    def honest(self) -> None:
        """Err no more."""
        self.lies = Lies()
        self.silent_until = 0.0
        for job in self._waiting:
            job.ready_at = min(job.ready_at, self._loop.time())
        self._start_jobs()

    # -- jobs --------------------------------------------------------------------------------------------------

    def submit(self, command: str, token: str | None, launched_by: str, steps: int) -> dict[int, str]:
        """Take a job or an array; return step -> id."""
        number = next(self._numbers)
        ids = {}
        for step in range(steps):
            ids[step] = f"{number}_{step}"
            self._take(Job(ids[step], step, command, token, launched_by, self._loop.time()))
        self._start_jobs()
        return ids

    def _take(self, job: Job) -> None:
        if self.errs("loses"):
            job.lie()
            return
        self.jobs[job.identity] = job
        job.is_stuck = self.errs("never_starts")
        if job.is_stuck:
            job.lie()
        if self.errs("slow_start"):
            job.ready_at += self._dice.uniform(1.0, SLOW_START_SECONDS_MAX)
            self._loop.call_at(job.ready_at, self._start_jobs)
        self._waiting.append(job)

    def _start_jobs(self) -> None:
        now = self._loop.time()
        for job in list(self._waiting):
            if len(self._running) >= self.slots:
                return
            if job.ready_at <= now and not job.is_stuck:
                self._waiting.remove(job)
                self._running.add(job)
                self._start(job)

    def _start(self, job: Job) -> None:
        words = job.command.split()[1:]
        variables = {JOB_VARIABLE: job.identity, STEP_VARIABLE: str(job.step)}
        job.node = Node(
            self.ground,
            words,
            variables,
            job.launched_by,
            on_end=lambda code: self._worker_ended(job, code),
            on_out_of_time=lambda: self._out_of_time(job),
        )
        job.node.is_lied_about = job.is_lied_about

    def _worker_ended(self, job: Job, code: int) -> None:
        if code == 0:
            ending = TI.DONE, ""
        elif code > 0:
            ending = TI.ERROR, f"the job ended with {code}"
        else:
            ending = TI.UNKNOWN_ERROR, f"the job was ended by signal {-code}"
        self._clean_up(job, ending)

    def _out_of_time(self, job: Job) -> None:
        if job.node is not None:
            job.ending = TI.RESOURCE_ERROR, "out of time"
            job.node.signal(signal.SIGKILL)
            job.node.end_command(signal.SIGKILL)

    def _clean_up(self, job: Job, ending: tuple[TaskInstanceStatus, str]) -> None:
        """What a worker left behind is killed; then the job is over."""
        if job.ending[0] is not TI.RESOURCE_ERROR:
            job.ending = ending
        self._loop.call_later(self._dice.uniform(0.0, CLEANUP_SECONDS_MAX), self._end, job)

    def _end(self, job: Job) -> None:
        if job.ended_at is not None:
            return
        if job.node is not None:
            job.node.end_command(signal.SIGKILL)
        now = self._loop.time()
        job.ended_at = now
        job.known_from = now + self._dice.uniform(0.0, ACCOUNTING_SECONDS_MAX)
        if self.errs("forgets"):
            job.known_from = float("inf")
        if self.errs("says_alive"):
            job.listed_until = now + self._dice.uniform(1.0, LISTED_SECONDS_MAX)
        self._running.discard(job)
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)
        self._start_jobs()

    # -- questions and orders ----------------------------------------------------------------------------------

    def lists(self, identity: str) -> bool:
        """Say whether a job waits or runs; not always rightly."""
        job = self.jobs.get(identity)
        if job is None:
            return False
        if job.ended_at is not None:
            return self._loop.time() < job.listed_until
        if self.errs("says_gone"):
            job.lie()
            return False
        return True

    def exit_info(self, identity: str) -> tuple[TaskInstanceStatus, str]:
        """Say how a job ended."""
        job = self.jobs.get(identity)
        if job is None or job.ended_at is None or self._loop.time() < job.known_from:
            if job is not None and job.ended_at is None and self.errs("says_failed"):
                job.lie()
                return TI.ERROR, "it failed (or so it is said)"
            raise RemoteExitInfoNotAvailable(identity)
        return job.ending

    def stuck(self, identity: str) -> str | None:
        """Say why a job will never start."""
        job = self.jobs.get(identity)
        is_noticed = job is not None and job.is_stuck and self._loop.time() > job.ready_at + STUCK_NOTICED_SECONDS
        return "no node will ever do" if is_noticed else None

    def terminate(self, identity: str) -> None:
        """End a job."""
        job = self.jobs.get(identity)
        if job is None or job.ended_at is not None:
            return
        if job.node is None:
            job.ending = TI.UNKNOWN_ERROR, "cancelled before it was started"
            self._end(job)
        elif not job.told_to_end:
            job.told_to_end = True
            job.node.signal(signal.SIGTERM)
            self._loop.call_later(GRACE_SECONDS, self._kill, job)

    def _kill(self, job: Job) -> None:
        if job.ended_at is None and job.node is not None:
            job.node.signal(signal.SIGKILL)
            job.node.end_command(signal.SIGKILL)

    def find(self, tokens: Collection[str]) -> dict[str, dict[int, str]]:
        """Return what was submitted under these tokens: token -> step -> id."""
        found: dict[str, dict[int, str]] = {}
        for job in self.jobs.values():
            if job.token in tokens and job.token is not None:
                found.setdefault(job.token, {})[job.step] = job.identity
        return found

    # -- what may befall it ------------------------------------------------------------------------------------

    def _some(self) -> Job | None:
        running = sorted((job for job in self._running if job.node is not None), key=lambda job: job.identity)
        running = [job for job in running if job.node is not None and job.node.is_alive]
        return self._dice.choice(running) if running else None

    def lose_node(self) -> str:
        """Lose a node; the cluster notices some time later."""
        job = self._some()
        if job is None or job.node is None:
            return ""
        self._note_unlucky(job)
        job.node.lose()
        job.ending = TI.UNKNOWN_ERROR, "its node was lost"
        self._loop.call_later(self._dice.uniform(1.0, NODE_LOSS_SECONDS_MAX), self._end, job)
        return f"of job {job.identity}"

    def kill_worker(self) -> str:
        """Kill a worker; its command lives for a moment."""
        job = self._some()
        if job is None or job.node is None:
            return ""
        self._note_unlucky(job)
        job.node.signal(signal.SIGKILL)
        return f"of job {job.identity}"

    def pause_worker(self, seconds: float) -> str:
        """Freeze a worker."""
        job = self._some()
        if job is None or job.node is None:
            return ""
        job.node.pause(seconds)
        return f"of job {job.identity} for {seconds} s"

    def cut_off_worker(self, seconds: float) -> str:
        """Take the network of a worker away."""
        job = self._some()
        if job is None or job.node is None:
            return ""
        job.node.cut_off(seconds)
        return f"of job {job.identity} for {seconds} s"

    def be_silent(self) -> str:
        """Answer nothing for a while."""
        seconds = round(SILENCE_SECONDS_MAX * self._dice.random() ** 2, 3)
        self.silent_until = max(self.silent_until, self._loop.time() + seconds)
        return f"for {seconds} s"

    def _note_unlucky(self, job: Job) -> None:
        if job.node is not None and job.node.command is not None:
            self.ground.fates.unlucky.add(job.node.command.index)


class GridDistributor(ClusterDistributor):
    """The plug-in of a grid in one distributor. Its methods take time, as commands of a cluster do.

    Args:
        cluster_name: its name.
        grid: the grid.
        part: the process in which it lives.
    """

    def __init__(self, cluster_name: str, grid: Grid, part: Part) -> None:
        super().__init__(cluster_name)
        self._grid = grid
        self._part = part

    @property
    def worker_node_entry_point(self) -> str:
        """See `ClusterDistributor`."""
        return f"worker --distributor-id-variable {JOB_VARIABLE} --array-step-variable {STEP_VARIABLE}"

    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """See `ClusterDistributor`."""
        return self._submit(command, requested_resources, 1).get(0, "")

    def submit_array_to_batch_distributor(
        self, command: str, name: str, requested_resources: dict[str, Any], array_length: int
    ) -> dict[int, str]:
        """See `ClusterDistributor`."""
        if not self._grid.lies.has_arrays:
            raise AttributeError("This grid has no arrays.")
        return self._submit(command, requested_resources, array_length)

    def _submit(self, command: str, requested: dict[str, Any], steps: int) -> dict[int, str]:
        grid = self._grid
        self._call()
        token = requested.get(SUBMISSION_TOKEN)
        ids = grid.submit(command, token, self._part.name, steps)
        self._take_time(CALL_SECONDS_MAX)
        if grid.errs("refuses_what_it_took"):
            self._lie(ids)
            raise RuntimeError("the answer to the submission was lost")
        for step in list(ids):
            if grid.errs("gives_no_id"):
                self._lie({step: ids.pop(step)})
        return ids

    def _lie(self, ids: dict[int, str]) -> None:
        for identity in ids.values():
            if identity in self._grid.jobs:
                self._grid.jobs[identity].lie()

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """See `ClusterDistributor`."""
        self._call()
        asked = list(self._grid.jobs) if distributor_ids is None else distributor_ids
        return {identity for identity in asked if self._grid.lists(identity)}

    def get_queueing_errors(self, distributor_ids: list[str]) -> dict[str, str]:
        """See `ClusterDistributor`."""
        reasons = {identity: self._grid.stuck(identity) for identity in distributor_ids}
        return {identity: reason for identity, reason in reasons.items() if reason is not None}

    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """See `ClusterDistributor`."""
        self._call()
        for identity in distributor_ids:
            self._grid.terminate(identity)

    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """See `ClusterDistributor`."""
        return self._grid.exit_info(distributor_id)

    def find_submitted(self, tokens: Collection[str]) -> dict[str, dict[int, str]]:
        """See `ClusterDistributor`."""
        self._call()
        return self._grid.find(tokens)

    def _call(self) -> None:
        """Take the time of one command of the cluster, which may fail."""
        slow = self._grid.errs("slow_call")
        self._take_time(CALL_SECONDS_SLOW if slow else CALL_SECONDS_MAX)
        if self._grid.now < self._grid.silent_until or self._grid.errs("silent"):
            raise ClusterUnavailable("The grid does not answer.")

    def _take_time(self, most: float) -> None:
        FERRY.get().wait_for(asyncio.sleep(self._grid.ground.dice.uniform(0.01, most)))
        if self._part.is_dead:
            raise asyncio.CancelledError
