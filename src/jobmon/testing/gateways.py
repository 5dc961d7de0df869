"""The server's side of the requests of a distributor, in memory: the same responses, no network, no database.

It checks every report against the state machine, as the server does, and can be told to lose responses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobmon.core import fsm
from jobmon.core.constants import TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.exceptions import ServerUnavailable
from jobmon.core.fsm import TAKEN
from jobmon.core.wire.launching import (
    ClusterInfo,
    DistributorRequest,
    DistributorResponse,
    LaunchBatch,
    LaunchProblem,
    LiveAttempt,
    Report,
    SyncRequest,
    SyncResponse,
    WorkerReportRequest,
    WorkerReportResponse,
    WorkerStartRequest,
    WorkerStartResponse,
)
from jobmon.core.wire.watching import ViewRequest, ViewResponse, WatchRequest, WatchResponse

_TI = TaskInstanceStatus


@dataclass(slots=True)
class FakeAttempt:
    """One attempt as the fake server sees it."""

    task_instance_id: int
    cluster_name: str
    command: str
    name: str
    resources: Mapping[str, Any]
    status: TaskInstanceStatus = TaskInstanceStatus.QUEUED
    distributor_id: str | None = None
    reports: list[Report] = field(default_factory=list)
    ended_at: int | None = None  # by the logical clock

    @property
    def ending(self) -> Report | None:
        """The report that ended the attempt, or None."""
        ends = (one for one in self.reports if fsm.is_terminal(fsm.Machine.TASK_INSTANCE, one.status))
        return next(ends, None)


class FakeDistributorGateway:
    """Implements `jobmon.distributor.gateway.Gateway`.

    Args:
        clusters: the clusters that tasks request.
        working_directory: working directory of all commands.
        heartbeat_interval: heartbeat interval of attempts, in seconds.
    """

    def __init__(
        self, clusters: Sequence[ClusterInfo], working_directory: str, heartbeat_interval: float = 90.0
    ) -> None:
        self.attempts: dict[int, FakeAttempt] = {}
        self.run_status: str = WorkflowRunStatus.RUNNING
        self.epoch = 0
        self.beats: list[list[int]] = []
        self.launch_problems: dict[str, LaunchProblem] = {}
        self.worker_pending: dict[int, str] = {}
        self.illegal: list[Report] = []
        self.registrations = 0
        self.syncs = 0
        self.views: list[ViewRequest] = []
        self.stamp = 0
        self.is_away = False
        self.answers_to_lose = 0
        self._clusters = list(clusters)
        self._working_directory = working_directory
        self._heartbeat_interval = heartbeat_interval
        self._changed = asyncio.Event()

    # -- for tests ---------------------------------------------------------------------------------------------

    def queue(
        self, *commands: str, cluster: str = "", name: str = "t", resources: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Queue one attempt for each command; return their IDs."""
        first = len(self.attempts) + 1
        for number, command in enumerate(commands, first):
            where = cluster or self._clusters[0].name
            self.attempts[number] = FakeAttempt(number, where, command, name, dict(resources or {}))
        self._wake()
        return list(range(first, first + len(commands)))

    def set_run_status(self, status: str) -> None:
        """Change the run's status."""
        self.run_status = status
        self._wake()

    def kill(self, *identities: int) -> None:
        """Tell attempts to terminate."""
        self._move(identities, TaskInstanceStatus.KILL_SELF)

    def triage(self, *identities: int) -> None:
        """Put attempts into triage."""
        self._move(identities, TaskInstanceStatus.TRIAGING)

    def take_over(self) -> None:
        """Act as if another distributor had registered."""
        self.epoch += 1
        self._wake()

    async def until(self, condition: Callable[[], bool], timeout: float = 20.0) -> None:
        """Wait until a condition is true."""
        async with asyncio.timeout(timeout):
            while not condition():
                changed = self._changed
                await asyncio.wait({asyncio.ensure_future(changed.wait())}, timeout=0.05)

    async def until_ended(self, *identities: int, timeout: float = 20.0) -> list[Report]:
        """Wait until attempts have ended (by default all); return the reports that ended them."""
        wanted = identities or tuple(self.attempts)
        await self.until(lambda: all(self.attempts[one].ending for one in wanted), timeout)
        return [ending for one in wanted if (ending := self.attempts[one].ending) is not None]

    def _move(self, identities: Sequence[int], status: TaskInstanceStatus) -> None:
        for identity in identities:
            self.attempts[identity].status = status
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- the gateway -------------------------------------------------------------------------------------------

    async def register(self, request: DistributorRequest) -> DistributorResponse:
        """See `Gateway`."""
        await self.until(lambda: not self.is_away)
        self.epoch += 1
        self.registrations += 1
        return DistributorResponse(
            epoch=self.epoch,
            workflow_id=1,
            workflow_run_status=self.run_status,
            working_directory=self._working_directory,
            umask=0o022,
            clusters=self._clusters,
            attempts=[_live(one) for one in self.attempts.values() if one.status in TAKEN],
            attempt_heartbeat_interval=self._heartbeat_interval,
            report_by_buffer=3.1,
            server_identity="fake",
            server_incarnation="1",
            stamp=self.stamp,
        )

    def worker_start(self, request: WorkerStartRequest) -> WorkerStartResponse | None:
        """Return the response for a worker; None if its attempt is to be killed, has ended, or is unknown."""
        identity = request.task_instance_id
        if identity is None:
            identity = (request.batch_number or 0) + (request.array_step_id or 0)
        attempt = self.attempts.get(identity)
        if attempt is None or not self._take(_running(identity, request)):
            return None
        self._wake()
        return WorkerStartResponse(
            task_instance_id=identity,
            task_id=identity + 1000,
            workflow_id=1,
            workflow_run_id=7,
            task_name=attempt.name,
            attempt=1,
            command=attempt.command,
            requested_resources=dict(attempt.resources),
            working_directory=self._working_directory,
            umask=0o022,
            heartbeat_interval=self._heartbeat_interval,
            report_by_buffer=3.1,
        )

    def worker_report(self, request: WorkerReportRequest) -> WorkerReportResponse:
        """Accept the reports and heartbeats of a stand-alone worker."""
        for report in request.reports:
            self._take(report)
        if request.alive:
            self.beats.append(list(request.alive))
        self.worker_pending.update(request.pending)
        self._wake()
        return WorkerReportResponse(kill=[one for one in request.alive if one in self._in_status(_TI.KILL_SELF)])

    async def sync(self, request: SyncRequest) -> SyncResponse:
        """See `Gateway`."""
        self.syncs += 1
        if request.launch_problems is not None:
            self.launch_problems = dict(request.launch_problems)
        deadline = asyncio.get_running_loop().time() + request.wait_seconds
        while True:
            if self.is_away:
                await asyncio.sleep(0.01)
                raise ServerUnavailable
            response = self._answer(request)
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0 or self._is_worth_waking(request, response):
                break
            request = SyncRequest(
                epoch=request.epoch,
                capacity=request.capacity,
                known_to_kill=request.known_to_kill,
                known_to_triage=request.known_to_triage,
                known_status=request.known_status,
                ended_since=request.ended_since,
            )
            await asyncio.wait({asyncio.ensure_future(self._changed.wait())}, timeout=min(remaining, 0.5))
        if self.answers_to_lose and response.launches:
            self.answers_to_lose -= 1
            raise ServerUnavailable
        return response

    async def watch(self, cluster_name: str, request: WatchRequest) -> WatchResponse:
        """Let the caller poll the cluster: there is no other distributor. See `Gateway`."""
        return WatchResponse(look=True, since=request.since)

    async def view(self, cluster_name: str, request: ViewRequest) -> ViewResponse:
        """See `Gateway`."""
        self.views.append(request)
        return ViewResponse(number=len(self.views))

    @staticmethod
    def _is_worth_waking(request: SyncRequest, response: SyncResponse) -> bool:
        news = set(response.kill) - set(request.known_to_kill) or set(response.triage) - set(request.known_to_triage)
        changed = response.workflow_run_status != request.known_status
        return bool(response.fenced or response.launches or news or changed)

    def _answer(self, request: SyncRequest) -> SyncResponse:
        late = [one.task_instance_id for one in request.reports if not self._take(one)]
        if request.alive:
            self.beats.append(list(request.alive))
        fenced = request.epoch != self.epoch
        launches = [] if fenced else [one for name, n in request.capacity.items() for one in self._launch(name, n)]
        if request.reports or launches:
            self._wake()
        return SyncResponse(
            server_identity="fake",
            server_incarnation="1",
            workflow_run_status=self.run_status,
            fenced=fenced,
            launches=launches,
            kill=self._in_status(TaskInstanceStatus.KILL_SELF),
            triage=self._in_status(TaskInstanceStatus.TRIAGING),
            late=late,
            ended=self._ended_after(request.ended_since),
            ended_until=None if request.ended_since is None else self.stamp,
        )

    def _ended_after(self, stamp: int | None) -> list[int]:
        ends = ((identity, one.ended_at) for identity, one in self.attempts.items() if one.ended_at is not None)
        return [] if stamp is None else [identity for identity, ended_at in ends if ended_at > stamp]

    def _take(self, report: Report) -> bool:
        attempt = self.attempts[report.task_instance_id]
        verdict = fsm.judge(fsm.Machine.TASK_INSTANCE, attempt.status, report.status)
        if verdict is fsm.Verdict.LEGAL:
            target = fsm.effective_target(fsm.Machine.TASK_INSTANCE, attempt.status, report.status)
            attempt.status = TaskInstanceStatus(target)
            attempt.distributor_id = report.distributor_id or attempt.distributor_id
            attempt.reports.append(report)
            self.stamp += 1
            if fsm.is_terminal(fsm.Machine.TASK_INSTANCE, target):
                attempt.ended_at = self.stamp
        elif verdict is fsm.Verdict.ILLEGAL:
            self.illegal.append(report)
        return verdict is fsm.Verdict.LEGAL

    def _launch(self, cluster_name: str, count: int) -> list[LaunchBatch]:
        queued = [
            one
            for one in self.attempts.values()
            if one.cluster_name == cluster_name and one.status is TaskInstanceStatus.QUEUED
        ][:count]
        batches: list[list[FakeAttempt]] = []
        for attempt in queued:
            attempt.status = TaskInstanceStatus.INSTANTIATED
            if batches and batches[-1][0].resources == attempt.resources:
                batches[-1].append(attempt)
            else:
                batches.append([attempt])
        return [_batch(batch) for batch in batches]

    def _in_status(self, status: TaskInstanceStatus) -> list[int]:
        return [identity for identity, one in self.attempts.items() if one.status is status]


