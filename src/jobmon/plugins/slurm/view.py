"""One look at all jobs of a user on a cluster, and the answers it holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import ClusterUnavailable
from jobmon.plugins.slurm.commands import ENDED_STATES, Mark, mark_of
from jobmon.plugins.slurm.endings import Ending, ending_of_queue, endings_of_accounting
from jobmon.plugins.slurm.parsing import AccountingRow, JobIds, QueueRow, job_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION: Final = 1
PENDING: Final = "PENDING"
ENDED: Final = frozenset(ENDED_STATES)
#: Reasons for which a job never starts -> what to do.
NEVER: Final[Mapping[str, str]] = {
    "AccountNotAllowed": "its account may not use this partition; set 'project' or another 'queue'",
    "AssocMaxWallDurationPerJobLimit": "its account allows less 'runtime'",
    "BadConstraints": "no node has these constraints; change 'constraints'",
    "DependencyNeverSatisfied": "what it was told to wait for has failed",
    "InvalidAccount": "its account is not valid; set 'project'",
    "InvalidQOS": "its QOS is not valid; set 'qos'",
    "JobHoldMaxRequeue": "it was put back into the queue too often",
    "PartitionNodeLimit": "the partition allows fewer 'nodes'",
    "PartitionTimeLimit": "the partition allows less 'runtime'",
    "QOSMaxWallDurationPerJobLimit": "its QOS allows less 'runtime'",
    "QOSNotAllowed": "its QOS may not be used here; set 'qos' or another 'queue'",
    "launch failed requeued held": "it could not be started and was held",
}
#: Part of a reason -> never: limits of one job that no waiting lifts.
_NEVER_PARTS: Final = ("PerJobLimit", "PerJob", "MaxCpuPerJob", "MaxNodePerJob")
#: Reasons that last unless somebody changes the partition -> what to do.
LASTING: Final[Mapping[str, str]] = {
    "PartitionConfig": "no node of the partition can hold what it asks for; ask for less, or set another 'queue'",
}
#: Other reasons, in words.
MEANINGS: Final[Mapping[str, str]] = {
    "AssocGrpCpuLimit": "your account uses all cores it may",
    "BeginTime": "it was told to begin later",
    "JobArrayTaskLimit": "as many of its array run as 'array_limit' allows",
    "JobHeldAdmin": "held by an administrator",
    "JobHeldUser": "held; 'scontrol release' lets it go",
    "None": "the scheduler has not looked at it yet",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is not active",
    "Priority": "others come first",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as the QOS allows",
    "ReqNodeNotAvail": "nodes that it needs are not available",
    "Reservation": "it waits for its reservation",
    "Resources": "it waits for free nodes",
}


@dataclass(frozen=True, slots=True)
class Held:
    """A job or the pending rest of an array that Slurm still has."""

    ids: JobIds
    text: str
    state: str
    reason: str
    starts_at: float | None
    name: str

    @property
    def is_pending(self) -> bool:
        """It waits in Slurm's queue."""
        return self.state == PENDING


def view_of(at: float, queue: Iterable[QueueRow], accounting: Iterable[AccountingRow]) -> dict[str, Any]:
    """Return what both answers say of Jobmon's jobs, as JSON values; the rest of the user's jobs is left out.

    What has been put back into the queue counts as ended: whatever it does now, it is not the attempt it was.
    """
    ours = [row for row in queue if mark_of(row.name) is not None]
    held = [row for row in ours if row.state not in ENDED and not row.restarts]
    ended = {row.text: ending_of_queue(row) for row in ours if row.state in ENDED}
    ended |= {row.text: Ending(state="REQUEUED") for row in ours if row.restarts and row.state not in ENDED}
    mine = _ours(accounting)
    ended |= endings_of_accounting(mine)
    return {
        "version": VERSION,
        "at": at,
        "held": [[row.text, row.state, row.reason, row.starts_at, row.name] for row in held],
        "ended": [[text, *ending.values()] for text, ending in ended.items()],
    }


def _ours(rows: Iterable[AccountingRow]) -> list[AccountingRow]:
    """Leave out jobs that are not of Jobmon; the steps of a job stand under a name of their own after it."""
    found: list[AccountingRow] = []
    is_ours = False
    for row in rows:
        if not row.ids.part:
            is_ours = mark_of(row.name) is not None
        if is_ours:
            found.append(row)
    return found


