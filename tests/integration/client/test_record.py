"""Record with the real server, and look recorded definitions up by name."""

from __future__ import annotations

import pytest

from jobmon.client.api import Tool
from jobmon.core.wire.swarm import ArraysResponse, TasksPage

pytestmark = pytest.mark.usefixtures("data_directory")


@pytest.fixture
def tool():
    tool = Tool("record tests")
    yield tool
    tool.requester.close()


def _define(tool, workflow_args, width, **kwargs):
    template = tool.get_task_template("sum", "sum {where} {what}", node_args=["where"], task_args=["what"])
    workflow = tool.create_workflow(workflow_args, default_cluster_name="dummy", **kwargs)
    first = template.create_tasks(where=[f"a{n}" for n in range(width)], what=1)
    workflow.add_tasks(first)
    workflow.add_tasks(template.create_tasks(where=[f"b{n}" for n in range(width)], what=1, upstream_tasks=first))
    return workflow


def test_binding_twice_gives_the_same_ids(tool):
    one, two = _define(tool, "same", 30), _define(tool, "same", 30)
    one.bind()
    two.bind()
    assert (one.workflow_id, one.dag_id) == (two.workflow_id, two.dag_id)
    assert [task.task_id for task in one.tasks.values()] == [task.task_id for task in two.tasks.values()]
    assert {task.node_id for task in one.tasks.values()} == {task.node_id for task in two.tasks.values()}


def test_a_script_that_makes_its_tasks_in_another_order_finds_them_all_the_same(tool):
    template = tool.get_task_template("order", "echo {n}", node_args=["n"])
    ids = []
    for numbers in (range(20), reversed(range(20))):
        workflow = tool.create_workflow("order", default_cluster_name="dummy")
        workflow.add_tasks(template.create_tasks(n=list(numbers)))
        workflow.bind()
        ids.append({task.node_args["n"]: (task.task_id, task.node_id) for task in workflow.tasks.values()})
    assert ids[0] == ids[1]


def test_a_task_that_is_not_done_gets_its_new_definition(tool):
    for attempts in (3, 5):
        workflow = _define(tool, "new definition", 2, default_max_attempts=attempts)
        workflow.bind()
    page = tool.requester.call(f"/workflows/{workflow.workflow_id}/tasks", None, TasksPage, "get")
    assert set(page.max_attempts) == {5}


def test_dags_are_shared_between_workflows(tool):
    one, two = _define(tool, "one", 3), _define(tool, "two", 3)
    one.bind()
    two.bind()
    assert one.workflow_id != two.workflow_id
    assert one.dag_id == two.dag_id


def test_versions_of_tool_and_template(tool):
    old = tool.active_tool_version
    version = tool.get_new_tool_version()
    assert tool.active_tool_version.id == version
    assert tool.get_new_tool_version() > version
    assert tool.active_tool_version is not old
    workflow = _define(tool, "versions", 1)
    workflow.bind()
    template = tool.active_task_templates["sum"]
    recorded = template.active_task_template_version.id
    template.get_task_template_version("sum2 {where}", node_args=["where"])
    template.load_task_template_versions()
    assert [each.command_template for each in template.task_template_versions] == ["sum {where} {what}", "sum2 {where}"]
    template.set_active_task_template_version_id(recorded)
    assert template.active_task_template_version.command_template == "sum {where} {what}"
    with pytest.raises(ValueError, match="has no version 0"):
        template.set_active_task_template_version_id(0)


def test_a_new_tool_of_the_name_includes_the_templates_recorded_earlier(tool):
    _define(tool, "earlier", 1).bind()
    again = Tool(tool.name, requester=tool.requester)
    template = again.active_task_templates["sum"]
    assert template is again.get_task_template("sum", "sum {where} {what}", node_args=["where"], task_args=["what"])
    assert template.id == tool.active_task_templates["sum"].id
    task = again.active_task_templates["sum"].create_task(where="here", what="all")
    assert task.command == "sum here all"


def test_an_array_may_have_a_name_of_its_own(tool):
    template = tool.get_task_template("named", "echo {x}", node_args=["x"])
    workflow = tool.create_workflow("array with a name")
    workflow.add_tasks(template.create_tasks(x=[1, 2], name="both of them"))
    assert [task.name for task in workflow.tasks.values()] == ["named_x-1", "named_x-2"]
    assert workflow.arrays["named"].name == "both of them"
    workflow.bind()
    workflow.set_task_template_max_concurrency_limit("named", 1)
    arrays = tool.requester.call(f"/workflows/{workflow.workflow_id}/arrays", None, ArraysResponse, "get").arrays
    assert [(array.name, array.max_concurrently_running) for array in arrays] == [("both of them", 1)]


def test_limits_can_be_changed_after_binding(tool):
    workflow = _define(tool, "limits", 2)
    workflow.bind()
    workflow.set_task_template_max_concurrency_limit("sum", 1)
    assert workflow.arrays["sum"].max_concurrently_running == 1


def test_usage_of_what_has_not_run(tool):
    workflow = _define(tool, "usage", 2)
    workflow.bind()
    assert next(iter(workflow.tasks.values())).resource_usage() is None
