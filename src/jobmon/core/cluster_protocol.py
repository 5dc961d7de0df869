"""The plug-in interface: what a cluster must provide so that Jobmon can run commands on it.

A plug-in is a module with `get_cluster_queue_class()`, `get_cluster_distributor_class()` and
`get_cluster_worker_node_class()`. To be usable without `jobmon cluster add`, it also has
`get_default_queues() -> list[(queue_name, parameters)]`, with the default queue first. It may have
`get_queue(queue_name) -> parameters`, which describes a queue added later and returns None if there is no such queue.
Plug-ins, including the built-in ones, are found through the entry-point group `jobmon.plugins` or as a module
`jobmon.plugins.<name>`.

Classic clusters submit a job that runs a stand-alone worker. Direct clusters (`DirectClusterDistributor`) run commands
themselves and tell an agent how they exited.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from jobmon.core import packing
from jobmon.core import resources as resource_rules
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import (
    ArraysUnsupported,
    ClusterUnavailable,
    JobmonError,
    PluginError,
    RemoteExitInfoNotAvailable,
    SubmissionRejected,
)

#: Keys that a distributor adds to the request it hands to a plug-in: the token under which the submission can be looked
#: up, and hosts (list of names) on which workers could not even start. The token of an array is that of its batch; a
#: job that is submitted alone has its own token.
SUBMISSION_TOKEN: Final = "submission_token"
EXCLUDED_HOSTS: Final = "excluded_hosts"
#: Number of the first step when the rest of an array is submitted, for plug-ins that can continue arrays. Missing: 0.
FIRST_STEP: Final = "first_step"


class ClusterQueue:
    """A queue of a cluster, which determines the requests it accepts.

    Args:
        queue_id: id in the database.
        queue_name: name of the queue.
        parameters: `min_`, `max_` and `default_` of `cores`, `memory`, `runtime`; any others that the plug-in reads.
    """

    #: Additional keys of `compute_resources` that this kind of cluster understands.
    extra_keys: frozenset[str] = frozenset()
    #: Resources for which this kind of cluster accepts a word in place of an amount: `resources.WORDS`.
    word_keys: frozenset[str] = frozenset()

    def __init__(self, queue_id: int, queue_name: str, parameters: Mapping[str, Any]) -> None:
        self._queue_id = queue_id
        self._queue_name = queue_name
        self._parameters = dict(parameters)

    def validate_resources(self, strict: bool = False, **resources: Any) -> tuple[bool, str]:
        """Return whether the queue accepts the request, and a description of all problems (empty if there are none).

        Unless strict, report only what cannot be coerced (unreadable values, unknown keys, missing required keys).
        """
        problems = resource_rules.unknown_keys(resources, resource_rules.COMMON_KEYS | self.extra_keys)
        problems += packing.problems_with(resources)
        problems += [
            f"{key} {value!r} is not supported by this kind of cluster: request an amount"
            for key, value in resources.items()
            if resource_rules.is_word(key, value) and key not in self.word_keys
        ]
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
        """Return the request in normal form, completed with the queue's defaults and adjusted to its limits."""
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
        """Keys that every request must contain."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteExit:
    """How a job ended according to its cluster; None where the cluster does not say. Times are seconds since the epoch.

    Status DONE means that the job, which is its worker, succeeded; the worker reports how its command exited.
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


class ArraySubmission(dict[int, str]):
    """Step -> id for the part of an array that a cluster accepted, and why it did not accept the rest.

    Args:
        submitted: step -> id.
        error: why the rest was not submitted; it has the same meaning as when raised, but for the rest only.
            None: everything was submitted.
    """

    def __init__(self, submitted: Mapping[int, str], error: Exception | None = None) -> None:
        super().__init__(submitted)
        self.error = error


