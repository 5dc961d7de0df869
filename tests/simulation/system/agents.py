"""Host agents: the real loop, on a host whose commands only take time.

The host outlives its agents. It keeps their journals, and the commands of dead agents, which keep running until a
successor terminates them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.system.bridge import Bridge
from tests.simulation.system.nodes import MOMENT_SECONDS, NodeChild, NodeCommands, NodeConnection
from tests.simulation.system.process import Process
from tests.simulation.system.scenario import FARM

from jobmon.agent import outcome, recovery
from jobmon.agent.fastjson import dumps
from jobmon.agent.host import HostAgent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.simulation.system.nodes import Ground
    from tests.simulation.system.processes import Surrounding

    from jobmon.agent.recovery import Leftovers
    from jobmon.agent.requests import PolledConnection
    from jobmon.agent.starting import Launch

STARTUP_SECONDS_MAX: Final = 0.5
INTERRUPT_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 600.0
MEMORY_GIB: Final = 1e6
BOOT: Final = "boot"


@dataclass(slots=True)
class AgentHost:
    """What agents leave on a host. `journals`: path -> lines; `children`: PID of an agent -> its running commands."""

    journals: dict[str, list[str]] = field(default_factory=dict)
    children: dict[int, dict[int, NodeChild]] = field(default_factory=dict)

    def end_commands_of(self, pid: int) -> None:
        """Kill the commands that an agent left."""
        for child in list(self.children.pop(pid, {}).values()):
            child.finish(signal_number=9)


class AgentProcess(Process):
    """One agent process; acts as a `Node` for its commands and connections.

    Args:
        around: what all processes share.
        run_id: ID of the run.
        host: the host on which it runs.
        dead: dead agents on whose behalf it only reports, as `HostAgent.settle` does; None: it serves the run.
        workflow_id: ID of the workflow, if `dead` is given.
    """

    is_packed = False
    is_watcher = False

    def __init__(
        self,
        around: Surrounding,
        run_id: int,
        host: str,
        dead: Sequence[Any] | None = None,
        workflow_id: int = 0,
    ) -> None:
        super().__init__(around, "agent", host)
        self.run_id = run_id
        self.is_up = asyncio.Event()
        self.ended = asyncio.Event()
        self.ground: Ground = around.ground
        self.here: AgentHost = around.agent_hosts[host]
        self.children: dict[int, NodeChild] = {}
        self.here.children[self.pid] = self.children
        self.has_been_away = self.is_drained = False
        self.bell = asyncio.Event()
        self.bridge = Bridge()
        self.commands: AgentCommands | None = None
        around.distributors.append(self)
        self._task = around.loop.spawn(self.name, self._live(dead, workflow_id))

    async def _live(self, dead: Sequence[Any] | None, workflow_id: int) -> None:
        around = self.around
        try:
            await asyncio.sleep(around.dice.uniform(0.02, STARTUP_SECONDS_MAX))
            setup = self._setup()
            if dead is not None:
                setup |= {"workflow_id": workflow_id, "dead_agents": dead}
            agent = HostAgent(setup, AgentSite(self))  # type: ignore[arg-type]  # has everything that an agent needs
            await self.bridge.carry(agent.run if dead is None else agent.settle)
            if self.children and not self.part.is_dead:
                around.violated(f"{self.name} left though its commands {sorted(self.children)} run")
        except asyncio.CancelledError:
            if not self.part.is_dead:
                raise
        except Exception as error:
            if not self.part.is_dead:
                around.violated(f"{self.name} of run {self.run_id} failed: {error!r}")
        finally:
            around.alive.discard(self.pid)
            self.ended.set()

    def _setup(self) -> dict[str, Any]:
        around = self.around
        return {
            "workflow_run_id": self.run_id,
            "cluster": FARM,
            "host": self.host,
            "boot_id": BOOT,
            "pid": self.pid,
            "pid_start_time": 0.0,
            "key": around.dice.randbytes(8).hex(),
            "pool": self.host,
            "cores": float(around.scenario.slots),
            "memory_gib": MEMORY_GIB,
            "is_whole": False,
            "shell": "/bin/sh",
            "data_folder": around.folder,
            "patience_seconds": PATIENCE_SECONDS,
            "interrupt_seconds": INTERRUPT_SECONDS,
            "server_command": [],
        }

    # -- queries by its commands -------------------------------------------------------------------------------

    def may_be_given_up(self) -> bool:
        """Return whether the server may rightly declare it lost."""
        return self.has_been_away or self.part.is_dead

    def is_in_touch(self) -> bool:
        """Return whether it can reach the server now."""
        loop = self.around.loop
        return self.is_alive and not loop.is_frozen(self.name) and loop.time() >= self.part.cut_off_until

    async def wait(self, seconds: float) -> None:
        """Wait until the bell rings, at most `seconds`."""
        try:
            async with asyncio.timeout(max(MOMENT_SECONDS, seconds)):
                await self.bell.wait()
        except TimeoutError:
            return
        self.bell.clear()

    # -- faults ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Close its lifeline."""
        self.is_drained = True
        self.bell.set()

    def kill(self) -> None:
        """Kill it with SIGKILL; its commands keep running."""
        if self.is_alive:
            self._die()
            self._task.cancel()

    def kill_something(self) -> bool:
        """Kill a running command, as the kernel does if memory is short."""
        if not self.children:
            return False
        child = self.children[self.around.dice.choice(sorted(self.children))]
        self.ground.fates.unlucky.add(child.command.index)
        child.finish(signal_number=9)
        return True

    def pause(self, seconds: float) -> None:
        """Freeze it for a time."""
        self.has_been_away = True
        super().pause(seconds)

    def cut_off(self, seconds: float) -> None:
        """Disconnect its network for a time."""
        self.has_been_away = True
        super().cut_off(seconds)


