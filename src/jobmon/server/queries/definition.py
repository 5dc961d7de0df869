"""The recorded definition of a workflow, for a client that compares it with its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jobmon.core.changes import VersionState
from jobmon.core.constants import TaskInstanceStatus, TaskKind, TaskStatus
from jobmon.core.expansions import CALL_FAILED
from jobmon.core.wire.changes import (
    DEFINITION_CHARACTERS_MAX,
    DEFINITION_TASKS_MAX,
    UPSTREAM_SETS_MAX,
    UPSTREAMS_PER_ANSWER_MAX,
    DefinitionPage,
    RanDefinition,
    RecordedAttempt,
    RecordedEdit,
    RecordedTemplate,
    RecordedWorkflow,
    UpstreamsRequest,
    UpstreamsResponse,
    Version,
    VersionsResponse,
)
from jobmon.server.constructs import func, select
from jobmon.server.joins import IS_NEWEST_ATTEMPT
from jobmon.server.models import (
    dag,
    expansion,
    node_arg,
    task,
    task_arg,
    task_array,
    task_edit,
    task_instance,
    task_revision,
    task_template,
    task_template_version,
    tool,
    tool_version,
    upstream_set_member,
    workflow,
    workflow_run,
    workflow_version,
)
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.exporting import args_of, sets_of
from jobmon.server.queries.presence import require
from jobmon.server.revisions import EDITABLE
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.times import to_datetime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Select

    from jobmon.server.sql import Session

t, ti, w, m, e = task.c, task_instance.c, workflow.c, upstream_set_member.c, expansion.c


def _recorded() -> Select[Any]:
    return (
        select(
            *(w.id, tool.c.name, w.name, w.workflow_args, w.status),
            *(func.coalesce(w.defined_dag_hash, dag.c.hash), w.task_hash, w.version, w.working_directory),
        )
        .join_from(workflow, dag, dag.c.id == w.dag_id)
        .join(tool_version, tool_version.c.id == w.tool_version_id)
        .join(tool, tool.c.id == tool_version.c.tool_id)
    )


@statement
def _recorded_by_args() -> Select[Any]:
    version = param("version", w.tool_version_id.type)
    return _recorded().where(w.tool_version_id == version, w.workflow_args_hash == param("hash"))


@statement
def _recorded_by_id() -> Select[Any]:
    return _recorded().where(w.id == param("id"))


@statement
def _newest_version() -> Select[Any]:
    versions = tool_version.join(tool, tool.c.id == tool_version.c.tool_id)
    return select(func.max(tool_version.c.id)).select_from(versions).where(tool.c.name == param("name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedWorkflowQuery:
    """Which workflow to find. `tool_version_id` 0: of the newest version of the tool."""

    tool_name: str
    workflow_args_hash: str
    tool_version_id: int = 0


def recorded_workflow(session: Session, query: RecordedWorkflowQuery) -> RecordedWorkflow:
    """Find a workflow by its tool and arguments; nothing is created."""
    version_id = query.tool_version_id or session.value(_newest_version, name=query.tool_name)
    if version_id is None:
        return RecordedWorkflow(workflow_id=None)
    row = session.row(_recorded_by_args, version=version_id, hash=query.workflow_args_hash)
    return RecordedWorkflow(workflow_id=None) if row is None else _recorded_as(row)


def recorded_workflow_by_id(session: Session, workflow_id: int) -> RecordedWorkflow:
    """Return the recorded definition of a workflow.

    Raises:
        NotFound: the workflow does not exist.
    """
    require(session, "workflow", workflow_id)
    row = session.row(_recorded_by_id, id=workflow_id)
    assert row is not None
    return _recorded_as(row)


def _recorded_as(row: tuple[Any, ...]) -> RecordedWorkflow:
    return RecordedWorkflow(
        workflow_id=row[0],
        tool_name=row[1],
        name=row[2],
        workflow_args=row[3],
        status=row[4],
        dag_hash=row[5],
        task_hash=row[6],
        version=row[7],
        working_directory=row[8],
    )


class _Attempt(msgspec.Struct, frozen=True):
    """The columns of an attempt that this module needs."""

    number: int
    status: str
    started_at: int | None
    cause: str | None
    exit_code: int | None
    signal: int | None
    seconds: float | None
    revision: int
    queued: int | None
    ended: int | None

    @property
    def is_started(self) -> bool:
        return self.started_at is not None or self.is_success

    @property
    def is_success(self) -> bool:
        return self.status == TaskInstanceStatus.DONE


class _Task(msgspec.Struct, frozen=True):
    """A task with its newest attempt."""

    id: int
    name: str
    status: str
    command: str
    array_id: int
    node_id: int
    revision: int
    accepted: str | None
    accepted_at: int | None
    requested_at: int | None
    held: bool
    edited_by: str | None
    kind: str
    origin_id: int | None
    edited: tuple[Any, ...]
    attempt: _Attempt | None

    @property
    def is_done(self) -> bool:
        return self.status == TaskStatus.DONE


_ATTEMPT: Final = (
    *(ti.number, ti.status, ti.started_at, ti.cause, ti.exit_code, ti.exit_signal, ti.wallclock_seconds),
    *(ti.revision, ti.queued_stamp, ti.ended_stamp),
)
_TASK: Final = (
    *(t.id, t.name, t.status, t.command, t.array_id, t.node_id, t.revision, t.accepted, t.accepted_at),
    *(t.requested_at, t.held, task_edit.c.user_name, t.kind, t.origin_id),
)
_CALL: Final = (e.calls, e.called_at, e.done_at, e.revision, e.error)
_EDITED: Final = tuple(task_edit.c[name] for name in EDITABLE)


@statements
def _tasks(are_added: bool) -> Select[Any]:
    """Select the next tasks, or the next ones that an expansion added, with their newest attempts."""
    found: list[Any] = [t.workflow_id == param("workflow")]
    if are_added:
        of_workflow = unindexed(t.workflow_id) == param("workflow")
        found = [t.origin_id == param("origin"), t.origin_id.is_not(None), of_workflow]
    return (
        select(*_TASK, *_EDITED, *_ATTEMPT, *_CALL)
        .join_from(task, task_instance, IS_NEWEST_ATTEMPT, isouter=True)
        .join(task_edit, task_edit.c.task_id == t.id, isouter=True)
        .join(expansion, e.task_id == t.id, isouter=True)
        .where(*found, t.id > param("after"))
        .order_by(t.id)
        .limit(param("most"))
    )


@statement
def _started_attempts() -> Select[Any]:
    started = any_of(ti.task_id, "ids"), ti.started_at.is_not(None)
    return select(ti.task_id, *_ATTEMPT).where(*started).order_by(ti.task_id, ti.number)


@statement
def _versions_of_arrays() -> Select[Any]:
    return select(task_array.c.id, task_array.c.task_template_version_id).where(any_of(task_array.c.id, "ids"))


@statement
def _templates() -> Select[Any]:
    x, p = task_template_version.c, task_template.c
    return (
        select(x.id, p.name, x.command_template, x.node_args, x.task_args)
        .join_from(task_template_version, task_template, p.id == x.task_template_id)
        .where(any_of(x.id, "ids"))
    )


@statement
def _revisions() -> Select[Any]:
    r = task_revision.c
    columns = (r.task_id, r.revision, r.task_template_version_id, r.command, r.task_args, r.upstreams)
    return select(*columns).where(any_of(r.task_id, "ids")).order_by(r.task_id, r.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionQuery:
    """Which page to return: at most `count` tasks with IDs above `after`.

    `origin`: only the tasks that this expansion added; 0: all.
    """

    after: int = 0
    count: int = DEFINITION_TASKS_MAX
    origin: int = 0


def definition_page(session: Session, workflow_id: int, query: DefinitionQuery) -> DefinitionPage:
    """Return the next tasks of a workflow as columns.

    Raises:
        NotFound: the workflow does not exist.
        InvalidValue: the count is out of range.
    """
    if not 0 < query.count <= DEFINITION_TASKS_MAX:
        raise InvalidValue(f"count: must be from 1 to {DEFINITION_TASKS_MAX}.")
    require(session, "workflow", workflow_id)
    chosen = {"workflow": workflow_id} | ({"origin": query.origin} if query.origin else {})
    rows = session.rows(_tasks(bool(query.origin)), **chosen, after=query.after, most=query.count)
    tasks = [_task(row) for row in _fitting(rows)]
    is_last = len(tasks) == len(rows) < query.count
    return _page(session, workflow_id, tasks, is_last=is_last)


def _fitting(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the first rows whose commands fit into one response; at least one row."""
    sizes = accumulate(len(row[3]) for row in rows)
    return rows[: max(1, sum(1 for size in sizes if size <= DEFINITION_CHARACTERS_MAX))]


