"""Which functions can become tasks, and the errors for the others."""

from __future__ import annotations

import functools
import pickle
from dataclasses import InitVar, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, NewType

import pytest

from jobmon.core.task_generator import TaskGenerator, functions, task_generator

if TYPE_CHECKING:
    from decimal import Decimal

Year = NewType("Year", int)


@task_generator(tool_name="t")
def add(a: int, b: Annotated[int, "with a note"] = 2, *, c: Year = Year(3)) -> Decimal:
    """Add three numbers."""
    return a + b + c


@task_generator()
def forward(x: Later) -> None:
    """Takes a class that is defined further down."""


@dataclass
class Later:
    x: int


def top_level(x):
    """A place to put annotations on."""


def annotated(annotation: object):
    """A function of one parameter with this annotation."""
    return make("def f(x): pass", x=annotation)


def make(source: str, **annotations: object):
    """A function as if it stood in this module."""
    names: dict[str, Any] = {"__name__": __name__}
    exec(source, names)
    function = next(value for value in names.values() if callable(value) and hasattr(value, "__code__"))
    function.__annotations__ |= annotations
    return function


def test_the_function_stays_a_function():
    assert add(1) == 6
    assert add(1, 1, c=1) == 3
    assert (add.__name__, add.__doc__) == ("add", "Add three numbers.")
    assert repr(add).endswith("test_functions.add>")


def test_it_is_pickled_by_name_as_functions_are():
    assert pickle.loads(pickle.dumps(add)) is add


def test_attributes_of_the_function_stay_and_hide_none_of_the_generator():
    function = annotated(int)
    function.tool_name, function.own = "attribute", 1
    generator = TaskGenerator(function, tool_name="t")
    assert (generator.tool_name, generator.own) == ("t", 1)


def test_parameters_and_defaults_are_known():
    assert add.parameters == ("a", "b", "c")
    assert add.defaults == {"b": 2, "c": 3}
    assert functions.defaults_of(make("def f(a, b=1, *, c, d=2): pass")) == {"b": 1, "d": 2}


def test_a_class_may_be_defined_after_the_function():
    assert forward.serialize("x", Later(1)) == '{"x":1}'
    assert forward.deserialize("x", '{"x":1}') == Later(1)


def test_a_decorator_below_that_keeps_the_function_is_looked_through():
    @functools.wraps(top_level)
    def wrapper(*args, **kwargs):
        return "wrapped"

    top_level.__annotations__ = {"x": "int"}
    generator = TaskGenerator(wrapper)
    assert (generator.parameters, generator(1)) == (("x",), "wrapped")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (make("def f(x, y, z: int): pass"), ["'x', 'y' without a type", "'x: int'"]),
        (make("def f(*args: int): pass"), ["*args and **kwargs have no fixed names"]),
        (make("def f(**kwargs: int): pass"), ["*args and **kwargs have no fixed names"]),
        (make("def f(x: int, /): pass"), ["parameter 'x' is positional-only"]),
        (make("def f(name: str): pass"), ["parameter 'name'", "rename it"]),
        (make("def f(jobmon_python: str): pass"), ["parameter 'jobmon_python'", "rename it"]),
        (make("async def f(x: int): pass"), ["calling it does not run it"]),
        (make("def f(x: int): yield"), ["calling it does not run it"]),
        (make("f = lambda: None"), ["cannot import a lambda"]),
        (TaskGenerator.run, ["'TaskGenerator.run' cannot become a task", "cannot import a method"]),
        (Later, ["turns functions into tasks", "is not one"]),
        (len, ["turns functions into tasks"]),
    ],
)
def test_a_function_that_a_worker_could_not_call(function, expected):
    with pytest.raises(ValueError) as caught:
        TaskGenerator(function)
    for part in expected:
        assert part in str(caught.value)


def test_a_local_function_cannot_be_imported():
    def local(x: int) -> None:
        pass

    with pytest.raises(ValueError, match=r"cannot import a local function; move it to the top level"):
        task_generator()(local)


@dataclass
class WithInit:
    x: int
    y: InitVar[int]


