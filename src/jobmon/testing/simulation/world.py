"""One simulation from beginning to end: the parts, the faults, the user who starts again what died, and the verdict."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import (
    DistributorNotAlive,
    ResumeSet,
    ServerUnavailable,
    StaleRun,
    WorkflowAlreadyComplete,
    WorkflowAlreadyExists,
    WorkflowNotResumable,
    WorkflowRunStateError,
)
from jobmon.core.wire.definition import Cluster, ClusterRequest, QueueSpec
from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse
from jobmon.server import migrations
from jobmon.server.database import open_engine
from jobmon.testing.simulation import checks
from jobmon.testing.simulation.clocks import PartClock
from jobmon.testing.simulation.commands import Command, Fates
from jobmon.testing.simulation.farm import Farm
from jobmon.testing.simulation.grid import Grid
from jobmon.testing.simulation.laws import Laws
from jobmon.testing.simulation.loop import SimulationLoop
from jobmon.testing.simulation.network import Network, Part
from jobmon.testing.simulation.nodes import Ground
from jobmon.testing.simulation.parts import Approach, ClientProcess, DistributorProcess, Surrounding
from jobmon.testing.simulation.scenario import CLOCK_JUMP_SECONDS_MAX, CLOCKS, GRID, Scenario, Weather, draw
from jobmon.testing.simulation.server import SimulatedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

#: After the last fault, and besides the commands' own time, everything must be over within this.
PATIENCE_SECONDS: Final = 6 * 3600.0
#: What is left when the last client has ended must end within this.
AFTERMATH_SECONDS: Final = 3600.0
SWEEP_SECONDS: Final = 30.0
#: Where more messages are lost than this, nobody can be blamed for not having heard.
SOUND_LOSSES_MAX: Final = 0.1
FORCE_SHARE: Final = 0.1
THINKING_SECONDS_MAX: Final = 120.0
REQUESTS_MAX: Final = 200_000
#: Host -> its farm.
HOSTS: Final = {"here": "farm", "there": "farm there"}
#: What a run may end with when parts die around it.
_EXPECTED: Final = (
    asyncio.CancelledError,
    DistributorNotAlive,
    ResumeSet,
    ServerUnavailable,
    StaleRun,
    WorkflowAlreadyComplete,
    WorkflowAlreadyExists,
    WorkflowNotResumable,
)
_CLOSED_BY_OTHERS: Final = "Somebody else ended run"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a simulation came to."""

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
    """What goes wrong on purpose is not worth a line each; whoever logs afterwards is heard again."""
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@cache
def _fast_folder() -> str | None:
    """Return a folder in memory, where there is one: what is tested is not the disk."""
    shared_memory = Path("/dev/shm")
    return str(shared_memory) if shared_memory.is_dir() else None


