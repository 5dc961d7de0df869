"""The distributor's main loop: one coroutine that carries out what `DistributorState` decides, after each event.

Requests to the server go through `OpenRequests`, calls to clusters through `ClassicCluster`.
Capacity that becomes free while a poll is open is requested by the next report or by a further poll.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent import settlement
from jobmon.core.cluster_protocol import ClusterDistributor
from jobmon.core.exceptions import JobmonError, StaleRun
from jobmon.core.wire import replace
from jobmon.core.wire.launching import (
    ClusterInfo,
    DistributorRequest,
    DistributorResponse,
    FromServer,
    SyncRequest,
    SyncResponse,
)
from jobmon.distributor import batch
from jobmon.distributor.classic import ClassicCluster, Watching
from jobmon.distributor.cluster_calls import ClusterCalls
from jobmon.distributor.incidents import UNHEARD_SECONDS
from jobmon.distributor.packed import is_job
from jobmon.distributor.reports import Outgoing, Server
from jobmon.distributor.requests import OpenRequests
from jobmon.distributor.state import DistributorState
from jobmon.distributor.submissions import PATIENCE_SECONDS
from jobmon.distributor.undelivered import StartErrors, UndeliveredReports
from jobmon.distributor.watching import InThread

if TYPE_CHECKING:
    from jobmon.core.clock import Clock
    from jobmon.distributor.gateway import Gateway

logger = logging.getLogger(__name__)
#: How long reports are collected.
GATHER_SECONDS: Final = 0.025
#: How long a distributor whose client has exited tries to register.
ABANDONED_SECONDS: Final = 30.0
#: How often the server is asked for ended attempts when these are needed soon.
ENDINGS_SECONDS: Final = 1.0
#: A poll must be answered well before prefetched work expires, or it would expire on a quiet, healthy connection.
_POLL_SHARE_OF_EXPIRY: Final = 0.6


class Outcome(Enum):
    """Why the distributor exits."""

    DONE = "all work is done"
    FENCED = "another distributor has taken over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Intervals of the service, seconds."""

    long_poll: float = 30.0
    hand_ahead_expiry: float = 30.0
    cluster_poll: float = 10.0
    cluster_calls_per_minute: float = 60.0
    submission_retry: float = PATIENCE_SECONDS
    unheard: float = UNHEARD_SECONDS


@dataclass(frozen=True, slots=True)
class Identity:
    """Identify the distributor's process and host."""

    host: str
    pid: int
    pid_start_time: float


@dataclass(frozen=True, slots=True)
class Setting:
    """The environment of the service: how to build a cluster's adapter, shared settings of attempts, and threads."""

    make_cluster: Callable[[ClusterInfo, DistributorResponse], ClusterDistributor]
    surroundings: Callable[[DistributorResponse], batch.Surroundings]
    in_thread: InThread = asyncio.to_thread
    data_folder: str = ""
    server_address: Callable[[], str] = str  # as given to jobs, once the clusters are built


