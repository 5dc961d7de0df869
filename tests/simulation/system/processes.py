"""Processes that live, die and pause: the client and the distributor, each running the real code."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.system.adapter import GridDistributor, WatchingGridDistributor, in_thread
from tests.simulation.system.agents import AgentHost, AgentProcess
from tests.simulation.system.bridge import Bridge
from tests.simulation.system.clocks import PartClock
from tests.simulation.system.defining import Script
from tests.simulation.system.grid import Grid
from tests.simulation.system.loop import SimulationLoop
from tests.simulation.system.network import Network, Part, SimulatedRequester
from tests.simulation.system.nodes import Ground
from tests.simulation.system.process import Process
from tests.simulation.system.scenario import GRID, Scenario

from jobmon.client import expanding, running
from jobmon.client.displays import LogDisplay
from jobmon.client.launching import RESTART_PAUSE_SECONDS, RESTARTS_MAX, STARTUP_TIMEOUT_SECONDS
from jobmon.client.progress import Observer
from jobmon.client.runners import Runners
from jobmon.client.swarm.builder import SwarmBuilder
from jobmon.client.swarm.orchestrator import OrchestratorConfig, OrchestratorResult, WorkflowRunOrchestrator
from jobmon.client.swarm.run import LateCaller, recorded_workflow
from jobmon.client.swarm.threads import Threads
from jobmon.client.workflow_run import WorkflowRun, WorkflowRunFactory
from jobmon.core.cluster_protocol import AgentOffer
from jobmon.core.constants import WorkflowRunStatus
from jobmon.core.exceptions import WorkflowRunStateError
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.gateway import ServerGateway
from jobmon.distributor.service import DistributorService, Identity, Setting, Timings
from jobmon.plugins.dummy import DummyDistributor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobmon.client.swarm.services.expander import Growth, Look
    from jobmon.client.swarm.state import SwarmState
    from jobmon.client.workflow import Workflow
    from jobmon.core.cluster_protocol import ClusterDistributor
    from jobmon.core.requester import Requester

RUN_HEARTBEAT_SECONDS: Final = 30
REPORT_BY_BUFFER: Final = 3.1
REQUEST_TIMEOUT_SECONDS: Final = 20.0
RUN_SECONDS_MAX: Final = 100 * 24 * 3600
STARTUP_SECONDS_MAX: Final = 1.5


@dataclass(slots=True)
class Alterations:
    """What the user has altered so far: when last, and whether that was all.

    `is_interrupted`: whether a command ended before its last request was answered, so that it may have done half.
    """

    last_at: float = 0.0
    are_over: bool = False
    is_interrupted: bool = False
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Surrounding:
    """The environment that all processes share."""

    loop: SimulationLoop
    dice: random.Random
    network: Network
    grid: Grid
    clocks: dict[str, PartClock]
    scenario: Scenario
    script: Script
    folder: str
    note: Callable[[str], None]
    violated: Callable[[str], None]
    pids: itertools.count[int]
    alive: set[int]
    #: Distributors and agents.
    distributors: list[DistributorProcess | AgentProcess]
    ground: Ground
    #: Host -> what agents leave on it.
    agent_hosts: dict[str, AgentHost]
    #: Returns whether a violation was found.
    has_failed: Callable[[], bool]
    alterations: Alterations = field(default_factory=Alterations)

    def requester(self, part: Part, bridge: Bridge | None = None) -> SimulatedRequester:
        """Return a requester for a part."""
        return SimulatedRequester(self.network, part, self.dice, bridge)


@dataclass(frozen=True, slots=True)
class SimulatedHost:
    """The host of a client; implements `jobmon.client.workflow_run.Host`."""

    name: str
    pid: int
    pid_start_time: float
    alive: set[int]

    def is_gone(self, process: Any) -> bool:
        """Return whether a process of this host has exited; False for processes of other hosts."""
        return process.host == self.name and process.pid not in self.alive


# -- the distributor --------------------------------------------------------------------------------------------


class DistributorProcess(Process):
    """One distributor process."""

    def __init__(self, around: Surrounding, run_id: int, host: str) -> None:
        super().__init__(around, "distributor", host)
        self.run_id = run_id
        self.is_up = asyncio.Event()
        self.ended = asyncio.Event()
        self._is_told_to_drain = False
        self._service: DistributorService | None = None
        around.distributors.append(self)
        self._task = around.loop.spawn(self.name, self._live())

    async def _live(self) -> None:
        around = self.around
        try:
            await asyncio.sleep(around.dice.uniform(0.1, STARTUP_SECONDS_MAX))
            requester = around.requester(self.part)
            gateway = ServerGateway(requester, requester.open_session(), self.run_id, REQUEST_TIMEOUT_SECONDS)
            setting = Setting(self._make_cluster, self._surroundings, in_thread)
            identity = Identity(self.host, self.pid, 0.0)
            self._service = DistributorService(gateway, setting, identity, Timings(), around.clocks["distributor"])
            if self._is_told_to_drain:
                self._service.drain()
            outcome = await self._service.run(self.is_up.set)
            around.note(f"{self.name} of run {self.run_id} ended: {outcome.value}")
        except asyncio.CancelledError:
            if not self.part.is_dead:
                raise
        except Exception as error:
            if not self.part.is_dead:
                around.violated(f"{self.name} of run {self.run_id} failed: {error!r}")
        finally:
            self._check_state()
            around.alive.discard(self.pid)
            self.ended.set()

    def _check_state(self) -> None:
        """Check that every attempt is in one state, regardless of how the distributor ended."""
        if self._service is not None:
            try:
                self._service.validate()
            except AssertionError as error:
                self.around.violated(f"{self.name} of run {self.run_id} has attempts in two states: {error}")

    def _make_cluster(self, info: Any, response: Any) -> ClusterDistributor:
        if info.name == GRID:
            kind = WatchingGridDistributor if self.around.scenario.shares_watch else GridDistributor
            return kind(info.name, self.around.grid, self.part)
        return FarmDistributor(info.name)

    def _surroundings(self, response: Any) -> Surroundings:
        return Surroundings(
            workflow_id=response.workflow_id,
            workflow_run_id=self.run_id,
            log_folder=f"{self.around.folder}/logs/{response.workflow_id}",
        )

    @property
    def is_watcher(self) -> bool:
        """Whether it is the distributor that last began to poll the grid for all."""
        return self.around.grid.watcher is self.part

    def drain(self) -> None:
        """Close its standard input."""
        self._is_told_to_drain = True
        if self._service is not None and self.is_alive:
            self.around.loop.call_in(self.name, self._service.drain)

    def kill(self) -> None:
        """SIGKILL."""
        if self.is_alive:
            self._die()
            self._task.cancel()


class FarmDistributor(DummyDistributor):
    """The adapter of the cluster whose commands host agents run; a distributor must give it no commands."""

    def agent_offer(self) -> AgentOffer:
        """Offer anything: the simulation sets up agents itself."""
        return AgentOffer(cores=1.0, memory_gib=1.0, pool="")

    def spawn(self, launches: Sequence[Any]) -> dict[int, str]:
        """Fail."""
        raise AssertionError("a distributor launched a command that belongs to agents")


class Keeper:
    """Keep a process of a run alive, by the rules of `client.launching.DistributorProcess`."""

    def __init__(
        self,
        client: ClientProcess,
        run_id: int,
        kind: type[DistributorProcess | AgentProcess],
        restarts_max: int = RESTARTS_MAX,
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._kind = kind
        self._restarts_max = restarts_max
        self._restarts = 0
        self._is_stopping = False
        self._has_failed = False
        self._loop = client.around.loop
        self._start()
        self._watcher = self._loop.spawn(client.name, self._watch())

    def _start(self) -> None:
        self._deadline = self._loop.time() + STARTUP_TIMEOUT_SECONDS
        self._process = self._kind(self._client.around, self._run_id, self._client.host)

    async def _watch(self) -> None:
        while True:
            await self._process.ended.wait()
            if not self._is_wanted():
                return
            if self._restarts >= self._restarts_max:
                self._has_failed = True
                return
            self._restarts += 1
            await asyncio.sleep(RESTART_PAUSE_SECONDS * self._restarts)
            if not self._is_wanted():
                return
            self._start()

    def _is_wanted(self) -> bool:
        return not (self._is_stopping or self._client.part.is_dead)

    def alive(self) -> bool:
        """Return whether the process is running or being started."""
        if not self._process.is_up.is_set() and self._process.is_alive and self._loop.time() > self._deadline:
            self._has_failed = True
            self._process.kill()
        return not self._has_failed

    def note_progress(self) -> None:
        """Record that tasks make progress."""
        self._restarts = 0

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Stop keeping the process alive, because the client no longer needs it."""
        self._is_stopping = True
        self._process.drain()

    def die(self) -> None:
        """Close the pipe, because the client is dead."""
        self._process.drain()
        self._watcher.cancel()


