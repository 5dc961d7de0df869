"""How a packed batch is put to a cluster: the command of its jobs, and what each of them asks for. Pure.

Whether a batch is packed, and into how many jobs, was decided and recorded by the server (`core.packing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core import packing

if TYPE_CHECKING:
    from jobmon.core.wire.launching import JobPlan, LaunchBatch


def job_command(worker_command: str) -> str:
    """Return the command line of a worker that takes its tasks from the server."""
    return f"{worker_command} --packed yes"


def job_request(batch: LaunchBatch, plan: JobPlan) -> dict[str, Any]:
    """Return what each job asks for."""
    return packing.job_request(batch.requested_resources, plan.width, plan.runtime_seconds)