@dataclass
class WithFraction:
    x: list[Fraction]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Fraction, "Fraction is not a type whose values can be serialized; give it a serializer"),
        (object, "object is not a type"),
        (Any, "Any is not a type"),
        (bytes, "bytes is not a type"),
        (list, "list does not declare the type of its items; write e.g. list[int]"),
        (dict, "dict does not declare the type of its items; write e.g. dict[str, int]"),
        (list[Fraction], "Fraction is not a type"),
        (Fraction | None, "Fraction is not a type"),
        (WithFraction, "field 'x' of WithFraction: Fraction is not"),
        (WithInit, "WithInit does not keep its InitVar 'y'"),
    ],
)
def test_a_type_that_cannot_be_written(annotation, expected):
    with pytest.raises(ValueError, match=r"Parameter 'x' of 'f': ") as caught:
        TaskGenerator(annotated(annotation))
    assert expected in str(caught.value)


def test_a_type_that_only_type_checkers_know():
    generator = TaskGenerator(annotated("Decimal"))
    with pytest.raises(ValueError, match=r"name 'Decimal' is not defined.*TYPE_CHECKING"):
        generator.serialize("x", 1)


@pytest.mark.parametrize(
    ("serializers", "expected"),
    [
        ([Fraction], "must be a dict {type: (to_string, from_string)}"),
        ({Fraction: str}, "The serializer of Fraction must be a pair"),
        ({Fraction: (str,)}, "must be a pair"),
        ({Fraction: (str, None)}, "must be a pair"),
        ({"Fraction": (str, Fraction)}, "'Fraction' is not a type"),
    ],
)
def test_serializers_that_are_none(serializers, expected):
    with pytest.raises(ValueError) as caught:
        TaskGenerator(annotated(Fraction), serializers)
    assert expected in str(caught.value)


def test_a_serializer_for_another_type_does_not_cover_this_one():
    with pytest.raises(ValueError, match=r"Fraction is not a type .* give it a serializer"):
        TaskGenerator(annotated(Fraction), {complex: (str, complex)})


def test_decorator_without_parentheses():
    with pytest.raises(ValueError, match=r"Write `@task_generator\(\)` above 'top_level'"):
        task_generator(top_level)


def test_unknown_naming_args():
    with pytest.warns(UserWarning, match=r"naming_args of 'f': 'y' unknown and ignored; its parameters are 'x'"):
        generator = TaskGenerator(annotated(int), naming_args=["y", "x"])
    assert generator.naming_args == ("x",)


# --- where the worker finds it ----------------------------------------------------------------------------------------


def module_of(monkeypatch, name: str, file: str | None, spec_name: str | None = None):
    """Put a module into place, and a function of it."""
    import importlib.machinery
    import sys
    import types

    module = types.ModuleType(name)
    module.__file__ = file
    module.__spec__ = importlib.machinery.ModuleSpec(spec_name, None) if spec_name else None
    monkeypatch.setitem(sys.modules, name, module)
    function = make("def f(x: int): pass")
    function.__module__ = name
    return function


@pytest.mark.parametrize(
    ("name", "file", "spec_name", "expected"),
    [
        ("pkg.mod", "/a b/pkg/mod.py", "pkg.mod", ("pkg.mod", "--path /a%20b")),
        ("pkg.sub", "/a/pkg/sub/__init__.py", "pkg.sub", ("pkg.sub", "--path /a")),
        ("mod", "/mod.py", "mod", ("mod", "--path /")),
        ("renamed", "/a/mod.py", "renamed", ("renamed", "")),
        ("inside", None, "inside", ("inside", "")),
        ("__main__", "/a/pkg/mod.py", "pkg.mod", ("pkg.mod", "--path /a")),
        ("__main__", __file__, None, ("test_functions", f"--source {__file__}")),
    ],
)
def test_where_the_worker_finds_a_function(monkeypatch, name, file, spec_name, expected):
    assert functions.place_of(module_of(monkeypatch, name, file, spec_name), None) == expected


def test_a_source_that_is_given(monkeypatch):
    assert functions.place_of(module_of(monkeypatch, "a.b", None, "a.b"), __file__) == ("a.b", f"--source {__file__}")
    with pytest.raises(ValueError, match=r"cannot be loaded from '/nowhere.py', which is not a file"):
        functions.place_of(module_of(monkeypatch, "a.b", None, "a.b"), "/nowhere.py")


def test_a_function_that_was_typed_in(monkeypatch):
    with pytest.raises(ValueError, match=r"was not read from a file.*module_source_path"):
        functions.place_of(module_of(monkeypatch, "__main__", None), None)