def _task(row: tuple[Any, ...]) -> _Task:
    edited, attempt = row[len(_TASK) :][: len(_EDITED)], row[len(_TASK) + len(_EDITED) : -len(_CALL)]
    call = row[-len(_CALL) :]
    if call[0] is not None:
        values = (*row[: len(_TASK)], edited, _called(*call))
    else:
        values = (*row[: len(_TASK)], edited, None if attempt[0] is None else _Attempt(*attempt))
    return _Task(*values)


def _called(calls: int, called_at: int, done_at: int | None, revision: int, error: str | None) -> _Attempt:
    """Return the newest call of an expansion as its attempt."""
    status = TaskInstanceStatus.RUNNING if error is None else TaskInstanceStatus.ERROR
    return _Attempt(
        number=calls,
        status=(status if done_at is None else TaskInstanceStatus.DONE).value,
        started_at=called_at,
        cause=None if error is None else CALL_FAILED,
        exit_code=None,
        signal=None,
        seconds=None,
        revision=revision,
        queued=called_at,
        ended=done_at,
    )


def _page(session: Session, workflow_id: int, tasks: list[_Task], *, is_last: bool) -> DefinitionPage:
    started = _newest_started(session, tasks)
    revisions = _superseded(session, tasks, started)
    of_array = dict(session.rows(_versions_of_arrays, ids={each.array_id for each in tasks}))
    versions = sorted({*of_array.values(), *(revision[0] for revision in revisions.values())})
    found = {row[0]: _template(row[1:]) for row in session.rows(_templates, ids=versions)}
    number_of = {version: number for number, version in enumerate(versions)}
    templates = [found[version] for version in versions]
    index = [number_of[of_array[each.array_id]] for each in tasks]
    node_ids = [each.node_id for each in tasks]
    node_args = args_of(session, node_arg.c.node_id, node_ids)
    task_args = args_of(session, task_arg.c.task_id, [each.id for each in tasks])
    sets = sets_of(session, workflow_id, node_ids)
    return DefinitionPage(
        templates=templates,
        task_ids=[each.id for each in tasks],
        names=[each.name for each in tasks],
        statuses=[each.status for each in tasks],
        commands=[each.command for each in tasks],
        template_index=index,
        node_args=[
            [node_args[node_id][name] for name in templates[at].node_args]
            for node_id, at in zip(node_ids, index, strict=True)
        ],
        task_args=[
            [task_args[each.id][name] for name in templates[at].task_args]
            for each, at in zip(tasks, index, strict=True)
        ],
        set_ids=[sets[node_id][0] if node_id in sets else 0 for node_id in node_ids],
        seconds=[each.attempt.seconds if each.is_done and each.attempt else None for each in tasks],
        queued=[attempt.queued if attempt else None for attempt in started],
        ended=[attempt.ended if attempt else None for attempt in started],
        attempts={
            at: _attempt(each.attempt, attempt)
            for at, (each, attempt) in enumerate(zip(tasks, started, strict=True))
            if each.attempt is not None and not each.is_done
        },
        ran={
            at: _ran(revision, number_of, templates)
            for at, each in enumerate(tasks)
            if (revision := revisions.get(each.id)) is not None
        },
        accepted={
            at: each.accepted
            for at, (each, attempt) in enumerate(zip(tasks, started, strict=True))
            if each.accepted is not None and _is_later(each.accepted_at, attempt)
        },
        requested=[
            at
            for at, (each, attempt) in enumerate(zip(tasks, started, strict=True))
            if not each.is_done and each.requested_at is not None and _is_later(each.requested_at, attempt)
        ],
        held=[at for at, each in enumerate(tasks) if each.held],
        edits={
            at: RecordedEdit(user=each.edited_by or "", command=each.edited[EDITABLE.index("command")])
            for at, each in enumerate(tasks)
            if each.edited_by is not None and any(value is not None for value in each.edited)
        },
        expansions=[at for at, each in enumerate(tasks) if each.kind == TaskKind.EXPANSION],
        origins={at: each.origin_id for at, each in enumerate(tasks) if each.origin_id is not None},
        is_last=is_last,
    )