# -- the client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Approach:
    """How a client runs the workflow. `by_id`: from the record; otherwise from the definition.

    `force`: close attempts that were told to terminate, without waiting for them.
    """

    resume: bool
    cold: bool = True
    by_id: bool = False
    force: bool = False


class _Factory(WorkflowRunFactory):
    def create_workflow_run(
        self, workflow_run_heartbeat_interval: int | None = None, heartbeat_report_by_buffer: float | None = None
    ) -> WorkflowRun:
        """Create a run with the heartbeats of the simulation."""
        return super().create_workflow_run(RUN_HEARTBEAT_SECONDS, REPORT_BY_BUFFER)


class _Threads(Threads):
    """Threads of a client on virtual time, one at a time, because its requests share one bridge."""

    def __init__(self, client: ClientProcess, bridge: Bridge) -> None:
        self._client = client
        self._bridge = bridge
        self._lock = asyncio.Lock()

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """See `Threads.run`."""
        return await asyncio.shield(self._spawn(lambda: function(*arguments)))

    async def call(self, expand: Callable[[Look], Growth], state: SwarmState) -> Growth:
        """See `Threads.call`."""

        def look(function: Callable[[SwarmState], Any]) -> Any:
            async def looked() -> Any:
                return function(state)

            return self._bridge.wait_for(looked())

        found: Growth = await asyncio.shield(self._spawn(lambda: expand(look)))
        return found

    def _spawn(self, function: Callable[[], Any]) -> asyncio.Task[Any]:
        async def run() -> Any:
            async with self._lock:
                return await self._bridge.carry(function)

        task = self._client.around.loop.spawn(self._client.name, run())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # its caller may have left
        return task


