"""One version of a task template: a command pattern and the roles of its arguments."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from jobmon.client import node, quoting
from jobmon.client.arguments import Arguments, mismatch, written_whole
from jobmon.client.values import PLAIN, check_stable, shown, text_of, with_sorted_sets
from jobmon.core.files import NO_FILES, checked_patterns
from jobmon.core.texts import SHOWN_CHARACTERS_MAX, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobmon.client.task_template import TaskTemplate

logger = logging.getLogger(__name__)

#: Maximum length that Linux accepts for one argument of a program (MAX_ARG_STRLEN), and therefore for a command.
COMMAND_BYTES_MAX: Final = 131_071


def check_command(command: str, template_name: str = "") -> None:
    """Check that a command can be started.

    Args:
        command: the command.
        template_name: name of its template, for the error message.

    Raises:
        ValueError: it contains a NUL character or bytes that are not UTF-8, or is too long.
    """
    is_long = len(command) > COMMAND_BYTES_MAX // 4 and len(command.encode(errors="replace")) > COMMAND_BYTES_MAX
    if not is_long and "\0" not in command and (command.isascii() or _is_unicode(command)):
        return
    what = f"The command of a task of template {template_name!r}" if template_name else "The command"
    if is_long:
        raise ValueError(
            f"{what} is longer than the {COMMAND_BYTES_MAX} bytes that the system allows; write long lists to a file."
        )
    found = "a NUL character" if "\0" in command else f"bytes that are not UTF-8: {command!r}"
    raise ValueError(f"{what} contains {found}.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class TaskTemplateVersion:
    """A command template with its arguments. `id` is set once the version is recorded."""

    __slots__ = (
        "__weakref__",
        "_encode_identity",
        "_has_quotes",
        "_told",
        "_unquoted",
        "arguments",
        "command_template",
        "digest",
        "files",
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
        # An op arg of which the command uses only an attribute needs no stable text.
        self._told = frozenset({*arguments.node_args, *arguments.task_args, *written_whole(command_template)})
        self.id = version_id
        #: Declared inputs and outputs; not part of its identity.
        self.files = NO_FILES
        self._has_quotes = quoting.has_quotes(command_template)
        # Op args are excluded: they are often lists of options that the shell is meant to split.
        self._unquoted = quoting.unquoted(command_template, {*arguments.node_args, *arguments.task_args})
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
        """Names of the arguments that identify a task within the DAG."""
        return set(self.arguments.node_args)

    @property
    def task_args(self) -> set[str]:
        """Names of the arguments that identify the data of the workflow."""
        return set(self.arguments.task_args)

    @property
    def op_args(self) -> set[str]:
        """Names of the arguments that never count towards identity."""
        return set(self.arguments.op_args)

    def declare_files(
        self, inputs: Iterable[str] | Mapping[str, str] | None, outputs: Iterable[str] | Mapping[str, str] | None
    ) -> None:
        """Declare the files that each task reads and writes; see `Tool.get_task_template`.

        Args:
            inputs: patterns of files that a task reads; None keeps what was declared before.
            outputs: patterns of files that a task writes; None keeps what was declared before.

        Raises:
            ValueError: a pattern is invalid; the message names it.
        """
        given = {"inputs": inputs, "outputs": outputs}
        data_args, op_args = {*self.arguments.node_args, *self.arguments.task_args}, self.arguments.op_args
        found = {
            kind: checked_patterns(self.name, kind, patterns, data_args, op_args)
            for kind, patterns in given.items()
            if patterns is not None
        }
        self.files = replace(self.files, **found)

    def command(self, args: Mapping[str, Any]) -> str:
        """Return the command for these arguments.

        Args:
            args: a value for each placeholder, by name.

        Raises:
            ValueError: an argument is missing or unknown, has no stable text, or cannot be formatted, or the resulting
                command cannot be started.
        """
        if args.keys() != self.names:
            raise ValueError(mismatch(self.name, self.names, args))
        rebuilt = {}
        for name in self._told:
            if type(args[name]) not in PLAIN:
                check_stable(args[name], partial(self._naming, name))
                rebuilt[name] = with_sorted_sets(args[name])
        args = {**args, **rebuilt} if rebuilt else args
        try:
            if self._has_quotes:
                command = quoting.formatted(self.command_template, args)
            else:
                command = self.command_template.format(**args)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The command of a task of template {self.name!r} cannot be created from {shown(dict(args))}: {error}"
            ) from None
        check_command(command, self.name)
        if self._unquoted:
            self._warn_of_unquoted(args)
        return command

    def _warn_of_unquoted(self, args: Mapping[str, Any]) -> None:
        """Warn, once per template, about a value that the shell does not take literally."""
        name = quoting.first_special(self._unquoted, args)
        if name is None:
            return
        self._unquoted = ()
        logger.warning(
            "Template %r inserts %r unquoted, but the shell does not take the value %r literally. Write {%s:q} in the"
            " command template to quote it; if the shell is meant to interpret it, declare %r in op_args.",
            self.name,
            name,
            shortened(str(args[name]), SHOWN_CHARACTERS_MAX),
            name,
            name,
        )

    def _naming(self, argument: str) -> str:
        return f"Argument {argument!r} of a task of template {self.name!r}"

    def values(self, args: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the texts of the node args and of the task args, each sorted by argument name.

        Args:
            args: a value for each placeholder, by name.
        """
        return (
            tuple([text_of(args[name]) for name in self.arguments.node_args]),
            tuple([text_of(args[name]) for name in self.arguments.task_args]),
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