class _World:
    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self._scenario = scenario
        self._folder = folder
        self._violations: list[str] = []
        self._trace: list[str] = []
        self._faults: Counter[str] = Counter()

    async def run(self) -> Verdict:
        """Live through it; return the verdict."""
        await self._begin()
        besides = [asyncio.create_task(work) for work in (self._wreak_havoc(), self._sweep())]
        try:
            await self._use()
            if not self._violations:
                await self._await_aftermath()
        finally:
            for task in besides:
                task.cancel()
            await asyncio.gather(*besides, return_exceptions=True)
            await self._end()
        if not self._violations:
            excused = (
                self._fates.unlucky | checks.tired(self._record) | checks.failed_by_grid(self._record, self._scenario)
            )
            for problem in checks.problems(self._record, self._scenario, self._answers.acknowledged, excused):
                self._complain(problem)
            for problem in self._commands.unrecorded(self._laws.reaped):
                self._complain(problem)
        self._record.close()
        return self._verdict()

    def _verdict(self) -> Verdict:
        return Verdict(
            seed=self._scenario.seed,
            violations=tuple(self._violations),
            faults=self._faults + self._network.faults + self._grid.faults,
            seconds=self._loop.time(),
            requests=self._network.requests,
            tasks=len(self._scenario.tasks),
            executions=self._fates.executions.total(),
            trace=tuple(self._trace),
        )

    async def _sweep(self) -> None:
        """Look from time to time for what runs though it should not, while everybody can hear the server."""
        while True:
            was_up = self._is_server_heard()
            await asyncio.sleep(SWEEP_SECONDS)
            for farm in self._farms.values():
                farm.look()
            if was_up and self._is_server_heard():
                self._commands.sweep(SWEEP_SECONDS)

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
        self._commands = checks.Commands(self._record, self._scenario, self._complain, self._epoch_of)
        self._laws = Laws(self._record, self._complain, self._commands.note_force)
        self._server = SimulatedServer(database, self._clocks["server"], self._laws.observe)
        await self._server.start()
        self._answers = checks.Answers(self._complain)
        self._network = Network(loop, random.Random(f"{seed} network"), self._server.serve, self._answers.observe)
        self._fates = Fates(self._scenario)
        self._farms = {
            host: Farm(
                host, loop, random.Random(f"{seed} {farm}"), self._clocks["supervisor"], self._fates, self._observe
            )
            for host, farm in HOSTS.items()
        }
        pids = itertools.count(1)
        ground = Ground(
            loop=loop,
            dice=random.Random(f"{seed} grid"),
            network=self._network,
            clock=self._clocks["worker"],
            fates=self._fates,
            observe=self._observe,
            complain=self._complain,
            data_folder=str(self._folder),
            pids=pids,
        )
        self._grid = Grid(ground, 2 * self._scenario.slots, self._scenario.lies)
        self._clients: list[ClientProcess] = []
        self._surrounding = Surrounding(
            loop=loop,
            dice=random.Random(f"{seed} parts"),
            network=self._network,
            farms=self._farms,
            grid=self._grid,
            clocks=self._clocks,
            scenario=self._scenario,
            folder=str(self._folder),
            note=self._note,
            complain=self._complain,
            pids=pids,
            alive=set(),
            distributors=[],
            has_successor=self._has_successor,
        )
        if self._scenario.has_grid:
            await self._add_grid()
        self._network.weather = self._scenario.weather

    async def _add_grid(self) -> None:
        """Record the grid, as an administrator does; of its plug-in only the queues are used."""
        request = ClusterRequest(name=GRID, plugin="dummy", queues=[QueueSpec(queue_name="default")])
        requester = self._surrounding.requester(Part("administrator"))
        await requester.call_async(requester.open_session(), "/clusters", request, Cluster)

    async def _end(self) -> None:
        """Kill whatever is left."""
        for process in (*self._clients, *self._surrounding.distributors):
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

    def _complain(self, what: str) -> None:
        self._violations.append(what)
        self._note(f"VIOLATION {what}")

    def _observe(self, what: str, command: Command) -> None:
        self._commands.observe(what, command)
        self._note(f"{what} {command.name} (attempt {command.attempt})")

    def _has_successor(self, run_id: int, pid: int, host: str) -> bool:
        newer = "SELECT 1 FROM workflow_run WHERE id > ? AND host = ?"
        other = "SELECT 1 FROM distributor WHERE host = ? AND id > (SELECT MAX(id) FROM distributor WHERE pid = ?)"
        return bool(self._record.rows(newer, run_id, host) or self._record.rows(other, host, pid))

    def _epoch_of(self, distributor: str) -> int:
        return self._laws.epochs.get(int(distributor.rpartition(" ")[2]), 0)

    # -- the user ----------------------------------------------------------------------------------------------

    async def _use(self) -> None:
        """Run the workflow, and resume it whenever its client is gone, until it is over."""
        work = sum(max(each.seconds for each in plan.outcomes) * plan.max_attempts for plan in self._scenario.tasks)
        deadline = self._scenario.chaos_seconds + PATIENCE_SECONDS + 2 * work
        self._start_client(Approach(resume=False))
        while not self._violations:
            living = [client for client in self._clients if client.is_alive]
            if living:
                await self._watch(living)
            elif self._is_over():
                return
            else:
                await asyncio.sleep(self._dice.uniform(0.1, THINKING_SECONDS_MAX))
                self._start_client(self._approach())
            if self._loop.time() > deadline:
                self._complain(f"not over after {self._loop.time():.0f} s")
            if self._network.requests > REQUESTS_MAX:
                self._complain(f"{self._network.requests} requests")

    async def _watch(self, living: list[ClientProcess]) -> None:
        """Wait until one of them ends; look at how it ended."""
        waits = [asyncio.ensure_future(client.ended.wait()) for client in living]
        await asyncio.wait(waits, timeout=60.0, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for client in living:
            if client.ended.is_set():
                self._judge(client)

    def _judge(self, client: ClientProcess) -> None:
        result, error = client.result, client.error
        status = WorkflowRunStatus(result.final_status).name if result is not None else "no result"
        if client.part.is_dead:
            return
        self._note(f"{client.name} ended: {status} {error!r}")
        closed = isinstance(error, WorkflowRunStateError) and _CLOSED_BY_OTHERS in str(error)
        if error is not None and not isinstance(error, _EXPECTED) and not closed:
            self._complain(f"{client.name} failed: {error!r}")

    def _approach(self) -> Approach:
        dice = self._dice
        return Approach(
            resume=True,
            cold=dice.random() < 0.5,
            by_id=dice.random() < 0.4,
            force=dice.random() < FORCE_SHARE,
        )

    def _start_client(self, approach: Approach) -> None:
        workflow_id = next((one.workflow_id for one in self._clients if one.workflow_id is not None), None)
        here, there = HOSTS
        host = here if self._dice.random() < 0.7 else there
        client = ClientProcess(self._surrounding, host, approach, workflow_id)
        self._clients.append(client)
        self._note(f"{client.name} starts on {host}: {approach}")

    def _is_over(self) -> bool:
        """Whether the user is content: all done, or a run ended with failures and nothing else to do."""
        found = self._record.rows("SELECT status FROM workflow")
        if not found:
            return False
        if found[0][0] == WorkflowStatus.DONE:
            return True
        last = self._clients[-1]
        if last.part.is_dead:
            return False  # whatever it was about to say
        return last.result is not None and last.error is None and last.result.final_status == WorkflowRunStatus.ERROR

    async def _await_aftermath(self) -> None:
        """Wait until the distributors have seen to what was left."""
        deadline = self._loop.time() + AFTERMATH_SECONDS + self._scenario.chaos_seconds
        while True:
            living = [each.name for each in self._surrounding.distributors if each.is_alive]
            running = {identity: farm for farm in self._farms.values() for identity in farm.running}
            bereft = [farm.host for farm in self._farms.values() if farm.is_bereft]
            if not living and not running and not self._grid.is_busy and not (bereft and self._are_attempts_left()):
                return
            if self._loop.time() > deadline:
                jobs = ", jobs of the grid" if self._grid.is_busy else ""
                self._complain(f"left over: {living}, commands {sorted(running)}{jobs}, bereft: {bereft}")
                return
            orphans = sorted(identity for identity, farm in running.items() if not farm.is_bereft)
            if not living and orphans:
                self._complain(f"orphans: commands {orphans} run and nobody looks after them")
                return
            await asyncio.sleep(10.0)

    def _are_attempts_left(self) -> bool:
        """Whether the server waits for news of attempts: those of a host where nobody is left it gives up in time."""
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
        """Return a duration: mostly short, sometimes long."""
        return round(longest * self._dice.random() ** 3 + 0.1, 3)

    def _some_client(self) -> ClientProcess | None:
        living = [client for client in self._clients if client.is_alive]
        return self._dice.choice(living) if living else None

    def _some_distributor(self) -> DistributorProcess | None:
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
        if self._some_client() is None or len([one for one in self._clients if one.is_alive]) > 2:
            return ""
        self._start_client(self._approach())
        return self._clients[-1].name

    async def kill_distributor(self) -> str:
        distributor = self._some_distributor()
        if distributor is not None:
            distributor.kill()
        return distributor.name if distributor is not None else ""

    async def pause_distributor(self) -> str:
        distributor, seconds = self._some_distributor(), self._seconds(400.0)
        if distributor is not None:
            distributor.pause(seconds)
        return f"{distributor.name} for {seconds} s" if distributor is not None else ""

    async def cut_off_distributor(self) -> str:
        distributor, seconds = self._some_distributor(), self._seconds(600.0)
        if distributor is not None:
            distributor.cut_off(seconds)
        return f"{distributor.name} for {seconds} s" if distributor is not None else ""

    async def cut_off_client(self) -> str:
        client, seconds = self._some_client(), self._seconds(600.0)
        if client is not None:
            client.cut_off(seconds)
        return f"{client.name} for {seconds} s" if client is not None else ""

    async def kill_supervisor(self) -> str:
        farm = self._some_farm()
        farm.die()
        return f"dead {farm.host}"

    async def pause_supervisor(self) -> str:
        seconds = self._seconds(100.0)
        farm = self._some_farm()
        farm.pause(seconds)
        return f"{farm.host} for {seconds} s"

    def _some_farm(self) -> Farm:
        return self._dice.choice([farm for farm in self._farms.values() if farm.running] or [*self._farms.values()])

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
        return "by the kernel" if self._some_farm().kill_something() else ""

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
        workflow = self._record.rows("SELECT id FROM workflow")
        if not workflow or not self._server.is_up:
            return ""
        limit = self._dice.choice([1, 2, 5, 20])
        self._commands.workflow_limit = max(self._commands.workflow_limit, limit)
        route = f"/workflows/{workflow[0][0]}/concurrency"
        requester = self._surrounding.requester(Part("user"))
        request = ConcurrencyRequest(max_concurrently_running=limit)
        await requester.call_async(requester.open_session(), route, request, ConcurrencyResponse, "put")
        return f"now {limit}"


_FAULTS: Final[dict[str, Callable[[_World], Awaitable[str]]]] = {
    "client dies": _World.kill_client,
    "client pauses": _World.pause_client,
    "client is stopped": _World.stop_client,
    "another client takes over": _World.take_over,
    "distributor dies": _World.kill_distributor,
    "distributor pauses": _World.pause_distributor,
    "distributor is cut off": _World.cut_off_distributor,
    "client is cut off": _World.cut_off_client,
    "supervisor dies": _World.kill_supervisor,
    "supervisor pauses": _World.pause_supervisor,
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
}


@cache
def _empty_database() -> bytes:
    """Return a database with its schema and nothing else, made once per process."""
    with tempfile.TemporaryDirectory(prefix="jobmon-simulation-", dir=_fast_folder()) as folder:
        path = Path(folder, "empty.sqlite")
        engine = open_engine(f"sqlite:///{path}")
        migrations.upgrade(engine)
        engine.dispose()
        return path.read_bytes()
