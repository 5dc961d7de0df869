"""A cluster that runs commands itself, like the local clusters: a supervisor that outlives its distributors, and
commands that only take time. It may die (its commands run until a successor kills them), pause, and lose messages.

It also records what really ran, when, and how often, independently of the parts under test.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.system.commands import Command, index_of

from jobmon.core.cluster_protocol import DirectClusterDistributor, Exit, Launch
from jobmon.core.exceptions import RemoteExitInfoNotAvailable, SubmissionRejected

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from tests.simulation.system.clocks import PartClock
    from tests.simulation.system.commands import Fates, Observe
    from tests.simulation.system.loop import SimulationLoop
    from tests.simulation.system.network import Part

    from jobmon.core.constants import TaskInstanceStatus

MESSAGE_SECONDS_MAX: Final = 0.005
INTERRUPT_SECONDS: Final = 10.0
DIES_OF_INTERRUPT_SECONDS: Final = 0.05
LOST: Final = "The supervisor died."
#: The server declares attempts lost after 279 s of silence. If reports are rare, it may begin a minute before a fault.
DESERTED_SECONDS: Final = 150.0
SIGNAL_INTERRUPT: Final = 2
SIGNAL_KILL: Final = 9


@dataclass(slots=True)
class Hello:
    """The message of a supervisor to a distributor that connects."""

    live: dict[int, float]
    ended: list[Exit]
    lost: list[int] = field(default_factory=list)


class Farm:
    """A cluster that runs commands itself; see the module docstring.

    Args:
        host: the name of its host.
        loop: the virtual-time loop.
        dice: random generator derived from the seed.
        clock: the clock of its host.
        fates: the outcomes of commands.
        observe: called for every start of a command, before it runs, and for every end.
    """

    def __init__(
        self,
        host: str,
        loop: SimulationLoop,
        dice: random.Random,
        clock: PartClock,
        fates: Fates,
        observe: Observe,
    ) -> None:
        self.host = host
        self.loop = loop
        self.slots = fates.scenario.slots
        self.running: dict[int, Command] = {}
        self.waiting: deque[Launch] = deque()
        self.ended: dict[int, Exit] = {}
        self.is_up = True
        self.paused_until = 0.0
        self.line: FarmDistributor | None = None
        self._dice = dice
        self._clock = clock
        self._fates = fates
        self._observe = observe
        self._due = {"in": 0.0, "out": 0.0}
        #: Whether the last distributor died instead of leaving; then no distributor may be monitoring the commands.
        self.is_bereft = False
        self._in_touch_at = 0.0
        self._deserted: set[int] = set()
        #: The number of connections; messages sent on an earlier connection never arrive.
        self._connections = 0

    def _is_in_touch(self) -> bool:
        """Return whether the server's messages reach the commands, through a distributor and the supervisor."""
        is_working = self.is_up and self.loop.time() >= self.paused_until
        return is_working and self.line is not None and self.line.is_in_touch()

    def look(self) -> None:
        """Record attempts unreported for so long that the server may declare them lost; called periodically."""
        now = self.loop.time()
        if self._is_in_touch():
            self._in_touch_at = now
        elif now - self._in_touch_at > DESERTED_SECONDS:
            self._deserted.update(self.running, self.ended)

    # -- faults ------------------------------------------------------------------------------------------------

    def die(self) -> None:
        """Kill the supervisor; its commands keep running."""
        if not self.is_up:
            return
        self.is_up = False
        if len(self.running) == 1:  # the command that ran alone will be blamed
            self._fates.unlucky.update(command.index for command in self.running.values())
        self.waiting.clear()
        line, self.line = self.line, None
        if line is not None:
            line.lose_supervisor()

    def pause(self, seconds: float) -> None:
        """Freeze the supervisor for a time."""
        self.paused_until = max(self.paused_until, self.loop.time() + seconds)

    def kill_something(self) -> bool:
        """Kill a running command, as the kernel does if memory is short."""
        if not self.running:
            return False
        command = self.running[self._dice.choice(sorted(self.running))]
        self._fates.unlucky.add(command.index)
        self._end(command, Exit(**self._identity(command), signal=SIGNAL_KILL))
        return True

    # -- messages ----------------------------------------------------------------------------------------------

    def connect(self, line: FarmDistributor) -> Hello:
        """Connect a distributor, replacing an earlier one."""
        lost: list[int] = []
        if self.line is not None:
            self.tell("replaced", None)
            self.waiting.clear()
        ended = list(self.ended.values())
        if not self.is_up:
            lost = sorted(self.running)
            for command in list(self.running.values()):
                self._end(command, None)
            self.is_up = True
            self.paused_until = 0.0
        self.line = line
        self.is_bereft = False
        self._connections += 1
        live = {identity: command.started_at for identity, command in self.running.items()}
        return Hello(live, ended, lost)

    def hang_up(self, line: FarmDistributor) -> None:
        """Disconnect a distributor that has left or died."""
        if self.line is line:
            self.line = None
            self.waiting.clear()

    def post(self, line: FarmDistributor, kind: str, content: Any) -> None:
        """Receive a message from a distributor, after a delay and in order."""
        self._later("in", self._obey, self._connections if line is self.line else 0, kind, content)

    def tell(self, kind: str, content: Any) -> None:
        """Send a message to the connected distributor."""
        if self.line is not None:
            self._later("out", self.line.hear, kind, content)

    def _later(self, direction: str, call: Callable[..., None], *arguments: Any) -> None:
        due = max(
            self._due[direction],
            self.paused_until,
            self.loop.time() + self._dice.uniform(0.0001, MESSAGE_SECONDS_MAX),
        )
        self._due[direction] = due
        self.loop.call_at(due, call, *arguments)

    def _obey(self, connection: int, kind: str, content: Any) -> None:
        if self.loop.time() < self.paused_until:
            self.loop.call_at(self.paused_until, self._obey, connection, kind, content)
        elif connection == self._connections and self.line is not None:
            getattr(self, f"_{kind}")(content)

    def _launch(self, launches: Sequence[Launch]) -> None:
        self.waiting.extend(launches)
        self._start_waiting()

    def _acknowledge(self, identities: Sequence[int]) -> None:
        for identity in identities:
            self.ended.pop(identity, None)

    def _recall(self, _: object) -> None:
        self.tell("recalled", [launch.task_instance_id for launch in self.waiting])
        self.waiting.clear()

    def _kill(self, identities: Sequence[int]) -> None:
        wanted = set(identities)
        for launch in [launch for launch in self.waiting if launch.task_instance_id in wanted]:
            self.waiting.remove(launch)
            identity = launch.task_instance_id
            self._tell_end(
                Exit(
                    task_instance_id=identity, distributor_id=str(identity), not_started="killed before it was started"
                )
            )
        for identity in identities:
            command = self.running.get(identity)
            if command is not None and not command.killed:
                self._interrupt(command)

    def _interrupt(self, command: Command) -> None:
        command.killed = True
        stubborn = command.outcome.ignores_interrupt
        delay = INTERRUPT_SECONDS if stubborn else DIES_OF_INTERRUPT_SECONDS
        end = Exit(**self._identity(command), signal=SIGNAL_KILL if stubborn else SIGNAL_INTERRUPT, killed=True)
        self.loop.call_later(delay, self._end, command, end)

    # -- commands ----------------------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        while self.is_up and self.waiting and len(self.running) < self.slots:
            self._start(self.waiting.popleft())

    def _start(self, launch: Launch) -> None:
        index = index_of(launch.command)
        command = Command(
            attempt=launch.task_instance_id,
            task_id=int(launch.env["JOBMON_TASK_ID"]),
            name=launch.name,
            index=index,
            outcome=self._fates.next_of(index),
            started_at=self._clock.now().timestamp(),
            launched_by=self.line.name if self.line is not None else "",
            host=self.host,
            may_be_given_up=lambda: launch.task_instance_id in self._deserted,
            is_in_touch=self._is_in_touch,
        )
        self._observe("start", command)
        self.running[launch.task_instance_id] = command
        command.end = self.loop.call_later(command.outcome.seconds, self._end_by_itself, command)
        self.tell("started", {launch.task_instance_id: command.started_at})

    def _end_by_itself(self, command: Command) -> None:
        outcome = command.outcome
        self._end(
            command,
            Exit(
                **self._identity(command),
                exit_code=outcome.exit_code,
                signal=outcome.signal,
                timed_out=outcome.timed_out,
                killed=command.killed,
            ),
        )

    def _identity(self, command: Command) -> dict[str, Any]:
        return {
            "task_instance_id": command.attempt,
            "distributor_id": str(command.attempt),
            "started_at": command.started_at,
            "ended_at": self._clock.now().timestamp(),
        }

    def _end(self, command: Command, ending: Exit | None) -> None:
        """Record an outcome; None: killed by the successor of a dead supervisor."""
        if self.running.get(command.attempt) is not command:
            return
        del self.running[command.attempt]
        if command.end is not None:
            command.end.cancel()
        is_known = ending is not None and self.is_up
        is_well = ending is not None and ending.exit_code == 0 and not ending.killed
        self._observe("finish" if is_known and is_well else "end", command)
        if ending is not None and self.is_up:
            self._tell_end(ending)
            self._later("in", self._start_waiting)

    def _tell_end(self, ending: Exit) -> None:
        self.ended[ending.task_instance_id] = ending
        self.tell("ended", ending)


