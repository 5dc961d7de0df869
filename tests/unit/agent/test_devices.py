"""GPUs and licences of this machine: no token is given to two commands at a time."""

import pytest

from jobmon.agent.devices import Devices, asked_of, problem_with, variable_of

THERE = {"gpus": ["0", "1", "GPU-x"], "licence": ["0", "1"]}


@pytest.fixture
def devices(tmp_path):
    return Devices(THERE, str(tmp_path))


def test_tokens_are_given_until_none_is_left_and_again_when_they_are_back(devices):
    assert devices.take(1, {"gpus": 2}) == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert devices.take(2, {"gpus": 2}) is None
    assert devices.take(3, {"gpus": 1}) == {"CUDA_VISIBLE_DEVICES": "GPU-x"}
    devices.release(1)
    assert devices.take(2, {"gpus": 2}) == {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_all_or_nothing_is_taken(devices):
    assert devices.take(1, {"gpus": 3}) is not None
    assert devices.take(2, {"licence": 2, "gpus": 1}) is None
    assert devices.take(3, {"licence": 2}) == {"JOBMON_RESOURCE_LICENCE": "0,1"}


def test_agents_of_two_workflows_share_the_tokens(devices, tmp_path):
    other = Devices(THERE, str(tmp_path))
    assert devices.take(1, {"gpus": 2}) is not None
    assert other.take(1, {"gpus": 2}) is None
    assert other.take(1, {"gpus": 1}) == {"CUDA_VISIBLE_DEVICES": "GPU-x"}


def test_what_asks_for_none_is_not_touched(devices):
    assert devices.take(1, asked_of({"cores": 2})) == {}
    devices.release(1)


def test_what_this_machine_cannot_give_is_named_with_the_setting():
    assert problem_with({"gpus": 3}, THERE) == ""
    assert problem_with({"gpus": 4}, THERE).startswith("gpus 4: this machine has 3 (see the setting multiprocess.gpus)")
    assert problem_with({"disk": 1}, THERE).startswith("disk 1: this machine has none (see the setting multi")


def test_the_variables_of_resources():
    assert variable_of("gpus") == "CUDA_VISIBLE_DEVICES"
    assert variable_of("big-disk") == "JOBMON_RESOURCE_BIG_DISK"
