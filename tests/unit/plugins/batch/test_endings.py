"""Find the lines of output that belong to a job."""

import pytest

from jobmon.plugins.batch.endings import last_words

WRITTEN = [
    "/spool/n1/job00009/slurm_script: 6: exec: /nowhere/python: not found",
    "jobmon worker 12_3: cannot reach 10.0.0.9:99",
    "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-21T14:46:59 ***",
    "/spool/n1/job00077/slurm_script: 6: exec: /gone/python: not found",
]


@pytest.mark.parametrize(
    ("identity", "line"),
    [
        ("9", 0),
        ("12_3", 1),
        ("7", 2),
        ("59", 3),  # only in a time
        ("12", 3),  # another step's, nor a part of it
        ("99", 3),  # only in an address
        ("4_11", 3),  # a step's script lies under an id that the step does not tell
    ],
)
def test_a_line_belongs_to_the_job_that_it_names_else_the_last_that_names_none_may(identity, line):
    assert last_words(WRITTEN, identity) == WRITTEN[line]


def test_nothing_written_is_no_words():
    assert last_words([], "9") == ""
