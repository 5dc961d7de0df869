"""GPUs of a packed job: no index is given to two tasks at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.agent.devices import asked_of, count_of, of_job

FOUR = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}


@pytest.mark.parametrize(
    ("gpus", "count"), [(None, 0), (True, 0), (2, 2), ("2", 2), ("a100:2", 2), ("a100", 1), ("", 0)]
)
def test_how_many_are_asked_for(gpus, count):
    assert count_of(gpus) == count


@pytest.mark.parametrize(
    ("environment", "gpus", "width", "at_once"),
    [(FOUR, 1, 3, 3), (FOUR, 2, 3, 2), (FOUR, None, 3, 3), ({}, 1, 3, 1), (FOUR, 8, 3, 1), (FOUR, 2, 1, 1)],
)
def test_so_many_tasks_run_at_once(environment, gpus, width, at_once):
    assert of_job(environment, {"gpus": gpus}, width)[1] == at_once


def test_a_job_of_one_task_at_a_time_keeps_what_its_scheduler_says():
    assert of_job(FOUR, {"gpus": 4}, 1) == (None, 1)


@given(st.integers(1, 2), st.integers(2, 6), st.lists(st.integers(0, 9), max_size=60))
def test_no_index_is_given_to_two_tasks_at_a_time(each, width, steps):
    devices, at_once = of_job(FOUR, {"gpus": each}, width)
    held = {}
    for identity in steps:
        if identity in held:
            del held[identity]
            devices.release(identity)
        elif len(held) < at_once:
            asked = asked_of({"gpus": each, "resources": {"mem_free": "4G", "tape": 1}})
            held[identity] = devices.take(identity, asked)["CUDA_VISIBLE_DEVICES"].split(",")
            assert len(held[identity]) == each
    indices = [one for some in held.values() for one in some]
    assert len(indices) == len(set(indices))
