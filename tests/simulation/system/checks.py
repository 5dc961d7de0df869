"""Black-box checks: of the database, of the commands that ran, and of what the server acknowledged."""

from __future__ import annotations

import itertools
import sqlite3
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.system.scenario import GRID

from jobmon.core import fsm, wire
from jobmon.core.constants import Cause, TaskInstanceStatus, TaskKind, TaskStatus, WorkflowStatus
from jobmon.core.exceptions import InvalidStateTransition
from jobmon.core.wire.agents import AgentSyncRequest, AgentSyncResponse
from jobmon.core.wire.launching import SyncRequest, SyncResponse
from jobmon.core.wire.server import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.simulation.system.commands import Command
    from tests.simulation.system.scenario import Scenario, TaskPlan

#: An attempt that was declared lost is notified at its next heartbeat (90 s); this is a few heartbeats.
GIVEN_UP_SECONDS_MAX: Final = 300.0
#: Causes that are not the task's fault, and the maximum number of consecutive attempts that are not charged.
NOT_CHARGED: Final = frozenset(
    {
        Cause.NODE_FAILURE,
        Cause.PREEMPTED,
        Cause.REQUEUED,
        Cause.KILLED,
        Cause.KILLED_FOR_RESUME,
        Cause.WORKER_LOST,
        Cause.SUPERVISOR_LOST,
        Cause.NEVER_CONNECTED,
        Cause.NO_PYTHON,
    }
)
NOT_CHARGED_IN_A_ROW: Final = 10
_SERVER_FAULT: Final = 500
_STOPPING: Final = 503


#: How many of some tasks are neither done nor skipped, except for requests to rerun that are newer than an attempt.
_UNSATISFIED: Final = """
SELECT COUNT(*) FROM task WHERE status NOT IN ('D', 'S', 'X') AND name IN ({marks})
AND COALESCE(requested_at, 0) <= (SELECT queued_stamp FROM task_instance WHERE id = ?)
"""
#: The command of the revision with which an attempt was queued.
_COMMAND: Final = """
SELECT COALESCE(r.command, t.command) FROM task_instance n JOIN task t ON t.id = n.task_id
LEFT JOIN task_revision r ON r.task_id = n.task_id AND r.revision = n.revision WHERE n.id = ?
"""


