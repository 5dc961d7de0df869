"""One classic cluster: the pending calls to it, its answers, and the consequences of both.

Two activities run concurrently, off the event loop. *Rounds* submit, look up, terminate and poll, one at a time. Where
the plug-in can list all jobs at once, *watching* provides the views from which rounds are answered. Workers report
outcomes to the server directly, so polling covers only what no worker reports and can be infrequent.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.wire.launching import LaunchProblem
from jobmon.distributor.backoff import SUBMITTED_SECONDS, Backoff, PollingInterval
from jobmon.distributor.cluster_calls import Call, ClusterCalls, Result
from jobmon.distributor.incidents import UNHEARD_SECONDS, Incidents
from jobmon.distributor.inflight import Triage
from jobmon.distributor.packed import is_job
from jobmon.distributor.submissions import PATIENCE_SECONDS, Submission, SubmissionQueue
from jobmon.distributor.watching import InThread, Sight, Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobmon.core.clock import Clock
    from jobmon.core.cluster_protocol import ClusterDistributor
    from jobmon.core.wire.launching import LaunchBatch
    from jobmon.distributor.gateway import Gateway
    from jobmon.distributor.inflight import Doubt
    from jobmon.distributor.state import DistributorState
    from jobmon.distributor.undelivered import UndeliveredReports

logger = logging.getLogger(__name__)
#: How long the outcome of a job that the cluster no longer lists may remain unknown.
EXIT_UNKNOWN_SECONDS: Final = 120.0
#: The same for a job that was to be terminated.
KILLED_SECONDS: Final = 4.0
#: How long to wait for the worker's report after its job exited successfully.
UNREPORTED_SECONDS: Final = 60.0
#: Packed jobs report start and exit to the server; a job that cannot start is detected after this long.
PACKED_SECONDS: Final = 5.0
#: Accounting may lag by this much, so each poll includes jobs that ended this long before it.
OVERLAP_SECONDS: Final = 600.0
#: Minimum interval between reports of pending reasons, and the maximum number per report.
PENDING_SECONDS: Final = 30.0
PENDING_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """How a cluster is polled.

    `interval`: longest time between two polls, seconds. `calls_per_minute`: maximum number of calls. `holder`: name of
    this distributor. `patience`: how long a submission that fails for an unknown reason is retried, seconds.
    `server`: address of the server as given to jobs. `unheard`: how long a job runs before checking that its worker
    reached the server, seconds.
    """

    interval: float = 10.0
    calls_per_minute: float = 60.0
    holder: str = ""
    patience: float = PATIENCE_SECONDS
    server: str = ""
    unheard: float = UNHEARD_SECONDS


@dataclass(slots=True)
class _Unsettled:
    """Attempts the cluster no longer lists, by the time their outcome became unknown or unreported."""

    missing: dict[int, float] = field(default_factory=dict)
    unreported: dict[int, float] = field(default_factory=dict)

    def forget(self, identity: int) -> None:
        self.missing.pop(identity, None)
        self.unreported.pop(identity, None)


class ClassicCluster:
    """Manage one classic cluster for a distributor.

    Args:
        adapter: the cluster's plug-in.
        state: the distributor's state.
        calls: performs the blocking calls.
        watching: how the cluster is polled.
        gateway: interface to the server, for what is shared with other distributors.
        clock: source of time.
        undelivered: reports that workers could not deliver.
        in_thread: runs a function without blocking the event loop.
    """

    def __init__(
        self,
        adapter: ClusterDistributor,
        state: DistributorState,
        calls: ClusterCalls,
        watching: Watching,
        gateway: Gateway,
        clock: Clock,
        undelivered: UndeliveredReports,
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        self.name = adapter.cluster_name
        self._adapter = adapter
        self._state = state
        self._calls = calls
        self._clock = clock
        self._undelivered = undelivered
        self._in_thread = in_thread
        self._pace = PollingInterval(watching.interval, watching.calls_per_minute, clock.monotonic())
        self._watch = (
            Watch(adapter, gateway, watching.holder, self._pace, clock, in_thread) if adapter.shares_watch else None
        )
        self._backoff = Backoff()
        self._queue = SubmissionQueue(watching.patience)
        self._incidents = Incidents(watching.server, watching.unheard)
        self._doubts: list[Doubt] = []
        self._unheard: list[int] = []  # attempts about which the server is being asked
        self._packed_doubts: list[int] = []
        self._packed_lost: dict[int, tuple[Submission, str]] = {}
        self._kill: list[str] = []
        self._unsettled = _Unsettled()
        self._from_disk: set[int] = set()
        self._round: asyncio.Task[Result] | None = None
        self._look: asyncio.Task[Sight] | None = None
        self._ends_jobs = False  # whether the current round terminates jobs
        self._sight: Sight | None = None
        self._asked: Sight | None = None
        self._look_at = 0.0
        self._covered_until: float | None = None
        self._pending_at = 0.0
        self._problem_since: float | None = None
        self._told_hold_up = ""
        self._attempts = 0

    # -- pending work ------------------------------------------------------------------------------------------

    def submit(self, batches: Iterable[LaunchBatch]) -> None:
        """Submit batches in the next round."""
        self._queue.add(batches, self._clock.monotonic())

    def find(self, doubts: Iterable[Doubt]) -> None:
        """Look up unconfirmed submissions in the next round."""
        self._doubts += doubts

    def find_packed(self, numbers: Iterable[int]) -> None:
        """Look up packed batches in the next round."""
        self._packed_doubts += numbers

    def terminate(self, distributor_ids: Iterable[str]) -> None:
        """Terminate jobs in the next round."""
        self._kill += distributor_ids
        self._pace.hurry()

    def urge(self) -> None:
        """Poll soon if the cluster has any attempts, because the status of some is unknown."""
        if self._state.classic(self.name):
            self._pace.urge()

    def acknowledge(self, ended: Iterable[int]) -> None:
        """Delete the kept reports of attempts whose outcome the server has recorded."""
        if settled := self._from_disk.intersection(ended):
            self._undelivered.remove(settled)
            self._from_disk -= settled

    def forget(self, ended: Iterable[int]) -> None:
        """Drop attempts whose outcome the server knows."""
        ended = list(ended)
        self._queue.exited(len(ended))
        self._incidents.forget(ended)
        for identity in ended:
            self._unsettled.forget(identity)

    def alive(self) -> list[int]:
        """Return the attempts believed to be alive; while a cluster does not respond, all that were alive."""
        gone = self._unsettled
        held = self._state.classic(self.name).values()
        return [one for one in held if one not in gone.missing and one not in gone.unreported]

    @property
    def is_terminating(self) -> bool:
        """Whether jobs remain to be terminated, or are being terminated, on a cluster that responds."""
        return (bool(self._kill) and not self._backoff.is_failing) or (self._round is not None and self._ends_jobs)

    @property
    def wants_endings(self) -> bool:
        """Whether outcomes that workers may have reported to the server are awaited here, or would free up capacity."""
        return bool(self._unsettled.unreported) or self._queue.is_full

    # -- workers that have not been heard from -----------------------------------------------------------------

    @property
    def ask_unheard_at(self) -> float | None:
        """When to ask the server about such jobs (monotonic seconds); None if there are none."""
        return self._incidents.due()

    def ask_unheard(self) -> list[int]:
        """Return running attempts and packed jobs to ask the server about: their worker has not been heard from."""
        if asked := self._incidents.ask(self._clock.monotonic()):
            self._unheard = asked
        return asked

    def take_heard(self, attempts: Iterable[int], jobs: Iterable[str]) -> None:
        """Process the server's answer: the attempts and jobs whose worker has contacted it."""
        held = self._state.classic(self.name)
        heard = [*attempts, *(held[one] for one in jobs if one in held)]
        silent = self._incidents.answered(self._unheard, heard, self._clock.monotonic())
        self._unheard = []
        self._state.outbox.changes.pending.update({one: why for one, why in silent.items() if not is_job(one)})

    # -- life cycle --------------------------------------------------------------------------------------------

    def advance(self) -> tuple[list[asyncio.Task[Any]], list[float]]:
        """Process finished work and start what is due; return the started tasks and the times of the next due work."""
        now = self._clock.monotonic()
        if self._round is not None and self._round.done():
            result, self._round = self._round.result(), None
            self._take_in(result, now)
        if self._look is not None and self._look.done():
            sight, self._look = self._look.result(), None
            self._take_sight(sight, now)
        begun: list[asyncio.Task[Any]] = []
        due: list[float] = []
        if self._watch is not None and self._state.classic(self.name):
            self._begin_look(self._watch, now, begun, due)
        if self._round is None:
            self._begin_round(now, begun, due)
        return begun, due

    def leave(self) -> list[asyncio.Task[Any]]:
        """Log the calls made to the cluster, cancel pending tasks, and return them."""
        tasks: list[asyncio.Task[Any]] = [task for task in (self._round, self._look) if task is not None]
        for task in tasks:
            task.cancel()
        calls = self._adapter.calls
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(calls.items()))
        logger.info("Cluster %s: %d calls (%s) for %d attempts.", self.name, calls.total(), kinds, self._attempts)
        return tasks

    def _begin_look(self, watch: Watch, now: float, begun: list[asyncio.Task[Any]], due: list[float]) -> None:
        if self._look is not None or self._sight is not None:
            return
        at = max(self._pace.due, self._look_at)
        if now < at:
            due.append(at)
            return
        self._look = asyncio.create_task(watch.see(self._wanted_since()))
        begun.append(self._look)

    def _wanted_since(self) -> float:
        """Return since when exits are needed: since the last view, or since the oldest adopted attempt was launched."""
        adopted = self._state.records.clusters[self.name].adopted_since
        since = self._covered_until or min(adopted or self._clock.now().timestamp(), self._clock.now().timestamp())
        return max(0.0, since - OVERLAP_SECONDS)

    def _begin_round(self, now: float, begun: list[asyncio.Task[Any]], due: list[float]) -> None:
        call = Call()
        if self._queue and (unwanted := self._state.unwanted(self._queue.attempts())):
            self._state.withdrawn(self._queue.drop(unwanted))
        if self._kill or self._doubts or self._packed_doubts:
            if now >= self._backoff.until:
                call.doubts, call.kill, call.packed_doubts = self._doubts, self._kill, self._packed_doubts
                self._doubts, self._kill, self._packed_doubts = [], [], []
            else:
                due.append(self._backoff.until)
        call.submissions = self._queue.take(now)
        if (next_try := self._queue.due()) is not None:
            due.append(next_try)
        self._add_questions(call, now, due)
        if call.submissions or call.doubts or call.packed_doubts or call.kill or call.ask is not None:
            self._ends_jobs = bool(call.kill)
            self._round = asyncio.create_task(self._run(call))
            begun.append(self._round)

    def _add_questions(self, call: Call, now: float, due: list[float]) -> None:
        held = self._state.classic(self.name)
        if not held:
            self._sight = None
            return
        if self._state.outbox.is_full:
            return  # reports must be delivered first; the server's response wakes us
        if self._watch is None:
            if now < self._pace.due:
                due.append(self._pace.due)
                return
            self._asked = Sight(began_at=now)
        elif self._sight is not None:
            self._asked, self._sight = self._sight, None
            call.view = self._asked.view
        else:
            return
        call.ask = self._state.submitted_until(self.name, self._asked.began_at)

    async def _run(self, call: Call) -> Result:
        return await self._in_thread(self._calls.work, call)

    # -- results -----------------------------------------------------------------------------------------------

    def _take_sight(self, sight: Sight, now: float) -> None:
        self._look_at = sight.retry
        if sight.view is not None:
            self._sight = sight
        self._note_problem(sight.problem, now)

    def _note_problem(self, problem: str, now: float) -> None:
        """Log once that the cluster stopped responding, and once that it recovered."""
        if problem and self._problem_since is None:
            self._problem_since = now
            logger.warning("Cluster %s is not responding; retrying. %s", self.name, problem)
        elif not problem and self._problem_since is not None and not self._is_failing:
            logger.warning("Cluster %s is responding again, after %.0f s.", self.name, now - self._problem_since)
            self._problem_since = None

    @property
    def _is_failing(self) -> bool:
        return self._backoff.is_failing or self._pace.backoff.is_failing

    def _note_hold_up(self) -> None:
        """Log once why attempts are waiting to be submitted, and once that they no longer are."""
        if self._queue.is_away:
            return  # already logged for the cluster as a whole
        found = self._queue.hold_up()
        text = "" if found is None else found.text
        if text == self._told_hold_up:
            return
        if found is not None:
            pause = max(0.0, found.next_at - self._clock.monotonic())
            logger.warning(
                "Cluster %s: %d attempts are waiting to be submitted; next try in %.0f s. %s",
                self.name, found.waiting, pause, text,
            )  # fmt: skip
        else:
            logger.warning("Cluster %s accepts submissions again.", self.name)
        self._told_hold_up = text

    def problem(self) -> LaunchProblem | None:
        """Return why attempts cannot be submitted or started, for the server; None if nothing prevents it."""
        now = self._clock.monotonic()
        found, incidents = self._queue.hold_up(), self._incidents.problem(now)
        if found is None or (incidents is not None and incidents.waiting):
            return incidents
        return LaunchProblem(
            text=found.text,
            since_seconds=max(0.0, now - found.since),
            tried_seconds=max(0.0, now - found.tried_at),
            next_seconds=max(0.0, found.next_at - now),
            waiting=found.waiting,
        )

    def _take_in(self, result: Result, now: float) -> None:
        self._take_submissions(result, now)
        self._take_failures(result, now)
        for report in result.from_disk:
            self._from_disk.add(report.task_instance_id)
            self.forget([report.task_instance_id])
            self._state.classic_told(report)
        for report in result.packed_from_disk:
            self._from_disk.add(report.task_instance_id)
            self._state.packed_told(report)
        for identity, reason in result.stuck.items():
            self.forget([identity])
            self._state.classic_stuck(identity, reason)
        if result.is_asked or result.ask_problem:
            self._take_answers(result, now)

    def _take_submissions(self, result: Result, now: float) -> None:
        self._queue.put_back(result.untried)
        self._queue.accepted(result.accepted, now)
        if result.submitted:
            self._attempts += len(result.submitted)
            self._kill += self._state.submitted(self.name, result.submitted, now)
            self._pace.hurry(SUBMITTED_SECONDS)
        self._take_packed(result, now)
        for identities, reason in result.refused:
            self._state.refused(identities, reason)
        for submission, kind, text in result.set_back:
            overdue = self._queue.set_back(submission, kind, text, now)
            self._state.refused([one for each in overdue for one in each.batch.task_instance_ids], text)
        self._take_not_found(result.not_found, now)
        if result.unanswered:
            self._queue.no_answer(result.unanswered, now)
        self._queue.round_over(now, is_away=bool(result.unanswered))
        self._note_hold_up()

    def _take_not_found(self, doubts: Sequence[Doubt], now: float) -> None:
        """Requeue attempts that the cluster does not have, or reject them if the plug-in has failed for too long."""
        reasons = {doubt.key: doubt.reason for doubt in doubts if doubt.reason}
        is_patient = {key: self._queue.lost(key, reason, now) for key, reason in reasons.items()}
        for doubt in doubts:
            if doubt.reason and not is_patient[doubt.key]:
                self._state.refused([doubt.task_instance_id], doubt.reason)
            else:
                self._state.unsubmitted([doubt.task_instance_id])

    def _take_packed(self, result: Result, now: float) -> None:
        for batch, ids in result.packed:
            self._attempts += len(batch.task_instance_ids)
            self._state.packed_handed_over(batch)
            if batch.batch_number not in result.packed_doubts:
                self._state.packed_found(batch.batch_number, ids, now)
                self._pace.hurry(PACKED_SECONDS)
        self._packed_lost.update(result.packed_lost)
        for number, ids in result.packed_found.items():
            submission, reason = self._packed_lost.pop(number, (None, ""))
            if submission is not None and not ids and not self._queue.lost(submission.key, reason, now):
                self._state.refused(submission.batch.task_instance_ids, reason)
            self._state.packed_found(number, ids)
        self._packed_doubts += result.packed_doubts

    def _take_failures(self, result: Result, now: float) -> None:
        """Keep failed actions; the next round performs them first."""
        self._doubts = [*result.doubts, *self._doubts]
        self._kill = [*result.not_killed, *self._kill]
        if result.problem:
            pause = self._backoff.failed(now)
            logger.info("Cluster %s: retrying in %.0f s. %s", self.name, pause, result.problem)
        elif result.has_acted:
            self._backoff.succeeded()
        if result.problem or result.unanswered:
            self._note_problem(result.problem or result.unanswered, now)
        elif result.has_acted or result.accepted:
            self._note_problem("", now)

    def _take_answers(self, result: Result, now: float) -> None:
        if not result.is_asked:
            self._pace.failed(now)
            self._note_problem(result.ask_problem, now)
            return
        asked, self._asked = self._asked or Sight(), None
        if self._watch is None:
            self._pace.looked(now, now - asked.began_at)
            self._note_problem("", now)
        elif asked.since <= self._wanted_since():
            self._covered_until = self._clock.now().timestamp() - (now - asked.began_at)
        self._incidents.saw_running(result.running, now)
        for identity in result.alive:
            self._unsettled.forget(identity)
        for identity, ending in result.gone.items():
            self._settle(identity, ending, now)
        self._state.classic_alive(result.alive)
        self._tell_pending(result.pending, now)

    def _settle(self, identity: int, ending: RemoteExit | None, now: float) -> None:
        """Report the outcome of an attempt that the cluster no longer lists, unless a better source may still do so."""
        record = self._state.records.with_cluster(identity)
        if record is not None and record.kill_cause is not None:
            self._settle_killed(identity, ending, now)
        elif ending is None and record is not None and record.triage is Triage.ASKED:
            self._lose(identity, "its outcome is unknown")  # its heartbeat has been overdue for long
        elif ending is None:
            self._wait_for(self._unsettled.missing, identity, now, EXIT_UNKNOWN_SECONDS, "its outcome is unknown")
        elif ending.status == TaskInstanceStatus.DONE and not is_job(identity):
            self._unsettled.missing.pop(identity, None)
            why = "the job exited successfully, but its worker never reported the outcome of the command"
            self._wait_for(self._unsettled.unreported, identity, now, UNREPORTED_SECONDS, why)
        else:
            self._end(identity, ending)

    def _settle_killed(self, identity: int, ending: RemoteExit | None, now: float) -> None:
        """Wait briefly for a killed job's usage; a job cancelled before it started may leave no record at all."""
        gone = RemoteExit(status=TaskInstanceStatus.ERROR)
        since = self._unsettled.missing.setdefault(identity, now)
        if ending is not None or now - since >= KILLED_SECONDS:
            self._end(identity, ending or gone)
        elif since == now:
            self._pace.hurry()

    def _wait_for(self, waiting: dict[int, float], identity: int, now: float, seconds: float, why: str) -> None:
        since = waiting.setdefault(identity, now)
        if since == now:
            self._pace.hurry()
        if now - since >= seconds:
            self._lose(identity, why)

    def _lose(self, identity: int, why: str) -> None:
        message = f"Cluster {self.name} no longer has its job; {why}."
        self._end(
            identity, RemoteExit(status=TaskInstanceStatus.UNKNOWN_ERROR, cause=Cause.WORKER_LOST, message=message)
        )

    def _end(self, identity: int, ending: RemoteExit) -> None:
        record = self._state.records.with_cluster(identity)
        if record is not None and record.kill_cause is None:
            self._incidents.cancelled(record.distributor_id, ending, self._clock.monotonic())
        self.forget([identity])
        self._state.classic_ended(identity, ending)

    def _tell_pending(self, reasons: Mapping[int, str], now: float) -> None:
        if now < self._pending_at:
            return
        if self._state.note_pending(reasons, PENDING_MAX):
            self._pending_at = now + PENDING_SECONDS
