"""The distributor's decisions: input from server and clusters -> what to spawn, submit, kill and report. Pure.

An attempt is *waiting* (prefetched from the server), then *with its cluster* (spawned or submitted), then gone. Each
report about it is put into the *outbox* at once and stays there until the server has it. For a direct cluster, running
attempts count against its slots. The oldest attempts start first; a wide attempt at the head of the queue keeps its
position until enough cores are free.

On a classic cluster a submission may be unconfirmed (a `Doubt`): its outcome is unknown. It is looked up by its token
before anything else is done with it. Its worker reports the outcome to the server, which notifies the distributor
(`classic_over`); outcomes that no worker reported are derived from the cluster's information.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from jobmon.core import fsm
from jobmon.core.cluster_protocol import Exit, Launch, RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.wire.launching import LaunchBatch, LiveAttempt, PackedBatch, Report, SyncResponse
from jobmon.distributor import batch as translate
from jobmon.distributor.inflight import ClusterAttempts, ClusterLimits, Doubt, Ended, InFlight, narrowed
from jobmon.distributor.launch_problems import LaunchProblems
from jobmon.distributor.outbox import Outbox, is_ending
from jobmon.distributor.packed import PackedBatches, is_job

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from jobmon.distributor.batch import ReceivedAttempt, Surroundings

#: A command that exits sooner is never reported as running.
RUNNING_REPORT_DELAY_SECONDS: Final = 0.1
#: Maximum number of remembered attempts that were cancelled before they were received.
CANCELLED_BEFORE_LAUNCH_MAX: Final = 100_000


class DistributorState:
    """The distributor's state. Methods take facts and return decisions; none performs an action.

    Args:
        clusters: name -> limits of the cluster.
        around: settings shared by all attempts.
    """

    def __init__(self, clusters: Mapping[str, ClusterLimits], around: Surroundings) -> None:
        self._clusters = {name: ClusterAttempts(limits) for name, limits in clusters.items()}
        self._around = around
        self._held: dict[int, InFlight] = {}
        self._waiting_ids: dict[int, str] = {}
        self._submitting: set[int] = set()  # being submitted: they can no longer be returned
        self._killing: dict[int, Cause] = {}
        self._cancelled_before_launch: dict[int, None] = {}
        self.outbox = Outbox()
        self._triaging: set[int] = set()
        self._telling: set[int] = set()  # attempts whose outcome is not yet confirmed by the server
        self._given_up: set[int] = set()  # attempts that run although the server has closed them
        self._inherited: dict[int, Launch] = {}
        self._started: dict[int, float] = {}
        self._over_early: set[int] = set()  # attempts that ended before their submission was confirmed
        self._pending: dict[int, str] = {}
        self._pending_in_flight: dict[int, str] = {}
        self.packed = PackedBatches()
        self.launch_problems = LaunchProblems()
        self.run_status: str = WorkflowRunStatus.LAUNCHED
        self.draining = False

    # -- input from the server ---------------------------------------------------------------------------------

    def take(self, launches: Iterable[LaunchBatch]) -> None:
        """Add attempts received from the server."""
        for given in launches:
            cluster = self._clusters.get(given.cluster_name)
            if given.plan is not None and self.packed.knows(given.batch_number):
                continue
            attempts = [one for one in translate.attempts_of(given) if self._is_wanted(one, cluster)]
            if cluster is None or not attempts:
                continue
            if cluster.limits.direct:
                cluster.waiting.extend(attempts)
                cluster.mean_cores = sum(one.cores for one in attempts) / len(attempts)
            elif given.plan is not None:  # kept whole: the server assigns tasks to its jobs
                cluster.batches.append(given)
                self.packed.await_submission(given.batch_number)
            else:
                cluster.batches.append(narrowed(given, {one.task_instance_id for one in attempts}))
            self._waiting_ids.update((one.task_instance_id, given.cluster_name) for one in attempts)
            cluster.count += len(attempts)

    def _is_wanted(self, attempt: ReceivedAttempt, cluster: ClusterAttempts | None) -> bool:
        identity = attempt.task_instance_id
        if identity in self._cancelled_before_launch or identity in self._waiting_ids or identity in self._held:
            return False
        if cluster is None:
            error = f"This distributor has no cluster {attempt.cluster_name!r}."
            self.say(translate.lost_report(identity, Cause.WORKER_LOST, error))
        elif self.draining or self.is_run_final:
            self._give_back(identity)
        return cluster is not None and not (self.draining or self.is_run_final)

    def _give_back(self, identity: int) -> None:
        error = "It was prefetched by the distributor but not started in time."
        self.say(translate.lost_report(identity, Cause.WORKER_LOST, error))

    def set_run_status(self, status: str) -> None:
        """Set the run's status. Return waiting attempts to the server if it is final."""
        self.run_status = status
        if self.is_run_final:
            self.drop_waiting()

    @property
    def is_run_final(self) -> bool:
        """Whether the run has ended, so that it queues nothing more."""
        return fsm.is_terminal(fsm.Machine.WORKFLOW_RUN, self.run_status)

    @property
    def kill_cause(self) -> Cause:
        """The cause of kills that the server currently requests."""
        return Cause.KILLED if self.run_status in fsm.STOPPED_RUNS else Cause.KILLED_FOR_RESUME

    def kill(self, identities: Iterable[int]) -> dict[str, list[str]]:
        """Process kill requests; return cluster -> distributor ids to terminate. Others are reported at once."""
        terminate: dict[str, list[str]] = {}
        cancelled: list[int] = []
        for identity in identities:
            if identity in self._killing or identity in self._telling:
                continue
            held = self._held.get(identity)
            if held is not None:
                self._killing[identity] = self.kill_cause
                terminate.setdefault(held.cluster_name, []).append(held.distributor_id)
            elif identity in self._submitting:
                self._killing[identity] = self.kill_cause  # terminated as soon as it has an id
            else:
                cancelled.append(identity)
        self._cancel_before_launch(dict.fromkeys(cancelled))
        return terminate

    def _cancel_before_launch(self, identities: Collection[int]) -> None:
        """Cancel attempts that do not run: they wait here, are in transit to the distributor, or ended long ago."""
        self._remove_waiting(set(identities))
        for identity in identities:
            self._end_unstarted(identity, self.kill_cause)

    def triage(self, identities: Iterable[int]) -> dict[str, dict[int, str]]:
        """Check attempts that the server asks about; return cluster -> {id: distributor id} of those to look up."""
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
            self.say(translate.lost_report(identity, cause, "No trace of it was found."))

    # -- actions to perform ------------------------------------------------------------------------------------

    def capacity(self) -> dict[str, int]:
        """Return cluster -> how many more attempts may be received, over all open requests."""
        if self.draining or self.is_run_final or self._given_up:
            return {}
        return {name: max(0, one.room() - self.packed.untaken(name)) for name, one in self._clusters.items()}

    @property
    def is_well_supplied(self) -> bool:
        """Whether every direct cluster has half of what it may be sent, so that reports may be delayed briefly."""
        return all(one.is_well_supplied for one in self._clusters.values() if one.limits.direct)

    def spawnable(self) -> dict[str, list[Launch]]:
        """Move waiting attempts that fit to their clusters; return cluster -> launches, oldest first.

        Returns nothing while an attempt that the server has closed still runs: its retry may be among those waiting.
        """
        result: dict[str, list[Launch]] = {}
        if self._given_up:
            return result
        for name, cluster in self._clusters.items():
            while cluster.waiting and cluster.fits(cluster.waiting[0]):
                result.setdefault(name, []).append(self._hand_over(name, cluster, cluster.waiting.popleft()))
        return result

    def _hand_over(self, name: str, cluster: ClusterAttempts, attempt: ReceivedAttempt) -> Launch:
        launch = translate.launch_of(attempt, self._around)
        identity = attempt.task_instance_id
        self._forget_waiting(identity)
        self._hold(identity, InFlight(name, str(identity), attempt.cores, attempt.memory, launch))
        return launch

    def submittable(self) -> dict[str, list[LaunchBatch]]:
        """Remove and return the batches for classic clusters; call `submitted` or `refused` for each attempt."""
        result: dict[str, list[LaunchBatch]] = {}
        for name, cluster in self._clusters.items():
            if cluster.batches:
                result[name] = list(cluster.batches)
                cluster.batches.clear()
                self._submitting.update(*(one.task_instance_ids for one in result[name]))
        return result

    def unwanted(self, identities: Iterable[int]) -> list[int]:
        """Return which of these waiting attempts must not be submitted: call `withdrawn` for them.

        They were cancelled, or nothing more is launched.
        """
        is_over = self.draining or self.is_run_final
        if not (is_over or self._killing):
            return []
        return [identity for identity in identities if is_over or identity in self._killing]

    def withdrawn(self, identities: Iterable[int]) -> None:
        """Report attempts that were withdrawn before they were submitted."""
        for identity in identities:
            if self._is_over_after_submission(identity):
                continue
            cause = self._killing.pop(identity, None)
            if cause is not None:
                self._end_unstarted(identity, cause)
            else:
                self._give_back(identity)

    def doubtful(self) -> dict[str, list[Doubt]]:
        """Remove and return the attempts to look up; call `submitted` or `unsubmitted` for each attempt."""
        result = {name: one.doubts for name, one in self._clusters.items() if one.doubts}
        for name in result:
            self._clusters[name].doubts = []
        return result

    def drop_waiting(self) -> None:
        """Return prefetched attempts that are not yet with a cluster to the server."""
        identities = self._waiting_ids.keys() - self._submitting
        self._remove_waiting(identities)
        for identity in sorted(identities):
            self._give_back(identity)

    def drain(self) -> None:
        """Stop launching."""
        self.draining = True
        self.drop_waiting()

    def retire(self) -> None:
        """Stop launching, and forget what other hosts can handle as well: everything on classic clusters."""
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
        self._over_early.clear()
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

    # -- input from the clusters -------------------------------------------------------------------------------

    def spawned(self, distributor_ids: Mapping[int, str]) -> None:
        """Store the ids that a direct cluster assigned."""
        for identity, distributor_id in distributor_ids.items():
            if identity in self._held:
                self._held[identity].distributor_id = distributor_id

    def started(self, times: Mapping[int, float]) -> None:
        """Record when attempts started, so that long-running ones are reported as running."""
        for identity, started_at in times.items():
            held = self._held.get(identity)
            if held is not None and not held.told_running:
                self._started[identity] = started_at

    def report_running(self, now: float, host: str) -> float | None:
        """Report attempts that have run long enough; return when the next one will have (seconds since the epoch)."""
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
        """Process exits; return the data for their reports. The caller creates these and passes them to `say`."""
        return [self._ended(ending) for ending in endings]

    def _ended(self, ending: Exit) -> Ended:
        held = self._release(ending.task_instance_id)
        cause = self._killing.pop(ending.task_instance_id, None)
        if held is not None and ending.lost is None:
            self._clusters[held.cluster_name].learn(ending.ended_at - ending.started_at)
        inherited = self._inherited.pop(ending.task_instance_id, None)
        return Ended(ending, held.launch if held is not None else inherited, cause)

    def submitted(self, cluster_name: str, distributor_ids: Mapping[int, str]) -> list[str]:
        """Record submitted attempts; return the ids of those that were cancelled in the meantime."""
        for identity, distributor_id in distributor_ids.items():
            if self._is_over_after_submission(identity):
                continue
            self._hold(identity, InFlight(cluster_name, distributor_id))
            self.say(
                Report(task_instance_id=identity, status=TaskInstanceStatus.LAUNCHED, distributor_id=distributor_id)
            )
        return [distributor_id for identity, distributor_id in distributor_ids.items() if identity in self._killing]

    def refused(self, identities: Iterable[int], reason: str) -> None:
        """Report attempts that a classic cluster rejected."""
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
        """Report attempts that never reached a classic cluster: they are queued again, not charged."""
        for identity in identities:
            if self._is_over_after_submission(identity):
                continue
            cause = self._killing.pop(identity, None)
            if cause is not None:
                self._end_unstarted(identity, cause)
            else:
                self.say(translate.unsubmitted_report(identity))

    def _is_over_after_submission(self, identity: int) -> bool:
        """End an attempt's submission; return whether its worker already reported its outcome to the server."""
        self._forget_waiting(identity)
        self._submitting.discard(identity)
        if identity not in self._over_early:
            return False
        self._over_early.discard(identity)
        self._killing.pop(identity, None)
        return True

    def packed_submitted(self, batch: LaunchBatch, distributor_ids: Iterable[str]) -> None:
        """Record the jobs as which a packed batch was submitted."""
        for identity in batch.task_instance_ids:
            self._is_over_after_submission(identity)
        ids = list(distributor_ids)
        self.packed.open(batch.batch_number, batch.cluster_name, len(batch.task_instance_ids))
        self._hold_jobs(batch.batch_number, batch.cluster_name, ids)
        self.packed.submitted(batch.batch_number, ids)

    def packed_doubted(self, batch: LaunchBatch) -> None:
        """Record a packed batch whose submission is unconfirmed; call `packed_found` once it is looked up."""
        for identity in batch.task_instance_ids:
            self._is_over_after_submission(identity)
        self.packed.open(batch.batch_number, batch.cluster_name, len(batch.task_instance_ids))

    def packed_found(self, number: int, distributor_ids: Iterable[str]) -> None:
        """Resolve an unconfirmed submission: the ids the cluster reports, or none if it was never submitted."""
        cluster_name, ids = self.packed.cluster_of(number), list(distributor_ids)
        if cluster_name is not None:
            self._hold_jobs(number, cluster_name, ids)
            self.packed.submitted(number, ids)

    def _hold_jobs(self, number: int, cluster_name: str, distributor_ids: Iterable[str]) -> None:
        for identity, distributor_id in self.packed.add(number, distributor_ids).items():
            self._hold(identity, InFlight(cluster_name, distributor_id))

    def adopt_packed(self, batches: Iterable[PackedBatch]) -> dict[str, list[int]]:
        """Adopt packed batches and their jobs; return cluster -> batches whose submission is unconfirmed."""
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
        """Update packed batches from the server; return pending jobs, by cluster, that are no longer needed."""
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
        """Return the distributor ids of the packed jobs among these identities."""
        return [self._held[one].distributor_id for one in identities if is_job(one) and one in self._held]

    def distributor_id_of(self, identity: int) -> str:
        """Return the distributor id of an attempt or packed job; "" if it is not with a cluster."""
        held = self._held.get(identity)
        return "" if held is None else held.distributor_id

    def classic(self, cluster_name: str) -> Mapping[str, int]:
        """Return distributor id -> attempt of everything a classic cluster holds."""
        return self._clusters[cluster_name].jobs

    def adopted_since(self, cluster_name: str) -> float | None:
        """Return when the oldest adopted attempt of a classic cluster was launched; None if none was adopted."""
        return self._clusters[cluster_name].adopted_since

    def is_being_killed(self, identity: int) -> bool:
        """Return whether termination of this attempt was requested."""
        return identity in self._killing

    def classic_ended(self, identity: int, ending: RemoteExit) -> None:
        """Report the outcome of an attempt or job that a classic cluster no longer holds and no worker will report."""
        held = self._release(identity)
        cause = self._killing.pop(identity, None)
        if held is not None and is_job(identity):
            self.packed.ended(identity, held.distributor_id, ending)
        elif held is not None:
            self.say(translate.remote_report(identity, held.distributor_id, ending, cause))

    def classic_over(self, identities: Iterable[int]) -> list[int]:
        """Drop attempts whose outcome the server knows; return those that a classic cluster held until now."""
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
        """Whether ended attempts of classic clusters must be known soon: to finish, or to receive more."""
        is_over = self.draining or self.is_run_final
        return (is_over and bool(self.packed.numbers)) or any(
            one.jobs and (is_over or one.is_well_supplied) for one in self._clusters.values()
        )

    def classic_told(self, report: Report) -> None:
        """Process an outcome that a worker left on disk."""
        self._killing.pop(report.task_instance_id, None)
        if self._release(report.task_instance_id) is not None:
            self.say(report)

    def packed_told(self, report: Report) -> None:
        """Process an outcome that a packed job left on disk."""
        if not self._is_being_told(report.task_instance_id):
            self.say(report)

    def classic_stuck(self, identity: int, reason: str) -> None:
        """Report an attempt that, according to its cluster, will never start; it has been terminated there."""
        self._killing.pop(identity, None)
        held = self._release(identity)
        if held is not None and is_job(identity):
            failed = RemoteExit(status=TaskInstanceStatus.ERROR, cause=Cause.SUBMISSION_FAILED, message=reason)
            self.packed.ended(identity, held.distributor_id, failed)
        elif held is not None:
            error, cause = TaskInstanceStatus.ERROR, Cause.SUBMISSION_FAILED
            self.say(Report(task_instance_id=identity, status=error, cause=cause, error=reason))

    def _hold(self, identity: int, held: InFlight) -> None:
        self._held[identity] = held
        cluster = self._clusters[held.cluster_name]
        if not cluster.limits.direct:
            cluster.jobs[held.distributor_id] = identity
        cluster.count += 1
        cluster.cores += held.cores
        cluster.memory += held.memory

    def _release(self, identity: int) -> InFlight | None:
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
        """Record the output files of an earlier distributor's attempts, before any of their exits arrive."""
        self._inherited = {
            attempt.task_instance_id: translate.launch_of(translate.attempt_of(attempt), self._around)
            for attempt in attempts
            if attempt.name and attempt.task_instance_id not in self._held
        }

    def adopt(self, attempts: Sequence[LiveAttempt], living: Mapping[str, Mapping[int, str]]) -> dict[str, list[str]]:
        """Adopt or report attempts that the server believes alive; return cluster -> distributor ids to terminate.

        Earlier terminations are repeated: the request may have been lost with its connection.

        Args:
            attempts: the attempts that the server believes are alive.
            living: direct cluster -> {attempt: distributor id} of what is actually running there.
        """
        to_kill = []
        for attempt in attempts:
            identity = attempt.task_instance_id
            if self._is_being_told(identity) or (attempt.packed and identity not in self._waiting_ids):
                continue  # for packed attempts, their jobs are adopted
            alive = identity in self._held or identity in self._waiting_ids or self._take_over(attempt, living)
            if not alive:
                self._settle(attempt)
            elif attempt.status == TaskInstanceStatus.KILL_SELF:
                self._killing.pop(identity, None)
                to_kill.append(identity)
        return self.kill([*to_kill, *self._find_given_up(attempts, living)])

    def _find_given_up(self, attempts: Sequence[LiveAttempt], living: Mapping[str, Mapping[int, str]]) -> list[int]:
        """Return attempts to kill: they run although the server closed them while no distributor could be asked."""
        listed = {attempt.task_instance_id for attempt in attempts}
        for name, ids in living.items():
            for identity, distributor_id in ids.items():
                if identity not in listed and identity not in self._held and not self._is_being_told(identity):
                    self._hold(identity, InFlight(name, distributor_id, cores=1.0))
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
        self._hold(identity, InFlight(attempt.cluster_name, distributor_id, known.cores, known.memory, launch))
        return True

    def _take_over_classic(self, attempt: LiveAttempt, cluster: ClusterAttempts) -> bool:
        """Hold an attempt that has an id; look it up if it has none but may have been submitted."""
        identity = attempt.task_instance_id
        if attempt.distributor_id is not None:
            self._hold(identity, InFlight(attempt.cluster_name, attempt.distributor_id))
            cluster.adopted_since = min(cluster.adopted_since or attempt.launched_at, attempt.launched_at)
            return True
        if attempt.status not in fsm.MAYBE_SUBMITTED:
            return False
        around = self._around
        batch_token, own_token = around.batch_token(attempt.batch_number), around.attempt_token(identity)
        cluster.doubts.append(Doubt(identity, batch_token, attempt.array_step_id, own_token))
        self._waiting_ids[identity] = attempt.cluster_name
        self._submitting.add(identity)
        cluster.count += 1
        return True

    def _settle(self, attempt: LiveAttempt) -> None:
        """Report an attempt that is no longer alive."""
        identity = attempt.task_instance_id
        if attempt.status == TaskInstanceStatus.KILL_SELF:
            self._end_unstarted(identity, Cause.KILLED_FOR_RESUME)
        elif attempt.status == TaskInstanceStatus.INSTANTIATED:
            self.say(translate.lost_report(identity, Cause.WORKER_LOST, translate.UNSTARTED))
        else:
            self.say(translate.lost_report(identity, Cause.SUPERVISOR_LOST, "No trace of it was found."))

    def _end_unstarted(self, identity: int, cause: Cause) -> None:
        self._cancelled_before_launch[identity] = None
        while len(self._cancelled_before_launch) > CANCELLED_BEFORE_LAUNCH_MAX:
            del self._cancelled_before_launch[next(iter(self._cancelled_before_launch))]
        self.say(translate.killed_report(identity, cause))

    # -- the outbox --------------------------------------------------------------------------------------------

    def say(self, report: Report) -> None:
        """Put a report into the outbox."""
        self.outbox.add(report)
        if is_ending(report):
            self._telling.add(report.task_instance_id)

    def take_reports(self, count_max: int) -> list[Report]:
        """Return reports to send; they stay unconfirmed until `confirm_reports` or `restore_reports`."""
        return list(self.outbox.take(count_max))

    def confirm_reports(self) -> list[int]:
        """Remove reports that the server has; return the attempts whose outcome was among them."""
        confirmed = self.outbox.confirm()
        ended = [one.task_instance_id for one in confirmed if is_ending(one)]
        self._triaging.difference_update(one.task_instance_id for one in confirmed)
        self._pending_in_flight = {}
        self._telling.difference_update(ended)
        self.packed.confirm()
        self.launch_problems.confirm()
        return ended

    def restore_reports(self) -> None:
        """Put reports that the server may not have back into the queue, first."""
        self.outbox.restore()
        self.packed.restore()
        self.launch_problems.restore()
        self._pending = {**self._pending_in_flight, **self._pending}
        self._pending_in_flight = {}

    def note_pending(self, reasons: Mapping[int, str]) -> None:
        """Record why attempts wait on their clusters, to be sent with the next reports."""
        self._pending.update(reasons)

    def take_pending(self) -> dict[int, str]:
        """Return the pending reasons to send; they stay unconfirmed as reports do."""
        self._pending_in_flight, self._pending = self._pending, {}
        return self._pending_in_flight

    def _is_being_told(self, identity: int) -> bool:
        return identity in self._telling

    @property
    def has_reports(self) -> bool:
        """Whether anything is waiting to be sent."""
        return bool(self.outbox or self._pending or self.packed.has_changes or self.launch_problems.has_changes)

    def alive(self) -> list[int]:
        """Return the attempts that are here or with a direct cluster; classic clusters must be polled."""
        held = (identity for identity, one in self._held.items() if self._clusters[one.cluster_name].limits.direct)
        return [*held, *self._waiting_ids]

    @property
    def known_to_kill(self) -> list[int]:
        """Attempts with a kill request whose outcome the server does not know yet."""
        return [*self._killing, *(one for one in self._telling if one in self._cancelled_before_launch)]

    @property
    def known_to_triage(self) -> list[int]:
        """Attempts that the server asked about and whose answer it does not have yet."""
        return list(self._triaging)

    def validate(self) -> None:
        """Check that every attempt is in exactly one state, and that the clusters' counts are correct. Called by tests.

        Raises:
            AssertionError: a check failed; the message names the attempts.
        """
        held, waiting = self._held.keys(), self._waiting_ids.keys()
        wrong = {
            "with a cluster and waiting": held & waiting,
            "with a cluster and reported as ended": held & self._telling,
            "waiting and reported as ended": waiting & self._telling,
            "being submitted and not waiting": self._submitting - waiting,
            "started and not with a cluster": self._started.keys() - held,
            "declared lost and not with a cluster": self._given_up - held,
            "ended during submission and not being submitted": self._over_early - self._submitting,
            "to be killed and not here": self._killing.keys() - held - self._submitting,
        }
        for name, cluster in self._clusters.items():
            jobs = {one for one in held if self._name_of(one) == name and not cluster.limits.direct}
            queued = {identity for identity, cluster_name in self._waiting_ids.items() if cluster_name == name}
            wrong |= {
                f"in the queue of {name} and not waiting": {one.task_instance_id for one in cluster.waiting} - queued,
                f"in a batch of {name} and not waiting": set().union(
                    *(one.task_instance_ids for one in cluster.batches)
                )
                - queued,
                f"jobs of {name} and not with it, or the other way round": set(cluster.jobs.values()) ^ jobs,
            }
        assert not any(wrong.values()), {what: sorted(which) for what, which in wrong.items() if which}
        for name, cluster in self._clusters.items():
            mine = [one for one in self._held.values() if one.cluster_name == name]
            count, cores = len(mine) + list(self._waiting_ids.values()).count(name), sum(one.cores for one in mine)
            assert cluster.count == count, f"{name} counts {cluster.count}, not {count}"
            assert abs(cluster.cores - cores) < 1e-6, f"{name} uses {cluster.cores} cores, not {cores}"

    @property
    def held_count(self) -> int:
        """The number of attempts with clusters."""
        return len(self._held)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waiting, running, or left to report."""
        return self.packed.is_idle and self.outbox.is_empty and not (self._held or self._waiting_ids)
