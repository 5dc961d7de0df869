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
        "_data_count",
        "_encode_identity",
        "_has_quotes",
        "_ordered",
        "_told",
        "_unquoted",
        "_write",
        "arguments",
        "command_template",
        "digest",
        "files",
        "id",
        "name_pattern",
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
        #: The default name of a task, into which the texts of its node args are to be inserted by `%`.
        self.name_pattern = "_".join(
            [template.template_name.replace("%", "%%"), *(f"{name}-%s" for name in arguments.node_args)]
        )
        #: Declared inputs and outputs; not part of its identity.
        self.files = NO_FILES
        self._has_quotes = quoting.has_quotes(command_template)
        # All names; those of node and task args come first.
        self._ordered = (*arguments.node_args, *arguments.task_args, *arguments.op_args)
        self._data_count = len(arguments.node_args) + len(arguments.task_args)
        self._write = quoting.writer(command_template, self._ordered)
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

    def fill(self, args: Mapping[str, Any]) -> tuple[str, tuple[str, ...], bytes]:
        """Return the command for these arguments, the texts of node and task args, and the digests of node and task.

        The texts are sorted by argument name, those of the node args first.

        Args:
            args: a value for each placeholder, by name.

        Raises:
            ValueError: an argument is missing or unknown, has no stable text, cannot be formatted or is not valid
                Unicode, or the resulting command cannot be started.
        """
        try:
            texts = _plain_texts(args, self._ordered)
        except (KeyError, ValueError):  # an argument is missing, or a number is too long to be written
            texts = None
        if len(args) != len(self._ordered) or (texts is None and args.keys() != self.names):
            raise ValueError(mismatch(self.name, self.names, args))
        if texts is None or self._write is None:
            args = self._stable(args)
            command = self._formatted(args)
            values = tuple([text_of(args[name]) for name in self._ordered[: self._data_count]])
        else:
            command = self._write(texts)
            values = tuple(texts[: self._data_count])
        check_command(command, self.name)
        if self._unquoted:
            self._warn_of_unquoted(args)
        node_count = len(self.arguments.node_args)
        return command, values, self._identity(values[:node_count], values[node_count:])

    def _stable(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments with their sets in sorted order.

        Raises:
            ValueError: one has no stable text.
        """
        rebuilt = {}
        for name in self._told:
            if type(args[name]) not in PLAIN:
                check_stable(args[name], partial(self._naming, name))
                rebuilt[name] = with_sorted_sets(args[name])
        return {**args, **rebuilt} if rebuilt else args

    def _formatted(self, args: Mapping[str, Any]) -> str:
        try:
            if self._has_quotes:
                return quoting.formatted(self.command_template, args)
            return self.command_template.format(**args)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The command of a task of template {self.name!r} cannot be created from {shown(dict(args))}: {error}"
            ) from None

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

    def _identity(self, node_values: tuple[str, ...], task_values: tuple[str, ...]) -> bytes:
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


def _plain_texts(args: Mapping[str, Any], names: Iterable[str]) -> list[str] | None:
    """Return the texts of the arguments in the order of the names; None unless the types of all of them are plain."""
    texts = []
    for name in names:
        value = args[name]
        kind = type(value)
        if kind is str:
            texts.append(value)
        elif kind in PLAIN:
            texts.append(str(value))
        else:
            return None
    return texts
