"""What the server says and what the clusters say -> what to spawn, submit, kill and report. Pure.

An attempt is *waiting* (handed over by the server ahead of need), then *with its cluster* (spawned or submitted),
then gone; what is to be said about it goes to the *outbox* at that moment and stays until the server has it. For a
direct cluster, what runs counts against its slots; oldest first, and a wide attempt at the head of the queue holds
its place until enough is free.

With a classic cluster an attempt may be in *doubt*: it may have been submitted without anybody having heard of it. It
is looked up there by its token before anything else is done with it. How it ends its worker tells the server, which
tells us (`classic_over`); what no worker told we say from what the cluster knows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jobmon.core import fsm
from jobmon.core.cluster_protocol import Exit, Launch, RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.wire.launching import LaunchBatch, LiveAttempt, PackedBatch, Report, SyncResponse
from jobmon.distributor import batch as translate
from jobmon.distributor.holdings import Cluster, ClusterLimits, Demand, Doubt, Ended, Held, narrowed
from jobmon.distributor.packed import PackedBatches, is_job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jobmon.distributor.batch import Attempt, Surroundings

#: A command that ends sooner is never reported as running.
RUNNING_REPORT_DELAY_SECONDS: Final = 0.1
#: Of attempts that were told to be killed before they were handed over, so many are remembered.
FORESTALLED_MAX: Final = 100_000
#: States of an attempt without an id on its classic cluster, of which it may have one all the same.
_MAYBE_SUBMITTED: Final = (TaskInstanceStatus.INSTANTIATED, TaskInstanceStatus.TRIAGING)
_STOPPED: Final = frozenset({WorkflowRunStatus.STOPPED, WorkflowRunStatus.ERROR})


class DistributorState:
    """The distributor's memory. Methods take facts and return decisions; none does anything.

    Args:
        clusters: name -> what it takes.
        around: what all attempts have in common.
    """

    def __init__(self, clusters: Mapping[str, ClusterLimits], around: Surroundings) -> None:
        self._clusters = {name: Cluster(limits) for name, limits in clusters.items()}
        self._around = around
        self._held: dict[int, Held] = {}
        self._waiting_ids: dict[int, str] = {}
        self._submitting: set[int] = set()  # those that are being submitted just now: it is too late to give them back
        self._killing: dict[int, Cause] = {}
        self._forestalled: dict[int, None] = {}
        self._outbox: deque[Report] = deque()
        self._in_flight: list[Report] = []
        self._triaging: set[int] = set()
        self._telling: set[int] = set()  # attempts whose ending is on its way to the server
        self._given_up: set[int] = set()  # attempts that run though the server has ended them
        self._inherited: dict[int, Launch] = {}
        self._started: dict[int, float] = {}
        self._over_early: set[int] = set()  # those that ended before anybody told us that they were submitted
        self._pending: dict[int, str] = {}
        self._pending_in_flight: dict[int, str] = {}
        self.packed = PackedBatches()
        self.run_status: str = WorkflowRunStatus.LAUNCHED
        self.draining = False

    # -- what the server says ----------------------------------------------------------------------------------

    def take(self, launches: Iterable[LaunchBatch]) -> None:
        """Take attempts that the server hands over."""
        for given in launches:
            cluster = self._clusters.get(given.cluster_name)
            if given.plan is not None and self.packed.knows(given.batch_number):
                continue
            attempts = [one for one in translate.attempts_of(given) if self._is_wanted(one, cluster)]
            if cluster is None or not attempts:
                continue
            if cluster.limits.direct:
                cluster.waiting.extend(attempts)
            elif given.plan is not None:  # whole: its jobs take what the server says
                cluster.batches.append(given)
                self.packed.await_submission(given.batch_number)
            else:
                cluster.batches.append(narrowed(given, {one.task_instance_id for one in attempts}))
            self._waiting_ids.update((one.task_instance_id, given.cluster_name) for one in attempts)
            cluster.count += len(attempts)

    def _is_wanted(self, attempt: Attempt, cluster: Cluster | None) -> bool:
        identity = attempt.task_instance_id
        if identity in self._forestalled or identity in self._waiting_ids or identity in self._held:
            return False
        if cluster is None:
            error = f"This distributor has no cluster {attempt.cluster_name!r}."
            self.say(translate.lost_report(identity, Cause.WORKER_LOST, error))
        elif self.draining or self.is_run_final:
            self._give_back(identity)
        return cluster is not None and not (self.draining or self.is_run_final)

    def _give_back(self, identity: int) -> None:
        error = "It was handed to the distributor ahead of need and not started in time."
        self.say(translate.lost_report(identity, Cause.WORKER_LOST, error))

    def set_run_status(self, status: str) -> None:
        """Take the run's status. What waits when it becomes final is given back."""
        self.run_status = status
        if self.is_run_final:
            self.drop_waiting()

    @property
    def is_run_final(self) -> bool:
        """Whether nothing more will be queued in this run."""
        return fsm.is_terminal(fsm.Machine.WORKFLOW_RUN, self.run_status)

    @property
    def kill_cause(self) -> Cause:
        """Why the server has attempts killed at present."""
        return Cause.KILLED if self.run_status in _STOPPED else Cause.KILLED_FOR_RESUME

    def kill(self, identities: Iterable[int]) -> dict[str, list[str]]:
        """Take the server's wish; return cluster -> distributor ids to terminate. The rest is reported at once."""
        terminate: dict[str, list[str]] = {}
        for identity in identities:
            if identity in self._killing or identity in self._telling:
                continue
            held = self._held.get(identity)
            if held is not None:
                self._killing[identity] = self.kill_cause
                terminate.setdefault(held.cluster_name, []).append(held.distributor_id)
            elif identity in self._submitting:
                self._killing[identity] = self.kill_cause  # as soon as it has an id
            else:
                self._forestall(identity)
        return terminate

    def _forestall(self, identity: int) -> None:
        """It is not running: it waits here, or its launch is still under way to us, or it has ended long ago."""
        self._remove_waiting({identity})
        self._end_unstarted(identity, self.kill_cause)

    def triage(self, identities: Iterable[int]) -> dict[str, dict[int, str]]:
        """Take the server's doubts. Direct ones are settled here; return cluster -> {id: distributor id} to ask for."""
        ask: dict[str, dict[int, str]] = {}
        for identity in identities:
            held = self._held.get(identity)
            self._triaging.add(identity)
            if held is None:
                self._triage_unknown(identity)
            elif self._clusters[held.cluster_name].limits.direct:
                self.say(Report(task_instance_id=identity, status=TaskInstanceStatus.RUNNING))
            else:
                ask.setdefault(held.cluster_name, {})[identity] = held.distributor_id
        return ask

    def _triage_unknown(self, identity: int) -> None:
        if not self._is_being_told(identity) and identity not in self._waiting_ids:
            all_direct = all(one.limits.direct for one in self._clusters.values())
            cause = Cause.SUPERVISOR_LOST if all_direct else Cause.WORKER_LOST
            self.say(translate.lost_report(identity, cause, "Nothing is left of it."))

    # -- what is to be done ------------------------------------------------------------------------------------

    def capacity(self) -> dict[str, int]:
        """Return cluster -> how many more attempts may be handed over, all open requests together."""
        if self.draining or self.is_run_final or self._given_up:
            return {}
        return {
            name: max(0, one.limits.window(one.mean_seconds) - one.count - self.packed.untaken(name))
            for name, one in self._clusters.items()
        }

    def set_slots(self, cluster_name: str, slots: float) -> None:
        """Take how many of its slots a cluster may use from now on."""
        cluster = self._clusters[cluster_name]
        lookahead = int(slots * cluster.limits.lookahead_factor)
        cluster.limits = replace(cluster.limits, slots=slots, lookahead=lookahead)

    def demand(self, cluster_name: str, total: float) -> Demand:
        """Return what a cluster of `total` slots uses and could use; more than all of them is not counted."""
        in_use = head = wanted = 0.0
        for cores, runs in self._cores_of(cluster_name):
            counted = min(cores, total)
            in_use += counted if runs else 0.0
            head = head or (0.0 if runs else counted)
            wanted += counted
            if wanted >= total and head:
                break
        return Demand(min(in_use, total), min(wanted, total), head)

    def _cores_of(self, cluster_name: str) -> Iterator[tuple[float, bool]]:
        """Yield the cores of all attempts, what runs first, then in the order in which it will be started."""
        held = [one for one in self._held.values() if one.cluster_name == cluster_name]
        yield from ((one.cores, True) for one in held if one.has_started)
        yield from ((one.cores, False) for one in held if not one.has_started)
        yield from ((one.cores, False) for one in self._clusters[cluster_name].waiting)

    @property
    def is_well_supplied(self) -> bool:
        """Whether every cluster has half of what it may be handed: then news may gather for a moment."""
        return all(
            one.count * 2 >= one.limits.window(one.mean_seconds) for one in self._clusters.values() if one.limits.direct
        )

    def spawnable(self) -> dict[str, list[Launch]]:
        """Move what fits from waiting to its cluster; return cluster -> launches, oldest first.

        Nothing while an attempt still runs on which the server has given up: its successor may be among what waits.
        """
        result: dict[str, list[Launch]] = {}
        if self._given_up:
            return result
        for name, cluster in self._clusters.items():
            while cluster.waiting and cluster.fits(cluster.waiting[0]):
                result.setdefault(name, []).append(self._hand_over(name, cluster, cluster.waiting.popleft()))
        return result

    def _hand_over(self, name: str, cluster: Cluster, attempt: Attempt) -> Launch:
        launch = translate.launch_of(attempt, self._around)
        identity = attempt.task_instance_id
        self._forget_waiting(identity)
        self._hold(identity, Held(name, str(identity), attempt.cores, attempt.memory, launch))
        return launch

    def submittable(self) -> dict[str, list[LaunchBatch]]:
        """Take out what is to be submitted to classic clusters; say `submitted` or `refused` for each attempt."""
        result: dict[str, list[LaunchBatch]] = {}
        for name, cluster in self._clusters.items():
            if cluster.batches:
                result[name] = list(cluster.batches)
                cluster.batches.clear()
                self._submitting.update(*(one.task_instance_ids for one in result[name]))
        return result

    def doubtful(self) -> dict[str, list[Doubt]]:
        """Take out what is to be looked up at classic clusters; say `submitted` or `unsubmitted` for each attempt."""
        result = {name: one.doubts for name, one in self._clusters.items() if one.doubts}
        for name in result:
            self._clusters[name].doubts = []
        return result

    def drop_waiting(self) -> None:
        """Give back what was handed over ahead and is with no cluster yet."""
        identities = self._waiting_ids.keys() - self._submitting
        self._remove_waiting(identities)
        for identity in sorted(identities):
            self._give_back(identity)

    def drain(self) -> None:
        """Launch nothing more."""
        self.draining = True
        self.drop_waiting()

    def retire(self) -> None:
        """Launch nothing more, and forget what other hosts can see to as well: all of classic clusters."""
        classic = {name for name, one in self._clusters.items() if not one.limits.direct}
        theirs = {identity for identity, name in self._waiting_ids.items() if name in classic}
        theirs.update(identity for identity, held in self._held.items() if held.cluster_name in classic)
        for identity in theirs:
            self._forget_waiting(identity)
            self._release(identity)
            self._killing.pop(identity, None)
        for name in classic:
            self._clusters[name].batches.clear()
            self._clusters[name].doubts.clear()
        self._submitting.clear()
        self._pending.clear()
        self.packed = PackedBatches()
        self.drain()

    def _remove_waiting(self, identities: set[int]) -> None:
        touched = {self._forget_waiting(identity) for identity in identities}
        for name in touched - {None}:
            cluster = self._clusters[str(name)]
            cluster.waiting = deque(one for one in cluster.waiting if one.task_instance_id not in identities)
            rest = (narrowed(one, set(one.task_instance_ids) - identities) for one in cluster.batches)
            cluster.batches = deque(one for one in rest if one.task_instance_ids)

    def _forget_waiting(self, identity: int) -> str | None:
        name = self._waiting_ids.pop(identity, None)
        if name is not None:
            self._clusters[name].count -= 1
        return name

    # -- what the clusters say ---------------------------------------------------------------------------------

    def spawned(self, distributor_ids: Mapping[int, str]) -> None:
        """Take the ids that a direct cluster gave."""
        for identity, distributor_id in distributor_ids.items():
            if identity in self._held:
                self._held[identity].distributor_id = distributor_id

    def started(self, times: Mapping[int, float]) -> None:
        """Note what runs since when, so that it is reported as running if it lasts."""
        for identity, started_at in times.items():
            held = self._held.get(identity)
            if held is not None and not held.told_running:
                held.started_at = started_at
                self._started[identity] = started_at

    def report_running(self, now: float, host: str) -> float | None:
        """Report what has run for long enough; return when the next one will have (seconds since the epoch)."""
        due = [one for one, at in self._started.items() if at + RUNNING_REPORT_DELAY_SECONDS <= now]
        for identity in due:
            held = self._held[identity]
            held.told_running = True
            started_at = translate.moment(self._started.pop(identity))
            self.say(
                Report(
                    task_instance_id=identity,
                    status=TaskInstanceStatus.RUNNING,
                    distributor_id=held.distributor_id,
                    host=host,
                    started_at=started_at,
                    stdout=held.launch.stdout if held.launch else None,
                    stderr=held.launch.stderr if held.launch else None,
                )
            )
        return min(self._started.values()) + RUNNING_REPORT_DELAY_SECONDS if self._started else None

    def ended(self, endings: Iterable[Exit]) -> list[Ended]:
        """Take endings; return what their reports are made of. Whoever makes them hands them to `say`."""
        return [self._ended(ending) for ending in endings]

    def _ended(self, ending: Exit) -> Ended:
        held = self._release(ending.task_instance_id)
        cause = self._killing.pop(ending.task_instance_id, None)
        if held is not None and ending.lost is None:
            self._clusters[held.cluster_name].learn(ending.ended_at - ending.started_at)
        inherited = self._inherited.pop(ending.task_instance_id, None)
        return Ended(ending, held.launch if held is not None else inherited, cause)

    def submitted(self, cluster_name: str, distributor_ids: Mapping[int, str]) -> list[str]:
        """A classic cluster took these; return the ids of those that were told to end meanwhile."""
        for identity, distributor_id in distributor_ids.items():
            if self._is_over_after_submission(identity):
                continue
            self._hold(identity, Held(cluster_name, distributor_id))
            self.say(
                Report(task_instance_id=identity, status=TaskInstanceStatus.LAUNCHED, distributor_id=distributor_id)
            )
        return [distributor_id for identity, distributor_id in distributor_ids.items() if identity in self._killing]

    def refused(self, identities: Iterable[int], reason: str) -> None:
        """A classic cluster did not take these."""
        for identity in identities:
            if self._is_over_after_submission(identity):
                continue
            self._killing.pop(identity, None)
            self.say(
                Report(
                    task_instance_id=identity,
                    status=TaskInstanceStatus.NO_DISTRIBUTOR_ID,
                    cause=Cause.SUBMISSION_FAILED,
                    error=reason,
                )
            )

    def unsubmitted(self, identities: Iterable[int]) -> None:
        """A classic cluster never got these: they are queued again, not charged."""
        for identity in identities:
            if self._is_over_after_submission(identity):
                continue
            cause = self._killing.pop(identity, None)
            if cause is not None:
                self._end_unstarted(identity, cause)
            else:
                self.say(translate.unsubmitted_report(identity))

    def _is_over_after_submission(self, identity: int) -> bool:
        """Note that its submission is over; a worker may have told the server its end sooner than we heard of it."""
        self._forget_waiting(identity)
        self._submitting.discard(identity)
        if identity not in self._over_early:
            return False
        self._over_early.discard(identity)
        self._killing.pop(identity, None)
        return True

    def packed_submitted(self, batch: LaunchBatch, distributor_ids: Iterable[str]) -> None:
        """A classic cluster took a packed batch as these jobs."""
        for identity in batch.task_instance_ids:
            self._forget_waiting(identity)
            self._submitting.discard(identity)
        ids = list(distributor_ids)
        self.packed.open(batch.batch_number, batch.cluster_name, len(batch.task_instance_ids))
        self._hold_jobs(batch.batch_number, batch.cluster_name, ids)
        self.packed.submitted(batch.batch_number, ids)

    def packed_doubted(self, batch: LaunchBatch) -> None:
        """Nobody knows whether a classic cluster took this packed batch: say `packed_found` when it is known."""
        for identity in batch.task_instance_ids:
            self._forget_waiting(identity)
            self._submitting.discard(identity)
        self.packed.open(batch.batch_number, batch.cluster_name, len(batch.task_instance_ids))

    def packed_found(self, number: int, distributor_ids: Iterable[str]) -> None:
        """This is as what a batch was submitted about which there was doubt; nothing: it was not."""
        cluster_name, ids = self.packed.cluster_of(number), list(distributor_ids)
        if cluster_name is not None:
            self._hold_jobs(number, cluster_name, ids)
            self.packed.submitted(number, ids)

    def _hold_jobs(self, number: int, cluster_name: str, distributor_ids: Iterable[str]) -> None:
        for identity, distributor_id in self.packed.add(number, distributor_ids).items():
            self._hold(identity, Held(cluster_name, distributor_id))

    def adopt_packed(self, batches: Iterable[PackedBatch]) -> dict[str, list[int]]:
        """Take over packed batches and their jobs; return cluster -> batches of which it is not known what they are."""
        unknown: dict[str, list[int]] = {}
        for batch in batches:
            if batch.cluster_name not in self._clusters or self.packed.knows(batch.batch_number):
                continue
            self.packed.open(batch.batch_number, batch.cluster_name, batch.untaken)
            self._hold_jobs(batch.batch_number, batch.cluster_name, batch.distributor_ids)
            if not batch.submitted:
                unknown.setdefault(batch.cluster_name, []).append(batch.batch_number)
        return unknown

    def hear_packed(self, response: SyncResponse) -> dict[str, list[str]]:
        """Take how packed batches stand; return cluster -> jobs to terminate, which have not begun and need not."""
        self.packed.heard(response.untaken)
        terminate: dict[str, list[str]] = {}
        unstarted = set(response.unstarted)
        for number in response.over:
            cluster_name = self.packed.cluster_of(number)
            for identity, distributor_id in self.packed.close(number).items():
                self._release(identity)
                if cluster_name is not None and distributor_id in unstarted:
                    terminate.setdefault(cluster_name, []).append(distributor_id)
        return terminate

    def live_jobs(self, identities: Iterable[int]) -> list[str]:
        """Return the ids on their clusters of those among these that are packed jobs."""
        return [self._held[one].distributor_id for one in identities if is_job(one) and one in self._held]

    def classic(self, cluster_name: str) -> Mapping[str, int]:
        """Return distributor id -> attempt of all that a classic cluster holds."""
        return self._clusters[cluster_name].jobs

    def adopted_since(self, cluster_name: str) -> float | None:
        """Return when the oldest attempt was handed out that was taken over with a classic cluster; None: none was."""
        return self._clusters[cluster_name].adopted_since

    def is_being_killed(self, identity: int) -> bool:
        """Whether it was told to end."""
        return identity in self._killing

    def classic_ended(self, identity: int, ending: RemoteExit) -> None:
        """A classic cluster no longer holds this one, and nobody else will say how it ended."""
        held = self._release(identity)
        cause = self._killing.pop(identity, None)
        if held is not None and is_job(identity):
            self.packed.ended(identity, held.distributor_id, ending)
        elif held is not None:
            self.say(translate.remote_report(identity, held.distributor_id, ending, cause))

    def classic_over(self, identities: Iterable[int]) -> list[int]:
        """The server knows how these ended; return those that a classic cluster held until now."""
        ended = list(identities)
        self._over_early.update(self._submitting.intersection(ended))
        over = [one for one in ended if one in self._held and not self._clusters[self._name_of(one)].limits.direct]
        for identity in over:
            self._release(identity)
            self._killing.pop(identity, None)
        return over

    def _name_of(self, identity: int) -> str:
        return self._held[identity].cluster_name

    @property
    def wants_endings(self) -> bool:
        """Whether it matters soon which attempts of classic clusters have ended: to be done, or to take more."""
        is_over = self.draining or self.is_run_final
        return (is_over and bool(self.packed.numbers)) or any(
            one.jobs and (is_over or one.count * 2 > one.limits.window(one.mean_seconds))
            for one in self._clusters.values()
        )

    def classic_told(self, report: Report) -> None:
        """A worker left this ending on disk."""
        self._killing.pop(report.task_instance_id, None)
        if self._release(report.task_instance_id) is not None:
            self.say(report)

    def packed_told(self, report: Report) -> None:
        """A packed job left this ending on disk."""
        if not self._is_being_told(report.task_instance_id):
            self.say(report)

    def classic_stuck(self, identity: int, reason: str) -> None:
        """A classic cluster says that this one will never start; it was terminated there."""
        self._killing.pop(identity, None)
        held = self._release(identity)
        if held is not None and is_job(identity):
            failed = RemoteExit(status=TaskInstanceStatus.ERROR, cause=Cause.SUBMISSION_FAILED, message=reason)
            self.packed.ended(identity, held.distributor_id, failed)
        elif held is not None:
            error, cause = TaskInstanceStatus.ERROR, Cause.SUBMISSION_FAILED
            self.say(Report(task_instance_id=identity, status=error, cause=cause, error=reason))

    def _hold(self, identity: int, held: Held) -> None:
        self._held[identity] = held
        cluster = self._clusters[held.cluster_name]
        if not cluster.limits.direct:
            cluster.jobs[held.distributor_id] = identity
        cluster.count += 1
        cluster.cores += held.cores
        cluster.memory += held.memory

    def _release(self, identity: int) -> Held | None:
        held = self._held.pop(identity, None)
        self._started.pop(identity, None)
        self._given_up.discard(identity)
        if held is not None:
            cluster = self._clusters[held.cluster_name]
            cluster.jobs.pop(held.distributor_id, None)
            cluster.count -= 1
            cluster.cores -= held.cores
            cluster.memory -= held.memory
        return held

    # -- an earlier distributor's attempts ---------------------------------------------------------------------

    def inherit(self, attempts: Iterable[LiveAttempt]) -> None:
        """Note where the attempts write that an earlier distributor launched, before any of their endings come."""
        self._inherited = {
            attempt.task_instance_id: translate.launch_of(translate.attempt_of(attempt), self._around)
            for attempt in attempts
            if attempt.name and attempt.task_instance_id not in self._held
        }

    def adopt(self, attempts: Sequence[LiveAttempt], living: Mapping[str, Mapping[int, str]]) -> dict[str, list[str]]:
        """Settle or take over what the server thinks is alive; return cluster -> distributor ids to terminate.

        What was to be terminated before is so again: it may have been said on a line that broke.

        Args:
            attempts: what the server says.
            living: direct cluster -> {attempt: distributor id} of what really runs there.
        """
        to_kill = []
        for attempt in attempts:
            identity = attempt.task_instance_id
            if self._is_being_told(identity) or (attempt.packed and identity not in self._waiting_ids):
                continue  # of what is packed the jobs are taken over
            alive = identity in self._held or identity in self._waiting_ids or self._take_over(attempt, living)
            if not alive:
                self._settle(attempt)
            elif attempt.status == TaskInstanceStatus.KILL_SELF:
                self._killing.pop(identity, None)
                to_kill.append(identity)
        return self.kill([*to_kill, *self._find_given_up(attempts, living)])

    def _find_given_up(self, attempts: Sequence[LiveAttempt], living: Mapping[str, Mapping[int, str]]) -> list[int]:
        """Return what runs though the server has ended it, while nobody was there to be asked. It is to be killed."""
        listed = {attempt.task_instance_id for attempt in attempts}
        for name, ids in living.items():
            for identity, distributor_id in ids.items():
                if identity not in listed and identity not in self._held and not self._is_being_told(identity):
                    self._hold(identity, Held(name, distributor_id, cores=1.0))
        self._given_up = {
            identity
            for identity, held in self._held.items()
            if identity not in listed and self._clusters[held.cluster_name].limits.direct
        }
        return [identity for identity in self._held if identity not in listed and not is_job(identity)]

    def _take_over(self, attempt: LiveAttempt, living: Mapping[str, Mapping[int, str]]) -> bool:
        cluster = self._clusters.get(attempt.cluster_name)
        if cluster is None:
            return False
        identity = attempt.task_instance_id
        if not cluster.limits.direct:
            return self._take_over_classic(attempt, cluster)
        if identity not in living.get(attempt.cluster_name, {}):
            return False
        known, launch = translate.attempt_of(attempt), self._inherited.get(identity)
        distributor_id = living[attempt.cluster_name][identity]
        self._hold(identity, Held(attempt.cluster_name, distributor_id, known.cores, known.memory, launch))
        return True

    def _take_over_classic(self, attempt: LiveAttempt, cluster: Cluster) -> bool:
        """Hold what has an id; what was handed out and has none may have been submitted all the same."""
        identity = attempt.task_instance_id
        if attempt.distributor_id is not None:
            self._hold(identity, Held(attempt.cluster_name, attempt.distributor_id))
            cluster.adopted_since = min(cluster.adopted_since or attempt.launched_at, attempt.launched_at)
            return True
        if attempt.status not in _MAYBE_SUBMITTED:
            return False
        around = self._around
        batch_token, own_token = around.batch_token(attempt.batch_number), around.attempt_token(identity)
        cluster.doubts.append(Doubt(identity, batch_token, attempt.array_step_id, own_token))
        self._waiting_ids[identity] = attempt.cluster_name
        self._submitting.add(identity)
        cluster.count += 1
        return True

    def _settle(self, attempt: LiveAttempt) -> None:
        """Nothing of it lives: say how it is to be counted."""
        identity = attempt.task_instance_id
        if attempt.status == TaskInstanceStatus.KILL_SELF:
            self._end_unstarted(identity, Cause.KILLED_FOR_RESUME)
        elif attempt.status == TaskInstanceStatus.INSTANTIATED:
            self.say(translate.lost_report(identity, Cause.WORKER_LOST, translate.UNSTARTED))
        else:
            self.say(translate.lost_report(identity, Cause.SUPERVISOR_LOST, "Nothing is left of it."))

    def _end_unstarted(self, identity: int, cause: Cause) -> None:
        self._forestalled[identity] = None
        while len(self._forestalled) > FORESTALLED_MAX:
            del self._forestalled[next(iter(self._forestalled))]
        self.say(translate.killed_report(identity, cause))

    # -- the outbox --------------------------------------------------------------------------------------------

    def say(self, report: Report) -> None:
        """Put a report into the outbox."""
        self._outbox.append(report)
        if _is_ending(report):
            self._telling.add(report.task_instance_id)

    def take_reports(self, count_max: int) -> list[Report]:
        """Take reports to send; they stay in doubt until `confirm_reports` or `restore_reports`."""
        self._in_flight = [self._outbox.popleft() for _ in range(min(count_max, len(self._outbox)))]
        return self._in_flight

    def confirm_reports(self) -> list[int]:
        """The server has them; return the attempts that ended among them."""
        ended = [one.task_instance_id for one in self._in_flight if _is_ending(one)]
        self._triaging.difference_update(one.task_instance_id for one in self._in_flight)
        self._in_flight = []
        self._pending_in_flight = {}
        self._telling.difference_update(ended)
        self.packed.confirm()
        return ended

    def restore_reports(self) -> None:
        """The server may not have them: they are sent again, first."""
        self._outbox.extendleft(reversed(self._in_flight))
        self._in_flight = []
        self.packed.restore()
        self._pending = {**self._pending_in_flight, **self._pending}
        self._pending_in_flight = {}

    def note_pending(self, reasons: Mapping[int, str]) -> None:
        """Take why attempts wait on their clusters, to be told with the next reports."""
        self._pending.update(reasons)

    def take_pending(self) -> dict[int, str]:
        """Take what is to be told of that; it stays in doubt as reports do."""
        self._pending_in_flight, self._pending = self._pending, {}
        return self._pending_in_flight

    def _is_being_told(self, identity: int) -> bool:
        return identity in self._telling

    @property
    def has_reports(self) -> bool:
        """Whether something waits to be said."""
        return bool(self._outbox or self._pending or self.packed.has_news)

    def alive(self) -> list[int]:
        """Return the attempts that are here or with a direct cluster; a classic cluster has to be asked."""
        held = (identity for identity, one in self._held.items() if self._clusters[one.cluster_name].limits.direct)
        return [*held, *self._waiting_ids]

    @property
    def known_to_kill(self) -> list[int]:
        """Attempts that were told to end, of which the server does not know yet that they did."""
        return [*self._killing, *(one for one in self._telling if one in self._forestalled)]

    @property
    def known_to_triage(self) -> list[int]:
        """Attempts that the server asked about and has no answer yet."""
        return list(self._triaging)

    @property
    def held_count(self) -> int:
        """How many attempts are with clusters."""
        return len(self._held)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is here, runs, or is left to be said."""
        return self.packed.is_idle and not (self._held or self._waiting_ids or self._outbox or self._in_flight)


def _is_ending(report: Report) -> bool:
    return fsm.is_terminal(fsm.Machine.TASK_INSTANCE, report.status)