def array_submission(answer: object, first_step: int = 0) -> ArraySubmission:
    """Normalize the return value of a plug-in's `submit_array_to_batch_distributor`.

    Args:
        answer: an `ArraySubmission`; step -> id; a sequence of ids in the order of steps; or a pair of one of these and
            the error of the rest (or None). A step without an id (missing, None, "") was not given one.
        first_step: the first step that was requested.

    Returns:
        Step of the whole array -> id, with the error of the rest.

    Raises:
        PluginError: the value has none of these forms.
    """
    ids, error = answer, None
    if _is_pair(answer):
        ids, error = answer
    elif isinstance(answer, ArraySubmission):
        error = answer.error
    if isinstance(ids, Sequence) and not isinstance(ids, str | bytes):
        ids = dict(enumerate(ids, first_step))
    if not isinstance(ids, Mapping):
        raise PluginError(
            f"submit_array_to_batch_distributor returned {answer!r}; it must return step -> id, a list of ids, or an"
            " ArraySubmission."
        )
    return ArraySubmission({int(step): str(one) for step, one in ids.items() if one not in (None, "")}, error)


def _is_pair(answer: object) -> TypeGuard[tuple[Any, Exception | None]]:
    """Return whether this is a pair (ids, error); a tuple of two ids is not one."""
    if not (isinstance(answer, tuple) and len(answer) == len(("ids", "error"))):
        return False
    ids, error = answer
    return isinstance(ids, Mapping | list | tuple) and (error is None or isinstance(error, Exception))


