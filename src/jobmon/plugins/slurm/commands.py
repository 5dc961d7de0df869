"""Command lines for Slurm: argv from values. Pure.

Every submission has its mark in the job's name and comment.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from jobmon.core.resources import is_word
from jobmon.plugins.batch.ids import IdFormat, by_job, ranges_text
from jobmon.plugins.batch.submission import JobVariables, Submission, job_name

#: The separator of fields in Slurm's output, which no name or comment contains.
SEPARATOR: Final = "\x1f"
#: The requested fields. Text written by users comes last, so that a separator in it does no harm.
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
#: States of jobs that have ended.
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
SECONDS_PER_MINUTE: Final = 60
MIB_PER_GIB: Final = 1024
#: Slurm's id format, and the variables in the environment of a job. The end time is available from 23.02 on.
FORM: Final = IdFormat()
VARIABLES: Final = JobVariables(
    job="${SLURM_JOB_ID}",
    array="${SLURM_ARRAY_JOB_ID}",
    step="SLURM_ARRAY_TASK_ID",
    end_time="SLURM_JOB_END_TIME",
)
#: Further keys of `compute_resources` -> the corresponding option of `sbatch`.
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
    "array": "tasks of a template are submitted as arrays automatically",
    "clusters": "add a Jobmon cluster for each Slurm cluster",
    "comment": "it carries the launch token",
    "cpus-per-task": "use 'cores'",
    "error": "use 'stderr'",
    "export": "use 'env'",
    "gid": "jobs run as your user",
    "input": "commands have no standard input",
    "job-name": "it carries the launch token",
    "mem": "use 'memory'; all memory of the node is memory='node'",
    "mem-per-cpu": "use 'memory_per_cpu'",
    "mem-per-gpu": "use 'memory', for the whole job",
    "open-mode": "use 'stdout' and 'stderr'",
    "output": "use 'stdout'",
    "parsable": "it is always set",
    "partition": "use 'queue'",
    "requeue": "Jobmon itself retries",
    "test-only": "use workflow.validate()",
    "time": "use 'runtime'",
    "uid": "jobs run as your user",
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
#: Variables that Slurm's own tools would read instead of the given options.
_MISLEADING: Final = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_")
_KEPT: Final = frozenset({"SLURM_CONF", "SLURM_JWT", "SBATCH_ACCOUNT", "SBATCH_QOS", "SBATCH_RESERVATION"})


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


def size_options(requested: Mapping[str, Any]) -> list[str]:
    """Return the options for queue, cores, memory and runtime; values in whole units are rounded up."""
    options = []
    if requested.get("queue"):
        options.append(f"--partition={requested['queue']}")
    if requested.get("cores"):
        options.append(f"--cpus-per-task={math.ceil(requested['cores'])}")
    if requested.get("memory"):
        options.append(_memory_option(requested))
    if runtime := requested.get("runtime"):
        minutes = runtime if is_word("runtime", runtime) else math.ceil(runtime / SECONDS_PER_MINUTE)
        options.append(f"--time={minutes}")
    return options


def _memory_option(requested: Mapping[str, Any]) -> str:
    """Return the single memory option; these options exclude each other."""
    memory = requested["memory"]
    if is_word("memory", memory):
        return "--mem=0"
    if requested.get("memory_per_cpu"):
        memory /= math.ceil(requested.get("cores") or 1)
        return f"--mem-per-cpu={math.ceil(round(memory * MIB_PER_GIB, 6))}M"
    return f"--mem={math.ceil(round(memory * MIB_PER_GIB, 6))}M"


def kind_options(requested: Mapping[str, Any]) -> list[str]:
    """Return the options that select nodes and the account."""
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
    """Return the user's own `sbatch` options: {"option": value}, True for one without value, or a list of words.

    None and False omit an option; a list of values repeats it.
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
    """Return the problems with a user's options for `sbatch`."""
    if given is None:
        return []
    if not isinstance(given, Mapping | list | tuple):
        return [f"sbatch={given!r} must be a dict such as {{'nice': 100}} or a list such as ['--nice=100']"]
    problems = []
    for word in further_options(given):
        name = option_name(word)
        if name is None:
            problems.append(f"sbatch={given!r}: {word!r} is not an option; write '--name=value'")
        elif name in RESERVED_OPTIONS:
            problems.append(f"sbatch option {name!r} cannot be given: {RESERVED_OPTIONS[name]}")
    return problems


def option_name(word: str) -> str | None:
    """Return the long name of an option, or None if the word is not an option."""
    if not word.startswith("-") or word in ("-", "--"):
        return None
    if word.startswith("--"):
        return word[2:].partition("=")[0].strip()
    return SHORT_OPTIONS.get(word[1], word[1])


def squeue_arguments(user: int) -> list[str]:
    """Return the command that lists all jobs of a user that the controller remembers; an array's rest is one row."""
    fields = ",".join(f"{field}:{SEPARATOR}" for field in QUEUE_FIELDS[:-1])
    return ["squeue", f"--user={user}", "--states=all", f"--Format={fields},{QUEUE_FIELDS[-1]}:"]


def sacct_arguments(user: int, since: float) -> list[str]:
    """Return the command that prints the outcome of a user's jobs that ended since then."""
    window = [f"--user={user}", f"--starttime={_moment(since)}", "--endtime=now", f"--state={','.join(ENDED_STATES)}"]
    return [*_ACCOUNTING, *window]


def sacct_of_jobs_arguments(bases: Collection[str]) -> list[list[str]]:
    """Return the commands that print the outcome of these jobs, with all their array steps."""
    return [[*_ACCOUNTING, f"--jobs={','.join(chunk)}"] for chunk in _chunked(sorted(bases))]


_ACCOUNTING: Final = (
    "sacct",
    "--parsable2",
    "--noconvert",
    f"--delimiter={SEPARATOR}",
    f"--format={','.join(ACCOUNTING_FIELDS)}",
)


def _moment(seconds: float) -> str:
    """Format a time for `sacct`, which `tool_environment` makes use UTC."""
    return datetime.fromtimestamp(max(0.0, seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")


def scancel_arguments(distributor_ids: Iterable[str]) -> list[list[str]]:
    """Return the commands that cancel these jobs: steps of an array as one expression, many jobs per command."""
    words = [
        f"{base}_[{ranges_text(steps)}]" if steps else base for base, steps in by_job(FORM, distributor_ids).items()
    ]
    return [["scancel", *chunk] for chunk in _chunked(words)]


def _chunked(words: Sequence[str]) -> list[Sequence[str]]:
    return [words[start : start + IDS_PER_COMMAND_MAX] for start in range(0, len(words), IDS_PER_COMMAND_MAX)]


def tool_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for queries: the output is machine-readable, with times in seconds or UTC."""
    return {
        **job_environment(environment),
        "SLURM_TIME_FORMAT": "%s",
        "SLURM_BITSTR_LEN": "0",
        "TZ": "UTC0",
        "LC_ALL": "C",
    }


def job_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for jobs: ours, without what an outer job or user defaults would tell Slurm's tools."""
    return {name: value for name, value in environment.items() if name in _KEPT or not name.startswith(_MISLEADING)}
