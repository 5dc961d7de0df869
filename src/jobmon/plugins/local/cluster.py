"""This machine as a direct cluster: the common base of `multiprocess` and `sequential`."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent.devices import GPUS, asked_of
from jobmon.agent.environment import for_command
from jobmon.agent.processes import DATA_VARIABLE
from jobmon.core import access
from jobmon.core.cluster_protocol import (
    AgentOffer,
    ClusterQueue,
    ClusterWorkerNode,
    DirectClusterDistributor,
    Exit,
    Launch,
    StartFault,
    weight_of,
)
from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.core.exceptions import RemoteExitInfoNotAvailable, SubmissionRejected
from jobmon.plugins.local.devices import RESOURCES, local_devices, problems_with
from jobmon.plugins.local.link import SupervisorLink, SupervisorPaths, supervisor_paths
from jobmon.plugins.local.machine import usable_cpus, usable_memory_gib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jobmon.agent.recovery import Leftovers
    from jobmon.core.constants import TaskInstanceStatus

LOOKAHEAD_FACTOR: Final = 24
LOST: Final = "The supervisor of local commands died, so the outcome of this command is unknown."
#: Runs instead of a command that must not share devices, if no host agent assigns them.
DEVICES_REFUSED: Final = (
    "echo 'gpus and resources are assigned only in workflows whose tasks all run on this machine' >&2; exit 1"
)
RECALLED: Final = "It was prefetched by this machine but not started in time."


class LocalQueue(ClusterQueue):
    """The only queue of this machine."""

    extra_keys = frozenset({GPUS, RESOURCES})

    def validate_resources(self, strict: bool = False, **resources: Any) -> tuple[bool, str]:
        """Validate the request, including whether this machine has the requested devices."""
        _, text = super().validate_resources(strict, **resources)
        problems = [text] if text else []
        problems += problems_with(resources, JobmonConfig())
        return not problems, "; ".join(problems)


class LocalWorkerNode(ClusterWorkerNode):
    """This machine as seen by a stand-alone worker."""

    @property
    def distributor_id(self) -> str | None:
        """None: nothing was submitted."""
        return None

    @property
    def array_step_id(self) -> int | None:
        """None: there are no arrays."""
        return None


def folder_digest(folder: Path) -> str:
    """Return a digest that distinguishes data folders in the names of pools."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def default_queue(max_cores: float) -> tuple[str, dict[str, Any]]:
    """Return the queue of this machine, with limits that reject requests that could never run."""
    return "default", {"max_cores": max_cores, "default_cores": 1, "max_memory": round(usable_memory_gib(), 3)}


