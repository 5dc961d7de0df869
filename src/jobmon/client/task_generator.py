"""The client's part of `jobmon.core.task_generator`: the task template of a function, and its tasks."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from jobmon.client.arguments import mismatch
from jobmon.client.defaults import checked_limit, name_hint
from jobmon.client.task import checked_attributes, readable_name
from jobmon.client.tool import Tool
from jobmon.core.task_generator.functions import PLACE_FIELD, PYTHON_FIELD
from jobmon.core.task_generator.words import quoted
from jobmon.core.texts import checked_name

if TYPE_CHECKING:
    from jobmon.client.task import Task
    from jobmon.client.task_template import TaskTemplate
    from jobmon.client.workflow import Workflow
    from jobmon.core.task_generator.generator import TaskGenerator

#: The Python program and the folder are op_args, so that another machine or checkout produces the same tasks. `-P`
#: prevents the working directory from shadowing modules that the client imported.
_COMMAND: Final = (
    f"{{{PYTHON_FIELD}}} -P -m jobmon.core.task_generator"
    f" --module {{module}} --func {{function}} {{{PLACE_FIELD}}} --args"
)


class Argument:
    """A value for a task: recorded as readable text, and inserted into the command in the alphabet of words."""

    __slots__ = ("_word", "text", "value")

    def __init__(self, value: Any, text: str) -> None:
        self.value = value
        self.text = text
        self._word = quoted(text)

    def __str__(self) -> str:
        """Return the recorded text."""
        return self.text

    def __format__(self, specification: str) -> str:
        """Return the word for the command."""
        return self._word


class TaskFactory:
    """Creates tasks of a decorated function."""

    def __init__(self, generator: TaskGenerator[..., Any]) -> None:
        self._generator = generator
        self._check_findable()
        self.tool = Tool(generator.place.module if generator.tool_name is None else generator.tool_name)
        self.template: TaskTemplate = self.tool.get_task_template(
            generator.name,
            self._command_template(),
            node_args=generator.parameters,
            op_args=[PYTHON_FIELD, PLACE_FIELD],
            default_cluster_name=generator.default_cluster_name,
            default_compute_resources=generator.default_compute_resources,
            default_resource_scales=generator.default_resource_scales,
            yaml_file=generator.yaml_file,
            max_attempts=generator.max_attempts,
        )
        self._op_args = {PYTHON_FIELD: shlex.quote(sys.executable), PLACE_FIELD: generator.place.words}

    def _check_findable(self) -> None:
        """Check that the worker finds this generator under the name of its function."""
        generator = self._generator
        module = sys.modules.get(generator.task_function.__module__)
        found = getattr(module, generator.name, generator)
        if found is not generator:
            raise ValueError(
                f"The worker would not find the task generator of {generator.name!r}: that name refers to {found!r} in"
                " its module. Decorate it with @task_generator() as the outermost decorator."
            )

    def _command_template(self) -> str:
        place = self._generator.place
        fixed = {"module": quoted(place.module), "function": quoted(self._generator.name)}
        command = _COMMAND.format(**fixed, **{field: f"{{{field}}}" for field in (PYTHON_FIELD, PLACE_FIELD)})
        return " ".join([command, *(f"{name}={{{name}}}" for name in self._generator.parameters)])

    # -- tasks --------------------------------------------------------------------------------------------------

    def create_task(self, values: Mapping[str, Any], name: str, **options: Any) -> Task:
        """Create one task.

        Raises:
            ValueError: an argument is missing, unknown, or of the wrong type; the message names it.
        """
        arguments = {each: self._argument(each, value) for each, value in self._complete(values).items()}
        return self._task(arguments, name, options)

    def create_tasks(
        self,
        values: Mapping[str, Any],
        name: str,
        max_concurrently_running: int | None,
        task_attributes: Iterable[str] | Mapping[str, Any],
        **options: Any,
    ) -> list[Task]:
        """Create one task for each combination of values.

        Raises:
            ValueError: an argument is missing, unknown, or of the wrong type; the message names it.
        """
        columns = {each: self._arguments(each, value) for each, value in self._complete(values).items()}
        if max_concurrently_running is not None:
            self.template.max_concurrently_running = checked_limit(max_concurrently_running)
        attributes = checked_attributes(task_attributes, "task_attributes")
        tasks = [
            self._task(dict(zip(columns, combination, strict=True)), "", options)
            for combination in itertools.product(*columns.values())
        ]
        for task in tasks if name else ():
            task.options = task.options.replaced(array_name=checked_name("The name of an array", name))
        for task in tasks if attributes else ():
            for each, value in attributes.items():
                task.add_attribute(each, value)
        return tasks

    def tasks_of(self, workflow: Workflow, values: Mapping[str, Any]) -> list[Task]:
        """Return the tasks of a workflow with the given argument values.

        Raises:
            ValueError: the function has no task in the workflow, or no such parameter.
        """
        for each in values:
            if each not in self._generator.parameters:
                hint = name_hint(each, self._generator.parameters)
                raise ValueError(f"The function {self._generator.name!r} has no parameter {each!r}{hint}")
        texts = {each: [item.text for item in self._arguments(each, value)] for each, value in values.items()}
        return workflow.get_tasks_by_node_args(self._generator.name, **texts)

    def _task(self, arguments: Mapping[str, Argument], name: str, options: Mapping[str, Any]) -> Task:
        everything: dict[str, Any] = {**options, **arguments, **self._op_args}
        return self.template.create_task(name or self._name(arguments), **everything)

    def _complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values for all parameters, including defaults."""
        generator = self._generator
        complete = {**generator.defaults, **values}
        if complete.keys() != {*generator.parameters}:
            raise ValueError(mismatch(generator.name, generator.parameters, complete))
        return {each: complete[each] for each in generator.parameters}

    # -- values -------------------------------------------------------------------------------------------------

    def _argument(self, parameter: str, value: Any) -> Argument:
        return Argument(value, self._generator.serialize(parameter, value))

    def _arguments(self, parameter: str, value: Any) -> list[Argument]:
        """Return one argument for a value that fits the type, or one for each item of any other iterable."""
        try:
            return [self._argument(parameter, value)]
        except ValueError as misfit:
            if not _is_several(value):
                raise
            problem = misfit
        try:
            return [self._argument(parameter, item) for item in value]
        except ValueError as error:
            if isinstance(value, list | tuple | set | frozenset) and len(value) == 1:
                raise
            raise ValueError(f"{error} (It is not a single value either: {problem})") from None

    # -- names --------------------------------------------------------------------------------------------------

    def _name(self, arguments: Mapping[str, Argument]) -> str:
        """Return the name of a task: `function:arg=value:...` in the order of the signature."""
        generator = self._generator
        naming = generator.parameters if generator.naming_args is None else generator.naming_args
        if generator.name_func is not None:
            return generator.name_func(generator.name, {each: arguments[each].value for each in naming})
        parts = [generator.name, *(f"{each}={arguments[each].text}" for each in naming)]
        return readable_name(parts, sha256("\0".join(parts).encode()).digest(), ":")


def _is_several(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
