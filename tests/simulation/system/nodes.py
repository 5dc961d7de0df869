"""Nodes of a grid, each with one real worker, whose commands only take time."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from tests.simulation.system.bridge import Bridge
from tests.simulation.system.clocks import PartClock
from tests.simulation.system.commands import Command, Fates, Observe, index_of
from tests.simulation.system.loop import SimulationLoop
from tests.simulation.system.network import ADDRESS, Network, Part

from jobmon.agent import outcome
from jobmon.agent.attempts import ENDED, Attempt
from jobmon.agent.commands import Commands
from jobmon.agent.http import decoded
from jobmon.agent.machine import iso_time
from jobmon.agent.memory import Memory
from jobmon.agent.requests import PolledConnection
from jobmon.agent.servers import ServerAway
from jobmon.core import wire
from jobmon.worker_node.host import JobHost
from jobmon.worker_node.process import job_of, options_of, start_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobmon.agent.starting import Launch

#: Number of lost messages beyond which the server may rightly declare a worker lost.
LOST_MESSAGES_MAX: Final = 1
DIES_OF_SIGNAL_SECONDS: Final = 0.05
STARTUP_SECONDS_MAX: Final = 2.0
#: Minimum time that passes during a wait, so that rounding of due times cannot stop the time.
MOMENT_SECONDS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Ground:
    """The environment that all nodes share."""

    loop: SimulationLoop
    dice: random.Random
    network: Network
    clock: PartClock
    fates: Fates
    observe: Observe
    violated: Callable[[str], None]
    data_folder: str
    pids: itertools.count[int]


class Node:
    """One worker on one node, from its start to its exit.

    Args:
        ground: the environment that all nodes share.
        words: command line of the worker, without the program.
        variables: variables that the cluster adds to the worker's environment.
        on_end: called with the worker's exit code (a signal is negative) unless the node was lost.
        on_out_of_time: called when the only command of a worker exceeds its runtime.
    """

    def __init__(
        self,
        ground: Ground,
        words: list[str],
        variables: Mapping[str, str],
        on_end: Callable[[int], None],
        on_out_of_time: Callable[[], None],
    ) -> None:
        self.ground = ground
        self.pid = next(ground.pids)
        self.part = Part(f"worker {self.pid}")
        #: The running commands, by attempt.
        self.children: dict[int, NodeChild] = {}
        self.has_been_away = False
        #: Whether its cluster gave a false answer about its job.
        self.is_lied_about = False
        self.pass_on: Callable[[int], None] | None = None
        #: Set when an event occurs that the worker waits for.
        self.bell = asyncio.Event()
        options = options_of(words)
        self.is_packed = "packed" in options
        #: For a packed job: how long it has had nothing to run although it can reach the server.
        self.idle_seconds = 0.0
        self._signals: list[int] = []
        self._paused_until = 0.0
        self._on_end = on_end
        self.on_out_of_time = on_out_of_time
        self.bridge = Bridge()
        self._work = ground.loop.spawn(self.part.name, self._live(options, dict(variables)))

    @property
    def is_alive(self) -> bool:
        """Whether the worker has neither exited nor been killed."""
        return not self._work.done() and not self.part.is_dead

    def may_be_given_up(self) -> bool:
        """Return whether the server may rightly declare it lost."""
        is_unheard = not self.is_packed and self.part.lost_count > LOST_MESSAGES_MAX  # a packed job resends everything
        return self.is_lied_about or self.has_been_away or self.part.is_dead or is_unheard

    def is_in_touch(self) -> bool:
        """Return whether it can reach the server now."""
        now = self.ground.loop.time()
        return self.is_alive and now >= self.part.cut_off_until and now >= self._paused_until

    # -- life cycle --------------------------------------------------------------------------------------------

    async def _live(self, options: dict[str, str], variables: dict[str, str]) -> None:
        ground = self.ground
        await asyncio.sleep(ground.dice.uniform(0.1, STARTUP_SECONDS_MAX))
        environment = {"JOBMON_DATA_DIR": ground.data_folder, **variables}
        request = start_request(options, environment, self.part.name, self.pid)
        request["started_at"] = iso_time(ground.clock.now().timestamp())
        try:
            job = job_of(options, request, environment, NodeJobHost(self, environment))
            code = await self.bridge.carry(job.work)
        except Exception as error:
            ground.violated(f"{self.part.name} failed: {error!r}")
            raise
        if not self.part.is_dead:
            self._on_end(code)

    async def wait(self, seconds: float) -> None:
        """Wait until the bell rings, at most `seconds`; then deliver pending signals to the worker."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.bell.wait()
        except TimeoutError:
            return
        self.bell.clear()

    def heed(self) -> None:
        """Deliver pending signals; called by the worker's code."""
        signals, self._signals = self._signals, []
        for number in signals:
            if self.pass_on is not None:
                self.pass_on(number)

    # -- faults ------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Send a signal to the worker."""
        if not self.is_alive:
            return
        if number == signal.SIGKILL or self.pass_on is None:
            self._die()
            self._on_end(-number)
        else:
            self._signals.append(number)
            self.bell.set()

    def lose(self) -> None:
        """Lose the node with everything that runs on it."""
        self._die()
        self.end_commands(signal.SIGKILL)

    def end_commands(self, number: int) -> None:
        """Kill the running commands, as the kernel would."""
        for child in list(self.children.values()):
            child.finish(signal_number=number)

    def pause(self, seconds: float) -> None:
        """Freeze the worker for a time."""
        self.has_been_away = True
        loop = self.ground.loop
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        loop.freeze(self.part.name)
        loop.call_later(seconds, loop.thaw, self.part.name)

    def cut_off(self, seconds: float) -> None:
        """Disconnect its network for a time."""
        self.has_been_away = True
        self.part.cut_off_until = max(self.part.cut_off_until, self.ground.loop.time() + seconds)

    def _die(self) -> None:
        self.part.is_dead = True
        self.ground.loop.thaw(self.part.name)
        self._work.cancel()


