"""Base for plug-ins for batch schedulers: a new plug-in consists of a few command lines and parsers.

`cluster` is used by the distributor and `runner` runs the scheduler's tools; all other modules are pure.
"""

from jobmon.plugins.batch.answers import Answer, Texts, garbage, printed_id
from jobmon.plugins.batch.cluster import BatchDistributor, user_name
from jobmon.plugins.batch.endings import Ending, Verdict, by_user
from jobmon.plugins.batch.ids import IdFormat, JobIds, by_job, ranges_text
from jobmon.plugins.batch.runner import OutcomeUnknown, Refused, ToolRunner
from jobmon.plugins.batch.submission import JobVariables, Mark, Submission, job_name, mark_of
from jobmon.plugins.batch.view import ListedJob
from jobmon.plugins.batch.worker_node import BatchWorkerNode

__all__ = [
    "Answer",
    "BatchDistributor",
    "BatchWorkerNode",
    "Ending",
    "IdFormat",
    "JobIds",
    "JobVariables",
    "ListedJob",
    "Mark",
    "OutcomeUnknown",
    "Refused",
    "Submission",
    "Texts",
    "ToolRunner",
    "Verdict",
    "by_job",
    "by_user",
    "garbage",
    "job_name",
    "mark_of",
    "printed_id",
    "ranges_text",
    "user_name",
]
