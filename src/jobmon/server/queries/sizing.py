"""What the tasks of a workflow asked for, used and wasted, per template; what to ask for instead.

Sums come from the database in groups of attempts with one request that ended alike, so that a million attempts are a
few rows; statistics from the newest finished attempts, at most `SAMPLES_MAX`.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import sizing
from jobmon.core.constants import Cause, TaskInstanceStatus, TaskStatus
from jobmon.core.exceptions import InvalidResources
from jobmon.core.resources import UNITS, Limits
from jobmon.core.wire.sizing import Figures, HistoryResponse, SizingResponse, TemplateSizing, Waste
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries.presence import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.core.wire.sizing import SizingRequest
    from jobmon.server.sql import Session

SAMPLES_MAX: Final = 20_000
HISTORY_TASKS_MAX: Final = 5_000
GIB: Final = 1024.0**3
SECONDS_PER_HOUR: Final = 3600.0
_KILLED: Final = frozenset(
    {
        Cause.OUT_OF_MEMORY.value,
        Cause.OUT_OF_TIME.value,
        Cause.KILLED.value,
        Cause.KILLED_FOR_RESUME.value,
        Cause.PREEMPTED.value,
    }
)
_RESOURCE_CAUSES: Final = (Cause.OUT_OF_MEMORY.value, Cause.OUT_OF_TIME.value)

_ARRAYS: Final = """
SELECT a.id, a.name, a.task_template_version_id, l.name FROM task_array a
JOIN task_template_version v ON v.id = a.task_template_version_id
JOIN task_template p ON p.id = v.task_template_id
JOIN tool_version n ON n.id = p.tool_version_id JOIN tool l ON l.id = n.tool_id
WHERE a.workflow_id = :workflow ORDER BY a.id
"""
_SUMS: Final = """
       COUNT(*), SUM(ti.wallclock_seconds), SUM(COALESCE(ti.cpu_seconds, 0)),
       SUM(ti.wallclock_seconds * COALESCE(ti.max_rss_bytes, 0))
"""
_OF_WORKFLOW: Final = """
FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id JOIN task t ON t.id = ti.task_id
WHERE r.workflow_id = :workflow AND ti.wallclock_seconds IS NOT NULL
"""
_OF_TASK: Final = """
FROM task t JOIN task_instance ti ON ti.task_id = t.id
WHERE t.workflow_id = :workflow AND t.id = :task AND ti.wallclock_seconds IS NOT NULL
"""
# Most attempts are done: grouped by little, because sorting them is what takes the time.
_DONE_GROUPS: Final = f"""
SELECT t.array_id, ti.task_resources_id, :attempt_done, NULL, {_SUMS} {{source}} AND ti.status = :attempt_done
GROUP BY t.array_id, ti.task_resources_id
"""
_OTHER_GROUPS: Final = f"""
SELECT t.array_id, ti.task_resources_id, ti.status, ti.cause, {_SUMS} {{source}} AND ti.status IN (:others...)
GROUP BY t.array_id, ti.task_resources_id, ti.status, ti.cause
"""
_OTHERS: Final = [status.value for status in TaskInstanceStatus if status is not TaskInstanceStatus.DONE]
_SAMPLES: Final = """
SELECT t.array_id, ti.wallclock_seconds, ti.cpu_seconds, ti.max_rss_bytes
FROM task t JOIN task_instance ti ON ti.task_id = t.id AND ti.number = t.attempt_count
WHERE t.workflow_id = :workflow AND t.status = :task_done AND ti.status = :attempt_done
  AND ti.wallclock_seconds IS NOT NULL {condition}
ORDER BY t.status_at DESC LIMIT :most
"""
_REQUESTS: Final = """
SELECT r.id, r.requested, c.name, q.name, q.parameters FROM task_resources r
JOIN queue q ON q.id = r.queue_id JOIN cluster c ON c.id = q.cluster_id WHERE r.id IN (:ids...)
"""


_HISTORY: Final = """
SELECT t.node_id, ti.wallclock_seconds, ti.cpu_seconds, ti.max_rss_bytes
FROM task_array a JOIN task t ON t.workflow_id = a.workflow_id AND t.array_id = a.id
JOIN task_instance ti ON ti.task_id = t.id AND ti.number = t.attempt_count
WHERE a.task_template_version_id = :version AND t.status = :task_done AND ti.status = :attempt_done
  AND ti.wallclock_seconds IS NOT NULL
