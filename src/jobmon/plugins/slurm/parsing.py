"""What Slurm's tools print, as values. Pure: whatever the text, the outcome is values or `ClusterUnavailable`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.exceptions import ClusterUnavailable
from jobmon.plugins.slurm.commands import ACCOUNTING_FIELDS, QUEUE_FIELDS, SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Steps that one array expression may name; Slurm's own largest array has 4,000,001.
STEPS_MAX: Final = 4_000_001
KIB: Final = 1024
MIB: Final = KIB**2
GARBAGE_SHOWN_CHARACTERS_MAX: Final = 120
_IDENTITY = re.compile(r"^(\d{1,18})(?:_(?:(\d{1,9})|\[([0-9,:-]+)(?:%\d+)?\]))?(?:\.(\w+))?$", re.ASCII)
_RANGE = re.compile(r"^(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?$", re.ASCII)
_SIZE = re.compile(r"^(\d{1,18}(?:\.\d{1,6})?)([KMGTPE]?)[cn]?$", re.ASCII)
_CLOCK = re.compile(r"^(?:(\d{1,9})-)?(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9}(?:\.\d{1,9})?)$", re.ASCII)
_STATUS = re.compile(r"^\d{1,9}$", re.ASCII)
_NUMBER = re.compile(r"^\d{1,18}\+?$", re.ASCII)
_EXIT = re.compile(r"^(\d{1,6}):(\d{1,6})$", re.ASCII)
_SUBMITTED = re.compile(r"^(\d{1,18})(?:;\S+)?$", re.ASCII)
_PAIR = re.compile(r"([A-Za-z_][\w/:\[\]]*)=(.*?)(?= [A-Za-z_][\w/:\[\]]*=|$)", re.ASCII)
_SIZE_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_SIGNAL_BITS: Final = 0x7F
_NODES_UNKNOWN: Final = ("", "None assigned", "(null)", "n/a")


@dataclass(frozen=True, slots=True)
class JobIds:
    """Which jobs a row is about: a single one (`steps` is None), or steps of an array. `part`: a step of a job."""

    base: str
    steps: tuple[range, ...] | None = None
    part: str = ""

    def __iter__(self) -> Iterator[str]:
        if self.steps is None:
            yield self.base
        for steps in self.steps or ():
            for step in steps:
                yield f"{self.base}_{step}"

    def __contains__(self, step: object) -> bool:
        return any(step in steps for steps in self.steps or ())


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A row of `squeue`: the controller's word on a job or on the pending rest of an array."""

    ids: JobIds
    text: str  # the ids as Slurm wrote them
    state: str
    exit_status: int | None  # as wait(2) has it
    reason: str
    starts_at: float | None  # of a pending job: as Slurm estimates
    ended_at: float | None
    restarts: int
    host: str | None
    name: str


@dataclass(frozen=True, slots=True)
class AccountingRow:
    """A row of `sacct`: a job, or with `ids.part` one of its steps, where memory is measured."""

    ids: JobIds
    text: str
    state: str
    ended_by: str | None  # whose scancel, as a user id
    exit_code: int | None
    signal: int | None
    started_at: float | None
    ended_at: float | None
    elapsed_seconds: float | None
    cpu_seconds: float | None
    max_rss_bytes: int | None
    requested_bytes: int | None
    host: str | None
    name: str


def job_ids(text: str) -> JobIds | None:
    """Read "12", "12_3", "12_[0-3,7%2]", "12_[0-8:2]" or one of these with a step such as ".batch"."""
    found = _IDENTITY.match(text)
    if found is None:
        return None
    base, step, expression, part = found.groups()
    if step is not None:
        return JobIds(base, (range(int(step), int(step) + 1),), part or "")
    if expression is None:
        return JobIds(base, None, part or "")
    steps = _steps(expression)
    return None if steps is None else JobIds(base, steps, part or "")


def _steps(expression: str) -> tuple[range, ...] | None:
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


def submitted_id(output: str) -> str:
    """Read what `sbatch --parsable` printed: the job's id is its last line.

    Raises:
        ClusterUnavailable: it is something else.
    """
    lines = output.split()
    found = _SUBMITTED.match(lines[-1]) if lines else None
    if found is None:
        raise _garbage("sbatch", output)
    return found[1]


def queue_rows(output: str) -> list[QueueRow]:
    """Read the answer of `squeue`.

    Raises:
        ClusterUnavailable: it cannot be understood.
    """
    return [_queue_row(line, fields) for line, fields in _lines("squeue", output, QUEUE_FIELDS, "JOBID")]


def _queue_row(line: str, fields: Sequence[str]) -> QueueRow:
    identity, state, exit_status, reason, start, end, restarts, host, name = fields
    ids = job_ids(identity)
    if ids is None or not _is_state(state) or not _STATUS.match(restarts):
        raise _garbage("squeue", line)
    return QueueRow(
        ids=ids,
        text=identity,
        state=state.split()[0],
        exit_status=int(exit_status) if _STATUS.match(exit_status) else None,
        reason=reason,
        starts_at=_seconds(start),
        ended_at=_seconds(end),
        restarts=int(restarts),
        host=_host(host),
        name=name,
    )


def accounting_rows(output: str) -> list[AccountingRow]:
    """Read the answer of `sacct`.

    Raises:
        ClusterUnavailable: it cannot be understood.
    """
    return [_accounting_row(line, fields) for line, fields in _lines("sacct", output, ACCOUNTING_FIELDS, "JobID")]


