"""Queries of commands use indexes: none scans a table."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest
from server_world import TI, open_world, report
from sqlalchemy import create_engine, literal, select

from jobmon.core.wire.binding import ArraySpec, ArraysRequest, FilePattern, IdsResponse
from jobmon.core.wire.monitoring import UsageRequest
from jobmon.core.wire.sizing import SizingRequest
from jobmon.core.wire.steering import TaskSetRequest
from jobmon.core.wire.swarm import DownstreamRequest
from jobmon.server import declared_files
from jobmon.server.kept import Kept
from jobmon.server.models import task, workflow
from jobmon.server.models.tables import metadata
from jobmon.server.queries import (
    blocked,
    critical,
    edited,
    explain,
    exporting,
    failures,
    files,
    graph,
    graphs,
    monitoring,
    outputs,
    progress,
    recorded,
    sizing,
    steering,
    swarm,
    task_sets,
    timeline,
    usage,
)
from jobmon.server.recent import Recent
from jobmon.server.sql import Session, param, statement
from jobmon.server.usecases import purging


class ExplainingCursor(sqlite3.Cursor):
    """A cursor that has each query explained before it runs it, and notes which tables are read from end to end."""

    def execute(self, query, values=()):
        if query.split(maxsplit=1)[0] in ("SELECT", "WITH"):
            for step in super().execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall():
                if step[3].startswith("SCAN") and "VIRTUAL TABLE" not in step[3]:
                    self.connection.scanned.add(step[3].split()[1])
        return super().execute(query, values)


class ExplainingConnection(sqlite3.Connection):
    """A connection with such cursors."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.scanned = set()

    def cursor(self):
        return super().cursor(ExplainingCursor)


@contextlib.contextmanager
def explained(path):
    """Return a session on a database, and the set in which the tables collect that it reads from end to end."""
    connection = sqlite3.connect(path, factory=ExplainingConnection)
    session = Session(connection, "sqlite")
    yield session, connection.scanned
    session.close()


@pytest.fixture
def empty(tmp_path):
    """A database without rows and statistics, as the planner finds it in a new installation."""
    path = tmp_path / "jobmon.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)
    engine.dispose()
    return path


def test_a_table_that_is_read_from_end_to_end_is_noticed(empty):
    with explained(empty) as (session, scanned):
        session.rows(statement(lambda: select(workflow.c.id).where(workflow.c.name == param("name"))), name="x")
        assert scanned == {"workflow"}
        session.rows(select(workflow.c.id.label("key")).join(task.alias("other"), literal(True)))
        assert scanned == {"workflow", "other"}


pytestmark = pytest.mark.sqlite_only(reason="reads the query plans of SQLite")


@pytest.mark.parametrize("side", ["upstream", "downstream"])
def test_the_neighbours_of_a_task_are_found_by_index(empty, side):
    with explained(empty) as (session, scanned):
        graph.neighbours(session, 1, 1, side, 10)
        graph.neighbours(session, 1, 1, side, 10, ["D"])
        graph.neighbour_counts(session, 1, 1, side)
        assert scanned == set()


