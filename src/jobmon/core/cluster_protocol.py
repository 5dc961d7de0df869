"""The plug-in interface: what a cluster has to offer so that Jobmon can run commands on it.

A plug-in is a module with `get_cluster_queue_class()`, `get_cluster_distributor_class()` and
`get_cluster_worker_node_class()`, and, if it wants to be usable without `jobmon cluster add`,
`get_default_queues() -> list[(queue_name, parameters)]`, the default queue first, and perhaps
`get_queue(queue_name) -> parameters`, of one that was not there at first, or None. It is found by the entry-point group
`jobmon.plugins` or as a module `jobmon.plugins.<name>`; built-ins go the same way.

Classic clusters submit a job that runs a stand-alone worker. Direct ones (`DirectClusterDistributor`) run commands
themselves and tell how they ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from jobmon.core import packing
from jobmon.core import resources as resource_rules
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import ClusterUnavailable, JobmonError, RemoteExitInfoNotAvailable

#: Keys that a distributor adds to the request it hands to a plug-in: under which token the submission is to be found
#: again, and hosts (list of names) on which workers could not even start. The token of an array is that of its batch;
#: what is submitted alone has one of its own.
SUBMISSION_TOKEN: Final = "submission_token"
EXCLUDED_HOSTS: Final = "excluded_hosts"


class ClusterQueue:
    """A queue of a cluster: which requests it takes.

    Args:
        queue_id: id in the database.
        queue_name: its name.
        parameters: `min_`, `max_` and `default_` of `cores`, `memory`, `runtime`; whatever else the plug-in reads.
    """

    #: Further keys of `compute_resources` that this kind of cluster understands.
    extra_keys: frozenset[str] = frozenset()

    def __init__(self, queue_id: int, queue_name: str, parameters: Mapping[str, Any]) -> None:
        self._queue_id = queue_id
        self._queue_name = queue_name
        self._parameters = dict(parameters)

    def validate_resources(self, strict: bool = False, **resources: Any) -> tuple[bool, str]:
        """Say whether the queue takes the request, and all that is wrong with it (empty text if nothing).

        Not strict: only what cannot be coerced counts (unreadable values, unknown keys, missing required ones).
        """
        problems = resource_rules.unknown_keys(resources, resource_rules.COMMON_KEYS | self.extra_keys)
        problems += packing.problems_with(resources)
        problems += [f"{key} is required" for key in self.required_resources if resources.get(key) is None]
        try:
            normal = resource_rules.normalized(resources)
        except JobmonError as error:
            problems.append(str(error))
        else:
            if strict:
                problems += resource_rules.problems_with(normal, self._parameters)
        return not problems, "; ".join(problems)

    def coerce_resources(self, **resources: Any) -> dict[str, Any]:
        """Return the request in normal form, completed by the queue's defaults and moved within its limits."""
        return resource_rules.coerced(resources, self._parameters)

    @property
    def parameters(self) -> dict[str, Any]:
        """The queue's limits, defaults and settings."""
        return self._parameters

    @property
    def queue_name(self) -> str:
        """The queue's name."""
        return self._queue_name

    @property
    def queue_id(self) -> int:
        """The queue's id in the database."""
        return self._queue_id

    @property
    def required_resources(self) -> list[str]:
        """Keys that every request must have."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteExit:
    """How a job ended, as its cluster says; what it does not say is None. Times are seconds since the epoch.

    Status DONE: the job, that is its worker, ended well; how its command ended is then told by the worker.
    """

    status: TaskInstanceStatus
    message: str = ""
    cause: Cause | None = None
    exit_code: int | None = None
    signal: int | None = None
    host: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    wallclock_seconds: float | None = None
    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None


class ClusterDistributor(ABC):
    """Submits commands to a cluster and watches them. Lives in the distributor process."""

    #: Its jobs run on other hosts: an embedded server has to listen on this host's address.
    is_remote: bool = False
    #: It can look at all jobs of a server at once, so that one distributor looks for all: `look` and `show`.
    shares_watch: bool = False
    #: Whose jobs such a look covers, e.g. a user's: only distributors that say the same share what they see.
    watch_scope: str = ""

    def __init__(self, cluster_name: str, *args: Any, **kwargs: Any) -> None:
        self._cluster_name = cluster_name
        #: How often which command of the cluster was called; the distributor says it at its end.
        self.calls: Counter[str] = Counter()

    @property
    def cluster_name(self) -> str:
        """Name of the cluster."""
        return self._cluster_name

    @property
    @abstractmethod
    def worker_node_entry_point(self) -> str:
        """Command that starts a stand-alone worker, without its arguments."""

    def start(self) -> None:  # noqa: B027 - optional
        """Get ready; called once before anything else."""

    def stop(self) -> None:  # noqa: B027 - optional
        """Let go; what runs goes on."""

    @abstractmethod
    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """Submit one command; return the cluster's id for it.

        Raises:
            ClusterFull: nothing was submitted; it is tried again later.
            ClusterUnavailable: nobody knows whether it was submitted; `find_submitted` is asked later.
            Exception: any other: the cluster refused it; its text becomes the attempt's error.
        """

    def submit_array_to_batch_distributor(
        self, command: str, name: str, requested_resources: dict[str, Any], array_length: int
    ) -> dict[int, str]:
        """Submit a command `array_length` times; return step -> id. The base submits nothing of the kind.

        The worker finds its step by `ClusterWorkerNode.array_step_id`. Raises as `submit_to_batch_distributor` does; an
        array of which a part was submitted returns that part.
        """
        raise AttributeError(f"Cluster {self.cluster_name!r} has no arrays.")

    @abstractmethod
    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """Return those ids that the cluster still holds."""

    def get_queueing_errors(self, distributor_ids: list[str]) -> dict[str, str]:
        """Return ids that will never start, with the reason; the caller terminates them."""
        return {}

    @abstractmethod
    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """End these."""

    @abstractmethod
    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """Return how a job ended.

        Raises:
            RemoteExitInfoNotAvailable: the cluster does not know (yet).
        """

    def get_remote_exits(self, distributor_ids: Sequence[str]) -> dict[str, RemoteExit]:
        """Return how these jobs ended; those of which the cluster does not know it (yet) are left out."""
        result = {}
        for distributor_id in distributor_ids:
            try:
                status, message = self.get_remote_exit_info(distributor_id)
            except RemoteExitInfoNotAvailable:
                continue
            result[distributor_id] = RemoteExit(status=status, message=message)
        return result

    def find_submitted(self, tokens: Collection[str]) -> dict[str, dict[int, str]]:
        """Return what was submitted under these tokens: token -> step -> id. The base does not keep tokens.

        What was submitted alone, not as an array, is step 0 of its token. Asked for by a distributor whose predecessor
        may have submitted something without having told of it, and after a submission that got no answer.

        Raises:
            ClusterUnavailable: it does not answer; asked again later.
        """
        return {}

    def get_pending_reasons(self, distributor_ids: Collection[str]) -> dict[str, str]:
        """Return why jobs wait in the cluster's own queue, in its own words."""
        return {}

    def look(self, since: float) -> dict[str, Any]:
        """Ask the cluster about all jobs of this server; return what it says, as JSON values.

        It runs while other methods are called: it changes nothing (but `calls`).

        Args:
            since: endings from then on are wanted, seconds since the epoch.

        Raises:
            ClusterUnavailable: it does not answer, or not in a way that can be understood.
        """
        raise ClusterUnavailable(f"Cluster {self.cluster_name!r} cannot be looked at as a whole.")

    def show(self, view: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Answer questions about jobs from this view, which a distributor of this server got from `look`."""

    def build_worker_node_command(
        self, task_instance_id: int | None = None, array_id: int | None = None, batch_number: int | None = None
    ) -> str:
        """Return the command line of a stand-alone worker for one attempt, or for an array's batch."""
        words = [self.worker_node_entry_point, "--cluster-name", self.cluster_name]
        if task_instance_id is not None:
            return " ".join([*words, "--task-instance-id", str(task_instance_id)])
        if array_id is None or batch_number is None:
            raise ValueError("A worker needs either task_instance_id, or array_id and batch_number.")
        return " ".join([*words, "--array-id", str(array_id), "--batch-number", str(batch_number)])


def weight_of(requested: Mapping[str, Any]) -> tuple[float, float]:
    """Return what a request counts: cores, memory in GiB (0: not asked for).

    Queues bring requests into normal form; one of a plug-in's own that left a text, or something that nobody can read,
    must not end a distributor.
    """
    return (
        _amount(resource_rules.cores_number, requested.get("cores"), 1.0),
        _amount(resource_rules.memory_gib, requested.get("memory"), 0.0),
    )


def _amount(read: Callable[[object], float], value: object, otherwise: float) -> float:
    try:
        return read(value) if value else otherwise
    except JobmonError:
        return otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One command to run now. `env` is added to the environment the distributor was started with."""

    task_instance_id: int
    name: str
    command: str
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    env: Mapping[str, str] = field(default_factory=dict)
    working_directory: str
    umask: int
    stdout: str  # path
    stderr: str  # path; the same path as stdout means one file for both
    runtime_seconds: float | None = None
    requested_resources: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a command ended. Exactly one of exit_code, signal, not_started and lost is set.

    `lost`: whatever ran it is gone and so is the way it ended. Times are seconds since the epoch.
    """

    task_instance_id: int
    distributor_id: str
    exit_code: int | None = None
    signal: int | None = None
    not_started: str | None = None  # why the command could not be started
    lost: str | None = None
    recalled: bool = False  # lost before it was started, because it was not to be started any more
    timed_out: bool = False
    killed: bool = False  # it was interrupted while it ran: even exit code 0 does not mean that it finished
    started_at: float = 0.0
    ended_at: float = 0.0
    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    memory_limit_bytes: int | None = None  # it was killed because it used more than this


class DirectClusterDistributor(ClusterDistributor):
    """A cluster that runs commands itself, without a Jobmon worker around each.

    Methods do not block for longer than it takes to hand over a message.
    """

    @property
    def worker_node_entry_point(self) -> str:
        """Nothing: there is no worker."""
        return ""

    @abstractmethod
    def slots(self) -> float:
        """How many cores' worth of commands may run at once."""

    def memory_gib(self) -> float | None:
        """How much memory commands that ask for some may have together; None: not counted."""
        return None

    def is_connected(self) -> bool:
        """Whether its commands can be reached.

        When not, its distributor makes sure that no other one has taken over, then calls `start` again.
        """
        return True

    @abstractmethod
    def spawn(self, launches: Sequence[Launch]) -> dict[int, str]:
        """Start these commands; return task_instance_id -> distributor id."""

    def pool(self) -> str | None:
        """Name the slots on this host that several workflows share; None: they are its own.

        A cluster that shares is told by `limit` how many of its slots it may use.
        """
        return None

    def limit(self, cores: float) -> None:
        """Start commands only while all that run fit into this many cores."""

    def limit_in_force(self) -> float:
        """Return the largest limit up to which commands may still be started; an earlier one works on for a moment."""
        return self.slots()

    def lookahead(self) -> int:
        """How many launches of one core beyond its slots it takes; it starts them itself, in order, when they fit."""
        return 0

    def collect_starts(self) -> dict[int, float] | None:
        """Return what was started since the last call, with the time; None: whatever is spawned runs at once."""
        return None

    def recall(self) -> None:
        """Start nothing more of what waits; what is thereby dropped comes as an `Exit` that is lost."""

    @abstractmethod
    def collect_exits(self) -> list[Exit]:
        """Return the endings since the last call; does not wait. They are kept until `acknowledge`."""

    def acknowledge(self, task_instance_ids: Sequence[int]) -> None:
        """The server has recorded these endings: they need not be kept any longer."""

    @abstractmethod
    def adopt(self) -> dict[int, str]:
        """Return what an earlier distributor left: task_instance_id -> distributor id of all that live."""

    @abstractmethod
    def fileno(self) -> int:
        """A descriptor that is readable when `collect_exits` has something; -1: there is none, ask often.

        When it is replaced by another one, that one has another number.
        """


class ClusterWorkerNode(ABC):
    """What a stand-alone worker asks of the node on which it runs."""

    @property
    @abstractmethod
    def distributor_id(self) -> str | None:
        """The cluster's id for this job."""

    @property
    @abstractmethod
    def array_step_id(self) -> int | None:
        """The step of the array that this is."""

    def get_usage_stats(self) -> dict[str, Any]:
        """Return what the cluster measured of this job, where it says more than the kernel does."""
        return {}

    def get_exit_info(self, exit_code: int, error_msg: str) -> tuple[TaskInstanceStatus, str]:
        """Say what an exit code means on this cluster."""
        return TaskInstanceStatus.ERROR, error_msg

    def initialize_logfile(self, log_type: str, log_dir: str, name: str) -> str:
        """Return the path to which the command's `log_type` ("stdout", "stderr") goes."""
        return f"{log_dir}/{name}.{'o' if log_type == 'stdout' else 'e'}{self.distributor_id or ''}"
