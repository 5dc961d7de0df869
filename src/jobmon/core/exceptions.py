"""All errors that Jobmon raises.

JobmonError
├── ConfigError (ValueError)
│   └── UntrustedFile                    another user could have planted a file or folder
├── InvalidResponse                      the server's response cannot be parsed, or the server failed
├── InvalidRequest                       the server rejected the request and says why
│   ├── StaleRun                         the run was replaced by a newer one (fenced off)
│   ├── AttemptOver                      the attempt has ended, or is to be terminated
│   └── AttemptUnknown                   the server has no such attempt
├── ServerUnavailable                    no response from the server
├── TransitionError
│   └── InvalidStateTransition
├── WorkflowRunStateError
│   └── ResumeSet
├── WorkflowAlreadyExists
│   └── WorkflowChanged                  recorded with a different definition
├── WorkflowVersionConflict              another client changed it in the meantime
├── WorkflowAlreadyComplete, WorkflowNotResumable, EmptyWorkflowError
├── NodeDependencyNotExistError, DuplicateNodeArgsError, DuplicateOutputError, CyclicGraphError   (ValueError)
├── InvalidMemoryFormat (ValueError)
│   └── InvalidMemoryUnit
├── InvalidResources (ValueError)
├── CallableReturnedInvalidObject (ValueError)
├── RemoteExitInfoNotAvailable
├── ClusterUnavailable
│   ├── ClusterFull
│   └── SubmissionDeferred
├── SubmissionRejected
├── ClusterUnusable
├── ArraysUnsupported
├── DistributorStartupTimeout, DistributorNotAlive, DistributorUnexpected, DistributorInterruptedError
├── PluginError
└── WorkflowTestError

The class docstring is the default message.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from jobmon.core.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class JobmonError(Exception):
    """Something went wrong in Jobmon."""

    #: Status and content (None: not a `Problem`) of the server's response that caused this error, if any.
    answer: tuple[int, dict[str, Any] | None] | None = None
    #: Values for programs, such as the id of a workflow.
    details: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, message: str | None = None) -> None:
        text = message if message is not None else (type(self).__doc__ or type(self).__name__)
        super().__init__(plain(text))  # the message may quote untrusted text


class ConfigError(JobmonError, ValueError):
    """A setting is missing or invalid."""


class UntrustedFile(ConfigError):
    """Another user could have planted this file or folder; it is not read."""


class InvalidResponse(JobmonError):
    """The server's response cannot be parsed."""


class InvalidRequest(JobmonError):
    """The server rejected the request."""


class StaleRun(InvalidRequest):
    """This workflow run was replaced by a newer one; it may not queue or launch anything more."""


class AttemptOver(InvalidRequest):
    """The attempt has ended, or is to be terminated; nothing more can be reported about it."""


class AttemptUnknown(InvalidRequest):
    """The server has no such attempt."""


class ServerUnavailable(JobmonError):
    """The Jobmon server does not respond."""


class TransitionError(JobmonError):
    """A status change was rejected."""


class InvalidStateTransition(TransitionError):
    """This status change is not in the table of transitions."""

    @classmethod
    def of(cls, machine: str, identity: object, source: str, target: str) -> InvalidStateTransition:
        """Return an error that names the machine, the row and both states."""
        return cls(f"{machine} {identity} cannot go from {source} to {target}.")


class WorkflowRunStateError(JobmonError):
    """The status of the workflow run does not allow this operation."""


class ResumeSet(WorkflowRunStateError):
    """Another client is resuming this workflow; this run stops."""


class WorkflowAlreadyExists(JobmonError):
    """A workflow with these workflow_args and tasks exists already; pass resume=True to continue it."""


class WorkflowChanged(WorkflowAlreadyExists):
    """The workflow is recorded with a different definition. `plan` says what a run with the new one would do."""

    #: The `jobmon.client.plan.Plan`.
    plan: Any = None


class WorkflowVersionConflict(JobmonError):
    """The workflow was changed in the meantime; plan again."""


class WorkflowAlreadyComplete(JobmonError):
    """This workflow is already complete; change workflow_args to run it again."""


class WorkflowNotResumable(JobmonError):
    """The workflow cannot be resumed now."""


class EmptyWorkflowError(JobmonError, RuntimeError):
    """The workflow has no tasks; add some with workflow.add_tasks()."""


class NodeDependencyNotExistError(JobmonError, ValueError):
    """A task depends on a task that is not in the workflow."""


class DuplicateNodeArgsError(JobmonError, ValueError):
    """Two tasks of one template have the same node args."""


class DuplicateOutputError(JobmonError, ValueError):
    """Two tasks declare the same output."""


class CyclicGraphError(JobmonError, ValueError):
    """The dependencies form a cycle."""


class InvalidMemoryFormat(JobmonError, ValueError):
    """The memory request cannot be read; write a number of GiB or e.g. "512M", "1.5G", "2 GiB"."""


class InvalidMemoryUnit(InvalidMemoryFormat):
    """The unit of the memory request is unknown; use one of B, K, M, G, T, P (or KiB, MiB, ...)."""


class InvalidResources(JobmonError, ValueError):
    """A resource request cannot be met or read."""


class CallableReturnedInvalidObject(JobmonError, ValueError):
    """compute_resources_callable must return a dict of resources."""


class RemoteExitInfoNotAvailable(JobmonError):
    """The cluster does not (yet) know how the job ended."""


class ClusterUnavailable(JobmonError):
    """The cluster does not respond, or its response cannot be parsed; the call is retried and fails no task."""


class ClusterFull(ClusterUnavailable):
    """The cluster accepts no more jobs now; nothing was submitted. The submission is retried and fails no task."""


class SubmissionDeferred(ClusterUnavailable):
    """The cluster failed to accept a submission, for a reason that may be transient; nothing was submitted.

    It is retried with growing pauses for `distributor.submission_retry_timeout`, then rejected; no attempt is charged.
    """


class SubmissionRejected(JobmonError):
    """The cluster permanently rejects a submission, so retrying is pointless; the task fails with this text."""


class ClusterUnusable(JobmonError):
    """The program that runs commands on this cluster cannot be started; restarting the distributor does not help."""


class ArraysUnsupported(JobmonError):
    """The cluster has no arrays; jobs are submitted one by one."""


class DistributorStartupTimeout(JobmonError):
    """The distributor did not start in time."""


class DistributorNotAlive(JobmonError):
    """The distributor died and could not be started again."""


class DistributorUnexpected(JobmonError):
    """The distributor sent an unexpected response."""


class DistributorInterruptedError(JobmonError):
    """The workflow was interrupted by the user."""


class PluginError(JobmonError):
    """A cluster plug-in cannot be loaded or lacks part of the interface."""


class WorkflowTestError(JobmonError):
    """The test hook fail_after_n_executions stopped the workflow."""
