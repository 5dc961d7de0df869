"""A recorded workflow as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jobmon.core.exceptions import JobmonError

#: A program's name, as opposed to the text of a whole script, which some recordings hold in the same field.
_PROGRAM: Final = re.compile(r"[A-Za-z][\w.+-]{0,63}")
_TRAILING_NUMBER: Final = re.compile(r"[_.-]?(?:ID)?\d+$")


class RecordingError(JobmonError, ValueError):
    """The file is not a WfFormat 1.5 document that can be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTask:
    """One task. `parents` is the union of everything the document says about what it waits for."""

    task_id: str
    category: str
    parents: tuple[str, ...]
    input_files: tuple[str, ...]
    output_files: tuple[str, ...]
    runtime_seconds: float  # as recorded: 0 and below occur
    cpu_percent: float | None  # of one core: above 100 occurs; None: not recorded

    @property
    def duration_seconds(self) -> float:
        """The recorded runtime; one that was recorded as negative took no time."""
        return max(0.0, self.runtime_seconds)

    @property
    def cpu_share(self) -> float:
        """Cores that were busy on average; 1 where it was not recorded, since most such tasks compute."""
        return 1.0 if self.cpu_percent is None else max(0.0, self.cpu_percent / 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine of the recording; some recordings do not know how many cores it had."""

    name: str
    cores: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A checked document: ids are unique, tasks stand in an order in which each comes after its parents."""

    name: str
    description: str
    tasks: tuple[RecordedTask, ...]
    file_sizes: Mapping[str, int]  # file id -> bytes
    makespan_seconds: float | None
    machines: tuple[Machine, ...]

    @property
    def work_seconds(self) -> float:
        """The durations of all tasks together."""
        return sum(task.duration_seconds for task in self.tasks)

    @property
    def cores(self) -> int | None:
        """The cores of all machines together, None if one of them is not known."""
        known = [machine.cores for machine in self.machines if machine.cores is not None]
        return sum(known) if known and len(known) == len(self.machines) else None

    @property
    def prepared_files(self) -> tuple[str, ...]:
        """The files that must be there before anything runs: read by a task, and made by none that does not read it."""
        made = {name for task in self.tasks for name in task.output_files if name not in task.input_files}
        read = dict.fromkeys(name for task in self.tasks for name in task.input_files)
        return tuple(name for name in read if name not in made)


def category_of(name: str, program: str) -> str:
    """Tell the kind of a task: its program where the name begins with it, else its name without the trailing number.

    >>> category_of("mProject_ID0000001", ""), category_of("fast2bfq_s_1_ID0000002", "fast2bfq")
    ('mProject', 'fast2bfq')
    """
    if _PROGRAM.fullmatch(program) and name.startswith(program):
        return program
    return _TRAILING_NUMBER.sub("", name) or name
