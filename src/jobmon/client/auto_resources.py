"""Requests with the value "auto": as much as earlier tasks of the template used.

The request is the 95th percentile of the usage of the template's newest finished tasks, over all workflows, plus the
margins of `core.sizing`. If a node argument makes a difference, only tasks with the same value of it count. About one
task in twenty may therefore use more than that percentile (fewer, thanks to the margin); its request is then raised and
it is retried like any other task. Until there are `HISTORY_TASKS_MIN` finished tasks, nothing is requested, and the
queue's default applies.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import sizing
from jobmon.core.resources import UNITS, is_auto
from jobmon.core.wire.sizing import HistoryResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.client.task import Task
    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.core.requester import Requester
    from jobmon.core.resources import Resources

logger = logging.getLogger(__name__)

AUTO_SHARE: Final = 0.95
#: With fewer finished tasks, a high percentile is meaningless.
HISTORY_TASKS_MIN: Final = 20


@dataclass(frozen=True, slots=True)
class Advice:
    """The request in general, and by value of the deciding node argument; `place` is its position in the values."""

    general: dict[str, Any] = field(default_factory=dict)
    place: int | None = None
    by_value: dict[str, dict[str, Any]] = field(default_factory=dict)


class AutoRequests:
    """Looks up the usage of templates, once for each template."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester
        self._advice: dict[int, Advice] = {}

    def kind_of(self, task: Task) -> str | None:
        """Return the value on which the request of a task depends in addition to its options; None if there is none."""
        if not any(is_auto(task.compute_resources.get(key)) for key in UNITS):
            return None
        advice = self._advice_for(task.template_version)
        if advice.place is None:
            return None
        value = task.values[advice.place]
        return value if value in advice.by_value else None

    def resolved(self, task: Task, requested: Resources) -> Resources:
        """Replace "auto" by the request derived from the history, or omit the resource if the history is too short."""
        wanted = [key for key in UNITS if is_auto(requested.get(key))]
        if not wanted:
            return requested
        advice = self._advice_for(task.template_version)
        proposal = advice.general
        if advice.place is not None:
            proposal = advice.by_value.get(task.values[advice.place], proposal)
        plain = {key: value for key, value in requested.items() if key not in wanted}
        return plain | {key: proposal[key] for key in wanted if key in proposal}

    def _advice_for(self, version: TaskTemplateVersion) -> Advice:
        key = id(version)
        if key not in self._advice:
            self._advice[key] = self._asked(version)
        return self._advice[key]

    def _asked(self, version: TaskTemplateVersion) -> Advice:
        from jobmon.client import api_calls

        if version.id is None:
            api_calls.record_templates(version.template.tool_version, [version])
        route = f"/task_template_versions/{version.id}/history"
        found = self._requester.call(route, None, HistoryResponse, "get")
        if len(found.seconds) < HISTORY_TASKS_MIN:
            logger.info(
                "Resources 'auto' of template %r: only %d of its tasks have finished (%d are needed); it requests the"
                " queue's defaults.",
                *(version.name, len(found.seconds), HISTORY_TASKS_MIN),
            )
            return Advice()
        advice, argument = advice_from(found, version.arguments.node_args)
        logger.info(
            "Resources 'auto' of template %r: %s%s. %g %% of %d finished tasks used no more, margin not counted; the"
            " accepted probability that a first attempt fails is %g %%.",
            *(version.name, advice.general, f", by {argument}: {advice.by_value}" if argument else ""),
            *(AUTO_SHARE * 100, len(found.seconds), round((1 - AUTO_SHARE) * 100, 3)),
        )
        return advice


def advice_from(found: HistoryResponse, node_args: Sequence[str]) -> tuple[Advice, str | None]:
    """Return the request, and the name of the deciding node argument."""
    columns = zip(found.seconds, found.cpu_seconds, found.memory_gib, strict=True)
    history = [sizing.Used(*row) for row in columns]
    named = {name: found.node_args[name] for name in node_args if name in found.node_args}
    argument = sizing.deciding_argument(history, named, AUTO_SHARE, HISTORY_TASKS_MIN)
    if argument is None:
        return Advice(_proposal(history)), None
    groups = sizing.groups_by(named[argument], history, HISTORY_TASKS_MIN)
    by_value = {value: _proposal(group) for value, group in groups.items()}
    return Advice(_proposal(history), node_args.index(argument), by_value), argument


def _proposal(history: Sequence[sizing.Used]) -> dict[str, Any]:
    strategy = sizing.Strategy(f"q{AUTO_SHARE * 100:g}", AUTO_SHARE)
    return sizing.propose(history, strategy, strategy, strategy).as_request()
