"""What is said to Slurm: argv and job scripts from values. Pure.

Every submission carries its launch token in comment and job name, followed by which steps of the batch it holds, so
that one row of `squeue` or `sacct` is enough to know all ids that it made.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

#: Between fields of what Slurm answers: no name or comment holds it.
SEPARATOR: Final = "\x1f"
#: The fields asked for. What users may have written comes last, so that a separator in it does no harm.
QUEUE_FIELDS: Final = (
    "JobArrayID",
    "State",
    "exit_code",
    "Reason",
    "StartTime",
    "EndTime",
    "RestartCnt",
    "NodeList",
    "Name",
)
ACCOUNTING_FIELDS: Final = (
    "JobID",
    "State",
    "ExitCode",
    "Start",
    "End",
    "ElapsedRaw",
    "TotalCPU",
    "MaxRSS",
    "ReqMem",
    "NodeList",
    "JobName",
)
#: States in which a job is over.
ENDED_STATES: Final = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)
IDS_PER_COMMAND_MAX: Final = 500
READABLE_NAME_CHARACTERS_MAX: Final = 60
SECONDS_PER_MINUTE: Final = 60
MIB_PER_GIB: Final = 1024
#: Variables of the job script by which the worker knows itself.
DISTRIBUTOR_ID_VARIABLE: Final = "JOBMON_DISTRIBUTOR_ID"
STEP_VARIABLE: Final = "JOBMON_STEP"
#: When the job's time is over, seconds since the epoch; empty where Slurm does not say (before 23.02).
END_TIME_VARIABLE: Final = "JOBMON_JOB_END_TIME"

#: Further keys of `compute_resources` -> the option of `sbatch` that they become.
OPTION_OF_KEY: Final = {
    "project": "account",
    "qos": "qos",
    "gpus": "gpus",
    "gres": "gres",
    "nodes": "nodes",
    "tasks_per_node": "ntasks-per-node",
    "reservation": "reservation",
}
#: Options that Jobmon sets itself or that would break it -> what to do instead.
RESERVED_OPTIONS: Final[Mapping[str, str]] = {
    "array": "tasks of a template go as arrays by themselves",
    "clusters": "add a Jobmon cluster for each Slurm cluster",
    "comment": "it carries the launch token",
    "cpus-per-task": "use 'cores'",
    "error": "use 'stderr'",
    "export": "use 'env'",
    "gid": "jobs run as yourself",
    "input": "commands read nothing",
    "job-name": "it carries the launch token",
    "mem": "use 'memory'",
    "open-mode": "use 'stdout' and 'stderr'",
    "output": "use 'stdout'",
    "parsable": "it is set always",
    "partition": "use 'queue'",
    "requeue": "Jobmon itself tries again",
    "test-only": "use workflow.validate()",
    "time": "use 'runtime'",
    "uid": "jobs run as yourself",
    "wait": "Jobmon waits",
    "wrap": "the command is that of the task",
}
SHORT_OPTIONS: Final[Mapping[str, str]] = {
    "a": "array",
    "M": "clusters",
    "c": "cpus-per-task",
    "e": "error",
    "i": "input",
    "J": "job-name",
    "o": "output",
    "p": "partition",
    "t": "time",
    "W": "wait",
}
#: What Slurm's own tools would read instead of what they are told here.
_MISLEADING: Final = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_")
_KEPT: Final = frozenset({"SLURM_CONF", "SLURM_JWT", "SBATCH_ACCOUNT", "SBATCH_QOS", "SBATCH_RESERVATION"})
_UNREADABLE: Final = re.compile(r"[^A-Za-z0-9_.+-]+")
_MARK: Final = re.compile(r"(?:^|[.])(jm-[A-Za-z0-9_.+-]*?)-(\d+)\+(\d+)$")


@dataclass(frozen=True, slots=True)
class Mark:
    """Which steps of which batch a submission holds."""

    token: str
    first: int
    length: int

    def __str__(self) -> str:
        return f"{self.token}-{self.first}+{self.length}"


def mark_of(name: str) -> Mark | None:
    """Read the mark at the end of a job's name or comment; None: it is not one of ours."""
    found = _MARK.search(name)
    return None if found is None else Mark(found[1], int(found[2]), int(found[3]))