def _batch(attempts: Sequence[FakeAttempt]) -> LaunchBatch:
    return LaunchBatch(
        batch_number=attempts[0].task_instance_id,
        array_id=1,
        array_name="array",
        cluster_name=attempts[0].cluster_name,
        queue_name="default",
        requested_resources=dict(attempts[0].resources),
        task_instance_ids=[one.task_instance_id for one in attempts],
        task_ids=[one.task_instance_id + 1000 for one in attempts],
        names=[one.name for one in attempts],
        commands=[one.command for one in attempts],
        attempts=[1 for _ in attempts],
    )


def _live(attempt: FakeAttempt) -> LiveAttempt:
    return LiveAttempt(
        task_instance_id=attempt.task_instance_id,
        task_id=attempt.task_instance_id + 1000,
        status=attempt.status,
        cluster_name=attempt.cluster_name,
        distributor_id=attempt.distributor_id,
        array_id=1,
        batch_number=1,
        array_step_id=0,
        requested_resources=dict(attempt.resources),
        name=attempt.name,
    )


def _running(identity: int, request: WorkerStartRequest) -> Report:
    return Report(
        task_instance_id=identity,
        status=TaskInstanceStatus.RUNNING,
        distributor_id=request.distributor_id,
        host=request.host,
        pid=request.pid,
        started_at=request.started_at,
    )
