"""Processes that live, die and pause: the client and the distributor, each with the real code inside."""

from __future__ import annotations

import abc
import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.client import running
from jobmon.client.launching import RESTART_PAUSE_SECONDS, RESTARTS_MAX, STARTUP_TIMEOUT_SECONDS
from jobmon.client.progress import LogDisplay, Observer
from jobmon.client.swarm.builder import SwarmBuilder
from jobmon.client.swarm.orchestrator import OrchestratorConfig, OrchestratorResult, WorkflowRunOrchestrator
from jobmon.client.tool import Tool
from jobmon.client.workflow_run import WorkflowRun, WorkflowRunFactory
from jobmon.core.constants import WorkflowRunStatus
from jobmon.core.exceptions import WorkflowRunStateError
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.gateway import ServerGateway
from jobmon.distributor.service import DistributorService, Identity, Setting, Timings
from jobmon.testing.simulation.adapter import GridDistributor, WatchingGridDistributor, in_thread
from jobmon.testing.simulation.clocks import PartClock
from jobmon.testing.simulation.farm import Farm, FarmDistributor
from jobmon.testing.simulation.ferry import Ferry
from jobmon.testing.simulation.grid import Grid
from jobmon.testing.simulation.loop import SimulationLoop
from jobmon.testing.simulation.network import Network, Part, SimulatedRequester
from jobmon.testing.simulation.scenario import FARM, GRID, Scenario

if TYPE_CHECKING:
    from jobmon.client.swarm.state import SwarmState
    from jobmon.client.workflow import Workflow
    from jobmon.core.cluster_protocol import ClusterDistributor
    from jobmon.core.requester import Requester
    from jobmon.testing.simulation.scenario import TaskPlan

RUN_HEARTBEAT_SECONDS: Final = 30
REPORT_BY_BUFFER: Final = 3.1
REQUEST_TIMEOUT_SECONDS: Final = 20.0
RUN_SECONDS_MAX: Final = 100 * 24 * 3600
STARTUP_SECONDS_MAX: Final = 1.5


@dataclass(frozen=True, slots=True)
class Surrounding:
    """What all processes share."""

    loop: SimulationLoop
    dice: random.Random
    network: Network
    farms: dict[str, Farm]
    grid: Grid
    clocks: dict[str, PartClock]
    scenario: Scenario
    folder: str
    note: Callable[[str], None]
    complain: Callable[[str], None]
    pids: itertools.count[int]
    alive: set[int]
    distributors: list[DistributorProcess]
    #: Whether something was violated.
    has_failed: Callable[[], bool]
    #: Run, distributor, host -> whether that host has, or will have, another distributor after it.
    has_successor: Callable[[int, int, str], bool]

    def requester(self, part: Part, ferry: Ferry | None = None) -> SimulatedRequester:
        """Return a requester for a part."""
        return SimulatedRequester(self.network, part, self.dice, ferry)


class Process(abc.ABC):
    """What can be killed and paused. Its code runs as the part of its name."""

    def __init__(self, around: Surrounding, kind: str, host: str) -> None:
        self.around = around
        self.pid = next(around.pids)
        self.host = host
        self.part = Part(f"{kind} {self.pid}")
        around.alive.add(self.pid)

    @property
    def name(self) -> str:
        """Its name in traces."""
        return self.part.name

    @property
    def is_alive(self) -> bool:
        """Whether it has neither ended nor been killed."""
        return self.pid in self.around.alive

    def pause(self, seconds: float) -> None:
        """Freeze it for a while."""
        self.around.loop.freeze(self.name)
        self.around.loop.call_later(seconds, self.around.loop.thaw, self.name)

    def cut_off(self, seconds: float) -> None:
        """Take its network away for a while."""
        self.part.cut_off_until = max(self.part.cut_off_until, self.around.loop.time() + seconds)

    @abc.abstractmethod
    def kill(self) -> None:
        """SIGKILL."""

    def _die(self) -> None:
        self.part.is_dead = True
        self.around.loop.thaw(self.name)
        self.around.alive.discard(self.pid)