class NodeJobHost(JobHost):
    """A job's access to its node: virtual time, the simulated network, and commands that only take time."""

    def __init__(self, node: Node, environment: Mapping[str, str]) -> None:
        self._node = node
        self._environment = environment

    def say(self, text: str) -> None:
        """Print nothing, because the trace already shows failures."""

    def time(self) -> float:
        """See `JobHost`."""
        return self._node.ground.clock.now().timestamp()

    def monotonic(self) -> float:
        """See `JobHost`."""
        return self._node.ground.loop.time()

    def jitter(self) -> float:
        """See `JobHost`."""
        return self._node.ground.dice.uniform(0.5, 1.0)

    def random_bytes(self, count: int) -> bytes:
        """See `JobHost`."""
        return self._node.ground.dice.randbytes(count)

    def connection(self) -> PolledConnection:
        """See `JobHost`."""
        return NodeConnection(self._environment, self._node)

    def heed_signals(self, note: Callable[[int], None]) -> None:
        """See `JobHost`."""
        self._node.pass_on = note

    def commands(self, grace_seconds: float) -> Commands:
        """See `JobHost`."""
        return NodeCommands(self._node, grace_seconds)

    def wait(self, connections: Sequence[PolledConnection], seconds: float) -> None:
        """See `JobHost`."""
        self._node.bridge.wait_for(self._node.wait(max(MOMENT_SECONDS, seconds)))
        self._node.heed()


class NodeConnection(PolledConnection):
    """A connection whose requests travel through the simulated network."""

    def __init__(self, environment: Mapping[str, str], node: Node) -> None:
        super().__init__(environment)
        self._node = node
        self._carried: asyncio.Task[tuple[int, Any]] | None = None

    def send(self, route: str, message: Mapping[str, Any], timeout: float) -> None:
        """See `PolledConnection`."""
        ground, part = self._node.ground, self._node.part
        self.deadline = ground.loop.time() + timeout
        self.is_busy = True
        self._carried = ground.loop.spawn(part.name, _exchange(ground.network, part, route, message))
        self._carried.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # retrieved here; it is raised when the answer is fetched, if ever
        self._node.bell.set()

    def answer(self) -> tuple[int, Any] | None:
        """See `PolledConnection`."""
        if not self.is_busy or self._carried is None:
            return None
        if self._carried.done():
            self.is_busy = False
            try:
                return self._carried.result()
            except (aiohttp.ClientError, OSError) as error:
                raise ServerAway(str(error)) from None
        if self._node.ground.loop.time() >= self.deadline:
            self.close()
            raise ServerAway("no answer in time")
        return None

    def close(self) -> None:
        """See `PolledConnection`."""
        if self._carried is not None:
            self._carried.cancel()
        self._carried, self.is_busy = None, False


