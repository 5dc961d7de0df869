"""Shared vocabulary: status letters, actors, causes. The only module in which a status letter is written out."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

#: The largest value of a 32-bit integer: "no limit" for concurrency.
MAX_CONCURRENTLY_RUNNING: Final = 2_147_483_647
DEFAULT_MAX_ATTEMPTS: Final = 3
#: Priorities are from -PRIORITY_MAX to PRIORITY_MAX.
PRIORITY_MAX: Final = 1_000
#: Maximum number of attributes of a task or workflow.
ATTRIBUTES_MAX: Final = 1_000
DEFAULT_CLUSTER_NAME: Final = "multiprocess"
#: Version of the messages between client and server: raised when a client needs a route that older servers do not have
#: (2: agents). Jobs of an older version may still report to a newer server.
MESSAGE_VERSION: Final = 2
LOG_TAIL_BYTES_MAX: Final = 10 * 1024
#: Parameters of `create_task` and `create_tasks`: a template argument with such a name could never be given.
RESERVED_NAMES: Final = frozenset(
    {
        "self",
        "name",
        "upstream_tasks",
        "task_attributes",
        "max_attempts",
        "compute_resources",
        "compute_resources_callable",
        "resource_scales",
        "cluster_name",
        "fallback_queues",
        "max_concurrently_running",
    }
)


class TaskStatus(StrEnum):
    """States of a task: the intent to run one command."""

    REGISTERING = "G"
    QUEUED = "Q"
    INSTANTIATING = "I"
    LAUNCHED = "O"
    RUNNING = "R"
    DONE = "D"
    ERROR_RECOVERABLE = "E"
    ADJUSTING_RESOURCES = "A"
    ERROR_FATAL = "F"
    SKIPPED = "S"
    REMOVED = "X"


class TaskKind(StrEnum):
    """Kinds of tasks: a command, or an expansion, which adds tasks while the workflow runs."""

    COMMAND = "C"
    EXPANSION = "E"


class TaskInstanceStatus(StrEnum):
    """States of a task instance: one attempt at a task."""

    QUEUED = "Q"
    INSTANTIATED = "I"
    LAUNCHED = "O"
    RUNNING = "R"
    DONE = "D"
    ERROR = "E"
    ERROR_FATAL = "F"
    TRIAGING = "T"
    KILL_SELF = "K"
    UNKNOWN_ERROR = "U"
    NO_DISTRIBUTOR_ID = "W"
    NO_HEARTBEAT = "X"
    RESOURCE_ERROR = "Z"


class WorkflowRunStatus(StrEnum):
    """States of a workflow run: one start or resume of a workflow."""

    REGISTERED = "G"
    LINKING = "L"
    BOUND = "B"
    ABORTED = "A"
    INSTANTIATED = "I"
    LAUNCHED = "O"
    RUNNING = "R"
    DONE = "D"
    STOPPED = "S"
    ERROR = "E"
    COLD_RESUME = "C"
    HOT_RESUME = "H"
    TERMINATED = "T"


class WorkflowStatus(StrEnum):
    """States of a workflow: `workflow_args`, a DAG and its tasks."""

    REGISTERING = "G"
    QUEUED = "Q"
    ABORTED = "A"
    INSTANTIATING = "I"
    LAUNCHED = "O"
    RUNNING = "R"
    DONE = "D"
    HALTED = "H"
    FAILED = "F"


class AgentStatus(StrEnum):
    """States of an agent, a program that runs the commands of attempts that it claimed."""

    ACTIVE = "A"
    DRAINING = "D"
    CLOSED = "C"
    LOST = "L"


class Actor(StrEnum):
    """Who may request a transition."""

    CLIENT = "client"
    DISTRIBUTOR = "distributor"
    WORKER = "worker"
    SERVER = "server"
    REAPER = "reaper"
    USER = "user"


class Cause(StrEnum):
    """Why an attempt ended other than by finishing its command. Stored with the attempt."""

    EXIT_CODE = "exit code"
    SIGNAL = "signal"
    COMMAND_NOT_STARTED = "command not started"
    INPUT_MISSING = "input missing"
    OUTPUT_MISSING = "output missing"
    OUT_OF_MEMORY = "out of memory"
    OUT_OF_TIME = "out of time"
    NODE_FAILURE = "node failure"
    PREEMPTED = "preempted"
    REQUEUED = "requeued"
    KILLED = "killed"
    KILLED_FOR_RESUME = "killed for resume"
    WORKER_LOST = "worker lost"
    NEVER_CONNECTED = "worker never connected"
    NO_PYTHON = "no usable Python"
    SUPERVISOR_LOST = "supervisor lost"
    KILLED_ITS_PARENT = "killed its parent"
    NO_DISTRIBUTOR_ID = "no distributor id"
    NO_HEARTBEAT = "no heartbeat"
    SUBMISSION_FAILED = "submission failed"


class MaxConcurrentlyRunning:
    """The concurrency limit that means "no limit", under the name that existing scripts use."""

    MAXCONCURRENTLYRUNNING: Final = MAX_CONCURRENTLY_RUNNING


class SetAction(StrEnum):
    """What can be done with a set of tasks."""

    HOLD = "hold"
    RELEASE = "release"
    RERUN = "rerun"
    SKIP = "skip"
    MARK_DONE = "mark done"
    PRIORITY = "priority"
    EDIT = "edit"


class EndReason(StrEnum):
    """Why a run ended before its workflow was complete, if its status does not tell. Stored with the run."""

    TIMED_OUT = "timed out"
    INTERRUPTED = "interrupted"  # its client died, or its machine was switched off


class ResourceType(StrEnum):
    """What a stored request is: as requested, as validated against the queue, or as raised after a resource error."""

    ORIGINAL = "original"
    VALIDATED = "validated"
    ADJUSTED = "adjusted"
