"""`{name:q}` quotes a value for the shell; an unquoted value that needs it causes one warning."""

from __future__ import annotations

import logging
import subprocess
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.client.api import Tool

NAMES = ("a b.csv", "$HOME", "it's", 'say "x"', "a;b", "*", "", "~x", "#c", "a\nb", "-n", "ä")


def _command(template, node_args, task_args=(), op_args=(), **values):
    made = Tool("t").get_task_template("count", template, list(node_args), list(task_args), list(op_args))
    return made.create_task(**values).command


@pytest.mark.parametrize("name", NAMES)
def test_a_quoted_value_reaches_the_program_as_it_is(name):
    command = _command("printf %s {file:q}", ["file"], file=name)
    assert subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True).stdout.decode() == name


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_a_quoted_value_is_one_word(name):
    import shlex

    assert shlex.split(_command("cat {file:q}", ["file"], file=name)) == ["cat", name]


def test_quoted_and_plain_fields_in_one_template():
    row = SimpleNamespace(path="a b", n=1.5)
    command = _command(
        "f {row.path:q} {n:.2f} {i:>3} {{x}} {s!r:q}", ["n", "i", "s"], (), ["row"], row=row, n=1.5, i=7, s="y"
    )
    assert command == "f 'a b' 1.50   7 {x} ''\"'\"'y'\"'\"''"


def test_the_command_counts_towards_what_the_system_takes():
    with pytest.raises(ValueError, match="longer than"):
        _command("true {x:q}", ["x"], x="'" * 40_000)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("cat {x} | wc -l", "a b.csv"),
        ("cat {x}", "$HOME"),
        ("cat {x}", "a;b"),
        ("cat '{x}'", "it's"),
        ('cat "{x}"', "$HOME"),
        ("cat {x}", ("p", "q")),
        ("A=1 {x}", "b c"),
    ],
)
@pytest.mark.parametrize("kind", ["node_args", "task_args"])
def test_a_value_that_the_shell_would_change_is_warned_of(template, value, kind, caplog):
    _command(template, **{"node_args": (), kind: ["x"]}, x=value)
    (record,) = [each for each in caplog.records if "{x:q}" in each.getMessage()]
    assert repr(value) in record.getMessage()
    assert "'count'" in record.getMessage()


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("cat {x}", "a-b_c.csv,d=1:/e@f+g%h"),
        ("cat {x}", 7),
        ("cat {x}", -1.5e10),
        ("cat {x:q}", "a b"),
        ("cat '{x}'", 'a b $HOME "c"'),
        ('cat "{x}"', "a b (c)"),
        ("{x}", "cat a b | wc"),
        ("  {x} > out", "cat a b | wc"),
    ],
)
def test_a_value_that_the_shell_takes_literally_is_not(template, value, caplog):
    _command(template, ["x"], x=value)
    assert not caplog.records


def test_op_args_are_often_lists_of_options(caplog):
    _command("fit {i} {options}", ["i"], (), ["options"], i=1, options="--fast --verbose")
    assert not caplog.records


def test_it_is_said_once_per_template(caplog):
    caplog.set_level(logging.WARNING)
    template = Tool("t").get_task_template("count", "cat {x}", ["x"])
    template.create_tasks(x=["fine", "a b", "c d"])
    template.create_task(x="e f")
    assert len(caplog.records) == 1