class NodeCommands(Commands):
    """Commands that only take time. There are no kernel kills and no leftovers here."""

    def __init__(self, node: Node, grace_seconds: float) -> None:
        self._node = node
        self._environment: Mapping[str, str] = {}
        self.grace_seconds = grace_seconds
        self.memory = Memory()
        self.live: dict[int, Attempt] = {}
        self._children: dict[int, NodeChild] = {}
        self._fresh: list[Attempt] = []

    def set_environment(self, values: Mapping[str, str]) -> None:
        """See `Commands`."""
        self._environment = values

    def start(self, launch: Launch) -> Attempt:
        """See `Commands`."""
        ground = self._node.ground
        attempt = self.live[launch.identity] = Attempt(launch)
        child = self.child_of(launch)
        self._children[launch.identity] = child
        attempt.start(child.pid, ground.loop.time(), child.started_at, ground.loop.time())
        attempt.validate()
        self._fresh.append(attempt)
        return attempt

    def take_started(self) -> list[Attempt]:
        """See `Commands`."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def child_of(self, launch: Launch) -> NodeChild:
        """Return the simulated process of a command."""
        return NodeChild(self._node, launch.words[-1], {**self._environment, **launch.environment})

    def stop(self, identities: Iterable[int], cause: str, grace_seconds: float) -> None:
        """See `Commands`."""
        for attempt in [self.live[one] for one in identities if one in self.live]:
            attempt.stop(cause, grace_seconds, self._node.ground.loop.time())
            attempt.validate()
        self.look()

    def pass_on(self, number: int) -> None:
        """See `Commands`."""
        for child in list(self._children.values()):
            child.signal(number)

    def look(self) -> None:
        """See `Commands`."""
        now = self._node.ground.loop.time()
        for attempt in list(self.live.values()):
            if attempt.stop_at is not None and now >= attempt.stop_at:
                attempt.stop(outcome.OUT_OF_TIME, self.grace_seconds, now)
            if (number := attempt.next_signal(now)) is not None:
                self._children[attempt.identity].signal(number)
            if attempt.state != ENDED:
                self._take_exit(attempt)

    def _take_exit(self, attempt: Attempt) -> None:
        child = self._children[attempt.identity]
        if child.status is None:
            return
        attempt.exit(child.status, resource.struct_rusage([0] * 16), child.seconds)
        attempt.validate()
        attempt.clear()
        attempt.validate()

    def next_look(self) -> float | None:
        """See `Commands`."""
        return min((one.due for one in self.live.values() if one.due is not None), default=None)

    def take_ended(self) -> list[Attempt]:
        """See `Commands`."""
        ended = [one for one in self.live.values() if one.state == ENDED]
        for attempt in ended:
            del self.live[attempt.identity], self._children[attempt.identity]
        return ended

    def leave(self) -> None:
        """See `Commands`."""


class NodeChild:
    """A command that only takes time."""

    def __init__(self, node: Node, command: str, environment: Mapping[str, str]) -> None:
        ground = self._ground = node.ground
        self._node = node
        #: The exit status as returned by `wait`, once it has exited.
        self.status: int | None = None
        self.seconds = 0.0
        self._was_signalled = False
        self.pid = next(ground.pids)
        self.started_at = ground.clock.now().timestamp()
        self._began_at = ground.loop.time()
        index = index_of(command)
        self.command = Command(
            attempt=int(environment["JOBMON_TASK_INSTANCE_ID"]),
            task_id=int(environment["JOBMON_TASK_ID"]),
            name=environment["JOBMON_TASK_NAME"],
            text=command,
            index=index,
            outcome=ground.fates.next_of(index),
            started_at=self.started_at,
            may_be_given_up=node.may_be_given_up,
            is_in_touch=node.is_in_touch,
        )
        node.children[self.command.attempt] = self
        ground.observe("start", self.command)
        self.command.end = ground.loop.call_later(self.command.outcome.seconds, self._end_by_itself)

    def signal(self, number: int) -> None:
        """Receive a signal; a command that ignores SIGINT also ignores SIGTERM."""
        self._was_signalled = True
        if number == signal.SIGKILL:
            self.finish(signal_number=number)
        elif not self.command.outcome.ignores_interrupt:
            self._ground.loop.call_later(DIES_OF_SIGNAL_SECONDS, self.finish, None, number)

    def _end_by_itself(self) -> None:
        fate = self.command.outcome
        if not fate.timed_out:
            self.finish(fate.exit_code, fate.signal)
        elif not self._node.is_packed:  # a packed job enforces the runtime of its tasks itself
            self._node.on_out_of_time()

    def finish(self, exit_code: int | None = None, signal_number: int | None = None) -> None:
        """Make the command exit."""
        if self.status is not None:
            return
        self.status = (exit_code << 8) if exit_code is not None else int(signal_number or 0)
        self.seconds = self._ground.loop.time() - self._began_at
        self._node.children.pop(self.command.attempt, None)
        if self.command.end is not None:
            self.command.end.cancel()
        is_well = exit_code == 0 and self._node.is_alive and not self._was_signalled
        self._ground.observe("finish" if is_well else "end", self.command)
        self._node.bell.set()


async def _exchange(network: Network, part: Part, route: str, message: Mapping[str, Any]) -> tuple[int, Any]:
    url = f"{ADDRESS}{wire.API_ROOT}{route}"
    status, content = await network.exchange(part, "POST", url, json.dumps(message).encode())
    return status, decoded(content)