ORDER BY t.id DESC LIMIT :most
"""
_NODE_ARGS: Final = """
SELECT n.node_id, g.name, n.value FROM node_arg n JOIN argument g ON g.id = n.argument_id
WHERE n.node_id IN (:nodes...)
"""


@dataclass(frozen=True, slots=True)
class _Request:
    """What attempts asked for."""

    asked: dict[str, Any]
    cluster: str
    queue: str
    parameters: dict[str, Any]

    @property
    def cores(self) -> float:
        return float(self.asked.get("cores") or 1)

    @property
    def memory(self) -> float:
        return float(self.asked.get("memory") or 0)


@dataclass(frozen=True, slots=True)
class _Group:
    """Attempts with one request that ended alike. `byte_seconds`: of memory used."""

    request: _Request
    status: str
    cause: str | None
    count: int
    seconds: float
    cpu_seconds: float
    byte_seconds: float

    @property
    def cores(self) -> sizing.Account:
        return self._account(self.request.cores * self.seconds, self.cpu_seconds)

    @property
    def memory(self) -> sizing.Account:
        return self._account(self.request.memory * self.seconds, self.byte_seconds / GIB)

    def _account(self, held: float, used: float) -> sizing.Account:
        hours = held / SECONDS_PER_HOUR, used / SECONDS_PER_HOUR
        is_done = self.status == TaskInstanceStatus.DONE
        return sizing.account(*hours, is_done=is_done, is_killed=self.cause in _KILLED)


@dataclass(slots=True)
class _Template:
    """What is known of one array."""

    name: str
    version_id: int
    tool_name: str
    groups: list[_Group] = field(default_factory=list)
    history: list[sizing.Used] = field(default_factory=list)


def workflow_sizing(session: Session, workflow_id: int, request: SizingRequest) -> SizingResponse:
    """Account for the attempts of a workflow and propose requests.

    Raises:
        NotFound: there is no such workflow, or no such task in it.
        InvalidValue: a strategy is unknown.
    """
    strategies = _strategies(request)
    require(session, "workflow", workflow_id)
    if request.task_id is not None:
        _require_task(session, workflow_id, request.task_id)
    templates = _templates(session, workflow_id, request.task_id)
    return SizingResponse(
        workflow_id=workflow_id,
        templates=[_sized(template, strategies) for template in templates if template.groups],
    )


def template_history(session: Session, version_id: int) -> HistoryResponse:
    """Return what the newest finished tasks of a template version used.

    Raises:
        NotFound: there is no such version.
    """
    require(session, "task_template_version", version_id)
    done = {"task_done": TaskStatus.DONE.value, "attempt_done": TaskInstanceStatus.DONE.value}
    rows = session.rows(_HISTORY, version=version_id, **done, most=HISTORY_TASKS_MAX)
    values: dict[str, dict[int, str]] = defaultdict(dict)
    nodes = sorted({row[0] for row in rows})
    for node_id, name, value in session.rows(_NODE_ARGS, nodes=nodes) if nodes else ():
        values[name][node_id] = value
    return HistoryResponse(
        seconds=[row[1] for row in rows],
        cpu_seconds=[row[2] for row in rows],
        memory_gib=[None if row[3] is None else row[3] / GIB for row in rows],
        node_args={name: [by_node.get(row[0], "") for row in rows] for name, by_node in sorted(values.items())},
    )


def _strategies(request: SizingRequest) -> tuple[sizing.Strategy, sizing.Strategy, sizing.Strategy]:
    try:
        return (
            sizing.Strategy.read(request.memory_strategy),
            sizing.Strategy.read(request.cores_strategy),
            sizing.Strategy.read(request.runtime_strategy),
        )
    except InvalidResources as error:
        raise InvalidValue(str(error)) from error


def _require_task(session: Session, workflow_id: int, task_id: int) -> None:
    if session.value("SELECT workflow_id FROM task WHERE id = :id", id=task_id) != workflow_id:
        raise NotFound.of(f"task of workflow {workflow_id} with id", task_id)


def _templates(session: Session, workflow_id: int, task_id: int | None) -> Iterable[_Template]:
    templates = {array_id: _Template(*row) for array_id, *row in session.rows(_ARRAYS, workflow=workflow_id)}
    condition = "" if task_id is None else "AND t.id = :task"
    values = {"workflow": workflow_id} | ({} if task_id is None else {"task": task_id})
    done = {"task_done": TaskStatus.DONE.value, "attempt_done": TaskInstanceStatus.DONE.value}
    source = _OF_WORKFLOW if task_id is None else _OF_TASK
    groups = session.rows(_DONE_GROUPS.format(source=source), **values, attempt_done=done["attempt_done"])
    groups += session.rows(_OTHER_GROUPS.format(source=source), **values, others=_OTHERS)
    requests = _requests(session, {row[1] for row in groups})
    # by request, so that the one that was made last is looked at last
    for array_id, resources_id, status, cause, count, seconds, cpu, held in sorted(groups, key=itemgetter(1)):
        group = _Group(requests[resources_id], status, cause, int(count), float(seconds), float(cpu), float(held))
        templates[array_id].groups.append(group)
    for array_id, seconds, cpu, peak in session.rows(
        _SAMPLES.format(condition=condition), **values, **done, most=SAMPLES_MAX
    ):
        used = sizing.Used(seconds, cpu, None if peak is None else peak / GIB)
        templates[array_id].history.append(used)
    return templates.values()


def _requests(session: Session, ids: set[int]) -> dict[int, _Request]:
    rows = session.rows(_REQUESTS, ids=sorted(ids)) if ids else ()
    return {row[0]: _Request(json.loads(row[1]), row[2], row[3], json.loads(row[4])) for row in rows}


def _sized(template: _Template, strategies: tuple[sizing.Strategy, sizing.Strategy, sizing.Strategy]) -> TemplateSizing:
    history = template.history
    memory, cores, runtime = strategies
    proposal = sizing.propose(history, memory, cores, runtime).within(_allowed(template.groups))
    asked = _asked(template.groups)
    core_hours = sum((group.cores for group in template.groups), sizing.Account())
    gib_hours = sum((group.memory for group in template.groups), sizing.Account())
    needed_hours = _needed_seconds(template.groups) / SECONDS_PER_HOUR
    return TemplateSizing(
        template_name=template.name,
        task_template_version_id=template.version_id,
        tool_name=template.tool_name,
        queues={group.request.cluster: group.request.queue for group in template.groups},
        attempts=sum(group.count for group in template.groups),
        measured=len(history),
        memory_requested=_figures(asked["memory"]),
        memory_used=_figures([used.memory_gib for used in history if used.memory_gib is not None]),
        cores_requested=_figures(asked["cores"]),
        cores_used=_figures([used.cores for used in history if used.cores is not None]),
        runtime_requested=_figures(asked["runtime"]),
        runtime_used=_figures([used.seconds for used in history]),
        core_hours=_waste(core_hours),
        gib_hours=_waste(gib_hours),
        proposed=proposal.as_request(),
        saved_core_hours=0.0 if proposal.cores is None else core_hours.held - needed_hours * proposal.cores,
        saved_gib_hours=_saved_memory(gib_hours, needed_hours, proposal.memory_gib),
        would_kill=sizing.killed_by(proposal, history),
    )


def _allowed(groups: Sequence[_Group]) -> dict[str, float | None]:
    """Return the most that one of the queues where they ran allows: a proposal has to be of use there."""
    queues = {(group.request.cluster, group.request.queue): group.request.parameters for group in groups}.values()
    maxima = {key: [Limits.read(key, queue).maximum for queue in queues] for key in UNITS}
    return {key: None if None in found else max(found) for key, found in maxima.items()}  # type: ignore[type-var]


def _asked(groups: Sequence[_Group]) -> dict[str, list[float]]:
    """Return the distinct requests for each resource; weights do not matter for their range."""
    asked: dict[str, list[float]] = defaultdict(list)
    for request in {id(group.request): group.request for group in groups}.values():
        for key in UNITS:
            if request.asked.get(key) is not None:
                asked[key].append(float(request.asked[key]))
    return asked


def _needed_seconds(groups: Iterable[_Group]) -> float:
    """Return how long attempts ran that a sufficient request would have had as well."""
    return sum(group.seconds for group in groups if group.cause not in _RESOURCE_CAUSES)


def _saved_memory(held: sizing.Account, needed_hours: float, proposed: float | None) -> float:
    """Where nobody asked for memory there is nothing to save."""
    return 0.0 if proposed is None or not held.held else held.held - needed_hours * proposed


def _waste(account: sizing.Account) -> Waste:
    return Waste(held=account.held, over_request=account.over_request, failed=account.failed, killed=account.killed)


def _figures(values: Sequence[float]) -> Figures | None:
    if not values:
        return None
    return Figures(
        count=len(values),
        minimum=min(values),
        mean=statistics.fmean(values),
        median=statistics.median(values),
        p95=sizing.quantile(values, 0.95),
        maximum=max(values),
    )
