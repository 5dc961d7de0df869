"""Nodes of a grid: on each one worker, which is the real one, and its commands, which only take time."""

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
from jobmon.worker_node.lane import Lane
from jobmon.worker_node.pilot import Pilot
from jobmon.worker_node.process import Machine, Worker, options_of, start_request
from jobmon.worker_node.run import iso_time
from jobmon.worker_node.site import Site

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: So much of its traffic may be lost before a worker counts as one of which the server hears too little.
LOST_MESSAGES_MAX: Final = 1
DIES_OF_SIGNAL_SECONDS: Final = 0.05
STARTUP_SECONDS_MAX: Final = 2.0
#: Time passes while somebody waits, however little: what is due now by a sum may be due next by a difference.
MOMENT_SECONDS: Final = 1e-6


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
        on_out_of_time: told when the only command of a worker uses up its time.
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
        #: What runs here, by attempt.
        self.children: dict[int, NodeChild] = {}
        self.has_been_away = False
        #: Whether its cluster told something of its job that is not so.
        self.is_lied_about = False
        self.pass_on: Callable[[int], None] | None = None
        #: Rings when something happened that the worker waits for.
        self.bell = asyncio.Event()
        options = options_of(words)
        self.is_packed = "packed" in options
        #: A packed job: since when it has nothing to run though it hears the server.
        self.idle_seconds = 0.0
        self._signals: list[int] = []
        self._paused_until = 0.0
        self._on_end = on_end
        self.on_out_of_time = on_out_of_time
        self.ferry = Ferry()
        self._work = ground.loop.spawn(self.part.name, self._live(options, dict(variables)))

    @property
    def is_alive(self) -> bool:
        """Whether the worker has neither ended nor been killed."""
        return not self._work.done() and not self.part.is_dead

    def may_be_given_up(self) -> bool:
        """Whether the server may rightly think that it is gone."""
        is_unheard = not self.is_packed and self.part.lost_count > LOST_MESSAGES_MAX  # a packed job tells all again
        return self.is_lied_about or self.has_been_away or self.part.is_dead or is_unheard

    def is_in_touch(self) -> bool:
        """Whether it can hear the server now."""
        now = self.ground.loop.time()
        return self.is_alive and now >= self.part.cut_off_until and now >= self._paused_until

    # -- its life ----------------------------------------------------------------------------------------------

    async def _live(self, options: dict[str, str], variables: dict[str, str]) -> None:
        ground = self.ground
        await asyncio.sleep(ground.dice.uniform(0.1, STARTUP_SECONDS_MAX))
        environment = {"JOBMON_DATA_DIR": ground.data_folder, **variables}
        request = start_request(options, environment, self.part.name, self.pid)
        request["started_at"] = iso_time(ground.clock.now().timestamp())
        try:
            code = await self.ferry.carry(self._worker(request, environment))
        except Exception as error:
            ground.complain(f"{self.part.name} failed: {error!r}")
            raise
        if not self.part.is_dead:
            self._on_end(code)

    def _worker(self, request: dict[str, Any], environment: dict[str, str]) -> Callable[[], int]:
        if self.is_packed:
            return lambda: Pilot(request, environment, self.part.name, NodeSite(self, environment)).work()
        gateway = NodeGateway(environment, self.ground.network, self.part, self.ferry)
        return Worker(request, environment, self.part.name, gateway, NodeMachine(self)).work

    async def wait(self, seconds: float) -> None:
        """Wait until the bell rings, at most so long; what signals came is handed to the worker then."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.bell.wait()
        except TimeoutError:
            return
        self.bell.clear()

    def heed(self) -> None:
        """Hand over signals; called by the worker's code."""
        signals, self._signals = self._signals, []
        for number in signals:
            if self.pass_on is not None:
                self.pass_on(number)

    # -- what may befall it ------------------------------------------------------------------------------------

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
        """Lose the node with all that runs on it."""
        self._die()
        self.end_commands(signal.SIGKILL)

    def end_commands(self, number: int) -> None:
        """Let the kernel end what runs here."""
        for child in list(self.children.values()):
            child.finish(signal_number=number)

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


class OnNode:
    """What any worker finds on a node: virtual time, and commands that only take time."""

    _node: Node

    def time(self) -> float:
        """See `Machine` and `Site`."""
        return self._node.ground.clock.now().timestamp()

    def monotonic(self) -> float:
        """See `Machine` and `Site`."""
        return self._node.ground.loop.time()

    def start(self, words: list[str], environment: Mapping[str, str], *_: object) -> Child:
        """See `Machine` and `Site`."""
        return NodeChild(self._node, words[-1], environment)