class DistributorService:
    """A distributor. `run` returns when its work is complete.

    Args:
        gateway: interface to the server.
        setting: its environment.
        identity: its process and host.
        timings: its intervals.
        clock: source of time.
    """

    def __init__(self, gateway: Gateway, setting: Setting, identity: Identity, timings: Timings, clock: Clock) -> None:
        self._gateway = gateway
        self._setting = setting
        self._identity = identity
        self._timings = timings
        self._clock = clock
        self._classic: dict[str, ClassicCluster] = {}
        self._adapters: list[ClusterDistributor] = []
        self._wake = asyncio.Event()
        self._requests = OpenRequests(gateway, self._wake)
        self._server = Server()
        self._is_built = False
        self._outcome: Outcome | None = None
        self._reported_at = 0.0
        self._has_expired = False
        self._epoch = 0
        self._abandoned = asyncio.Event()
        self._ended_since = 0
        self._endings_at = 0.0

    # -- life cycle --------------------------------------------------------------------------------------------

    async def run(self, on_registered: Callable[[], None] = lambda: None) -> Outcome:
        """Register, then work until nothing remains to be done or another distributor takes over.

        Args:
            on_registered: called once, when the server has registered this distributor and its clusters are ready.
        """
        try:
            response = await self._register()
        except StaleRun as error:
            self._fenced(str(error))
            return Outcome.FENCED
        if response is None:
            return Outcome.DONE
        self._build(response)
        try:
            self._adopt(response)
            if self._abandoned.is_set():
                self._state.drain()
            on_registered()
            while self._outcome is None:
                self._turn()
                if self._outcome is None:
                    await self._sleep()
        finally:
            await self._leave()
        return self._outcome

    async def _register(self) -> DistributorResponse | None:
        """Register for the first time; return None if the server does not respond and the client has exited.

        Attempts of an earlier distributor may be running, so the client's exit is no reason to exit at once.
        """
        registration = asyncio.create_task(self._gateway.register(self._registration_request()))
        abandoned = asyncio.create_task(self._abandoned.wait())
        try:
            await asyncio.wait([registration, abandoned], return_when=asyncio.FIRST_COMPLETED)
            if not registration.done():
                await asyncio.wait([registration], timeout=ABANDONED_SECONDS)
            return registration.result() if registration.done() else None
        finally:
            registration.cancel()
            abandoned.cancel()

    def validate(self) -> None:
        """See `DistributorState.validate`. Before its registration a distributor has nothing to check."""
        if self._is_built:
            self._state.validate()

    def drain(self) -> None:
        """Handle the exit of the client: launch nothing more, monitor running attempts, then exit."""
        logger.info("The client has exited: launching nothing more.")
        self._abandoned.set()
        if self._is_built:
            self._state.drain()
        self._wake.set()

    def _registration_request(self) -> DistributorRequest:
        me, key = self._identity, secrets.token_hex(8)
        return DistributorRequest(
            host=me.host, pid=me.pid, pid_start_time=me.pid_start_time, key=key, epoch=self._epoch
        )

    def _build(self, response: DistributorResponse) -> None:
        found = [self._setting.make_cluster(info, response) for info in response.clusters]
        for adapter in found:  # if agents run its commands, it may have to end what an earlier version left
            if (offer := adapter.agent_offer()) is None:
                self._adapters.append(adapter)
            if offer is None or not offer.is_direct:
                adapter.start()
        around = self._setting.surroundings(response)
        self._server.begin(response)
        self._undelivered = UndeliveredReports(around.log_folder, response.server_identity)
        self._state = DistributorState([one.cluster_name for one in self._adapters], around)
        self._outgoing = Outgoing(self._state, self._undelivered, self._server, self._clock)
        self._classic = {one.cluster_name: self._classic_cluster(one, around) for one in self._adapters}
        self._heartbeat_interval = response.attempt_heartbeat_interval
        self._heartbeat_at = self._clock.monotonic() + self._heartbeat_interval
        self._is_built = True

    def _classic_cluster(self, adapter: ClusterDistributor, around: batch.Surroundings) -> ClassicCluster:
        me, name, timings = self._identity, adapter.cluster_name, self._timings
        undelivered, start_errors = self._undelivered, StartErrors(self._setting.data_folder, name)
        watching = Watching(
            interval=timings.cluster_poll,
            calls_per_minute=timings.cluster_calls_per_minute,
            patience=timings.submission_retry,
            unheard=timings.unheard,
            server=self._setting.server_address(),
            holder=f"{me.host}:{me.pid}:{me.pid_start_time:.2f}:{around.workflow_run_id}",
        )
        calls = ClusterCalls(name, adapter, around, undelivered, start_errors)
        in_thread = self._setting.in_thread
        return ClassicCluster(adapter, self._state, calls, watching, self._gateway, self._clock, undelivered, in_thread)

    def _adopt(self, response: DistributorResponse) -> None:
        self._epoch = response.epoch
        self._note_server(response)
        self._ended_since = response.stamp
        self._note_answer()
        if response.retired:
            self._fenced("according to the server")
            return
        self._state.set_run_status(response.workflow_run_status)
        self._terminate(self._state.adopt(response.attempts))
        for name, numbers in self._state.adopt_packed(response.packed).items():
            self._classic[name].find_packed(numbers)
        for cluster in self._classic.values():
            cluster.urge()

    async def _leave(self) -> None:
        await self._requests.hang_up()
        pending = [task for cluster in self._classic.values() for task in cluster.leave()]
        await asyncio.gather(*pending, return_exceptions=True)
        for adapter in self._adapters:
            adapter.stop()

    # -- one iteration -----------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Process events, act on them, and send requests."""
        self._wake.clear()
        self._due: list[float] = []
        self._take_answers()
        self._expire()
        self._launch()
        self._advance_classic()
        self._note_launch_problems()
        is_over = self._state.is_idle and (self._state.draining or self._state.is_run_final)
        if is_over and not any(cluster.is_terminating for cluster in self._classic.values()):
            self._outcome = self._outcome or Outcome.DONE
        if self._outcome is None:
            self._ask()

    async def _sleep(self) -> None:
        timeout = min(self._due) - self._clock.monotonic() if self._due else None
        if timeout is not None and timeout <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()

    def _launch(self) -> None:
        if self._requests.is_registering:
            return  # waiting attempts may have been declared lost
        for name, batches in self._state.submittable().items():
            self._classic[name].submit(batches)
        for name, doubts in self._state.doubtful().items():
            self._classic[name].find(doubts)

    def _advance_classic(self) -> None:
        for cluster in self._classic.values():
            begun, due = cluster.advance()
            for task in begun:
                task.add_done_callback(self._wake_up)
            self._due += due

    def _note_launch_problems(self) -> None:
        """Record why launches are impossible, to be sent with the next reports."""
        found = {name: problem for name, one in self._classic.items() if (problem := one.problem()) is not None}
        self._state.launch_problems.note(found, self._clock.monotonic())

    def _expire(self) -> None:
        """Drop attempts that are not submitted yet if the server has been silent for too long.

        The server may also have declared others lost, so first ask which attempts it believes are here.
        """
        if self._is_due(self._answered_at + self._timings.hand_ahead_expiry) and not self._has_expired:
            self._has_expired = True
            logger.warning("The server has not responded for too long: no longer submitting waiting attempts.")
            self._state.drop_waiting()
            self._begin_anew("the server has not responded for too long")

    def _terminate(self, distributor_ids: Mapping[str, list[str]]) -> None:
        for name, ids in distributor_ids.items():
            self._classic[name].terminate(ids)

    # -- responses ---------------------------------------------------------------------------------------------

    def _take_answers(self) -> None:
        if (registration := self._requests.take_registration()) is not None:
            self._take_registration(registration)
        while (poll := self._requests.take_poll()) is not None:
            self._take_answer(poll)
        if (report := self._requests.take_report()) is not None:
            self._take_report_answer(report)

    def _take_registration(self, task: asyncio.Task[DistributorResponse]) -> None:
        try:
            response = task.result()
            objection: object = self._server.objection_to(response)
        except StaleRun as error:
            objection = error
            if self._server.says(error):
                self._fenced(str(error))
                return
        except (JobmonError, OSError) as error:
            objection = error
            if self._server.has_no_run(error):
                self._fenced(str(error))
                return
        if objection:
            self._register_again(objection)
        else:
            self._adopt(response)

    def _take_report_answer(self, task: asyncio.Task[SyncResponse]) -> None:
        """Remove reports that a response settles; `settlement` handles all others."""
        verdict, why = self._server.verdict_on(task)
        is_taken = verdict == settlement.SETTLED
        if is_taken:
            self._note_server(task.result())  # attempts unknown to the server are recorded for this incarnation
        is_answered = is_taken or verdict == settlement.KEPT or not self._state.outbox.in_flight
        ended = self._outgoing.settle(verdict, why, task.result().unknown if is_taken else ())
        for cluster in self._classic.values():
            cluster.acknowledge(ended)
        if is_answered:
            self._take_answer(task)

    def _take_answer(self, task: asyncio.Task[SyncResponse]) -> None:
        if task.cancelled():
            return
        try:
            response = task.result()
        except StaleRun as error:
            if self._server.says(error):
                self._fenced(str(error))
            else:
                self._begin_anew(error)
        except (JobmonError, OSError) as error:
            self._begin_anew(error)
        else:
            if objection := self._server.objection_to(response):
                self._begin_anew(objection)
                return
            self._requests.answered_well()
            self._note_answer()
            self._note_server(response)
            self._hear(response)

    def _hear(self, response: SyncResponse) -> None:
        if response.late:
            logger.info("Reports that arrived too late: %s", response.late)
        for identity, why in response.refused.items():
            logger.error("The report of attempt %d was rejected: %s", identity, why)
        if response.fenced or response.retired:
            self._fenced("according to the server")
            return
        was_final = self._state.is_run_final
        self._state.set_run_status(response.workflow_run_status)
        self._state.take(response.launches)
        self._hear_endings(response)
        self._hear_of_workers(response)
        if self._state.is_run_final and not was_final:
            self._endings_at = 0.0  # ask about running attempts at once
        self._terminate(self._state.kill(response.kill))
        self._terminate(self._state.hear_packed(response))
        for name in self._state.triage(response.triage):
            self._classic[name].urge()

    def _hear_endings(self, response: SyncResponse) -> None:
        """Process the outcomes that workers reported to the server."""
        if response.ended_until is None:
            return
        self._ended_since = max(self._ended_since, response.ended_until)
        ended = self._state.classic_over(response.ended)
        for cluster in self._classic.values():
            cluster.forget(ended)

    def _hear_of_workers(self, response: SyncResponse) -> None:
        if response.heard is None:
            return
        for cluster in self._classic.values():
            cluster.take_heard(response.heard, response.heard_jobs)

    def _fenced(self, why: str) -> None:
        logger.warning("Another distributor has taken over (%s); running attempts continue.", why)
        self._outcome = Outcome.FENCED

    def _note_server(self, response: FromServer) -> None:
        if self._server.note(response):
            self._outgoing.take_back()

    def _note_answer(self) -> None:
        self._answered_at = self._clock.monotonic()
        self._has_expired = False

    def _begin_anew(self, error: object) -> None:
        """Register again after a lost response of unknown content; drop all other requests."""
        if self._requests.is_registering:
            return
        self._outgoing.say("register", f"Registering again: {error}")
        if self._requests.register(self._registration_request()):
            self._state.restore_reports()

    def _register_again(self, error: object) -> None:
        """Retry a registration that our server did not answer, after a pause; nothing is lost."""
        self._outgoing.say("registration", f"The response to the registration is invalid; retrying: {error}")
        self._requests.register(self._registration_request())

    # -- requests ----------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if self._requests.is_registering:
            return
        if not self._requests.is_reporting and (
            self._is_report_due()
            or self._is_due(self._heartbeat_at)
            or self._must_ask_for_endings()
            or self._must_ask_who_spoke()
        ):
            self._send_reports()
        unasked = self._unasked()
        if self._requests.is_poll_wanted(unasked):
            wait = min(self._timings.long_poll, self._timings.hand_ahead_expiry * _POLL_SHARE_OF_EXPIRY)
            self._requests.poll(self._request(unasked, wait_seconds=wait))

    def _is_due(self, at: float) -> bool:
        """Return whether a moment (monotonic seconds) has come; if not, wake up then."""
        if self._clock.monotonic() >= at:
            return True
        self._due.append(at)
        return False

    def _is_report_due(self) -> bool:
        is_due = self._state.has_reports and self._is_due(self._outgoing.due_at)
        return is_due and self._is_due(self._reported_at + GATHER_SECONDS)

    def _must_ask_for_endings(self) -> bool:
        is_wanted = self._state.wants_endings or any(cluster.wants_endings for cluster in self._classic.values())
        return is_wanted and self._is_due(self._endings_at)

    def _must_ask_who_spoke(self) -> bool:
        """Return whether to ask the server about running jobs whose worker has not been heard from."""
        moments = [at for cluster in self._classic.values() if (at := cluster.ask_unheard_at) is not None]
        return bool(moments) and self._is_due(min(moments))

    def _unasked(self) -> dict[str, int]:
        """Return the capacity that no open poll requests."""
        return self._requests.unasked(self._state.capacity())

    def _send_reports(self) -> None:
        self._reported_at = self._clock.monotonic()
        self._endings_at = self._reported_at + ENDINGS_SECONDS
        alive: list[int] = []
        is_heartbeat = self._is_due(self._heartbeat_at)
        if is_heartbeat:
            self._heartbeat_at = self._clock.monotonic() + self._heartbeat_interval
            alive = self._state.alive()
            for cluster in self._classic.values():
                alive += cluster.alive()
        is_bare = self._outgoing.is_narrowed
        reports = self._outgoing.take()
        request = self._request({} if is_bare else self._unasked())
        request = replace(request, reports=list(reports), alive=[one for one in alive if not is_job(one)])
        if is_bare:
            self._requests.report(request)
            return
        unheard: list[int] = []
        for cluster in self._classic.values():
            unheard += cluster.ask_unheard()
        changes = self._state.outbox.take_changes()
        self._requests.report(
            replace(
                request,
                pending=changes.pending,
                launch_problems=self._state.launch_problems.take(self._clock.monotonic()),
                packed=self._state.packed.numbers,
                live_jobs=self._state.live_jobs(alive) if is_heartbeat else None,
                submitted=changes.submitted,
                ended_jobs=changes.ended,
                unheard=[one for one in unheard if not is_job(one)],
                unheard_jobs=self._state.live_jobs(unheard),
            )
        )

    def _request(self, capacity: Mapping[str, int], wait_seconds: float = 0.0) -> SyncRequest:
        return SyncRequest(
            epoch=self._epoch,
            capacity=dict(capacity),
            known_to_kill=self._state.known_to_kill,
            known_to_triage=self._state.known_to_triage,
            known_status=self._state.run_status,
            key=secrets.token_hex(8),
            wait_seconds=wait_seconds,
            ended_since=self._ended_since if self._classic else None,
            packing=list(self._classic),
            packed=self._state.packed.untaken_numbers,
        )

    def _wake_up(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # retrieve the exception even if the task was dropped meanwhile
        self._wake.set()
