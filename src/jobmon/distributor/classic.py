"""One classic cluster: submitting, asking, terminating, off the loop because its commands may take seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.exceptions import RemoteExitInfoNotAvailable
from jobmon.core.wire.launching import LaunchBatch, Report
from jobmon.distributor.state import NO_ARRAY, DistributorState

if TYPE_CHECKING:
    from jobmon.core.cluster_protocol import ClusterDistributor
    from jobmon.distributor.spools import Spools

logger = logging.getLogger(__name__)
NO_ID: Final = "The cluster took the job but gave it no id."


@dataclass(slots=True)
class Errand:
    """What is to be done with the cluster in one round."""

    batches: Sequence[LaunchBatch] = ()
    kill: Sequence[str] = ()
    ask: Mapping[str, int] = field(default_factory=dict)  # distributor id -> attempt


@dataclass(slots=True)
class News:
    """What one round brought."""

    submitted: dict[int, str] = field(default_factory=dict)
    refused: list[tuple[list[int], str]] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)
    gone: dict[int, tuple[TaskInstanceStatus | None, str]] = field(default_factory=dict)
    stuck: dict[int, str] = field(default_factory=dict)
    spooled: list[Report] = field(default_factory=list)


#: Runs a round off the loop.
InThread = Callable[[Callable[[Errand], News], Errand], Awaitable[News]]


class ClassicCluster:
    """Runs rounds, one at a time.

    Args:
        name: the cluster's name.
        adapter: its plug-in.
        state: the distributor's memory.
        poll_interval: how often the cluster is asked about its jobs, seconds.
        spools: where workers keep reports that they could not deliver.
        in_thread: runs a round while the loop goes on.
    """

    def __init__(
        self,
        name: str,
        adapter: ClusterDistributor,
        state: DistributorState,
        poll_interval: float,
        spools: Spools | None = None,
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        self.name = name
        self._adapter = adapter
        self._state = state
        self._poll_interval = poll_interval
        self._spools = spools
        self._in_thread = in_thread
        self._spooled: set[int] = set()
        self._poll_at = 0.0
        self._batches: list[LaunchBatch] = []
        self._kill: list[str] = []
        self._triage: set[int] = set()
        self._round: asyncio.Task[News] | None = None
        self.alive: list[int] = []

    def submit(self, batches: Iterable[LaunchBatch]) -> None:
        """Submit these in the next round."""
        self._batches += batches

    def terminate(self, distributor_ids: Iterable[str]) -> None:
        """End these in the next round."""
        self._kill += distributor_ids

    def triage(self, attempts: Iterable[int]) -> None:
        """Ask about these in the next round."""
        self._triage.update(attempts)

    def acknowledge(self, ended: Iterable[int]) -> None:
        """The server has recorded how these ended."""
        if self._spools is not None and (settled := self._spooled.intersection(ended)):
            self._spools.remove(settled)
            self._spooled -= settled

    def advance(self, now: float) -> tuple[asyncio.Task[News] | None, float | None]:
        """Take in a round that ended and begin the next if there is cause; return the round and when one is due."""
        if self._round is not None and self._round.done():
            self._take_in(self._round.result())
            self._round = None
        if self._round is not None:
            return self._round, None
        held = self._state.classic(self.name)
        is_poll_due = bool(held) and now >= self._poll_at
        if self._batches or self._kill or self._triage or is_poll_due:
            self._poll_at = now + self._poll_interval
            errand = Errand(self._batches, self._kill, held)
            self._batches, self._kill = [], []
            self._round = asyncio.create_task(self._run(errand))
            return self._round, None
        return None, self._poll_at if held else None

    def _take_in(self, news: News) -> None:
        self._kill += self._state.submitted(self.name, news.submitted)
        for report in news.spooled:
            self._spooled.add(report.task_instance_id)
            self._state.classic_told(report)
        for identities, reason in news.refused:
            self._state.refused(identities, reason)
        for identity, reason in news.stuck.items():
            self._state.classic_stuck(identity, reason)
        for identity, (status, message) in news.gone.items():
            self._state.classic_ended(identity, status, message)
            self._triage.discard(identity)
        for identity in self._triage.intersection(news.alive):
            self._state.say(Report(task_instance_id=identity, status=TaskInstanceStatus.RUNNING))
        self._triage.clear()
        self.alive = news.alive

    async def _run(self, errand: Errand) -> News:
        return await self._in_thread(self._work, errand)

    # -- in a thread -------------------------------------------------------------------------------------------

    def _work(self, errand: Errand) -> News:
        news = News()
        for batch in errand.batches:
            self._submit(batch, news)
        try:
            if errand.kill:
                self._adapter.terminate_task_instances(list(errand.kill))
            if errand.ask:
                if self._spools is not None:
                    news.spooled = self._spools.read(set(errand.ask.values()))
                self._ask(errand.ask, news)
        except Exception:  # a plug-in's fault or a cluster that does not answer must not end the run
            logger.exception("Cluster %s could not be asked; trying again later.", self.name)
        return news

    def _submit(self, batch: LaunchBatch, news: News) -> None:
        if len(batch.task_instance_ids) > 1 and batch.batch_number != NO_ARRAY:
            try:
                self._submit_array(batch, news)
                return
            except AttributeError:
                logger.debug("Cluster %s has no arrays.", self.name)
            except Exception as error:
                logger.exception("Cluster %s refused an array.", self.name)
                news.refused.append((batch.task_instance_ids, _reason(error)))
                return
        for identity, name in zip(batch.task_instance_ids, batch.names, strict=True):
            self._submit_one(identity, name, _request(batch), news)

    def _submit_array(self, batch: LaunchBatch, news: News) -> None:
        command = self._adapter.build_worker_node_command(array_id=batch.array_id, batch_number=batch.batch_number)
        length = len(batch.task_instance_ids)
        ids = self._adapter.submit_array_to_batch_distributor(command, batch.array_name, _request(batch), length)
        for step, identity in enumerate(batch.task_instance_ids):
            if ids.get(step):
                news.submitted[identity] = ids[step]
            else:
                news.refused.append(([identity], NO_ID))

    def _submit_one(self, identity: int, name: str, request: dict[str, object], news: News) -> None:
        try:
            command = self._adapter.build_worker_node_command(task_instance_id=identity)
            distributor_id = self._adapter.submit_to_batch_distributor(command, name, request)
        except Exception as error:
            logger.exception("Cluster %s refused attempt %d.", self.name, identity)
            news.refused.append(([identity], _reason(error)))
            return
        if distributor_id:
            news.submitted[identity] = str(distributor_id)
        else:
            news.refused.append(([identity], NO_ID))

    def _ask(self, asked: Mapping[str, int], news: News) -> None:
        there = self._adapter.get_submitted_or_running(list(asked))
        stuck = self._adapter.get_queueing_errors(sorted(there))
        if stuck:
            self._adapter.terminate_task_instances(list(stuck))
        news.stuck = {asked[one]: reason for one, reason in stuck.items() if one in asked}
        for distributor_id, identity in asked.items():
            if distributor_id not in there:
                news.gone[identity] = self._exit_info(distributor_id)
            elif identity not in news.stuck:
                news.alive.append(identity)

    def _exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus | None, str]:
        try:
            return self._adapter.get_remote_exit_info(distributor_id)
        except RemoteExitInfoNotAvailable as error:
            return None, str(error)


def _request(batch: LaunchBatch) -> dict[str, object]:
    return {**batch.requested_resources, "queue": batch.queue_name}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
