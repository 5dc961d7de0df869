"""Common parts of submissions: a mark for finding them again, a name, and a script that becomes a worker. Pure.

The mark is the launch token, followed by the steps of the batch that the submission contains. It ends the job's name,
so that one row of the scheduler's list suffices to derive all ids of the submission.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jobmon.plugins.batch.ids import IdFormat

READABLE_NAME_CHARACTERS_MAX: Final = 60
#: Exit code of a worker that guards its command and was notified of its job's end; also in `worker_node.guarding`.
EXIT_NOTIFIED: Final = 143
#: Variables of the job script that identify the worker.
DISTRIBUTOR_ID_VARIABLE: Final = "JOBMON_DISTRIBUTOR_ID"
STEP_VARIABLE: Final = "JOBMON_STEP"
#: When the job's time limit expires, seconds since the epoch; empty if the scheduler does not provide it.
END_TIME_VARIABLE: Final = "JOBMON_JOB_END_TIME"
#: Tells the worker to terminate its command itself before the time limit expires or when it is notified of the end.
GUARDS_VARIABLE: Final = "JOBMON_WORKER_GUARDS"
_UNREADABLE: Final = re.compile(r"[^A-Za-z0-9_.+-]+")
_MARK: Final = re.compile(r"(?:^|[.])(jm-[A-Za-z0-9_.+-]*?)-(\d+)\+(\d+)$")


@dataclass(frozen=True, slots=True)
class Mark:
    """The part of a batch that a submission contains: `length` steps starting at `first`."""

    token: str
    first: int
    length: int

    def __str__(self) -> str:
        return f"{self.token}-{self.first}+{self.length}"

    def ids(self, base: str, form: IdFormat) -> dict[int, str]:
        """Return step -> id, for the job with this number."""
        if self.length == 1:
            return {self.first: base}
        return {self.first + index: form.join(base, form.first + index) for index in range(self.length)}


def mark_of(name: str) -> Mark | None:
    """Parse the mark at the end of a job's name; return None if the job is not one of Jobmon's."""
    found = _MARK.search(name)
    return None if found is None else Mark(found[1], int(found[2]), int(found[3]))


def job_name(name: str, mark: Mark) -> str:
    """Return a readable name that every scheduler accepts and that ends with the mark."""
    readable = _UNREADABLE.sub("_", name)[:READABLE_NAME_CHARACTERS_MAX]
    return f"{readable}.{mark}" if readable else str(mark)


@dataclass(frozen=True, slots=True)
class Submission:
    """One call of the submission tool: an array, or a single job if there is only one step.

    Args:
        name: name of the task or template, as written by the user.
        mark: the steps.
        command: the worker's command line.
        output: path of the file to which jobs append their own output.
        requested: `compute_resources` in normal form: `cores`, `memory` in GiB, `runtime` in seconds, `queue`, ...
    """

    name: str
    mark: Mark
    command: str
    output: str
    requested: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_array(self) -> bool:
        """Whether there is more than one step."""
        return self.mark.length > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobVariables:
    """The scheduler's names for what a worker must know, in the environment of a job.

    Args:
        job: shell expression for a single job's number, e.g. "${SLURM_JOB_ID}".
        array: shell expression for an array's number.
        step: name of the variable with the step's number.
        end_time: name of the variable with the time when the job's limit expires, seconds since the epoch.
        must_guard: whether the scheduler kills only the worker's process group, which the command would outlive. If so,
            the worker terminates its command shortly before the time limit and at SIGUSR1 and SIGUSR2, and exits with
            `EXIT_NOTIFIED`.
    """

    job: str
    array: str
    step: str
    end_time: str = ""
    must_guard: bool = False


def job_script(
    submission: Submission, variables: JobVariables, form: IdFormat, *, redirects_output: bool = False
) -> str:
    """Return the script that becomes the worker, which finds its id and its step in two variables.

    Args:
        submission: the submission.
        variables: the scheduler's variables in a job.
        form: the scheduler's id format.
        redirects_output: whether the script appends its output to `submission.output`; else the scheduler does.
    """
    mark = submission.mark
    if submission.is_array:
        identity = form.join(variables.array, f"${{{variables.step}}}")
        shift = mark.first - form.first
        step = f"$(({variables.step} {'-' if shift < 0 else '+'} {abs(shift)}))"
    else:
        identity, step = variables.job, str(mark.first)
    lines = [
        "#!/bin/sh",
        f"# Jobmon, {mark}: Jobmon's server says what this job runs.",
        f'export {DISTRIBUTOR_ID_VARIABLE}="{identity}" {STEP_VARIABLE}="{step}"',
    ]
    if variables.end_time:
        lines.append(f'export {END_TIME_VARIABLE}="${{{variables.end_time}:-}}"')
    if variables.must_guard:
        lines.append(f"export {GUARDS_VARIABLE}=1")
    if redirects_output:
        lines.append(f"exec >>{shlex.quote(submission.output)} 2>&1")
    return "\n".join([*lines, f"exec {submission.command}", ""])


def worker_command(python: str, program: str) -> str:
    """Return the beginning of a worker's command line. The worker needs only the standard library."""
    return (
        f"{shlex.quote(python)} -I -S {shlex.quote(program)} "
        f"--distributor-id-variable {DISTRIBUTOR_ID_VARIABLE} --array-step-variable {STEP_VARIABLE}"
    )
