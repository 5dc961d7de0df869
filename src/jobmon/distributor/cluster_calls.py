"""Calls to a classic cluster's plug-in, made off the event loop because they may take seconds: one round at a time.

No exception raised by a plug-in terminates a run. `ClusterUnavailable` does not fail an attempt either: the action is
repeated later, and a submission whose outcome is unknown is first looked up by its token.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import packing, wire
from jobmon.core.cluster_protocol import (
    EXCLUDED_HOSTS,
    FIRST_STEP,
    SUBMISSION_TOKEN,
    ClusterDistributor,
    RemoteExit,
    array_submission,
)
from jobmon.core.exceptions import (
    ArraysUnsupported,
    ClusterFull,
    ClusterUnavailable,
    JobmonError,
    PluginError,
    SubmissionDeferred,
)
from jobmon.core.wire.launching import LaunchBatch, Report
from jobmon.distributor.inflight import Doubt
from jobmon.distributor.packed import is_job
from jobmon.distributor.submissions import FAILED_KEYS_MAX, Setback, Submission

if TYPE_CHECKING:
    from jobmon.core.wire.launching import JobPlan
    from jobmon.distributor.batch import Surroundings
    from jobmon.distributor.undelivered import StartErrors, UndeliveredReports

logger = logging.getLogger(__name__)
NO_ID: Final = "The cluster assigned no ID to the job, and has no job with this token."
#: Maximum length of a pending reason.
PENDING_CHARACTERS_MAX: Final = 500


class Outcome(Enum):
    """The meaning of an exception that a plug-in raised during a submission."""

    FULL = "nothing was submitted; the cluster is full"
    DEFERRED = "nothing was submitted, for a reason that may be transient"
    UNANSWERED = "the cluster did not respond: look it up"
    REJECTED = "it is rejected, and would be rejected again"
    LOST = "the plug-in failed: look it up"


#: Intended exceptions have a meaning; any other exception is a bug in the plug-in. The first match counts.
_MEANINGS: Final[tuple[tuple[type[Exception], Outcome], ...]] = (
    (ClusterFull, Outcome.FULL),
    (SubmissionDeferred, Outcome.DEFERRED),
    (ClusterUnavailable, Outcome.UNANSWERED),
    (PluginError, Outcome.LOST),
    (JobmonError, Outcome.REJECTED),
    (Exception, Outcome.LOST),
)
_SETBACKS: Final = {Outcome.FULL: Setback.FULL, Outcome.DEFERRED: Setback.DEFERRED}


def outcome_of(error: Exception) -> Outcome:
    """Return the meaning of an exception that a plug-in raised during a submission."""
    return next(outcome for kind, outcome in _MEANINGS if isinstance(error, kind))


@dataclass(slots=True)
class Call:
    """The calls to make to a cluster in one round. `view`: the view to answer from, for plug-ins that use views."""

    submissions: Sequence[Submission] = ()
    doubts: Sequence[Doubt] = ()
    packed_doubts: Sequence[int] = ()  # batches
    kill: Sequence[str] = ()
    ask: Mapping[str, int] | None = None  # distributor id -> attempt
    view: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Result:
    """The results of one round. `gone`: a value of None means that the cluster does not (yet) know the job's outcome.

    `problem`: why an action other than a submission has to be repeated.
    """

    submitted: dict[int, str] = field(default_factory=dict)
    accepted: Counter[str] = field(default_factory=Counter)  # key -> attempts
    refused: list[tuple[list[int], str]] = field(default_factory=list)
    set_back: list[tuple[Submission, Setback, str]] = field(default_factory=list)
    untried: list[Submission] = field(default_factory=list)
    unanswered: str = ""  # why the outcome of a submission is unknown, if the cluster did not respond
    doubts: list[Doubt] = field(default_factory=list)
    packed: list[tuple[LaunchBatch, list[str]]] = field(default_factory=list)
    packed_doubts: list[int] = field(default_factory=list)
    packed_lost: dict[int, tuple[Submission, str]] = field(default_factory=dict)  # and the plug-in's failure
    packed_found: dict[int, list[str]] = field(default_factory=dict)
    packed_from_disk: list[Report] = field(default_factory=list)
    not_found: list[Doubt] = field(default_factory=list)
    not_killed: list[str] = field(default_factory=list)
    is_asked: bool = False
    alive: list[int] = field(default_factory=list)
    gone: dict[int, RemoteExit | None] = field(default_factory=dict)
    stuck: dict[int, str] = field(default_factory=dict)
    pending: dict[int, str] = field(default_factory=dict)
    running: dict[int, str] = field(default_factory=dict)  # attempt -> host
    from_disk: list[Report] = field(default_factory=list)
    has_acted: bool = False  # the round did more than poll
    problem: str = ""
    ask_problem: str = ""


class ClusterCalls:
    """Perform rounds of calls.

    Args:
        name: the cluster's name.
        adapter: the cluster's plug-in.
        around: settings shared by all attempts.
        undelivered: reports that workers could not deliver.
        start_errors: messages of workers that could not start their command.
    """

    def __init__(
        self,
        name: str,
        adapter: ClusterDistributor,
        around: Surroundings,
        undelivered: UndeliveredReports,
        start_errors: StartErrors,
    ) -> None:
        self._name = name
        self._adapter = adapter
        self._around = around
        self._undelivered = undelivered
        self._start_errors = start_errors

    def work(self, call: Call) -> Result:
        """Perform one round of calls."""
        result = Result(has_acted=bool(call.doubts or call.packed_doubts or call.kill))
        if call.doubts:
            self._or_later(result, lambda: self._find(call.doubts, result), lambda: result.doubts.extend(call.doubts))
        if call.packed_doubts:
            doubts = call.packed_doubts
            self._or_later(
                result, lambda: self._find_packed(doubts, result), lambda: result.packed_doubts.extend(doubts)
            )
        self._submit_all(call.submissions, result)
        if call.kill:
            kill = list(call.kill)
            self._or_later(
                result, lambda: self._adapter.terminate_task_instances(kill), lambda: result.not_killed.extend(kill)
            )
        if call.ask is not None:
            self._ask_about(call.ask, call.view, result)
        return result

    def _or_later(self, result: Result, act: Callable[[], None], keep: Callable[[], None]) -> None:
        """Perform an action; if it fails, keep it for a later round."""
        try:
            act()
        except ClusterUnavailable as error:
            result.problem = result.unanswered = _text(error)
            keep()
        except Exception as error:  # a bug in a plug-in must not terminate the run
            logger.exception("The plug-in of cluster %s failed.", self._name)
            result.problem = _reason(error)
            keep()

    # -- submitting --------------------------------------------------------------------------------------------

    def _submit_all(self, submissions: Sequence[Submission], result: Result) -> None:
        """Submit in order; after a setback, other submissions with its key wait, after several setbacks all."""
        failed: set[str] = set()
        for one in submissions:
            if result.unanswered or one.key in failed or len(failed) >= FAILED_KEYS_MAX:
                result.untried.append(one)
                continue
            self._submit(one, result)
            failed.update(submission.key for submission, _, _ in result.set_back)
            failed.update(doubt.key for doubt in result.doubts if doubt.reason)

    def _submit(self, given: Submission, result: Result) -> None:
        if given.batch.plan is not None:
            self._submit_packed(given, given.batch.plan, result)
            return
        now = given
        if given.most is not None and (self._adapter.continues_arrays or not given.is_array):
            now, later = given.split(given.most)
            result.untried += [later] if later is not None else []
        if now.is_array and len(now.batch.task_instance_ids) > 1 and self._has_arrays():
            self._submit_array(now, result)
        else:
            self._submit_singly(now, result)

    def _has_arrays(self) -> bool:
        if self._adapter.has_arrays is not None:
            return self._adapter.has_arrays
        own = type(self._adapter).submit_array_to_batch_distributor
        return own is not ClusterDistributor.submit_array_to_batch_distributor

    def _submit_array(self, given: Submission, result: Result) -> None:
        batch, adapter = given.batch, self._adapter
        request = _request(batch, self._around.batch_token(batch.batch_number))
        if given.first_step:
            request[FIRST_STEP] = given.first_step
        length = len(batch.task_instance_ids)
        try:
            command = adapter.build_worker_node_command(array_id=batch.array_id, batch_number=batch.batch_number)
            answer = adapter.submit_array_to_batch_distributor(command, batch.array_name, request, length)
            found = array_submission(answer, given.first_step)
        except ArraysUnsupported:
            self._submit_singly(given, result)
            return
        except Exception as error:
            self._not_submitted(given, set(batch.task_instance_ids), error, result)
            return
        ids = {
            identity: found[given.first_step + index]
            for index, identity in enumerate(batch.task_instance_ids)
            if given.first_step + index in found
        }
        self._took(given, ids, result)
        rest = set(batch.task_instance_ids) - ids.keys()
        if rest:
            self._not_submitted(given, rest, found.error, result)

    def _submit_singly(self, given: Submission, result: Result) -> None:
        """Submit attempts individually; if the cluster is full, does not respond or fails, the rest waits."""
        batch = given.batch
        for index, identity in enumerate(batch.task_instance_ids):
            try:
                distributor_id = self._submit_one(batch, index)
            except Exception as error:
                outcome = outcome_of(error)
                if outcome in _SETBACKS:
                    self._not_submitted(given, set(batch.task_instance_ids[index:]), error, result)
                    return
                self._not_submitted(given, {identity}, error, result)
                if outcome is not Outcome.REJECTED:
                    if rest := set(batch.task_instance_ids[index + 1 :]):
                        result.untried.append(given.rest(rest, as_array=self._adapter.continues_arrays))
                    return
                continue
            if distributor_id:
                self._took(given, {identity: str(distributor_id)}, result)
            else:
                self._not_submitted(given, {identity}, None, result)

    def _submit_one(self, batch: LaunchBatch, index: int) -> str:
        identity = batch.task_instance_ids[index]
        command = self._adapter.build_worker_node_command(task_instance_id=identity)
        request = _request(batch, self._around.attempt_token(identity))
        return self._adapter.submit_to_batch_distributor(command, batch.names[index], request)

    @staticmethod
    def _took(given: Submission, ids: Mapping[int, str], result: Result) -> None:
        if ids:
            result.submitted.update(ids)
            result.accepted[given.key] += len(ids)

    def _not_submitted(self, given: Submission, wanted: set[int], error: Exception | None, result: Result) -> None:
        """Record what happens to attempts of a submission that received no id.

        Args:
            given: the submission.
            wanted: the attempts without an id.
            error: the reason; None if the plug-in gave none.
            result: where the result is recorded.
        """
        rest = given.rest(wanted, as_array=self._adapter.continues_arrays)
        steps = [index for index, one in enumerate(given.batch.task_instance_ids) if one in wanted]
        outcome = Outcome.LOST if error is None else outcome_of(error)
        if outcome is Outcome.REJECTED and given.batch.excluded_hosts:
            logger.warning(
                "Cluster %s rejects a request that excludes hosts; retrying without exclusions: %s", self._name, error
            )
            result.untried.append(replace(rest, batch=wire.replace(rest.batch, excluded_hosts=[])))
        elif outcome is Outcome.REJECTED:
            logger.error("Cluster %s rejects %d attempts: %s", self._name, len(wanted), error)
            result.refused.append((rest.batch.task_instance_ids, _text(error)))
        elif outcome in _SETBACKS:
            result.set_back.append((rest, _SETBACKS[outcome], _text(error)))
        elif outcome is Outcome.UNANSWERED:
            result.unanswered = _text(error)
            result.doubts += doubts_of(given, self._around, steps)
        else:
            if error is not None:
                logger.error("The plug-in of cluster %s failed to submit.", self._name, exc_info=error)
            reason = NO_ID if error is None else _reason(error)
            result.doubts += [
                replace(doubt, reason=reason, key=given.key) for doubt in doubts_of(given, self._around, steps)
            ]

    def _submit_packed(self, given: Submission, plan: JobPlan, result: Result) -> None:
        """Submit jobs that claim the batch's tasks from the server; a part of the planned jobs is sufficient."""
        batch = given.batch
        token = self._around.batch_token(batch.batch_number)
        job_request = packing.job_request(batch.requested_resources, plan.width, plan.runtime_seconds)
        jobs = wire.replace(batch, requested_resources=job_request)
        ids: list[str] = []
        error: Exception | None = None
        try:
            worker = self._adapter.build_worker_node_command(array_id=batch.array_id, batch_number=batch.batch_number)
            if plan.jobs:
                command = f"{worker} --packed yes"
                ids, error = self._submit_jobs(command, batch.array_name, _request(jobs, token), plan.jobs)
        except Exception as raised:
            error = raised
        if ids or not plan.jobs:
            if error is not None:
                logger.warning("Cluster %s accepted %d of %d jobs: %s", self._name, len(ids), plan.jobs, error)
            result.packed.append((batch, ids))
            result.accepted[given.key] += len(ids)
            return
        outcome = Outcome.LOST if error is None else outcome_of(error)
        if outcome in (Outcome.LOST, Outcome.UNANSWERED):
            if outcome is Outcome.UNANSWERED:
                result.unanswered = _text(error)
            else:
                logger.error("The plug-in of cluster %s failed to submit.", self._name, exc_info=error)
                result.packed_lost[batch.batch_number] = (given, NO_ID if error is None else _reason(error))
            result.packed.append((batch, []))
            result.packed_doubts.append(batch.batch_number)
        else:
            self._not_submitted(given, set(batch.task_instance_ids), error, result)

    def _submit_jobs(
        self, command: str, name: str, request: dict[str, Any], count: int
    ) -> tuple[list[str], Exception | None]:
        """Submit jobs; return their ids, and why there are fewer than requested."""
        if not self._has_arrays():
            return self._submit_jobs_singly(command, name, request, count)
        try:
            found = array_submission(self._adapter.submit_array_to_batch_distributor(command, name, request, count))
        except ArraysUnsupported:
            return self._submit_jobs_singly(command, name, request, count)
        return list(found.values()), found.error

    def _submit_jobs_singly(
        self, command: str, name: str, request: dict[str, Any], count: int
    ) -> tuple[list[str], Exception | None]:
        """Submit jobs individually; if one fails after the first, the previous ones are sufficient."""
        ids: list[str] = []
        for _ in range(count):
            try:
                ids.append(str(self._adapter.submit_to_batch_distributor(command, name, request)))
            except Exception as error:
                return ids, error
        return [one for one in ids if one], None

    def _find_packed(self, numbers: Sequence[int], result: Result) -> None:
        tokens = {self._around.batch_token(number): number for number in numbers}
        found = self._adapter.find_submitted(list(tokens))
        for token, number in tokens.items():
            result.packed_found[number] = [str(one) for one in found.get(token, {}).values()]

    def _find(self, doubts: Sequence[Doubt], result: Result) -> None:
        tokens = {token for doubt in doubts for token in (doubt.batch_token, doubt.own_token)}
        found = self._adapter.find_submitted(tokens)
        for doubt in doubts:
            identity = doubt.task_instance_id
            distributor_id = found.get(doubt.own_token, {}).get(0) or found.get(doubt.batch_token, {}).get(doubt.step)
            if distributor_id:
                result.submitted[identity] = str(distributor_id)
                result.accepted[doubt.key] += 1
            else:
                result.not_found.append(doubt)

    # -- polling -----------------------------------------------------------------------------------------------

    def _ask_about(self, asked: Mapping[str, int], view: Mapping[str, Any] | None, result: Result) -> None:
        try:
            result.from_disk = self._undelivered.read(set(asked.values()))
            if view is not None:
                self._adapter.show(view)
            self._ask(asked, result)
            if result.gone:  # a worker writes its report to disk before its job exits
                result.from_disk += self._undelivered.read(set(result.gone))
            if any(map(is_job, result.gone)):
                result.packed_from_disk = self._undelivered.read_all()
        except ClusterUnavailable as error:
            result.ask_problem = _text(error)
        except Exception as error:  # neither a bug in a plug-in nor an unresponsive cluster may terminate the run
            logger.exception("Cluster %s could not be polled; retrying later.", self._name)
            result.ask_problem = _reason(error)

    def _ask(self, asked: Mapping[str, int], result: Result) -> None:
        there = self._adapter.get_submitted_or_running(list(asked))
        stuck = self._adapter.get_queueing_errors(sorted(there))
        if stuck:
            self._adapter.terminate_task_instances(list(stuck))
        result.stuck = {asked[one]: reason for one, reason in stuck.items() if one in asked}
        gone = [distributor_id for distributor_id in asked if distributor_id not in there]
        exits = self._adapter.get_remote_exits(gone) if gone else {}
        result.gone = {asked[one]: self._with_start_error(one, exits.get(one)) for one in gone}
        waiting = [one for one, identity in asked.items() if one in there and identity not in result.stuck]
        result.alive = [asked[one] for one in waiting]
        reasons = self._adapter.get_pending_reasons(waiting)
        result.pending = {asked[one]: why[:PENDING_CHARACTERS_MAX] for one, why in reasons.items() if one in asked}
        hosts = self._adapter.get_running_hosts(waiting)
        result.running = {asked[one]: host for one, host in hosts.items() if one in asked}
        result.is_asked = True

    def _with_start_error(self, distributor_id: str, ending: RemoteExit | None) -> RemoteExit | None:
        """Add the worker's own error message, if it could not reach the server."""
        return None if ending is None else self._start_errors.added(distributor_id, ending)


def doubts_of(given: Submission, around: Surroundings, indices: Iterable[int]) -> list[Doubt]:
    """Return the unconfirmed attempts of a submission whose outcome is unknown.

    Args:
        given: the submission.
        around: settings shared by all attempts.
        indices: indices of the unconfirmed attempts.
    """
    ids = given.batch.task_instance_ids
    token = around.batch_token(given.batch.batch_number)
    return [Doubt(ids[index], token, given.first_step + index, around.attempt_token(ids[index])) for index in indices]


def _request(batch: LaunchBatch, token: str) -> dict[str, object]:
    request = {**batch.requested_resources, "queue": batch.queue_name, SUBMISSION_TOKEN: token}
    if batch.excluded_hosts:
        request[EXCLUDED_HOSTS] = list(batch.excluded_hosts)
    return request


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _text(error: Exception | None) -> str:
    return str(error) or type(error).__name__
