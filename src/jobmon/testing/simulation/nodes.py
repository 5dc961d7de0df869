"""Nodes of a grid: on each one stand-alone worker, which is the real one, and its command, which only takes time."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from jobmon.core import wire
from jobmon.testing.simulation.clocks import PartClock
from jobmon.testing.simulation.commands import Command, Fates, Observe, index_of
from jobmon.testing.simulation.ferry import Ferry
from jobmon.testing.simulation.loop import SimulationLoop
from jobmon.testing.simulation.network import ADDRESS, Network, Part
from jobmon.worker_node.child import Child, Ending
from jobmon.worker_node.gateway import Gateway, ServerAway
from jobmon.worker_node.process import Machine, Worker, options_of, start_request
from jobmon.worker_node.run import iso_time

if TYPE_CHECKING:
    from collections.abc import Mapping

#: So much of its traffic may be lost before a worker counts as one of which the server hears too little.
LOST_MESSAGES_MAX: Final = 1
DIES_OF_SIGNAL_SECONDS: Final = 0.05
STARTUP_SECONDS_MAX: Final = 2.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What all nodes stand on."""

    loop: SimulationLoop
    dice: random.Random
    network: Network
    clock: PartClock
    fates: Fates
    observe: Observe
    complain: Callable[[str], None]
    data_folder: str
    pids: itertools.count[int]


class Node:
    """One worker on one node, from its start to its end.

    Args:
        ground: what it stands on.
        words: command line of the worker, without the program.
        variables: what the cluster adds to the worker's environment.
        launched_by: the distributor that submitted its job.
        on_end: told how the worker ended (an exit code; a signal is negative) unless the node was lost.
        on_out_of_time: told when the command uses up its time.
    """

    def __init__(
        self,
        ground: Ground,
        words: list[str],
        variables: Mapping[str, str],
        launched_by: str,
        on_end: Callable[[int], None],
        on_out_of_time: Callable[[], None],
    ) -> None:
        self.ground = ground
        self.pid = next(ground.pids)
        self.part = Part(f"worker {self.pid}")
        self.launched_by = launched_by
        self.command: Command | None = None
        self.child: NodeChild | None = None
        self.has_been_away = False
        #: Whether its cluster told something of its job that is not so.
        self.is_lied_about = False
        self.pass_on: Callable[[int], None] | None = None
        self._paused_until = 0.0
        self._on_end = on_end
        self.on_out_of_time = on_out_of_time
        self._ferry = Ferry()
        self._work = ground.loop.spawn(self.part.name, self._live(words, dict(variables)))

    @property
    def is_alive(self) -> bool:
        """Whether the worker has neither ended nor been killed."""
        return not self._work.done() and not self.part.is_dead

    def may_be_given_up(self) -> bool:
        """Whether the server may rightly think that it is gone."""
        return self.is_lied_about or self.has_been_away or self.part.is_dead or self.part.lost_count > LOST_MESSAGES_MAX

    def is_in_touch(self) -> bool:
        """Whether it can hear the server now."""
        now = self.ground.loop.time()
        return self.is_alive and now >= self.part.cut_off_until and now >= self._paused_until

    # -- its life ----------------------------------------------------------------------------------------------

    async def _live(self, words: list[str], variables: dict[str, str]) -> None:
        ground = self.ground
        await asyncio.sleep(ground.dice.uniform(0.1, STARTUP_SECONDS_MAX))
        environment = {"JOBMON_DATA_DIR": ground.data_folder, **variables}
        request = start_request(options_of(words), environment, self.part.name, self.pid)
        request["started_at"] = iso_time(ground.clock.now().timestamp())
        gateway = NodeGateway(environment, ground.network, self.part, self._ferry)
        worker = Worker(request, environment, self.part.name, gateway, NodeMachine(self, self._ferry))
        try:
            code = await self._ferry.carry(worker.work)
        except Exception as error:
            ground.complain(f"{self.part.name} failed: {error!r}")
            raise
        if not self.part.is_dead:
            self._on_end(code)

    # -- what may befall it ------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Send a signal to the worker."""
        if not self.is_alive:
            return
        if number == signal.SIGKILL or self.pass_on is None:
            self._die()
            self._on_end(-number)
        elif self.child is not None:
            self.child.wake_with(number)

    def lose(self) -> None:
        """Lose the node with all that runs on it."""
        self._die()
        self.end_command(signal.SIGKILL)

    def end_command(self, number: int) -> None:
        """Let the kernel end the command."""
        if self.child is not None:
            self.child.finish(signal_number=number)

    def pause(self, seconds: float) -> None:
        """Freeze the worker for a while."""
        self.has_been_away = True
        loop = self.ground.loop
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        loop.freeze(self.part.name)
        loop.call_later(seconds, loop.thaw, self.part.name)

    def cut_off(self, seconds: float) -> None:
        """Take its network away for a while."""
        self.has_been_away = True
        self.part.cut_off_until = max(self.part.cut_off_until, self.ground.loop.time() + seconds)

    def _die(self) -> None:
        self.part.is_dead = True
        self.ground.loop.thaw(self.part.name)
        self._work.cancel()


