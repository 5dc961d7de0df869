"""Invalid resource requests are rejected with their location before anything is recorded; "auto"."""

from __future__ import annotations

import logging
import math

import numpy
import pytest

from jobmon.core.exceptions import InvalidMemoryFormat, InvalidResources
from jobmon.core.wire.binding import TasksRequest, WorkflowRequest
from jobmon.core.wire.definition import ClusterRequest, QueueSpec
from jobmon.core.wire.sizing import HistoryResponse

CLUSTER = ClusterRequest(
    name="here",
    plugin="dummy",
    queues=[
        QueueSpec(queue_name="small", parameters={"max_memory": "4G", "max_cores": 4, "default_runtime": "1h"}),
        QueueSpec(queue_name="large", parameters={"max_memory": "64G", "max_cores": 4}),
    ],
)


@pytest.fixture
def template(tool):
    return tool.get_task_template("step", "{a}", node_args=["a"], default_cluster_name="here")


@pytest.fixture
def workflow(server, tool):
    server.post_clusters(CLUSTER)
    return tool.create_workflow("w")


@pytest.mark.parametrize("key", ["cores", "memory", "runtime"])
@pytest.mark.parametrize("value", [0, -1, "8GG", 1e300, math.nan, math.inf, True, [], ""])
def test_a_value_that_is_no_amount_is_refused_where_it_is_given(template, tool, key, value):
    with pytest.raises((InvalidResources, InvalidMemoryFormat), match=rf"compute_resources: {key.capitalize()}"):
        template.create_task(a=1, compute_resources={key: value})
    with pytest.raises((InvalidResources, InvalidMemoryFormat), match=key.capitalize()):
        tool.update_default_compute_resources("here", **{key: value})


