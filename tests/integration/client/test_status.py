"""Query the status of workflows and tasks from a script; attributes that a running task sets."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import pytest

import jobmon.client
from jobmon.client import api, status
from jobmon.client.logging import configure_client_logging
from jobmon.core.constants import TaskStatus

pytestmark = pytest.mark.usefixtures("data_directory")
CODE = "from jobmon.client.api import add_task_attributes; add_task_attributes({'size': 12, 'kind': 'large'})"


@pytest.fixture
def workflow():
    tool = api.Tool("status tests")
    template = tool.get_task_template("run", "{command}", node_args=["command"])
    workflow = tool.create_workflow()
    commands = [f'{sys.executable} -P -c "{CODE}"', "exit 3"]
    workflow.add_tasks(template.create_tasks(command=commands, max_attempts=1))
    workflow.run()
    yield workflow
    tool.requester.close()


@pytest.fixture
def without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)


@pytest.mark.usefixtures("without_pandas")
def test_workflows_tasks_and_attempts_are_lists_of_dicts(workflow):
    (one,) = api.workflow_status(workflow_id=workflow.workflow_id)
    assert (one["workflow_id"], one["status"], one["counts"]) == (workflow.workflow_id, "F", {"D": 1, "F": 1})
    assert api.workflow_status([float(workflow.workflow_id)]) == [one]
    assert one in api.workflow_status(limit=1)
    good, bad = api.workflow_tasks(workflow.workflow_id)
    assert (good["status"], bad["status"]) == ("D", "F")
    for word in ("F", "ERROR_FATAL", "fatal", TaskStatus.ERROR_FATAL, ["F", "RUNNING"]):
        assert api.workflow_tasks(workflow.workflow_id, word) == [bad]
    (attempt,) = api.task_status(bad["task_id"])
    assert (attempt["task_status"], attempt["exit_code"], attempt["number"]) == ("F", 3, 1)
    assert [one["task_id"] for one in api.task_status([good["task_id"], bad["task_id"]], "DONE")] == [good["task_id"]]
    with pytest.raises(ValueError, match="'BROKEN' is not a task status; valid names: REGISTERING"):
        api.workflow_tasks(workflow.workflow_id, "BROKEN")
    with pytest.raises(ValueError, match="task_ids must be one ID or several"):
        api.task_status("one")


@pytest.mark.usefixtures("without_pandas")
def test_all_rows_are_returned_unless_a_limit_is_given(monkeypatch):
    monkeypatch.setattr(status, "_PAGE_ROWS", 2)
    tool = api.Tool("status tests")
    template = tool.get_task_template("many", "true {i}", node_args=["i"])
    bound = [tool.create_workflow() for _ in range(5)]
    for workflow in bound:
        workflow.add_tasks(template.create_tasks(i=range(5)))
        workflow.bind()
    ids = [workflow.workflow_id for workflow in reversed(bound)]
    assert [one["workflow_id"] for one in api.workflow_status()][:5] == ids
    assert [one["workflow_id"] for one in api.workflow_status(iter(ids), user=None)] == ids
    assert [one["workflow_id"] for one in api.workflow_status(limit=3.0)] == ids[:3]
    tasks = api.workflow_tasks(ids[0], None)
    assert [one["node_args"] for one in tasks] == [{"i": str(i)} for i in range(5)]
    assert api.workflow_tasks(ids[0], "PENDING", limit=3) == tasks[:3]
    tool.requester.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda: api.workflow_status(limit=0),
        lambda: api.workflow_status(limit="3"),
        lambda: api.workflow_status(True),
        lambda: api.workflow_status(-1),
        lambda: api.workflow_status(2**70),
        lambda: api.workflow_status(user=3),
        lambda: api.workflow_tasks([]),
        lambda: api.workflow_tasks([1, 2]),
        lambda: api.workflow_tasks(1, 3),
        lambda: api.workflow_tasks(1, limit=-1),
        lambda: api.task_status({"a": 1}),
        lambda: api.task_status(b"1"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(call):
    with pytest.raises(ValueError, match=r"not |3 is not a task status"):
        call()


def test_they_are_data_frames_where_pandas_is_there(workflow, monkeypatch):
    made = []
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows: made.append(rows) or "frame"))
    assert api.workflow_tasks(workflow.workflow_id) == "frame"
    assert len(made[0]) == 2


def test_a_running_task_adds_attributes_to_itself(workflow):
    (good, _) = workflow.tasks.values()
    assert good.final_status == "D", workflow.get_errors()
    with pytest.raises(RuntimeError, match="JOBMON_TASK_ID is not set"):
        api.add_task_attributes({"size": 1})


def test_names_that_scripts_import():
    configure_client_logging()
    assert isinstance(importlib.import_module("jobmon.client").__version__, str)
    with pytest.raises(AttributeError, match="has no attribute 'version'"):
        _ = jobmon.client.version
