"""What a direct cluster reports of a command becomes the report of an attempt."""

import pytest

from jobmon.agent import reports
from jobmon.agent.starting import Launch
from jobmon.core.cluster_protocol import Exit
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.distributor.direct import DirectAttempt

GIB = 1024**3
TI = TaskInstanceStatus


def report_of(is_killed=False, **how):
    attempt = DirectAttempt(Launch(1, [], {}, "/", 0o022, "/logs/a"))
    attempt.start(0, 0.0, 10.0, 0.0)
    attempt.end(Exit(task_instance_id=1, distributor_id="1", started_at=10.0, ended_at=13.0, **how))
    attempt.validate()
    return reports.of_end(attempt, b"first words\nlast words\n", "here", is_killed=is_killed)


@pytest.mark.parametrize(
    ("how", "status", "cause", "error"),
    [
        ({"exit_code": 0}, TI.DONE, None, None),
        ({"exit_code": 3}, TI.ERROR, Cause.EXIT_CODE, "exit code 3: last words"),
        (
            {"signal": 9, "memory_limit_bytes": GIB, "max_rss_bytes": GIB * 5 // 4},
            TI.RESOURCE_ERROR,
            Cause.OUT_OF_MEMORY,
            "out of memory: it used 1.250 GiB, but requested 1.000 GiB: last words",
        ),
        (
            {"exit_code": 0, "memory_limit_bytes": GIB, "max_rss_bytes": GIB},
            TI.RESOURCE_ERROR,
            Cause.OUT_OF_MEMORY,
            "out of memory: it needed more than the 1.000 GiB that it requested: last words",
        ),
        (
            {"signal": 2, "timed_out": True, "killed": True},
            TI.RESOURCE_ERROR,
            Cause.OUT_OF_TIME,
            "out of time after 3.0 s: last words",
        ),
        ({"lost": "its host is gone"}, TI.UNKNOWN_ERROR, Cause.SUPERVISOR_LOST, "its host is gone"),
        ({"not_started": "no shell"}, TI.ERROR, Cause.COMMAND_NOT_STARTED, "not started: no shell"),
    ],
)
def test_an_exit_has_its_status_cause_and_figures(how, status, cause, error):
    report = report_of(**how)
    assert (report["status"], report["cause"], report["error"]) == (status, cause, error)
    assert report["max_rss_bytes"] == how.get("max_rss_bytes")


def test_what_was_to_be_killed_was_killed_for_that():
    report = report_of(is_killed=True, signal=9, killed=True)
    assert (report["status"], report["cause"]) == (TI.ERROR, Cause.KILLED)