def test_an_amount_in_a_file_is_refused_with_its_place(template, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("task_template_resources: {step: {here: {memory: 8GG}}}")
    with pytest.raises(InvalidResources, match=r"r.yaml, task_template_resources.step.here: .*8GG.*'GG'"):
        template.set_default_compute_resources_from_yaml(path, "here")
    path.write_text("- a list")
    with pytest.raises(ValueError, match=r"r.yaml must be a mapping"):
        template.set_default_compute_resources_from_yaml(path, "here")
    path.write_text("task_template_resources: {stop: {here: {memory: 8G}}}")
    with pytest.raises(ValueError, match=r"r.yaml has no key 'step' in task_template_resources; did you mean 'stop'"):
        template.set_default_compute_resources_from_yaml(path, "here")
    path.write_text("task_template_resources: {step: {here: [1]}}")
    with pytest.raises(ValueError, match=r"r.yaml, task_template_resources.step.here: .*must be a dict"):
        template.set_default_compute_resources_from_yaml(path, "here")


_WRONG = [
    ({"compute_resources": {"memroy": 1}}, r"Unknown resource 'memroy'; did you mean 'memory'\?.*queue 'small'"),
    ({"compute_resources": {"queue": "smal"}}, r"no queue 'smal'; did you mean 'small'"),
    ({"fallback_queues": ["larg"]}, r"no fallback queue 'larg'; did you mean 'large'"),
    ({"cluster_name": "her"}, r"no cluster 'her'; did you mean 'here'"),
    ({"resource_scales": {"memroy": 1}}, r"resource_scales: Unknown resource 'memroy'"),
    (
        {"resource_scales": {"queue": 1}},
        r"resource_scales: Unknown resource 'queue'; valid names: cores, memory, runtime",
    ),
    ({"compute_resources": {"memory": 4}, "resource_scales": {"memory": lambda old: old / 2}}, r"must not shrink"),
    ({"compute_resources": {"memory": 4}, "resource_scales": {"memory": lambda old: None}}, r"turned 4.0 into None"),
    ({"compute_resources": {"memory": 4}, "resource_scales": {"memory": lambda old: old / 0}}, r"ZeroDivisionError"),
    ({"compute_resources": {"memory": 4}, "resource_scales": {"memory": ["6G", "5G"]}}, r"'memory'.*must not shrink"),
    ({"compute_resources": {"memory": 4}, "resource_scales": {"memory": ["3G"]}}, r"'memory'.*must not shrink"),
    ({"compute_resources": {"memory": 4}, "resource_scales": {"memory": ["8GG"]}}, r"'memory'.*8GG.*'GG'"),
]


@pytest.mark.parametrize(("options", "message"), _WRONG)
def test_what_no_queue_understands_is_refused_before_anything_is_recorded(server, workflow, template, options, message):
    workflow.add_task(template.create_task(a=1, name="mine", **options))
    with pytest.raises(InvalidResources, match=rf"(?s)Resources of task 'mine': .*{message}"):
        workflow.bind()
    assert server.sent(WorkflowRequest) == []


@pytest.mark.parametrize("scale", [-0.5, "0.5", None, {}, math.nan, True])
def test_what_is_no_scale_is_refused(template, scale):
    with pytest.raises(InvalidResources, match=r"resource_scales\['memory'\]: .*scale"):
        template.create_task(a=1, compute_resources={"memory": 1}, resource_scales={"memory": scale})


def test_a_default_that_is_wrong_for_the_queue_is_told_with_its_place(tool, workflow, template, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(f"tool_resources: {{{tool.name}: {{here: {{memroy: 8G, corse: 1}}}}}}")
    tool.set_default_compute_resources_from_yaml("here", path)
    template.update_default_resource_scales("here", memory=[2, 1])
    workflow.update_default_compute_resources("here", corse=2)
    workflow.add_task(template.create_task(a=1, compute_resources={"memory": "1T", "cpu": 1}))
    with pytest.raises(InvalidResources) as refused:
        workflow.bind()
    text = str(refused.value)
    assert f"'memroy' by {path}, tool_resources.{tool.name}.here" in text
    assert "'corse' by its workflow" in text
    assert "'memory' by" not in text
    assert "'cpu' by" not in text
    tool.update_default_compute_resources("here", corse=3)
    assert tool.source_of("memroy", "here") == "its tool"


def test_all_problems_of_one_task_are_told_at_once(workflow, template):
    wrong = {"compute_resources": {"memroy": 1}, "fallback_queues": ["larg", "smal"], "resource_scales": {"corse": 1}}
    workflow.add_task(template.create_task(a=1, **wrong))
    with pytest.raises(InvalidResources, match=r"'larg'.*'smal'.*'corse'.*'memroy'"):
        workflow.bind()


def test_all_problems_are_told_at_once(server, workflow, template):
    for number, (options, _) in enumerate(_WRONG):
        workflow.add_task(template.create_task(a=number, name=f"task{number}", **options))
    with pytest.raises(InvalidResources) as refused:
        workflow.validate()
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [f"Resources of task 'task{n}'" for n in range(len(_WRONG))]


def test_strict_validation_tells_task_value_limit_queue_and_a_better_one(workflow, template):
    workflow.add_task(template.create_task(a=1, name="one", compute_resources={"memory": "8G", "cores": 2}))
    workflow.add_task(template.create_task(a=2, name="two", compute_resources={"memory": "64G", "cores": 4}))
    assert workflow.validate() == [
        "Task 'one' on queue 'small' of 'here': memory 8 GiB is above the maximum of 4 GiB; it gets memory 4 GiB"
        " (queue 'large' would accept it unchanged)",
        "Task 'two' on queue 'small' of 'here': memory 64 GiB is above the maximum of 4 GiB; it gets memory 4 GiB"
        " (queue 'large' would accept it unchanged)",
    ]
    assert workflow.validate(strict=False) == []
    with pytest.raises(InvalidResources, match=r"(?s)'one'.*'two'.*would accept it unchanged"):
        workflow.validate(raise_on_error=True)


_EITHER = (
    "no queue of cluster 'here' can hold it:"
    " queue 'small': cores 9 cores is above the maximum of 4 cores; memory 1024 GiB is above the maximum of 4 GiB;"
    " queue 'large': cores 9 cores is above the maximum of 4 cores; memory 1024 GiB is above the maximum of 64 GiB."
    " Request no more than one of them allows, or choose another cluster."
)


@pytest.mark.parametrize("queue", ["small", "large"])
def test_what_no_queue_can_hold_is_refused_before_anything_is_recorded(server, workflow, template, queue):
    workflow.add_task(template.create_task(a=1, name="one", compute_resources={"memory": "8G"}))
    asked = {"memory": "1T", "cores": 9, "queue": queue}
    workflow.add_task(template.create_task(a=2, name="two", compute_resources=asked))
    for call in (workflow.bind, workflow.validate):
        with pytest.raises(InvalidResources) as refused:
            call()
        first, second = str(refused.value).splitlines()
        assert first == f"Resources of task 'two': {_EITHER}"
        assert second.startswith("Task 'one' on queue 'small' of 'here': memory 8 GiB"), "all at once"
    assert server.sent(WorkflowRequest) == []


def test_one_queue_has_to_hold_all_of_a_request(server, tool, template):
    queues = [
        QueueSpec(queue_name="fat", parameters={"max_memory": "64G", "max_cores": 2, "min_cores": 2}),
        QueueSpec(queue_name="wide", parameters={"max_memory": "4G", "max_cores": 64}),
    ]
    server.post_clusters(ClusterRequest(name="odd", plugin="dummy", queues=queues))
    workflow = tool.create_workflow("w", default_cluster_name="odd")
    both = {"memory": "64G", "cores": 64}
    workflow.add_task(template.create_task(a=1, cluster_name="odd", compute_resources=both))
    with pytest.raises(InvalidResources, match=r"no queue.*'fat': cores 64.*'wide': memory 64 GiB"):
        workflow.bind()
    workflow = tool.create_workflow("v", default_cluster_name="odd")
    little = template.create_task(a=1, cluster_name="odd", compute_resources={"memory": "64G", "cores": 1})
    workflow.add_task(little)
    workflow.bind()
    assert little.requested_resources == {"memory": 64.0, "cores": 2}, "to be raised to a minimum is no want of room"


def test_what_auto_proposes_is_moved_within_the_limits_whatever_it_is(server, workflow, template, caplog):
    """Tasks used nearly all that there is; with its margin that is more than any queue has."""
    server.history = _history(("1", 20, 100.0, 63.0))
    task = workflow.add_task(template.create_task(a=1, compute_resources={"memory": "auto", "queue": "large"}))
    workflow.bind()
    assert task.requested_resources == {"memory": 64.0}
    assert "it gets memory 64 GiB" in caplog.text


def test_without_strictness_it_is_moved_and_said(workflow, template, caplog):
    task = workflow.add_task(template.create_task(a=1, name="one", compute_resources={"memory": "8G"}))
    with caplog.at_level(logging.WARNING):
        workflow.bind()
    assert task.requested_resources == {"memory": 4.0, "runtime": 3600.0}
    assert "it gets memory 4 GiB" in caplog.text


def _history(*groups):
    """Each group: value of the node argument, number of tasks, seconds, GiB."""
    rows = [(value, seconds, gib) for value, count, seconds, gib in groups for _ in range(count)]
    values, seconds, memory = (list(column) for column in zip(*rows, strict=True))
    cpu = [1.1 * each for each in seconds]
    return HistoryResponse(seconds=seconds, cpu_seconds=cpu, memory_gib=memory, node_args={"a": values})


def test_auto_takes_what_the_history_says_and_states_its_risk(server, workflow, template, caplog):
    server.history = _history(("9", 19, 100.0, 1.0), ("8", 1, 900.0, 9.0))
    whole = workflow.add_task(template.create_task(a=1, compute_resources="auto"))
    part = workflow.add_task(template.create_task(a=2, compute_resources={"memory": "auto", "cores": 3}))
    assert part.requested_resources == {"memory": "auto", "cores": 3}
    with caplog.at_level(logging.INFO):
        workflow.bind()
    assert whole.requested_resources == {"memory": 1229 / 1024, "runtime": 150.0, "cores": 1}
    assert part.requested_resources == {"memory": 1229 / 1024, "runtime": 3600.0, "cores": 3}
    assert caplog.text.count("probability that a first attempt fails is 5 %") == 1
    assert whole.task_resources.original == {"memory": "auto", "runtime": "auto", "cores": "auto"}


def test_auto_looks_at_the_node_argument_that_makes_a_difference(server, workflow, template):
    server.history = _history(("1", 20, 10.0, 0.5), ("2", 20, 10.0, 3.0), ("3", 2, 10.0, 1.0))
    tasks = [template.create_task(a=a, compute_resources={"memory": "auto"}) for a in (1, 2, 3, 4)]
    workflow.add_tasks(tasks)
    workflow.bind()
    small, large, few, unknown = (task.requested_resources["memory"] for task in tasks)
    assert (small, large) == (615 / 1024, 3687 / 1024)
    assert few == unknown == large, "of those nothing is known: as all together"
    assert len({id(task.task_resources) for task in tasks}) == 2
    assert server.sent(TasksRequest)[0].task_resources_ids == [task.task_resources.id for task in tasks]


def test_auto_without_enough_history_is_the_queues_default(server, workflow, template, caplog):
    server.history = _history(("1", 19, 100.0, 1.0))
    task = workflow.add_task(template.create_task(a=1, compute_resources="auto"))
    with caplog.at_level(logging.INFO):
        workflow.bind()
    assert task.requested_resources == {"runtime": 3600.0}
    assert "only 19 of its tasks have finished (20 are needed)" in caplog.text


def test_auto_in_a_file(template, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("task_template_resources: {step: {here: auto, there: {memory: auto}}}")
    template.set_default_compute_resources_from_yaml(path, "here")
    assert template.create_task(a=1).compute_resources == {"cores": "auto", "memory": "auto", "runtime": "auto"}
    assert template.default_compute_resources_set["there"] == {"memory": "auto"}


def _warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_defaults_for_another_cluster_than_the_one_of_the_tasks_are_warned_of_once(server, workflow, template, caplog):
    template.set_default_compute_resources_from_dict("slurm", {"cores": 2})
    workflow.add_tasks(template.create_tasks(a=[1, 2]))
    workflow.add_task(template.create_task(a=3, max_attempts=1))
    workflow.validate()
    workflow.bind()
    (warning,) = _warnings(caplog)
    assert "runs on cluster 'here', but default resources are declared only for cluster 'slurm'" in warning


def test_scales_for_other_clusters_are_warned_of_likewise(server, tool, workflow, template, caplog):
    for cluster in ("slurm", "farm"):
        tool.set_default_resource_scales_from_dict(cluster, {"memory": 0.5})
    workflow.add_task(template.create_task(a=1, compute_resources={"cores": 1}))
    workflow.bind()
    (warning,) = _warnings(caplog)
    assert "'here', but default resource scales are declared only for clusters 'farm' and 'slurm'" in warning


@pytest.mark.parametrize("cluster", ["here", ""])
def test_nothing_is_warned_of_where_some_level_says_what_applies(server, tool, workflow, template, caplog, cluster):
    tool.set_default_compute_resources_from_dict("slurm", {"cores": 2})
    workflow.set_default_compute_resources_from_dict(cluster, {"cores": 1})
    workflow.add_task(template.create_task(a=1))
    workflow.bind()
    assert _warnings(caplog) == []


@pytest.mark.parametrize("value", ["a\0b", "\udcff", ["\udcff"], {"key": "\udcff"}, {"\udcff": 1}])
def test_a_text_that_no_database_stores_is_refused_where_it_is_given(template, value):
    with pytest.raises(InvalidResources, match="contains a NUL character or bytes that are not UTF-8"):
        template.create_task(a=1, compute_resources={"project": value})


def test_a_value_that_contains_itself_is_refused(template):
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidResources, match="contains itself"):
        template.create_task(a=1, compute_resources={"project": endless})


@pytest.mark.parametrize("key", ["stdout", "stderr"])
def test_an_output_file_with_a_name_that_no_file_system_allows_is_refused(template, key):
    with pytest.raises(InvalidResources, match=f"compute_resources: {key}: the name 'x+'... has more than the 255"):
        template.create_task(a=1, compute_resources={key: "logs/" + "x" * 256})


def test_requests_with_arrays_and_numbers_of_numpy_follow_each_other(template):
    first = template.create_task(a=1, compute_resources={"project": [1, 2]})
    second = template.create_task(a=2, compute_resources={"project": numpy.int64(2)})
    assert [first.compute_resources, second.compute_resources] == [{"project": [1, 2]}, {"project": 2}]


def test_values_of_a_scale_are_checked_also_for_a_resource_that_is_not_requested(workflow, template):
    workflow.add_task(template.create_task(a=1, resource_scales={"cores": [2, "many"]}))
    with pytest.raises(InvalidResources, match=r"resource_scales\['cores'\].*'many'"):
        workflow.validate(raise_on_error=True)
