"""Parse statuses as people write them: names, letters or groups; suggest the nearest after a typo. And format them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.core.outcomes import TASK_GROUPS, group_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from enum import StrEnum
    from pathlib import Path

    from click.shell_completion import CompletionItem

NEAR_ENOUGH: Final = 0.5


def task_statuses(word: str) -> list[str]:
    """Return the letters that a word represents: a group, the name of a status, or a letter.

    Raises:
        click.BadParameter: it is none of these; the message names the nearest.
    """
    from jobmon.core.constants import TaskStatus

    wanted = word.strip().upper()
    if wanted in TASK_GROUPS:
        return [status.value for status in TaskStatus if group_of(status) == wanted]
    return [_status_of(TaskStatus, wanted, word, TASK_GROUPS)]


class WorkflowStates(click.ParamType[str]):
    """The status of a workflow, by name or letter; its value is the letter, or a name from `core.outcomes`."""

    name = "status"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Parse a word."""
        from jobmon.core.constants import WorkflowStatus
        from jobmon.core.outcomes import OUTCOMES

        wanted = str(value).strip().upper().replace("_", " ")
        return wanted if wanted in OUTCOMES else _status_of(WorkflowStatus, wanted, str(value), OUTCOMES)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the names."""
        from click.shell_completion import CompletionItem

        from jobmon.core.constants import WorkflowStatus
        from jobmon.core.outcomes import OUTCOMES

        names = [*OUTCOMES, *(status.name for status in WorkflowStatus)]
        return [CompletionItem(name) for name in names if name.startswith(incomplete.upper())]


def status_letter(kind: type[StrEnum], word: str, allowed: Iterable[StrEnum]) -> str:
    """Return the letter of a status given by name or letter.

    Raises:
        click.BadParameter: it is not an allowed status; the message names the nearest.
    """
    choices = list(allowed)
    wanted = word.strip().upper()
    for status in choices:
        if wanted in (status.name, status.value):
            return status.value
    is_known = any(wanted in (status.name, status.value) for status in kind)
    refused = f"{word!r} cannot be set" if is_known else f"there is no status {word!r}"
    near = None if is_known else _nearest(wanted, [status.name for status in choices])
    names = " or ".join(f"{status.value} ({status.name})" for status in choices)
    raise click.BadParameter(f"{refused}; " + (f"did you mean {near}?" if near else f"use {names}."))


def _status_of(kind: type[StrEnum], wanted: str, word: str, groups: Iterable[str]) -> str:
    for status in kind:
        if wanted in (status.name, status.value):
            return status.value
    names = list(dict.fromkeys([*groups, *(status.name for status in kind)]))
    near = _nearest(wanted, names)
    hint = f"did you mean {near}?" if near else f"use one of {', '.join(names)}."
    raise click.BadParameter(f"there is no status {word!r}; {hint}")


def _nearest(wanted: str, names: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(wanted, names, n=1, cutoff=NEAR_ENOUGH)), None)


class TaskStates(click.ParamType[list[str]]):
    """A word for task statuses; its value is a list of letters."""

    name = "status"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Parse a word."""
        return value if isinstance(value, list) else task_statuses(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete groups and names."""
        from click.shell_completion import CompletionItem

        from jobmon.core.constants import TaskStatus

        names = dict.fromkeys([*TASK_GROUPS, *(status.name for status in TaskStatus)])
        return [CompletionItem(name) for name in names if name.startswith(incomplete.upper())]


def count_text(counts: dict[str, int], kind: type[StrEnum]) -> str:
    """Format counts by status: 3 DONE, 2 RUNNING."""
    return ", ".join(
        f"{count} {kind(letter).name}" for letter, count in sorted(counts.items(), key=lambda one: -one[1])
    )


class NotWritable(click.FileError):
    """A file given for the result cannot be written, which is a usage error."""

    exit_code = 2

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(str(path), error.strerror)

    def format_message(self) -> str:
        """Return what happened in one line."""
        return f"{self.ui_filename} cannot be written: {self.message}."
