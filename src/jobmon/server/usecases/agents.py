"""Register agents, process their reports, and let them claim attempts in one transaction: the hot path of local runs.

An attempt belongs to the agent that claimed it. `transitions.agent_states` defines the rules.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.cluster_protocol import weight_of
from jobmon.core.constants import Actor, AgentStatus
from jobmon.core.exceptions import StaleRun
from jobmon.core.wire import replace
from jobmon.core.wire.agents import (
    ATTEMPTS_PER_REQUEST_MAX,
    SCOPE_HOST,
    AgentLaunches,
    AgentProcess,
    AgentRequest,
    AgentResponse,
    AgentSyncRequest,
    AgentSyncResponse,
)
from jobmon.core.wire.launching import LAUNCHES_PER_RESPONSE_MAX, REPORTS_PER_REQUEST_MAX, SlotsGranted
from jobmon.server import limits, transitions
from jobmon.server.agent_rows import AgentRow, agents_by_id, live_agents, require_agent
from jobmon.server.armed import ArmedTask
from jobmon.server.command_room import CommandRoom
from jobmon.server.constructs import select
from jobmon.server.declared_files import FileHandout
from jobmon.server.lookups import ended_of, find_cluster, folder_of
from jobmon.server.models import agent, task_instance, task_resources, workflow_run
from jobmon.server.problems import InvalidValue, NotFound, require_at_most
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import Audience
from jobmon.server.transitions import AttemptMoves, agent_states, attempt_deadline, attempts_of_agent, orders_by_agent
from jobmon.server.usecases import fair_share, launch_problems, queueing
from jobmon.server.usecases.launching import Waiting, attempts_to_hand_out, columns_of, handed_out_attempts
from jobmon.server.usecases.reporting import apply_reports
from jobmon.server.usecases.runs import require_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Select

    from jobmon.server.transaction import Transaction

#: Number of queued attempts examined first; it doubles each time.
LOOK_FIRST: Final = 16
#: Maximum number of agents that are declared lost in one pass; the others follow in the next.
AGENTS_PER_PASS_MAX: Final = 100

a, ti = agent.c, task_instance.c

# -- registering ---------------------------------------------------------------------------------------------------


@statement
def _agent_of_request() -> Select[Any]:
    return select(a.id).where(a.request_key == param("key"))


def register(tx: Transaction, request: AgentRequest) -> AgentResponse:
    """Register an agent; the same key returns the same registration.

    Raises:
        NotFound: the run or the cluster does not exist.
        InvalidValue: agents cannot have this scope.
        StaleRun: the run is over, or is not the newest of its workflow.
    """
    if request.scope != SCOPE_HOST:
        raise InvalidValue(f"scope: {request.scope!r} is not valid; agents have the scope {SCOPE_HOST!r}.")
    run = require_run(tx, request.workflow_run_id)
    agent_id = tx.value(_agent_of_request, key=request.key)
    if agent_id is None:
        if not run.is_newest or run.status in transitions.FINAL_RUNS:
            raise StaleRun(f"Run {run.id} of workflow {run.workflow_id} is over, or another run has started.")
        agent_id = _register(tx, run.workflow_id, request)
    folder = folder_of(tx, run.workflow_id)
    return AgentResponse(
        agent_id=agent_id,
        token="",
        workflow_id=run.workflow_id,
        working_directory=folder[0],
        umask=folder[1],
        heartbeat_interval=tx.settings.task_instance_interval_seconds,
        report_by_buffer=tx.settings.report_by_buffer,
        predecessors=[
            one for one in agent_processes(tx, run.workflow_id) if one.host == request.host and one.agent_id != agent_id
        ],
    )


def _register(tx: Transaction, workflow_id: int, request: AgentRequest) -> int:
    cluster_id = find_cluster(tx, request.cluster)
    if cluster_id is None:
        raise NotFound.of("cluster", request.cluster)
    launch_problems.note(tx, workflow_id, {}, [cluster_id])  # the agent reports its own problems
    tx.audit(Actor.CLIENT, "register agent", workflow_id, run=request.workflow_run_id, host=request.host)
    return tx.insert(
        agent,
        workflow_id=workflow_id,
        workflow_run_id=request.workflow_run_id,
        cluster_id=cluster_id,
        scope=request.scope,
        host=request.host,
        boot_id=request.boot_id,
        pid=request.pid,
        pid_start_time=request.pid_start_time,
        request_key=request.key,
        status=AgentStatus.ACTIVE.value,
        registered_at=tx.now,
        seen_at=tx.now,
        report_by=attempt_deadline(tx),
        last_key=0,
    )


def agent_processes(tx: Transaction, workflow_id: int) -> list[AgentProcess]:
    """Return the agents of a workflow that are still live."""
    return [
        AgentProcess(
            agent_id=row[0],
            host=row[1],
            boot_id=row[2],
            pid=row[3],
            pid_start_time=row[4],
            seen_seconds_ago=max(0.0, (tx.now - row[5]) / 1e6),
        )
        for row in live_agents(tx, workflow_id)
    ]


# -- reports and heartbeats ----------------------------------------------------------------------------------------


def sync(tx: Transaction, agent_id: int, request: AgentSyncRequest) -> AgentSyncResponse:
    """Process an agent's reports and heartbeat; return what to kill, and what it claims. See the wire module.

    Raises:
        NotFound: the agent does not exist.
        InvalidValue: there are more reports or attempts than allowed.
    """
    (answer,) = _process(tx, [(agent_id, request)], lambda: True)
    return answer


def report(tx: Transaction, requests: Sequence[tuple[int, AgentSyncRequest]]) -> list[AgentSyncResponse]:
    """Process requests with reports of several agents, as `sync` does, but all reports together and first.

    While the server is short of time, an agent claims nothing by its report: it asks for work by a poll, which is
    answered in the order of arrival.
    """
    answers: list[AgentSyncResponse] = []
    first, size = 0, 0
    for after, (_, request) in enumerate(requests, start=1):
        size += len(request.reports)
        if size >= REPORTS_PER_REQUEST_MAX or after == len(requests):
            answers += _process(tx, requests[first:after], tx.has_time)
            first, size = after, 0
    return answers


def _process(
    tx: Transaction, requests: Sequence[tuple[int, AgentSyncRequest]], may_claim: Callable[[], bool]
) -> list[AgentSyncResponse]:
    """Process requests of agents; `may_claim` is asked for each before it claims attempts."""
    for _, request in requests:
        require_at_most(REPORTS_PER_REQUEST_MAX, len(request.reports), "reports")
        count = len(request.running or ()) + len(request.unstarted or ())
        require_at_most(ATTEMPTS_PER_REQUEST_MAX, count, "running, unstarted")
    reported = _take_reports(tx, requests)
    known = agents_by_id(tx, {agent_id for agent_id, _ in requests})
    workflow_ids = {row.workflow_id for row in known.values()}
    answers = []
    for (agent_id, request), one in zip(requests, reported, strict=True):
        row = known.pop(agent_id, None) or require_agent(tx, agent_id)  # an earlier request may have changed it
        answers.append(_answer(tx, row, request, one, may_claim=may_claim()))
    orders = orders_by_agent(tx, workflow_ids, {agent_id for agent_id, _ in requests})
    for (agent_id, _), answer in zip(requests, answers, strict=True):
        if answer.is_live:
            answer.response.kill[:0] = orders.get(agent_id, ())
    return [answer.response for answer in answers]


@dataclass(slots=True)
class _Reported:
    """What became of the reports of one request. `due`: by run, armed tasks that it may queue; shared by requests."""

    late: list[int]
    refused: dict[int, str]
    unknown: list[int]
    due: dict[int, list[ArmedTask]]


def _take_reports(tx: Transaction, requests: Sequence[tuple[int, AgentSyncRequest]]) -> list[_Reported]:
    """Record the reports of these requests."""
    moves = AttemptMoves(tx, [one.task_instance_id for _, request in requests for one in request.reports])
    due: dict[int, list[ArmedTask]] = {}
    found = []
    for agent_id, request in requests:
        moves.late, moves.refused, moves.unknown = [], {}, []
        apply_reports(tx, moves, request.reports, agent_id)
        found.append(_Reported(moves.late, moves.refused, moves.unknown, due))
    moves.write()
    for one in moves.due:
        due.setdefault(one.run_id, []).append(one)
    return found


@dataclass(slots=True)
class _Answer:
    """A response without the attempts in KILL_SELF, which only live agents are told."""

    response: AgentSyncResponse
    is_live: bool


def _answer(
    tx: Transaction, row: AgentRow, request: AgentSyncRequest, reported: _Reported, *, may_claim: bool
) -> _Answer:
    """Process the rest of a request whose reports are recorded."""
    status = agent_states.after(row.status, drain=request.drain, leaving=request.leaving)
    told = AgentSyncResponse(late=reported.late, refused=reported.refused, unknown=reported.unknown, over=row.is_over)
    if status not in transitions.LIVE_AGENTS:
        if status != row.status:
            _end(tx, row, status)
        return _Answer(replace(told, kill=request.running or [], over=True), is_live=False)
    if request.has_problem:
        problems = {} if request.launch_problem is None else {row.cluster_name: request.launch_problem}
        launch_problems.note(tx, row.workflow_id, problems, [row.cluster_id])
    accepts_work = status == AgentStatus.ACTIVE and row.may_claim and request.cores_free + request.cores_ahead > 0
    due = reported.due.pop(row.run_id, []) if accepts_work and reported.due else []
    fired = queueing.fire(tx, row.run_id, due) if due else []
    files, weights = FileHandout(tx), _Weights(tx)
    may_claim = may_claim and status == AgentStatus.ACTIVE
    launches = _handed_out(tx, row, request, files, weights) if may_claim else []
    if not {launch[1] for launch in launches}.issuperset(fired):
        tx.wake(Audience.DISTRIBUTOR, row.workflow_id)
    last_key = max(row.last_key, request.key) if launches else row.last_key
    if last_key != row.last_key or status != row.status or row.seen_at + transitions.SEEN_SECONDS * 1e6 < tx.now:
        transitions.note_request(tx, row.id, status, last_key)
    response = replace(
        told,
        launches=_columns(launches, files, weights) if launches else None,
        kill=ended_of(tx, request.running or ()),  # their tasks may be retried
        slots=_slots(tx, row, request),
    )
    return _Answer(response, is_live=True)


def _slots(tx: Transaction, row: AgentRow, request: AgentSyncRequest) -> SlotsGranted | None:
    return None if request.slots is None else fair_share.renew(tx, row.holder, request.slots)


# -- claiming ------------------------------------------------------------------------------------------------------


def _handed_out(
    tx: Transaction, row: AgentRow, request: AgentSyncRequest, files: FileHandout, weights: _Weights
) -> list[tuple[Any, ...]]:
    """Return attempts that the agent claimed but did not receive, and those that it claims now, oldest first."""
    missing = _missing(tx, row, request)
    if 0 < request.key <= row.last_key and not missing:
        missing = _claimed_by(tx, row, request.key)
    if missing or not row.may_claim:
        return missing
    cores = request.cores_free + request.cores_ahead
    return _claim(tx, row, request.key, _choose(tx, row, cores, files, weights)) if cores > 0 else []


def _missing(tx: Transaction, row: AgentRow, request: AgentSyncRequest) -> list[tuple[Any, ...]]:
    """Return unstarted attempts of the agent that are not in its inventory: the response with them was lost."""
    if request.running is None or request.unstarted is None:
        return []
    has = {*request.running, *request.unstarted}
    owned = attempts_of_agent(tx, row.workflow_id, row.id, fsm.UNSTARTED)
    return attempts_to_hand_out(tx, [attempt_id for attempt_id, _ in owned if attempt_id not in has])


@statement
def _claimed() -> Select[Any]:
    of_workflow = select(workflow_run.c.id).where(workflow_run.c.workflow_id == param("workflow"))
    return (
        handed_out_attempts()
        .where(
            ti.workflow_run_id.in_(of_workflow),
            any_of(ti.status, "unstarted"),
            ti.agent_id == param("agent"),
            ti.claim_key == param("key"),
        )
        .order_by(ti.id)
    )


def _claimed_by(tx: Transaction, row: AgentRow, key: int) -> list[tuple[Any, ...]]:
    """Return the attempts that an earlier request with this key claimed and that have not started yet."""
    return tx.rows(_claimed, workflow=row.workflow_id, agent=row.id, key=key, unstarted=fsm.UNSTARTED)


def _claim(tx: Transaction, row: AgentRow, key: int, chosen: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Claim these queued attempts; return those that were still queued."""
    if not chosen:
        return []
    claimed = transitions.claim(tx, row.id, key, [one[0] for one in chosen])
    return [one for one in chosen if one[0] in claimed]


