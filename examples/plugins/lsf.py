"""A plug-in for IBM Spectrum LSF (10.1 or newer). It has not been run on a cluster: it follows the commonly
known formats.

`docs/howto/write-a-plugin.md` explains how to install and test it.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.plugins.batch import (
    BatchDistributor,
    BatchWorkerNode,
    Ending,
    IdFormat,
    JobVariables,
    ListedJob,
    Submission,
    Texts,
    Verdict,
    by_user,
    garbage,
    job_name,
    mark_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

TI = TaskInstanceStatus
FIELDS = "jobid jobindex job_name stat exit_code exit_reason first_host pend_reason run_time cpu_used max_mem user"
SIGNAL_BASE = 128
#: Values of `exit_reason` -> what they mean.
REASONS = {
    "TERM_MEMLIMIT": (TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, "out of memory"),
    "TERM_RUNLIMIT": (TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, "out of time"),
    "TERM_PREEMPT": (TI.ERROR, Cause.PREEMPTED, "preempted by another job"),
    "TERM_OWNER": (TI.ERROR, Cause.KILLED, "cancelled by its owner"),
    "TERM_ADMIN": (TI.ERROR, Cause.KILLED, "cancelled by an administrator"),
    "TERM_ZOMBIE": (TI.ERROR, Cause.NODE_FAILURE, "its host failed"),
    "TERM_REMOVE_HUNG_JOB": (TI.ERROR, Cause.NODE_FAILURE, "its host failed"),
}
UNITS = {"kbytes": 2**10, "mbytes": 2**20, "gbytes": 2**30, "tbytes": 2**40}


class LSFQueue(ClusterQueue):
    """Add `select` to the resource requirement, e.g. "type==X86_64"; `bsub` is a list of further options."""

    extra_keys = frozenset({"select", "bsub"})


class LSFDistributor(BatchDistributor):
    """Submit to the LSF cluster of this host."""

    texts = Texts(
        system="LSF",
        full=("user's job slot limit reached", "pending job threshold reached", "number of pending jobs"),
        rejected=("no such queue", "bad resource requirement", "not allowed to use", "cannot use the queue",
                  "bad argument", "unknown option", "too many processors requested", "cannot exceed queue"),
        unreached=("cannot connect to lsf", "lsf is down", "batch daemon not responding", "lim is down",
                   "failed in an lsf library call", "communication time out"),
        over=("job has already finished", "is not found", "no matching job"),
    )  # fmt: skip
    variables = JobVariables(job="${LSB_JOBID}", array="${LSB_JOBID}", step="LSB_JOBINDEX")
    form = IdFormat(before="[", after="]", first=1)
    redirects_output = True

    def submit_arguments(self, submission: Submission) -> list[str]:
        """Return the `bsub` command, whose standard input is the script."""
        asked, mark = submission.requested, submission.mark
        name = job_name(submission.name, mark)
        if submission.is_array:
            name += f"[1-{mark.length}]" + (f"%{asked['array_limit']}" if asked.get("array_limit") else "")
        words = ["bsub", "-J", name, "-rn", "-o", "/dev/null", "-n", str(math.ceil(asked.get("cores") or 1))]
        for key, option in (("queue", "-q"), ("project", "-P")):
            words += [option, asked[key]] if asked.get(key) else []
        if asked.get("memory"):
            words += ["-M", f"{math.ceil(asked['memory'] * 1024)}MB"]
        if asked.get("runtime"):
            words += ["-W", str(math.ceil(asked["runtime"] / 60))]
        select = f"select[{asked['select']}] " if asked.get("select") else ""
        return [*words, "-R", f"{select}span[hosts=1]", *(asked.get("bsub") or ())]

    def submitted_id(self, output: str) -> str:
        """Parse "Job <1234> is submitted to queue <normal>."."""
        found = re.search(r"^Job <(\d+)> is submitted", output, re.MULTILINE)
        if found is None:
            raise garbage("bsub", output)
        return found[1]

    def list_arguments(self) -> list[str]:
        """Return the `bjobs` command; -a includes recently ended jobs."""
        return ["bjobs", "-a", "-json", "-o", FIELDS]

    def listed(self, output: str) -> list[ListedJob]:
        """Parse the jobs that have a mark of Jobmon."""
        try:
            rows = json.loads(output)["RECORDS"]
            named = [(row, row["JOB_NAME"].partition("[")[0]) for row in rows]
            return [self._row(row, name) for row, name in named if mark_of(name)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise garbage("bjobs", f"{error!r}: {output}") from error

    def _row(self, row: dict[str, Any], name: str) -> ListedJob:
        step = row["JOBINDEX"]
        ids = self.form.parse(self.form.join(row["JOBID"], step) if step not in ("", "0") else row["JOBID"])
        if ids is None:
            raise ValueError(row["JOBID"])
        return ListedJob(
            ids=ids,
            name=name,
            state=row["STAT"],
            is_pending=row["STAT"] in ("PEND", "PSUSP", "WAIT"),
            reason=row["PEND_REASON"],
            ending=_ending(row) if row["STAT"] in ("DONE", "EXIT") else None,
            host=row["FIRST_HOST"] or None if row["STAT"] == "RUN" else None,
        )

    def kill_arguments(self, distributor_ids: Sequence[str]) -> list[list[str]]:
        """Return the `bkill` commands."""
        ids = sorted(set(distributor_ids))
        return [["bkill", *ids[start : start + 500]] for start in range(0, len(ids), 500)]

    def verdict(self, ending: Ending) -> Verdict:
        """Return the meaning of the exit reason or exit code."""
        if ending.state == "DONE":
            return TI.DONE, None, ""
        if ending.detail in REASONS:
            return REASONS[ending.detail]
        if ending.signal:
            return TI.ERROR, Cause.SIGNAL, f"killed by signal {ending.signal}{by_user(ending, str)}"
        return TI.ERROR, Cause.EXIT_CODE, f"exit code {ending.exit_code}"


def _ending(row: dict[str, Any]) -> Ending:
    code = int(row["EXIT_CODE"]) if row["EXIT_CODE"].isdecimal() else 0
    is_signal = code > SIGNAL_BASE
    return Ending(
        state=row["STAT"],
        exit_code=None if is_signal else code,
        signal=code - SIGNAL_BASE if is_signal else None,
        host=row["FIRST_HOST"] or None,
        elapsed_seconds=_number(row["RUN_TIME"]),
        cpu_seconds=_number(row["CPU_USED"]),
        max_rss_bytes=_bytes(row["MAX_MEM"]),
        detail=row["EXIT_REASON"].partition(":")[0],
    )


def _number(text: str) -> float | None:
    """Parse "12 second(s)"."""
    found = re.match(r"^(\d+(?:\.\d+)?) second", text)
    return float(found[1]) if found else None


def _bytes(text: str) -> int | None:
    """Parse "2.5 Mbytes"."""
    found = re.match(r"^(\d+(?:\.\d+)?) ([KMGT]bytes)$", text)
    return int(float(found[1]) * UNITS[found[2].lower()]) if found else None


def get_cluster_queue_class() -> type[LSFQueue]:
    """Return the class of its queues."""
    return LSFQueue


def get_cluster_distributor_class() -> type[LSFDistributor]:
    """Return the class of its distributor."""
    return LSFDistributor


def get_cluster_worker_node_class() -> type[BatchWorkerNode]:
    """Return the class of its worker node."""
    return BatchWorkerNode
