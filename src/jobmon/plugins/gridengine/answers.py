"""Error messages of `qsub` and the other tools of Grid Engine. Pure: a table of texts."""

from __future__ import annotations

from typing import Final

from jobmon.plugins.batch.answers import Texts

TEXTS: Final = Texts(
    system="Grid Engine",
    full=("jobs are allowed per user", "jobs are allowed per cluster"),
    rejected=(
        "unknown queue",
        "unknown resource",
        "does not exist",
        "is not a memory value",
        "is not a time value",
        "is not an integer",
        "invalid task id",
        "invalid option",
        "unknown option",
        "is not a valid object name",
        "not allowed in objectname",
        "not allowed as objectname",
        "job with more than",  # too many tasks in an array
        "no access to project",
        "access denied",
        "is no submit host",
        "no permission",
        "is not requestable",
        "no suitable queues",  # if a site or a user checks with -w e
    ),
    unreached=(
        "unable to send message to qmaster",
        "unable to contact qmaster",
        "got send error",
        "got select error",
        "got no connection",
        "commlib error",
        "connection refused",
        "connection reset",
        "timed out",
        "failed receiving gdi request",
    ),
    over=("does not exist", "is already in deletion"),
    ignored=("exiting.",),
)
#: Messages of `qacct` for jobs that have no record (yet).
NOT_ACCOUNTED: Final = ("not found", "no jobs running since startup")