def _newest_started(session: Session, tasks: Sequence[_Task]) -> list[_Attempt | None]:
    """Return the newest started attempt of each task."""
    unstarted = [each.id for each in tasks if each.attempt is not None and not each.attempt.is_started]
    earlier = (
        {row[0]: _Attempt(*row[1:]) for row in session.rows(_started_attempts, ids=unstarted)} if unstarted else {}
    )
    return [
        each.attempt if each.attempt is not None and each.attempt.is_started else earlier.get(each.id) for each in tasks
    ]


def _superseded(
    session: Session, tasks: Sequence[_Task], started: Sequence[_Attempt | None]
) -> dict[int, tuple[int, str, dict[str, str], str]]:
    """Return the definitions with which attempts ran, if their tasks have newer ones by now."""
    ran = {
        each.id: attempt.revision
        for each, attempt in zip(tasks, started, strict=True)
        if attempt is not None and attempt.revision != each.revision
    }
    rows = session.rows(_revisions, ids=list(ran)) if ran else []
    upstreams: dict[int, str] = {}
    for task_id, revision, *_, found in rows:  # the first revision from that on whose upstream tasks are recorded
        if revision >= ran[task_id] and not upstreams.get(task_id):
            upstreams[task_id] = found
    return {row[0]: (row[2], row[3], json.loads(row[4]), upstreams[row[0]]) for row in rows if ran[row[0]] == row[1]}


