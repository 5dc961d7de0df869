"""What commands ask is found by index: nothing reads a table from end to end."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from server_world import TI, open_world, report
from sqlalchemy import create_engine, text

from jobmon.core.wire.monitoring import UsageRequest
from jobmon.core.wire.sizing import SizingRequest
from jobmon.server.models import Base
from jobmon.server.queries import (
    explaining,
    exporting,
    failures,
    graph,
    monitoring,
    outputs,
    progress,
    sizing,
    steering,
    usage,
)
from jobmon.server.sql import Session


@pytest.mark.parametrize("side", ["upstream", "downstream"])
def test_the_neighbours_of_a_task_are_found_by_index(side):
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        question = f"EXPLAIN QUERY PLAN SELECT t.id {graph._NEIGHBOURS[side]}"
        plan = [row.detail for row in connection.execute(text(question), {"workflow": 1, "node": 1})]
    engine.dispose()
    assert plan
    assert not [step for step in plan if step.startswith("SCAN")]


class Planned(Session):
    """A session that remembers which tables were read from end to end."""

    def __init__(self, connection):
        super().__init__(connection, "sqlite")
        self.scanned = set()

    def rows(self, sql, /, **values):
        for step in super().rows(f"EXPLAIN QUERY PLAN {sql}", **values) if sql.split()[0] in ("SELECT", "WITH") else ():
            if step[3].startswith("SCAN") and "VIRTUAL TABLE" not in step[3]:
                self.scanned.add(step[3].split()[1])
        return super().rows(sql, **values)


NOW = explaining.Now(time=0, silence_seconds=1.0)
#: Tables that a query makes itself.
OWN = {"b", "blocked", "before"}
QUERIES = {
    "workflows of a user": lambda session, w, t: monitoring.workflows(session, monitoring.WorkflowsQuery(user=["me"])),
    "workflows by id": lambda session, w, t: monitoring.workflows(session, monitoring.WorkflowsQuery(workflow_id=[w])),
    "tasks": lambda session, w, t: monitoring.task_summaries(session, w, monitoring.TasksQuery(status=["F"])),
    "task": lambda session, w, t: monitoring.task_detail(session, t),
    "errors": lambda session, w, t: monitoring.workflow_errors(session, w, monitoring.ErrorsQuery()),
    "failures": lambda session, w, t: failures.workflow_failures(session, w, failures.FailuresQuery()),
    "outputs": lambda session, w, t: outputs.task_outputs(session, w, outputs.OutputsQuery(job="t*")),
    "why a task": lambda session, w, t: explaining.explain_task(session, t + 1, NOW),
    "why a workflow": lambda session, w, t: explaining.explain_workflow(session, w, NOW),
    "neighbours": lambda session, w, t: explaining.dependencies(session, t, explaining.DependenciesQuery()),
    "progress": lambda session, w, t: progress.progress(session, w),
    "export": lambda session, w, t: exporting.export_page(session, w, exporting.ExportQuery()),
    "history": lambda session, w, t: steering.history(session, w, steering.HistoryQuery()),
    "sizing": lambda session, w, t: sizing.workflow_sizing(session, w, SizingRequest()),
    "usage": lambda session, w, t: usage.template_usage(session, 1, UsageRequest(workflow_ids=[w])),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A workflow of which four failed, for one of which others wait; returns the file, its id, and that task's."""
    folder = tmp_path_factory.mktemp("plans")

    async def record():
        async with open_world(folder) as world:
            bound = await world.bound(8, max_attempts=1, edges={4: [3], 5: [4], 6: [5], 7: [0]})
            run = await bound.start()
            await run.register()
            await run.queue(bound.task_ids[:4])
            for attempt in (await run.launched()).task_instance_ids:
                await run.sync(report(attempt, TI.ERROR, error="why", host=f"n{attempt}"))
            return bound.workflow_id, bound.task_ids[3]

    return folder / "jobmon.sqlite", *asyncio.run(record())


@pytest.mark.parametrize("name", QUERIES)
def test_nothing_that_commands_ask_reads_a_table_from_end_to_end(recorded, name):
    path, workflow_id, task_id = recorded
    session = Planned(sqlite3.connect(path))
    assert QUERIES[name](session, workflow_id, task_id)
    assert session.scanned - OWN == set()
    session.close()
