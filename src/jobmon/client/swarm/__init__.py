"""The swarm: decides which tasks of a running workflow are queued next.

`run` puts it together; `orchestrator` is the loop, over `services`, over `gateway` (the door to the server) and
`planning` (pure), over `state` (pure). Start with `state.py` and `planning.py`. Names are loaded when first used, so
that defining a workflow does not pay for running one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobmon.client.swarm.orchestrator import OrchestratorResult, WorkflowRunConfig
    from jobmon.client.swarm.run import resume_workflow_run, run_workflow

__all__ = ["OrchestratorResult", "WorkflowRunConfig", "resume_workflow_run", "run_workflow"]

_HOMES = {
    "OrchestratorResult": "orchestrator",
    "WorkflowRunConfig": "orchestrator",
    "resume_workflow_run": "run",
    "run_workflow": "run",
}


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