class FarmDistributor(DirectClusterDistributor):
    """The adapter of a farm in one distributor.

    Args:
        cluster_name: the name of the cluster.
        farm: the farm.
        part: the process to which the adapter belongs.
    """

    def __init__(self, cluster_name: str, farm: Farm, part: Part) -> None:
        super().__init__(cluster_name)
        self._farm = farm
        self._part = part
        self._descriptor = farm.loop.open_descriptor()
        self._inbox: deque[tuple[str, Any]] = deque()
        self._is_connected = False
        self._handed: set[int] = set()
        self._living: set[int] = set()
        self._starts: dict[int, float] = {}
        self._exits: list[Exit] = []

    @property
    def name(self) -> str:
        """The name of the process to which the adapter belongs."""
        return self._part.name

    def is_in_touch(self) -> bool:
        """Return whether its process can reach the server now."""
        part, loop = self._part, self._farm.loop
        return not (part.is_dead or loop.is_frozen(part.name) or loop.time() < part.cut_off_until)

    # -- called by the farm ------------------------------------------------------------------------------------

    def hear(self, kind: str, content: Any) -> None:
        """Receive a message from the farm."""
        self._inbox.append((kind, content))
        self._ring()

    def lose_supervisor(self) -> None:
        """Handle a lost connection to the supervisor."""
        self._inbox.append(("broken", None))
        self._ring()

    def _ring(self) -> None:
        if not self._part.is_dead:
            self._farm.loop.ring(self._descriptor)

    # -- the plug-in interface ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect to the farm."""
        known = self._handed | self._living
        self._inbox.clear()
        hello = self._farm.connect(self)
        self._is_connected = True
        self._living.update(hello.live)
        self._starts.update(hello.live)
        for ending in hello.ended:
            self._note_ending(ending)
        self._lose(hello.lost)
        recorded = {one.task_instance_id for one in self._exits}
        self._lose(sorted((known & (self._handed | self._living)) - hello.live.keys() - recorded))

    def is_connected(self) -> bool:
        """Whether it is connected to the farm."""
        return self._is_connected

    def stop(self) -> None:
        """Disconnect from the farm."""
        if not self._part.is_dead:
            self._farm.hang_up(self)
        self._is_connected = False

    def hang_up(self) -> None:
        """Close the connection, as the kernel does when the process has died."""
        self._farm.is_bereft = self._farm.is_bereft or self._farm.line is self
        self._farm.hang_up(self)

    def slots(self) -> float:
        """The number of slots of the farm."""
        return float(self._farm.slots)

    def lookahead(self) -> int:
        """The number of launches that the farm accepts in advance."""
        return self._farm.slots * 2

    def fileno(self) -> int:
        """Return a descriptor of the simulated loop."""
        return self._descriptor

    def spawn(self, launches: Sequence[Launch]) -> dict[int, str]:
        """Send launches to the farm."""
        identities = [launch.task_instance_id for launch in launches]
        self._handed.update(identities)
        self._post("launch", list(launches))
        return {identity: str(identity) for identity in identities}

    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """Terminate attempts."""
        self._post("kill", [int(one) for one in distributor_ids])

    def recall(self) -> None:
        """Cancel launches that have not started."""
        self._post("recall", None)

    def acknowledge(self, task_instance_ids: Sequence[int]) -> None:
        """Acknowledge outcomes, which the farm need not keep."""
        if task_instance_ids:
            self._post("acknowledge", list(task_instance_ids))

    def _post(self, kind: str, content: Any) -> None:
        if self._is_connected and not self._part.is_dead:
            self._farm.post(self, kind, content)

    def adopt(self) -> dict[int, str]:
        """Return the attempts that are alive."""
        return {identity: str(identity) for identity in sorted(self._living)}

    def collect_starts(self) -> dict[int, float] | None:
        """Return the attempts that have started."""
        starts, self._starts = self._starts, {}
        return starts

    def collect_exits(self) -> list[Exit]:
        """Return the attempts that have ended."""
        while self._inbox:
            self._take(*self._inbox.popleft())
        exits, self._exits = self._exits, []
        return exits

    def _take(self, kind: str, content: Any) -> None:
        if kind == "started":
            self._living.update(content)
            self._starts.update(content)
        elif kind == "ended":
            self._note_ending(content)
        elif kind == "recalled":
            self._lose(content)
        else:
            self._is_connected = False

    def _note_ending(self, ending: Exit) -> None:
        self._forget(ending.task_instance_id)
        self._exits.append(ending)

    def _lose(self, identities: Sequence[int]) -> None:
        for identity in identities:
            self._forget(identity)
            self._exits.append(Exit(task_instance_id=identity, distributor_id=str(identity), lost=LOST))

    def _forget(self, identity: int) -> None:
        self._handed.discard(identity)
        self._living.discard(identity)
        self._starts.pop(identity, None)

    # -- the classic interface ---------------------------------------------------------------------------------

    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """Not supported by this cluster."""
        raise SubmissionRejected("A farm takes no jobs.")

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """Return the attempts that wait or run."""
        here = {str(identity) for identity in self._handed | self._living}
        return here if distributor_ids is None else here & set(distributor_ids)

    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """Not needed, because the farm reports outcomes by itself."""
        raise RemoteExitInfoNotAvailable(distributor_id)
