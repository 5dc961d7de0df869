"""The checks before anything is recorded, and the recorded rows."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from jobmon.client import binding as binding_module
from jobmon.client import dag
from jobmon.client.api import Tool
from jobmon.client.binding import Binding, _chunks, _edge_chunks
from jobmon.core.constants import WorkflowStatus
from jobmon.core.exceptions import (
    CyclicGraphError,
    EmptyWorkflowError,
    InvalidResources,
    NodeDependencyNotExistError,
    WorkflowAlreadyComplete,
)
from jobmon.core.wire.binding import ArraysRequest, EdgesRequest, TasksRequest, WorkflowRequest
from jobmon.core.wire.monitoring import UsageRequest, UsageResponse


def _nothing_recorded(server):
    return not server.sent(WorkflowRequest) and not server.tools


def test_bind_records_everything_once(server, make_workflow):
    workflow = make_workflow(middle=3)
    workflow.bind()
    assert workflow.is_bound
    assert {task.task_id is not None for task in workflow.tasks.values()} == {True}
    request = server.sent(TasksRequest)[0]
    assert request.names[0] == "step_where-first"
    assert request.node_args == {"where": ["first", "middle0", "middle1", "middle2", "last"]}
    assert request.commands[-1] == "echo last"
    edges = server.sent(EdgesRequest)
    assert [len(nodes) for nodes in edges[0].upstream_nodes] == [1, 3]
    assert edges[0].node_sets == [0, 0, 0, 1]
    assert edges[-1].last
    before = len(server.requests)
    workflow.bind()
    assert len(server.requests) == before


def test_the_same_definition_is_the_same_workflow(server, make_workflow):
    first, second = make_workflow(), make_workflow()
    first.bind()
    second.bind()
    assert first.workflow_id == second.workflow_id
    assert [t.task_id for t in first.tasks.values()] == [t.task_id for t in second.tasks.values()]
    assert len(server.sent(EdgesRequest)) == 1


def test_what_is_recorded_and_done_is_not_sent_again(server, make_workflow):
    first, second = make_workflow(middle=3), make_workflow(middle=3)
    first.bind()
    known = server.workflow(first.workflow_id)
    *done, left = known.tasks
    known.statuses.update(dict.fromkeys(done, "D"))
    second.bind()
    request = server.sent(TasksRequest)[-1]
    assert request.node_hashes == [left]
    assert [t.task_id for t in first.tasks.values()] == [t.task_id for t in second.tasks.values()]
    assert [str(t.initial_status) for t in second.tasks.values()] == ["D", "D", "D", "D", "G"]


def test_attributes_of_what_is_done_are_sent_again(server, make_workflow):
    first, second = make_workflow(middle=1), make_workflow(middle=1)
    first.bind()
    known = server.workflow(first.workflow_id)
    known.statuses.update(dict.fromkeys(known.tasks, "D"))
    next(iter(second.tasks.values())).add_attribute("colour", "red")
    second.bind()
    assert [request.attributes for request in server.sent(TasksRequest)[1:]] == [{0: {"colour": "red"}}]


def test_the_order_of_tasks_does_not_count(tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    hashes = set()
    for order in (range(5), range(4, -1, -1)):
        tasks = [template.create_task(a=i) for i in order]
        by_name = {task.name: task for task in tasks}
        by_name["s_a-4"].add_upstreams(by_name[f"s_a-{i}"] for i in order if i != 4)
        hashes.add((dag.edge_sets(tasks).dag_hash, dag.task_hash(tasks)))
    assert len(hashes) == 1


def test_a_complete_workflow_has_nothing_to_do(server, make_workflow):
    make_workflow().bind()
    next(iter(server.workflows.values())).status = WorkflowStatus.DONE.value
    with pytest.raises(WorkflowAlreadyComplete, match="'args' is already complete: nothing to do"):
        make_workflow().bind()
    with pytest.raises(WorkflowAlreadyComplete, match="nothing to do"):
        make_workflow().run(resume=True)


def test_an_interrupted_bind_continues(server, make_workflow):
    workflow = make_workflow()
    half = Binding(workflow)
    half.record_workflow()
    half._record_arrays()
    again = make_workflow()
    again.bind()
    assert again.is_bound
    assert again.workflow_id == workflow.workflow_id


def test_empty_workflow(server, tool):
    with pytest.raises(EmptyWorkflowError):
        tool.create_workflow("w").bind()
    assert _nothing_recorded(server)


def test_cycle_is_printed(server, tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    a, b, c, d = (workflow.add_task(template.create_task(name=n, a=n)) for n in "abcd")
    for task, upstream in ((b, a), (c, b), (a, c), (d, a)):
        task.add_upstream(upstream)
    with pytest.raises(CyclicGraphError) as caught:
        workflow.bind()
    text = str(caught.value)
    assert any(f"{x} -> {y} -> {z} -> {x}" in text for x, y, z in ("abc", "bca", "cab"))
    assert "d" not in text.split(":")[1]
    assert _nothing_recorded(server)


def test_a_task_that_waits_for_itself(tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    task = workflow.add_task(template.create_task(name="alone", a=1))
    task.add_upstream(task)
    with pytest.raises(CyclicGraphError, match="alone -> alone"):
        workflow.bind()


def test_long_chains_need_no_recursion(tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    tasks = [workflow.add_task(template.create_task(a=i)) for i in range(5_000)]
    for upstream, task in itertools.pairwise(tasks):
        task.add_upstream(upstream)
    dag.check(workflow)
    tasks[0].add_upstream(tasks[-1])
    with pytest.raises(CyclicGraphError, match="more"):
        dag.check(workflow)


def test_upstream_outside_the_workflow(server, tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    outside = template.create_task(name="outside", a=0)
    workflow.add_task(template.create_task(name="inside", a=1, upstream_tasks=[outside]))
    with pytest.raises(NodeDependencyNotExistError, match="'inside' depends on 'outside'"):
        workflow.bind()
    assert _nothing_recorded(server)


_DEPENDING = {
    "add_upstream": lambda template, inside: _named(template, 1).add_upstream(inside),
    "add_downstream": lambda template, inside: inside.add_downstream(_named(template, 1)),
    "create_task": lambda template, inside: _named(template, 1, upstream_tasks=[inside]),
    "create_tasks": lambda template, inside: template.create_tasks(a=[1], upstream_tasks=[inside]),
}


def _named(template, number, **options):
    return template.create_task(name="outside", a=number, **options)


@pytest.mark.parametrize("way", _DEPENDING)
def test_a_downstream_outside_the_workflow(server, tool, way):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    inside = workflow.add_task(template.create_task(name="inside", a=0))
    _DEPENDING[way](template, inside)
    with pytest.raises(
        NodeDependencyNotExistError, match=r"Task '(outside|s_a-1)' depends on 'inside' but is not .* Add it"
    ):
        workflow.bind()
    assert _nothing_recorded(server)


def test_many_downstreams_outside_the_workflow_are_told_up_to_a_number(server, tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    upstreams = template.create_tasks(a=[*range(dag.MISSING_NAMES_MAX)])
    workflow.add_tasks(upstreams)
    template.create_tasks(a=[*range(100, 103 + dag.MISSING_NAMES_MAX)], upstream_tasks=upstreams)
    with pytest.raises(NodeDependencyNotExistError, match=r"^Tasks 's_a-100', .* and 3 more depend on .* Add them"):
        workflow.bind()


def test_a_downstream_in_another_workflow(server, tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow, other = tool.create_workflow("w"), tool.create_workflow("x")
    first = workflow.add_task(template.create_task(name="first", a=0))
    other.add_task(template.create_task(name="second", a=1, upstream_tasks=[first]))
    for each in (workflow, other):
        with pytest.raises(NodeDependencyNotExistError, match=r"'second' depends on 'first'"):
            each.bind()


def test_tasks_of_a_call_that_was_refused_are_nobodys_downstreams(server, tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    for number in (1, 20):
        upstreams = template.create_tasks(a=[f"{number}-{i}" for i in range(number)])
        workflow.add_tasks(upstreams)
        kept = template.create_task(a=f"kept {number}", upstream_tasks=upstreams)
        workflow.add_task(kept)
        with pytest.raises(ValueError, match="'a'"):
            template.create_tasks(a=["fine", "fine, too", object()], upstream_tasks=upstreams)
        assert upstreams[0].downstream_tasks == {kept}
    workflow.bind()
    assert workflow.is_bound


@pytest.mark.parametrize("way", _DEPENDING)
def test_nothing_depends_on_a_recorded_task_any_more(server, tool, way):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    inside = workflow.add_task(template.create_task(name="inside", a=0))
    workflow.bind()
    with pytest.raises(ValueError, match="'inside' is already recorded"):
        _DEPENDING[way](template, inside)
    assert inside.downstream_tasks == frozenset()


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"cluster_name": "multiproces"}, "no cluster 'multiproces'; did you mean 'multiprocess'"),
        (
            {"cluster_name": "dummy", "compute_resources": {"queue": "defalt"}},
            "no queue 'defalt'; did you mean 'default'",
        ),
        ({"cluster_name": "dummy", "compute_resources": {"memroy": 1}}, "'memroy'; did you mean 'memory'"),
        ({"cluster_name": "dummy", "fallback_queues": ["deflt"]}, "no fallback queue 'deflt'; did you mean 'default'"),
        ({"cluster_name": "dummy", "resource_scales": {"memry": 1}}, "resource_scales: .*did you mean 'memory'"),
    ],
)
def test_unknown_names_are_told_with_their_neighbours(server, tool, kwargs, text):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    workflow.add_task(template.create_task(a=1, **kwargs))
    with pytest.raises(InvalidResources, match=text):
        workflow.bind()
    assert _nothing_recorded(server)


def test_a_cluster_with_a_plug_in_here_is_recorded(server, make_workflow):
    make_workflow().bind()
    assert server.clusters["dummy"].plugin == "dummy"


def test_what_the_machine_does_not_have_is_refused(server, tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w", default_cluster_name="multiprocess")
    workflow.add_task(template.create_task(a=1, name="wide", compute_resources={"cores": 10_000}))
    for call in (workflow.bind, workflow.validate, partial(workflow.validate, strict=False)):
        with pytest.raises(InvalidResources, match=r"'wide': no queue of .*'multiprocess'.*'default': cores 10000"):
            call()
    assert _nothing_recorded(server)


def test_without_a_cluster_one_core_of_multiprocess(tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w")
    task = workflow.add_task(template.create_task(a=1))
    workflow.bind()
    assert task.task_resources.cluster_name == "multiprocess"
    assert task.requested_resources == {"cores": 1}


def test_tasks_that_ask_for_the_same_share_one_request(server, tool):
    templates = [tool.get_task_template(name, "{a}", node_args=["a"]) for name in ("s", "t")]
    workflow = tool.create_workflow("w", default_cluster_name="dummy")
    for template in templates:
        workflow.add_tasks(template.create_tasks(a=range(3), compute_resources={"memory": "1G"}))
    workflow.bind()
    assert len(server.resources) == 1
    assert len({id(task.task_resources) for task in workflow.tasks.values()}) == 1


def test_what_a_callable_decides_is_not_recorded(server, tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    workflow = tool.create_workflow("w", default_cluster_name="dummy")
    workflow.add_task(
        template.create_task(
            a=1,
            compute_resources_callable=dict,
            resource_scales={"memory": lambda old: old * 2, "runtime": [1, 2, 3, 4]},
            max_attempts=2,
            task_attributes={"size": 3},
        )
    )
    workflow.bind()
    request = server.sent(TasksRequest)[0]
    assert request.task_resources_ids == [None]
    assert request.scales == [{"memory": None, "runtime": [1, 2]}]
    assert request.attributes == {0: {"size": "3"}}
    assert request.max_attempts == [2]


def test_concurrency_limits(server, make_workflow):
    workflow = make_workflow()
    workflow.set_task_template_max_concurrency_limit("step", 2)
    workflow.bind()
    assert server.sent(ArraysRequest)[0].arrays[0].max_concurrently_running == 2
    with pytest.raises(ValueError, match="limit"):
        workflow.set_task_template_max_concurrency_limit("step", -1)
    other = make_workflow("other")
    other.set_task_template_max_concurrency_limit("stop", 2)
    with pytest.raises(ValueError, match=r"'stop'.*did you mean 'step'"):
        other.bind()


def test_tasks_of_two_versions_of_a_template(tool):
    workflow = tool.create_workflow("w")
    workflow.add_task(tool.get_task_template("s", "{a}", node_args=["a"]).create_task(a=1))
    with pytest.raises(ValueError, match="two versions of template 's'"):
        workflow.add_task(tool.get_task_template("s", "x {a}", node_args=["a"]).create_task(a=2))


def test_nothing_can_be_changed_after_binding(make_workflow, tool):
    workflow = make_workflow()
    workflow.bind()
    with pytest.raises(ValueError, match="already recorded"):
        workflow.add_task(tool.active_task_templates["step"].create_task(where="late"))
    with pytest.raises(ValueError, match="already recorded"):
        next(iter(workflow.tasks.values())).update_compute_resources(cores=2)


def test_get_tasks_by_node_args(make_workflow):
    workflow = make_workflow()
    assert [t.command for t in workflow.get_tasks_by_node_args("step", where=["first", "last"])] == [
        "echo first",
        "echo last",
    ]
    with pytest.raises(ValueError, match="did you mean 'step'"):
        workflow.get_tasks_by_node_args("steps", where="first")
    with pytest.raises(ValueError, match="did you mean 'where'"):
        workflow.get_tasks_by_node_args("step", were="first")


def test_chunks_are_bounded_in_number_and_size(monkeypatch):
    template = Tool("t").get_task_template("s", "{a}", node_args=["a"])
    tasks = [template.create_task(a=str(i) * 30) for i in range(10)]
    monkeypatch.setattr(binding_module, "TASKS_PER_CHUNK_MAX", 4)
    assert [len(chunk) for chunk in _chunks(tasks)] == [4, 4, 2]
    monkeypatch.setattr(binding_module, "CHARACTERS_PER_CHUNK_MAX", 130)
    assert [len(chunk) for chunk in _chunks(tasks)] == [2] * 5
    monkeypatch.setattr(binding_module, "CHARACTERS_PER_CHUNK_MAX", 10)
    assert [len(chunk) for chunk in _chunks(tasks)] == [1] * 10


def test_edges_are_cut_into_chunks_and_large_sets_into_parts(monkeypatch):
    template = Tool("t").get_task_template("s", "{a}", node_args=["a"])
    upstreams = [template.create_task(a=i) for i in range(10)]
    followers = [template.create_task(a=f"f{i}", upstream_tasks=upstreams) for i in range(5)]
    for number, task in enumerate([*upstreams, *followers]):
        task.node_id = number
    monkeypatch.setattr(binding_module, "EDGES_PER_CHUNK_MAX", 4)
    chunks = list(_edge_chunks(dag.edge_sets([*upstreams, *followers])))
    assert [(numbers, nodes) for numbers, nodes, _ in chunks[:3]] == [
        ([0], [[0, 1, 2, 3]]),
        ([0], [[4, 5, 6, 7]]),
        ([0], [[8, 9]]),
    ]
    assert [len(members) for _, _, members in chunks] == [0, 0, 2, 3]


def test_progress_is_told_once_it_takes_longer(make_workflow):
    class Clock:
        time = 0.0

        def monotonic(self):
            self.time += 1.5
            return self.time

        def now(self):
            raise AssertionError

    told = []
    binding = Binding(make_workflow(), Clock(), lambda *args: told.append(args))
    binding.record_workflow()
    binding.record_tasks()
    assert told[-1] == ("dependencies, chunk", 1, 1)


def test_tool_versions(server, tool):
    assert tool.get_new_tool_version() == server.tools["census"][-1]
    assert tool.active_tool_version.id == server.tools["census"][-1]
    tool.set_active_tool_version_id("latest")
    with pytest.raises(ValueError, match="'newest'"):
        tool.set_active_tool_version_id("newest")
    with pytest.raises(ValueError, match=r"no version 99; it has \[1, 2\]"):
        tool.set_active_tool_version_id(99)
    with pytest.raises(ValueError, match="no version 99"):
        Tool("census", 99, requester=server)
    assert Tool("census", 1, requester=server).active_tool_version.id == 1


def test_usage_of_a_template(server, tool):
    template = tool.get_task_template("s", "{a}", node_args=["a"])
    assert template.resource_usage() is None
    server.usage = UsageResponse(num_tasks=2, mean_mem=1.5, ci_mem=[1.0, 2.0], percentiles_mem=[1.0], mean_runtime=0.5)
    usage = template.resource_usage(workflows=[3.0], node_args={"a": [1, 2]}, ci=0.95)
    assert (usage["num_tasks"], usage["mean_mem"], usage["ci_mem"]) == (2, 1.5 * 2**30, [2**30, 2**31])
    assert (usage["max_mem"], usage["percentiles_mem"], usage["mean_runtime"]) == (None, {5: 2**30}, 0.5)
    assert type(usage["mean_mem"]) is int
    asked = UsageRequest(
        workflow_ids=[3], node_args={"a": ["1", "2"]}, confidence=0.95, percentiles=[5, 25, 50, 75, 90, 95, 99]
    )
    assert server.sent(UsageRequest)[-1] == asked