class View:
    """Answers from one look.

    Args:
        content: what `view_of` made; perhaps by another version of Jobmon.

    Raises:
        ClusterUnavailable: it cannot be understood.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        try:
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']!r}")
            self.at = float(content["at"])
            self.held = [_held(one) for one in content["held"]]
            self.ended = {str(text): Ending.of_values(values) for text, *values in content["ended"]}
        except (KeyError, TypeError, ValueError) as error:
            raise ClusterUnavailable(f"A view of the cluster cannot be understood: {error!r}") from error
        self._by_id: dict[str, Held] = {}
        self._pending: dict[str, list[Held]] = {}  # by base: the rest of an array stays one row
        self._bases: set[str] = set()
        for one in self.held:
            self._bases.add(one.ids.base)
            if one.ids.steps is not None and one.is_pending:
                self._pending.setdefault(one.ids.base, []).append(one)
            else:
                self._by_id.update(dict.fromkeys(one.ids, one))

    def find(self, distributor_id: str) -> Held | None:
        """Return the row that holds this job; the id of an array as a whole has none."""
        if (found := self._by_id.get(distributor_id)) is not None:
            return found
        base, _, step = distributor_id.partition("_")
        if not step.isdecimal():
            return None
        return next((one for one in self._pending.get(base, ()) if int(step) in one.ids), None)

    def holds(self, distributor_id: str) -> bool:
        """Whether Slurm still has this job, or any step of this array."""
        return self.find(distributor_id) is not None or distributor_id in self._bases


def _held(values: Iterable[Any]) -> Held:
    text, state, reason, starts_at, name = values
    ids = job_ids(text)
    if ids is None:
        raise ValueError(text)
    return Held(ids, text, state, reason, starts_at, name)


class Endings:
    """All endings seen, by the ids of single jobs; the oldest are forgotten.

    Args:
        kept_max: how many are kept.
    """

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._found: dict[str, Ending] = {}
        self._rests: dict[str, list[tuple[JobIds, Ending]]] = {}  # by base: steps that ended before they began
        self._rest_texts: set[str] = set()

    def add(self, ended: Mapping[str, Ending]) -> None:
        """Note these; what accounting says is never replaced by the controller's poorer word."""
        for text, ending in ended.items():
            ids = job_ids(text)
            if ids is None:
                continue
            if ids.steps is not None and len(list(ids.steps)) == 1 and len(ids.steps[0]) == 1:
                self._note(next(iter(ids)), ending)
            elif ids.steps is None:
                self._note(ids.base, ending)
            elif text not in self._rest_texts:
                self._rest_texts.add(text)
                self._rests.setdefault(ids.base, []).append((ids, ending))
        while len(self._found) > self._kept_max:
            del self._found[next(iter(self._found))]

    def _note(self, identity: str, ending: Ending) -> None:
        known = self._found.get(identity)
        if known is None or ending.is_accounted or not known.is_accounted:
            self._found[identity] = ending

    def find(self, distributor_id: str) -> Ending | None:
        """Return how a job ended.

        A step of an array without a word of its own, while the array's pending rest was cancelled, was part of it:
        Slurm keeps no row for each of those.
        """
        if (found := self._found.get(distributor_id)) is not None:
            return found
        base, _, step = distributor_id.partition("_")
        if not step.isdecimal():
            return None
        for ids, ending in self._rests.get(base, ()):
            if int(step) in ids:
                return ending
        whole = self._found.get(base)
        return whole if whole is not None and whole.state == "CANCELLED" else None


def never_starts(held: Held) -> str | None:
    """Say why a pending job will never start, and what to do; None: it may."""
    if not held.is_pending:
        return None
    reason = held.reason.partition(",")[0].strip("()")
    meaning = NEVER.get(reason) or LASTING.get(reason)
    if meaning is None and not any(part in reason for part in _NEVER_PARTS):
        return None
    return f"Slurm will never start this job ({reason}): {meaning or 'it asks for more than one job may have'}."


def may_pass(held: Held) -> bool:
    """Whether it is not certain yet that the job will never start."""
    return held.reason in LASTING


def pending_reason(held: Held, moment: str) -> str:
    """Say why a job waits, in Slurm's word and ours.

    Args:
        held: its row.
        moment: the estimated start in words, "" if Slurm has no estimate.
    """
    word = held.reason.partition(",")[0].strip("()")
    meaning = NEVER.get(word) or LASTING.get(word) or MEANINGS.get(word)
    start = f"; estimated start {moment}" if moment else ""
    return f"{held.reason}{f': {meaning}' if meaning else ''}{start}"


def ids_of(mark: Mark, base: str) -> dict[int, str]:
    """Return step -> id of one submission."""
    if mark.length == 1:
        return {mark.first: base}
    return {mark.first + step: f"{base}_{step}" for step in range(mark.length)}


def steps_of_marks(rows: Iterable[tuple[str, JobIds]], tokens: Iterable[str]) -> dict[str, dict[int, str]]:
    """Return token -> step -> id of what was submitted under these tokens.

    Args:
        rows: names and ids of jobs. One row is enough: the mark in the name says which steps there are.
        tokens: those that are wanted.
    """
    wanted = set(tokens)
    found: dict[str, dict[int, str]] = {}
    for name, ids in rows:
        mark = mark_of(name)
        if mark is None or mark.token not in wanted:
            continue
        steps = found.setdefault(mark.token, {})
        steps.update(ids_of(mark, ids.base))
    return found
