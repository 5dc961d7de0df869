"""States as people write them: names, letters or groups, with the nearest one named on a slip; and their inverse."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from enum import StrEnum
    from pathlib import Path

    from click.shell_completion import CompletionItem

#: The states that the command line shows: what a person wants to know.
TASK_GROUPS: Final = ("PENDING", "RUNNING", "DONE", "FATAL")
NEAR_ENOUGH: Final = 0.5
#: What databases can count to.
ID_MAX: Final = 2**63 - 1


def group_of(status: str) -> str:
    """Tell in which group of the command line a task's status is."""
    from jobmon.core.constants import TaskStatus

    if status in (TaskStatus.LAUNCHED, TaskStatus.RUNNING):
        return "RUNNING"
    return {TaskStatus.DONE: "DONE", TaskStatus.ERROR_FATAL: "FATAL"}.get(TaskStatus(status), "PENDING")


def task_statuses(word: str) -> list[str]:
    """Return the letters that a word stands for: a group, the name of a status, or a letter.

    Raises:
        click.BadParameter: it is none; names the nearest.
    """
    from jobmon.core.constants import TaskStatus

    wanted = word.strip().upper()
    if wanted in TASK_GROUPS:
        return [status.value for status in TaskStatus if group_of(status) == wanted]
    return [_status_of(TaskStatus, wanted, word, TASK_GROUPS)]


def status_letter(kind: type[StrEnum], word: str, allowed: Iterable[StrEnum]) -> str:
    """Return the letter of a status given by name or letter.

    Raises:
        click.BadParameter: it is none of the allowed ones; names the nearest.
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
    raise click.BadParameter(f"{refused}; " + (f"did you mean {near}?" if near else f"give {names}."))


def _status_of(kind: type[StrEnum], wanted: str, word: str, groups: Iterable[str]) -> str:
    for status in kind:
        if wanted in (status.name, status.value):
            return status.value
    names = list(dict.fromkeys([*groups, *(status.name for status in kind)]))
    near = _nearest(wanted, names)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(names)}."
    raise click.BadParameter(f"there is no status {word!r}; {hint}")


def _nearest(wanted: str, names: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(wanted, names, n=1, cutoff=NEAR_ENOUGH)), None)


class Id(click.ParamType[int]):
    """The number of a workflow, task or template version."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is no id: ids are whole numbers.", param, ctx)
        if not 0 < number <= ID_MAX:
            self.fail(f"there is no id {number}.", param, ctx)
        return number


class TaskStates(click.ParamType[list[str]]):
    """A word for states of tasks; its value is a list of letters."""

    name = "status"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Read a word."""
        return value if isinstance(value, list) else task_statuses(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer groups and names."""
        from click.shell_completion import CompletionItem

        from jobmon.core.constants import TaskStatus

        names = dict.fromkeys([*TASK_GROUPS, *(status.name for status in TaskStatus)])
        return [CompletionItem(name) for name in names if name.startswith(incomplete.upper())]


def count_text(counts: dict[str, int], kind: type[StrEnum]) -> str:
    """Return counts by status as words: 3 DONE, 2 RUNNING."""
    return ", ".join(
        f"{count} {kind(letter).name}" for letter, count in sorted(counts.items(), key=lambda one: -one[1])
    )


def number_of(count: int, what: str) -> str:
    """Return a count with its noun: 1 task, 2 tasks."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


class NotWritable(click.FileError):
    """A file that was named for the result cannot be written: wrong use."""

    exit_code = 2

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(str(path), error.strerror)

    def format_message(self) -> str:
        """Return what happened, in a line."""
        return f"{self.ui_filename} cannot be written: {self.message}."
