"""Large or unusual input works at a cost proportional to tasks rather than edges, or is rejected with a reason."""

import time

import pytest

from jobmon.client.api import Tool
from jobmon.client.swarm.builder import SwarmBuilder
from jobmon.client.swarm.gateway import ServerGateway
from jobmon.core.constants import WorkflowRunStatus
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.requester import Requester
from jobmon.core.wire.binding import REQUEST_BYTES_MAX
from jobmon.core.wire.swarm import TasksPage

#: 25 million edges; one by one, four times as many took 16 s and 800 MB to define alone.
SIDE = 5_000
CPU_SECONDS_MAX = 5.0


@pytest.fixture
def tool(data_directory):
    return Tool(name="large")


@pytest.fixture
def template(tool):
    return tool.get_task_template("noop", "true {number}", node_args=["number"])


def workflow_of(tool, name, tasks, **options):
    workflow = tool.create_workflow(name=name, workflow_args=name, default_cluster_name="dummy", **options)
    workflow.add_tasks(tasks)
    return workflow


def test_thousands_of_upstreams_on_each_of_thousands_of_tasks(tool, template):
    before = time.process_time()
    first = template.create_tasks(number=list(range(SIDE)))
    then = template.create_tasks(number=list(range(SIDE, 2 * SIDE)), upstream_tasks=first)
    workflow = workflow_of(tool, "bipartite", [*first, *then])
    assert workflow.run() == WorkflowRunStatus.DONE
    assert time.process_time() - before < CPU_SECONDS_MAX
    assert first[0].downstream_tasks == frozenset(then)
    assert len(then[-1].upstream_tasks) == SIDE


def test_a_workflow_whose_every_task_belongs_to_another_template(tool):
    templates = [tool.get_task_template(f"t{n}", f"true {n} {{number}}", node_args=["number"]) for n in range(100)]
    workflow = workflow_of(tool, "templates", [template.create_task(number=1) for template in templates])
    assert workflow.run() == WorkflowRunStatus.DONE
    assert len(workflow.arrays) == 100


@pytest.mark.parametrize("chunk_size", [1, 10**9])
def test_chunk_size_is_a_hint_that_nothing_breaks_on(tool, template, chunk_size):
    tasks = template.create_tasks(number=[1, 2])
    assert workflow_of(tool, f"chunks {chunk_size}", tasks, chunk_size=chunk_size).run() == WorkflowRunStatus.DONE


@pytest.mark.parametrize("chunk_size", [0, -1, "x", 2.5, True, None])
def test_chunks_of_a_size_that_is_none_are_refused_at_once(tool, chunk_size):
    with pytest.raises(ValueError, match=f"chunk_size must be an integer of at least 1, not {chunk_size!r}"):
        tool.create_workflow("never made", chunk_size=chunk_size)
    with pytest.raises(ValueError, match=f"edge_chunk_size must be an integer of at least 1, not {chunk_size!r}"):
        SwarmBuilder(Requester.from_defaults(), 1).build_from_workflow_id(1, chunk_size)
    with pytest.raises(ValueError, match=f"chunk_size must be an integer of at least 1, not {chunk_size!r}"):
        ServerGateway(Requester.from_defaults(), 1, 1).get_tasks_sync(chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [0, -1, 10_001])
def test_a_page_of_no_tasks_or_too_many_is_refused(tool, template, chunk_size):
    workflow = workflow_of(tool, f"page {chunk_size}", [template.create_task(number=1)])
    workflow.bind()
    requester = Requester.from_defaults()
    with pytest.raises(InvalidRequest, match="chunk_size: must be from 1 to 10000"):
        requester.call(f"/workflows/{workflow.workflow_id}/tasks", {"chunk_size": chunk_size}, TasksPage, "get")


def test_a_command_of_a_megabyte_is_refused_when_the_task_is_made(template):
    with pytest.raises(ValueError, match="longer than the 131071 bytes that the system allows; write long lists"):
        template.create_task(number="x" * 2**20)


def test_long_commands_are_recorded_in_requests_of_bounded_size(tool, template):
    tasks = template.create_tasks(number=[f"{n:0100000}" for n in range(400)])
    assert sum(len(task.command) for task in tasks) > REQUEST_BYTES_MAX
    workflow = workflow_of(tool, "long", tasks)
    workflow.bind()
    assert all(task.task_id for task in tasks)
