"""Determine which workflows a request concerns, and whether its principal may access them.

The IDs in the path and in the message determine this, by their names. A test covers all routes and fails for an ID
whose meaning is not declared here. The owner may access everything, so nothing is looked up for an owner's requests.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.credentials import Agent, Invited, PageUser, Part, Principal, Reader, Right, User, may
from jobmon.core.wire import Message
from jobmon.server.constructs import or_, select
from jobmon.server.models import (
    agent,
    batch,
    dag,
    task,
    task_array,
    task_instance,
    tool_version,
    workflow,
    workflow_run,
)
from jobmon.server.problems import Forbidden
from jobmon.server.sql import Statement, any_of, param, statement
from jobmon.server.transitions.agent_states import LIVE_AGENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Select

    from jobmon.server.services import Services
    from jobmon.server.sql import Session

w = workflow.c


@statement
def _of_workflows() -> Select[Any]:
    return select(w.id, w.user_name).where(any_of(w.id, "ids"))


@statement
def _of_runs() -> Select[Any]:
    r = workflow_run.c
    return select(w.id, w.user_name).distinct().join_from(workflow_run, workflow).where(any_of(r.id, "ids"))


@statement
def _of_arrays() -> Select[Any]:
    a = task_array.c
    return select(w.id, w.user_name).distinct().join_from(task_array, workflow).where(any_of(a.id, "ids"))


@statement
def _of_tasks() -> Select[Any]:
    t = task.c
    found = task.join(workflow, t.workflow_id == w.id)
    return select(w.id, w.user_name).distinct().select_from(found).where(any_of(t.id, "ids"))


@statement
def _of_attempts() -> Select[Any]:
    t, ti = task.c, task_instance.c
    found = task_instance.join(task, ti.task_id == t.id).join(workflow, t.workflow_id == w.id)
    return select(w.id, w.user_name).distinct().select_from(found).where(any_of(ti.id, "ids"))


@statement
def _of_agents() -> Select[Any]:
    a = agent.c
    return (
        select(w.id, w.user_name)
        .distinct()
        .join_from(agent, workflow, a.workflow_id == w.id)
        .where(any_of(a.id, "ids"))
    )


@statement
def _has_successor() -> Select[Any]:
    """Select a live agent that may act for an older one of its workflow and host."""
    a, former = agent.c, agent.alias("former")
    f = former.c
    return (
        select(a.id)
        .select_from(agent.join(former, f.workflow_id == a.workflow_id))
        .where(
            *(a.id == param("agent"), a.workflow_id == param("workflow"), any_of(a.status, "live")),
            *(f.id == param("former"), f.id < a.id, or_(f.host == a.host, f.boot_id == a.boot_id)),
        )
    )


@statement
def _attempts_of_batch() -> Select[Any]:
    ti, b = task_instance.c, batch.c
    return (
        select(ti.id)
        .join_from(task_instance, batch, ti.batch_id == b.id)
        .where(b.workflow_id == param("workflow"), b.number == param("number"), any_of(ti.id, "ids"))
    )


@statement
def _of_dags() -> Select[Any]:
    """Select the workflows of an incomplete DAG. A complete DAG may be shared, and does not change any more."""
    return select(w.id, w.user_name).join_from(workflow, dag).where(any_of(dag.c.id, "ids"), ~dag.c.complete)


@statement
def _of_arguments() -> Select[Any]:
    """Select the existing workflow of a tool version with these arguments, if any."""
    return (
        select(w.id, w.user_name)
        .join_from(workflow, tool_version)
        .where(w.tool_version_id == param("version"), w.workflow_args_hash == param("hash"))
    )


#: Names of IDs in paths and messages, with the statement that finds their workflows.
OWNED: Final[Mapping[str, Statement]] = {
    "workflow_id": _of_workflows,
    "workflow_ids": _of_workflows,
    "workflow_run_id": _of_runs,
    "gone_run_ids": _of_runs,
    "array_id": _of_arrays,
    "task_id": _of_tasks,
    "expansion_id": _of_tasks,
    "task_ids": _of_tasks,
    "accepted_ids": _of_tasks,
    "disarm": _of_tasks,
    "missing": _of_tasks,
    "task_instance_id": _of_attempts,
    "alive": _of_attempts,
    "pending": _of_attempts,
    "known_to_kill": _of_attempts,
    "unheard": _of_attempts,
    "running": _of_attempts,
    "unstarted": _of_attempts,
    "agent_id": _of_agents,
    "known_to_triage": _of_attempts,
    "dag_id": _of_dags,
}
#: Names of IDs that are not checked: definitions that workflows share and that never change, and IDs that the route
#: checks.
SHARED: Final = frozenset(
    {
        *("tool_id", "tool_version_id", "task_template_version_id", "task_template_version_ids", "name"),
        *("cluster_id", "task_resources_id", "task_resources_ids", "upstream_nodes", "node_ids", "token_id"),
        # The attempt whose command starts a run: the use case ignores another user's attempt.
        "parent_task_instance_id",
        # Of a version of the workflow in the path; its tasks and sets are looked up only in that workflow.
        *("number", "set_numbers", "members", "edited", "gained", "lost"),
    }
)


def require_right(principal: Principal, right: Right) -> None:
    """Reject a request whose principal may not use its route at all.

    Raises:
        Forbidden: the principal lacks the right.
    """
    if not may(principal, right):
        raise Forbidden(f"This credential ({principal.name}) does not allow that.")


async def require_own(
    services: Services, principal: Principal, right: Right, ids: Mapping[str, Any], message: Any
) -> None:
    """Reject a request about a workflow that its principal may not access.

    Args:
        services: the server's services.
        principal: the sender of the request.
        right: the right that its route requires.
        ids: the IDs in its path, by name.
        message: its decoded body.

    Raises:
        Forbidden: it concerns another user's workflow, or one outside the scope of the credential.
    """
    if right in (Right.OPEN, Right.ENTER):
        return
    readable = services.authority.readable_users(principal) if right is Right.READ else None
    if readable is None and _is_everywhere(principal, right):
        return
    named = [*ids.items(), *_named(message)]
    found = await services.readers.glance(_workflows, named)
    if isinstance(principal, Agent | Reader):
        await _require_scope(services, principal, found, named)
    elif readable is not None:
        _require_readable(found, readable)
    elif isinstance(principal, User | PageUser):
        _require_owner(found, principal, services.authority.readable_users(principal))


async def _require_scope(
    services: Services, principal: Agent | Reader, found: Sequence[tuple[int, str]], named: Sequence[tuple[str, Any]]
) -> None:
    if not found or any(workflow_id != principal.workflow_id for workflow_id, _ in found):
        raise Forbidden(f"This credential is for workflow {principal.workflow_id} only.")
    if isinstance(principal, Agent) and principal.scope:
        await _require_part(services, principal, named)


def _require_owner(
    found: Iterable[tuple[int, str]], principal: User | PageUser, readable: frozenset[str] | None
) -> None:
    for workflow_id, owner in found:
        if owner != principal.user:
            named = owner if readable is None or owner in readable else "another user"
            raise Forbidden(f"Workflow {workflow_id} belongs to {named}, not to {principal.user}.")


async def require_readable(services: Services, principal: Principal, workflow_id: int) -> None:
    """Reject a request that turned out to be about a workflow that its principal may not read.

    Raises:
        Forbidden: it belongs to a user whose workflows this one may not read.
    """
    readable = services.authority.readable_users(principal)
    if readable is not None:
        _require_readable(await services.readers.glance(_workflows, [("workflow_id", workflow_id)]), readable)


def _require_readable(found: Iterable[tuple[int, str]], readable: frozenset[str]) -> None:
    for workflow_id, owner in found:
        if owner not in readable:
            raise Forbidden(f"Workflow {workflow_id} belongs to a user whose workflows you may not read.")


async def _require_part(services: Services, principal: Agent, named: Sequence[tuple[str, Any]]) -> None:
    """Reject a request about another part of the workflow than the one that a credential is for.

    Raises:
        Forbidden: it concerns another part.
    """
    kind, number = principal.part
    is_inside = _is_of_batch if kind is Part.BATCH else _is_of_agent
    if number is None or not await services.readers.glance(is_inside, principal.workflow_id, number, named):
        raise Forbidden(f"This credential is for {kind} {number} of workflow {principal.workflow_id} only.")


def _is_of_agent(session: Session, workflow_id: int, number: int, named: Sequence[tuple[str, Any]]) -> bool:
    """Return whether a request acts for an agent, or for an older agent of the same host that it replaced."""
    agents = {value for name, value in named if name == "agent_id"}
    if agents == {number}:
        return True
    return (
        len(agents) == 1
        and session.value(_has_successor, workflow=workflow_id, former=agents.pop(), agent=number, live=LIVE_AGENTS)
        is not None
    )


def _is_of_batch(session: Session, workflow_id: int, number: int, named: Sequence[tuple[str, Any]]) -> bool:
    """Return whether all IDs in a request belong to one batch."""
    if any(name == "agent_id" or (name == "batch_number" and value not in (None, number)) for name, value in named):
        return False
    attempts: set[int] = set()
    for name, value in named:
        if OWNED.get(name) is _of_attempts and value is not None:
            attempts.update([value] if isinstance(value, int) else value)
    found = session.column(_attempts_of_batch, workflow=workflow_id, number=number, ids=attempts) if attempts else []
    return set(found) == attempts


def _is_everywhere(principal: Principal, right: Right) -> bool:
    """Return whether a principal has this right for all workflows."""
    if isinstance(principal, Invited) or (isinstance(principal, PageUser) and principal.user is None):
        return True
    return (isinstance(principal, User | PageUser) and right is Right.READ) or (
        isinstance(principal, Reader) and principal.workflow_id is None
    )


def _workflows(session: Session, named: Iterable[tuple[str, Any]]) -> list[tuple[int, str]]:
    """Return the workflows, with their owners, to which these values belong."""
    found: list[tuple[Any, ...]] = []
    ids: dict[Statement, set[int]] = {}  # of each kind, because a message may have hundreds of reports
    for name, value in named:
        if name == "workflow_args_hash":
            found += session.rows(_of_arguments, version=value[0], hash=value[1])
        elif name in OWNED and value is not None:
            ids.setdefault(OWNED[name], set()).update([value] if isinstance(value, int) else value)
    for statement_of_kind, some in ids.items():
        found += session.rows(statement_of_kind, ids=some) if some else []
    return [(row[0], row[1]) for row in found]


def _named(message: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named values of a message or a query, including those of nested messages."""
    if isinstance(message, Message):
        names = message.__struct_fields__
    elif dataclasses.is_dataclass(message):
        names = tuple(field.name for field in dataclasses.fields(message))
    else:
        return
    for name in names:
        value = getattr(message, name)
        if name == "workflow_args_hash":
            yield name, (message.tool_version_id, value)
        elif isinstance(value, list) and value and isinstance(value[0], Message):
            for one in value:
                yield from _named(one)
        else:
            yield name, value


def require_own_name(principal: Principal, right: Right, message: Any) -> None:
    """Reject a write whose message names another user than its sender; a query may name any user.

    Raises:
        Forbidden: it names another user.
    """
    named = getattr(message, "user", "")
    if not isinstance(principal, User | PageUser) or principal.user is None:
        return
    if right > Right.READ and named not in ("", principal.user):
        raise Forbidden(
            f"user: this credential belongs to {principal.user} and cannot act for {named}. Use a token of {named}"
            " (jobmon login), or omit the user."
        )