@dataclass(frozen=True, slots=True)
class Submission:
    """One call of `sbatch`: an array, or a single job where there is but one step."""

    name: str
    mark: Mark
    command: str
    output: str
    requested: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_array(self) -> bool:
        """Whether there is more than one step."""
        return self.mark.length > 1


def sbatch_arguments(submission: Submission) -> list[str]:
    """Return the command that reads the job script from its standard input and prints the job's id."""
    requested = submission.requested
    arguments = ["sbatch", "--parsable", "--no-requeue", "--export=ALL", "--input=/dev/null", "--open-mode=append"]
    arguments += [f"--job-name={job_name(submission.name, submission.mark)}", f"--comment={submission.mark}"]
    arguments.append(f"--output={submission.output.replace('%', '%%')}")
    if submission.is_array:
        limit = f"%{int(requested['array_limit'])}" if requested.get("array_limit") else ""
        arguments.append(f"--array=0-{submission.mark.length - 1}{limit}")
    return [*arguments, *size_options(requested), *kind_options(requested), *further_options(requested.get("sbatch"))]


def job_name(name: str, mark: Mark) -> str:
    """Return a name that people recognise and that ends with the mark."""
    readable = _UNREADABLE.sub("_", name)[:READABLE_NAME_CHARACTERS_MAX]
    return f"{readable}.{mark}" if readable else str(mark)


def size_options(requested: Mapping[str, Any]) -> list[str]:
    """Return the options for queue, cores, memory and runtime; what Slurm counts in whole units is rounded up."""
    options = []
    if requested.get("queue"):
        options.append(f"--partition={requested['queue']}")
    if requested.get("cores"):
        options.append(f"--cpus-per-task={math.ceil(requested['cores'])}")
    if requested.get("memory"):
        options.append(f"--mem={math.ceil(round(requested['memory'] * MIB_PER_GIB, 6))}M")
    if requested.get("runtime"):
        options.append(f"--time={math.ceil(requested['runtime'] / SECONDS_PER_MINUTE)}")
    return options


def kind_options(requested: Mapping[str, Any]) -> list[str]:
    """Return the options for which nodes and under whose account."""
    options = [
        f"--{option}={_listed(requested[key], ',')}"
        for key, option in OPTION_OF_KEY.items()
        if requested.get(key) is not None
    ]
    constraints = [_listed(requested[key], "&") for key in ("constraint", "constraints") if requested.get(key)]
    if constraints:
        options.append(f"--constraint={'&'.join(constraints)}")
    exclusive = requested.get("exclusive")
    if exclusive:
        options.append("--exclusive" if exclusive is True else f"--exclusive={exclusive}")
    if requested.get("excluded_hosts"):
        options.append(f"--exclude={_listed(requested['excluded_hosts'], ',')}")
    return options


def _listed(value: object, separator: str) -> str:
    return separator.join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else str(value)


def further_options(given: object) -> list[str]:
    """Return what a user wrote for `sbatch` itself: {"option": value}, True for one without value, or a list of words.

    None and False leave an option out; a list of values repeats it.
    """
    if isinstance(given, Mapping):
        return [word for option, value in given.items() for word in _option(str(option), value)]
    if isinstance(given, list | tuple):
        return [str(word) for word in given]
    return []


def _option(name: str, value: object) -> Iterable[str]:
    word = name if name.startswith("-") else f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
    for one in value if isinstance(value, list | tuple) else (value,):
        if one is None or one is False:
            continue
        if one is True:
            yield word
        else:
            yield f"{word}={one}" if word.startswith("--") else f"{word}{one}"


def problems_with_options(given: object) -> list[str]:
    """Say what is wrong with a user's options for `sbatch`."""
    if given is None:
        return []
    if not isinstance(given, Mapping | list | tuple):
        return [f"sbatch={given!r} must be a dict such as {{'nice': 100}} or a list such as ['--nice=100']"]
    problems = []
    for word in further_options(given):
        name = option_name(word)
        if name is None:
            problems.append(f"sbatch={given!r}: {word!r} is no option; write '--name=value'")
        elif name in RESERVED_OPTIONS:
            problems.append(f"sbatch option {name!r} cannot be given: {RESERVED_OPTIONS[name]}")
    return problems


