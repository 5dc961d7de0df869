"""One classic cluster: what is to be done there, what it says, and what follows from both.

Two things go on at once, off the loop: *rounds*, which submit, look up, terminate and ask, one at a time; and, where
the plug-in can look at all jobs at once, *watching*, whose views the rounds are asked from. Workers tell the server how
their commands end, so looking is for what no worker tells: that is why it need not be often.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.wire.launching import LaunchBatch, Report
from jobmon.distributor.pace import SUBMITTED_SECONDS, Backoff, Pace
from jobmon.distributor.packed import is_job
from jobmon.distributor.rounds import Errand, News, Rounds
from jobmon.distributor.watching import InThread, Sight, Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobmon.core.clock import Clock
    from jobmon.core.cluster_protocol import ClusterDistributor
    from jobmon.distributor.gateway import Gateway
    from jobmon.distributor.holdings import Doubt
    from jobmon.distributor.spools import Spools
    from jobmon.distributor.state import DistributorState

logger = logging.getLogger(__name__)
#: So long a cluster may be without news of a job that it no longer holds.
EXIT_UNKNOWN_SECONDS: Final = 120.0
#: So long it may be without news of one that was to be ended.
KILLED_SECONDS: Final = 4.0
#: So long the report of a worker whose job ended well may be under way.
UNREPORTED_SECONDS: Final = 60.0
#: Packed jobs tell the server themselves when they begin and end; if they cannot even begin, that is seen after this.
PACKED_SECONDS: Final = 5.0
#: What ended before a look may be told so much later; so much earlier endings are asked for.
OVERLAP_SECONDS: Final = 600.0
#: Why attempts wait is told at most so often, of so many.
PENDING_SECONDS: Final = 30.0
PENDING_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """How a cluster is watched: at least every so many seconds, with at most so many calls per minute, by whom."""

    interval: float = 10.0
    calls_per_minute: float = 60.0
    holder: str = ""


@dataclass(slots=True)
class _Unsettled:
    """Attempts that the cluster no longer holds: since when nothing is known, or only that the job ended well."""

    missing: dict[int, float] = field(default_factory=dict)
    unreported: dict[int, float] = field(default_factory=dict)

    def forget(self, identity: int) -> None:
        self.missing.pop(identity, None)
        self.unreported.pop(identity, None)


class ClassicCluster:
    """What a distributor does with one classic cluster.

    Args:
        adapter: its plug-in.
        state: the distributor's memory.
        rounds: does what takes time.
        watching: how it is watched.
        gateway: the door to the server, for what is shared with other distributors.
        clock: the time.
        spools: where workers keep reports that they could not deliver.
        in_thread: runs something while the loop goes on.
    """

    def __init__(
        self,
        adapter: ClusterDistributor,
        state: DistributorState,
        rounds: Rounds,
        watching: Watching,
        gateway: Gateway,
        clock: Clock,
        spools: Spools,
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        self.name = adapter.cluster_name
        self._adapter = adapter
        self._state = state
        self._rounds = rounds
        self._clock = clock
        self._spools = spools
        self._in_thread = in_thread
        self._pace = Pace(watching.interval, watching.calls_per_minute, clock.monotonic())
        self._watch = (
            Watch(adapter, gateway, watching.holder, self._pace, clock, in_thread) if adapter.shares_watch else None
        )
        self._backoff = Backoff()
        self._batches: list[LaunchBatch] = []
        self._doubts: list[Doubt] = []
        self._packed_doubts: list[int] = []
        self._kill: list[str] = []
        self._triage: set[int] = set()
        self._submitted_at: dict[int, float] = {}
        self._unsettled = _Unsettled()
        self._spooled: set[int] = set()
        self._round: asyncio.Task[News] | None = None
        self._look: asyncio.Task[Sight] | None = None
        self._ends_jobs = False  # the round does
        self._sight: Sight | None = None
        self._asked: Sight | None = None
        self._look_at = 0.0
        self._covered_until: float | None = None
        self._told_pending: dict[int, str] = {}
        self._pending_at = 0.0
        self._problem_since: float | None = None
        self._attempts = 0

    # -- what is to be done ------------------------------------------------------------------------------------

    def submit(self, batches: Iterable[LaunchBatch]) -> None:
        """Submit these in the next round."""
        self._batches += batches

    def find(self, doubts: Iterable[Doubt]) -> None:
        """Look these up in the next round."""
        self._doubts += doubts

    def find_packed(self, numbers: Iterable[int]) -> None:
        """Look these packed batches up in the next round."""
        self._packed_doubts += numbers

    def terminate(self, distributor_ids: Iterable[str]) -> None:
        """End these in the next round."""
        self._kill += distributor_ids
        self._pace.hurry()

    def triage(self, attempts: Iterable[int]) -> None:
        """Find out how these stand."""
        self._triage.update(attempts)
        self._pace.urge()

    def adopted(self) -> None:
        """Attempts were taken over: how they stand is not known."""
        if self._state.classic(self.name):
            self._pace.urge()

    def acknowledge(self, ended: Iterable[int]) -> None:
        """The server has recorded how these ended."""
        if settled := self._spooled.intersection(ended):
            self._spools.remove(settled)
            self._spooled -= settled

    def forget(self, ended: Iterable[int]) -> None:
        """The server knows how these ended."""
        for identity in ended:
            self._unsettled.forget(identity)
            self._triage.discard(identity)
            self._submitted_at.pop(identity, None)
            self._told_pending.pop(identity, None)

    def alive(self) -> list[int]:
        """Return the attempts that live, as far as anybody knows; while a cluster does not answer, all that did."""
        gone = self._unsettled
        held = self._state.classic(self.name).values()
        return [one for one in held if one not in gone.missing and one not in gone.unreported]

    @property
    def is_terminating(self) -> bool:
        """Whether something is still to be ended, or is being ended just now, by a cluster that answers."""
        return (bool(self._kill) and not self._backoff.is_failing) or (self._round is not None and self._ends_jobs)

    @property
    def wants_endings(self) -> bool:
        """Whether workers may have told the server of endings that are waited for here."""
        return bool(self._unsettled.unreported)

    # -- life --------------------------------------------------------------------------------------------------

    def advance(self) -> tuple[list[asyncio.Task[Any]], list[float]]:
        """Take in what ended and begin what is due; return what was begun, and when something is due."""
        now = self._clock.monotonic()
        if self._round is not None and self._round.done():
            news, self._round = self._round.result(), None
            self._take_in(news, now)
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
        """Say what was asked of the cluster; drop what is under way and return it."""
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
        """Return from when on endings are wanted: since the last view, or since what was taken over was handed out."""
        adopted = self._state.adopted_since(self.name)
        since = self._covered_until or min(adopted or self._clock.now().timestamp(), self._clock.now().timestamp())
        return max(0.0, since - OVERLAP_SECONDS)

    def _begin_round(self, now: float, begun: list[asyncio.Task[Any]], due: list[float]) -> None:
        errand = Errand()
        if self._batches or self._kill or self._doubts or self._packed_doubts:
            if now >= self._backoff.until:
                errand.batches, errand.doubts, errand.kill = self._batches, self._doubts, self._kill
                errand.packed_doubts = self._packed_doubts
                self._batches, self._doubts, self._kill, self._packed_doubts = [], [], [], []
            else:
                due.append(self._backoff.until)
        self._add_questions(errand, now, due)
        if errand.batches or errand.doubts or errand.packed_doubts or errand.kill or errand.ask is not None:
            self._ends_jobs = bool(errand.kill)
            self._round = asyncio.create_task(self._run(errand))
            begun.append(self._round)

    def _add_questions(self, errand: Errand, now: float, due: list[float]) -> None:
        held = self._state.classic(self.name)
        if not held:
            self._sight = None
            return
        if self._watch is None:
            if now < self._pace.due:
                due.append(self._pace.due)
                return
            self._asked = Sight(began_at=now)
        elif self._sight is not None:
            self._asked, self._sight = self._sight, None
            errand.view = self._asked.view
        else:
            return
        errand.ask = self._known_at(self._asked.began_at, held)

    def _known_at(self, at: float, held: Mapping[str, int]) -> dict[str, int]:
        """Return what was submitted before a look began: nothing else can be in the view."""
        submitted_at = self._submitted_at
        return {one: identity for one, identity in held.items() if submitted_at.get(identity, 0.0) <= at}

    async def _run(self, errand: Errand) -> News:
        return await self._in_thread(self._rounds.work, errand)

    # -- what came of it ---------------------------------------------------------------------------------------

    def _take_sight(self, sight: Sight, now: float) -> None:
        self._look_at = sight.retry
        if sight.view is not None:
            self._sight = sight
        self._note_problem(sight.problem, now)

    def _note_problem(self, problem: str, now: float) -> None:
        """Say once that the cluster does not answer, and once that it does."""
        if problem and self._problem_since is None:
            self._problem_since = now
            logger.warning("Cluster %s is asked in vain; it will be asked again and again. %s", self.name, problem)
        elif not problem and self._problem_since is not None and not self._is_failing:
            logger.warning("Cluster %s answers again, after %.0f s.", self.name, now - self._problem_since)
            self._problem_since = None

    @property
    def _is_failing(self) -> bool:
        return self._backoff.is_failing or self._pace.backoff.is_failing

    def _take_in(self, news: News, now: float) -> None:
        self._take_submissions(news, now)
        self._take_failures(news, now)
        for report in news.spooled:
            self._spooled.add(report.task_instance_id)
            self.forget([report.task_instance_id])
            self._state.classic_told(report)
        for report in news.packed_spooled:
            self._spooled.add(report.task_instance_id)
            self._state.packed_told(report)
        for identity, reason in news.stuck.items():
            self.forget([identity])
            self._state.classic_stuck(identity, reason)
        if news.is_asked or news.ask_problem:
            self._take_answers(news, now)

    def _take_submissions(self, news: News, now: float) -> None:
        if news.submitted:
            self._attempts += len(news.submitted)
            self._submitted_at.update(dict.fromkeys(news.submitted, now))
            self._kill += self._state.submitted(self.name, news.submitted)
            self._pace.hurry(SUBMITTED_SECONDS)
        self._take_packed(news, now)
        for identities, reason in news.refused:
            self._state.refused(identities, reason)
        self._state.unsubmitted(news.not_found)

    def _take_packed(self, news: News, now: float) -> None:
        for batch, ids in news.packed:
            self._attempts += len(batch.task_instance_ids)
            if batch.batch_number in news.packed_doubts:
                self._state.packed_doubted(batch)
            else:
                self._state.packed_submitted(batch, ids)
                self._pace.hurry(PACKED_SECONDS)
        for number, ids in news.packed_found.items():
            self._state.packed_found(number, ids)
        self._packed_doubts += news.packed_doubts
        jobs = self._state.classic(self.name)
        self._submitted_at.update({jobs[one]: now for _, ids in news.packed for one in ids if one in jobs})

    def _take_failures(self, news: News, now: float) -> None:
        """What could not be done is done later, first."""
        if not news.problem:
            if news.has_acted:
                self._backoff.succeeded()
                self._note_problem("", now)
            return
        pause = self._backoff.failed(now)
        logger.info("Cluster %s: trying again in %.0f s. %s", self.name, pause, news.problem)
        self._note_problem(news.problem, now)
        self._batches = [*news.postponed, *self._batches]
        self._doubts = [*news.doubts, *self._doubts]
        self._kill = [*news.not_killed, *self._kill]

    def _take_answers(self, news: News, now: float) -> None:
        if not news.is_asked:
            self._pace.failed(now)
            self._note_problem(news.ask_problem, now)
            return
        asked, self._asked = self._asked or Sight(), None
        if self._watch is None:
            self._pace.looked(now, now - asked.began_at)
            self._note_problem("", now)
        elif asked.since <= self._wanted_since():
            self._covered_until = self._clock.now().timestamp() - (now - asked.began_at)
        for identity in news.alive:
            self._unsettled.forget(identity)
        for identity, ending in news.gone.items():
            self._settle(identity, ending, now)
        for identity in self._triage.intersection(news.alive):
            self._state.say(Report(task_instance_id=identity, status=TaskInstanceStatus.RUNNING))
        self._triage.difference_update(news.alive)
        self._tell_pending(news.pending, now)

    def _settle(self, identity: int, ending: RemoteExit | None, now: float) -> None:
        """Say how an attempt ended that the cluster no longer holds, unless somebody may yet know better."""
        if self._state.is_being_killed(identity):
            self._settle_killed(identity, ending, now)
        elif ending is None and identity in self._triage:
            self._lose(identity, "nobody knows how it ended")  # it has been silent for long already
        elif ending is None:
            self._wait_for(self._unsettled.missing, identity, now, EXIT_UNKNOWN_SECONDS, "nobody knows how it ended")
        elif ending.status == TaskInstanceStatus.DONE and not is_job(identity):
            self._unsettled.missing.pop(identity, None)
            why = "it ended well, but its worker never told how its command ended"
            self._wait_for(self._unsettled.unreported, identity, now, UNREPORTED_SECONDS, why)
        else:
            self._end(identity, ending)

    def _settle_killed(self, identity: int, ending: RemoteExit | None, now: float) -> None:
        """What it used is worth a moment; but what is cancelled before it starts may leave no trace at all."""
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
        self.forget([identity])
        self._state.classic_ended(identity, ending)

    def _tell_pending(self, reasons: Mapping[int, str], now: float) -> None:
        if now < self._pending_at:
            return
        told = self._told_pending
        news = [(one, why) for one, why in reasons.items() if told.get(one) != why and not is_job(one)]
        changed = news[:PENDING_MAX]
        if changed:
            self._pending_at = now + PENDING_SECONDS
            told.update(changed)
            self._state.note_pending(dict(changed))