NOW = explain.Now(time=0, silence_seconds=1.0)
#: Tables that a query makes itself, and one that has a single row.
OWN = {"b", "blocked", "above", "logical_clock", "users", "members"}
QUERIES = {
    "workflows of a user": lambda session, w, t: monitoring.workflows(session, monitoring.WorkflowsQuery(user=["me"])),
    "workflows by id": lambda session, w, t: monitoring.workflows(session, monitoring.WorkflowsQuery(workflow_id=[w])),
    "tasks": lambda session, w, t: monitoring.task_summaries(session, w, monitoring.TasksQuery(status=["F"]), Kept()),
    "tasks by importance": lambda session, w, t: monitoring.task_summaries(
        session, w, monitoring.TasksQuery(order="importance", total=True), Kept()
    ),
    "task": lambda session, w, t: monitoring.task_detail(session, t),
    "errors": lambda session, w, t: monitoring.workflow_errors(session, w, monitoring.ErrorsQuery()),
    "errors of tasks": lambda session, w, t: monitoring.workflow_errors(
        session, w, monitoring.ErrorsQuery(tasks=2, permanent=True)
    ),
    "failures": lambda session, w, t: failures.workflow_failures(
        session, w, failures.FailuresQuery(), Recent(), Kept()
    ),
    "outputs": lambda session, w, t: outputs.task_outputs(session, w, outputs.OutputsQuery(job="t*")),
    "why a task": lambda session, w, t: explain.explain_task(session, t + 1, NOW),
    "why a workflow": lambda session, w, t: explain.explain_workflow(session, w, NOW, Kept()),
    "neighbours": lambda session, w, t: explain.dependencies(session, t, explain.DependenciesQuery()),
    "progress": lambda session, w, t: progress.progress(session, w, Recent(), Kept()),
    "export": lambda session, w, t: exporting.export_page(session, w, exporting.ExportQuery()),
    "history": lambda session, w, t: steering.history(session, w, steering.HistoryQuery()),
    "changes": lambda session, w, t: swarm.changes(session, w, swarm.ChangesQuery(workflow_run_id=1)),
    "what newly failed tasks block": lambda session, w, t: blocked_since(session, w),
    "what a run knows": lambda session, w, t: [swarm.metadata(session, w), swarm.arrays(session, w)],
    "a page of tasks": lambda session, w, t: swarm.tasks_page(session, w, swarm.PageQuery()),
    "downstream tasks": lambda session, w, t: swarm.downstream(session, w, DownstreamRequest(dag_id=1, task_ids=[t])),
    "limits": lambda session, w, t: [swarm.workflow_limit(session, w), swarm.array_limit(session, 1)],
    "recorded tasks": lambda session, w, t: recorded.recorded_tasks(session, w, recorded.RecordedQuery()),
    "errors of a task": lambda session, w, t: monitoring.task_errors(session, t, monitoring.ErrorsQuery()),
    "the end of an output": lambda session, w, t: monitoring.log_tail(session, 1),
    "sizing": lambda session, w, t: sizing.workflow_sizing(session, w, SizingRequest(), Recent(), Kept()),
    "declared files": lambda session, w, t: files.declared_files(session, w, files.FilesQuery(template="t")).files,
    "declared inputs": lambda session, w, t: files.declared_files(session, w, files.FilesQuery(inputs=True)).files,
    "who writes a file": lambda session, w, t: declared_files.missing_input(session, t + 1, "/tmp/in/3"),
    "timeline": lambda session, w, t: timeline.timeline(session, w, timeline.TimelineQuery(by="host"), 1, Kept()),
    "critical path": lambda session, w, t: critical.critical_path(session, w, Recent()),
    "template graph": lambda session, w, t: graphs.template_graph(session, w, Recent()),
    "neighbourhood": lambda session, w, t: graphs.task_graph(session, t, graphs.TaskGraphQuery()),
    "edits": lambda session, w, t: edited.edits(session, w),
    "revisions": lambda session, w, t: edited.revisions(session, t),
    "tasks to skip": lambda session, w, t: task_sets.plan_set(session, w, TaskSetRequest(action="skip", task_ids=[t])),
    "a set of tasks to rerun": lambda session, w, t: task_sets.plan_set(
        session, w, TaskSetRequest(action="rerun", status=["F"])
    ),
    "tasks to hold": lambda session, w, t: task_sets.plan_set(session, w, TaskSetRequest(action="hold", task_ids=[t])),
    "usage": lambda session, w, t: usage.template_usage(session, 1, UsageRequest(workflow_ids=[w])),
}


def blocked_since(session, workflow_id):
    """Follow the graph from all failed tasks, as if they had failed just now."""
    known = blocked.Blocked(workflow_id)
    dag_id = session.value(select(workflow.c.dag_id).where(workflow.c.id == workflow_id))
    assert known._follow(session, dag_id, stamp=1, failed=4, monotonic=0.0)
    assert known.by_array == counted(session, workflow_id, dag_id)
    return known.by_array


def counted(session, workflow_id, dag_id):
    """Count the blocked tasks anew."""
    known = blocked.Blocked(workflow_id)
    known._find_all(session, dag_id, 0.0)
    return known.by_array


def test_unused_nodes_are_found_in_the_indexes_of_each_workflow(failed):
    path, _, _ = failed
    with explained(path) as (session, scanned):
        assert purging.delete_unused_nodes(session, 0, 2**63 - 1) is not None
        assert scanned <= {"workflow"}, "one row for each workflow, but no tasks"


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A workflow of which four failed, for one of which others wait; returns the file, its id, and that task's."""
    folder = tmp_path_factory.mktemp("plans")

    async def record():
        async with open_world(folder) as world:
            bound = await world.bound(8, max_attempts=1, edges={4: [3], 5: [4], 6: [5], 7: [0]})
            declared = [FilePattern(name="", pattern="in/{x}")]
            spec = ArraySpec(
                task_template_version_id=bound.tasks.task_template_version_id,
                name="t",
                max_concurrently_running=1000,
                inputs=declared,
                outputs=declared,
            )
            arrays = ArraysRequest(arrays=[spec])
            await world.post(f"/workflows/{bound.workflow_id}/arrays", IdsResponse, arrays)
            run = await bound.start()
            await run.register()
            await run.queue(bound.task_ids[:4])
            for attempt in (await run.launched()).task_instance_ids:
                await run.sync(report(attempt, TI.ERROR, error="why", host=f"n{attempt}"))
            return bound.workflow_id, bound.task_ids[3]

    return folder / "jobmon.sqlite", *asyncio.run(record())


@pytest.mark.parametrize("name", QUERIES)
def test_nothing_that_commands_ask_reads_a_table_from_end_to_end(failed, name):
    path, workflow_id, task_id = failed
    with explained(path) as (session, scanned):
        assert QUERIES[name](session, workflow_id, task_id)
        assert scanned - OWN == set()
