"""What is asked of a classic cluster's plug-in, off the loop because it may take seconds: one round at a time.

Nothing that a plug-in raises ends a run. `ClusterUnavailable` fails no attempt either: what was to be done is done
later, and what may have been submitted without an answer is looked up by its token first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import EXCLUDED_HOSTS, SUBMISSION_TOKEN, RemoteExit
from jobmon.core.exceptions import ClusterFull, ClusterUnavailable
from jobmon.core.wire.launching import LaunchBatch, Report
from jobmon.distributor import packing
from jobmon.distributor.holdings import NO_ARRAY, Doubt, narrowed
from jobmon.distributor.packed import is_job

if TYPE_CHECKING:
    from jobmon.core.cluster_protocol import ClusterDistributor
    from jobmon.core.wire.launching import JobPlan
    from jobmon.distributor.batch import Surroundings
    from jobmon.distributor.spools import Complaints, Spools

logger = logging.getLogger(__name__)
NO_ID: Final = "The cluster took the job but gave it no id."
#: Why a job waits is a sentence.
PENDING_CHARACTERS_MAX: Final = 500


@dataclass(slots=True)
class Errand:
    """What is to be done with the cluster in one round. `view`: what was seen of it, for plug-ins that show views."""

    batches: Sequence[LaunchBatch] = ()
    doubts: Sequence[Doubt] = ()
    packed_doubts: Sequence[int] = ()  # batches
    kill: Sequence[str] = ()
    ask: Mapping[str, int] | None = None  # distributor id -> attempt
    view: Mapping[str, Any] | None = None


@dataclass(slots=True)
class News:
    """What one round brought. `gone`: None where the cluster does not know how it ended, or not yet."""

    submitted: dict[int, str] = field(default_factory=dict)
    refused: list[tuple[list[int], str]] = field(default_factory=list)
    postponed: list[LaunchBatch] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    packed: list[tuple[LaunchBatch, list[str]]] = field(default_factory=list)
    packed_doubts: list[int] = field(default_factory=list)
    packed_found: dict[int, list[str]] = field(default_factory=dict)
    packed_spooled: list[Report] = field(default_factory=list)
    not_found: list[int] = field(default_factory=list)
    not_killed: list[str] = field(default_factory=list)
    is_asked: bool = False
    alive: list[int] = field(default_factory=list)
    gone: dict[int, RemoteExit | None] = field(default_factory=dict)
    stuck: dict[int, str] = field(default_factory=dict)
    pending: dict[int, str] = field(default_factory=dict)
    spooled: list[Report] = field(default_factory=list)
    has_acted: bool = False  # there was more to do than to ask
    problem: str = ""  # why something has to be done again
    ask_problem: str = ""


class Rounds:
    """Does rounds.

    Args:
        name: the cluster's name.
        adapter: its plug-in.
        around: what all attempts have in common.
        spools: where workers keep reports that they could not deliver.
        complaints: where workers say why they could not even begin.
    """

    def __init__(
        self,
        name: str,
        adapter: ClusterDistributor,
        around: Surroundings,
        spools: Spools | None = None,
        complaints: Complaints | None = None,
    ) -> None:
        self._name = name
        self._adapter = adapter
        self._around = around
        self._spools = spools
        self._complaints = complaints

    def work(self, errand: Errand) -> News:
        """Do one round."""
        news = News(has_acted=bool(errand.batches or errand.doubts or errand.packed_doubts or errand.kill))
        if errand.doubts:
            self._or_later(news, lambda: self._find(errand.doubts, news), lambda: news.doubts.extend(errand.doubts))
        if errand.packed_doubts:
            doubts = errand.packed_doubts
            self._or_later(news, lambda: self._find_packed(doubts, news), lambda: news.packed_doubts.extend(doubts))
        for batch in errand.batches:
            self._submit(batch, news)
        if errand.kill:
            kill = list(errand.kill)
            self._or_later(
                news, lambda: self._adapter.terminate_task_instances(kill), lambda: news.not_killed.extend(kill)
            )
        if errand.ask is not None:
            self._ask_about(errand.ask, errand.view, news)
        return news

    def _or_later(self, news: News, act: Callable[[], None], keep: Callable[[], None]) -> None:
        """Do it now, or keep it for later. What fails otherwise is not tried again."""
        try:
            act()
        except ClusterUnavailable as error:
            news.problem = _text(error)
            keep()
        except Exception:  # a plug-in's fault must not end the run
            logger.exception("The plug-in of cluster %s failed.", self._name)

    # -- submitting --------------------------------------------------------------------------------------------

    def _submit(self, batch: LaunchBatch, news: News) -> None:
        if news.problem:
            news.postponed.append(batch)  # the next one would fare as the one before
        elif batch.plan is not None:
            self._submit_packed(batch, batch.plan, news)
        elif len(batch.task_instance_ids) > 1 and batch.batch_number != NO_ARRAY:
            self._submit_array(batch, news)
        else:
            self._submit_singly(batch, range(len(batch.task_instance_ids)), news)

    def _submit_array(self, batch: LaunchBatch, news: News) -> None:
        length = len(batch.task_instance_ids)
        request = _request(batch, self._around.batch_token(batch.batch_number))
        try:
            command = self._adapter.build_worker_node_command(array_id=batch.array_id, batch_number=batch.batch_number)
            ids = self._adapter.submit_array_to_batch_distributor(command, batch.array_name, request, length)
        except AttributeError:
            logger.debug("Cluster %s has no arrays.", self._name)
            self._submit_singly(batch, range(length), news)
        except ClusterFull as error:
            news.problem = _text(error)
            news.postponed.append(batch)
        except ClusterUnavailable as error:
            news.problem = _text(error)
            news.doubts += doubts_of(batch, self._around)
        except Exception as error:
            logger.exception("Cluster %s refused an array.", self._name)
            news.refused.append((batch.task_instance_ids, _reason(error)))
        else:
            self._note_array(batch, ids, news)

    def _submit_packed(self, batch: LaunchBatch, plan: JobPlan, news: News) -> None:
        """Submit jobs that take the batch's tasks from the server; some of them will do."""
        token = self._around.batch_token(batch.batch_number)
        jobs = replace(batch, requested_resources=packing.job_request(batch, plan))
        ids: list[str] = []
        try:
            worker = self._adapter.build_worker_node_command(array_id=batch.array_id, batch_number=batch.batch_number)
            if plan.jobs:
                ids = self._submit_jobs(packing.job_command(worker), batch.array_name, _request(jobs, token), plan.jobs)
        except ClusterFull as error:
            news.problem = _text(error)
            news.postponed.append(batch)
        except ClusterUnavailable as error:
            news.problem = _text(error)
            news.packed.append((batch, []))
            news.packed_doubts.append(batch.batch_number)
        except Exception as error:
            logger.exception("Cluster %s refused a packed batch.", self._name)
            news.refused.append((batch.task_instance_ids, _reason(error)))
        else:
            if ids or not plan.jobs:
                news.packed.append((batch, ids))
            else:
                news.refused.append((batch.task_instance_ids, NO_ID))

    def _submit_jobs(self, command: str, name: str, request: dict[str, Any], count: int) -> list[str]:
        try:
            found = self._adapter.submit_array_to_batch_distributor(command, name, request, count)
        except AttributeError:
            logger.debug("Cluster %s has no arrays.", self._name)
            return self._submit_jobs_singly(command, name, request, count)
        return [str(one) for one in found.values() if one]

    def _submit_jobs_singly(self, command: str, name: str, request: dict[str, Any], count: int) -> list[str]:
        """Submit one after another; where that fails after the first, those before will do."""
        ids: list[str] = []
        for _ in range(count):
            try:
                ids.append(str(self._adapter.submit_to_batch_distributor(command, name, request)))
            except Exception:
                if not ids:
                    raise
                logger.exception("Cluster %s refused some jobs of a packed batch.", self._name)
                break
        return [one for one in ids if one]

    def _find_packed(self, numbers: Sequence[int], news: News) -> None:
        tokens = {self._around.batch_token(number): number for number in numbers}
        found = self._adapter.find_submitted(list(tokens))
        for token, number in tokens.items():
            news.packed_found[number] = [str(one) for one in found.get(token, {}).values()]

    @staticmethod
    def _note_array(batch: LaunchBatch, ids: Mapping[int, str], news: News) -> None:
        for step, identity in enumerate(batch.task_instance_ids):
            if ids.get(step):
                news.submitted[identity] = str(ids[step])
            else:
                news.refused.append(([identity], NO_ID))

    def _submit_singly(self, batch: LaunchBatch, steps: Iterable[int], news: News) -> None:
        """Submit one after another; where the cluster fails, the rest waits."""
        for step in steps:
            identity = batch.task_instance_ids[step]
            try:
                distributor_id = self._submit_one(batch, step)
            except ClusterUnavailable as error:
                news.problem = _text(error)
                is_in_doubt = not isinstance(error, ClusterFull)
                if is_in_doubt:
                    news.doubts += doubts_of(batch, self._around, [step])
                if rest := batch.task_instance_ids[step + is_in_doubt :]:
                    news.postponed.append(narrowed(batch, set(rest)))
                return
            except Exception as error:
                logger.exception("Cluster %s refused attempt %d.", self._name, identity)
                news.refused.append(([identity], _reason(error)))
                continue
            if distributor_id:
                news.submitted[identity] = str(distributor_id)
            else:
                news.refused.append(([identity], NO_ID))

    def _submit_one(self, batch: LaunchBatch, step: int) -> str:
        identity = batch.task_instance_ids[step]
        command = self._adapter.build_worker_node_command(task_instance_id=identity)
        request = _request(batch, self._around.attempt_token(identity))
        return self._adapter.submit_to_batch_distributor(command, batch.names[step], request)

    def _find(self, doubts: Sequence[Doubt], news: News) -> None:
        tokens = {token for doubt in doubts for token in (doubt.batch_token, doubt.own_token)}
        found = self._adapter.find_submitted(tokens)
        for doubt in doubts:
            identity = doubt.task_instance_id
            distributor_id = found.get(doubt.own_token, {}).get(0) or found.get(doubt.batch_token, {}).get(doubt.step)
            if distributor_id:
                news.submitted[identity] = str(distributor_id)
            else:
                news.not_found.append(identity)

    # -- asking ------------------------------------------------------------------------------------------------

    def _ask_about(self, asked: Mapping[str, int], view: Mapping[str, Any] | None, news: News) -> None:
        try:
            if self._spools is not None:
                news.spooled = self._spools.read(set(asked.values()))
            if view is not None:
                self._adapter.show(view)
            self._ask(asked, news)
            if self._spools is not None and news.gone:  # a worker keeps its report before its job ends
                news.spooled += self._spools.read(set(news.gone))
            if self._spools is not None and any(map(is_job, news.gone)):
                news.packed_spooled = self._spools.read_all()
        except ClusterUnavailable as error:
            news.ask_problem = _text(error)
        except Exception as error:  # a plug-in's fault or a cluster that does not answer must not end the run
            logger.exception("Cluster %s could not be asked; trying again later.", self._name)
            news.ask_problem = _reason(error)

    def _ask(self, asked: Mapping[str, int], news: News) -> None:
        there = self._adapter.get_submitted_or_running(list(asked))
        stuck = self._adapter.get_queueing_errors(sorted(there))
        if stuck:
            self._adapter.terminate_task_instances(list(stuck))
        news.stuck = {asked[one]: reason for one, reason in stuck.items() if one in asked}
        gone = [distributor_id for distributor_id in asked if distributor_id not in there]
        exits = self._adapter.get_remote_exits(gone) if gone else {}
        news.gone = {asked[one]: self._with_complaint(one, exits.get(one)) for one in gone}
        waiting = [one for one, identity in asked.items() if one in there and identity not in news.stuck]
        news.alive = [asked[one] for one in waiting]
        reasons = self._adapter.get_pending_reasons(waiting)
        news.pending = {asked[one]: why[:PENDING_CHARACTERS_MAX] for one, why in reasons.items() if one in asked}
        news.is_asked = True

    def _with_complaint(self, distributor_id: str, ending: RemoteExit | None) -> RemoteExit | None:
        """Add what the worker said of itself, where it could not tell the server."""
        if ending is None or self._complaints is None:
            return ending
        return self._complaints.added(distributor_id, ending)


def doubts_of(batch: LaunchBatch, around: Surroundings, steps: Iterable[int] | None = None) -> list[Doubt]:
    """Return what is to be looked up when nobody knows whether a batch was submitted."""
    ids = batch.task_instance_ids
    token = around.batch_token(batch.batch_number)
    return [
        Doubt(ids[step], token, step, around.attempt_token(ids[step]))
        for step in (range(len(ids)) if steps is None else steps)
    ]


def _request(batch: LaunchBatch, token: str) -> dict[str, object]:
    request = {**batch.requested_resources, "queue": batch.queue_name, SUBMISSION_TOKEN: token}
    if batch.excluded_hosts:
        request[EXCLUDED_HOSTS] = list(batch.excluded_hosts)
    return request


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