class Record:
    """The database, read over a separate connection, from any thread because only one runs at a time (`bridge.py`)."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._connection.execute(query, values).fetchall()

    def workflow_status(self, scenario: Scenario) -> str | None:
        """Return the status of a scenario's workflow; None: it is not recorded yet."""
        found = self.rows("SELECT status FROM workflow WHERE workflow_args = ?", scenario.title)
        return found[0][0] if found else None

    def task_statuses(self) -> dict[int, str]:
        """Return task -> status."""
        return dict(self.rows("SELECT id, status FROM task"))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Commands:
    """Check what really runs: no task twice concurrently or again after its success was recorded; limits are kept.

    An attempt that the server rightly declared lost, because its worker was unreachable or its cluster lied, may keep
    running concurrently with its successor. It must end once it can reach the server again.
    """

    def __init__(self, record: Record, scenario: Scenario, violated: Callable[[str], None]) -> None:
        self._record = record
        self._scenario = scenario
        self._violated = violated
        self._running: dict[int, Command] = {}
        self._started: set[int] = set()
        self._finished: list[Command] = []
        self._heard_seconds: dict[int, float] = defaultdict(float)
        #: The largest limits that were ever in force.
        self.workflow_limit = scenario.workflow_limit
        self.template_limits = dict(scenario.template_limits)
        #: Attempts that a user closed by force, which may run concurrently with their successors.
        self.closed_by_force: set[int] = set()

    def observe(self, what: str, command: Command) -> None:
        """Record a start or an end of a command; "finish" is a success that a living process has seen."""
        if what == "start":
            self._start(command)
        else:
            self._running.pop(command.attempt, None)
            if what == "finish" and not self._has_ended(command):
                self._finished.append(command)

    def unrecorded(self, reaped: Collection[int]) -> Iterator[str]:
        """Yield commands that succeeded but are not recorded as done, although the process that saw it survived.

        Args:
            reaped: attempts that the reaper ended because no report or heartbeat arrived for too long.
        """
        for command in self._finished:
            excused = command.may_be_given_up() or command.attempt in self.closed_by_force or command.attempt in reaped
            status = self._record.rows("SELECT status FROM task_instance WHERE id = ?", command.attempt)[0][0]
            if status != TaskInstanceStatus.DONE and not excused:
                yield f"attempt {command.attempt} finished well and is recorded as {status}"

    def note_force(self) -> None:
        """Record that a user closes attempts by force, whether or not they are still running."""
        self.closed_by_force |= self._started

    def _start(self, command: Command) -> None:
        who = f"attempt {command.attempt} of task {command.task_id}"
        if command.attempt in self._started:
            self._violated(f"{who} was started twice")
        self._started.add(command.attempt)
        status = self._record.rows("SELECT status FROM task WHERE id = ?", command.task_id)[0][0]
        if status in (*fsm.SATISFIED, TaskStatus.REMOVED):
            self._violated(f"{who} was started though the task is recorded as {TaskStatus(status).name}")
        recorded = self._record.rows(_COMMAND, command.attempt)[0][0]
        if command.text != recorded:
            self._violated(f"{who} ran {command.text!r}, and its revision is {recorded!r}")
        others = [other for other in self._running.values() if other.task_id == command.task_id]
        if any(not self._is_given_up(other) for other in others) and not self._is_given_up(command):
            self._violated(f"{who} was started while another attempt of the task runs")
        self._running[command.attempt] = command
        self._check_upstreams(who, command)
        self._check_limits()

    def _is_given_up(self, command: Command) -> bool:
        """Return whether the server has ended a running attempt and was allowed to."""
        rightly = command.may_be_given_up() or command.attempt in self.closed_by_force
        return rightly and self._has_ended(command)

    def _has_ended(self, command: Command) -> bool:
        found = self._record.rows("SELECT status FROM task_instance WHERE id = ?", command.attempt)
        return fsm.is_terminal(fsm.Machine.TASK_INSTANCE, found[0][0])

    def sweep(self, seconds: float) -> None:
        """Check for attempts that were declared lost but keep running.

        Args:
            seconds: time since the last sweep, during which the server was reachable.
        """
        for identity, command in list(self._running.items()):
            if not command.is_in_touch() or not self._has_ended(command):
                continue
            self._heard_seconds[identity] += seconds
            if self._heard_seconds[identity] > GIVEN_UP_SECONDS_MAX:
                self._violated(
                    f"attempt {identity} was declared lost and still runs, {GIVEN_UP_SECONDS_MAX:g} s in touch"
                )
                del self._running[identity]

    def _check_upstreams(self, who: str, command: Command) -> None:
        """Check what the task waits for, except for reruns that were requested after the attempt was queued."""
        names = [_name(self._scenario.plan(index)) for index in self._scenario.upstreams_of(command.index)]
        marks = ",".join("?" * len(names))
        count = self._record.rows(_UNSATISFIED.format(marks=marks), *names, command.attempt)[0][0]
        if count:
            self._violated(f"{who} was started before {count} of its upstreams were done")

    def _check_limits(self) -> None:
        running = list(self._running.values())
        if len(running) > min([self.workflow_limit, *self.template_limits.values()]):
            running = [one for one in running if not self._is_given_up(one)]
        if len(running) > self.workflow_limit:
            self._violated(f"{len(running)} commands run, the workflow's limit is {self.workflow_limit}")
        for template, limit in self.template_limits.items():
            count = sum(self._scenario.plan(one.index).template == template for one in running)
            if count > limit:
                self._violated(f"{count} commands of {template} run, its limit is {limit}")


