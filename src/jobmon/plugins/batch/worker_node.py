"""A batch cluster's node as seen by a worker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jobmon.core.cluster_protocol import ClusterWorkerNode
from jobmon.plugins.batch.submission import DISTRIBUTOR_ID_VARIABLE, STEP_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping


class BatchWorkerNode(ClusterWorkerNode):
    """A job as described by its job script.

    Args:
        environment: the environment of the job.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    @property
    def distributor_id(self) -> str | None:
        """The job's id in the scheduler's format, "12" or "12_3"; None outside a job."""
        return self._environment.get(DISTRIBUTOR_ID_VARIABLE)

    @property
    def array_step_id(self) -> int | None:
        """The step within Jobmon's batch; the scheduler's array may contain only a part of the batch."""
        step = self._environment.get(STEP_VARIABLE, "")
        return int(step) if step.isdecimal() else None