@dataclass(frozen=True, slots=True)
class SimulatedHost:
    """Where a client runs; implements `jobmon.client.workflow_run.Host`."""

    name: str
    pid: int
    pid_start_time: float
    alive: set[int]

    def is_gone(self, process: Any) -> bool:
        """Only the own host can tell."""
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
        self._adapters: list[FarmDistributor] = []
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
            self._check_nothing_is_left()
        except asyncio.CancelledError:
            if not self.part.is_dead:
                raise
        except Exception as error:
            if not self.part.is_dead:
                around.complain(f"{self.name} of run {self.run_id} failed: {error!r}")
        finally:
            around.alive.discard(self.pid)
            self.ended.set()

    def _check_nothing_is_left(self) -> None:
        """Whoever leaves by itself must not leave commands that nobody else can see, if it knew of them."""
        farm, scenario = self.around.farms[self.host], self.around.scenario
        running = sorted(one for one, command in farm.running.items() if scenario.owns(command.index))
        if self.is_up.is_set() and running and not self.around.has_successor(self.run_id, self.pid, self.host):
            self.around.complain(f"{self.name} left though its commands {running} run on {self.host}")

    def _make_cluster(self, info: Any, response: Any) -> ClusterDistributor:
        if info.name == GRID:
            kind = WatchingGridDistributor if self.around.scenario.shares_watch else GridDistributor
            return kind(info.name, self.around.grid, self.part)
        adapter = FarmDistributor(info.name, self.around.farms[self.host], self.part)
        self._adapters.append(adapter)
        return adapter

    def _surroundings(self, response: Any) -> Surroundings:
        return Surroundings(
            workflow_id=response.workflow_id,
            workflow_run_id=self.run_id,
            working_directory=response.working_directory,
            umask=response.umask,
            log_folder=f"{self.around.folder}/logs/{response.workflow_id}",
            shell="/bin/sh",
        )

    @property
    def is_watcher(self) -> bool:
        """Whether it was the last that began to look at the grid for all."""
        return self.around.grid.watcher is self.part

    def drain(self) -> None:
        """Its standard input ends."""
        self._is_told_to_drain = True
        if self._service is not None and self.is_alive:
            self.around.loop.call_in(self.name, self._service.drain)

    def kill(self) -> None:
        """SIGKILL."""
        if self.is_alive:
            self._die()
            for adapter in self._adapters:
                adapter.hang_up()
            self._task.cancel()


class Keeper:
    """Keeps the distributor of a run alive, by the rules of `client.launching.DistributorProcess`."""

    def __init__(self, client: ClientProcess, run_id: int, restarts_max: int = RESTARTS_MAX) -> None:
        self._client = client
        self._run_id = run_id
        self._restarts_max = restarts_max
        self._restarts = 0
        self._is_stopping = False
        self._has_failed = False
        self._loop = client.around.loop
        self._start()
        self._watcher = self._loop.spawn(client.name, self._watch())

    def _start(self) -> None:
        self._deadline = self._loop.time() + STARTUP_TIMEOUT_SECONDS
        self._process = DistributorProcess(self._client.around, self._run_id, self._client.host)

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
        """Say whether it runs or is being started."""
        if not self._process.is_up.is_set() and self._process.is_alive and self._loop.time() > self._deadline:
            self._has_failed = True
            self._process.kill()
        return not self._has_failed

    def note_progress(self) -> None:
        """Tasks move."""
        self._restarts = 0

    def stop(self, wait_seconds: float = 0.0) -> None:
        """The client is done with it."""
        self._is_stopping = True
        self._process.drain()

    def die(self) -> None:
        """The client is dead: the pipe closes."""
        self._process.drain()
        self._watcher.cancel()