def _accounting_row(line: str, fields: Sequence[str]) -> AccountingRow:
    identity, state, ending, start, end, elapsed, cpu, memory, requested, host, name = fields
    ids = job_ids(identity)
    exit_words = _EXIT.match(ending)
    if ids is None or not _is_state(state) or (exit_words is None and ending):
        raise _garbage("sacct", line)
    word, _, by = state.partition(" by ")
    return AccountingRow(
        ids=ids,
        text=identity,
        state=word.split()[0],
        ended_by=by.strip() or None,
        exit_code=int(exit_words[1]) if exit_words else None,
        signal=int(exit_words[2]) if exit_words else None,
        started_at=_seconds(start),
        ended_at=_seconds(end),
        elapsed_seconds=float(elapsed) if _STATUS.match(elapsed) else None,
        cpu_seconds=duration_seconds(cpu),
        max_rss_bytes=size_bytes(memory),
        requested_bytes=size_bytes(requested, MIB),
        host=_host(host),
        name=name,
    )


def _lines(tool: str, output: str, fields: Sequence[str], first: str) -> Iterator[tuple[str, list[str]]]:
    """Give rows with as many fields as were asked for; the header shows that this is an answer at all.

    A line with fewer fields is the rest of a name with a line break: not one of ours.
    """
    lines = output.split("\n")
    header = lines[0].split(SEPARATOR)
    if len(header) != len(fields) or header[0] != first:
        raise _garbage(tool, output)
    for line in lines[1:]:
        found = line.split(SEPARATOR, len(fields) - 1)
        if len(found) == len(fields):
            yield line, found


def _is_state(text: str) -> bool:
    words = text.split()
    return bool(words) and words[0].replace("_", "").isalpha() and words[0].isupper()


def _host(text: str) -> str | None:
    return None if text in _NODES_UNKNOWN else text


def _seconds(text: str) -> float | None:
    """Read a time or a number of seconds; "Unknown", "None", "N/A" and the like are None, and so is the epoch."""
    return float(text) or None if text.isascii() and text.isdecimal() and len(text) <= len("9999999999") else None


def duration_seconds(text: str) -> float | None:
    """Read "01:02:03", "1-02:03:04" or "02:03.456"."""
    found = _CLOCK.match(text)
    if found is None:
        return None
    days, hours, minutes, seconds = found.groups()
    return int(days or 0) * 86_400.0 + int(hours or 0) * 3_600 + int(minutes) * 60 + float(seconds)


def limit_seconds(text: str) -> float | None:
    """Read a time limit of a partition, also in minutes only; None: there is none."""
    return int(text) * 60.0 if text.isascii() and text.isdecimal() and len(text) < 9 else duration_seconds(text)


def size_bytes(text: str, unit: int = 1) -> int | None:
    """Read "3289088", "1155K", "50M" or, as older versions add, "100Mc"; without a letter it counts in `unit`."""
    found = _SIZE.match(text)
    if found is None:
        return None
    return int(float(found[1]) * (KIB ** _SIZE_POWERS[found[2]] if found[2] else unit))


def wait_status(status: int) -> tuple[int | None, int | None]:
    """Return exit code and signal of what wait(2) says; one of them is None."""
    signal = status & _SIGNAL_BITS
    return (None, signal) if signal else (status >> 8, None)


def pairs(line: str) -> dict[str, str]:
    """Read one line of `scontrol --oneliner`: Key=value Key=value."""
    return {key: value.strip() for key, value in _PAIR.findall(line.strip())}


def partitions(output: str) -> list[dict[str, str]]:
    """Read `scontrol --oneliner show partition`.

    Raises:
        ClusterUnavailable: it cannot be understood.
    """
    found = [pairs(line) for line in output.splitlines() if line.strip()]
    if not found or not all(partition.get("PartitionName") for partition in found):
        raise _garbage("scontrol show partition", output)
    return found


def configuration(output: str) -> dict[str, str]:
    """Read `scontrol show config`.

    Raises:
        ClusterUnavailable: it cannot be understood.
    """
    lines = (line.partition("=") for line in output.splitlines() if "=" in line)
    found = {key.strip(): value.strip() for key, _, value in lines}
    if "SLURM_VERSION" not in found:
        raise _garbage("scontrol show config", output)
    return found


@dataclass(frozen=True, slots=True)
class NodeKind:
    """Nodes of a partition that are alike."""

    partition: str
    cores: int
    memory_mib: int
    count: int
    gres: str
    features: str


def node_kinds(output: str) -> list[NodeKind]:
    """Read `sinfo` with the fields of `discovery.SINFO_FIELDS`; lines that are none are left out.

    Raises:
        ClusterUnavailable: it cannot be understood.
    """
    found = []
    for line in output.splitlines():
        words = line.split(SEPARATOR)
        if len(words) != 6:
            raise _garbage("sinfo", output)
        name, cores, memory, count, gres, features = words
        if not all(_NUMBER.match(word) for word in (cores, memory, count)):
            raise _garbage("sinfo", output)
        sizes = [int(word.rstrip("+")) for word in (cores, memory, count)]
        found.append(NodeKind(name, sizes[0], sizes[1], sizes[2], _known(gres), _known(features)))
    return found


def _known(text: str) -> str:
    return "" if text in _NODES_UNKNOWN else text


def _garbage(tool: str, output: str) -> ClusterUnavailable:
    shown = output.strip()[:GARBAGE_SHOWN_CHARACTERS_MAX]
    return ClusterUnavailable(f"{tool} answered what cannot be understood: {shown!r}")