class NodeMachine(OnNode, Machine):
    """The machine of a worker with one command."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def pause(self, seconds: float) -> None:
        """See `Machine`."""
        self._node.ferry.wait_for(asyncio.sleep(seconds * self._node.ground.dice.uniform(0.5, 1.0)))

    def heed_signals(self, pass_on: Callable[[int], None]) -> None:
        """See `Machine`."""
        self._node.pass_on = pass_on

    def counter_of_oom_kills(self) -> Callable[[], int]:
        """No kernel kills anything here."""
        return int

    def complain(self, why: str) -> int:
        """Whoever looks into the trace knows: say nothing."""
        return 1


class NodeSite(OnNode, Site):
    """The site of a packed job, with connections through the simulated network."""

    def __init__(self, node: Node, environment: Mapping[str, str]) -> None:
        self._node = node
        self._environment = environment

    def random_bytes(self, count: int) -> bytes:
        """See `Site`."""
        return self._node.ground.dice.randbytes(count)

    def lane(self) -> Lane:
        """See `Site`."""
        return NodeLane(self._environment, self._node)

    def heed_signals(self, note: Callable[[int, object], None]) -> None:
        """See `Site`."""
        self._node.pass_on = lambda number: note(number, None)

    def oom_kills(self) -> int:
        """No kernel kills anything here."""
        return 0

    def wait(self, lanes: Sequence[Lane], seconds: float) -> None:
        """See `Site`."""
        self._node.ferry.wait_for(self._node.wait(max(MOMENT_SECONDS, seconds)))
        self._node.heed()


class NodeLane(Lane):
    """A connection that is none: requests travel through the simulated network."""

    def __init__(self, environment: Mapping[str, str], node: Node) -> None:
        super().__init__(environment)
        self._node = node
        self._carried: asyncio.Task[tuple[int, dict[str, Any]]] | None = None

    def send(self, route: str, message: Mapping[str, Any], timeout: float) -> None:
        """See `Lane`."""
        ground, part = self._node.ground, self._node.part
        self.deadline = ground.loop.time() + timeout
        self.is_busy = True
        self._carried = ground.loop.spawn(part.name, _exchange(ground.network, part, route, message))
        self._carried.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # it is heard when the answer is fetched, or by nobody
        self._node.bell.set()

    def answer(self) -> tuple[int, dict[str, Any]] | None:
        """See `Lane`."""
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
        """See `Lane`."""
        if self._carried is not None:
            self._carried.cancel()
        self._carried, self.is_busy = None, False


class NodeChild(Child):
    """A command that only takes time."""

    def __init__(self, node: Node, command: str, environment: Mapping[str, str]) -> None:
        ground = self._ground = node.ground
        self._node = node
        self._ending: Ending | None = None
        self._was_signalled = False
        self.pid = next(ground.pids)
        self.started_at = ground.clock.now().timestamp()
        self._began_at = ground.loop.time()
        index = index_of(command)
        self.command = Command(
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
        node.children[self.command.attempt] = self
        ground.observe("start", self.command)
        self.command.end = ground.loop.call_later(self.command.outcome.seconds, self._end_by_itself)

    def wait(self, seconds: float) -> Ending | None:
        """See `Child`."""
        if self._ending is None:
            self._node.ferry.wait_for(self._node.wait(seconds))
            self._node.heed()
        return self._ending

    def reaped(self) -> Ending | None:
        """See `Child`."""
        return self._ending

    def signal(self, number: int) -> None:
        """See `Child`."""
        self._was_signalled = True
        if number == signal.SIGKILL:
            self.finish(signal_number=number)
        elif not self.command.outcome.ignores_interrupt:
            self._ground.loop.call_later(DIES_OF_SIGNAL_SECONDS, self.finish, None, number)

    def _end_by_itself(self) -> None:
        outcome = self.command.outcome
        if not outcome.timed_out:
            self.finish(outcome.exit_code, outcome.signal)
        elif not self._node.is_packed:  # a packed job keeps its tasks to their time itself
            self._node.on_out_of_time()

    def finish(self, exit_code: int | None = None, signal_number: int | None = None) -> None:
        """Let it be over."""
        if self._ending is not None:
            return
        ending = Ending(self.pid, self.started_at)
        ending.exit_code, ending.signal = exit_code, signal_number
        ending.ended_at = self.started_at + self._ground.loop.time() - self._began_at
        self._ending = ending
        self._node.children.pop(self.command.attempt, None)
        if self.command.end is not None:
            self.command.end.cancel()
        is_well = exit_code == 0 and self._node.is_alive and not self._was_signalled
        self._ground.observe("finish" if is_well else "end", self.command)
        self._node.bell.set()


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
        try:
            async with asyncio.timeout(timeout):
                return await _exchange(self._network, self._part, route, message)
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
            raise ServerAway(str(error)) from None


async def _exchange(network: Network, part: Part, route: str, message: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    url = f"{ADDRESS}{wire.API_ROOT}{route}"
    status, content = await network.exchange(part, "POST", url, json.dumps(message).encode())
    return status, json.loads(content) if content else {}