class ClusterDistributor(ABC):
    """Submits commands to a cluster and monitors them. Lives in the distributor process."""

    #: Whether its jobs run on other hosts, so that an embedded server has to listen on this host's address.
    is_remote: bool = False
    #: Whether it can poll all jobs of a server at once (`look` and `show`), so that one distributor polls for all.
    shares_watch: bool = False
    #: Whether it accepts arrays. None: if it overrides `submit_array_to_batch_distributor`.
    has_arrays: bool | None = None
    #: Whether it can submit only the last steps of an array (`FIRST_STEP` in the request); workers find the same steps.
    continues_arrays: bool = False
    #: Whose jobs such a poll covers, e.g. a user's: only distributors with the same value share their views.
    watch_scope: str = ""

    def __init__(self, cluster_name: str, *args: Any, **kwargs: Any) -> None:
        self._cluster_name = cluster_name
        #: How often each command of the cluster was called; reported by the distributor when it exits.
        self.calls: Counter[str] = Counter()

    @property
    def cluster_name(self) -> str:
        """Name of the cluster."""
        return self._cluster_name

    @property
    @abstractmethod
    def worker_node_entry_point(self) -> str:
        """Command that starts a stand-alone worker, without its arguments."""

    def agent_offer(self) -> AgentOffer | None:
        """Return what a host agent that runs this cluster's commands may use; None: agents do not run them.

        Called on an adapter that is not started. The distributor starts such an adapter, but gives it no commands.
        """
        return None

    def start(self) -> None:
        """Prepare for use; called once before anything else."""

    def stop(self) -> None:
        """Release all resources; running jobs continue."""

    @abstractmethod
    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """Submit one command; return the cluster's id for it.

        An attempt is never charged for an exception raised here.

        Raises:
            ClusterFull: nothing was submitted; it is retried without limit, when jobs exit or after some time.
            SubmissionDeferred: nothing was submitted, for a reason that may pass; it is retried with growing pauses for
                `distributor.submission_retry_timeout`, then rejected with this text.
            ClusterUnavailable: the cluster does not respond, so it is unknown whether the command was submitted;
                `find_submitted` is called later, without limit.
            SubmissionRejected: or another JobmonError: the cluster rejects it for good; the task fails with this text.
            Exception: any other, raised by mistake, so it is unknown whether the command was submitted;
                `find_submitted` is called, and what is not found is retried as after `SubmissionDeferred`.
        """

    def submit_array_to_batch_distributor(
        self, command: str, name: str, requested_resources: dict[str, Any], array_length: int
    ) -> Mapping[int, str] | Sequence[str]:
        """Submit a command `array_length` times.

        The worker finds its step by `ClusterWorkerNode.array_step_id`. If the request has `FIRST_STEP`, which is set
        only for plug-ins with `continues_arrays`, the steps begin there.

        Returns:
            Step -> id, or the ids in the order of steps. If only a part was accepted: an `ArraySubmission`, which says
            why the rest was not.

        Raises:
            ArraysUnsupported: the cluster has no arrays; nothing was submitted. See `has_arrays`.
            Exception: as in `submit_to_batch_distributor`, for the whole array.
        """
        raise ArraysUnsupported(f"Cluster {self.cluster_name!r} has no arrays.")

    @abstractmethod
    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """Return the ids that the cluster still lists."""

    def get_queueing_errors(self, distributor_ids: list[str]) -> dict[str, str]:
        """Return the ids of jobs that will never start, with the reason; the caller terminates them."""
        return {}

    @abstractmethod
    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """Terminate these jobs."""

    @abstractmethod
    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """Return how a job ended.

        Raises:
            RemoteExitInfoNotAvailable: the cluster does not know (yet).
        """

    def get_remote_exits(self, distributor_ids: Sequence[str]) -> dict[str, RemoteExit]:
        """Return how these jobs ended; jobs whose outcome the cluster does not know (yet) are left out."""
        result = {}
        for distributor_id in distributor_ids:
            try:
                status, message = self.get_remote_exit_info(distributor_id)
            except RemoteExitInfoNotAvailable:
                continue
            result[distributor_id] = RemoteExit(status=status, message=message)
        return result

    def find_submitted(self, tokens: Collection[str]) -> dict[str, dict[int, str]]:
        """Return what was submitted under these tokens: token -> step -> id. The base class does not keep tokens.

        A job that was submitted alone, not as an array, is step 0 of its token. Called by a distributor whose
        predecessor may have submitted jobs without reporting it, and after a submission that got no response.

        Raises:
            ClusterUnavailable: the cluster does not respond; the call is repeated later.
        """
        return {}

    def get_pending_reasons(self, distributor_ids: Collection[str]) -> dict[str, str]:
        """Return why jobs are waiting in the cluster's own queue, in the cluster's wording."""
        return {}

    def get_running_hosts(self, distributor_ids: Collection[str]) -> dict[str, str]:
        """Return which of these jobs run now, and where.

        A job that runs for a minute though its worker has not reached the server is reported to the user. Without an
        answer nothing is.
        """
        return {}

    def look(self, since: float) -> dict[str, Any]:
        """Poll the cluster about all jobs of this server; return its answer as JSON values.

        Runs concurrently with other methods, so it must not modify anything except `calls`.

        Args:
            since: include jobs that ended at or after this time, seconds since the epoch.

        Raises:
            ClusterUnavailable: the cluster does not respond, or its answer cannot be parsed.
        """
        raise ClusterUnavailable(f"Cluster {self.cluster_name!r} does not support polling all jobs at once.")

    def show(self, view: Mapping[str, Any]) -> None:
        """Answer queries about jobs from this view, which a distributor of this server obtained from `look`."""

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
    """Return the cores and the memory in GiB that a request counts as (0: no memory requested).

    Queues normalize requests. A queue class of a plug-in may leave a word or an unreadable value, which must not crash
    the distributor.
    """
    return (
        _amount(resource_rules.cores_number, requested.get("cores"), 1.0),
        _amount(resource_rules.memory_gib, requested.get("memory"), 0.0),
    )


