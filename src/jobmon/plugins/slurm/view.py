"""Convert Slurm's rows to the terms of all schedulers, and explain why jobs wait. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.plugins.batch.endings import Ending
from jobmon.plugins.batch.view import ListedJob
from jobmon.plugins.slurm.commands import ENDED_STATES
from jobmon.plugins.slurm.endings import ending_of_queue, endings_of_accounting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobmon.plugins.slurm.parsing import AccountingRow, QueueRow

PENDING: Final = "PENDING"
RUNNING: Final = "RUNNING"
ENDED: Final = frozenset(ENDED_STATES)
#: Reasons for which a job never starts -> what to do.
NEVER: Final[Mapping[str, str]] = {
    "AccountNotAllowed": "its account may not use this partition; set 'project' or another 'queue'",
    "AssocMaxWallDurationPerJobLimit": "its account allows less 'runtime'",
    "BadConstraints": "no node has these constraints; change 'constraints'",
    "DependencyNeverSatisfied": "its dependency failed",
    "InvalidAccount": "its account is not valid; set 'project'",
    "InvalidQOS": "its QOS is not valid; set 'qos'",
    "JobHoldMaxRequeue": "it was requeued too often",
    "PartitionNodeLimit": "the partition allows fewer 'nodes'",
    "PartitionTimeLimit": "the partition allows less 'runtime'",
    "QOSMaxWallDurationPerJobLimit": "its QOS allows less 'runtime'",
    "QOSNotAllowed": "its QOS is not allowed here; set 'qos' or another 'queue'",
    "launch failed requeued held": "it could not be started and was held",
}
#: Parts of reasons for which a job never starts: limits per job that waiting does not resolve.
_NEVER_PARTS: Final = ("PerJobLimit", "PerJob", "MaxCpuPerJob", "MaxNodePerJob")
#: Reasons that persist unless the partition is changed -> what to do.
LASTING: Final[Mapping[str, str]] = {
    "PartitionConfig": "no node of the partition satisfies its request; request less, or set another 'queue'",
}
#: Other reasons -> what they mean.
MEANINGS: Final[Mapping[str, str]] = {
    "AssocGrpCpuLimit": "your account is using all the cores that it may use",
    "BeginTime": "its begin time has not come yet",
    "JobArrayTaskLimit": "its array has reached 'array_limit' running jobs",
    "JobHeldAdmin": "held by an administrator",
    "JobHeldUser": "held; 'scontrol release' releases it",
    "None": "the scheduler has not considered it yet",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is not active",
    "Priority": "other jobs have a higher priority",
    "QOSMaxJobsPerUserLimit": "you are running as many jobs as the QOS allows",
    "ReqNodeNotAvail": "nodes that it needs are not available",
    "Reservation": "it is waiting for its reservation",
    "Resources": "it is waiting for free nodes",
}


def listed(rows: Iterable[QueueRow]) -> list[ListedJob]:
    """Return the controller's rows in the terms of all schedulers.

    A requeued job counts as ended: whatever it does now, it is no longer the same attempt.
    """
    return [_listed(row) for row in rows]


def _listed(row: QueueRow) -> ListedJob:
    ending = None
    if row.state in ENDED:
        ending = ending_of_queue(row)
    elif row.restarts:
        ending = Ending(state="REQUEUED")
    return ListedJob(
        ids=row.ids,
        name=row.name,
        state=row.state,
        is_pending=row.state == PENDING,
        reason=row.reason,
        starts_at=row.starts_at,
        ending=ending,
        host=row.host if row.state == RUNNING else None,
    )


def accounted(rows: Iterable[AccountingRow]) -> list[ListedJob]:
    """Return the rows of accounting in the terms of all schedulers; the steps of a job follow its row."""
    found = list(rows)
    ended = endings_of_accounting(found)
    return [
        ListedJob(ids=row.ids, name=row.name, state=row.state, ending=ended.get(row.text))
        for row in found
        if not row.part
    ]


def never_starts(held: ListedJob) -> str | None:
    """Return why a pending job will never start, and what to do; None if it may start."""
    if not held.is_pending:
        return None
    reason = held.reason.partition(",")[0].strip("()")
    meaning = NEVER.get(reason) or LASTING.get(reason)
    if meaning is None and not any(part in reason for part in _NEVER_PARTS):
        return None
    return f"Slurm will never start this job ({reason}): {meaning or 'it requests more than one job may have'}."


def may_pass(held: ListedJob) -> bool:
    """Return whether the job may start after all."""
    return held.reason in LASTING


def pending_reason(held: ListedJob, moment: str) -> str:
    """Return why a job waits, in Slurm's words and in plain words.

    Args:
        held: its row in the list.
        moment: the estimated start as text; "" if Slurm has no estimate.
    """
    word = held.reason.partition(",")[0].strip("()")
    meaning = NEVER.get(word) or LASTING.get(word) or MEANINGS.get(word)
    start = f"; estimated start {moment}" if moment else ""
    return f"{held.reason}{f': {meaning}' if meaning else ''}{start}"