class Answers:
    """Check the answers of the server: no illegal ones and no server errors; record what it acknowledged."""

    def __init__(self, violated: Callable[[str], None]) -> None:
        self._violated = violated
        self.acknowledged: dict[int, str] = {}
        self.late = 0

    def observe(self, path: str, body: bytes, status: int, content: bytes) -> None:
        """Check an answer that has arrived."""
        if status >= 400:
            self._take_problem(path, status, content)
        elif path.endswith("/sync"):
            is_of_agent = "/agents/" in path
            self._take_sync(body, content, *((AgentSyncRequest, AgentSyncResponse) if is_of_agent else ()))

    def _take_problem(self, path: str, status: int, content: bytes) -> None:
        problem = wire.decode(Problem, content)
        is_fault = status >= _SERVER_FAULT and status != _STOPPING
        if is_fault or problem.kind in (InvalidStateTransition.__name__, "ValidationError", "NotFound"):
            self._violated(f"{path} was answered {status}: {problem.kind}: {problem.message}")

    def _take_sync(
        self,
        body: bytes,
        content: bytes,
        asked: type[SyncRequest | AgentSyncRequest] = SyncRequest,
        answered: type[SyncResponse | AgentSyncResponse] = SyncResponse,
    ) -> None:
        reports = wire.decode(asked, body).reports
        if not reports and b'"refused":{}' in content:
            return
        answer = wire.decode(answered, content)
        for identity, why in answer.refused.items():
            self._violated(f"a report of attempt {identity} was refused: {why}")
        self.late += len(answer.late)
        for report in reports:
            known = {*answer.late, *answer.refused}
            if report.task_instance_id not in known and fsm.is_terminal(fsm.Machine.TASK_INSTANCE, report.status):
                self.acknowledged[report.task_instance_id] = report.status


_ATTEMPTS: Final = """
SELECT task_id, id, number, status, charged, ended_at, cause, queued_stamp FROM task_instance ORDER BY task_id, number
"""
_TASKS: Final = """
SELECT t.id, t.name, t.status, t.num_attempts, t.max_attempts, t.attempt_count, t.kind
FROM task t JOIN workflow w ON w.id = t.workflow_id WHERE w.workflow_args = ? AND t.status != 'X' ORDER BY t.id
"""
#: The tasks of a workflow with each of their upstream tasks.
_EDGES: Final = """
SELECT t.name, u.name FROM workflow w JOIN task t ON t.workflow_id = w.id
JOIN dag_node d ON d.node_id = t.node_id JOIN upstream_set s ON s.id = d.upstream_set_id AND s.dag_id = w.dag_id
JOIN upstream_set_member m ON m.upstream_set_id = s.id
JOIN task u ON u.workflow_id = w.id AND u.node_id = m.node_id AND u.status != 'X'
WHERE w.workflow_args = ?
"""
_RUNS: Final = """
SELECT r.id, r.status FROM workflow_run r JOIN workflow w ON w.id = r.workflow_id
WHERE w.workflow_args = ? ORDER BY r.id
"""


#: Failures caused by a grid that are charged.
_OF_THE_GRID: Final = (Cause.SUBMISSION_FAILED, Cause.NO_HEARTBEAT, Cause.NO_DISTRIBUTOR_ID)


def failed_by_grid(record: Record, scenario: Scenario) -> set[int]:
    """Return the numbers of tasks that a grid made fail by rejecting or losing jobs, or reporting them as failed."""
    marks = ",".join("?" * len(_OF_THE_GRID))
    found = record.rows(
        f"""
        SELECT DISTINCT t.name FROM task_instance ti JOIN task t ON t.id = ti.task_id
        WHERE ti.charged AND ti.status != 'D' AND (ti.cause IS NULL OR ti.cause IN ({marks}))
        """,
        *_OF_THE_GRID,
    )
    indexes = {int(name.rpartition("_")[2]) for (name,) in found}
    return {index for index in indexes if scenario.owns(index) and scenario.plan(index).cluster == GRID}


def tired(record: Record) -> set[int]:
    """Return the numbers of tasks with so many uncharged attempts that further ones were charged."""
    found = record.rows(
        """
        SELECT t.name FROM task_instance ti JOIN task t ON t.id = ti.task_id
        WHERE NOT ti.charged GROUP BY t.name HAVING COUNT(*) >= ?
        """,
        NOT_CHARGED_IN_A_ROW,
    )
    return {int(name.rpartition("_")[2]) for (name,) in found}


