"""Defaults: Task > TaskTemplate > Workflow > Tool, key by key; and from YAML."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy
import pytest

from jobmon.client.api import Tool


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
    with pytest.raises(ValueError, match="at least 0"):
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


def _from_yaml(tool, level, path):
    path.write_text(f"tool_resources: {{{tool.name}: {{farm: {{cores: 2}}}}}}")
    level.set_default_compute_resources_from_yaml(default_cluster_name="", yaml_file=path)


def test_a_file_that_describes_one_cluster_selects_it(tool, tmp_path):
    workflow = tool.create_workflow("w")
    for level in (tool, workflow):
        _from_yaml(tool, level, tmp_path / "r.yaml")
        assert level.default_cluster_name == "farm"
    path = tmp_path / "t.yaml"
    path.write_text("task_template_resource_scales: {step: {slurm: {memory: 0.5}}}")
    template = tool.get_task_template("step", "{a}", node_args=["a"])
    template.set_default_resource_scales_from_yaml(path)
    assert workflow.add_task(template.create_task(a=1)).cluster_name == "slurm"


def test_defaults_for_several_clusters_at_once_leave_the_choice_to_another_level(tool, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("task_template_resources: {step: {slurm: {cores: 2}, multiprocess: {cores: 1}}}")
    template = tool.get_task_template("step", "{a}", node_args=["a"], yaml_file=path)
    workflow = tool.create_workflow("w", default_cluster_name="slurm")
    task = workflow.add_task(template.create_task(a=1))
    assert (template.default_cluster_name, task.cluster_name, task.compute_resources) == ("", "slurm", {"cores": 2})
    both = {"slurm": {"cores": 1}, "farm": {"cores": 2}}
    assert tool.create_workflow("x", default_compute_resources_set=both).default_cluster_name == ""
    one = tool.create_workflow("y", default_compute_resources_set={"farm": {"cores": 2}})
    assert one.default_cluster_name == "farm"


def test_an_update_that_is_refused_selects_no_cluster(tool):
    with pytest.raises(ValueError, match="Cores"):
        tool.update_default_compute_resources("farm", cores=-1)
    assert (tool.default_cluster_name, tool.default_compute_resources_set) == ("", {})


def _read(tool, method, text, path, **given):
    path.write_text(text)
    template = tool.get_task_template("step", "{a}", node_args=["a"])
    owner = template if "template" in text else tool
    getattr(owner, method)(yaml_file=path, **given)
    return owner


RESOURCES, SCALES = "set_default_compute_resources_from_yaml", "set_default_resource_scales_from_yaml"


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (RESOURCES, "tool_resources: {census: {farm: {cores: 2}}}"),
        (RESOURCES, "tool_resources: {farm: {cores: 2}}"),
        (RESOURCES, "tool_resources: {farm: {cores: 2}, slurm: {cores: 3, queue: long.q}}"),
        (RESOURCES, "task_template_resources: {step: {farm: {cores: 2}}}"),
        (SCALES, "tool_resource_scales: {census: {farm: {cores: 2}}}"),
        (SCALES, "tool_scales: {census: {farm: {cores: 2}}}"),
        (SCALES, "tool_scales: {farm: {cores: 2}, slurm: {cores: [3, 4]}}"),
        (SCALES, "task_template_scales: {step: {farm: {cores: 2}}}"),
        (SCALES, "task_template_resource_scales: {step: {farm: {cores: 2}}}"),
    ],
)
@pytest.mark.parametrize("keyword", ["default_cluster_name", "cluster_name"])
def test_each_layout_of_a_file_gives_the_same_values(tool, tmp_path, method, text, keyword):
    owner = _read(tool, method, text, tmp_path / "r.yaml", **{keyword: "farm"})
    values = owner.default_compute_resources_set if method == RESOURCES else owner.default_resource_scales_set
    assert values["farm"] == {"cores": 2}
    assert owner.default_cluster_name == "farm"


def test_a_tool_that_is_called_like_a_cluster_is_told_apart_by_what_its_entry_holds(tmp_path):
    by_tool = _read(Tool("farm"), RESOURCES, "tool_resources: {farm: {slurm: {cores: 2}}}", tmp_path / "r.yaml",
                    default_cluster_name="slurm")  # fmt: skip
    assert by_tool.default_compute_resources_set == {"slurm": {"cores": 2}}
    by_cluster = _read(Tool("farm"), RESOURCES, "tool_resources: {farm: {cores: 2}}", tmp_path / "r.yaml",
                       default_cluster_name="farm")  # fmt: skip
    assert by_cluster.default_compute_resources_set == {"farm": {"cores": 2}}


def test_a_file_without_the_tool_or_cluster_is_told_with_its_place(tool, tmp_path):
    with pytest.raises(ValueError, match="no key 'census' in tool_resources; did you mean 'senses'"):
        _read(tool, RESOURCES, "tool_resources: {senses: {farm: {cores: 2}}}", tmp_path / "r.yaml",
              default_cluster_name="farm")  # fmt: skip
    with pytest.raises(ValueError, match="no key 'fram' in tool_scales; did you mean 'farm'"):
        _read(tool, SCALES, "tool_scales: {farm: {cores: 2}}", tmp_path / "r.yaml", default_cluster_name="fram")


def test_keywords_of_older_versions_are_other_names_of_ours(tool):
    template = tool.get_task_template("step", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    for level in (tool, workflow, template):
        level.set_default_cluster_name(cluster_name="farm")
        level.set_default_compute_resources_from_dict(cluster_name="farm", dictionary={"cores": 2})
        level.set_default_resource_scales_from_dict(cluster_name="farm", dictionary={"memory": 0.5})
        assert (level.default_cluster_name, level.resources_for("farm")) == ("farm", {"cores": 2})
        assert level.scales_for("farm") == {"memory": 0.5}
    one, two, three = template.create_tasks(a=[1, 2, 3])
    two.add_upstream(ancestor=one)
    two.add_downstream(descendent=three)
    assert (two.upstream_tasks, two.downstream_tasks) == ({one}, {three})
    one.add_attribute(attribute="x", value="y")
    assert one.attributes == {"x": "y"}
    with pytest.raises(TypeError, match="'name' and 'attribute', two names of one argument"):
        one.add_attribute(name="x", attribute="y")
    with pytest.raises(TypeError, match="unexpected keyword argument 'ancester'"):
        two.add_upstream(ancester=one)


@pytest.mark.parametrize("number", [3, 3.0, Fraction(3), numpy.int64(3), numpy.float32(3)])
def test_a_whole_number_may_have_any_type(tool, number):
    template = tool.get_task_template("step", "{a}", node_args=["a"])
    workflow = tool.create_workflow(
        "w", max_concurrently_running=number, chunk_size=number, default_max_attempts=number
    )
    task = workflow.add_task(template.create_task(a=1, max_attempts=number, upstream_tasks=None))
    workflow.set_task_template_max_concurrency_limit("step", number)
    found = [workflow.max_concurrently_running, workflow.chunk_size, workflow.default_max_attempts, task.max_attempts]
    found.append(workflow.arrays["step"].max_concurrently_running)
    assert [(type(each), each) for each in found] == [(int, 3)] * 5


@pytest.mark.parametrize("number", [2.5, math.nan, math.inf, True, "3", Fraction(1, 3), None, 10**400])
def test_what_is_no_whole_number_is_refused(tool, number):
    template = tool.get_task_template("step", "{a}", node_args=["a"])
    with pytest.raises(ValueError, match="must be an integer"):
        tool.create_workflow("w", max_concurrently_running=number)
    with pytest.raises(ValueError, match="must be an integer"):
        template.create_task(a=1, max_attempts=-1 if number is None else number)


def test_node_args_are_found_by_value(tool):
    template = tool.get_task_template("step", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    workflow.add_tasks(template.create_tasks(a=[1, 2.0, "x"]))
    for values, count in ((1.0, 1), (2, 1), ([1, 2], 2), ("x", 1), (3, 0), (1.5, 0)):
        assert len(workflow.get_tasks_by_node_args("step", a=values)) == count
