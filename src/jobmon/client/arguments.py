"""Determine the arguments of a command template, and their roles as node, task and op args. Pure."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import RESERVED_NAMES
from jobmon.core.texts import checked_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FORMAT_NESTING_MAX: Final = 2  # Python formats a field inside a field's specification, but no deeper


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one template version, each tuple sorted."""

    node_args: tuple[str, ...]
    task_args: tuple[str, ...]
    op_args: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of all arguments."""
        return frozenset(self.node_args + self.task_args + self.op_args)


def placeholders(command_template: str) -> frozenset[str]:
    """Return the names in a template's braces.

    Raises:
        ValueError: braces do not match, or a field has no name.
    """
    if not isinstance(command_template, str) or not command_template.strip():
        raise ValueError(f"command_template must be a string that contains a command, not {command_template!r}.")
    try:
        return frozenset(_names_in(command_template, _FORMAT_NESTING_MAX))
    except ValueError as error:
        raise ValueError(
            f"command_template {command_template!r} cannot be read: {error}."
            " Write {{ and }} for braces of the command."
        ) from None


def written_whole(command_template: str) -> frozenset[str]:
    """Return the names whose own text a checked template inserts; of other names it inserts an attribute or an item."""
    return frozenset(
        field for _, field, _, _ in string.Formatter().parse(command_template) if field and field.isidentifier()
    )


def _names_in(template: str, nesting: int) -> list[str]:
    names = []
    for _, field, specification, _ in string.Formatter().parse(template):
        if field is None:
            continue
        name = field.split(".")[0].split("[")[0]
        if not name.isidentifier():
            raise ValueError(f"the field {{{field}}} has no name")
        names.append(name)
        if specification and nesting > 0:
            names += _names_in(specification, nesting - 1)
    return names


def declared(
    template_name: str,
    command_template: str,
    node_args: Iterable[str] | None,
    task_args: Iterable[str] | None,
    op_args: Iterable[str] | None,
) -> Arguments:
    """Check declared arguments against the template and return them.

    Raises:
        ValueError: an argument is missing, unknown, declared twice, or has a reserved name; the message names them.
    """
    groups = [
        _listed(template_name, kind, group)
        for kind, group in (("node_args", node_args), ("task_args", task_args), ("op_args", op_args))
    ]
    everything = [checked_name("The argument", name) for group in groups for name in group]
    wanted = placeholders(command_template)
    problems = [
        *_problem("declared more than once", _repeated(everything)),
        *_problem("in command_template but not declared in node_args, task_args or op_args", wanted - {*everything}),
        *_problem("declared but not in command_template; use or remove it", {*everything} - wanted),
        *_problem("reserved as parameters of create_task; rename them", RESERVED_NAMES & wanted),
    ]
    if problems:
        raise ValueError(f"Arguments of task template {template_name!r}: {'; '.join(problems)}.")
    return Arguments(*(tuple(sorted(group)) for group in groups))


def _listed(template_name: str, kind: str, names: Iterable[str] | None) -> list[str]:
    if isinstance(names, str):
        raise ValueError(
            f"{kind} of task template {template_name!r} must be a list of names, not the string {names!r}."
        )
    listed = list(names or ())
    if not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{kind} of task template {template_name!r} must be a list of names, not {listed!r}.")
    return listed


def _repeated(names: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


def _problem(what: str, names: Iterable[str]) -> list[str]:
    listed = ", ".join(repr(name) for name in sorted(names))
    return [f"{listed} {what}"] if listed else []


def mismatch(template_name: str, wanted: Iterable[str], given: Iterable[str]) -> str:
    """Return a sentence that names the missing and the unknown arguments of a task."""
    wanted, given = set(wanted), set(given)
    problems = [*_problem("missing", wanted - given), *_problem("unknown", given - wanted)]
    return f"Arguments of a task of template {template_name!r}: {'; '.join(problems)}. It takes {sorted(wanted)}."
