"""The decorator: a function with its codecs. The client creates tasks from it, and the worker runs it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import types
import typing
import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar

from jobmon.core.task_generator import functions
from jobmon.core.task_generator.annotations import CodecFactory, checked_serializers
from jobmon.core.task_generator.codecs import Codec, shown
from jobmon.core.task_generator.words import ARGUMENT_BYTES_MAX, QUOTED_PER_CHARACTER_MAX, named_texts, quoted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jobmon.client.task import Task
    from jobmon.client.task_generator import TaskFactory
    from jobmon.client.task_template import TaskTemplate
    from jobmon.client.tool import Tool
    from jobmon.client.workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")

#: True while the worker imports a function's module, during which no tasks may be created.
WORKER_IMPORTS: Final[ContextVar[bool]] = ContextVar("worker_imports", default=False)
_CLIENT: Final = "jobmon.client.task_generator"


class TaskGenerator(Generic[P, R]):
    """A function that can be called as before, and creates tasks that call it elsewhere. Created by `task_generator`.

    Raises:
        ValueError: the function cannot become a task, or an option is wrong; the message says why.
    """

    def __init__(
        self,
        task_function: Callable[P, R],
        serializers: Mapping[Any, tuple[Callable[[Any], str], Callable[[str], Any]]] | None = None,
        tool_name: str | None = None,
        naming_args: Iterable[str] | None = None,
        max_attempts: int | None = None,
        module_source_path: str | os.PathLike[str] | None = None,
        name_func: Callable[[str, dict[str, Any]], str] | None = None,
        default_cluster_name: str = "",
        default_compute_resources: Mapping[str, Any] | None = None,
        default_resource_scales: Mapping[str, Any] | None = None,
        yaml_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._inner = functions.innermost(task_function)
        functions.check_function(self._inner)
        functools.update_wrapper(self, task_function)
        self.task_function = task_function
        self.serializers = checked_serializers(serializers)
        self.tool_name = tool_name
        self.naming_args = self._checked_naming_args(naming_args)
        self.max_attempts = max_attempts
        self.module_source_path = module_source_path
        self.name_func = name_func
        self.default_cluster_name = default_cluster_name
        self.default_compute_resources = default_compute_resources
        self.default_resource_scales = default_resource_scales
        self.yaml_file = yaml_file
        # A class may be defined further down; it will be known when a task is created or run.
        with contextlib.suppress(NameError):
            self._resolve()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in this process."""
        return self.task_function(*args, **kwargs)

    def __repr__(self) -> str:
        """Return a text that names the function."""
        return f"<TaskGenerator {self._inner.__module__}.{self.name}>"

    def __reduce__(self) -> str:
        """Pickle by name, as functions are pickled."""
        return self.name

    # -- the function -------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the function and of its template."""
        return self._inner.__name__

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the function's parameters, all of them node args."""
        return functions.parameter_names(self._inner)

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of parameters by name."""
        return functions.defaults_of(self._inner)

    @functools.cached_property
    def place(self) -> functions.Place:
        """Where the worker finds the function.

        Raises:
            ValueError: it cannot be found; the message says why.
        """
        return functions.place_of(self._inner, self.module_source_path)

    @functools.cached_property
    def codecs(self) -> Mapping[str, Codec]:
        """The codec of each parameter, which converts its values to text.

        Raises:
            ValueError: an annotation refers to an unknown name.
        """
        try:
            return self._resolve()
        except NameError as error:
            raise ValueError(
                f"An annotation of {self.name!r} cannot be read: {error}. Names imported only under TYPE_CHECKING do"
                " not exist on the worker; import them unconditionally."
            ) from None

    def _resolve(self) -> Mapping[str, Codec]:
        """Return the codecs.

        Raises:
            NameError: a class is not defined (yet).
            ValueError: a type is not supported; the message names the parameter.
        """
        written = types.SimpleNamespace(__annotations__=functions.annotations_of(self._inner))
        hints = typing.get_type_hints(written, globalns=self._inner.__globals__)
        factory = CodecFactory(self.serializers)
        found = {}
        for name in self.parameters:
            try:
                found[name] = factory.of(hints[name])
            except ValueError as error:
                raise ValueError(f"Parameter {name!r} of {self.name!r}: {error}.") from None
        return found

    def _checked_naming_args(self, naming_args: Iterable[str] | None) -> tuple[str, ...] | None:
        if naming_args is None:
            return None
        names = (naming_args,) if isinstance(naming_args, str) else tuple(naming_args)
        unknown = [repr(name) for name in names if name not in self.parameters]
        if unknown:
            warnings.warn(
                f"naming_args of {self.name!r}: {', '.join(unknown)} unknown and ignored; its parameters are"
                f" {', '.join(map(repr, self.parameters))}.",
                stacklevel=4,
            )
        return tuple(name for name in self.parameters if name in names)

    # -- values and text ----------------------------------------------------------------------------------------

    def serialize(self, parameter: str, value: Any) -> str:
        """Return a value as text, as it is recorded.

        Raises:
            ValueError: the value is not valid for this parameter; the message names both.
        """
        try:
            text = self.codecs[parameter].text(value)
            self._check_text(text)
        except RecursionError:
            raise ValueError(self._about(parameter, value, "it is nested too deeply, or contains itself")) from None
        except Exception as error:
            problem = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(self._about(parameter, value, problem)) from error
        return text

    def _check_text(self, text: str) -> None:
        if "\0" in text:
            raise ValueError("it contains a NUL character, which databases cannot store")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("it is not valid Unicode") from None
        if len(text) * QUOTED_PER_CHARACTER_MAX > ARGUMENT_BYTES_MAX < (size_bytes := len(quoted(text))):
            raise ValueError(
                f"it takes {size_bytes} bytes of the command line, and the system allows {ARGUMENT_BYTES_MAX};"
                " write it to a file and pass the file's path"
            )

    def _about(self, parameter: str, value: object, problem: str) -> str:
        return f"Parameter {parameter!r} of {self.name!r} cannot be {shown(value)}: {problem}."

    def deserialize(self, parameter: str, text: str) -> Any:
        """Return the value of a text.

        Raises:
            ValueError: the text is not valid for this parameter, which the message names.
        """
        try:
            return self.codecs[parameter].value(text)
        except Exception as error:
            raise ValueError(f"Parameter {parameter!r} of {self.name!r} cannot be read: {error}.") from error

    # -- on the worker ------------------------------------------------------------------------------------------

    def run(self, args: Sequence[str]) -> None:
        """Call the function with arguments of the form `name=quoted`; its result is discarded.

        Raises:
            ValueError: an argument is unknown, missing or cannot be read.
        """
        texts = named_texts(args)
        unknown = sorted(texts.keys() - {*self.parameters})
        missing = [name for name in self.parameters if name not in texts and name not in self.defaults]
        if unknown or missing:
            raise ValueError(
                f"The function {self.name!r} takes {list(self.parameters)}: {unknown} unknown, {missing} missing."
                " Was it changed after the task was created?"
            )
        values = {name: self.deserialize(name, text) for name, text in texts.items()}
        self.task_function(**values)  # type: ignore[call-arg]

    # -- in the client ------------------------------------------------------------------------------------------

    @functools.cached_property
    def _client(self) -> TaskFactory:
        """The client's part, loaded by name because the worker does not need it."""
        if WORKER_IMPORTS.get():
            raise RuntimeError(
                f"The module of {self.name!r} creates tasks when a worker imports it; put that code under"
                ' `if __name__ == "__main__":`.'
            )
        factory: TaskFactory = importlib.import_module(_CLIENT).TaskFactory(self)
        return factory

    @property
    def tool(self) -> Tool:
        """The tool to which the template belongs; its `create_workflow` creates workflows."""
        return self._client.tool

    @property
    def task_template(self) -> TaskTemplate:
        """The task template created from the function."""
        return self._client.template

    def create_task(
        self,
        cluster_name: str = "",
        compute_resources: Mapping[str, Any] | None = None,
        resource_scales: Mapping[str, Any] | None = None,
        upstream_tasks: Iterable[Task] | None = (),
        task_attributes: Iterable[str] | Mapping[str, Any] = (),
        max_attempts: int | None = None,
        name: str = "",
        compute_resources_callable: Callable[..., Any] | None = None,
        fallback_queues: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> Task:
        """Create a task that calls the function with these arguments; options as in `TaskTemplate.create_task`.

        Raises:
            ValueError: an argument is missing, unknown, or of the wrong type; the message names it.
        """
        return self._client.create_task(
            kwargs,
            name=name,
            upstream_tasks=upstream_tasks,
            task_attributes=task_attributes,
            max_attempts=max_attempts,
            compute_resources=compute_resources,
            compute_resources_callable=compute_resources_callable,
            resource_scales=resource_scales,
            cluster_name=cluster_name,
            fallback_queues=fallback_queues,
        )

    def create_tasks(
        self,
        cluster_name: str = "",
        compute_resources: Mapping[str, Any] | None = None,
        resource_scales: Mapping[str, Any] | None = None,
        upstream_tasks: Iterable[Task] | None = None,
        task_attributes: Iterable[str] | Mapping[str, Any] = (),
        max_attempts: int | None = None,
        max_concurrently_running: int | None = None,
        compute_resources_callable: Callable[..., Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> list[Task]:
        """Create a task for each combination of values; options as in `TaskTemplate.create_tasks`.

        A value that fits the parameter's type is one value; any other list (or iterable) is a set of values. So
        `[1, 2]` creates two tasks for an `int` and one for a `list[int]`, which takes several as `[[1, 2], [3]]`.

        Raises:
            ValueError: an argument is missing, unknown, or of the wrong type; the message names it.
        """
        return self._client.create_tasks(
            kwargs,
            name or "",
            max_concurrently_running,
            task_attributes,
            max_attempts=max_attempts,
            upstream_tasks=upstream_tasks,
            compute_resources=compute_resources,
            compute_resources_callable=compute_resources_callable,
            resource_scales=resource_scales,
            cluster_name=cluster_name,
        )

    def get_tasks_by_node_args(self, workflow: Workflow, **kwargs: Any) -> list[Task]:
        """Return the function's tasks in a workflow with these arguments (or one of these, as in `create_tasks`).

        Raises:
            ValueError: the workflow has no task of the function, or there is no such parameter.
        """
        return self._client.tasks_of(workflow, kwargs)


def task_generator(
    serializers: Mapping[Any, tuple[Callable[[Any], str], Callable[[str], Any]]] | None = None,
    tool_name: str | None = None,
    naming_args: Iterable[str] | None = None,
    max_attempts: int | None = None,
    module_source_path: str | os.PathLike[str] | None = None,
    name_func: Callable[[str, dict[str, Any]], str] | None = None,
    default_cluster_name: str = "",
    default_compute_resources: Mapping[str, Any] | None = None,
    default_resource_scales: Mapping[str, Any] | None = None,
    yaml_file: str | os.PathLike[str] | None = None,
) -> Callable[[Callable[P, R]], TaskGenerator[P, R]]:
    """Turn a function with typed parameters into a task template.

    Args:
        serializers: {type: (to_string, from_string)} for unsupported types, or to write supported ones differently.
        tool_name: the tool to which the template belongs; by default the name of the function's module.
        naming_args: parameters whose values form the names of tasks; by default all.
        max_attempts: how many attempts a task gets.
        module_source_path: the file from which the worker loads the function, if it cannot be imported by name.
        name_func: creates a task's name from the function's name and a dict of the (naming) arguments.
        default_cluster_name: the cluster on which tasks run.
        default_compute_resources: the resources that tasks request.
        default_resource_scales: how these grow after a resource error.
        yaml_file: a file with `task_template_resources` for the function's name.
    """
    if isinstance(serializers, types.FunctionType):
        raise ValueError(f"Write `@task_generator()` above {serializers.__name__!r}, with parentheses.")

    def decorate(function: Callable[P, R]) -> TaskGenerator[P, R]:
        return TaskGenerator(
            function,
            serializers,
            tool_name,
            naming_args,
            max_attempts,
            module_source_path,
            name_func,
            default_cluster_name,
            default_compute_resources,
            default_resource_scales,
            yaml_file,
        )

    return decorate
