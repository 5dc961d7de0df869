"""Values that are part of an identity: those without a stable text are rejected at the call."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import types
import uuid

import pytest

from jobmon.client.api import Tool


class Plain:
    pass


class Callable:
    def __call__(self):
        pass


class Broken:
    def __repr__(self):
        raise RuntimeError("no text today")


class Named:
    def __init__(self):
        self.path = "/data/in.csv"

    def __str__(self):
        return "north"

    def __call__(self):
        pass


@dataclasses.dataclass
class Record:
    value: object
    hidden: object = dataclasses.field(default=None, repr=False)


Point = collections.namedtuple("Point", "x y")
Colour = enum.Enum("Colour", "RED")
Level = enum.IntEnum("Level", "LOW")
Word = enum.Enum("Word", {"YES": "yes"}, type=str)


def _several():
    yield 1


UNSTABLE = [
    ("Plain", Plain()),
    ("object", object()),
    ("generator", _several()),
    ("list_iterator", iter([1])),
    ("map", map(str, [1])),
    ("zip", zip([1], [2], strict=True)),
    ("function", lambda: 1),
    ("function", _several),
    ("builtin_function_or_method", len),
    ("partial", functools.partial(int, base=2)),
    ("type", Plain),
    ("Callable", Callable()),
    ("bytes", b"x"),
    ("bytearray", bytearray(b"x")),
    ("memoryview", memoryview(b"x")),
    ("SimpleNamespace", types.SimpleNamespace(inner=Plain())),
    ("Plain", {"a": (1, [Plain()])}),
    ("bytes", {b"x"}),
    ("Plain", [1, {Plain()}]),
    ("set", [Record({1})]),
    ("bytes", Point(1, b"x")),
    ("Plain", Record(Plain())),
    ("set", Record({1})),
    ("set", collections.deque([{1}])),
]
STABLE = [
    ("a text", "a text"),
    ("3", 3),
    ("2.5", 2.5),
    ("nan", float("nan")),
    ("True", True),
    ("None", None),
    ("1j", 1j),
    ("/data/in.csv", pathlib.PurePosixPath("/data/in.csv")),
    ("Colour.RED", Colour.RED),
    ("1", Level.LOW),
    (str(Word.YES), Word.YES),
    ("2026-11-30", datetime.date(2026, 11, 30)),
    ("2026-11-30 12:00:00", datetime.datetime(2026, 11, 30, 12)),  # noqa: DTZ001 - as scripts write it
    ("1 day, 0:00:00", datetime.timedelta(1)),
    ("1.10", decimal.Decimal("1.10")),
    ("1/2", fractions.Fraction(1, 2)),
    ("00000000-0000-0000-0000-000000000001", uuid.UUID(int=1)),
    ("north", Named()),
    ("[1, 'a']", [1, "a"]),
    ("{'a': (1, None)}", {"a": (1, None)}),
    ("range(0, 3)", range(3)),
    ("{1, 2, 10}", {10, 2, 1}),
    ("{'a', 'b'}", frozenset({"b", "a"})),
    ("set()", set()),
    ("{'b', 1, None}", {None, 1, "b"}),
    ("{{1, 2}, {1}}", {frozenset({1}), frozenset({2, 1})}),
    ("{('a',): [{1, 2}]}", {("a",): [{2, 1}]}),
    ("Point(x=1, y=2)", Point(1, 2)),
    ("Record(value=1)", Record(1, hidden={1})),
    (" at 0x12ab>", " at 0x12ab>"),
]
GIVE = {
    "node arg": ("'n' of a task of template 'step'", lambda tool, value: _task(tool, n=value)),
    "task arg": ("'t' of a task of template 'step'", lambda tool, value: _task(tool, t=value)),
    "op arg": ("'o' of a task of template 'step'", lambda tool, value: _task(tool, o=value)),
    "value of create_tasks": (
        "'n' of a task of template 'step'",
        lambda tool, value: _template(tool).create_tasks(n=[1, value], t=1, o=1),
    ),
    "workflow_args": ("workflow_args", lambda tool, value: tool.create_workflow(workflow_args=value)),
    "attribute of a workflow": (
        "attribute 'x' in workflow_attributes",
        lambda tool, value: tool.create_workflow("w", workflow_attributes={"x": value}),
    ),
    "attribute of a task": (
        "attribute 'x' in task_attributes",
        lambda tool, value: _task(tool, task_attributes={"x": value}),
    ),
    "attribute added": ("attribute 'x'", lambda tool, value: _task(tool).add_attribute("x", value)),
}


def _template(tool):
    return tool.get_task_template("step", "run {n} {t} {o}", node_args=["n"], task_args=["t"], op_args=["o"])


def _task(tool, **given):
    return _template(tool).create_task(**{"n": 1, "t": 1, "o": 1, **given})


@pytest.fixture
def tool():
    return Tool("t")


@pytest.mark.parametrize("way", GIVE)
@pytest.mark.parametrize(("kind", "value"), UNSTABLE, ids=lambda each: each if isinstance(each, str) else "")
def test_a_value_without_a_stable_text_is_refused_with_its_place_and_type(tool, way, kind, value):
    where, give = GIVE[way]
    with pytest.raises(ValueError, match=rf"(?s){where} .*a value of type '{kind}', .*no stable string: .*\. [A-Z]"):
        give(tool, value)


@pytest.mark.parametrize("way", ["node arg", "task arg", "op arg"])
@pytest.mark.parametrize(("text", "value"), STABLE, ids=lambda each: each if isinstance(each, str) else "")
def test_a_value_with_a_stable_text_is_taken(tool, way, text, value):
    task = GIVE[way][1](tool, value)
    assert text in (*task.values, task.command.split(" ", 3)[3])


def test_a_value_that_contains_itself_is_refused(tool):
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested too deeply"):
        _task(tool, n=endless)


def test_a_value_whose_text_cannot_be_made_is_refused(tool):
    with pytest.raises(ValueError, match=r"'n' of .* type 'Broken' that cannot .*RuntimeError: no text today"):
        _task(tool, n=Broken())


def test_an_op_arg_of_which_the_command_takes_an_attribute_needs_no_text():
    template = Tool("t").get_task_template("step", "run {n} {o.path}", node_args=["n"], op_args=["o"])
    plain = types.SimpleNamespace(path="/data/in.csv", other=object())
    assert template.create_task(n=1, o=plain).command == "run 1 /data/in.csv"
    whole = Tool("t").get_task_template("step", "run {n} {o.path} {o}", node_args=["n"], op_args=["o"])
    with pytest.raises(ValueError, match="'o' of a task"):
        whole.create_task(n=1, o=plain)


def test_numbers_of_numpy_are_values_and_its_arrays_are_lists_of_them(tool):
    numpy = pytest.importorskip("numpy")
    for text, value in (
        ("2", numpy.int64(2)),
        ("0.5", numpy.float32(0.5)),
        ("5", numpy.array(5)),
        ("a", numpy.str_("a")),
    ):
        assert _task(tool, n=value).values[0] == text
    assert [task.values[0] for task in _template(tool).create_tasks(n=numpy.arange(2), t=1, o=1)] == ["0", "1"]
    with pytest.raises(ValueError, match="the string of an array"):
        _task(tool, n=numpy.arange(2))


def test_dates_of_pandas_are_values(tool):
    pandas = pytest.importorskip("pandas")
    assert _task(tool, n=pandas.Timestamp(2026, 11, 30)).values[0] == "2026-11-30 00:00:00"