def _choose(
    tx: Transaction, row: AgentRow, cores: float, files: FileHandout, weights: _Weights
) -> list[tuple[Any, ...]]:
    """Return the next queued attempts, until this many cores are used; the last attempt may exceed them."""
    left, room = limits.room(tx, row.run_id), CommandRoom()
    chosen: list[tuple[Any, ...]] = []
    waiting, look = Waiting(tx, row.run_id, row.cluster_id, left), max(LOOK_FIRST, int(cores))
    while cores > 0 and len(chosen) < LAUNCHES_PER_RESPONSE_MAX:
        look = min(look, LAUNCHES_PER_RESPONSE_MAX - len(chosen))
        found = waiting.next(look)
        weights.learn(one[3] for one in found)
        fitting = []
        for one in found:
            if cores <= 0:
                break
            if left is None or left.admit(one[2]):
                cores -= weights.of[one[3]][0]
                fitting.append(one)
        files.learn(one[:3] for one in fitting)
        admitted = room.admit(fitting, lambda one: len(one[5]) + files.characters_of(one[0]))
        chosen += admitted
        if len(admitted) < len(fitting) or len(found) < look:
            break
        look *= 2
    return chosen


@statement
def _requests() -> Select[Any]:
    r = task_resources.c
    return select(r.id, r.requested).where(any_of(r.id, "ids"))


