"""One simulation from start to end: the parts, the faults, the users who restart what died, and the verdict."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import tempfile
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.system import checks
from tests.simulation.system.agents import AgentHost, AgentProcess
from tests.simulation.system.altering import Altering, stale
from tests.simulation.system.clocks import PartClock
from tests.simulation.system.commands import Command, Fates
from tests.simulation.system.defining import Script
from tests.simulation.system.grid import CANCELLED, PREEMPTED, Grid
from tests.simulation.system.invariants import Invariants
from tests.simulation.system.loop import SimulationLoop
from tests.simulation.system.network import Network, Part
from tests.simulation.system.nodes import Ground
from tests.simulation.system.processes import ClientProcess, DistributorProcess, Surrounding
from tests.simulation.system.scenario import (
    CLOCK_JUMP_SECONDS_MAX,
    CLOCKS,
    GRID,
    STEERED_SHARE,
    STEPS_OF_STEERING,
    Scenario,
    Weather,
    draw,
)
from tests.simulation.system.server import SimulatedServer
from tests.simulation.system.users import HOSTS, User

from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import ServerUnavailable
from jobmon.core.wire.definition import Cluster, ClusterRequest, QueueSpec
from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse
from jobmon.core.wire.steering import HoldRequest, HoldResponse, PriorityRequest, PriorityResponse
from jobmon.server import migrations
from jobmon.server.database import open_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

#: Time within which everything left must end after the last client has exited.
AFTERMATH_SECONDS: Final = 3600.0
SWEEP_SECONDS: Final = 30.0
#: Maximum idle time of a pilot, which waits 30 s for work and possibly for an answer.
IDLE_SECONDS_MAX: Final = 300.0
#: Maximum time between two polls of a grid, even of one that answers slowly.
UNSEEN_SECONDS_MAX: Final = 1800.0
#: If a larger share of messages is lost, parts are excused for not reacting to the server.
SOUND_LOSSES_MAX: Final = 0.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a simulation."""

    seed: int
    violations: tuple[str, ...]
    faults: Counter[str]
    seconds: float
    requests: int
    tasks: int
    executions: int
    trace: tuple[str, ...]


def simulate(seed: int) -> Verdict:
    """Run the simulation of a seed."""
    return play(draw(seed))


def play(scenario: Scenario) -> Verdict:
    """Run the simulation of a scenario."""
    with (
        _silence(logging.getLogger("jobmon")),
        tempfile.TemporaryDirectory(prefix="jobmon-simulation-", dir=_fast_folder()) as folder,
        asyncio.Runner(loop_factory=SimulationLoop) as runner,
    ):
        return runner.run(_World(scenario, Path(folder)).run())


@contextmanager
def _silence(logger: logging.Logger) -> Iterator[None]:
    """Suppress log messages about deliberate faults within the context."""
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@cache
def _fast_folder() -> str | None:
    """Return a folder in memory if there is one, because the disk is not under test."""
    shared_memory = Path("/dev/shm")
    return str(shared_memory) if shared_memory.is_dir() else None


