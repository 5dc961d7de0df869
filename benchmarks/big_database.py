"""Write the database of a large workflow in bulk: tasks in all states, with attempts, errors and output.

A location is 1,000 tasks: `prepare` -> 800 x `simulate` -> 198 x `summarise` -> `report`; `final` depends on all
reports. 60 % of the locations are done (one task in twenty at its second attempt), 5 % have failed (most on one host),
5 % are running, and the rest is waiting. The database also has a small workflow that is done.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import Cause, ResourceType, TaskInstanceStatus, TaskStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.server import migrations
from jobmon.server.database import open_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIMULATIONS: Final = 800
SUMMARIES: Final = 198
TASKS_PER_LOCATION: Final = SIMULATIONS + SUMMARIES + 2
DONE_SHARE, FAILED_SHARE, BUSY_SHARE = 0.60, 0.05, 0.05
RETRIED_EACH: Final = 20
FAILED_PER_LOCATION: Final = 20
BAD_HOST: Final = "n217"
HOSTS: Final = 200
HOUR: Final = 3_600_000_000
TEMPLATES: Final = ("prepare", "simulate", "summarise", "report", "final")
_ERROR: Final = "Traceback (most recent call last):\n  File {path!r}, line {line}\nMemoryError: cannot allocate array"


@dataclass
class Rows:
    """Rows by table, and the next IDs."""

    now: int
    task: list[tuple[Any, ...]] = field(default_factory=list)
    attempt: list[tuple[Any, ...]] = field(default_factory=list)
    tail: list[tuple[Any, ...]] = field(default_factory=list)
    node: list[tuple[Any, ...]] = field(default_factory=list)
    node_arg: list[tuple[Any, ...]] = field(default_factory=list)
    member: list[tuple[Any, ...]] = field(default_factory=list)
    user: list[tuple[Any, ...]] = field(default_factory=list)
    upstream: list[tuple[Any, ...]] = field(default_factory=list)
    attempts: int = 0

    def lists(self) -> dict[str, list[tuple[Any, ...]]]:
        return {
            "node": self.node,
            "node_arg": self.node_arg,
            "upstream_set": self.upstream,
            "upstream_set_member": self.member,
            "dag_node": self.user,
            "task": self.task,
            "task_instance": self.attempt,
            "log_tail": self.tail,
        }


def build(path: Path, tasks: int) -> int:
    """Write a database with a large workflow of this many tasks, in whole thousands; return the number of locations."""
    engine = open_engine(f"sqlite:///{path}")
    migrations.upgrade(engine)
    engine.dispose()
    locations = max(1, tasks // TASKS_PER_LOCATION)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-400000")
        connection.execute("BEGIN")
        now = time.time_ns() // 1000
        _definitions(connection, now, locations)
        rows = Rows(now)
        for location in range(locations):
            _location(rows, location, locations)
            _write(connection, rows)
        _final(rows, locations)
        _write(connection, rows)
        _small(connection, now)
        connection.execute(
            "INSERT INTO status_count (workflow_id, array_id, status, number)"
            " SELECT workflow_id, array_id, status, COUNT(*) FROM task GROUP BY workflow_id, array_id, status"
        )
        connection.execute("UPDATE logical_clock SET stamp = ?", (now,))
        connection.execute("COMMIT")
    return locations


def _insert(connection: sqlite3.Connection, table: str, /, **values: Any) -> None:
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def _definitions(connection: sqlite3.Connection, now: int, locations: int) -> None:
    add = connection
    _insert(add, "tool", id=1, name="burden")
    _insert(add, "tool_version", id=1, tool_id=1)
    for number, name in enumerate(TEMPLATES, 1):
        _insert(add, "task_template", id=number, tool_version_id=1, name=name)
        _insert(
            add,
            "task_template_version",
            id=number,
            task_template_id=number,
            hash=f"version-{number}",
            command_template=f"python {name}.py --location {{location}} --draw {{draw}}",
            node_args=json.dumps(["draw", "location"]),
            task_args="[]",
            op_args="[]",
        )
    for number, name in enumerate(("location", "draw"), 1):
        _insert(add, "argument", id=number, name=name)
    _insert(add, "cluster", id=1, name="multiprocess", plugin="multiprocess", connection="{}", removed=False)
    _insert(add, "queue", id=1, cluster_id=1, name="default", position=0, parameters="{}")
    request = json.dumps({"cores": 1.0, "memory": 2.0, "runtime": 3600})
    _insert(
        add, "task_resources", id=1, hash="request-1", queue_id=1, kind=ResourceType.VALIDATED.value, requested=request
    )
    _workflow(add, 1, "large", WorkflowStatus.RUNNING, locations * TASKS_PER_LOCATION + 1, now)
    _run(add, 1, 1, WorkflowRunStatus.RUNNING, now)
    for number, template in enumerate(TEMPLATES, 1):
        _array(add, number, 1, number, template, now)


def _workflow(
    connection: sqlite3.Connection, number: int, name: str, status: WorkflowStatus, tasks: int, now: int
) -> None:
    _insert(connection, "dag", id=number, hash=f"dag-{number}", complete=True)
    _insert(
        connection,
        "workflow",
        id=number,
        tool_version_id=1,
        dag_id=number,
        workflow_args_hash=f"args-{number}",
        task_hash="",
        workflow_args=name,
        name=name,
        description="",
        user_name="root",
        working_directory="/",
        umask=18,
        task_count=tasks,
        task_counts="{}",
        bound=True,
        max_concurrently_running=5000,
        limit_at=0,
        batch_count=0,
        created_at=now - 12 * HOUR,
        status=status.value,
        status_at=now - 11 * HOUR,
    )


def _run(connection: sqlite3.Connection, number: int, workflow: int, status: WorkflowRunStatus, now: int) -> None:
    _insert(
        connection,
        "workflow_run",
        id=number,
        workflow_id=workflow,
        request_key=f"run-{number}",
        user_name="root",
        host="login",
        pid=1,
        pid_start_time=0.0,
        version="0",
        created_at=now - 12 * HOUR,
        bound_at=now - 12 * HOUR,
        report_by=now + 10_000 * HOUR,
        status=status.value,
        status_at=now - 11 * HOUR,
    )


def _array(connection: sqlite3.Connection, number: int, workflow: int, template: int, name: str, now: int) -> None:
    _insert(
        connection,
        "task_array",
        id=number,
        workflow_id=workflow,
        task_template_version_id=template,
        name=name,
        max_concurrently_running=5000,
        limit_at=now - 12 * HOUR,
    )


def _kinds() -> Iterator[tuple[int, int]]:
    """Yield the template and the number within the template for every task of a location, in order."""
    yield 1, 0
    yield from ((2, draw) for draw in range(SIMULATIONS))
    yield from ((3, summary) for summary in range(SUMMARIES))
    yield 4, 0


def _location(rows: Rows, location: int, locations: int) -> None:
    first = location * TASKS_PER_LOCATION + 1
    sets = [3 * location + number for number in (1, 2, 3)]
    rows.upstream += [(number, 1, "client", number) for number in sets]
    summaries = first + 1 + SIMULATIONS
    rows.member.append((sets[0], first))
    rows.member += [(sets[1], first + 1 + draw) for draw in range(SIMULATIONS)]
    rows.member += [(sets[2], summaries + number) for number in range(SUMMARIES)]
    rows.user += [(sets[0], first + 1 + draw) for draw in range(SIMULATIONS)]
    rows.user += [(sets[1], summaries + number) for number in range(SUMMARIES)]
    rows.user.append((sets[2], summaries + SUMMARIES))
    for task_id, (template, number) in enumerate(_kinds(), first):
        _task(rows, task_id, template, location, number, _status(location, locations, template, number))


def _status(location: int, locations: int, template: int, number: int) -> TaskStatus:
    """Return the status of a task, consistent with the statuses of its upstream tasks."""
    place = (location + 0.5) / locations
    if place < DONE_SHARE:
        return TaskStatus.DONE
    if place < DONE_SHARE + FAILED_SHARE:
        if template == 2 and number < FAILED_PER_LOCATION:
            return TaskStatus.ERROR_FATAL
        return TaskStatus.DONE if template <= 2 else TaskStatus.REGISTERING
    if place < DONE_SHARE + FAILED_SHARE + BUSY_SHARE and template <= 2:
        flying = (TaskStatus.RUNNING, TaskStatus.LAUNCHED, TaskStatus.QUEUED, TaskStatus.INSTANTIATING)
        return TaskStatus.DONE if template == 1 or number < SIMULATIONS // 2 else flying[number % len(flying)]
    return TaskStatus.REGISTERING


def _task(rows: Rows, task_id: int, template: int, location: int, number: int, status: TaskStatus) -> None:
    name = f"{TEMPLATES[template - 1]}_{location}_{number}"
    rows.node.append((task_id, template, f"node-{task_id}"))
    rows.node_arg += [(task_id, 1, str(location)), (task_id, 2, str(number))]
    at = rows.now - 11 * HOUR + task_id * 30_000
    before = 1 if status is TaskStatus.DONE and task_id % RETRIED_EACH == 0 else 0
    tried = 0 if status is TaskStatus.REGISTERING else 1
    count = before + (3 if status is TaskStatus.ERROR_FATAL else tried)
    for attempt in range(1, count + 1):
        _attempt(rows, task_id, attempt, at, _attempt_status(status, is_last=attempt == count))
    charged = 0 if status is TaskStatus.REGISTERING else count
    command = f"python {TEMPLATES[template - 1]}.py --location {location} --draw {number} --output /data/{name}.parquet"
    values = (task_id, 1, template, task_id, f"task-{task_id}", name, command, 3, charged, count, 0, 1)
    rows.task.append((*values, None, None, status.value, at))


def _attempt_status(status: TaskStatus, *, is_last: bool) -> TaskInstanceStatus:
    if not is_last:
        return TaskInstanceStatus.ERROR
    return {
        TaskStatus.DONE: TaskInstanceStatus.DONE,
        TaskStatus.ERROR_FATAL: TaskInstanceStatus.ERROR_FATAL,
        TaskStatus.QUEUED: TaskInstanceStatus.QUEUED,
        TaskStatus.INSTANTIATING: TaskInstanceStatus.INSTANTIATED,
        TaskStatus.LAUNCHED: TaskInstanceStatus.LAUNCHED,
        TaskStatus.RUNNING: TaskInstanceStatus.RUNNING,
    }[status]


def _attempt(rows: Rows, task_id: int, number: int, at: int, status: TaskInstanceStatus) -> None:
    rows.attempts += 1
    failed = status in (TaskInstanceStatus.ERROR, TaskInstanceStatus.ERROR_FATAL)
    ended = failed or status is TaskInstanceStatus.DONE
    begun = ended or status is TaskInstanceStatus.RUNNING
    host = BAD_HOST if failed and task_id % 3 else f"n{task_id % HOSTS}"
    error = _ERROR.format(path=f"/code/model_{task_id % 7}.py", line=task_id) if failed else None
    output = f"/logs/{task_id // 1000}/{task_id}.{number}.out" if begun else None
    rows.attempt.append(
        (
            rows.attempts,
            task_id,
            number,
            1,
            1,
            1,
            None,
            None,
            str(task_id) if begun else None,
            status.value,
            at - 60_000_000,
            None if status is TaskInstanceStatus.QUEUED else at - 50_000_000,
            at - 40_000_000 if begun else None,
            at if ended else None,
            None if ended else rows.now + 10_000 * HOUR,
            Cause.EXIT_CODE.value if failed else None,
            ended,
            host if begun else None,
            4711 if begun else None,
            1 if failed else 0 if ended else None,
            None,
            error,
            output,
            output,
            40.0 + task_id % 20 if ended else None,
            39.0 if ended else None,
            1_500_000_000 + task_id % 1000 * 1_000_000 if ended else None,
            None,
            None,
        )
    )
    if failed:
        rows.tail.append((rows.attempts, error))


def _final(rows: Rows, locations: int) -> None:
    last, number = locations * TASKS_PER_LOCATION + 1, 3 * locations + 1
    rows.upstream.append((number, 1, "client", number))
    rows.member += [(number, (location + 1) * TASKS_PER_LOCATION) for location in range(locations)]
    rows.user.append((number, last))
    _task(rows, last, 5, 0, 0, TaskStatus.REGISTERING)


def _write(connection: sqlite3.Connection, rows: Rows) -> None:
    for table, found in rows.lists().items():
        if found:
            marks = ", ".join("?" * len(found[0]))
            connection.executemany(f"INSERT INTO {table} ({_COLUMNS[table]}) VALUES ({marks})", found)
            found.clear()


_COLUMNS: Final = {
    "node": "id, task_template_version_id, hash",
    "node_arg": "node_id, argument_id, value",
    "upstream_set": "id, dag_id, caller, number",
    "upstream_set_member": "upstream_set_id, node_id",
    "dag_node": "upstream_set_id, node_id",
    "task": "id, workflow_id, array_id, node_id, hash, name, command, max_attempts, num_attempts, attempt_count,"
    " uncharged_in_a_row, task_resources_id, scales, fallback_queues, status, status_at",
    "task_instance": "id, task_id, number, workflow_run_id, cluster_id, task_resources_id, batch_id, array_step_id,"
    " distributor_id, status, queued_at, launched_at, started_at, ended_at, report_by, cause, charged, host, pid,"
    " exit_code, exit_signal, error, stdout, stderr, wallclock_seconds, cpu_seconds, max_rss_bytes, read_bytes,"
    " written_bytes",
    "log_tail": "task_instance_id, text",
}


def _small(connection: sqlite3.Connection, now: int) -> None:
    _workflow(connection, 2, "small", WorkflowStatus.DONE, 1, now)
    _run(connection, 2, 2, WorkflowRunStatus.DONE, now)
    _array(connection, 100, 2, 1, TEMPLATES[0], now)
    rows = [(100_000_000, 2, 100, 1, "small", "small", "true", 3, 0, 0, 0, 1, None, None, TaskStatus.DONE.value, now)]
    connection.executemany(f"INSERT INTO task ({_COLUMNS['task']}) VALUES ({', '.join('?' * 16)})", rows)
