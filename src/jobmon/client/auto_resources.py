"""Requests that say "auto": as much as earlier tasks of the template used.

The 95th percentile of what its finished tasks used, over all workflows, plus the margins of `core.sizing`. So about one
task in twenty may use more than that statistic (fewer, thanks to the margin); it is then raised and tried again like
any other. Until there are `HISTORY_TASKS_MIN` finished tasks nothing is asked for: the queue's default counts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import sizing
from jobmon.core.resources import AUTO_KEYS, is_auto
from jobmon.core.wire.monitoring import UsageRequest, UsageResponse

if TYPE_CHECKING:
    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.core.requester import Requester
    from jobmon.core.resources import Resources

logger = logging.getLogger(__name__)

AUTO_PERCENTILE: Final = 95.0
#: With fewer finished tasks a high percentile says nothing.
HISTORY_TASKS_MIN: Final = 20


class AutoRequests:
    """Looks up what templates used; each template once."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester
        self._proposals: dict[int, dict[str, Any]] = {}

    def resolved(self, version: TaskTemplateVersion, requested: Resources) -> Resources:
        """Replace "auto" by what the history says, or leave the resource out where that is too short."""
        wanted = [key for key in AUTO_KEYS if is_auto(requested.get(key))]
        if not wanted:
            return requested
        proposal = self._proposal(version)
        plain = {key: value for key, value in requested.items() if key not in wanted}
        return plain | {key: proposal[key] for key in wanted if key in proposal}

    def _proposal(self, version: TaskTemplateVersion) -> dict[str, Any]:
        key = id(version)
        if key not in self._proposals:
            self._proposals[key] = self._asked(version)
        return self._proposals[key]

    def _asked(self, version: TaskTemplateVersion) -> dict[str, Any]:
        from jobmon.client import records

        if version.id is None:
            records.record_templates(version.template.tool_version, [version])
        route = f"/task_template_versions/{version.id}/resource_usage"
        usage = self._requester.call(route, UsageRequest(percentiles=[AUTO_PERCENTILE]), UsageResponse)
        if usage.num_tasks < HISTORY_TASKS_MIN:
            logger.info(
                "Resources 'auto' of template %r: only %d of its tasks have finished (%d are needed); it asks for the"
                " queue's defaults.",
                *(version.name, usage.num_tasks, HISTORY_TASKS_MIN),
            )
            return {}
        request = proposal_of(usage).as_request()
        logger.info(
            "Resources 'auto' of template %r: %s. %g %% of %d finished tasks used no more, margin not counted; the"
            " accepted probability that a first attempt fails is %g %%.",
            *(version.name, request, AUTO_PERCENTILE, usage.num_tasks, 100 - AUTO_PERCENTILE),
        )
        return request


def proposal_of(usage: UsageResponse) -> sizing.Proposal:
    """Return a request from the one percentile that was asked for."""
    return sizing.Proposal(
        cores=sizing.proposed_cores(usage.percentiles_cores[0]) if usage.percentiles_cores else None,
        memory_gib=sizing.proposed_memory(usage.percentiles_mem[0]) if usage.percentiles_mem else None,
        runtime_seconds=sizing.proposed_runtime(usage.percentiles_runtime[0]) if usage.percentiles_runtime else None,
    )
