"""Tasks: names, identity, dependencies, and creation from lists."""

from __future__ import annotations

import hashlib
import json

import pytest

from jobmon.client.api import Task, Tool
from jobmon.client.task import NAME_CHARACTERS_MAX
from jobmon.core.exceptions import DuplicateNodeArgsError


@pytest.fixture
def template():
    return Tool("t").get_task_template("tmpl", "run {n} {t} {o}", node_args=["n"], task_args=["t"], op_args=["o"])


def test_default_name_is_made_of_template_and_node_args(template):
    assert template.create_task(n="a b/c'd", t=1, o=2).name == "tmpl_n-a_b_c_d"


def test_long_default_names_are_cut_and_stay_apart(template):
    names = {template.create_task(n="x" * 1000 + str(i), t=1, o=2).name for i in range(3)}
    assert len(names) == 3
    assert {len(name) for name in names} == {NAME_CHARACTERS_MAX}


def test_default_name_never_begins_with_a_digit():
    template = Tool("t").get_task_template("2nd", "run {n}", node_args=["n"])
    assert Task.is_valid_job_name(template.create_task(n=1).name)


@pytest.mark.parametrize("name", ["1st", "a/b", "a\\b", "a'b", 'a"b', "a b", "a\tb", "x" * 300])
def test_invalid_names(template, name):
    with pytest.raises(ValueError, match="name"):
        template.create_task(name=name, n=1, t=1, o=1)
    with pytest.raises(ValueError, match="name"):
        Task.is_valid_job_name(name)


def test_identity_counts_node_and_task_args_but_not_op_args(template):
    one, other_op = template.create_task(n=1, t=1, o=1), template.create_task(n=1, t=1, o=2)
    assert one.task_digest == other_op.task_digest
    other_task = template.create_task(n=1, t=2, o=1)
    assert one.node_digest == other_task.node_digest
    assert one.task_digest != other_task.task_digest
    assert one.node_digest != template.create_task(n=2, t=1, o=1).node_digest
    assert hash(one) == int(one.task_digest.hex()[:15], 16)


def _sha(value):
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def test_identity_is_sha_256_over_canonical_json(template):
    task = template.create_task(n="é\n", t=1, o=1)
    node = _sha([_sha(["t", "tmpl", "run {n} {t} {o}", ["n"], ["t"], ["o"]]), ["é\n"]])
    assert task.node_digest.hex() == node
    assert task.task_digest.hex() == _sha([node, ["1"]])


def test_values_count_by_their_text(template):
    assert hash(template.create_task(n=1, t=True, o=0)) == hash(template.create_task(n="1", t="True", o=0))


def test_dependencies_are_kept_on_both_sides(template):
    first, second, third = (template.create_task(n=n, t=0, o=0) for n in range(3))
    second.add_upstream(first)
    second.add_upstream(first)
    first.add_downstreams([second, third])
    assert second.upstream_tasks == {first}
    assert first.downstream_tasks == {second, third}
    fourth = template.create_task(n=4, t=0, o=0, upstream_tasks=[first, second])
    fifth = template.create_task(n=5, t=0, o=0, upstream_tasks=[first, second])
    fifth.add_upstream(third)
    assert fourth.upstream_tasks == {first, second}
    assert fifth.upstream_tasks == {first, second, third}


def test_large_sets_of_upstreams_know_all_who_follow(template):
    before = [template.create_task(n=n, t=0, o=0) for n in range(20)]
    both = [template.create_task(n=n, t=0, o=0, upstream_tasks=before) for n in (20, 21)]
    other = template.create_task(n=22, t=0, o=0, upstream_tasks=before[1:])
    again = template.create_task(n=23, t=0, o=0, upstream_tasks=before)
    again.add_upstream(other)
    assert before[0].downstream_tasks == {*both, again}
    assert before[1].downstream_tasks == {*both, other, again}
    assert other.downstream_tasks == {again}
    assert again.upstream_tasks == {*before, other}


def test_a_changed_list_of_upstreams_is_not_taken_for_the_old_one(template):
    upstreams = [template.create_task(n=0, t=0, o=0)]
    one = template.create_task(n=1, t=0, o=0, upstream_tasks=upstreams)
    upstreams.append(one)
    two = template.create_task(n=2, t=0, o=0, upstream_tasks=upstreams)
    assert len(one.upstream_tasks) == 1
    assert len(two.upstream_tasks) == 2


@pytest.mark.parametrize("upstreams", [3, ["x"], "task"])
def test_upstreams_that_are_no_tasks(template, upstreams):
    with pytest.raises(ValueError, match=r"[Tt]ask"):
        template.create_task(n=1, t=1, o=1, upstream_tasks=upstreams)


def test_a_single_task_is_no_list(template):
    task = template.create_task(n=1, t=1, o=1)
    with pytest.raises(ValueError, match="list of tasks"):
        template.create_task(n=2, t=1, o=1, upstream_tasks=task)


def test_create_tasks_makes_the_product_of_lists_and_broadcasts_scalars():
    template = Tool("t").get_task_template("p", "{a} {b} {c} {d}", node_args=["a", "b", "c"], op_args=["d"])
    tasks = template.create_tasks(a=range(2), b=["x", "y"], c="one", d=5)
    assert [task.command for task in tasks] == ["0 x one 5", "0 y one 5", "1 x one 5", "1 y one 5"]
    assert template.create_tasks(a=(i for i in range(3)), b=[1], c="abc", d=0)[2].command == "2 1 abc 0"
    assert template.create_tasks(a=[], b=1, c=2, d=3) == []