class NodeMachine(Machine):
    """Virtual time, and commands that only take time."""

    def __init__(self, node: Node, ferry: Ferry) -> None:
        self._node = node
        self._ferry = ferry

    def time(self) -> float:
        """See `Machine`."""
        return self._node.ground.clock.now().timestamp()

    def monotonic(self) -> float:
        """See `Machine`."""
        return self._node.ground.loop.time()

    def pause(self, seconds: float) -> None:
        """See `Machine`."""
        self._ferry.wait_for(asyncio.sleep(seconds * self._node.ground.dice.uniform(0.5, 1.0)))

    def start(
        self,
        words: list[str],
        environment: Mapping[str, str],
        outputs: tuple[str, str],
        directory: str,
        umask: int,
    ) -> Child:
        """See `Machine`."""
        return NodeChild(self._node, self._ferry, words[-1], environment)

    def heed_signals(self, pass_on: Callable[[int], None]) -> None:
        """See `Machine`."""
        self._node.pass_on = pass_on

    def counter_of_oom_kills(self) -> Callable[[], int]:
        """No kernel kills anything here."""
        return int

    def complain(self, why: str) -> int:
        """Whoever looks into the trace knows: say nothing."""
        return 1


class NodeChild(Child):
    """A command that only takes time."""

    def __init__(self, node: Node, ferry: Ferry, command: str, environment: Mapping[str, str]) -> None:
        ground = self._ground = node.ground
        self._node = node
        self._ferry = ferry
        self._woken = asyncio.Event()
        self._signals: list[int] = []
        self._ending: Ending | None = None
        self._was_signalled = False
        self.pid = next(ground.pids)
        self.started_at = ground.clock.now().timestamp()
        index = index_of(command)
        self._command = Command(
            attempt=int(environment["JOBMON_TASK_INSTANCE_ID"]),
            task_id=int(environment["JOBMON_TASK_ID"]),
            name=environment["JOBMON_TASK_NAME"],
            index=index,
            outcome=ground.fates.next_of(index),
            started_at=self.started_at,
            launched_by=node.launched_by,
            may_be_given_up=node.may_be_given_up,
            is_in_touch=node.is_in_touch,
        )
        node.command, node.child = self._command, self
        ground.observe("start", self._command)
        self._command.end = ground.loop.call_later(self._command.outcome.seconds, self._end_by_itself)

    def wait(self, seconds: float) -> Ending | None:
        """See `Child`."""
        if self._ending is None:
            self._ferry.wait_for(self._wait(seconds))
            signals, self._signals = self._signals, []
            for number in signals:
                if self._node.pass_on is not None:
                    self._node.pass_on(number)
        return self._ending

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def wake_with(self, number: int) -> None:
        """Let a signal to the worker end the waiting."""
        self._signals.append(number)
        self._woken.set()

    def signal(self, number: int) -> None:
        """See `Child`."""
        self._was_signalled = True
        if number == signal.SIGKILL:
            self.finish(signal_number=number)
        elif not self._command.outcome.ignores_interrupt:
            self._ground.loop.call_later(DIES_OF_SIGNAL_SECONDS, self.finish, None, number)

    def _end_by_itself(self) -> None:
        outcome = self._command.outcome
        if outcome.timed_out:
            self._node.on_out_of_time()
        else:
            self.finish(outcome.exit_code, outcome.signal)

    def finish(self, exit_code: int | None = None, signal_number: int | None = None) -> None:
        """Let it be over."""
        if self._ending is not None:
            return
        ending = Ending(self.pid, self.started_at)
        ending.exit_code, ending.signal = exit_code, signal_number
        ending.ended_at = self._ground.clock.now().timestamp()
        self._ending = ending
        if self._command.end is not None:
            self._command.end.cancel()
        is_well = exit_code == 0 and self._node.is_alive and not self._was_signalled
        self._ground.observe("finish" if is_well else "end", self._command)
        self._woken.set()


class NodeGateway(Gateway):
    """The worker's door, through the simulated network."""

    def __init__(self, environment: Mapping[str, str], network: Network, part: Part, ferry: Ferry) -> None:
        super().__init__(environment)
        self._network = network
        self._part = part
        self._ferry = ferry

    def post(self, route: str, message: Mapping[str, Any], timeout: float) -> tuple[int, dict[str, Any]]:
        """See `Gateway`."""
        return self._ferry.wait_for(self._exchange(route, message, timeout))

    async def _exchange(self, route: str, message: Mapping[str, Any], timeout: float) -> tuple[int, dict[str, Any]]:
        url = f"{ADDRESS}{wire.API_ROOT}{route}"
        try:
            async with asyncio.timeout(timeout):
                status, content = await self._network.exchange(self._part, "POST", url, json.dumps(message).encode())
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
            raise ServerAway(str(error)) from None
        return status, json.loads(content) if content else {}
