"""Parse the output of Slurm's tools. Pure: any text results in values or `ClusterUnavailable`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.plugins.batch.answers import garbage, printed_id
from jobmon.plugins.batch.ids import JobIds
from jobmon.plugins.slurm.commands import ACCOUNTING_FIELDS, FORM, QUEUE_FIELDS, SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


KIB: Final = 1024
MIB: Final = KIB**2
_PART = re.compile(r"^([^.]*)(?:\.(\w+))?$", re.ASCII)
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
class QueueRow:
    """A row of `squeue`: the controller's data on a job or on the pending rest of an array."""

    ids: JobIds
    text: str  # the ids in Slurm's format
    state: str
    exit_status: int | None  # in the format of wait(2)
    reason: str
    starts_at: float | None  # of a pending job: Slurm's estimate
    ended_at: float | None
    restarts: int
    host: str | None
    name: str


@dataclass(frozen=True, slots=True)
class AccountingRow:
    """A row of `sacct`: a job or, with `part` ("batch"), one of its steps, where memory is measured."""

    ids: JobIds
    text: str
    part: str
    state: str
    ended_by: str | None  # the user who cancelled it, as a user id
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
    """Parse "12", "12_3", "12_[0-3,7%2]", "12_[0-8:2]" or one of these with a step such as ".batch"."""
    found = _PART.match(text)
    return None if found is None else FORM.parse(found[1])


def submitted_id(output: str) -> str:
    """Parse the output of `sbatch --parsable`: the job's id is its last line.

    Raises:
        ClusterUnavailable: the output has another form.
    """
    return printed_id("sbatch", output, _SUBMITTED)


def queue_rows(output: str) -> list[QueueRow]:
    """Parse the output of `squeue`.

    Raises:
        ClusterUnavailable: the output cannot be parsed.
    """
    return [_queue_row(line, fields) for line, fields in _lines("squeue", output, QUEUE_FIELDS, "JOBID")]


def _queue_row(line: str, fields: Sequence[str]) -> QueueRow:
    identity, state, exit_status, reason, start, end, restarts, host, name = fields
    ids = job_ids(identity)
    if ids is None or not _is_state(state) or not _STATUS.match(restarts):
        raise garbage("squeue", line)
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
    """Parse the output of `sacct`.

    Raises:
        ClusterUnavailable: the output cannot be parsed.
    """
    return [_accounting_row(line, fields) for line, fields in _lines("sacct", output, ACCOUNTING_FIELDS, "JobID")]


def _accounting_row(line: str, fields: Sequence[str]) -> AccountingRow:
    identity, state, ending, start, end, elapsed, cpu, memory, requested, host, name = fields
    ids = job_ids(identity)
    exit_words = _EXIT.match(ending)
    if ids is None or not _is_state(state) or (exit_words is None and ending):
        raise garbage("sacct", line)
    word, _, by = state.partition(" by ")
    return AccountingRow(
        ids=ids,
        text=identity,
        part=identity.partition(".")[2],
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
    """Yield rows with the requested number of fields. The header verifies that the output is valid.

    A line with fewer fields is the rest of a name with a line break, which is not one of ours.
    """
    lines = output.split("\n")
    header = lines[0].split(SEPARATOR)
    if len(header) != len(fields) or header[0] != first:
        raise garbage(tool, output)
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
    """Parse a time or a number of seconds; return None for "Unknown", "None", "N/A" and the like, and for 0."""
    return float(text) or None if text.isascii() and text.isdecimal() and len(text) <= len("9999999999") else None


def duration_seconds(text: str) -> float | None:
    """Parse "01:02:03", "1-02:03:04" or "02:03.456"."""
    found = _CLOCK.match(text)
    if found is None:
        return None
    days, hours, minutes, seconds = found.groups()
    return int(days or 0) * 86_400.0 + int(hours or 0) * 3_600 + int(minutes) * 60 + float(seconds)


def limit_seconds(text: str) -> float | None:
    """Parse a time limit of a partition, also in minutes only; return None if there is none."""
    return int(text) * 60.0 if text.isascii() and text.isdecimal() and len(text) < 9 else duration_seconds(text)


def size_bytes(text: str, unit: int = 1) -> int | None:
    """Parse "3289088", "1155K", "50M" or, as older versions add, "100Mc"; without a letter it is in `unit`."""
    found = _SIZE.match(text)
    if found is None:
        return None
    return int(float(found[1]) * (KIB ** _SIZE_POWERS[found[2]] if found[2] else unit))


def wait_status(status: int) -> tuple[int | None, int | None]:
    """Return exit code and signal from a wait(2) status; one of them is None."""
    signal = status & _SIGNAL_BITS
    return (None, signal) if signal else (status >> 8, None)


def pairs(line: str) -> dict[str, str]:
    """Parse one line of `scontrol --oneliner`: Key=value Key=value."""
    return {key: value.strip() for key, value in _PAIR.findall(line.strip())}


def partitions(output: str) -> list[dict[str, str]]:
    """Parse the output of `scontrol --oneliner show partition`.

    Raises:
        ClusterUnavailable: the output cannot be parsed.
    """
    found = [pairs(line) for line in output.splitlines() if line.strip()]
    if not found or not all(partition.get("PartitionName") for partition in found):
        raise garbage("scontrol show partition", output)
    return found


def configuration(output: str) -> dict[str, str]:
    """Parse the output of `scontrol show config`.

    Raises:
        ClusterUnavailable: the output cannot be parsed.
    """
    lines = (line.partition("=") for line in output.splitlines() if "=" in line)
    found = {key.strip(): value.strip() for key, _, value in lines}
    if "SLURM_VERSION" not in found:
        raise garbage("scontrol show config", output)
    return found


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A group of identical nodes of a partition."""

    partition: str
    cores: int
    memory_mib: int
    count: int
    gres: str
    features: str


def node_kinds(output: str) -> list[NodeKind]:
    """Parse the output of `sinfo` with the fields of `discovery.SINFO_FIELDS`.

    Raises:
        ClusterUnavailable: the output cannot be parsed.
    """
    found = []
    for line in output.splitlines():
        words = line.split(SEPARATOR)
        if len(words) != 6:
            raise garbage("sinfo", output)
        name, cores, memory, count, gres, features = words
        if not all(_NUMBER.match(word) for word in (cores, memory, count)):
            raise garbage("sinfo", output)
        sizes = [int(word.rstrip("+")) for word in (cores, memory, count)]
        found.append(NodeKind(name, sizes[0], sizes[1], sizes[2], _known(gres), _known(features)))
    return found


def _known(text: str) -> str:
    return "" if text in _NODES_UNKNOWN else text