class _Weights:
    """Resource requests and their weights (cores, memory in GiB), by ID of the request; each is read once."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.requested: dict[int, dict[str, Any]] = {}
        self.of: dict[int, tuple[float, float]] = {}

    def learn(self, ids: Iterable[int]) -> None:
        """Read the requests with these IDs."""
        missing = set(ids) - self.requested.keys()
        for request_id, requested in self._tx.rows(_requests, ids=missing) if missing else ():
            self.requested[request_id] = json.loads(requested)
            self.of[request_id] = weight_of(self.requested[request_id])


def _columns(rows: Sequence[tuple[Any, ...]], files: FileHandout, weights: _Weights) -> AgentLaunches:
    weights.learn(map(itemgetter(3), rows))
    at = {request_id: index for index, request_id in enumerate(dict.fromkeys(map(itemgetter(3), rows)))}
    return AgentLaunches(
        **columns_of(rows),
        requests=[at[row[3]] for row in rows],
        requested_resources=[weights.requested[one] for one in at],
        cores=[weights.of[one][0] for one in at],
        memory_gib=[weights.of[one][1] for one in at],
        files=files.handed_out(rows),
    )


# -- ending --------------------------------------------------------------------------------------------------------


def _end(tx: Transaction, row: AgentRow, status: AgentStatus) -> int:
    lost = transitions.end_agent(tx, row.workflow_id, row.id, status)
    fair_share.release_of_agent(tx, row.holder)
    launch_problems.note(tx, row.workflow_id, {}, [row.cluster_id])
    tx.wake(Audience.DISTRIBUTOR, row.workflow_id)
    return lost


@statement
def _overdue_agents() -> Select[Any]:
    return select(a.id).where(any_of(a.status, "live"), a.report_by < param("now")).order_by(a.id).limit(param("most"))


def declare_lost(tx: Transaction) -> int:
    """Declare agents lost that were silent for too long; return how many attempts they had, which are lost as well.

    No agent is declared lost during the server's grace period after a start: it could not be reached before.
    """
    if tx.now <= tx.started_at + int(tx.settings.attempt_deadline_seconds * 1e6):
        return 0
    ended = 0
    for agent_id in tx.column(_overdue_agents, live=transitions.LIVE_AGENTS, now=tx.now, most=AGENTS_PER_PASS_MAX):
        row = require_agent(tx, agent_id)
        lost = _end(tx, row, AgentStatus.LOST)
        tx.audit(Actor.REAPER, "declare agent lost", row.workflow_id, agent=agent_id, attempts=lost)
        tx.wake_all(row.workflow_id)
        ended += lost
    return ended
