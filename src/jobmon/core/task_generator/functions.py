"""The parameters of a function, and where another process finds it."""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobmon.core.constants import RESERVED_NAMES
from jobmon.core.task_generator.words import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Fields of the command in addition to the function's parameters.
PYTHON_FIELD: Final = "jobmon_python"
PLACE_FIELD: Final = "jobmon_place"

# Bits of `co_flags`; the module `inspect` has names for them, but importing it would slow down every task.
_VARARGS: Final = 0x04
_VARKEYWORDS: Final = 0x08
_NOT_RUN_BY_A_CALL: Final = 0x20 | 0x80 | 0x200  # generator, coroutine, asynchronous generator
_MAIN: Final = "__main__"


class Place(NamedTuple):
    """Where the worker finds a function: a module, and the folder or file from which it is imported."""

    module: str
    words: str


def innermost(function: object) -> types.FunctionType:
    """Return the function behind decorators that kept it.

    Raises:
        ValueError: there is none: this is a class, a method or another kind of callable.
    """
    while (inner := getattr(function, "__wrapped__", None)) is not None:
        function = inner
    if not isinstance(function, types.FunctionType):
        raise ValueError(f"task_generator turns functions into tasks, and {function!r} is not one.")
    return function


def check_function(function: types.FunctionType) -> None:
    """Check that the worker could import and call a function.

    Raises:
        ValueError: it could not; the message says why.
    """
    problems = [*_problems_of_name(function), *_problems_of_parameters(function)]
    if problems:
        raise ValueError(f"The function {function.__qualname__!r} cannot become a task: {'; '.join(problems)}.")


def _problems_of_name(function: types.FunctionType) -> Iterator[str]:
    if function.__name__ == "<lambda>":
        yield "the worker cannot import a lambda; use a named function"
    elif "<locals>" in function.__qualname__:
        yield "the worker cannot import a local function; move it to the top level of its module"
    elif function.__qualname__ != function.__name__:
        yield "the worker cannot import a method; move it to the top level of its module"
    if function.__code__.co_flags & _NOT_RUN_BY_A_CALL:
        yield "calling it does not run it, because it is a generator or async function; wrap it in an ordinary function"


def _problems_of_parameters(function: types.FunctionType) -> Iterator[str]:
    code = function.__code__
    if code.co_flags & _VARARGS or code.co_flags & _VARKEYWORDS:
        yield "*args and **kwargs have no fixed names; name each parameter"
    for name in code.co_varnames[: code.co_posonlyargcount]:
        yield f"parameter {name!r} is positional-only; remove the '/', because tasks pass arguments by name"
    names = parameter_names(function)
    for name in names:
        if name in RESERVED_NAMES or name in (PYTHON_FIELD, PLACE_FIELD):
            yield f"parameter {name!r} has the name of an option of create_task; rename it"
    untyped = [repr(name) for name in names if name not in annotations_of(function)]
    if untyped:
        yield f"{', '.join(untyped)} without a type; annotate each parameter, e.g. '{untyped[0][1:-1]}: int'"


def annotations_of(function: types.FunctionType) -> Mapping[str, Any]:
    """Return the annotations of the parameters, as written."""
    annotations = dict(_written(function))
    annotations.pop("return", None)  # the types of results need not exist on the worker
    return annotations


def _written(function: types.FunctionType) -> Mapping[str, Any]:
    try:
        return function.__annotations__
    except NameError:  # since Python 3.14 they are evaluated on access, and a class may be defined further down
        reader = importlib.import_module("annotationlib")
        found: Mapping[str, Any] = reader.get_annotations(function, format=reader.Format.FORWARDREF)
        return found


def parameter_names(function: types.FunctionType) -> tuple[str, ...]:
    """Return the names of the parameters in order."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def defaults_of(function: types.FunctionType) -> dict[str, Any]:
    """Return the defaults of parameters by name."""
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    values = function.__defaults__ or ()
    return dict(zip(positional[len(positional) - len(values) :], values, strict=True)) | (function.__kwdefaults__ or {})


def place_of(function: Callable[..., Any], source_path: str | os.PathLike[str] | None) -> Place:
    """Return where the worker finds a function.

    A module is imported by its name, from the folder from which this process imported it. A script has no such name:
    its file is loaded under the name without ".py", and so is an explicitly given file.

    Raises:
        ValueError: the function was typed in, so that there is no file, or the file does not exist.
    """
    module = sys.modules.get(function.__module__)
    file = getattr(module, "__file__", None)
    spec = getattr(module, "__spec__", None)
    is_script = function.__module__ == _MAIN and spec is None
    name = spec.name if function.__module__ == _MAIN and spec is not None else function.__module__
    if source_path is None and not is_script:
        return Place(name, _folder_words(name, file))
    source = os.path.abspath(source_path if source_path is not None else file or "")
    if source_path is None and file is None:
        raise ValueError(
            f"The function {function.__name__!r} was not read from a file, so the worker could not find it; move it"
            " into a module, or name the file with module_source_path."
        )
    if not os.path.isfile(source):
        raise ValueError(f"The function {function.__name__!r} cannot be loaded from {source!r}, which is not a file.")
    return Place(os.path.splitext(os.path.basename(source))[0] if is_script else name, f"--source {quoted(source)}")


def _folder_words(name: str, file: str | None) -> str:
    """Return the option for the folder to which a module's name is relative; empty if there is no such folder."""
    if file is None:
        return ""
    parts = os.path.splitext(os.path.abspath(file))[0].split(os.sep)
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    names = name.split(".")
    if parts[-len(names) :] != names:
        return ""
    return f"--path {quoted(os.sep.join(parts[: -len(names)]) or os.sep)}"