class _Settling:
    """An agent process that only reports on behalf of dead agents."""

    def __init__(self, process: AgentProcess) -> None:
        self._process = process

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Do nothing: the process exits by itself."""


class ClientProcess(Process):
    """One script of the user, from the definition to the end of its run."""

    def __init__(self, around: Surrounding, host: str, approach: Approach, workflow_id: int | None) -> None:
        super().__init__(around, "client", host)
        self.approach = approach
        self.workflow_id = workflow_id
        self.run_id: int | None = None
        self.result: OrchestratorResult | None = None
        self.error: BaseException | None = None
        self.ended = asyncio.Event()
        self.began_at = around.loop.time()
        #: The tasks of its script, by number; none if it has only the record.
        self._made: dict[int, Any] = {}
        self._keepers: list[Keeper] = []
        self._orchestration: asyncio.Task[OrchestratorResult] | None = None
        self._bridge = Bridge()
        self._threads = _Threads(self, self._bridge)
        self._requester = around.requester(self.part, self._bridge)
        self._task = around.loop.spawn(self.name, self._live())

    # -- faults ------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL."""
        if not self.is_alive:
            return
        self._die()
        for keeper in self._keepers:
            keeper.die()
        self._task.cancel()
        if self._orchestration is not None:
            self._orchestration.cancel()

    def stop(self) -> bool:
        """Send Ctrl-C, only while tasks are running; return whether it was sent."""
        if self._orchestration is None or self._orchestration.done():
            return False
        self._orchestration.cancel()
        return True

    # -- life cycle --------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        try:
            self.result = await self._work()
            self.error = self.result.error
        except (Exception, asyncio.CancelledError) as error:
            self.error = error
        finally:
            self.around.alive.discard(self.pid)
            self.ended.set()

    async def _work(self) -> OrchestratorResult:
        workflow, run_id = await self._bridge.carry(self._prepare)
        self.run_id = run_id
        self.around.note(f"{self.name} has run {run_id}")
        keepers = [Keeper(self, run_id, kind) for kind in self._kinds()]
        self._keepers += keepers
        try:
            builder = await self._bridge.carry(lambda: self._build(workflow))
            caller = LateCaller(lambda: self._caller(workflow, builder))
            return await self._orchestrate(builder, Runners(keepers), caller)  # type: ignore[arg-type]  # as far as used
        finally:
            for keeper in keepers:
                keeper.stop()

    def _kinds(self) -> Iterator[type[DistributorProcess | AgentProcess]]:
        """Return which processes the run needs, as `client.runners` decides."""
        if self.around.scenario.has_grid:
            yield DistributorProcess
        if self.around.scenario.has_farm:
            yield AgentProcess

    def _prepare(self) -> tuple[Workflow | None, int]:
        """Record the workflow, stop an earlier run, and create the run; in the thread of the bridge."""
        if self.approach.by_id and self.workflow_id is not None:
            factory = self._make_factory(self.workflow_id, self._requester)
            factory.set_workflow_resume(self.approach.cold, force_cleanup=self.approach.force)
            factory.reset_task_statuses(self.approach.cold)
            return None, factory.create_workflow_run().workflow_run_id
        workflow = self.around.script.define(self._requester, self._made)
        options = running.RunOptions(
            resume=self.approach.resume, reset_running_jobs=self.approach.cold, force_cleanup=self.approach.force
        )
        try:
            run = running.prepare(workflow, options, self._make_factory)
        finally:
            self.workflow_id = workflow.workflow_id or self.workflow_id
        return workflow, run.workflow_run_id

    def _make_factory(self, workflow_id: int, requester: Requester) -> _Factory:
        loop = self.around.loop
        return _Factory(
            workflow_id,
            requester,
            settle=self._settle,
            settle_agents=self._settle_agents,
            sleep=lambda seconds: self._bridge.wait_for(asyncio.sleep(seconds)),
            monotonic=loop.time,
            host=SimulatedHost(self.host, self.pid, 0.0, self.around.alive),
        )

    def _settle(self, run_id: int) -> Keeper:
        async def start() -> Keeper:
            return Keeper(self, run_id, DistributorProcess, restarts_max=0)

        keeper = self._bridge.wait_for(start())
        self._keepers.append(keeper)
        return keeper

    def _settle_agents(self, agents: Sequence[Any], workflow_id: int, run_id: int, requester: Requester) -> _Settling:
        async def start() -> _Settling:
            dead = [{"agent_id": one.agent_id, "boot_id": one.boot_id, "pid": one.pid} for one in agents]
            return _Settling(AgentProcess(self.around, run_id, self.host, dead, workflow_id))

        return self._bridge.wait_for(start())

    def _build(self, workflow: Workflow | None) -> SwarmBuilder:
        assert self.run_id is not None
        builder = SwarmBuilder(
            self._requester.without_limit(),
            self.run_id,
            RUN_HEARTBEAT_SECONDS,
            REPORT_BY_BUFFER,
            WorkflowRunStatus.BOUND,
            clock=self.around.clocks["client"],
        )
        if workflow is None:
            assert self.workflow_id is not None
            builder.build_from_workflow_id(self.workflow_id)
        else:
            builder.build_from_workflow(workflow)
        return builder

    def _caller(self, workflow: Workflow | None, builder: SwarmBuilder) -> expanding.ExpansionCaller:
        """Return what calls the functions of expansions, as `client.swarm.run` does; in the thread of the bridge."""
        known = recorded_workflow(builder) if workflow is None else workflow
        load = functools.partial(self.around.script.load, made=self._made)
        return expanding.caller_of(known, builder, None, load, allows_removal=False)

    async def _orchestrate(self, builder: SwarmBuilder, runners: Runners, caller: LateCaller) -> OrchestratorResult:
        state, gateway = builder.state, builder.gateway
        assert state is not None
        assert gateway is not None
        config = OrchestratorConfig(
            heartbeat_interval=RUN_HEARTBEAT_SECONDS,
            heartbeat_report_by_buffer=REPORT_BY_BUFFER,
            timeout=RUN_SECONDS_MAX,
            fail_fast=self.around.scenario.fail_fast,
        )
        observer = Observer("", LogDisplay(), lambda _: [], runners.note_progress, monotonic=self.around.loop.time)
        async with gateway:
            orchestrator = WorkflowRunOrchestrator(
                state, gateway, config, observer.on_change, builder, caller, self._threads
            )
            self._orchestration = asyncio.create_task(orchestrator.run(runners.alive))
            result = await self._orchestration
        if not self.part.is_dead:
            self._check(state)
        return result

    def _check(self, state: SwarmState) -> None:
        try:
            state.validate()
        except WorkflowRunStateError as error:
            self.around.violated(f"{self.name}: the memory of run {self.run_id} is inconsistent: {error}")
