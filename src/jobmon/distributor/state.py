"""The distributor's decisions: input from server and clusters -> what to submit, kill and report. Pure.

There is one `AttemptRecord` for each attempt that is here, and for each packed job. Its state changes only as follows:

| from | event | to |
| --- | --- | --- |
| - | `take`: received from the server | WAITING |
| - | `adopt`: it may be with its cluster | UNCONFIRMED |
| - | `adopt`, `packed_found`: it is with its cluster | WITH_CLUSTER |
| WAITING | `submittable`: its submission begins | UNCONFIRMED |
| WAITING | `kill`, `drop_waiting` | ENDED |
| UNCONFIRMED | `submitted`: its cluster has it | WITH_CLUSTER |
| UNCONFIRMED | `refused`, `unsubmitted`, `withdrawn`: its cluster does not have it | ENDED |
| UNCONFIRMED | the same, and its worker already reported its outcome; it became part of a packed job | - |
| WITH_CLUSTER | `classic_ended`, `classic_told`, `classic_stuck` | ENDED; a packed job: - |
| WITH_CLUSTER | `classic_over`, `hear_packed`: the server knows its outcome | - |
| ENDED | `confirm_reports` | - |

An unconfirmed submission (a `Doubt`) is looked up by its token before anything else is done with it. The worker of an
attempt reports the outcome to the server, which notifies the distributor (`classic_over`); outcomes that no worker
reported are derived from the cluster's information.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from jobmon.core import fsm
from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import Cause, TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.wire.launching import LaunchBatch, LiveAttempt, PackedBatch, Report, SubmittedBatch, SyncResponse
from jobmon.distributor import batch as translate
from jobmon.distributor.inflight import (
    AttemptRecord,
    AttemptState,
    Doubt,
    Records,
    Triage,
    narrowed,
)
from jobmon.distributor.launch_problems import LaunchProblems
from jobmon.distributor.outbox import Outbox, is_ending
from jobmon.distributor.packed import PackedBatches, is_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jobmon.distributor.batch import Surroundings

#: Maximum number of remembered attempts that were cancelled before they were received.
CANCELLED_BEFORE_LAUNCH_MAX: Final = 100_000
WAITING, UNCONFIRMED, WITH_CLUSTER, ENDED = AttemptState


class DistributorState:
    """The distributor's state. Methods take facts and return decisions; none performs an action.

    Args:
        clusters: names of the clusters.
        around: settings shared by all attempts.
    """

    def __init__(self, clusters: Iterable[str], around: Surroundings) -> None:
        self.records = Records(clusters)
        self._clusters = self.records.clusters
        self._around = around
        self._cancelled_before_launch: dict[int, None] = {}
        self._job_identities = itertools.count(-1, -1)
        self.outbox = Outbox()
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
            wanted = [one for one in given.task_instance_ids if self._is_wanted(one, given.cluster_name)]
            if cluster is None or not wanted:
                continue
            for identity in wanted:
                self.records.add(AttemptRecord(identity, WAITING, given.cluster_name))
            cluster.batches.append(given)
            if given.plan is not None:
                self.packed.await_submission(given.batch_number)

    def _is_wanted(self, identity: int, cluster_name: str) -> bool:
        if identity in self._cancelled_before_launch or identity in self.records:
            return False
        is_served = cluster_name in self._clusters
        if not is_served:
            error = f"This distributor has no cluster {cluster_name!r}."
            self.say(translate.lost_report(identity, Cause.WORKER_LOST, error))
        elif self.is_finishing:
            self.say(translate.unstarted_report(identity))
        return is_served and not self.is_finishing

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
    def is_finishing(self) -> bool:
        """Whether nothing more is launched."""
        return self.draining or self.is_run_final

    @property
    def kill_cause(self) -> Cause:
        """The cause of kills that the server currently requests."""
        return Cause.KILLED if self.run_status in fsm.STOPPED_RUNS else Cause.KILLED_FOR_RESUME

    def kill(self, identities: Iterable[int]) -> dict[str, list[str]]:
        """Process kill requests; return cluster -> distributor ids to terminate. Others are reported at once."""
        terminate: dict[str, list[str]] = {}
        for identity in identities:
            record = self.records.get(identity)
            if record is None or record.state is WAITING:  # it is in transit to the distributor, or ended long ago
                self._end_unstarted(identity, self.kill_cause)
            elif record.state is not ENDED and record.kill_cause is None:
                record.kill_cause = self.kill_cause
                if record.state is WITH_CLUSTER:  # otherwise it is terminated as soon as it has an id
                    terminate.setdefault(record.cluster_name, []).append(record.distributor_id)
        return terminate

    def triage(self, identities: Iterable[int]) -> set[str]:
        """Check attempts that the server asks about; return the clusters that must be polled for it."""
        clusters = set()
        for identity in identities:
            record = self.records.get(identity)
            if record is None:
                record = self._end(translate.lost_report(identity, Cause.WORKER_LOST, "No trace of it was found."))
            record.triage = Triage.ASKED
            if record.state is WITH_CLUSTER:
                clusters.add(record.cluster_name)
        return clusters

    # -- actions to perform ------------------------------------------------------------------------------------

    def capacity(self) -> dict[str, int]:
        """Return cluster -> how many more attempts may be received, over all open requests."""
        if self.is_finishing:
            return {}
        return {name: max(0, one.room() - self.packed.untaken(name)) for name, one in self._clusters.items()}

    def submittable(self) -> dict[str, list[LaunchBatch]]:
        """Remove and return the batches to submit; call `submitted` or `refused` for each attempt."""
        result: dict[str, list[LaunchBatch]] = {}
        for name, cluster in self._clusters.items():
            for batch in cluster.batches:
                records = [self.records.get(one) for one in batch.task_instance_ids]
                waiting = {one.identity: one for one in records if one is not None and one.state is WAITING}
                for record in waiting.values():
                    self.records.move(record, UNCONFIRMED)
                if waiting:  # a packed batch is kept whole: the server assigns tasks to its jobs
                    kept = batch if batch.plan is not None else narrowed(batch, set(waiting))
                    result.setdefault(name, []).append(kept)
            cluster.batches.clear()
        return result

    def unwanted(self, identities: Iterable[int]) -> list[int]:
        """Return which of these waiting attempts must not be submitted: call `withdrawn` for them.

        They were cancelled, or nothing more is launched.
        """
        if self.is_finishing:
            return list(identities)
        found = (self.records.get(one) for one in identities)
        return [one.identity for one in found if one is not None and one.kill_cause is not None]

    def withdrawn(self, identities: Iterable[int]) -> None:
        """Report attempts that were withdrawn before they were submitted."""
        self._end_unsubmitted(identities, translate.unstarted_report)

    def doubtful(self) -> dict[str, list[Doubt]]:
        """Remove and return the attempts to look up; call `submitted` or `unsubmitted` for each attempt."""
        result = {name: one.doubts for name, one in self._clusters.items() if one.doubts}
        for name in result:
            self._clusters[name].doubts = []
        return result

    def drop_waiting(self) -> None:
        """Return prefetched attempts that are not yet with a cluster to the server."""
        for cluster in self._clusters.values():
            cluster.batches.clear()
        for identity in sorted(one.identity for one in self.records.in_state(WAITING)):
            self.say(translate.unstarted_report(identity))

    def drain(self) -> None:
        """Stop launching."""
        self.draining = True
        self.drop_waiting()

    # -- input from the clusters -------------------------------------------------------------------------------

    def submitted(self, cluster_name: str, distributor_ids: Mapping[int, str], now: float = 0.0) -> list[str]:
        """Record submitted attempts; return the ids of those that were cancelled in the meantime.

        Args:
            cluster_name: their cluster.
            distributor_ids: attempt -> the cluster's id for it.
            now: the time of the submission, monotonic seconds.
        """
        cancelled = []
        for identity, distributor_id in distributor_ids.items():
            record = self._concluded(identity)
            if record is None:
                continue
            record.cluster_name, record.distributor_id, record.submitted_at = cluster_name, distributor_id, now
            record.state = WITH_CLUSTER
            self.records.add(record)
            launched = TaskInstanceStatus.LAUNCHED
            self.say(Report(task_instance_id=identity, status=launched, distributor_id=distributor_id))
            if record.kill_cause is not None:
                cancelled.append(distributor_id)
        return cancelled

    def refused(self, identities: Iterable[int], reason: str) -> None:
        """Report attempts that a classic cluster rejected."""
        for identity in identities:
            if self._concluded(identity) is not None:
                status, cause = TaskInstanceStatus.NO_DISTRIBUTOR_ID, Cause.SUBMISSION_FAILED
                self.say(Report(task_instance_id=identity, status=status, cause=cause, error=reason))

    def unsubmitted(self, identities: Iterable[int]) -> None:
        """Report attempts that never reached a classic cluster: they are queued again, not charged."""
        self._end_unsubmitted(identities, translate.unsubmitted_report)

    def _end_unsubmitted(self, identities: Iterable[int], report: Callable[[int], Report]) -> None:
        for identity in identities:
            record = self._concluded(identity)
            if record is not None and record.kill_cause is not None:
                self._end_unstarted(identity, record.kill_cause)
            elif record is not None:
                self.say(report(identity))

    def _concluded(self, identity: int) -> AttemptRecord | None:
        """Remove and return the record of an attempt whose submission has an outcome.

        Returns None if the outcome of the attempt itself is known already: there is nothing to report.
        """
        known = self.records.get(identity)
        is_ended = identity in self._cancelled_before_launch  # in a packed batch, which is kept whole
        if is_ended or (known is not None and (known.state is ENDED or known.is_reported)):
            self.records.remove(identity)
            return None
        return self.records.remove(identity) or AttemptRecord(identity)

    def packed_handed_over(self, batch: LaunchBatch) -> None:
        """Record that a packed batch was submitted, or may have been; call `packed_found` once that is known."""
        for identity in batch.task_instance_ids:
            self._concluded(identity)
        self.packed.open(batch.batch_number, batch.cluster_name, len(batch.task_instance_ids))

    def packed_found(self, number: int, distributor_ids: Iterable[str], now: float = 0.0) -> None:
        """Record the jobs of a packed batch and report them; none: it was never submitted, or pilots run it."""
        cluster_name, ids = self.packed.cluster_of(number), list(distributor_ids)
        if cluster_name is not None:
            self._hold_jobs(number, cluster_name, ids, now)
            self.outbox.changes.submitted.append(SubmittedBatch(batch_number=number, distributor_ids=ids))

    def _hold_jobs(self, number: int, cluster_name: str, distributor_ids: Iterable[str], now: float = 0.0) -> None:
        known = {one.distributor_id for one in self.records.of_batch(number)}
        for distributor_id in distributor_ids:
            if distributor_id not in known:
                job = AttemptRecord(next(self._job_identities), WITH_CLUSTER, cluster_name, distributor_id)
                job.batch_number, job.submitted_at = number, now
                self.records.add(job)

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
            self.packed.close(number)
            for job in self.records.of_batch(number):
                self.records.remove(job.identity)
                if job.distributor_id in unstarted:
                    terminate.setdefault(job.cluster_name, []).append(job.distributor_id)
        return terminate

    def live_jobs(self, identities: Iterable[int]) -> list[str]:
        """Return the distributor ids of the packed jobs among these identities."""
        return [self.records[one].distributor_id for one in identities if is_job(one) and one in self.records]

    def classic(self, cluster_name: str) -> Mapping[str, int]:
        """Return distributor id -> attempt of everything a classic cluster holds."""
        return self._clusters[cluster_name].jobs

    def submitted_until(self, cluster_name: str, at: float) -> dict[str, int]:
        """Return what `classic` does, without later submissions: a poll that began then cannot contain these.

        Args:
            cluster_name: the classic cluster.
            at: monotonic seconds.
        """
        jobs = self._clusters[cluster_name].jobs
        return {
            job: one
            for job, one in jobs.items()
            if (held := self.records.with_cluster(one)) and held.submitted_at <= at
        }

    def classic_ended(self, identity: int, ending: RemoteExit) -> None:
        """Report the outcome of an attempt or job that a classic cluster no longer holds and no worker will report."""
        record = self.records.with_cluster(identity)
        if record is None:
            return
        if is_job(identity):
            self.records.remove(identity)
            self.outbox.changes.ended.append(translate.ended_job(record.distributor_id, ending))
        else:
            self.say(translate.remote_report(identity, record.distributor_id, ending, record.kill_cause))

    def classic_over(self, identities: Iterable[int]) -> list[int]:
        """Drop attempts whose outcome the server knows; return those that a classic cluster held until now."""
        over = []
        for identity in identities:
            record = self.records.get(identity)
            if record is not None and record.state is UNCONFIRMED:
                record.is_reported = True
            elif record is not None and record.state is WITH_CLUSTER:
                self.records.remove(identity)
                over.append(identity)
        return over

    def classic_alive(self, identities: Iterable[int]) -> None:
        """Report attempts that a classic cluster still has, where the server has asked about them."""
        for identity in identities:
            record = self.records.with_cluster(identity)
            if record is not None and record.triage is Triage.ASKED:
                self.say(Report(task_instance_id=identity, status=TaskInstanceStatus.RUNNING))

    def note_pending(self, reasons: Mapping[int, str], count_max: int) -> bool:
        """Report why attempts wait on their classic clusters, if that has changed; return whether it has for any."""
        new = [
            (held, why)
            for one, why in reasons.items()
            if (held := self.records.with_cluster(one)) and held.pending_reason != why
        ]
        told = [(held, why) for held, why in new if not is_job(held.identity)][:count_max]
        for record, why in told:
            record.pending_reason = self.outbox.changes.pending[record.identity] = why
        return bool(told)

    @property
    def wants_endings(self) -> bool:
        """Whether ended attempts of classic clusters must be known soon: to finish, or to receive more."""
        return (self.is_finishing and bool(self.packed.numbers)) or any(
            one.jobs and (self.is_finishing or one.is_well_supplied) for one in self._clusters.values()
        )

    def classic_told(self, report: Report) -> None:
        """Process an outcome that a worker left on disk."""
        if self.records.with_cluster(report.task_instance_id) is not None:
            self.say(report)

    def packed_told(self, report: Report) -> None:
        """Process an outcome that a packed job left on disk."""
        if report.task_instance_id not in self.records:
            self.say(report)

    def classic_stuck(self, identity: int, reason: str) -> None:
        """Report an attempt that, according to its cluster, will never start; it has been terminated there."""
        error, cause = TaskInstanceStatus.ERROR, Cause.SUBMISSION_FAILED
        if is_job(identity):
            self.classic_ended(identity, RemoteExit(status=error, cause=cause, message=reason))
        elif self.records.with_cluster(identity) is not None:
            self.say(Report(task_instance_id=identity, status=error, cause=cause, error=reason))

    # -- an earlier distributor's attempts ---------------------------------------------------------------------

    def adopt(self, attempts: Iterable[LiveAttempt]) -> dict[str, list[str]]:
        """Adopt or report attempts that the server believes alive; return cluster -> distributor ids to terminate.

        Earlier terminations are repeated: the request may have been lost. What the server has closed while no
        distributor could be asked is terminated as well.
        """
        listed, to_kill = set(), []
        for attempt in attempts:
            identity = attempt.task_instance_id
            listed.add(identity)
            record = self.records.get(identity)
            if (record is None and attempt.packed) or (record is not None and record.state is ENDED):
                continue  # for packed attempts, their jobs are adopted
            record = record or self._adopted(attempt)
            if record is None:
                self._settle(attempt)
            elif attempt.status == TaskInstanceStatus.KILL_SELF:
                record.kill_cause = None
                to_kill.append(identity)
        held = (one.identity for one in self.records.in_state(WITH_CLUSTER))
        return self.kill([*to_kill, *(one for one in held if one not in listed and not is_job(one))])

    def _adopted(self, attempt: LiveAttempt) -> AttemptRecord | None:
        """Add and return an attempt that has an id; look it up if it has none but may have been submitted.

        Returns None if it is not alive.
        """
        identity, cluster = attempt.task_instance_id, self._clusters.get(attempt.cluster_name)
        if cluster is None:
            return None
        record = AttemptRecord(identity, UNCONFIRMED, attempt.cluster_name)
        if attempt.distributor_id is not None:
            record.state, record.distributor_id = WITH_CLUSTER, attempt.distributor_id
            cluster.adopted_since = min(cluster.adopted_since or attempt.launched_at, attempt.launched_at)
        elif attempt.status in fsm.MAYBE_SUBMITTED:
            around = self._around
            batch_token, own_token = around.batch_token(attempt.batch_number), around.attempt_token(identity)
            cluster.doubts.append(Doubt(identity, batch_token, attempt.array_step_id, own_token))
        else:
            return None
        self.records.add(record)
        return record

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
        self._end(translate.killed_report(identity, cause)).kill_cause = cause

    # -- the outbox --------------------------------------------------------------------------------------------

    def say(self, report: Report) -> None:
        """Put a report into the outbox; the report of its outcome ends an attempt, whether or not it was here."""
        if is_ending(report):
            self._end(report)
            return
        self.outbox.add(report)
        record = self.records.get(report.task_instance_id)
        if record is not None and record.triage is Triage.ASKED:
            record.triage = Triage.ANSWERED

    def _end(self, report: Report) -> AttemptRecord:
        self.outbox.add(report)
        return self.records.end(report.task_instance_id)

    def take_reports(self, count_max: int) -> list[Report]:
        """Return reports to send; they stay unconfirmed until `confirm_reports` or `restore_reports`."""
        return list(self.outbox.take(count_max))

    def confirm_reports(self) -> list[int]:
        """Remove reports that the server has; return the attempts whose outcome was among them."""
        ended = []
        for report in self.outbox.confirm():
            identity = report.task_instance_id
            record = self.records.get(identity)
            if is_ending(report):
                ended.append(identity)
                self.records.confirm(identity)
            elif record is not None and record.triage is Triage.ANSWERED:
                record.triage = Triage.NOT_ASKED
        self.launch_problems.confirm()
        return ended

    def restore_reports(self) -> None:
        """Put reports that the server may not have back into the queue, first."""
        self.outbox.restore()
        self.launch_problems.restore()

    @property
    def has_reports(self) -> bool:
        """Whether anything is waiting to be sent."""
        return self.outbox.is_due or self.launch_problems.has_changes

    def alive(self) -> list[int]:
        """Return the attempts that are not yet with their clusters; the others are known from polling."""
        return [one.identity for one in self.records.in_state(WAITING, UNCONFIRMED)]

    @property
    def known_to_kill(self) -> list[int]:
        """Attempts with a kill request whose outcome the server does not know yet."""
        return [one.identity for one in self.records.values() if one.kill_cause is not None]

    @property
    def known_to_triage(self) -> list[int]:
        """Attempts that the server asked about and whose answer it does not have yet."""
        return [one.identity for one in self.records.values() if one.triage is not Triage.NOT_ASKED]

    def validate(self) -> None:
        """Check every record, and that queues, totals and outbox agree with the records. Called by tests."""
        reports = (*self.outbox, *self.outbox.in_flight)
        self.records.validate({one.task_instance_id for one in reports if is_ending(one)})

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waiting, running, or left to report."""
        return self.outbox.is_empty and not (self.records or self.packed.numbers)
