"""What a worker asks of a Slurm node."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jobmon.core.cluster_protocol import ClusterWorkerNode
from jobmon.plugins.slurm.commands import DISTRIBUTOR_ID_VARIABLE, STEP_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping


class SlurmWorkerNode(ClusterWorkerNode):
    """A job of Slurm, as the job script describes it.

    Args:
        environment: of the job.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    @property
    def distributor_id(self) -> str | None:
        """The job's id as Slurm writes it, "12" or "12_3"; None outside of a job."""
        return self._environment.get(DISTRIBUTOR_ID_VARIABLE)

    @property
    def array_step_id(self) -> int | None:
        """The step of Jobmon's batch: Slurm's array may hold only a part of it."""
        step = self._environment.get(STEP_VARIABLE, "")
        return int(step) if step.isdecimal() else None