def _ran(
    revision: tuple[int, str, dict[str, str], str], number_of: Mapping[int, int], templates: Sequence[RecordedTemplate]
) -> RanDefinition:
    version, command, args, upstreams = revision
    at = number_of[version]
    values = [args.get(name, "") for name in templates[at].task_args]
    return RanDefinition(template_index=at, command=command, task_args=values, upstreams=upstreams)


def _is_later(stamp: int | None, attempt: _Attempt | None) -> bool:
    """Return whether something was noted after an attempt was queued."""
    return stamp is not None and (attempt is None or attempt.queued is None or stamp > attempt.queued)


def _template(row: Sequence[Any]) -> RecordedTemplate:
    return RecordedTemplate(
        name=row[0], command_template=row[1], node_args=json.loads(row[2]), task_args=json.loads(row[3])
    )


def _attempt(newest: _Attempt, started: _Attempt | None) -> RecordedAttempt:
    return RecordedAttempt(
        status=newest.status,
        is_started=newest.is_started,
        is_success=started is not None and started.is_success,
        cause=newest.cause,
        exit_code=newest.exit_code,
        signal=newest.signal,
    )


@statement
def _set_sizes() -> Select[Any]:
    return select(m.upstream_set_id, func.count()).where(any_of(m.upstream_set_id, "sets")).group_by(m.upstream_set_id)


def _members() -> Select[Any]:
    """Select the tasks in upstream sets; SQLite must begin with the sets."""
    return (
        select(m.upstream_set_id, t.id)
        .join_from(upstream_set_member, task, t.node_id == unindexed(m.node_id))
        .where(t.workflow_id == param("workflow"))
    )


@statement
def _members_of_sets() -> Select[Any]:
    return _members().where(any_of(m.upstream_set_id, "sets"))


@statement
def _members_after() -> Select[Any]:
    """Select the next tasks in one set."""
    one_set = _members().where(m.upstream_set_id == param("set"), unindexed(t.id) > param("after"))
    return one_set.order_by(unindexed(t.id)).limit(param("most"))


