"""The swarm: decides which tasks of a running workflow are queued next.

`run` assembles the parts. `orchestrator` is the loop; it uses `services`, which use `gateway` (requests to the server)
and `planning` (pure), which use `state` (pure). Start with `state.py` and `planning.py`. Public names are loaded on
first use, so that a script that only defines a workflow does not import them.
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
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
