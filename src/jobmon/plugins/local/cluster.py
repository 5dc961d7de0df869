"""This machine as a direct cluster: what `multiprocess` and `sequential` share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import (
    ClusterQueue,
    ClusterWorkerNode,
    DirectClusterDistributor,
    Exit,
    Launch,
    weight_of,
)
from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.core.exceptions import RemoteExitInfoNotAvailable
from jobmon.plugins.local.link import SupervisorLink, SupervisorPaths, supervisor_paths
from jobmon.plugins.local.machine import usable_cpus, usable_memory_gib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jobmon.core.constants import TaskInstanceStatus
    from jobmon.plugins.local.remains import Remains

LOOKAHEAD_FACTOR: Final = 24
#: What commands have no business to know.
SECRETS: Final = frozenset({"JOBMON_TOKEN", "JOBMON__HTTP__TOKEN"})
LOST: Final = "The supervisor of local commands died, and with it the way this command ended."
RECALLED: Final = "It was handed to this machine ahead of need and not started in time."


class LocalQueue(ClusterQueue):
    """The only queue of this machine."""


class LocalWorkerNode(ClusterWorkerNode):
    """This machine as a stand-alone worker sees it."""

    @property
    def distributor_id(self) -> str | None:
        """None: nothing was submitted."""
        return None

    @property
    def array_step_id(self) -> int | None:
        """None: there are no arrays."""
        return None


def default_queue(max_cores: float) -> tuple[str, dict[str, Any]]:
    """Return the queue of this machine, with limits that refuse what could never run."""
    return "default", {"max_cores": max_cores, "default_cores": 1, "max_memory": round(usable_memory_gib(), 3)}


class LocalDistributor(DirectClusterDistributor):
    """Runs commands on this machine through a supervisor. An attempt's id here is its task instance id.

    Args:
        cluster_name: its name.
        workflow_id: each workflow has a supervisor of its own, which outlives this object.
        data_folder: the data folder; default: the usual one.
        config: the settings.
        connection: of the cluster; `slots` overrides the setting.
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
        self._connection = dict(connection or {})
        self.data_folder = data_folder or data_directory()
        self._paths = supervisor_paths(workflow_id, self.data_folder, cluster_name)
        self._grace = self._config.get_float("worker_node", "command_interrupt_timeout")
        asked = float(self._connection.get("slots") or self._config.get_float("multiprocess", "slots"))
        self._slots = asked or usable_cpus()  # looked up once: it is asked for at every launch
        self._link: SupervisorLink | None = None
        self._handed: set[int] = set()
        self._living: set[int] = set()
        self._starts: dict[int, float] = {}
        self._exits: list[Exit] = []
        self._limits: list[float] = []  # the one in force, then those on their way to the supervisor

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect to the supervisor, or start it; again, when the line broke.

        Raises:
            SupervisorUnavailable: neither works.
        """
        known = self._handed | self._living
        link = self._link = SupervisorLink(self._paths, self._config.get_float("supervisor", "idle_timeout"))
        cores = self._limits[-1] if self._limits else self.slots()
        setup = {
            "environment": {key: value for key, value in os.environ.items() if key not in SECRETS},
            "cores": cores,
            "memory": self.memory_gib(),
            "interrupt_timeout": self._grace,
            "cgroups": self._config.get_boolean("supervisor", "cgroups"),
        }
        link.send(["setup", setup])
        self._limits = [cores]
        self._bury(link.remains)
        live = {int(one[0]) for one in link.hello["live"]}
        self._living |= live
        self._starts.update({int(one[0]): float(one[2]) for one in link.hello["live"]})
        self._note_endings(link.hello["ended"])
        self._lose_what_is_gone(known, live)

    def stop(self) -> None:
        """Let go; what runs goes on, and a supervisor without work leaves at once."""
        if self._link is not None:
            self._link.send(["end"])
            self._hang_up()

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def is_connected(self) -> bool:
        """Whether the line to the supervisor stands."""
        return self._link is not None

    @property
    def paths(self) -> SupervisorPaths:
        """Where the supervisor's files are."""
        return self._paths

    def slots(self) -> float:
        """Cores' worth of commands that may run at once."""
        return self._slots

    def limit(self, cores: float) -> None:
        """Tell the supervisor; it answers when it knows."""
        self._limits.append(cores)
        self._send(["limit", cores])

    def limit_in_force(self) -> float:
        """The largest of those that the supervisor may be working by."""
        return max(self._limits, default=self.slots())

    def lookahead(self) -> int:
        """The supervisor takes this many launches ahead."""
        return int(self.slots() * LOOKAHEAD_FACTOR)

    def memory_gib(self) -> float | None:
        """How much memory commands that ask for some may have together."""
        return usable_memory_gib()

    def fileno(self) -> int:
        """The line to the supervisor."""
        return self._link.fileno() if self._link is not None else -1

    # -- commands ----------------------------------------------------------------------------------------------

    def weight(self, launch: Launch) -> tuple[float, float]:
        """Return what a command counts: cores, memory in GiB. One that asks for more than there is runs alone."""
        cores, memory = weight_of(launch.requested_resources)
        return min(cores, self.slots()), memory

    def spawn(self, launches: Sequence[Launch]) -> dict[int, str]:
        """Hand these to the supervisor."""
        identities = [launch.task_instance_id for launch in launches]
        self._handed.update(identities)
        if self._link is not None:
            self._link.send(["launch", [self._row(launch) for launch in launches]])
        return {identity: str(identity) for identity in identities}

    def _row(self, launch: Launch) -> list[Any]:
        cores, memory = self.weight(launch)
        return [
            launch.task_instance_id,
            [*launch.shell, launch.command],
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
        """Interrupt these; after the interrupt timeout they are killed."""
        self._send(["kill", [int(one) for one in distributor_ids], self._grace])

    def recall(self) -> None:
        """Start nothing more of what waits with the supervisor."""
        self._send(["recall"])

    def acknowledge(self, task_instance_ids: Sequence[int]) -> None:
        """These endings need not be kept."""
        if task_instance_ids:
            self._send(["acknowledge", list(task_instance_ids)])
            if self._link is not None:
                self._link.settle(task_instance_ids)

    def _send(self, message: list[Any]) -> None:
        if self._link is not None:
            self._link.send(message)  # a supervisor that is gone is noticed by `collect_exits`

    # -- what became of them -----------------------------------------------------------------------------------

    def adopt(self) -> dict[int, str]:
        """Return what lives."""
        return {identity: str(identity) for identity in self._living}

    def collect_starts(self) -> dict[int, float] | None:
        """Return what was started since the last call."""
        starts, self._starts = self._starts, {}
        return starts

    def collect_exits(self) -> list[Exit]:
        """Return the endings since the last call; notices a line that broke."""
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
            self._hang_up()  # another one connected; the server knows which of us may go on

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
        """Of what we knew on an earlier line, nothing else is left: it died with its supervisor, or was recalled."""
        recorded = {one.task_instance_id for one in self._exits}
        self._lose(sorted((known & (self._handed | self._living)) - live - recorded), LOST)

    def _bury(self, remains: Remains) -> None:
        self._note_endings(list(remains.ended.values()))
        self._lose(list(remains.live), LOST)

    # -- the classic questions ---------------------------------------------------------------------------------

    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """Not for this cluster: it runs commands directly."""
        raise AttributeError(f"Cluster {self.cluster_name!r} runs commands directly and takes no jobs.")

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """Return what waits or runs here."""
        here = {str(identity) for identity in self._handed | self._living}
        return here if distributor_ids is None else here & set(distributor_ids)

    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """Endings come by `collect_exits` only."""
        raise RemoteExitInfoNotAvailable(f"How attempt {distributor_id} ended was told already, or is lost.")


def _exit_of(ending: list[Any]) -> Exit:
    identity, _, code, number, not_started, timed_out, started, ended, cpu, peak, read, written, killed, limit = ending
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
    )
