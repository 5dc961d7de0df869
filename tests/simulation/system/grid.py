"""A batch system: jobs wait in its queue, then a node runs a worker for each.

A job runs one task, or takes many from the server. The batch system may be slow, unresponsive, and wrong about its jobs
and nodes; `scenario.Lies` defines how often.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.simulation.system.clocks import BEGINNING
from tests.simulation.system.nodes import Ground, Node
from tests.simulation.system.scenario import Lies

from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import SubmissionDeferred

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.simulation.system.network import Part

JOB_VARIABLE: Final = "GRID_JOB"
STEP_VARIABLE: Final = "GRID_STEP"
#: Time between asking a job to exit and killing all its processes.
GRACE_SECONDS: Final = 30.0
CLEANUP_SECONDS_MAX: Final = 3.0
#: Maximum time after the end of a job during which its outcome may be unknown or the job may still be listed.
ACCOUNTING_SECONDS_MAX: Final = 60.0
LISTED_SECONDS_MAX: Final = 600.0
SLOW_START_SECONDS_MAX: Final = 1800.0
#: Maximum time until the loss of a node is noticed.
NODE_LOSS_SECONDS_MAX: Final = 300.0
SILENCE_SECONDS_MAX: Final = 1200.0
TROUBLE_SECONDS_MAX: Final = 300.0
FULL_SECONDS_MAX: Final = 1800.0
STUCK_NOTICED_SECONDS: Final = 120.0
#: Minimum delay of late accounting, and minimum time for which a job appears to be gone.
LATE_SECONDS_MIN: Final = 60.0
LATE_SECONDS_MAX: Final = 900.0
VANISHES_AFTER_SECONDS_MAX: Final = 300.0
TI = TaskInstanceStatus
NOTHING_KNOWN: Final = RemoteExit(status=TI.UNKNOWN_ERROR, message="nothing is known of it")
OUT_OF_TIME: Final = RemoteExit(status=TI.RESOURCE_ERROR, message="out of time", cause=Cause.OUT_OF_TIME)
PREEMPTED: Final = RemoteExit(status=TI.UNKNOWN_ERROR, message="it was preempted", cause=Cause.PREEMPTED)
CANCELLED: Final = RemoteExit(status=TI.ERROR, message="it was cancelled", cause=Cause.KILLED)
NODE_DOWN: Final = RemoteExit(status=TI.UNKNOWN_ERROR, message="its node failed", cause=Cause.NODE_FAILURE)


@dataclass(slots=True, eq=False)
class Job:
    """One job, or one step of an array."""

    identity: str
    step: int
    command: str
    token: str | None
    ready_at: float
    runtime: float | None = None
    is_stuck: bool = False
    is_lied_about: bool = False
    node: Node | None = None
    told_to_end: bool = False
    ended_at: float | None = None
    ending: RemoteExit = NOTHING_KNOWN
    #: Why the cluster terminated it for a reason of its own; None: it did not.
    reason: RemoteExit | None = None
    known_from: float = 0.0
    listed_until: float = 0.0
    #: The time span during which it appears to be gone, and its reported outcome during that time.
    vanished: tuple[float, float] = (0.0, 0.0)
    stale_report: RemoteExit | None = None

    def lie(self) -> None:
        """Record that a false answer was given about it."""
        self.is_lied_about = True
        if self.node is not None:
            self.node.is_lied_about = True


class Grid:
    """A batch system; see the module docstring.

    Args:
        ground: the environment that its nodes share.
        slots: the number of jobs that run concurrently.
        lies: how often it gives false answers, until `honest` is called.
    """

    def __init__(self, ground: Ground, slots: int, lies: Lies) -> None:
        self.ground = ground
        self.slots = slots
        self.lies = lies
        self.jobs: dict[str, Job] = {}
        self.faults: Counter[str] = Counter()
        self.silent_until = 0.0
        #: Until when it accepts no jobs, because it is full, or for a reason that it cannot name.
        self.full_until = 0.0
        self.troubled_until = 0.0
        #: When the last poll of all jobs completed, if that is supported, and the part that last began one.
        self.looked_at = 0.0
        self.watcher: Part | None = None
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._numbers = itertools.count(1)
        self._loop = ground.loop
        self._dice = ground.dice

    @property
    def now(self) -> float:
        """The virtual time, seconds."""
        return self._loop.time()

    @property
    def is_busy(self) -> bool:
        """Whether a job is running, or is waiting and will start."""
        return bool(self._running) or any(not job.is_stuck for job in self._waiting)

    def errs(self, how: str) -> bool:
        """Return at random whether it gives a false answer of this kind now."""
        chance = getattr(self.lies, how)
        happens = chance > 0 and self._dice.random() < chance
        if happens:
            self.faults[f"grid {how.replace('_', ' ')}"] += 1
        return bool(happens)

    def honest(self) -> None:
        """Stop giving false answers."""
        self.lies = Lies(has_arrays=self.lies.has_arrays, continues_arrays=self.lies.continues_arrays)
        self.silent_until = self.full_until = self.troubled_until = 0.0
        for job in self.jobs.values():
            job.vanished = (0.0, 0.0)
        for job in self._waiting:
            job.ready_at = min(job.ready_at, self._loop.time())
        self._start_jobs()

    # -- jobs --------------------------------------------------------------------------------------------------

    def room(self, steps: int) -> int:
        """Return how many of `steps` fit now; possibly begin to be full, or in trouble, for a time.

        Raises:
            SubmissionDeferred: the batch system is in trouble.
        """
        now = self.now
        if now >= self.troubled_until and self.errs("is_troubled"):
            self.troubled_until = now + self._dice.uniform(1.0, TROUBLE_SECONDS_MAX)
        if now < self.troubled_until:
            raise SubmissionDeferred("The grid's disk reports an unknown error.")
        if now >= self.full_until and self.errs("is_full"):
            self.full_until = now + self._dice.uniform(1.0, FULL_SECONDS_MAX)
        if now < self.full_until:
            return 0
        return self._dice.randrange(steps) if self.errs("fits_partly") else steps

    def submit(
        self,
        command: str,
        token: str | None,
        steps: range,
        runtime: float | None = None,
    ) -> dict[int, str]:
        """Submit a job or an array; return step -> ID. `runtime`: the runtime limit of a packed job."""
        number = next(self._numbers)
        ids = {}
        for step in steps:
            ids[step] = f"{number}_{step}"
            self._take(Job(ids[step], step, command, token, self._loop.time(), runtime))
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
            on_end=lambda code: self._worker_ended(job, code),
            on_out_of_time=lambda: self._out_of_time(job),
        )
        job.node.is_lied_about = job.is_lied_about
        if job.node.is_packed and job.runtime is not None:
            self._loop.call_later(job.runtime, self._end_for, job, OUT_OF_TIME)
        self._spread_stale_reports(job)

    def _spread_stale_reports(self, job: Job) -> None:
        """Possibly report for a time that a running job, or its node, is gone."""
        down = self.errs("says_node_down")
        if not down and not self.errs("vanishes"):
            return
        job.lie()
        begin = self.now + self._dice.uniform(0.0, VANISHES_AFTER_SECONDS_MAX)
        job.vanished = begin, begin + self._dice.uniform(LATE_SECONDS_MIN, LATE_SECONDS_MAX)
        job.stale_report = NODE_DOWN if down else None

    def _worker_ended(self, job: Job, code: int) -> None:
        if code == 0:
            ending = RemoteExit(status=TI.DONE)
        elif code > 0:
            ending = RemoteExit(status=TI.ERROR, message=f"the job ended with {code}")
        else:
            ending = RemoteExit(status=TI.UNKNOWN_ERROR, message=f"the job was ended by signal {-code}")
        job.ending = job.reason if job.reason is not None and code != 0 else ending
        # the worker's leftovers are killed before the job ends
        self._loop.call_later(self._dice.uniform(0.0, CLEANUP_SECONDS_MAX), self._end, job)

    def _out_of_time(self, job: Job) -> None:
        if job.node is not None:
            job.reason = OUT_OF_TIME
            job.node.signal(signal.SIGKILL)
            job.node.end_commands(signal.SIGKILL)

    def _end_for(self, job: Job, reason: RemoteExit) -> None:
        """Terminate a job for a reason of the cluster's own."""
        if job.ended_at is None and job.node is not None and not job.told_to_end:
            if reason is OUT_OF_TIME:  # every task that used up its time is charged
                self._note_unlucky(job)
            job.reason = reason
            self.terminate(job.identity)

    def _end(self, job: Job) -> None:
        if job.ended_at is not None:
            return
        if job.node is not None:
            job.node.end_commands(signal.SIGKILL)
        now = self._loop.time()
        job.ended_at = now
        job.known_from = now + self._dice.uniform(0.0, ACCOUNTING_SECONDS_MAX)
        if self.errs("late_accounting"):
            job.known_from = now + self._dice.uniform(LATE_SECONDS_MIN, LATE_SECONDS_MAX)
        if self.errs("forgets"):
            job.known_from = float("inf")
        if self.errs("says_alive"):
            job.listed_until = now + self._dice.uniform(1.0, LISTED_SECONDS_MAX)
        self._running.discard(job)
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)
        self._start_jobs()

    # -- queries and commands ----------------------------------------------------------------------------------

    def lists(self, identity: str) -> bool:
        """Return whether a job waits or runs; may be wrong."""
        job = self.jobs.get(identity)
        if job is None:
            return False
        if job.ended_at is not None:
            return self._loop.time() < job.listed_until
        return not self._seems_gone(job)

    def _seems_gone(self, job: Job) -> bool:
        begin, end = job.vanished
        if begin <= self.now < end:
            return True
        if self.errs("says_gone"):
            job.lie()
            return True
        return False

    def exit_info(self, identity: str) -> RemoteExit | None:
        """Return the outcome of a job; None: it is not known (yet)."""
        job = self.jobs.get(identity)
        if job is None:
            return None
        if job.ended_at is None:
            return self._stale_report(job)
        return None if self._loop.time() < job.known_from else job.ending

    def exit_info_since(self, identity: str, since: float) -> RemoteExit | None:
        """Return the outcome of a job if it ended after `since` (seconds since the epoch)."""
        job = self.jobs[identity]
        if job.ended_at is not None and BEGINNING.timestamp() + job.ended_at < since:
            return None
        return self.exit_info(identity)

    def _stale_report(self, job: Job) -> RemoteExit | None:
        """Return the false outcome of a running job, if one is reported now."""
        begin, end = job.vanished
        if begin <= self.now < end:
            return job.stale_report
        if self.errs("says_failed"):
            job.lie()
            return RemoteExit(status=TI.ERROR, message="it failed (a stale report)")
        return None

    def stuck(self, identity: str) -> str | None:
        """Return why a job will never start; may be wrong."""
        job = self.jobs.get(identity)
        if job is not None and job.ended_at is None and not job.is_stuck and job.node is None:
            if not self.errs("says_stuck"):
                return None
            job.lie()
            return "no node is suitable (a stale report)"
        is_noticed = job is not None and job.is_stuck and self._loop.time() > job.ready_at + STUCK_NOTICED_SECONDS
        return "no node will ever do" if is_noticed else None

    def terminate(self, identity: str) -> None:
        """Terminate a job."""
        job = self.jobs.get(identity)
        if job is None or job.ended_at is not None:
            return
        if job.node is None:
            job.ending = CANCELLED
            self._end(job)
        elif not job.told_to_end:
            job.told_to_end = True
            job.reason = job.reason or CANCELLED
            job.node.signal(signal.SIGTERM)
            self._loop.call_later(GRACE_SECONDS, self._kill, job)

    def _kill(self, job: Job) -> None:
        if job.ended_at is None and job.node is not None:
            job.node.signal(signal.SIGKILL)
            job.node.end_commands(signal.SIGKILL)

    def find(self, tokens: Collection[str]) -> dict[str, dict[int, str]]:
        """Return what was submitted with these tokens: token -> step -> ID."""
        found: dict[str, dict[int, str]] = {}
        for job in self.jobs.values():
            if job.token in tokens and job.token is not None:
                found.setdefault(job.token, {})[job.step] = job.identity
        return found

    # -- faults ------------------------------------------------------------------------------------------------

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
        job.ending = NODE_DOWN
        self._loop.call_later(self._dice.uniform(1.0, NODE_LOSS_SECONDS_MAX), self._end, job)
        return f"of job {job.identity}"

    def kill_worker(self) -> str:
        """Kill a worker; its command stays alive for a moment."""
        job = self._some()
        if job is None or job.node is None:
            return ""
        self._note_unlucky(job)
        job.node.signal(signal.SIGKILL)
        return f"of job {job.identity}"

    def pause_worker(self, seconds: float) -> str:
        """Freeze a worker for a time."""
        job = self._some()
        if job is None or job.node is None:
            return ""
        job.node.pause(seconds)
        return f"of job {job.identity} for {seconds} s"

    def cut_off_worker(self, seconds: float) -> str:
        """Disconnect the network of a worker for a time."""
        job = self._some()
        if job is None or job.node is None:
            return ""
        job.node.cut_off(seconds)
        return f"of job {job.identity} for {seconds} s"

    def be_silent(self) -> str:
        """Stop answering for a time."""
        seconds = round(SILENCE_SECONDS_MAX * self._dice.random() ** 2, 3)
        self.silent_until = max(self.silent_until, self._loop.time() + seconds)
        return f"for {seconds} s"

    def end_job(self, reason: RemoteExit) -> str:
        """Terminate a random job for a reason of the cluster's own."""
        job = self._some()
        if job is None or job.node is None or job.told_to_end:
            return ""
        self._end_for(job, reason)
        return f"{job.identity}: {reason.message}"

    def packed_nodes(self) -> list[Node]:
        """Return the nodes on which packed jobs run."""
        return [job.node for job in self._running if job.node is not None and job.node.is_packed]

    def _note_unlucky(self, job: Job) -> None:
        if job.node is not None:
            self.ground.fates.unlucky.update(child.command.index for child in job.node.children.values())
