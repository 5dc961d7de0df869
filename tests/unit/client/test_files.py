"""Declared files of templates, and the dependencies that they imply."""

from __future__ import annotations

import time

import pytest

from jobmon.client import dag
from jobmon.client.api import Tool
from jobmon.core.exceptions import CyclicGraphError, DuplicateOutputError


@pytest.fixture
def tool():
    return Tool("words")


def _workflow(tool, *tasks):
    workflow = tool.create_workflow()
    workflow.add_tasks(tasks)
    return workflow


def _template(tool, name, inputs=None, outputs=None, node_args=("file",), **more):
    command = " ".join(
        ["run", *(f"{{{one}}}" for one in (*node_args, *more.get("task_args", ()), *more.get("op_args", ())))]
    )
    return tool.get_task_template(name, command, node_args=list(node_args), inputs=inputs, outputs=outputs, **more)


def _split_map_gather(tool, count=3):
    split = _template(tool, "split", outputs=["parts/{file}/"])
    count_words = _template(tool, "count", ["parts/all/{file}.txt"], {"counts": "out/{file}.csv"})
    gather = _template(tool, "gather", ["out/*.csv"], ["report.txt"], node_args=())
    tasks = [count_words.create_task(file=f"f{at}") for at in range(count)]
    return split.create_task(file="all"), tasks, gather.create_task()


def test_a_task_depends_on_the_tasks_that_write_its_inputs(tool):
    split, counts, gather = _split_map_gather(tool)
    dag.check(_workflow(tool, split, *counts, gather))
    assert split.upstream_tasks == frozenset()
    assert {task.upstream_tasks for task in counts} == {frozenset({split})}
    assert gather.upstream_tasks == frozenset(counts)
    assert split.downstream_tasks == frozenset(counts)
    assert counts[0].downstream_tasks == {gather}


def test_a_second_check_changes_nothing_and_explicit_dependencies_stay(tool):
    split, counts, gather = _split_map_gather(tool)
    other = _template(tool, "other").create_task(file="x")
    gather.add_upstream(other)
    workflow = _workflow(tool, split, *counts, gather, other)
    dag.check(workflow)
    following = [*counts, gather]
    before = [task.upstream_tasks for task in following]
    dag.check(workflow)
    assert all(task.upstream_tasks is same for task, same in zip(following, before, strict=True))
    assert gather.upstream_tasks == {other, *counts}
    assert counts[0].downstream_tasks == {gather}


def test_a_million_dependencies_are_added_as_one_shared_set(tool):
    first = _template(tool, "first", outputs=["out/{file}"])
    second = _template(tool, "second", ["out/*"], ["then/{file}"])
    ones = [first.create_task(file=at) for at in range(1_000)]
    others = [second.create_task(file=at) for at in range(1_000)]
    workflow = _workflow(tool, *ones, *others)
    began = time.process_time()
    dag.check(workflow)
    assert len({id(task.upstream_tasks) for task in others}) == 1
    assert time.process_time() - began < 2.0


def test_thousands_of_patterns_in_one_folder_are_paired_quickly(tool):
    first = _template(tool, "first", outputs=["out/{file}.*"])
    second = _template(tool, "second", ["out/{file}.*"], ["then/{file}"])
    third = _template(tool, "third", ["out/{file}.txt"])
    ones = [first.create_task(file=f"f{at:05}") for at in range(3_000)]
    others = [template.create_task(file=f"f{at:05}") for template in (second, third) for at in range(3_000)]
    workflow = _workflow(tool, *ones, *others)
    began = time.process_time()
    dag.check(workflow)
    assert time.process_time() - began < 3.0
    assert [task.upstream_tasks for task in others] == [frozenset({one}) for one in ones] * 2


def test_files_do_not_change_the_identity_of_a_template(tool):
    plain = _template(tool, "count")
    before = plain.active_task_template_version
    declared = _template(tool, "count", ["in/{file}"], ["out/{file}"])
    assert declared.active_task_template_version is before
    assert [one.text for one in before.files.inputs] == ["in/{file}"]
    _template(tool, "count")
    assert before.files.inputs
    _template(tool, "count", inputs=[])
    assert not before.files.inputs
    assert before.files.outputs


def test_an_output_that_two_tasks_write(tool):
    template = _template(tool, "count", outputs=["out/x.csv"])
    workflow = _workflow(tool, *(template.create_task(file=at) for at in "ab"))
    with pytest.raises(
        DuplicateOutputError, match=r"^Tasks 'count_file-a' and 'count_file-b' both write out/x\.csv\.$"
    ):
        dag.check(workflow)


def test_a_cycle_through_files_is_explained(tool):
    one = _template(tool, "one", ["b/{file}"], ["a/{file}"]).create_task(file="x")
    two = _template(tool, "two", ["a/{file}"], ["b/{file}"]).create_task(file="x")
    with pytest.raises(CyclicGraphError) as caught:
        dag.check(_workflow(tool, one, two))
    assert "one_file-x -> two_file-x -> one_file-x." in str(
        caught.value
    ) or "two_file-x -> one_file-x -> two_file-x." in str(caught.value)
    assert "'two_file-x' reads a/x, which 'one_file-x' writes." in str(caught.value)


def test_a_task_that_reads_what_it_writes(tool):
    task = _template(tool, "one", ["a/{file}"], ["a/{file}"]).create_task(file="x")
    with pytest.raises(CyclicGraphError, match=r"Task 'one_file-x' declares a/x both as an input and as an output"):
        dag.check(_workflow(tool, task))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            ["in/{fil}"],
            r"inputs of task template 't': the pattern 'in/{fil}' uses the unknown argument 'fil'; did you mean {file}",
        ),
        (["in/{}"], r"uses the unknown argument ''; its node args and task args are: 'data', 'file'\."),
        (
            ["in/{threads}"],
            r"uses the op arg 'threads', but op args do not identify data; declare 'threads' in node_args or",
        ),
        (["in/{file"], r"the pattern 'in/{file' cannot be read: .* Write {{ and }} for braces of a path\."),
        (["in/{file:03d}"], r"formats 'file', but patterns insert the text of an argument as it is: write {file}"),
        (["in/{file.name}"], r"uses the unknown argument 'file\.name'; did you mean {file}\?"),
        ("in/{file}", r"must be a list of patterns or a dict of names and patterns, not 'in/{file}'"),
        ([""], r"a pattern must be a non-empty string, not ''"),
        ([1], r"a pattern must be a non-empty string, not 1"),
        ({"": "x"}, r"the name of a pattern must be a non-empty string"),
        (["x" * 5_000], r"is longer than 4096 characters"),
        (["a\0b"], r"contains a NUL character"),
        (["x"] * 101, r"at most 100 patterns are allowed, not 101"),
    ],
)
def test_an_invalid_pattern_is_named(tool, inputs, message):
    with pytest.raises(ValueError, match=message):
        _template(tool, "t", inputs, task_args=["data"], op_args=["threads"])


def test_an_empty_path_is_named(tool):
    task = _template(tool, "t", ["{file}"]).create_task(file="")
    with pytest.raises(ValueError, match=r"The file pattern '{file}' gives an empty path"):
        dag.check(_workflow(tool, task))
