"""Reports of exits."""

import pytest

from jobmon.core.cluster_protocol import Exit
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.distributor.batch import report_of

GIB = 1024**3


def _ending(**how):
    return Exit(task_instance_id=1, distributor_id="1", started_at=10.0, ended_at=13.0, **how)


@pytest.mark.parametrize(
    ("how", "cause", "error"),
    [
        (
            {"signal": 9, "memory_limit_bytes": GIB, "max_rss_bytes": GIB * 5 // 4},
            Cause.OUT_OF_MEMORY,
            "out of memory: it used 1.250 GiB, but requested 1.000 GiB: last words",
        ),
        ({"signal": 2, "timed_out": True, "killed": True}, Cause.OUT_OF_TIME, "out of time after 3.0 s: last words"),
    ],
)
def test_a_resource_error_has_its_cause_and_figures(how, cause, error):
    report = report_of(_ending(**how), host="here", tail="first words\nlast words\n")
    assert (report.status, report.cause, report.error) == (TaskInstanceStatus.RESOURCE_ERROR, cause, error)
    assert (report.max_rss_bytes, report.wallclock_seconds) == (how.get("max_rss_bytes"), 3.0)


def test_who_was_to_be_killed_was_killed_for_that():
    ending = _ending(signal=9, memory_limit_bytes=GIB)
    report = report_of(ending, host="here", kill_cause=Cause.KILLED_FOR_RESUME)
    assert (report.status, report.cause) == (TaskInstanceStatus.ERROR, Cause.KILLED_FOR_RESUME)


def test_a_command_that_ended_well_although_a_part_of_it_was_killed_for_memory_is_not_done():
    report = report_of(_ending(exit_code=0, memory_limit_bytes=GIB, max_rss_bytes=GIB), host="here")
    assert (report.status, report.cause) == (TaskInstanceStatus.RESOURCE_ERROR, Cause.OUT_OF_MEMORY)
    assert report.error == "out of memory: it needed more than the 1.000 GiB that it requested"
