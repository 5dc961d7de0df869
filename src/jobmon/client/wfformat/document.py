"""A recorded workflow as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jobmon.core.exceptions import JobmonError

#: A program's name, as opposed to the text of a whole script, which some recordings have in the same field.
_PROGRAM: Final = re.compile(r"[A-Za-z][\w.+-]{0,63}")
_TRAILING_NUMBER: Final = re.compile(r"[_.-]?(?:ID)?\d+$")


class RecordingError(JobmonError, ValueError):
    """The file is not a WfFormat 1.5 document that can be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTask:
    """One task. `parents` is the union of all dependencies in the document."""

    task_id: str
    category: str
    parents: tuple[str, ...]
    input_files: tuple[str, ...]
    output_files: tuple[str, ...]
    runtime_seconds: float  # as recorded; may be 0 or negative
    cpu_percent: float | None  # of one core, may exceed 100; None: not recorded

    @property
    def duration_seconds(self) -> float:
        """The recorded runtime; 0 if it was recorded as negative."""
        return max(0.0, self.runtime_seconds)

    @property
    def cpu_share(self) -> float:
        """Average number of busy cores; 1 if it was not recorded, since most such tasks compute."""
        return 1.0 if self.cpu_percent is None else max(0.0, self.cpu_percent / 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedMachine:
    """A machine of the recording; `cores` is None if it was not recorded."""

    name: str
    cores: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A checked document: IDs are unique, and each task comes after its parents."""

    name: str
    description: str
    tasks: tuple[RecordedTask, ...]
    file_sizes: Mapping[str, int]  # file ID -> bytes
    makespan_seconds: float | None
    machines: tuple[RecordedMachine, ...]

    @property
    def work_seconds(self) -> float:
        """The total duration of all tasks."""
        return sum(task.duration_seconds for task in self.tasks)

    @property
    def cores(self) -> int | None:
        """The total number of cores of all machines; None if one of them is unknown."""
        known = [machine.cores for machine in self.machines if machine.cores is not None]
        return sum(known) if known and len(known) == len(self.machines) else None

    @property
    def prepared_files(self) -> tuple[str, ...]:
        """The files that must exist at the start: read by a task, and produced by none that does not also read it."""
        made = {name for task in self.tasks for name in task.output_files if name not in task.input_files}
        read = dict.fromkeys(name for task in self.tasks for name in task.input_files)
        return tuple(name for name in read if name not in made)


def category_of(name: str, program: str) -> str:
    """Return the kind of a task: its program if the name begins with it, otherwise its name without trailing number.

    >>> category_of("mProject_ID0000001", ""), category_of("fast2bfq_s_1_ID0000002", "fast2bfq")
    ('mProject', 'fast2bfq')
    """
    if _PROGRAM.fullmatch(program) and name.startswith(program):
        return program
    return _TRAILING_NUMBER.sub("", name) or name