class _World:
    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self._scenario = scenario
        self._folder = folder
        self._violations: list[str] = []
        self._trace: list[str] = []
        self._faults: Counter[str] = Counter()
        self._pauses: list[asyncio.Task[None]] = []

    async def run(self) -> Verdict:
        """Run the simulation; return the verdict."""
        await self._begin()
        besides = [
            asyncio.create_task(work) for work in (self._wreak_havoc(), self._sweep(), self._steer(), self._alter())
        ]
        try:
            await asyncio.gather(*(user.use() for user in self._users))
            if not self._violations:
                await self._await_aftermath()
            if not self._violations:
                await self._check_plans()
        finally:
            for task in besides:
                task.cancel()
            await asyncio.gather(*besides, return_exceptions=True)
            await self._end()
        if not self._violations:
            self._invariants.check_edits()
            for user in self._users:
                self._check(user)
        self._record.close()
        return self._verdict()

    async def _alter(self) -> None:
        await Altering(self._surrounding, self._record, lambda: self._server.is_up).alter()

    async def _check_plans(self) -> None:
        """Check that nothing that is done is out of date."""
        for user in self._users if not self._surrounding.alterations.is_interrupted else ():
            for problem in await stale(user.around, self._record):
                self._violated(problem)

    def _check(self, user: User) -> None:
        """Check the final state of a user's workflow."""
        record, scenario = self._record, user.scenario
        excused = self._fates.unlucky | checks.tired(record) | checks.failed_by_grid(record, scenario)
        excused |= checks.suspected(record)
        reopened = self._invariants.reopened
        for problem in checks.problems(record, scenario, self._answers.acknowledged, excused, reopened):
            self._violated(problem)
        for problem in user.commands.unrecorded(self._invariants.reaped):
            self._violated(problem)

    def _verdict(self) -> Verdict:
        return Verdict(
            seed=self._scenario.seed,
            violations=tuple(self._violations),
            faults=self._faults + self._network.faults + self._grid.faults + self._surrounding.alterations.counts,
            seconds=self._loop.time(),
            requests=self._network.requests,
            tasks=len(self._scenario.all_tasks),
            executions=self._fates.executions.total(),
            trace=tuple(self._trace),
        )

    async def _sweep(self) -> None:
        """Check periodically, while the server is reachable, for commands and jobs that should not be running."""
        while True:
            was_up = self._is_server_heard()
            await asyncio.sleep(SWEEP_SECONDS)
            if was_up and self._is_server_heard():
                for user in self._users:
                    user.commands.sweep(SWEEP_SECONDS)
                self._look_at_grid()

    def _look_at_grid(self) -> None:
        """Check that packed jobs exit when there is no work, and that the grid is polled often enough."""
        for node in self._grid.packed_nodes():
            node.idle_seconds = 0.0 if node.children or not node.is_in_touch() else node.idle_seconds + SWEEP_SECONDS
            if node.idle_seconds > IDLE_SECONDS_MAX:
                self._violated(f"{node.part.name} takes tasks, and had none for {node.idle_seconds:g} s")
        if not self._scenario.shares_watch or not self._is_grid_in_use():
            self._grid.looked_at = self._loop.time()
        elif self._loop.time() - self._grid.looked_at > UNSEEN_SECONDS_MAX:
            self._violated(f"no distributor polled the grid for {self._loop.time() - self._grid.looked_at:.0f} s")

    def _is_grid_in_use(self) -> bool:
        """Return whether the grid has active jobs and answers, and all living distributors can act."""
        now = self._loop.time()
        if not self._grid.is_busy or now < self._grid.silent_until:
            return False
        distributors = [each for each in self._surrounding.distributors if isinstance(each, DistributorProcess)]
        living = [each for each in distributors if each.is_alive]
        return bool(living) and not any(
            self._loop.is_frozen(each.name) or now < each.part.cut_off_until for each in living
        )

    def _is_server_heard(self) -> bool:
        weather = self._network.weather
        losses = weather.lost_before + weather.lost_after + weather.slow
        return self._server.is_up and not self._loop.is_frozen("server") and losses < SOUND_LOSSES_MAX

    # -- begin and end -----------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        self._loop = loop
        seed = self._scenario.seed
        self._dice = random.Random(f"{seed} world")
        database = self._folder / "simulation.sqlite"
        database.write_bytes(_empty_database())
        self._clocks = {name: PartClock(loop) for name in CLOCKS}
        self._record = checks.Record(database)
        self._invariants = Invariants(
            self._record, self._violated, loop.time, self._note_force, fail_fast=self._scenario.fail_fast
        )
        dice = random.Random(f"{seed} busy server")
        self._server = SimulatedServer(database, self._clocks["server"], self._invariants.observe, dice)
        await self._server.start()
        self._answers = checks.Answers(self._violated)
        self._network = Network(loop, random.Random(f"{seed} network"), self._server.serve, self._answers.observe)
        self._fates = Fates(self._scenario)
        pids = itertools.count(1)
        ground = Ground(
            loop=loop,
            dice=random.Random(f"{seed} grid"),
            network=self._network,
            clock=self._clocks["worker"],
            fates=self._fates,
            observe=self._observe,
            violated=self._violated,
            data_folder=str(self._folder),
            pids=pids,
        )
        self._grid = Grid(ground, 2 * self._scenario.slots, self._scenario.lies)
        self._surrounding = Surrounding(
            loop=loop,
            dice=random.Random(f"{seed} parts"),
            network=self._network,
            grid=self._grid,
            clocks=self._clocks,
            scenario=self._scenario,
            script=Script(self._scenario, self._note_call),
            folder=str(self._folder),
            note=self._note,
            violated=self._violated,
            has_failed=lambda: bool(self._violations),
            pids=pids,
            alive=set(),
            distributors=[],
            ground=ground,
            agent_hosts={host: AgentHost() for host in HOSTS},
        )
        self._users = [self._user(self._surrounding, self._dice)]
        if self._scenario.neighbour is not None:
            script = Script(self._scenario.neighbour, self._note_call)
            around = replace(self._surrounding, scenario=self._scenario.neighbour, script=script)
            self._users.append(self._user(around, random.Random(f"{seed} neighbour user")))
        if self._scenario.has_grid:
            await self._add_grid()
        self._network.weather = self._scenario.weather

    def _user(self, around: Surrounding, dice: random.Random) -> User:
        commands = checks.Commands(self._record, around.scenario, self._violated)
        return User(around, dice, self._record, commands)

    async def _add_grid(self) -> None:
        """Record the grid as an administrator would; only the queues of its plug-in are used."""
        request = ClusterRequest(name=GRID, plugin="dummy", queues=[QueueSpec(queue_name="default")])
        requester = self._surrounding.requester(Part("administrator"))
        await requester.call_async(requester.open_session(), "/clusters", request, Cluster)

    async def _end(self) -> None:
        """Kill all remaining processes."""
        clients = [client for user in self._users for client in user.clients]
        for process in (*clients, *self._surrounding.distributors):
            process.kill()
        self._loop.thaw("server")
        await self._server.kill()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    # -- notes -------------------------------------------------------------------------------------------------

    def _note(self, what: str) -> None:
        self._trace.append(f"{self._loop.time():10.3f} {what}")

    def _violated(self, what: str) -> None:
        self._violations.append(what)
        self._note(f"VIOLATION {what}")

    def _observe(self, what: str, command: Command) -> None:
        next(user for user in self._users if user.scenario.owns(command.index)).commands.observe(what, command)
        self._note(f"{what} {command.name} (attempt {command.attempt})")

    def _note_call(self, name: str) -> None:
        """Check that the function of an expansion is called only while nothing of it is recorded as its result."""
        self._note(f"call {name}")
        self._faults["expansion called"] += 1
        for task_id, status in self._record.rows("SELECT id, status FROM task WHERE name = ?", name):
            if status == TaskStatus.DONE:
                self._violated(f"the function of task {task_id} is called although the task is recorded as done")

    def _note_force(self, workflow_id: int) -> None:
        found = self._record.rows("SELECT workflow_args FROM workflow WHERE id = ?", workflow_id)
        for user in self._users:
            if found and found[0][0] == user.scenario.title:
                user.commands.note_force()

    # -- the end -------------------------------------------------------------------------------------------

    async def _await_aftermath(self) -> None:
        """Wait until the distributors have handled all remaining attempts."""
        deadline = self._loop.time() + AFTERMATH_SECONDS + self._scenario.chaos_seconds
        while True:
            living = [each.name for each in self._surrounding.distributors if each.is_alive]
            bereft = [one.name for one in self._agents if one.part.is_dead]
            if not living and not self._grid.is_busy and not (bereft and self._are_attempts_left()):
                return
            if self._loop.time() > deadline:
                jobs = ", jobs of the grid" if self._grid.is_busy else ""
                self._violated(f"left over: {living}{jobs}, bereft: {bereft}")
                return
            await asyncio.sleep(10.0)

    @property
    def _agents(self) -> list[AgentProcess]:
        return [one for one in self._surrounding.distributors if isinstance(one, AgentProcess)]

    def _are_attempts_left(self) -> bool:
        """Return whether attempts have not ended. The server declares those of dead agents lost after a time."""
        return bool(self._record.rows("SELECT 1 FROM task_instance WHERE ended_at IS NULL LIMIT 1"))

    # -- faults ------------------------------------------------------------------------------------------------

    async def _wreak_havoc(self) -> None:
        scenario = self._scenario
        for seconds, clock, by in scenario.jumps:
            self._loop.call_later(seconds, self._jump, clock, by)
        while scenario.faults:
            pause = self._dice.expovariate(1 / scenario.fault_interval)
            if self._loop.time() + pause > scenario.chaos_seconds:
                break
            await asyncio.sleep(pause)
            kind = self._dice.choices(scenario.faults, scenario.fault_weights)[0]
            happened = await _FAULTS[kind](self)
            if happened:
                self._faults[kind] += 1
                self._note(f"fault: {kind}: {happened}")
        await asyncio.sleep(max(0.0, scenario.chaos_seconds - self._loop.time()))
        self._network.weather = Weather()
        self._grid.honest()
        self._note("the weather is fine from here on")

    def _seconds(self, longest: float) -> float:
        """Return a random duration: mostly short, sometimes long."""
        return round(longest * self._dice.random() ** 3 + 0.1, 3)

    def _some_client(self) -> ClientProcess | None:
        living = [client for user in self._users for client in user.living]
        return self._dice.choice(living) if living else None

    def _some_distributor(self) -> DistributorProcess | AgentProcess | None:
        living = [each for each in self._surrounding.distributors if each.is_alive]
        return self._dice.choice(living) if living else None

    async def kill_client(self) -> str:
        client = self._some_client()
        if client is not None:
            client.kill()
        return client.name if client is not None else ""

    async def pause_client(self) -> str:
        client, seconds = self._some_client(), self._seconds(400.0)
        if client is not None:
            client.pause(seconds)
        return f"{client.name} for {seconds} s" if client is not None else ""

    async def stop_client(self) -> str:
        client = self._some_client()
        return client.name if client is not None and client.stop() else ""

    async def take_over(self) -> str:
        user = self._dice.choice(self._users) if len(self._users) > 1 else self._users[0]
        self._some_client()
        return user.take_over()

    async def kill_distributor(self) -> str:
        return self._kill(self._some_distributor())

    @staticmethod
    def _kill(distributor: DistributorProcess | AgentProcess | None) -> str:
        if distributor is not None:
            distributor.kill()
        return distributor.name if distributor is not None else ""

    async def pause_distributor(self) -> str:
        return self._pause(self._some_distributor())

    def _pause(self, distributor: DistributorProcess | AgentProcess | None) -> str:
        seconds = self._seconds(400.0)
        if distributor is not None:
            distributor.pause(seconds)
        return f"{distributor.name} for {seconds} s" if distributor is not None else ""

    async def cut_off_distributor(self) -> str:
        return self._cut_off(self._some_distributor())

    def _cut_off(self, distributor: DistributorProcess | AgentProcess | None) -> str:
        seconds = self._seconds(600.0)
        if distributor is not None:
            distributor.cut_off(seconds)
        return f"{distributor.name} for {seconds} s" if distributor is not None else ""

    def _watcher(self) -> DistributorProcess | AgentProcess | None:
        """Return the distributor that is polling the grid now or did so last."""
        return next((each for each in self._surrounding.distributors if each.is_alive and each.is_watcher), None)

    async def kill_watcher(self) -> str:
        return self._kill(self._watcher())

    async def pause_watcher(self) -> str:
        return self._pause(self._watcher())

    async def cut_off_watcher(self) -> str:
        return self._cut_off(self._watcher())

    async def preempt_job(self) -> str:
        return self._grid.end_job(PREEMPTED)

    async def cancel_job(self) -> str:
        return self._grid.end_job(CANCELLED)

    async def cut_off_client(self) -> str:
        client, seconds = self._some_client(), self._seconds(600.0)
        if client is not None:
            client.cut_off(seconds)
        return f"{client.name} for {seconds} s" if client is not None else ""

    async def kill_agent(self) -> str:
        return self._kill(self._some_agent())

    async def pause_agent(self) -> str:
        return self._pause(self._some_agent())

    def _some_agent(self) -> AgentProcess | None:
        living = [one for one in self._agents if one.is_alive]
        return self._dice.choice([one for one in living if one.children] or living) if living else None

    async def restart_server(self) -> str:
        return await self._down(self._seconds(5.0))

    async def take_server_away(self) -> str:
        return await self._down(self._seconds(900.0))

    async def _down(self, seconds: float) -> str:
        self._note(f"the server is down for {seconds} s")
        self._loop.thaw("server")
        await self._server.kill()
        await asyncio.sleep(seconds)
        await self._server.start()
        return f"for {seconds} s"

    async def pause_server(self) -> str:
        seconds = self._seconds(100.0)
        self._loop.freeze("server")
        self._loop.call_later(seconds, self._loop.thaw, "server")
        return f"for {seconds} s"

    async def kill_command(self) -> str:
        agent = self._some_agent()
        return "by the kernel" if agent is not None and agent.kill_something() else ""

    async def jump(self) -> str:
        name = self._dice.choice(sorted(self._clocks))
        seconds = round(self._dice.uniform(-CLOCK_JUMP_SECONDS_MAX, CLOCK_JUMP_SECONDS_MAX), 3)
        self._jump(name, seconds)
        return f"{name} by {seconds} s"

    def _jump(self, clock: str, seconds: float) -> None:
        self._clocks[clock].offset += seconds

    async def repeat_request(self) -> str:
        return self._network.deliver_again()

    async def kill_worker(self) -> str:
        return self._grid.kill_worker()

    async def pause_worker(self) -> str:
        return self._grid.pause_worker(self._seconds(600.0))

    async def cut_off_worker(self) -> str:
        return self._grid.cut_off_worker(self._seconds(900.0))

    async def lose_node(self) -> str:
        return self._grid.lose_node()

    async def silence_grid(self) -> str:
        return self._grid.be_silent()

    async def change_limit(self) -> str:
        workflow = self._record.rows("SELECT id FROM workflow WHERE workflow_args = ?", self._scenario.title)
        if not workflow or not self._server.is_up:
            return ""
        limit = self._dice.choice([0, 1, 2, 5, 20])
        commands = self._users[0].commands
        commands.workflow_limit = max(commands.workflow_limit, limit)
        await self._limit(workflow[0][0], limit)
        if limit == 0:
            self._pauses.append(asyncio.create_task(self._end_pause(workflow[0][0], self._seconds(600.0))))
        return f"now {limit}"

    async def _limit(self, workflow_id: int, limit: int) -> None:
        requester = self._surrounding.requester(Part("user"))
        route, request = f"/workflows/{workflow_id}/concurrency", ConcurrencyRequest(max_concurrently_running=limit)
        await requester.call_async(requester.open_session(), route, request, ConcurrencyResponse, "put")

    async def _steer(self) -> None:
        """Hold tasks and change priorities from time to time; in the end, release all tasks."""
        dice = random.Random(f"{self._scenario.seed} steering")
        if dice.random() >= STEERED_SHARE or not self._scenario.chaos_seconds:
            return
        pause = self._scenario.chaos_seconds / STEPS_OF_STEERING
        while (seconds := dice.expovariate(1 / pause)) + self._loop.time() < self._scenario.chaos_seconds:
            await asyncio.sleep(seconds)
            with suppress(ServerUnavailable):
                await self._steer_once(dice)
        await asyncio.sleep(max(0.0, self._scenario.chaos_seconds - self._loop.time()))
        while self._record.rows("SELECT 1 FROM task WHERE held LIMIT 1"):
            with suppress(ServerUnavailable):
                for workflow_id, ids in self._tasks_of_workflows().items():
                    await self._post(workflow_id, "holds", HoldRequest(task_ids=ids, held=False), HoldResponse)
            await asyncio.sleep(SWEEP_SECONDS)

    def _tasks_of_workflows(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for workflow_id, task_id in self._record.rows("SELECT workflow_id, id FROM task ORDER BY id"):
            found.setdefault(workflow_id, []).append(task_id)
        return found

    async def _steer_once(self, dice: random.Random) -> None:
        tasks = self._tasks_of_workflows()
        if not tasks or not self._server.is_up:
            return
        workflow_id = dice.choice(sorted(tasks))
        chosen = dice.sample(tasks[workflow_id], dice.randint(1, min(5, len(tasks[workflow_id]))))
        if dice.random() < 0.6:
            held = dice.random() < 0.6
            answer = await self._post(workflow_id, "holds", HoldRequest(task_ids=chosen, held=held), HoldResponse)
            self._note(f"the user {'holds' if held else 'releases'} tasks {chosen}: {answer}")
            return
        of_all = dice.random() < 0.2
        request = PriorityRequest(priority=dice.randint(-5, 5), task_ids=[] if of_all else chosen)
        answer = await self._post(workflow_id, "priorities", request, PriorityResponse)
        self._note(f"the user sets the priority of {'the workflow' if of_all else chosen}: {answer}")

    async def _post(self, workflow_id: int, what: str, request: object, reply: type[Any]) -> Any:
        requester = self._surrounding.requester(Part("user"))
        return await requester.call_async(requester.open_session(), f"/workflows/{workflow_id}/{what}", request, reply)

    async def _end_pause(self, workflow_id: int, seconds: float) -> None:
        """End the pause of a workflow after a time, even if the server is down at first."""
        await asyncio.sleep(seconds)
        while True:
            try:
                await self._limit(workflow_id, 1)
            except ServerUnavailable:
                await asyncio.sleep(SWEEP_SECONDS)
            else:
                self._note("the pause is over")
                return


_FAULTS: Final[dict[str, Callable[[_World], Awaitable[str]]]] = {
    "client dies": _World.kill_client,
    "client pauses": _World.pause_client,
    "client is stopped": _World.stop_client,
    "another client takes over": _World.take_over,
    "distributor dies": _World.kill_distributor,
    "distributor pauses": _World.pause_distributor,
    "distributor is cut off": _World.cut_off_distributor,
    "client is cut off": _World.cut_off_client,
    "agent dies": _World.kill_agent,
    "agent pauses": _World.pause_agent,
    "server restarts": _World.restart_server,
    "server is away": _World.take_server_away,
    "server pauses": _World.pause_server,
    "clock jumps": _World.jump,
    "limit changes": _World.change_limit,
    "command is killed": _World.kill_command,
    "request comes again": _World.repeat_request,
    "worker dies": _World.kill_worker,
    "worker pauses": _World.pause_worker,
    "worker is cut off": _World.cut_off_worker,
    "node is lost": _World.lose_node,
    "grid is silent": _World.silence_grid,
    "job is preempted": _World.preempt_job,
    "job is cancelled": _World.cancel_job,
    "watcher dies": _World.kill_watcher,
    "watcher pauses": _World.pause_watcher,
    "watcher is cut off": _World.cut_off_watcher,
}


@cache
def _empty_database() -> bytes:
    """Return an empty database with the schema, created once per process."""
    with tempfile.TemporaryDirectory(prefix="jobmon-simulation-", dir=_fast_folder()) as folder:
        path = Path(folder, "empty.sqlite")
        engine = open_engine(f"sqlite:///{path}")
        migrations.upgrade(engine)
        engine.dispose()
        return path.read_bytes()
