"""One version of a task template: a command pattern and which of its arguments are which."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from jobmon.client import node
from jobmon.client.arguments import Arguments, mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.client.task_template import TaskTemplate

#: What Linux takes as one argument of a program (MAX_ARG_STRLEN), and so as a shell's command.
COMMAND_BYTES_MAX: Final = 131_071


class TaskTemplateVersion:
    """A command template with its arguments. `id` is known once it is recorded."""

    __slots__ = (
        "__weakref__",
        "_encode_identity",
        "arguments",
        "command_template",
        "digest",
        "id",
        "names",
        "template",
    )

    def __init__(
        self, template: TaskTemplate, command_template: str, arguments: Arguments, version_id: int | None = None
    ) -> None:
        self.template = template
        self.command_template = command_template
        self.arguments = arguments
        self.names = arguments.names
        self.id = version_id
        self.digest = node.template_digest(
            template.tool_version.tool.name, template.template_name, command_template, arguments
        )
        self._encode_identity = partial(node.identity, node.node_prefix(self.digest))

    @property
    def name(self) -> str:
        """The template's name."""
        return self.template.template_name

    @property
    def node_args(self) -> set[str]:
        """Names of the arguments that give a task its place in the DAG."""
        return set(self.arguments.node_args)

    @property
    def task_args(self) -> set[str]:
        """Names of the arguments that identify the data."""
        return set(self.arguments.task_args)

    @property
    def op_args(self) -> set[str]:
        """Names of the arguments that never count towards identity."""
        return set(self.arguments.op_args)

    def command(self, args: Mapping[str, Any]) -> str:
        """Return the command for these arguments.

        Raises:
            ValueError: an argument is missing or unknown, cannot be formatted, or the command could not be started.
        """
        if args.keys() != self.names:
            raise ValueError(mismatch(self.name, self.names, args))
        try:
            command = self.command_template.format(**args)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The command of a task of template {self.name!r} cannot be made of {args!r}: {error}"
            ) from None
        if "\0" in command:
            raise ValueError(f"The command of a task of template {self.name!r} holds a NUL character.")
        if len(command) > COMMAND_BYTES_MAX // 4 and len(command.encode(errors="replace")) > COMMAND_BYTES_MAX:
            raise ValueError(
                f"The command of a task of template {self.name!r} is longer than the {COMMAND_BYTES_MAX} bytes that the"
                " system takes; put long lists into a file."
            )
        return command

    def values(self, args: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the texts of the node args and of the task args, each in the sorted order of their names."""
        return (
            tuple([str(args[name]) for name in self.arguments.node_args]),
            tuple([str(args[name]) for name in self.arguments.task_args]),
        )

    def identity(self, node_values: tuple[str, ...], task_values: tuple[str, ...]) -> bytes:
        """Return the digests of node and task.

        Raises:
            ValueError: a value is not valid Unicode.
        """
        try:
            return self._encode_identity(node_values, task_values)
        except UnicodeEncodeError:
            raise ValueError(
                f"An argument of a task of template {self.name!r} is not valid Unicode: {node_values + task_values!r}."
            ) from None
