"""How a packed batch is submitted to a cluster: the command of its jobs, and the request of each job. Pure.

The server decides and records whether a batch is packed, and into how many jobs (`core.packing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core import packing

if TYPE_CHECKING:
    from jobmon.core.wire.launching import JobPlan, LaunchBatch


def job_command(worker_command: str) -> str:
    """Return the command line of a worker that claims its tasks from the server."""
    return f"{worker_command} --packed yes"


def job_request(batch: LaunchBatch, plan: JobPlan) -> dict[str, Any]:
    """Return the resource request of each job."""
    return packing.job_request(batch.requested_resources, plan.width, plan.runtime_seconds)