# -- the client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Approach:
    """How a client goes about it. `by_id`: from what is recorded; else from the definition.

    `force`: close what was told to end without waiting for it.
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


class ClientProcess(Process):
    """One script of the user, from definition to the end of its run."""

    def __init__(self, around: Surrounding, host: str, approach: Approach, workflow_id: int | None) -> None:
        super().__init__(around, "client", host)
        self.approach = approach
        self.workflow_id = workflow_id
        self.run_id: int | None = None
        self.result: OrchestratorResult | None = None
        self.error: BaseException | None = None
        self.ended = asyncio.Event()
        self._keepers: list[Keeper] = []
        self._orchestration: asyncio.Task[OrchestratorResult] | None = None
        self._ferry = Ferry()
        self._requester = around.requester(self.part, self._ferry)
        self._task = around.loop.spawn(self.name, self._live())

    # -- what may befall it ------------------------------------------------------------------------------------

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
        """Ctrl-C; only while tasks run."""
        if self._orchestration is None or self._orchestration.done():
            return False
        self._orchestration.cancel()
        return True

    # -- its life ----------------------------------------------------------------------------------------------

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
        workflow, run_id = await self._ferry.carry(self._prepare)
        self.run_id = run_id
        self.around.note(f"{self.name} has run {run_id}")
        keeper = Keeper(self, run_id)
        self._keepers.append(keeper)
        try:
            builder = await self._ferry.carry(lambda: self._build(workflow))
            return await self._orchestrate(builder, keeper)
        finally:
            keeper.stop()

    def _prepare(self) -> tuple[Workflow | None, int]:
        """Record, make room, create the run; in the ferry's thread."""
        if self.approach.by_id and self.workflow_id is not None:
            factory = self._make_factory(self.workflow_id, self._requester)
            factory.set_workflow_resume(self.approach.cold, force_cleanup=self.approach.force)
            factory.reset_task_statuses(self.approach.cold)
            return None, factory.create_workflow_run().workflow_run_id
        workflow = define(self.around.scenario, self._requester)
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
            sleep=lambda seconds: self._ferry.wait_for(asyncio.sleep(seconds)),
            monotonic=loop.time,
            host=SimulatedHost(self.host, self.pid, 0.0, self.around.alive),
        )

    def _settle(self, run_id: int) -> Keeper:
        async def start() -> Keeper:
            return Keeper(self, run_id, restarts_max=0)

        keeper = self._ferry.wait_for(start())
        self._keepers.append(keeper)
        return keeper

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

    async def _orchestrate(self, builder: SwarmBuilder, keeper: Keeper) -> OrchestratorResult:
        state, gateway = builder.state, builder.gateway
        assert state is not None
        assert gateway is not None
        config = OrchestratorConfig(
            heartbeat_interval=RUN_HEARTBEAT_SECONDS,
            heartbeat_report_by_buffer=REPORT_BY_BUFFER,
            timeout=RUN_SECONDS_MAX,
        )
        observer = Observer("", LogDisplay(), lambda _: [], keeper.note_progress, monotonic=self.around.loop.time)
        async with gateway:
            orchestrator = WorkflowRunOrchestrator(state, gateway, config, observer.on_change)
            self._orchestration = asyncio.create_task(orchestrator.run(keeper.alive))
            result = await self._orchestration
        if not self.part.is_dead:
            self._check(state)
        return result

    def _check(self, state: SwarmState) -> None:
        try:
            state.validate()
        except WorkflowRunStateError as error:
            self.around.complain(f"{self.name}: the memory of run {self.run_id} is inconsistent: {error}")


def define(scenario: Scenario, requester: Requester) -> Workflow:
    """Define the scenario's workflow as a user would."""
    tool = Tool("simulation", requester=requester)
    clusters = [GRID] if scenario.first else [FARM, GRID]
    asked = {"cores": 1, "runtime": scenario.runtime_seconds}
    workflow = tool.create_workflow(
        scenario.title,
        max_concurrently_running=scenario.workflow_limit,
        default_cluster_name=clusters[0],
        default_compute_resources_set={
            name: {**asked, **(scenario.packing if name == GRID else {})} for name in clusters
        },
    )
    tasks: list[Any] = []
    for plan in scenario.tasks:
        tasks.append(_task(tool, plan, [tasks[index - scenario.first] for index in plan.upstreams]))
    workflow.add_tasks(tasks)
    for template, limit in scenario.template_limits.items():
        workflow.set_task_template_max_concurrency_limit(template, limit)
    return workflow


def _task(tool: Tool, plan: TaskPlan, upstreams: list[Any]) -> Any:
    template = tool.get_task_template(plan.template, plan.template + " {index}", node_args=["index"])
    return template.create_task(
        name=f"{plan.template}_{plan.index}",
        upstream_tasks=upstreams,
        max_attempts=plan.max_attempts,
        resource_scales={"runtime": 0.5},
        cluster_name=plan.cluster,
        index=plan.index,
    )