def _amount(read: Callable[[object], float], value: object, otherwise: float) -> float:
    try:
        return read(value) if value else otherwise  # a word counts as nothing
    except JobmonError:
        return otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOffer:
    """The resources that a host agent may use to run the commands of a cluster on this machine.

    Args:
        cores: cores for all workflows that share `pool`.
        memory_gib: memory for commands that request memory, GiB.
        pool: name of the cores that several agents share; "": this agent has them to itself.
        is_whole: whether every command takes all cores, whatever it requests.
        devices: indexed or counted resources by name, with a token for each, such as the index of a GPU.
        is_direct: whether the plug-in runs the commands itself; it then determines cores and memory when it is started.
    """

    cores: float = 0.0
    memory_gib: float = 0.0
    pool: str = ""
    is_whole: bool = False
    devices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_direct: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One command to start now. `env` is added to the environment in which the agent was started."""

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
    """How a command exited. Exactly one of exit_code, signal, not_started and lost is set.

    `lost`: the process that ran the command is gone, and its outcome is unknown. Times are seconds since the epoch.
    """

    task_instance_id: int
    distributor_id: str
    exit_code: int | None = None
    signal: int | None = None
    not_started: str | None = None  # why the command could not be started
    lost: str | None = None
    timed_out: bool = False
    killed: bool = False  # it was interrupted while running: even exit code 0 does not mean that it finished
    started_at: float = 0.0
    ended_at: float = 0.0
    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    memory_limit_bytes: int | None = None  # it was killed because it used more than this


class JoblessDistributor(ClusterDistributor):
    """A cluster that accepts no jobs, because agents run its commands."""

    @property
    def worker_node_entry_point(self) -> str:
        """Empty: there is no worker."""
        return ""

    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """Reject the submission."""
        raise SubmissionRejected(f"Agents run the commands of cluster {self.cluster_name!r}; it accepts no jobs.")

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """Return nothing: there are no jobs."""
        return set()

    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """Do nothing: there are no jobs."""

    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """Raise an error: there are no jobs."""
        raise RemoteExitInfoNotAvailable(f"Cluster {self.cluster_name!r} has no job {distributor_id}.")


class DirectClusterDistributor(JoblessDistributor):
    """A cluster that runs commands itself, without a Jobmon worker for each. Lives in an agent of its own.

    No method blocks for longer than it takes to hand over a message.
    """

    def agent_offer(self) -> AgentOffer:
        """Offer to run the commands itself."""
        return AgentOffer(is_direct=True)

    @abstractmethod
    def slots(self) -> float:
        """Return how many cores' worth of commands may run at once."""

    def memory_gib(self) -> float | None:
        """Return the total memory in GiB for commands that request memory; None: memory is not counted."""
        return None

    def is_connected(self) -> bool:
        """Return whether the cluster's commands can be reached. If not, the agent calls `start` again."""
        return True

    @abstractmethod
    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """Terminate these commands."""

    @abstractmethod
    def spawn(self, launches: Sequence[Launch]) -> dict[int, str]:
        """Start these commands; return task_instance_id -> distributor id."""

    def collect_starts(self) -> dict[int, float] | None:
        """Return what was started since the last call, with the time; None: everything spawned starts at once."""
        return None

    @abstractmethod
    def collect_exits(self) -> list[Exit]:
        """Return the exits since the last call without waiting. They are kept until `acknowledge`."""

    def acknowledge(self, task_instance_ids: Sequence[int]) -> None:
        """Discard these exits: the server has recorded them."""

    @abstractmethod
    def adopt(self) -> dict[int, str]:
        """Return the live commands of the workflow: task_instance_id -> distributor id.

        An agent terminates those that a dead agent left before it starts any itself.
        """

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that is readable when `collect_exits` has something; -1: none, poll frequently instead.

        A replacement for the descriptor has a different number.
        """


class ClusterWorkerNode(ABC):
    """What a stand-alone worker needs to know about the node on which it runs."""

    @property
    @abstractmethod
    def distributor_id(self) -> str | None:
        """The cluster's id for this job."""

    @property
    @abstractmethod
    def array_step_id(self) -> int | None:
        """The array step that this job runs."""

    def get_usage_stats(self) -> dict[str, Any]:
        """Return what the cluster measured for this job, where it knows more than the kernel."""
        return {}

    def get_exit_info(self, exit_code: int, error_msg: str) -> tuple[TaskInstanceStatus, str]:
        """Return the status and message for an exit code on this cluster."""
        return TaskInstanceStatus.ERROR, error_msg

    def initialize_logfile(self, log_type: str, log_dir: str, name: str) -> str:
        """Return the path to which the command's `log_type` ("stdout", "stderr") is written."""
        return f"{log_dir}/{name}.{'o' if log_type == 'stdout' else 'e'}{self.distributor_id or ''}"


class JoblessWorkerNode(ClusterWorkerNode):
    """A node of a cluster that accepts no jobs."""

    @property
    def distributor_id(self) -> str | None:
        """None: nothing was submitted."""
        return None

    @property
    def array_step_id(self) -> int | None:
        """None: there are no arrays."""
        return None
