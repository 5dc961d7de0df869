"""Formats of job ids and array step ids. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Maximum number of steps in one expression; Slurm's largest array has 4,000,001.
STEPS_MAX: Final = 4_000_001
_BASE: Final = re.compile(r"^\d{1,18}$", re.ASCII)
_RANGE: Final = re.compile(r"^(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?$", re.ASCII)


@dataclass(frozen=True)
class IdFormat:
    """The format of an array step's id: the job's number, `before`, the step, `after`.

    Args:
        before: text between the job's number and the step: "_" for Slurm, "." for Grid Engine, "[" for PBS and LSF.
        after: text after the step: "]" for PBS and LSF.
        first: the scheduler's number of the first step of each array.
    """

    before: str = "_"
    after: str = ""
    first: int = 0

    @cached_property
    def _step(self) -> re.Pattern[str]:
        before, after = re.escape(self.before), re.escape(self.after)
        return re.compile(rf"^(\d{{1,18}}){before}(?:\[([0-9,:-]+)(?:%\d+)?\]|([0-9,:-]+)){after}$", re.ASCII)

    def join(self, base: str, step: object) -> str:
        """Return the id of a step, numbered as the scheduler numbers it."""
        return f"{base}{self.before}{step}{self.after}"

    def split(self, identity: str) -> tuple[str, int | None]:
        """Return a job's number, and the step if the id has one."""
        base, _, rest = identity.partition(self.before)
        step = rest.removesuffix(self.after)
        return base, int(step) if step.isascii() and step.isdecimal() else None

    def base_of(self, identity: str) -> str:
        """Return the number of the job to which a step belongs."""
        return self.split(identity)[0]

    def parse(self, text: str) -> JobIds | None:
        """Parse "12", "12_3" or "12_[0-3,7]", with this format's separators; return None for other texts."""
        if _BASE.match(text):
            return JobIds(text, None, self)
        found = self._step.match(text)
        steps = None if found is None else _steps(found[2] or found[3])
        return None if found is None or steps is None else JobIds(found[1], steps, self)


@dataclass(frozen=True, slots=True)
class JobIds:
    """The ids of one row: a single job (`steps` is None), or steps of an array. Iteration yields the ids."""

    base: str
    steps: tuple[range, ...] | None = None
    form: IdFormat = field(default=IdFormat())

    def __iter__(self) -> Iterator[str]:
        if self.steps is None:
            yield self.base
        for steps in self.steps or ():
            for step in steps:
                yield self.form.join(self.base, step)

    def __contains__(self, step: object) -> bool:
        return any(step in steps for steps in self.steps or ())

    @property
    def is_one(self) -> bool:
        """Whether this is a single job, or one step."""
        return self.steps is None or sum(len(steps) for steps in self.steps) == 1

    def __str__(self) -> str:
        if self.steps is None:
            return self.base
        if self.is_one:
            return next(iter(self))
        return self.form.join(self.base, f"[{','.join(_range_text(steps) for steps in self.steps)}]")


def _range_text(steps: range) -> str:
    last = steps[-1]
    if last == steps.start:
        return str(last)
    return f"{steps.start}-{last}" + (f":{steps.step}" if steps.step > 1 else "")


def _steps(expression: str) -> tuple[range, ...] | None:
    """Parse "0-3,7,8-20:4"; return None for other texts."""
    found = []
    total = 0
    for word in expression.split(","):
        matched = _RANGE.match(word)
        if matched is None:
            return None
        first, last, stride = int(matched[1]), int(matched[2] or matched[1]), int(matched[3] or 1)
        if last < first or stride < 1:
            return None
        found.append(range(first, last + 1, stride))
        total += len(found[-1])
    return tuple(found) if total <= STEPS_MAX else None


def ranges_text(steps: Iterable[int]) -> str:
    """Format steps as an expression: "0-3,7"."""
    runs: list[list[int]] = []
    for step in sorted(steps):
        if runs and step == runs[-1][1] + 1:
            runs[-1][1] = step
        else:
            runs.append([step, step])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def by_job(form: IdFormat, distributor_ids: Iterable[str]) -> dict[str, list[int]]:
    """Return job -> its steps among these ids; an empty list stands for the whole job."""
    found: dict[str, list[int]] = {}
    whole: set[str] = set()
    for identity in sorted(set(distributor_ids)):
        base, step = form.split(identity)
        if step is None:
            whole.add(base)
        else:
            found.setdefault(base, []).append(step)
    return {**{base: sorted(steps) for base, steps in found.items()}, **{base: [] for base in sorted(whole)}}
