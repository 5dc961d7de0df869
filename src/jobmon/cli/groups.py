"""Groups of commands that tell people who mistype a command, or look for it in the wrong group, what to type."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_NEAR_ENOUGH: Final = 0.6
#: Group -> names that people expect in it -> what to use.
_INSTEAD: Final[Mapping[str, Mapping[str, str]]] = {
    "workflow": dict.fromkeys(("list", "ls", "show"), "jobmon workflow status"),
    "task": {
        **dict.fromkeys(("list", "ls"), "jobmon workflow tasks WORKFLOW"),
        "show": "jobmon task status TASK",
    },
    "server": {"restart": "jobmon server stop, then jobmon server start"},
}


class Group(click.Group):
    """A group whose errors about unknown commands name the nearest command, or the group that has it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, raise an error that names what to use."""
        name = args[0]
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        raise unknown_command(ctx, name, self.commands, _INSTEAD.get(self.name or "", {}))


def unknown_command(
    ctx: click.Context, name: str, known: Iterable[str], instead: Mapping[str, str]
) -> click.UsageError:
    """Return the error about an unknown command.

    Args:
        ctx: the group in which it was looked for.
        name: what was typed.
        known: the commands of the group.
        instead: other names -> what to use.
    """
    if name in instead:
        return click.UsageError(f"No command {name!r}; use: {instead[name]}", ctx)
    if elsewhere := list(_with(ctx.find_root(), name, "jobmon")):
        return click.UsageError(f"No command {name!r}; use: {' or '.join(elsewhere)}", ctx)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=_NEAR_ENOUGH)
    return click.UsageError(f"No such command {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}", ctx)


def _with(ctx: click.Context, name: str, path: str) -> Iterator[str]:
    """Yield what to type for the commands of this name, in all groups; `path` is what to type for the context."""
    group = ctx.command
    if not isinstance(group, click.Group):
        return
    for word in group.list_commands(ctx):
        command = group.get_command(ctx, word)
        if word == name:
            yield f"{path} {word}"
        if isinstance(command, click.Group):
            yield from _with(click.Context(command, parent=ctx, info_name=word), name, f"{path} {word}")
