"""Defaults: Task > TaskTemplate > Workflow > Tool, key by key; and from YAML."""

from __future__ import annotations

import pytest

from jobmon.client.api import Tool


@pytest.fixture
def tool():
    return Tool("census")


def _task(tool, workflow=None, **kwargs):
    template = tool.get_task_template("step", "{a}", node_args=["a"])
    task = template.create_task(a=len(workflow.tasks) if workflow else 0, **kwargs)
    return workflow.add_task(task) if workflow else task


def test_without_any_default(tool):
    task = _task(tool)
    assert (task.cluster_name, task.max_attempts, task.compute_resources) == ("multiprocess", 3, {})


def test_the_stronger_level_wins_key_by_key(tool):
    tool.set_default_cluster_name("c")
    tool.set_default_compute_resources_from_dict("c", {"cores": 1, "memory": 1, "runtime": 1, "project": "tool"})
    tool.set_default_max_attempts(4)
    workflow = tool.create_workflow(
        "w", default_compute_resources_set={"c": {"cores": 2, "memory": 2, "runtime": 2}}, default_max_attempts=5
    )
    task = _task(tool, workflow)
    assert (task.compute_resources["cores"], task.max_attempts) == (2, 5)
    tool.active_task_templates["step"].update_default_compute_resources("c", cores=3, memory=3)
    tool.active_task_templates["step"].set_default_max_attempts(6)
    task = _task(tool, workflow, compute_resources={"cores": 4}, max_attempts=7)
    assert task.compute_resources == {"cores": 4, "memory": 3, "runtime": 2, "project": "tool"}
    assert task.max_attempts == 7
    assert _task(tool, workflow).max_attempts == 6


def test_defaults_hold_for_their_cluster_only(tool):
    tool.set_default_compute_resources_from_dict("c", {"cores": 1})
    tool.set_default_compute_resources_from_dict("d", {"cores": 2})
    assert _task(tool, cluster_name="d").compute_resources == {"cores": 2}
    assert _task(tool, cluster_name="e").compute_resources == {}


def test_scales_resolve_likewise(tool):
    tool.set_default_resource_scales_from_dict("multiprocess", {"memory": 0.5, "runtime": 0.5})
    tool.update_default_resource_scales("multiprocess", runtime=[1, 2, 3, 4])
    assert _task(tool, resource_scales={"memory": 1.0}, max_attempts=2).resource_scales == {
        "memory": 1.0,
        "runtime": [1, 2, 3, 4],
    }
    with pytest.raises(ValueError, match="memory"):
        tool.update_default_resource_scales("multiprocess", memory="much")
    with pytest.raises(ValueError, match="below 0"):
        tool.update_default_resource_scales("multiprocess", memory=-0.5)


def test_resources_given_with_a_template_hold_on_its_cluster(tool):
    template = tool.get_task_template(
        "t", "{a}", node_args=["a"], default_cluster_name="c", default_compute_resources={"cores": 2}, max_attempts=1
    )
    task = template.create_task(a=1)
    assert (task.cluster_name, task.compute_resources, task.max_attempts) == ("c", {"cores": 2}, 1)


YAML = """
tool_resources:
  census: {c: {cores: 1, memory: 1G}, d: {cores: 9}}
task_template_resources:
  step: {c: {cores: 2}}
tool_resource_scales:
  census: {c: {memory: 0.1}}
task_template_resource_scales:
  step: {c: {memory: 0.2}}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "resources.yaml"
    path.write_text(YAML)
    return path


def test_yaml_of_tool_and_templates(tool, path):
    _task(tool)
    tool.set_default_compute_resources_from_yaml("c", path, set_task_templates=True)
    tool.set_default_resource_scales_from_yaml("c", str(path), set_task_templates=True)
    task = _task(tool)
    assert task.cluster_name == "c"
    assert task.compute_resources == {"cores": 2, "memory": "1G"}
    assert task.resource_scales == {"memory": 0.2}
    assert tool.default_compute_resources_set["d"] == {"cores": 9}


def test_yaml_of_workflow_and_template(tool, path):
    workflow = tool.create_workflow("w")
    workflow.set_default_compute_resources_from_yaml("c", path)
    assert _task(tool, workflow).compute_resources == {"cores": 1, "memory": "1G"}
    template = tool.get_task_template("step", "{a}", node_args=["a"], yaml_file=path)
    assert template.default_compute_resources_set == {"c": {"cores": 2}}
    assert template.default_resource_scales_set == {"c": {"memory": 0.2}}


def test_missing_keys_name_file_key_and_neighbour(tool, path):
    tool.get_task_template("stop", "{a}", node_args=["a"])
    with pytest.raises(ValueError, match=r"resources.yaml has no key 'stop' in task_template_resources.*'step'"):
        tool.set_default_compute_resources_from_yaml("c", path, set_task_templates=True)
    tool.set_default_compute_resources_from_yaml("c", path, set_task_templates=True, ignore_missing_keys=True)
    with pytest.raises(ValueError, match=r"no key 'e' in tool_resources.census"):
        tool.set_default_compute_resources_from_yaml("e", path)
    with pytest.raises(ValueError, match="'censu' in tool_resources; did you mean 'census'"):
        Tool("censu").set_default_compute_resources_from_yaml("c", path)


def test_unreadable_yaml(tool, tmp_path):
    path = tmp_path / "bad.yaml"
    with pytest.raises(ValueError, match=r"bad\.yaml cannot be read"):
        tool.set_default_compute_resources_from_yaml("c", path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"bad\.yaml cannot be read"):
        tool.set_default_compute_resources_from_yaml("c", path)
    path.write_text("tool_resources: {census: {c: {memory: 1X}}}")
    with pytest.raises(ValueError, match=r"bad\.yaml, tool_resources\.census\.c: .*1X"):
        tool.set_default_compute_resources_from_yaml("c", path)