def option_name(word: str) -> str | None:
    """Return the long name of an option, or None if this is none."""
    if not word.startswith("-") or word in ("-", "--"):
        return None
    if word.startswith("--"):
        return word[2:].partition("=")[0].strip()
    return SHORT_OPTIONS.get(word[1], word[1])


def job_script(submission: Submission) -> str:
    """Return the script that becomes the worker, which finds its id and its step in two variables."""
    if submission.is_array:
        identity = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
        step = f"$((SLURM_ARRAY_TASK_ID + {submission.mark.first}))"
    else:
        identity, step = "${SLURM_JOB_ID}", str(submission.mark.first)
    return (
        "#!/bin/sh\n"
        f"# Jobmon, {submission.mark}: what this runs is told by Jobmon's server.\n"
        f'export {DISTRIBUTOR_ID_VARIABLE}="{identity}" {STEP_VARIABLE}="{step}"\n'
        f'export {END_TIME_VARIABLE}="${{SLURM_JOB_END_TIME:-}}"\n'
        f"exec {submission.command}\n"
    )


def squeue_arguments(user: int) -> list[str]:
    """Return the command that shows all jobs of a user that the controller remembers; an array's rest is one row."""
    fields = ",".join(f"{field}:{SEPARATOR}" for field in QUEUE_FIELDS[:-1])
    return ["squeue", f"--user={user}", "--states=all", f"--Format={fields},{QUEUE_FIELDS[-1]}:"]


def sacct_arguments(user: int, since: float) -> list[str]:
    """Return the command that shows how the jobs of a user ended that ended since then."""
    window = [f"--user={user}", f"--starttime={_moment(since)}", "--endtime=now", f"--state={','.join(ENDED_STATES)}"]
    return [*_ACCOUNTING, *window]


def sacct_of_jobs_arguments(bases: Collection[str]) -> list[list[str]]:
    """Return the commands that show what became of these jobs, with all their array steps."""
    return [[*_ACCOUNTING, f"--jobs={','.join(chunk)}"] for chunk in _chunked(sorted(bases))]


_ACCOUNTING: Final = (
    "sacct",
    "--parsable2",
    "--noconvert",
    f"--delimiter={SEPARATOR}",
    f"--format={','.join(ACCOUNTING_FIELDS)}",
)


def _moment(seconds: float) -> str:
    """Write a time as `sacct` reads it where `tool_environment` made it read UTC."""
    return datetime.fromtimestamp(max(0.0, seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")


def scancel_arguments(distributor_ids: Iterable[str]) -> list[list[str]]:
    """Return the commands that end these jobs: steps of an array as one expression, many jobs in one command."""
    singles: list[str] = []
    steps: dict[str, list[int]] = {}
    for identity in sorted(set(distributor_ids)):
        base, _, step = identity.partition("_")
        if step.isdigit():
            steps.setdefault(base, []).append(int(step))
        else:
            singles.append(base)
    arrays = [f"{base}_[{ranges_text(found)}]" for base, found in steps.items()]
    return [["scancel", *chunk] for chunk in _chunked([*singles, *arrays])]


def ranges_text(steps: Iterable[int]) -> str:
    """Write steps as Slurm does: "0-3,7"."""
    runs: list[list[int]] = []
    for step in sorted(steps):
        if runs and step == runs[-1][1] + 1:
            runs[-1][1] = step
        else:
            runs.append([step, step])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _chunked(words: Sequence[str]) -> list[Sequence[str]]:
    return [words[start : start + IDS_PER_COMMAND_MAX] for start in range(0, len(words), IDS_PER_COMMAND_MAX)]


def worker_command(python: str, program: str) -> str:
    """Return the start of a worker's command line: the standard library only."""
    return (
        f"{shlex.quote(python)} -I -S {shlex.quote(program)} "
        f"--distributor-id-variable {DISTRIBUTOR_ID_VARIABLE} --array-step-variable {STEP_VARIABLE}"
    )


def tool_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for tools that ask: what they print can be read by a program, times as seconds or UTC."""
    return {
        **job_environment(environment),
        "SLURM_TIME_FORMAT": "%s",
        "SLURM_BITSTR_LEN": "0",
        "TZ": "UTC0",
        "LC_ALL": "C",
    }


def job_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for jobs: ours, but for what an outer job or a user's habits would tell Slurm's tools."""
    return {name: value for name, value in environment.items() if name in _KEPT or not name.startswith(_MISLEADING)}