class AgentSite:
    """An agent's access to its host; see `jobmon.agent.host_access.AgentHost`."""

    def __init__(self, process: AgentProcess) -> None:
        self._process = process
        self._around = process.around

    def monotonic(self) -> float:
        """See `AgentHost`."""
        return self._around.loop.time()

    def jitter(self) -> float:
        """See `AgentHost`."""
        return self._around.dice.uniform(0.5, 1.0)

    def say(self, text: str) -> None:
        """Record a message in the trace."""
        self._around.note(f"{self._process.name}: {text}")

    def say_alive(self) -> None:
        """See `AgentHost`."""
        self._process.is_up.set()

    def is_client_gone(self) -> bool:
        """See `AgentHost`."""
        return self._process.is_drained

    def connection(self) -> PolledConnection:
        """See `AgentHost`."""
        return NodeConnection({}, self._process)  # type: ignore[arg-type]  # acts as its node

    def use_credential(self, token: str) -> None:
        """Do nothing, because the simulated server requires no credential."""

    def start_server(self, command: Sequence[str]) -> None:
        """Do nothing, because the simulation restarts the server itself."""

    def commands(self, journal: object, grace_seconds: float) -> AgentCommands:
        """See `AgentHost`."""
        self._process.commands = AgentCommands(self._process, grace_seconds)
        return self._process.commands

    def journal(self) -> SimulatedJournal:
        """See `AgentHost`."""
        return SimulatedJournal(self._process.here.journals, f"{self._process.pid}.journal", self._process.pid)

    def end_left(self) -> list[tuple[str, Leftovers]]:
        """See `AgentHost`."""
        found = []
        for path, lines in sorted(self._process.here.journals.items()):
            leftovers = recovery.parsed(lines)
            if leftovers.pid not in self._around.alive:
                self._process.here.end_commands_of(leftovers.pid)
                found.append((path, leftovers))
        return found

    def remove_journal(self, path: str) -> None:
        """See `AgentHost`."""
        self._process.here.journals.pop(path, None)

    def end_process(self, agent: Mapping[str, Any]) -> bool:
        """See `AgentHost`."""
        if agent["pid"] in self._around.alive:
            return False
        self._process.here.end_commands_of(int(agent["pid"]))
        return True

    def wait(self, connections: Sequence[PolledConnection], seconds: float) -> None:
        """See `AgentHost`."""
        self._process.bridge.wait_for(self._process.wait(seconds))


class SimulatedJournal:
    """A journal in the memory of a host."""

    failure = ""
    retry_at = None

    def __init__(self, store: dict[str, list[str]], path: str, pid: int) -> None:
        self._store = store
        self._path = path
        self._head = [dumps(["b", pid, BOOT, "", 0])]
        store[path] = list(self._head)

    @property
    def size(self) -> int:
        """See `Journal`."""
        return sum(map(len, self._store[self._path]))

    def write(self, lines: Iterable[str]) -> None:
        """See `Journal`."""
        self._store[self._path] += lines

    def note_agent(self, agent_id: int) -> None:
        """See `Journal`."""
        self._head.append(dumps(["a", agent_id]))
        self.write(self._head[-1:])

    def note_suspects(self, task_ids: Iterable[int]) -> None:
        """See `Journal`."""
        self._head.append(dumps(["x", *task_ids]))
        self.write(self._head[-1:])

    def rewrite(self, lines: Iterable[str]) -> None:
        """See `Journal`."""
        self._store[self._path] = [*self._head, *lines]

    def retry(self, now: float) -> None:
        """See `Journal`."""

    def remove(self) -> None:
        """See `Journal`."""
        self._store.pop(self._path, None)


class AgentCommands(NodeCommands):
    """The commands of an agent."""

    def __init__(self, process: AgentProcess, grace_seconds: float) -> None:
        super().__init__(process, grace_seconds)  # type: ignore[arg-type]  # acts as its node

    def child_of(self, launch: Launch) -> NodeChild:
        """See `NodeCommands`."""
        return AgentChild(self._node, launch.words[-1], dict(launch.environment))

    def run_out_of_time(self, identity: int) -> None:
        """Stop a command that has exceeded its runtime."""
        self.stop([identity], outcome.OUT_OF_TIME, self.grace_seconds)


class AgentChild(NodeChild):
    """A command of an agent."""

    _node: Any

    def _end_by_itself(self) -> None:
        """Exit, or be stopped by the agent; commands of a dead agent are not stopped."""
        process: AgentProcess = self._node
        if not self.command.outcome.timed_out:
            super()._end_by_itself()
        elif process.is_alive and process.commands is not None:
            process.commands.run_out_of_time(self.command.attempt)
            process.bell.set()
