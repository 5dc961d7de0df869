"""Determine whether the server is needed, and by which processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskStatus
from jobmon.core.wire.server import User, UsersResponse
from jobmon.server.constructs import func, select
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, IS_ACTIVE_RUN
from jobmon.server.models import agent, batch, distributor, status_count, task_instance, workflow, workflow_run
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import last_stamp
from jobmon.server.transitions import LIVE_AGENTS, TAKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select

    from jobmon.server.sql import Session

#: Maximum number of clients, of distributors and of agents in one response.
USERS_SHOWN_MAX: Final = 100
#: A distributor or agent that has not been seen for this long counts as silent.
SILENT_MICROSECONDS: Final = 90 * 1_000_000


r, ti, d, a = workflow_run.c, task_instance.c, distributor.c, agent.c
_IS_HEARD: Final = (IS_ACTIVE_RUN, r.report_by > param("now"))
#: An agent's attempts share its deadline.
_IS_TAKEN: Final = (ti.status.in_(TAKEN), func.coalesce(a.report_by, ti.report_by) > param("now"))
_ATTEMPTS: Final = ATTEMPTS_OF_WORKFLOW.outerjoin(agent, a.id == ti.agent_id)


@statement
def _count_attempts() -> Select[Any]:
    """Select the number of live attempts of active runs."""
    return select(func.count()).select_from(_ATTEMPTS).where(IS_ACTIVE_RUN, *_IS_TAKEN)


@statement
def _count_runs_by_status() -> Select[Any]:
    return select(r.status, func.count()).where(*_IS_HEARD).group_by(r.status)


@statement
def _count_tasks_by_status() -> Select[Any]:
    """Add up the stored counts of the workflows of active runs; see `server.counting`."""
    c, is_part = status_count.c, status_count.c.status != TaskStatus.REMOVED.value
    running = select(r.workflow_id).where(*_IS_HEARD)
    return select(c.status, func.sum(c.number)).where(c.workflow_id.in_(running), is_part).group_by(c.status)


@statement
def _some_run() -> Select[Any]:
    return select(r.id).where(*_IS_HEARD).limit(1)


@statement
def _some_attempt() -> Select[Any]:
    """Select a live attempt of any run: attempts may outlive their run."""
    return select(ti.id).select_from(_ATTEMPTS).where(*_IS_TAKEN).limit(1)


@statement
def _some_run_of() -> Select[Any]:
    return select(r.id).where(*_IS_HEARD, any_of(r.id, "runs")).limit(1)


@statement
def _some_attempt_elsewhere() -> Select[Any]:
    """Select a live attempt that neither an agent nor a distributor is running on its own machine."""
    found = ATTEMPTS_OF_WORKFLOW.join(batch, batch.c.id == ti.batch_id)
    return (
        select(ti.id)
        .select_from(found)
        .where(
            *(ti.status.in_(TAKEN), ti.report_by > param("now"), ti.agent_id.is_(None), batch.c.host.is_(None)),
        )
        .limit(1)
    )


@statement
def _clients() -> Select[Any]:
    """Select the clients of active runs, newest first."""
    return (
        select(r.workflow_id, r.id, r.host, r.pid, r.pid_start_time, r.report_by)
        .where(IS_ACTIVE_RUN)
        .order_by(r.id.desc())
        .limit(param("most"))
    )


@statement
def _distributors() -> Select[Any]:
    """Select the distributors that registered last."""
    return (
        select(d.workflow_id, d.workflow_run_id, d.host, d.pid, d.pid_start_time, d.seen_at)
        .order_by(d.id.desc())
        .limit(param("most"))
    )


@statement
def _agents() -> Select[Any]:
    """Select the agents that registered last."""
    return (
        select(a.workflow_id, a.workflow_run_id, a.host, a.pid, a.pid_start_time, a.seen_at)
        .where(a.status.in_(LIVE_AGENTS))
        .order_by(a.id.desc())
        .limit(param("most"))
    )


@dataclass(frozen=True, slots=True)
class Load:
    """Active runs by status, tasks of their workflows by status, live attempts, and the size of the database."""

    runs: dict[str, int]
    tasks: dict[str, int]
    attempts: int
    database_bytes: int


def responds(session: Session) -> bool:
    """Return whether the database responds; if not, an exception says so."""
    return session.value(last_stamp) is not None


def load(session: Session, now: int) -> Load:
    """Return what the server is working on. The cost depends on the number of arrays and attempts, not of tasks."""
    return Load(
        runs={status: int(count) for status, count in session.rows(_count_runs_by_status, now=now)},
        tasks={status: int(count) for status, count in session.rows(_count_tasks_by_status, now=now)},
        attempts=session.value(_count_attempts, now=now),
        database_bytes=session.database_bytes(),
    )


def is_anything_alive(session: Session, now: int) -> bool:
    """Return whether there is a run or an attempt that is not overdue."""
    return any(session.value(found, now=now) is not None for found in (_some_run, _some_attempt))


def is_needed_elsewhere(session: Session, now: int, runs: set[int] | None) -> bool:
    """Return whether one of these runs (None: any run) is not overdue, or an attempt is live on another host."""
    some_run = session.value(_some_run, now=now) if runs is None else None
    if runs:
        some_run = session.value(_some_run_of, now=now, runs=runs)
    return some_run is not None or session.value(_some_attempt_elsewhere, now=now) is not None


@statement
def _owners() -> Select[Any]:
    return select(workflow.c.id, workflow.c.user_name).where(any_of(workflow.c.id, "ids"))


def users(session: Session, now: int, readable: frozenset[str] | None = None) -> UsersResponse:
    """Return the clients of active runs, and the distributors and agents that registered last.

    Args:
        session: reads the database.
        now: the time.
        readable: the users whose workflows the reader may see; None: everybody's.
    """
    clients = session.rows(_clients, most=USERS_SHOWN_MAX)
    distributors = session.rows(_distributors, most=USERS_SHOWN_MAX)
    found = [_user("client", row, row[5] < now) for row in clients]
    found += [_user("distributor", row, row[5] + SILENT_MICROSECONDS < now) for row in distributors]
    agents = session.rows(_agents, most=USERS_SHOWN_MAX)
    found += [_user("agent", row, row[5] + SILENT_MICROSECONDS < now) for row in agents]
    if readable is not None:
        owners = dict(session.rows(_owners, ids={one.workflow_id for one in found}))
        found = [one for one in found if owners.get(one.workflow_id) in readable]
    return UsersResponse(users=found)


def _user(part: str, row: Sequence[Any], is_silent: bool) -> User:
    return User(
        part=part,
        workflow_id=row[0],
        workflow_run_id=row[1],
        host=row[2],
        pid=row[3],
        pid_start_time=row[4],
        is_silent=is_silent,
    )