def suspected(record: Record) -> set[int]:
    """Return the numbers of tasks that ran so often when their agent died that they count as its killers."""
    found = record.rows(
        "SELECT DISTINCT t.name FROM task_instance ti JOIN task t ON t.id = ti.task_id WHERE ti.cause = ?",
        Cause.KILLED_ITS_PARENT,
    )
    return {int(name.rpartition("_")[2]) for (name,) in found}


def problems(
    record: Record,
    scenario: Scenario,
    acknowledged: dict[int, str],
    excused: Collection[int],
    reopened: Mapping[int, Collection[int]],
) -> Iterator[str]:
    """Yield violations in the database when everything is over.

    Args:
        record: the database.
        scenario: the scenario that was simulated.
        acknowledged: attempt -> the outcome that the server acknowledged.
        excused: tasks that may have failed although their commands can succeed.
        reopened: task -> the logical times at which its rerun was requested.
    """
    attempts: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for row in record.rows(_ATTEMPTS):
        attempts[row[0]].append(row)
    tasks = record.rows(_TASKS, scenario.title)
    statuses = {row[1]: row[2] for row in tasks}
    if len(statuses) != len(tasks):
        yield f"{len(tasks)} tasks are recorded, of which {len(tasks) - len(statuses)} twice"
    for row in tasks:
        if row[6] == TaskKind.COMMAND:
            yield from _task_problems(row, attempts[row[0]], sorted(reopened.get(row[0], ())))
    yield from _end_problems(scenario, statuses, excused)
    yield from _run_problems(record, scenario, statuses)
    yield from _report_problems(record, acknowledged)
    yield from _graph_problems(record, scenario, statuses)


def _task_problems(task: tuple[Any, ...], attempts: list[tuple[Any, ...]], reopened: Sequence[int]) -> Iterator[str]:
    identity, _, status, num_attempts, max_attempts, attempt_count, _ = task
    who = f"task {identity}"
    if [row[2] for row in attempts] != list(range(1, attempt_count + 1)):
        yield f"{who} counts {attempt_count} attempts, recorded are {[row[2] for row in attempts]}"
    if num_attempts > max_attempts:
        yield f"{who} was charged {num_attempts} attempts of {max_attempts}"
    for row in attempts:
        ended = fsm.is_terminal(fsm.Machine.TASK_INSTANCE, row[3])
        if not ended or row[5] is None:
            yield f"{who}: attempt {row[1]} is {row[3]} though all is over (ended at {row[5]})"
    yield from _charge_problems(who, attempts)
    done = [row for row in attempts if row[3] == TaskInstanceStatus.DONE]
    for first, second in itertools.pairwise(done):
        if not any(first[7] < at < second[7] for at in reopened):
            yield f"{who} was done by attempt {first[1]} and, without a request, again by {second[1]}"
    newest = attempts[-1][3] if attempts else None
    is_open = bool(done) and any(at > done[-1][7] for at in reopened)
    if status == TaskStatus.DONE and newest != TaskInstanceStatus.DONE:
        yield f"{who} is {status} though its newest attempt is {newest}"
    if status != TaskStatus.DONE and newest == TaskInstanceStatus.DONE and not is_open:
        yield f"{who} is {status} though its newest attempt is {newest}"
    is_rejected = newest == TaskInstanceStatus.NO_DISTRIBUTOR_ID and attempts[-1][6] == Cause.SUBMISSION_FAILED
    spent = num_attempts >= max_attempts or newest == TaskInstanceStatus.ERROR_FATAL or is_rejected
    if status == TaskStatus.ERROR_FATAL and not spent:
        yield f"{who} failed for good after {num_attempts} of {max_attempts} attempts"


def _charge_problems(who: str, attempts: list[tuple[Any, ...]]) -> Iterator[str]:
    """Yield attempts that are charged although their task is not at fault, or not charged although it is."""
    free_in_a_row = 0
    for row in attempts:
        charged, cause = bool(row[4]), row[6]
        is_free = row[3] != TaskInstanceStatus.DONE and cause in NOT_CHARGED
        if charged and is_free and free_in_a_row < NOT_CHARGED_IN_A_ROW:
            yield f"{who}: attempt {row[1]} was charged though its cause is {cause!r}"
        if not charged and not is_free and row[5] is not None:
            yield f"{who}: attempt {row[1]} was not charged though its cause is {cause!r}"
        free_in_a_row = 0 if charged else free_in_a_row + 1


