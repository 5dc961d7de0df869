"""A plug-in for OpenPBS and PBS Professional. It has not been run on a cluster: it follows the commonly known formats.

`docs/howto/write-a-plugin.md` explains how to install and test it. Its queues are added by hand:

    jobmon cluster add pbs --plugin openpbs --queue workq
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
    garbage,
    job_name,
    mark_of,
    printed_id,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

TI = TaskInstanceStatus
#: Letters of `job_state`.
PENDING, ENDED = set("QHWTM"), set("FX")
#: An exit status of this value or above stands for a signal.
SIGNAL_BASE = 256
UNITS = {"b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40}


class PBSQueue(ClusterQueue):
    """A queue in which `select` replaces `cores` and `memory`, e.g. "1:ncpus=4:mem=8gb:ngpus=1"."""

    extra_keys = frozenset({"select"})


class PBSDistributor(BatchDistributor):
    """Submit to the PBS server of this host."""

    texts = Texts(
        system="PBS",
        full=("maximum number of jobs already in queue", "would exceed limit on"),
        rejected=("unknown queue", "illegal attribute", "unknown resource", "unauthorized request", "invalid option",
                  "access to queue is denied", "job exceeds queue", "invalid account", "usage:"),
        unreached=("cannot connect to", "connection refused", "connection timed out", "communication failure",
                   "pbs_iff"),
        over=("unknown job id", "job has finished", "request invalid for state"),
    )  # fmt: skip
    variables = JobVariables(job="${PBS_JOBID%%.*}", array="${PBS_JOBID%%\\[*}", step="PBS_ARRAY_INDEX")
    form = IdFormat(before="[", after="]")
    redirects_output = True

    def submit_arguments(self, submission: Submission) -> list[str]:
        """Return the `qsub` command, whose standard input is the script."""
        asked, mark = submission.requested, submission.mark
        words = ["qsub", "-N", job_name(submission.name, mark), "-V", "-r", "n", "-j", "oe", "-o", "/dev/null"]
        if submission.is_array:
            limit = f"%{asked['array_limit']}" if asked.get("array_limit") else ""
            words += ["-J", f"0-{mark.length - 1}{limit}"]
        for key, option in (("queue", "-q"), ("project", "-A")):
            words += [option, asked[key]] if asked.get(key) else []
        return [*words, "-l", f"select={asked.get('select') or self._chunk(asked)}", *self._walltime(asked)]

    @staticmethod
    def _chunk(asked: dict[str, Any]) -> str:
        memory = f":mem={math.ceil(asked['memory'] * 1024)}mb" if asked.get("memory") else ""
        return f"1:ncpus={math.ceil(asked.get('cores') or 1)}{memory}"

    @staticmethod
    def _walltime(asked: dict[str, Any]) -> list[str]:
        return ["-l", f"walltime={math.ceil(asked['runtime'])}"] if asked.get("runtime") else []

    def submitted_id(self, output: str) -> str:
        """Parse "1234.server" or "1234[].server"."""
        return printed_id("qsub", output, re.compile(r"^(\d+)(?:\[\])?(?:\.|$)"))

    def list_arguments(self) -> list[str]:
        """Return the `qstat` command; -x includes finished jobs, -t each step of an array."""
        return ["qstat", "-x", "-t", "-f", "-F", "json"]

    def listed(self, output: str) -> list[ListedJob]:
        """Parse the jobs that have a mark of Jobmon; the row of a whole array contains no data on its steps."""
        try:
            jobs = json.loads(output).get("Jobs", {})
            ours = {text: job for text, job in jobs.items() if mark_of(job["Job_Name"]) and "[]" not in text}
            return [self._row(text, job) for text, job in ours.items()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise garbage("qstat", f"{error!r}: {output}") from error

    def _row(self, text: str, job: dict[str, Any]) -> ListedJob:
        ids, state = self.form.parse(text.partition(".")[0]), job["job_state"]
        if ids is None:
            raise ValueError(text)
        return ListedJob(
            ids=ids,
            name=job["Job_Name"],
            state=state,
            is_pending=state in PENDING,
            reason=job.get("comment", ""),
            ending=_ending(state, job) if state in ENDED else None,
            host=job.get("exec_host", "").partition("/")[0] or None if state == "R" else None,
        )

    def kill_arguments(self, distributor_ids: Sequence[str]) -> list[list[str]]:
        """Return the `qdel` commands."""
        ids = sorted(set(distributor_ids))
        return [["qdel", *ids[start : start + 500]] for start in range(0, len(ids), 500)]

    def verdict(self, ending: Ending) -> Verdict:
        """Return the meaning of an exit status, and which limit a killed job exceeded."""
        if ending.exit_code == 0:
            return TI.DONE, None, ""
        if ending.signal and (ending.max_rss_bytes or 0) >= (ending.requested_bytes or math.inf):
            return TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, "out of memory"
        if ending.signal and (ending.elapsed_seconds or 0) >= (ending.requested_seconds or math.inf):
            return TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, "out of time"
        if ending.signal:
            return TI.ERROR, Cause.SIGNAL, f"killed by signal {ending.signal}"
        if ending.exit_code is not None and ending.exit_code > 0:
            return TI.ERROR, Cause.EXIT_CODE, f"exit code {ending.exit_code}"
        return TI.ERROR, Cause.NODE_FAILURE, f"not run, or lost with its node ({ending.detail})"


def _ending(state: str, job: dict[str, Any]) -> Ending:
    status, used, asked = job.get("Exit_status"), job.get("resources_used", {}), job.get("Resource_List", {})
    is_signal = status is not None and status >= SIGNAL_BASE
    return Ending(
        state=state,
        exit_code=None if is_signal else status,
        signal=status - SIGNAL_BASE if is_signal else None,
        host=job.get("exec_host", "").partition("/")[0] or None,
        elapsed_seconds=_seconds(used.get("walltime")),
        cpu_seconds=_seconds(used.get("cput")),
        max_rss_bytes=_bytes(used.get("mem")),
        requested_bytes=_bytes(asked.get("mem")),
        requested_seconds=_seconds(asked.get("walltime")),
        detail=job.get("comment", ""),
    )


def _seconds(text: str | None) -> float | None:
    """Parse "01:02:03"."""
    parts = (text or "").split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return None
    return int(parts[0]) * 3600.0 + int(parts[1]) * 60 + int(parts[2])


def _bytes(text: str | None) -> int | None:
    """Parse "100mb"."""
    found = re.match(r"^(\d+)([kmgt]?b)$", text or "")
    return int(found[1]) * UNITS[found[2]] if found else None


def get_cluster_queue_class() -> type[PBSQueue]:
    """Return the class of its queues."""
    return PBSQueue


def get_cluster_distributor_class() -> type[PBSDistributor]:
    """Return the class of its distributor."""
    return PBSDistributor


def get_cluster_worker_node_class() -> type[BatchWorkerNode]:
    """Return the class of its worker node."""
    return BatchWorkerNode
