"""All errors that Jobmon raises.

JobmonError
├── ConfigError (ValueError)
├── InvalidResponse                      the server answered something we do not understand, or failed
├── InvalidRequest                       the server refused the request and says why
│   └── StaleRun                         the run was replaced by a newer one (fenced off)
├── ServerUnavailable                    no answer from the server
├── TransitionError
│   └── InvalidStateTransition
├── WorkflowRunStateError
│   └── ResumeSet
├── WorkflowAlreadyExists, WorkflowAlreadyComplete, WorkflowNotResumable, EmptyWorkflowError
├── NodeDependencyNotExistError, DuplicateNodeArgsError, CyclicGraphError   (ValueError)
├── InvalidMemoryFormat (ValueError)
│   └── InvalidMemoryUnit
├── InvalidResources (ValueError)
├── CallableReturnedInvalidObject (ValueError)
├── RemoteExitInfoNotAvailable
├── ClusterUnavailable
├── DistributorStartupTimeout, DistributorNotAlive, DistributorUnexpected, DistributorInterruptedError
├── PluginError
└── WorkflowTestError

The class docstring is the default message.
"""

from __future__ import annotations


class JobmonError(Exception):
    """Something went wrong in Jobmon."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else (type(self).__doc__ or type(self).__name__))


class ConfigError(JobmonError, ValueError):
    """A setting is missing or cannot be understood."""


class InvalidResponse(JobmonError):
    """The server's answer cannot be understood."""


class InvalidRequest(JobmonError):
    """The server refused the request."""


class StaleRun(InvalidRequest):
    """This workflow run was replaced by a newer one; it may not queue or launch any more."""


class ServerUnavailable(JobmonError):
    """The Jobmon server does not answer."""


class TransitionError(JobmonError):
    """A change of status was refused."""


class InvalidStateTransition(TransitionError):
    """This change of status is not in the table of transitions."""

    @classmethod
    def of(cls, machine: str, identity: object, source: str, target: str) -> InvalidStateTransition:
        """Name the machine, the row and both states."""
        return cls(f"{machine} {identity} cannot go from {source} to {target}.")


class WorkflowRunStateError(JobmonError):
    """The workflow run is in a state in which this cannot be done."""


class ResumeSet(WorkflowRunStateError):
    """Another client resumes this workflow; this run ends."""


class WorkflowAlreadyExists(JobmonError):
    """A workflow with these workflow_args and tasks exists already; pass resume=True to continue it."""


class WorkflowAlreadyComplete(JobmonError):
    """This workflow is already complete; change workflow_args to run it again."""


class WorkflowNotResumable(JobmonError):
    """The workflow cannot be resumed now."""


class EmptyWorkflowError(JobmonError):
    """The workflow has no tasks; add some with workflow.add_tasks()."""


class NodeDependencyNotExistError(JobmonError, ValueError):
    """A task depends on a task that is not in the workflow."""


class DuplicateNodeArgsError(JobmonError, ValueError):
    """Two tasks of one template have the same node args."""


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
    """The cluster does not answer, or not in a way that can be understood: asked again later, no task fails by it."""


class ClusterFull(ClusterUnavailable):
    """The cluster takes no further jobs now; nothing was submitted. Tried again later, no task fails by it."""


class DistributorStartupTimeout(JobmonError):
    """The distributor did not start in time."""


class DistributorNotAlive(JobmonError):
    """The distributor died and could not be started again."""


class DistributorUnexpected(JobmonError):
    """The distributor answered something unexpected."""


class DistributorInterruptedError(JobmonError):
    """The workflow was interrupted by the user."""


class PluginError(JobmonError):
    """A cluster plug-in cannot be loaded or lacks part of the interface."""


class WorkflowTestError(JobmonError):
    """The test hook fail_after_n_executions stopped the workflow."""
