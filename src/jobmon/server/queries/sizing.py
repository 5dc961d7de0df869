"""Report what the tasks of a workflow requested, used and wasted, by template, and propose requests.

Sums over groups of attempts with the same request and outcome are kept in memory (`totals`). Statistics are computed
from the newest finished attempts, at most `SAMPLES_MAX`.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from dataclasses import astuple, dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import sizing
from jobmon.core.constants import Cause, TaskInstanceStatus, TaskStatus
from jobmon.core.exceptions import InvalidResources
from jobmon.core.resources import UNITS, Limits, amount
from jobmon.core.wire.sizing import Figures, HistoryResponse, SizingResponse, TemplateSizing, Waste
from jobmon.server.constructs import and_, func, select
from jobmon.server.joins import (
    ARRAYS_WITH_NEWEST_ATTEMPTS,
    RESOURCES_WITH_CLUSTERS,
    TASKS_WITH_NEWEST_ATTEMPTS,
)
from jobmon.server.models import (
    argument,
    cluster,
    node_arg,
    queue,
    task,
    task_array,
    task_instance,
    task_resources,
    task_template,
    task_template_version,
    tool,
    tool_version,
)
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries.presence import require
from jobmon.server.sql import any_of, param, statement, statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Select

    from jobmon.core.wire.sizing import SizingRequest
    from jobmon.server.kept import Kept
    from jobmon.server.recent import Recent
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

a, t, ti = task_array.c, task.c, task_instance.c
_IS_DONE: Final = and_(t.status == TaskStatus.DONE.value, ti.status == TaskInstanceStatus.DONE.value)


@statement
def _arrays() -> Select[Any]:
    """Select the templates of a workflow, with their tools."""
    v, p, n = task_template_version.c, task_template.c, tool_version.c
    return (
        select(a.id, a.name, a.task_template_version_id, tool.c.name)
        .join_from(task_array, task_template_version, v.id == a.task_template_version_id)
        .join(task_template, p.id == v.task_template_id)
        .join(tool_version, n.id == p.tool_version_id)
        .join(tool, tool.c.id == n.tool_id)
        .where(a.workflow_id == param("workflow"))
        .order_by(a.id)
    )


@statement
def _of_task() -> Select[Any]:
    """Add up the measured attempts of a task; see `totals` for those of a workflow."""
    keys = (t.array_id, ti.task_resources_id, ti.status, ti.cause)
    sums = (
        func.count(),
        func.sum(ti.wallclock_seconds),
        func.sum(func.coalesce(ti.cpu_seconds, 0.0)),
        func.sum(ti.wallclock_seconds * func.coalesce(ti.max_rss_bytes, 0)),
    )
    measured = select(*keys, *sums).where(ti.wallclock_seconds.is_not(None))
    joined = task.join(task_instance, ti.task_id == t.id)
    wanted = t.workflow_id == param("workflow"), t.id == param("task")
    return measured.select_from(joined).where(*wanted).group_by(*keys)


@statements
def _samples(of_task: bool) -> Select[Any]:
    """Select the usage of the newest finished tasks."""
    conditions = [t.workflow_id == param("workflow"), _IS_DONE, ti.wallclock_seconds.is_not(None)]
    if of_task:
        conditions.append(t.id == param("task"))
    return (
        select(t.array_id, ti.wallclock_seconds, ti.cpu_seconds, ti.max_rss_bytes)
        .select_from(TASKS_WITH_NEWEST_ATTEMPTS)
        .where(*conditions)
        .order_by(t.status_at.desc())
        .limit(param("most"))
    )


@statement
def _requests_by_id() -> Select[Any]:
    r = task_resources.c
    return (
        select(r.id, r.requested, cluster.c.name, queue.c.name, queue.c.parameters)
        .select_from(RESOURCES_WITH_CLUSTERS)
        .where(any_of(r.id, "ids"))
    )


@statement
def _history() -> Select[Any]:
    """Select the usage of the newest finished tasks of a template version."""
    return (
        select(t.node_id, ti.wallclock_seconds, ti.cpu_seconds, ti.max_rss_bytes)
        .select_from(ARRAYS_WITH_NEWEST_ATTEMPTS)
        .where(a.task_template_version_id == param("version"), _IS_DONE, ti.wallclock_seconds.is_not(None))
        .order_by(t.id.desc())
        .limit(param("most"))
    )


@statement
def _node_args() -> Select[Any]:
    n = node_arg.c
    return (
        select(n.node_id, argument.c.name, n.value)
        .join_from(node_arg, argument, argument.c.id == n.argument_id)
        .where(any_of(n.node_id, "nodes"))
    )


@statement
def _workflow_of_task() -> Select[Any]:
    return select(t.workflow_id).where(t.id == param("id"))


@dataclass(frozen=True, slots=True)
class _Request:
    """A resource request of attempts."""

    asked: dict[str, Any]
    cluster: str
    queue: str
    parameters: dict[str, Any]

    @property
    def cores(self) -> float:
        return float(self.asked.get("cores") or 1)

    @property
    def memory(self) -> float:
        return amount(self.asked.get("memory")) or 0.0


@dataclass(frozen=True, slots=True)
class _Group:
    """Attempts with the same request and outcome. `byte_seconds`: of the memory used."""

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
    """The attempts of one array."""

    name: str
    version_id: int
    tool_name: str
    groups: list[_Group] = field(default_factory=list)
    history: list[sizing.Used] = field(default_factory=list)


def workflow_sizing(
    session: Session, workflow_id: int, request: SizingRequest, recent: Recent, kept: Kept
) -> SizingResponse:
    """Account for the attempts of a workflow and propose requests.

    Args:
        session: the session to read with; it has read nothing yet.
        workflow_id: ID of the workflow.
        request: what to return.
        recent: usage of finished attempts, which may be some seconds older than the sums if it is expensive to read.
        kept: sums of attempts.

    Raises:
        NotFound: the workflow does not exist, or it has no such task.
        InvalidValue: a strategy is unknown.
    """
    strategies = _strategies(request)
    sums: list[tuple[Any, ...]]
    share = 1.0
    if request.task_id is None:
        with kept.totals(workflow_id, "template") as totals:
            require(session, "workflow", workflow_id)
            totals.catch_up(session, kept.deadline(may_wait=not request.partial), kept.monotonic())
            sums = [(*group, *astuple(usage)) for group, usage in totals.now(session)[1].items()]
            share = totals.share
    else:
        require(session, "workflow", workflow_id)
        _require_task(session, workflow_id, request.task_id)
        sums = session.rows(_of_task, workflow=workflow_id, task=request.task_id)
    samples = recent.paced(
        ("usage samples", workflow_id, request.task_id), lambda: _used_by_array(session, workflow_id, request.task_id)
    )
    templates = _templates(session, workflow_id, sums, samples)
    return SizingResponse(
        workflow_id=workflow_id,
        templates=[_sized(template, strategies) for template in templates if template.groups],
        share=round(share, 3),
    )


def template_history(session: Session, version_id: int) -> HistoryResponse:
    """Return the usage of the newest finished tasks of a template version.

    Raises:
        NotFound: the version does not exist.
    """
    require(session, "task_template_version", version_id)
    rows = session.rows(_history, version=version_id, most=HISTORY_TASKS_MAX)
    values: dict[str, dict[int, str]] = defaultdict(dict)
    nodes = sorted({row[0] for row in rows})
    for node_id, name, value in session.rows(_node_args, nodes=nodes) if nodes else ():
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
    if session.value(_workflow_of_task, id=task_id) != workflow_id:
        raise NotFound.of(f"task of workflow {workflow_id} with id", task_id)


def _used_by_array(session: Session, workflow_id: int, task_id: int | None) -> Mapping[int, list[sizing.Used]]:
    """Return what the newest finished tasks used, or the one with that ID."""
    values = {"workflow": workflow_id} | ({} if task_id is None else {"task": task_id})
    found: dict[int, list[sizing.Used]] = defaultdict(list)
    for array_id, seconds, cpu, peak in session.rows(_samples(task_id is not None), **values, most=SAMPLES_MAX):
        found[array_id].append(sizing.Used(seconds, cpu, None if peak is None else peak / GIB))
    return found


def _templates(
    session: Session, workflow_id: int, sums: Iterable[Sequence[Any]], samples: Mapping[int, list[sizing.Used]]
) -> Iterable[_Template]:
    templates = {array_id: _Template(*row) for array_id, *row in session.rows(_arrays, workflow=workflow_id)}
    requests = _requests(session, {row[1] for row in sums})
    # in the order of requests, so that the newest request is processed last
    for array_id, resources_id, status, cause, count, seconds, cpu, held in sorted(sums, key=itemgetter(1)):
        group = _Group(requests[resources_id], status, cause, int(count), float(seconds), float(cpu), float(held))
        templates[array_id].groups.append(group)
    for array_id, used in samples.items():
        if array_id in templates:
            templates[array_id].history = used
    return templates.values()


def _requests(session: Session, ids: set[int]) -> dict[int, _Request]:
    rows = session.rows(_requests_by_id, ids=sorted(ids)) if ids else ()
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
    """Return the maximum that the queues in which they ran allow, so that a proposal is usable there."""
    queues = {(group.request.cluster, group.request.queue): group.request.parameters for group in groups}.values()
    maxima = {key: [Limits.read(key, queue).maximum for queue in queues] for key in UNITS}
    return {key: None if None in found else max(found) for key, found in maxima.items()}  # type: ignore[type-var]


def _asked(groups: Sequence[_Group]) -> dict[str, list[float]]:
    """Return the distinct requests for each resource; only their range matters, not how often each was made."""
    asked: dict[str, list[float]] = defaultdict(list)
    for request in {id(group.request): group.request for group in groups}.values():
        for key in UNITS:
            if (asked_for := amount(request.asked.get(key))) is not None:
                asked[key].append(asked_for)
    return asked


def _needed_seconds(groups: Iterable[_Group]) -> float:
    """Return the total duration of attempts that would also have run with a sufficient request, seconds."""
    return sum(group.seconds for group in groups if group.cause not in _RESOURCE_CAUSES)


def _saved_memory(held: sizing.Account, needed_hours: float, proposed: float | None) -> float:
    """Return the memory saved by a proposal, GiB hours; 0 if no task requested memory."""
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
