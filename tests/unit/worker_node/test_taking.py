"""Packed jobs parse the server's responses and build commands from them."""

import math

import pytest

from jobmon.agent.launches import Surroundings, launches_of
from jobmon.agent.work import AHEAD_FACTOR_MAX, Work
from jobmon.worker_node.answers import columns_of, is_held_answer, is_take_answer
from jobmon.worker_node.job import SECONDS_ASSUMED

JOB = {
    "width": 2,
    "workflow_id": 3,
    "workflow_run_id": 4,
    "requested_resources": {"runtime": 5, "env": {"A": "1"}},
    "heartbeat_interval": 90.0,
    "report_by_buffer": 3.1,
    "umask": 0o22,
    "working_directory": "/here",
}


def answer(*ids, **changes):
    tasks = {
        "task_instance_ids": list(ids),
        "task_ids": [10 + one for one in ids],
        "names": ["t"] * len(ids),
        "commands": ["true"] * len(ids),
        "attempts": [1] * len(ids),
    }
    return {"job": JOB, "tasks": tasks, "over": False, "kill": [], **changes}


def window(width, seconds=SECONDS_ASSUMED):
    return Work(float(width), math.inf, float(width), seconds)


def test_answers_are_taken_only_if_they_are_whole():
    assert is_take_answer(answer(1, 2))
    assert is_take_answer(answer())
    assert not is_take_answer(answer(1, job={**JOB, "umask": None}))
    assert not is_take_answer(answer(1, kill="no"))
    assert is_held_answer({"kill": [1], "over": True})
    assert not is_held_answer({"kill": [1], "over": "yes"})


def test_each_task_takes_one_place_whatever_its_request_says():
    around = Surroundings(3, 4, "/here", 0o22, "/logs/3", "/bin/sh -c", math.inf, False, "s1")
    one, other = launches_of(columns_of(JOB, answer(1, 2)["tasks"]), around)
    assert (one.identity, other.identity) == (1, 2)
    assert (one.cores, one.memory, one.runtime, one.directory) == (1.0, 0.0, 5, "/here")
    assert one.environment["JOBMON_TASK_ID"] == "11"
    assert one.environment["A"] == "1"


def test_the_first_request_asks_for_what_can_start_and_a_little_more():
    assert window(2).wanted() == (2.0, 2.0)


@pytest.mark.parametrize(
    ("seconds", "ahead"), [(10.0, 0.05), (0.25, 2.0), (0.05, 10.0), (0.0001, 2 * AHEAD_FACTOR_MAX)]
)
def test_the_shorter_tasks_are_the_more_are_prefetched(seconds, ahead):
    assert window(2, seconds).ahead == pytest.approx(ahead)


def test_a_job_of_forty_places_prefetches_for_all_of_them():
    """40 tasks of 0.05 cores fill 2 cores; with a window of 64 tasks short ones ran dry."""
    here = window(40, 0.001)
    assert here.wanted() == (40.0, 40.0 * AHEAD_FACTOR_MAX)