def test_a_list_for_a_task_or_op_arg_is_an_error(template):
    with pytest.raises(ValueError, match="these task or op args are: 't', 'o'"):
        template.create_tasks(n=[1], t=[1], o=(2,))


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
def test_max_attempts_is_checked_at_once(template, value):
    with pytest.raises(ValueError, match="max_attempts"):
        template.create_task(n=1, t=1, o=1, max_attempts=value)


def test_bad_resources_are_refused_at_once(template):
    with pytest.raises(ValueError, match="512X"):
        template.create_task(n=1, t=1, o=1, compute_resources={"memory": "512X"})
    with pytest.raises(ValueError, match="dict"):
        template.create_task(n=1, t=1, o=1, compute_resources=["memory"])
    with pytest.raises(ValueError, match="cannot be recorded"):
        template.create_task(n=1, t=1, o=1, compute_resources={"constraints": object()})
    with pytest.raises(ValueError, match="callable"):
        template.create_task(n=1, t=1, o=1, compute_resources_callable=3)
    with pytest.raises(ValueError, match="fallback_queues"):
        template.create_task(n=1, t=1, o=1, fallback_queues="long.q")


def test_resources_are_copied(template):
    resources = {"memory": 1, "env": {"A": "1"}}
    one = template.create_task(n=1, t=1, o=1, compute_resources=resources)
    resources["memory"] = 2
    resources["env"]["A"] = "2"
    two = template.create_task(n=2, t=1, o=1, compute_resources=resources)
    assert one.compute_resources == {"memory": 1, "env": {"A": "1"}}
    assert two.compute_resources == {"memory": 2, "env": {"A": "2"}}


def test_tasks_that_say_the_same_share_their_options(template):
    tasks = [template.create_task(n=n, t=1, o=1, compute_resources={"cores": 2}) for n in range(3)]
    assert len({id(task.options) for task in tasks}) == 1
    tasks[0].update_compute_resources(memory="1G")
    assert tasks[0].compute_resources == {"cores": 2, "memory": "1G"}
    assert tasks[1].compute_resources == {"cores": 2}
    assert tasks[0].requested_resources == {"cores": 2, "memory": 1.0}


def test_attributes_are_names_or_a_dict(template):
    task = template.create_task(n=1, t=1, o=1, task_attributes=["seen"])
    task.add_attribute("size", 3)
    assert task.attributes == {"seen": "", "size": "3"}
    with pytest.raises(ValueError, match="task_attributes"):
        template.create_task(n=2, t=1, o=1, task_attributes="name")


def test_an_iterator_given_to_many_tasks_is_read_once_and_no_further_than_attempts(template):
    taken = []

    def growing():
        for value in range(10, 1000):
            taken.append(value)
            yield value

    scale = growing()
    tasks = [template.create_task(n=n, t=1, o=1, resource_scales={"memory": scale}, max_attempts=2) for n in range(5)]
    assert [task.resource_scales for task in tasks] == [{"memory": [10, 11]}] * 5
    assert taken == [10, 11]


def test_two_tasks_with_the_same_node_args(template):
    workflow = template.tool_version.tool.create_workflow("w")
    task = workflow.add_task(template.create_task(n=1, t=1, o=1))
    with pytest.raises(DuplicateNodeArgsError, match=r"'tmpl'.*n='1'"):
        workflow.add_task(template.create_task(n=1, t=2, o=1))
    with pytest.raises(ValueError, match="same node args"):
        workflow.add_task(template.create_task(n=1, t=1, o=2))
    with pytest.raises(ValueError, match="already in this workflow"):
        workflow.add_task(task)
    with pytest.raises(ValueError, match="another workflow"):
        template.tool_version.tool.create_workflow("v").add_task(task)


def test_errors_need_a_recorded_task(template):
    with pytest.raises(ValueError, match="not recorded yet"):
        template.create_task(n=1, t=1, o=1).get_errors()


def test_equal_tasks_compare_equal_and_each_depends_on_the_one_it_was_given(tool):
    template = tool.get_task_template("equal", "echo {x} {y}", node_args=["x"], op_args=["y"])
    first, same, other = (template.create_task(x=x, y=y) for x, y in ((1, "a"), (1, "b"), (2, "a")))
    assert first == same
    assert hash(first) == hash(same)
    assert first != other
    assert first != "equal_x-1"
    after, after_same = (template.create_task(x=3, y="", upstream_tasks=[one]) for one in (first, same))
    assert [next(iter(task.upstream_tasks)) for task in (after, after_same)] == [first, same]
    assert next(iter(after.upstream_tasks)) is first
    assert next(iter(after_same.upstream_tasks)) is same


@pytest.mark.parametrize("value", [[1, 2], (1,), range(3), {1, 2}])
def test_a_list_that_was_meant_for_create_tasks_is_a_warning(template, caplog, value):
    task = template.create_task(n=value, t=1, o=2)
    template.create_task(n=[3], t=1, o=2)
    assert task.command == f"run {value} 1 2"
    (warning,) = [message for message in caplog.messages if "create_tasks()" in message]
    assert f"makes one task of n={value!r}" in warning


def test_lists_in_create_tasks_and_op_args_are_no_mistake(template, caplog):
    template.create_tasks(n=[[4], [5]], t=1, o=2)
    template.create_task(n=1, t=1, o=[3, 4])
    assert not any("create_tasks()" in message for message in caplog.messages)


def test_a_name_that_is_not_unicode_is_refused(template):
    with pytest.raises(ValueError, match="must not contain"):
        template.create_task(n=1, t=1, o=2, name="a\udc80")
