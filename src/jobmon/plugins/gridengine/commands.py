"""Command lines for Grid Engine: argv from values. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jobmon.plugins.batch.ids import IdFormat, by_job, ranges_text
from jobmon.plugins.batch.submission import JobVariables, job_name

if TYPE_CHECKING:
    from jobmon.plugins.batch.submission import Submission

#: Tasks of an array count from 1.
FORM: Final = IdFormat(before=".", first=1)
VARIABLES: Final = JobVariables(job="${JOB_ID}", array="${JOB_ID}", step="SGE_TASK_ID", must_guard=True)
IDS_PER_COMMAND_MAX: Final = 500
#: Maximum number of jobs queried individually at a time; the others are queried next time.
ACCOUNT_CALLS_MAX: Final = 5
MIB_PER_GIB: Final = 1024
#: Names of the resources on a cluster that configures no others.
MEMORY_RESOURCE: Final = "h_vmem"
RUNTIME_RESOURCE: Final = "h_rt"
PARALLEL_ENVIRONMENT: Final = "smp"
#: Variables that Grid Engine's own tools would read instead of the given options.
_MISLEADING: Final = (
    "SGE_TASK_",
    "JOB_ID",
    "JOB_NAME",
    "QUEUE",
    "PE_HOSTFILE",
    "NSLOTS",
    "NHOSTS",
    "NQUEUES",
    "REQUEST",
)
#: Options that Jobmon sets itself or that would break it -> what to do instead.
RESERVED_OPTIONS: Final[Mapping[str, str]] = {
    "N": "it carries the launch token",
    "P": "use 'project'",
    "S": "use 'shell'",
    "b": "the command is that of the task",
    "cwd": "the working folder is that of the script",
    "e": "use 'stderr'",
    "i": "commands have no standard input",
    "j": "use 'stdout' and 'stderr'",
    "notify": "it is always set",
    "o": "use 'stdout'",
    "pe": "use 'cores' and 'parallel_environment'",
    "q": "use 'queue'",
    "r": "Jobmon itself retries",
    "sync": "Jobmon waits",
    "t": "tasks of a template are submitted as arrays automatically",
    "tc": "use 'array_limit'",
    "terse": "it is always set",
    "wd": "the working folder is that of the script",
}


def qsub_arguments(submission: Submission, settings: Mapping[str, Any]) -> list[str]:
    """Return the command that reads the job script from its standard input and prints the job's number.

    Args:
        submission: the submission.
        settings: settings of the cluster: `memory_resource`, `runtime_resource`, `parallel_environment`.
    """
    requested = submission.requested
    arguments = ["qsub", "-terse", "-V", "-r", "n", "-notify", "-S", "/bin/sh", "-j", "y", "-o", submission.output]
    arguments += ["-N", name_of(submission)]
    if submission.is_array:
        arguments += ["-t", f"{FORM.first}-{submission.mark.length}"]
        if requested.get("array_limit"):
            arguments += ["-tc", str(int(requested["array_limit"]))]
    return [*arguments, *size_options(requested, settings), *further_options(requested.get("qsub"))]


def name_of(submission: Submission) -> str:
    """Return the job's name, which must not begin with a digit."""
    name = job_name(submission.name, submission.mark)
    return f"_{name}" if name[0].isdigit() else name


def size_options(requested: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Return the options for queue, project, cores, and resources. Memory is per slot: each one gets its share."""
    options = ["-q", str(requested["queue"])] if requested.get("queue") else []
    options += ["-P", str(requested["project"])] if requested.get("project") else []
    cores = math.ceil(requested.get("cores") or 1)
    if cores > 1:
        environment = requested.get("parallel_environment") or settings.get("parallel_environment")
        options += ["-pe", str(environment or PARALLEL_ENVIRONMENT), str(cores)]
    sizes = []
    if requested.get("memory"):
        mib = math.ceil(round(requested["memory"] * MIB_PER_GIB / cores, 6))
        sizes.append(f"{settings.get('memory_resource') or MEMORY_RESOURCE}={mib}M")
    if requested.get("runtime"):
        sizes.append(f"{settings.get('runtime_resource') or RUNTIME_RESOURCE}={math.ceil(requested['runtime'])}")
    if requested.get("excluded_hosts"):
        sizes.append(f"hostname={'&'.join(f'!{host}' for host in requested['excluded_hosts'])}")
    sizes += [f"{name}={value}" for name, value in (requested.get("resources") or {}).items()]
    return [*options, "-l", ",".join(sizes)] if sizes else options


def further_options(given: object) -> list[str]:
    """Return the user's own `qsub` options: {"p": -10}, True for an option without value, or a list of words."""
    if isinstance(given, Mapping):
        return [word for option, value in given.items() for word in _option(str(option), value)]
    return [str(word) for word in given] if isinstance(given, list | tuple) else []


def _option(name: str, value: object) -> Iterable[str]:
    if value is None or value is False:
        return
    yield name if name.startswith("-") else f"-{name}"
    if value is not True:
        yield str(value)


def problems_with_options(given: object) -> list[str]:
    """Return the problems with a user's options for `qsub`."""
    if given is None:
        return []
    if not isinstance(given, Mapping | list | tuple):
        return [f"qsub={given!r} must be a dict such as {{'p': -10}} or a list such as ['-p', '-10']"]
    names = [str(word).lstrip("-") for word in given]
    return [
        f"qsub option {name!r} cannot be given: {RESERVED_OPTIONS[name]}" for name in names if name in RESERVED_OPTIONS
    ]


def qstat_arguments(user: str) -> list[str]:
    """Return the command that lists all jobs of a user; the pending rest of an array is one row."""
    return ["qstat", "-xml", "-u", user]


def reasons_arguments(bases: Sequence[str]) -> list[str]:
    """Return the command that prints why jobs are in error state."""
    return ["qstat", "-j", ",".join(bases)]


def qdel_arguments(distributor_ids: Iterable[str]) -> list[list[str]]:
    """Return the commands that delete these jobs: consecutive tasks as a range."""
    words = []
    for base, steps in by_job(FORM, distributor_ids).items():
        words += [FORM.join(base, run) for run in ranges_text(steps).split(",")] if steps else [base]
    return [
        ["qdel", *words[start : start + IDS_PER_COMMAND_MAX]] for start in range(0, len(words), IDS_PER_COMMAND_MAX)
    ]


def qacct_arguments(user: str, since: float) -> list[str]:
    """Return the command that prints the outcome of a user's jobs that ended since then."""
    moment = datetime.fromtimestamp(max(0.0, since), UTC).strftime("%Y%m%d%H%M.%S")
    return ["qacct", "-o", user, "-E", "-b", moment, "-j"]


def qacct_of_jobs_arguments(bases: Collection[str]) -> list[list[str]]:
    """Return the commands that print the outcome of some of these jobs, with all tasks of arrays."""
    return [["qacct", "-j", base] for base in sorted(bases)[:ACCOUNT_CALLS_MAX]]


def tool_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for queries: times are UTC, texts are English."""
    return {**job_environment(environment), "TZ": "UTC0", "LC_ALL": "C"}


def job_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for jobs: ours, without variables by which an outer job would affect the tools."""
    return {name: value for name, value in environment.items() if not name.startswith(_MISLEADING)}
