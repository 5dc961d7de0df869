"""Texts that cannot be stored are rejected if a user gave them, and replaced otherwise."""

import pytest

from jobmon.agent import reports
from jobmon.client.tool import Tool
from jobmon.core.texts import ERROR_CHARACTERS_MAX, NAME_CHARACTERS_MAX, checked_name, checked_text, storable

LONG = "n" * (NAME_CHARACTERS_MAX + 1)


@pytest.mark.parametrize("name", ["", "n" * NAME_CHARACTERS_MAX, "\N{PARTY POPPER}" * NAME_CHARACTERS_MAX, "a\nb"])
def test_what_can_be_stored_stays_as_it_is(name):
    assert checked_name("The name", name) == checked_text("The text", name) == storable(name) == name


@pytest.mark.parametrize("text", ["a\0b", "caf\udce9", "\ud83c"])
def test_what_cannot_be_stored_is_refused_or_replaced(text):
    with pytest.raises(ValueError, match=r"The name of a tool '.*' contains a NUL character or bytes"):
        checked_name("The name of a tool", text)
    storable(text).encode()
    assert "\0" not in storable(text)
    assert len(storable(text)) == len(text)
    cleaned = reports.clean(text)
    cleaned.encode()
    assert "\0" not in cleaned


def test_errors_are_cut():
    assert reports.ERROR_CHARACTERS_MAX == ERROR_CHARACTERS_MAX
    assert len(storable("e" * 20_000)) == len(reports.clean("e" * 20_000)) == ERROR_CHARACTERS_MAX


def given(name):
    """Each way in which a script gives a name."""
    tool = Tool(name="tool")
    yield lambda: Tool(name=name)
    yield lambda: tool.get_task_template(name, command_template="echo")
    identifier = name if name.isidentifier() else f"a{name}"
    yield lambda: tool.get_task_template("t", f"echo {{{identifier}}}", node_args=[identifier])
    yield lambda: tool.create_workflow(workflow_attributes=[name])
    yield lambda: tool.create_workflow(default_cluster_name=name)
    step = tool.get_task_template("step", command_template="echo {x}", node_args=["x"])
    yield lambda: step.create_task(x=1, task_attributes={name: "v"})
    yield lambda: step.create_task(x=1, cluster_name=name)


@pytest.mark.parametrize("which", range(7))
def test_a_script_that_gives_a_name_that_is_too_long_is_told_the_limit(which):
    with pytest.raises(ValueError, match=rf"'n+'\.\.\. has {len(LONG)} characters; at most {NAME_CHARACTERS_MAX} are"):
        list(given(LONG))[which]()


@pytest.mark.parametrize("what", ["workflow_args", "name", "description"])
def test_texts_of_a_workflow_that_cannot_be_recorded_are_refused(what):
    with pytest.raises(ValueError, match="contains a NUL character"):
        Tool(name="tool").create_workflow(**{what: "a\0b"})