def _end_problems(scenario: Scenario, statuses: dict[str, str], excused: Collection[int]) -> Iterator[str]:
    """Yield tasks that are neither done, nor failed permanently, nor blocked by a failed task."""
    blocked: set[int] = set()
    absent: set[int] = set()
    is_cut_short = scenario.fail_fast and TaskStatus.ERROR_FATAL in statuses.values()
    for plan in scenario.tasks:
        status = statuses.get(_name(plan))
        if status is None and plan.origin is not None:
            origin = statuses.get(_name(scenario.plan(plan.origin)))
            if plan.origin in absent or origin == TaskStatus.SKIPPED:
                absent.add(plan.index)
                continue
            if origin != TaskStatus.DONE:  # it has not been called, or failed
                blocked.add(plan.index)
                continue
        is_blocked = not blocked.isdisjoint(scenario.upstreams_of(plan.index))
        if status not in fsm.SATISFIED:
            blocked.add(plan.index)
        expected: list[str | None] = [TaskStatus.DONE, TaskStatus.ERROR_FATAL]
        if is_blocked:
            expected = [TaskStatus.REGISTERING]
            if scenario.is_altered:  # it was done before an upstream task was rerun
                expected.append(TaskStatus.DONE)
        if scenario.is_altered or plan.index in scenario.skipped_by_calls:
            expected.append(TaskStatus.SKIPPED)
        if is_cut_short:
            expected += [TaskStatus.REGISTERING, TaskStatus.ADJUSTING_RESOURCES]
        if status not in expected:
            yield f"task number {plan.index} is {status} in the end (blocked: {is_blocked})"
        fails = bool(plan.failing_calls if plan.is_expansion else plan.outcomes[-1].exit_code != 0)
        if status == TaskStatus.DONE and fails and not plan.is_expansion:
            yield f"task number {plan.index} is done though it always fails"
        if status == TaskStatus.ERROR_FATAL and not fails and plan.index not in excused:
            yield f"task number {plan.index} failed for good though it can be done"


def _name(plan: TaskPlan) -> str:
    return f"{plan.template}_{plan.index}"


def _graph_problems(record: Record, scenario: Scenario, statuses: dict[str, str]) -> Iterator[str]:
    """Yield tasks that wait for other tasks than they should: fan-in, and what expansions add."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, upstream in record.rows(_EDGES, scenario.title):
        found[name].add(upstream)
    for plan in scenario.tasks:
        if _name(plan) in statuses:
            wanted = {
                name for one in scenario.upstreams_of(plan.index) if (name := _name(scenario.plan(one))) in statuses
            }
            if found[_name(plan)] != wanted:
                missing, more = sorted(wanted - found[_name(plan)]), sorted(found[_name(plan)] - wanted)
                yield f"task number {plan.index} does not wait for {missing}, and waits for {more}"


def _run_problems(record: Record, scenario: Scenario, statuses: dict[str, str]) -> Iterator[str]:
    for run_id, status in record.rows(_RUNS, scenario.title):
        if not fsm.is_terminal(fsm.Machine.WORKFLOW_RUN, status):
            yield f"run {run_id} is {status} though all is over"
    all_done = all(status in fsm.SATISFIED for status in statuses.values())
    workflow = record.workflow_status(scenario)
    if all_done != (workflow == WorkflowStatus.DONE):
        yield f"the workflow is {workflow}, all tasks done: {all_done}"


def _report_problems(record: Record, acknowledged: dict[int, str]) -> Iterator[str]:
    statuses = dict(record.rows("SELECT id, status FROM task_instance"))
    for identity, told in acknowledged.items():
        found = statuses.get(identity)
        killed = found == TaskInstanceStatus.ERROR and told != TaskInstanceStatus.DONE
        if found != told and not killed:
            yield f"attempt {identity} was acknowledged as {told} and is {found}"