class LocalDistributor(DirectClusterDistributor):
    """Run commands on this machine through a supervisor. An attempt's id here is its task instance id.

    Args:
        cluster_name: the cluster's name.
        workflow_id: each workflow has its own supervisor, which outlives this object.
        data_folder: the data folder; by default the configured one.
        config: the settings.
        connection: settings of the cluster; `slots` overrides the global setting.
    """

    def __init__(
        self,
        cluster_name: str,
        *args: Any,
        workflow_id: int = 0,
        data_folder: Path | None = None,
        config: JobmonConfig | None = None,
        connection: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cluster_name, *args, **kwargs)
        self._config = config or JobmonConfig()
        self._workflow_id = workflow_id
        self._connection = dict(connection or {})
        self.data_folder = data_folder or data_directory()
        self._find_paths = partial(supervisor_paths, workflow_id, self.data_folder, cluster_name)
        self._paths = self._find_paths()
        self._grace = self._config.get_float("worker_node", "command_interrupt_timeout")
        asked = float(self._connection.get("slots") or self._config.get_float("multiprocess", "slots"))
        self._slots = asked or usable_cpus()  # looked up once because it is needed at every launch
        self._link: SupervisorLink | None = None
        self._handed: set[int] = set()
        self._living: set[int] = set()
        self._starts: dict[int, float] = {}
        self._exits: list[Exit] = []
        self._limits: list[float] = []  # the current limit, then those in transit to the supervisor

    # -- life cycle --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect to the supervisor, or start it. Called again after a lost connection.

        Raises:
            SupervisorUnavailable: the supervisor can neither be reached nor started.
        """
        known = self._handed | self._living
        self._paths = self._find_paths()  # a logout may have removed the previous folder
        idle_timeout = self._config.get_float("supervisor", "idle_timeout")
        link = self._link = SupervisorLink(self._paths, idle_timeout, self._servers)
        cores = self._limits[-1] if self._limits else self.slots()
        setup = {
            "environment": self._environment(),
            "access_file": str(access.access_file_path(self.data_folder)),
            "cores": cores,
            "memory": self.memory_gib(),
            "interrupt_timeout": self._grace,
            "cgroups": self._config.get_boolean("supervisor", "cgroups"),
        }
        link.send(["setup", setup])
        self._limits = [cores]
        self._bury(link.leftovers)
        live = {int(one[0]) for one in link.hello["live"]}
        self._living |= live
        self._starts.update({int(one[0]): float(one[2]) for one in link.hello["live"]})
        self._note_endings(link.hello["ended"])
        self._lose_what_is_gone(known, live)

    def _environment(self) -> dict[str, str]:
        """Return the environment of commands. They leave their data folder's server to us, see `core.access`."""
        found = for_command(os.environ)
        found.pop(DATA_VARIABLE, None)
        return found if self._config.get("http", "service_url") else {**found, DATA_VARIABLE: str(self.data_folder)}

    def _servers(self) -> list[int]:
        """Return the pid of our data folder's embedded server, if it runs on this host."""
        found = access.read_access_file(self.data_folder)
        return [found.pid] if found is not None and access.lives_here(found) else []

    def stop(self) -> None:
        """Disconnect; running commands continue, and a supervisor without work exits at once."""
        if self._link is not None:
            self._link.send(["end"])
            self._hang_up()

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def is_connected(self) -> bool:
        """Return whether the supervisor is connected."""
        return self._link is not None

    @property
    def paths(self) -> SupervisorPaths:
        """The paths of the supervisor's files."""
        return self._paths

    def slots(self) -> float:
        """Return how many cores' worth of commands may run in parallel."""
        return self._slots

    def limit(self, cores: float) -> None:
        """Send the limit to the supervisor, which acknowledges it."""
        self._limits.append(cores)
        self._send(["limit", cores])

    def limit_in_force(self) -> float:
        """Return the largest limit that the supervisor may currently be applying."""
        return max(self._limits, default=self.slots())

    def lookahead(self) -> int:
        """Return how many launches the supervisor accepts in advance."""
        return int(self.slots() * LOOKAHEAD_FACTOR)

    def memory_gib(self) -> float | None:
        """Return how much memory all commands that request memory may use together, GiB."""
        return usable_memory_gib()

    def agent_offer(self) -> AgentOffer | None:
        """Offer the slots, shared by all workflows of a data folder on this host, or separate for each workflow."""
        pool = self.pool() or f"{self.cluster_name}:{folder_digest(self.data_folder)}:{self._workflow_id}"
        devices = local_devices(self._config)
        return AgentOffer(cores=self.slots(), memory_gib=usable_memory_gib(), pool=pool, devices=devices)

    def fileno(self) -> int:
        """Return the descriptor of the connection to the supervisor, or -1."""
        return self._link.fileno() if self._link is not None else -1

    # -- commands ----------------------------------------------------------------------------------------------

    def weight(self, launch: Launch) -> tuple[float, float]:
        """Return the weight of a command: cores, memory in GiB. A command that requests too many cores runs alone."""
        cores, memory = weight_of(launch.requested_resources)
        return min(cores, self.slots()), memory

    def spawn(self, launches: Sequence[Launch]) -> dict[int, str]:
        """Send launches to the supervisor."""
        identities = [launch.task_instance_id for launch in launches]
        self._handed.update(identities)
        if self._link is not None:
            self._link.send(["launch", [self._row(launch) for launch in launches]])
        return {identity: str(identity) for identity in identities}

    def _row(self, launch: Launch) -> list[Any]:
        cores, memory = self.weight(launch)
        return [
            launch.task_instance_id,
            [*launch.shell, DEVICES_REFUSED if asked_of(launch.requested_resources) else launch.command],
            dict(launch.env),
            launch.working_directory,
            launch.umask,
            launch.stdout,
            launch.stderr if launch.stderr != launch.stdout else None,
            launch.runtime_seconds,
            cores,
            memory,
        ]

    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """Interrupt attempts; they are killed after the interrupt timeout."""
        self._send(["kill", [int(one) for one in distributor_ids], self._grace])

    def recall(self) -> None:
        """Recall the launches that the supervisor has not started."""
        self._send(["recall"])

    def acknowledge(self, task_instance_ids: Sequence[int]) -> None:
        """Release exits that the supervisor need not keep any longer."""
        if task_instance_ids:
            self._send(["acknowledge", list(task_instance_ids)])
            if self._link is not None:
                self._link.settle(task_instance_ids)

    def _send(self, message: list[Any]) -> None:
        if self._link is not None:
            self._link.send(message)  # `collect_exits` detects a dead supervisor

    # -- outcomes ----------------------------------------------------------------------------------------------

    def adopt(self) -> dict[int, str]:
        """Return the attempts that are alive."""
        return {identity: str(identity) for identity in self._living}

    def collect_starts(self) -> dict[int, float] | None:
        """Return the attempts started since the last call, with their start times."""
        starts, self._starts = self._starts, {}
        return starts

    def collect_exits(self) -> list[Exit]:
        """Return the exits since the last call; detect a lost connection."""
        if self._link is not None:
            messages = self._link.receive()
            if messages is None:
                self._hang_up()
            for message in messages or ():
                self._hear(message)
        exits, self._exits = self._exits, []
        return exits

    def _hear(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == "news":
            self._living.update(one[0] for one in message[1])
            self._starts.update({one[0]: one[2] for one in message[1]})
            self._note_endings(message[2])
        elif kind == "limited":
            del self._limits[0]
        elif kind == "recalled":
            self._lose(message[1], RECALLED, recalled=True)
        elif kind == "replaced" and self._link is not None:
            self._hang_up()  # another distributor connected; the server knows which one leads

    def _note_endings(self, endings: list[list[Any]]) -> None:
        for ending in endings:
            self._forget(ending[0])
            self._exits.append(_exit_of(ending))

    def _lose(self, identities: Sequence[int], why: str, *, recalled: bool = False) -> None:
        for identity in identities:
            self._forget(identity)
            self._exits.append(
                Exit(task_instance_id=identity, distributor_id=str(identity), lost=why, recalled=recalled)
            )

    def _forget(self, identity: int) -> None:
        self._handed.discard(identity)
        self._living.discard(identity)
        self._starts.pop(identity, None)

    def _lose_what_is_gone(self, known: set[int], live: set[int]) -> None:
        """Report attempts known from an earlier connection as lost: their supervisor died, or they were recalled."""
        recorded = {one.task_instance_id for one in self._exits}
        self._lose(sorted((known & (self._handed | self._living)) - live - recorded), LOST)

    def _bury(self, leftovers: Leftovers) -> None:
        self._note_endings(list(leftovers.ended.values()))
        self._lose(list(leftovers.live), LOST)

    # -- queries of classic clusters ---------------------------------------------------------------------------

    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """Reject the submission: this cluster runs commands directly."""
        raise SubmissionRejected(f"Cluster {self.cluster_name!r} runs commands directly and accepts no jobs.")

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """Return the attempts that wait or run here."""
        here = {str(identity) for identity in self._handed | self._living}
        return here if distributor_ids is None else here & set(distributor_ids)

    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """Raise an error: exits are only reported by `collect_exits`."""
        raise RemoteExitInfoNotAvailable(f"The outcome of attempt {distributor_id} was already reported, or is lost.")


def _exit_of(ending: list[Any]) -> Exit:
    (
        identity,
        _,
        code,
        number,
        not_started,
        timed_out,
        started,
        ended,
        cpu,
        peak,
        read,
        written,
        killed,
        limit,
        *more,
    ) = ending
    fault = more[0] if more else None
    return Exit(
        task_instance_id=identity,
        distributor_id=str(identity),
        exit_code=code,
        signal=number,
        not_started=not_started,
        timed_out=timed_out,
        killed=killed,
        started_at=started,
        ended_at=ended,
        cpu_seconds=cpu,
        max_rss_bytes=peak,
        read_bytes=read,
        written_bytes=written,
        memory_limit_bytes=limit,
        start_fault=None if fault is None else StartFault(*fault),
    )
