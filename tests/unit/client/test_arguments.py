"""Command templates and their arguments: valid ones, and the errors for invalid ones."""

from __future__ import annotations

import pytest

from jobmon.client.api import Tool
from jobmon.client.arguments import placeholders
from jobmon.core.constants import ATTRIBUTES_MAX

tool = Tool("t")


def test_placeholders_of_every_form_are_found():
    assert placeholders("{a} {b!r} {c:>{width}} {d.name} {e[0]} {{literal}}") == {"a", "b", "c", "width", "d", "e"}


@pytest.mark.parametrize("template", ["{", "echo {}", "echo {0}", "", "   "])
def test_unreadable_template(template):
    with pytest.raises(ValueError, match="command_template"):
        tool.get_task_template("bad", template)


@pytest.mark.parametrize(
    ("sets", "text"),
    [
        ({"node_args": ["a"]}, "'b' in command_template but not declared"),
        ({"node_args": ["a", "b", "c"]}, "'c' declared but not in command_template"),
        ({"node_args": ["a", "b"], "op_args": ["b"]}, "'b' declared more than once"),
        ({"node_args": "ab"}, "must be a list of names"),
        ({"node_args": ["a", 3]}, "must be a list of names"),
    ],
)
def test_template_and_declaration_differ(sets, text):
    with pytest.raises(ValueError, match=text):
        tool.get_task_template("tt", "cmd {a} {b}", **sets)


def test_an_argument_must_not_be_called_like_a_parameter():
    with pytest.raises(ValueError, match="'name' reserved as parameters of create_task"):
        tool.get_task_template("tt", "cmd {name}", node_args=["name"])


@pytest.mark.parametrize(
    ("args", "text"),
    [({"a": 1}, "missing"), ({"a": 1, "b": 2, "c": 3}, "'c' unknown"), ({"a": 1, "c": 2}, "'b' missing; 'c' unknown")],
)
def test_task_with_wrong_arguments(args, text):
    template = tool.get_task_template("pair", "cmd {a} {b}", node_args=["a", "b"])
    with pytest.raises(ValueError, match=text):
        template.create_task(**args)
    with pytest.raises(ValueError, match=text):
        template.create_tasks(**args)


def test_commands_are_formatted_with_the_values_as_given():
    template = tool.get_task_template("formats", "cmd {a:03d} {b:.1f}", node_args=["a"], op_args=["b"])
    assert template.create_task(a=7, b=2).command == "cmd 007 2.0"
    with pytest.raises(ValueError, match="cannot be created"):
        template.create_task(a="seven", b=2)


def test_commands_that_could_not_be_started_are_refused():
    template = tool.get_task_template("raw", "{a}", node_args=["a"])
    with pytest.raises(ValueError, match="NUL"):
        template.create_task(a="x\0y")
    with pytest.raises(ValueError, match="131071 bytes"):
        template.create_task(a="x" * 200_000)
    with pytest.raises(ValueError, match="not UTF-8"):
        template.create_task(a="\udc80")


def test_bytes_that_are_not_utf8_are_refused_in_every_kind_of_argument():
    template = tool.get_task_template("kinds", "{a} {b} {c}", node_args=["a"], task_args=["b"], op_args=["c"])
    for name in "abc":
        with pytest.raises(ValueError, match="not UTF-8"):
            template.create_task(**{**dict.fromkeys("abc", 1), name: "\udcff"})


@pytest.mark.parametrize("upstreams", ["step_1", "x"])
def test_a_string_in_place_of_tasks_is_named_as_a_whole(upstreams):
    template = tool.get_task_template("words", "{a}", node_args=["a"])
    for create in (template.create_task, template.create_tasks):
        with pytest.raises(ValueError, match=f"must be a list of tasks, not '{upstreams}'"):
            create(a=1, upstream_tasks=upstreams)
    task = template.create_task(a=1)
    for add in (task.add_upstreams, task.add_downstreams):
        with pytest.raises(ValueError, match=f"tasks must be a list of tasks, not '{upstreams}'"):
            add(upstreams)


def test_a_task_has_a_limited_number_of_attributes():
    template = tool.get_task_template("marked", "{a}", node_args=["a"])
    many = {str(number): number for number in range(ATTRIBUTES_MAX)}
    task = template.create_task(a=1, task_attributes=many)
    task.add_attribute("0", "another value")
    with pytest.raises(ValueError, match="must be at most 1000, not 1001"):
        task.add_attribute("one more", 1)
    with pytest.raises(ValueError, match="task_attributes must be at most 1000, not 1001"):
        template.create_task(a=2, task_attributes=many | {"one more": 1})