def upstreams(session: Session, workflow_id: int, request: UpstreamsRequest) -> UpstreamsResponse:
    """Return the tasks of a workflow in sets of upstream nodes.

    Raises:
        NotFound: the workflow does not exist.
        InvalidValue: there are too many sets.
    """
    if len(request.set_ids) > UPSTREAM_SETS_MAX:
        raise InvalidValue(f"set_ids: at most {UPSTREAM_SETS_MAX} in one request.")
    require(session, "workflow", workflow_id)
    sizes = dict(session.rows(_set_sizes, sets=request.set_ids))
    if request.set_ids and (request.after_task or sizes.get(request.set_ids[0], 0) > UPSTREAMS_PER_ANSWER_MAX):
        return _part(session, workflow_id, request.set_ids[0], request.after_task)
    chosen: list[int] = []
    room = UPSTREAMS_PER_ANSWER_MAX
    for set_id in request.set_ids:
        room -= sizes.get(set_id, 0)
        if room < 0:
            break
        chosen.append(set_id)
    found: dict[int, list[int]] = {set_id: [] for set_id in chosen}
    for set_id, task_id in session.rows(_members_of_sets, workflow=workflow_id, sets=chosen):
        found[set_id].append(task_id)
    return UpstreamsResponse(task_ids=[found[set_id] for set_id in chosen])


def _part(session: Session, workflow_id: int, set_id: int, after_task: int) -> UpstreamsResponse:
    """Return the next tasks of a set that does not fit into one response."""
    rows = session.rows(
        _members_after, workflow=workflow_id, set=set_id, after=after_task, most=UPSTREAMS_PER_ANSWER_MAX
    )
    is_last = len(rows) < UPSTREAMS_PER_ANSWER_MAX
    return UpstreamsResponse(task_ids=[[row[1] for row in rows]], last_task=0 if is_last else rows[-1][1])


@statement
def _versions() -> Select[Any]:
    v = workflow_version.c
    columns = (v.number, v.state, v.created_at, v.applied_at, v.user_name, v.host, v.task_count, v.summary)
    return select(*columns).where(v.workflow_id == param("workflow")).order_by(v.number)


@statement
def _first_version() -> Select[Any]:
    return select(w.created_at, w.user_name, w.task_count, w.version).where(w.id == param("id"))


@statement
def _runs() -> Select[Any]:
    r = workflow_run.c
    return select(r.id, r.created_at, r.host).where(r.workflow_id == param("workflow")).order_by(r.id)


def versions(session: Session, workflow_id: int) -> VersionsResponse:
    """Return the versions of a workflow, oldest first.

    Raises:
        NotFound: the workflow does not exist.
    """
    require(session, "workflow", workflow_id)
    created_at, user, task_count, _ = session.row(_first_version, id=workflow_id) or (0, "", 0, 1)
    later = session.rows(_versions, workflow=workflow_id)
    runs = session.rows(_runs, workflow=workflow_id)
    starts = [created_at, *(row[3] for row in later if row[3] is not None)]
    in_version = [[row[0] for row in runs if _version_at(starts, row[1]) == number] for number in range(len(starts))]
    first = Version(
        number=1,
        state=VersionState.APPLIED.value,
        created_at=to_datetime(created_at),
        user=user,
        host=runs[0][2] if runs else "",
        task_count=None if later else task_count,
        summary=[],
        workflow_run_ids=in_version[0],
    )
    return VersionsResponse(
        workflow_id=workflow_id,
        versions=[
            first,
            *(
                Version(
                    number=row[0],
                    state=row[1],
                    created_at=to_datetime(row[2]),
                    user=row[4],
                    host=row[5],
                    task_count=row[6],
                    summary=json.loads(row[7]),
                    workflow_run_ids=in_version[number] if number < len(in_version) else [],
                )
                for number, row in enumerate(later, start=1)
            ),
        ],
    )


def _version_at(starts: Sequence[int], at: int) -> int:
    """Return the number of the version that was current at a time."""
    return sum(1 for start in starts[1:] if start <= at)
