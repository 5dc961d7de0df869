"""Which requests a partition takes."""

import pytest

from jobmon.plugins.slurm.queue import SlurmQueue

PARAMETERS = {"max_cores": 16, "max_memory": 7.8125, "max_runtime": 300.0, "default_cores": 1,
              "default_memory_per_core": 0.1, "default_runtime": 60.0}  # fmt: skip


@pytest.fixture
def queue():
    return SlurmQueue(1, "short", PARAMETERS)


@pytest.mark.parametrize(
    "request_",
    [
        {"cores": 2, "memory": "1G", "runtime": "5m", "project": "p", "qos": "q"},
        {"gpus": "a100:2", "gres": "tmp:5", "constraints": ["a", "b|c"], "constraint": "d"},
        {"nodes": 2, "tasks_per_node": 4, "exclusive": "user", "reservation": "r", "sbatch": {"nice": 5}},
        {"pack": 10, "pack_width": 2, "pilot": False, "array_limit": 5},
    ],
)
def test_all_that_slurm_knows_can_be_asked_for(queue, request_):
    assert queue.validate_resources(strict=True, **request_) == (True, "")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"account": "p"}, "Slurm's 'account' is asked for as 'project'"),
        ({"mem": "1G"}, "as 'memory'"),
        ({"nodes": 0}, "nodes 0 must be a whole number from 1"),
        ({"nodes": True}, "whole number"),
        ({"pack": "x"}, "pack 'x' must be"),
        ({"pilot": "yes"}, "pilot 'yes' must be True or False"),
        ({"project": "a b"}, "project 'a b' must be a text without spaces"),
        ({"constraints": []}, "constraints [] must be"),
        ({"gpus": 0}, "gpus 0"),
        ({"exclusive": "all"}, "exclusive 'all'"),
        ({"sbatch": {"time": 5}}, "use 'runtime'"),
        ({"quos": "x"}, "did you mean 'qos'"),
        ({"memory": "x"}, "Memory 'x' cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_named_with_its_remedy(queue, request_, words):
    valid, text = queue.validate_resources(**request_)
    assert not valid
    assert words in text


def test_all_problems_are_told_at_once(queue):
    _, text = queue.validate_resources(account="p", nodes=0, memory="x")
    assert len(text.split("; ")) >= 3


def test_memory_that_was_not_asked_for_is_what_slurm_gives_by_the_core(queue):
    assert queue.coerce_resources(cores=4) == {"cores": 4, "memory": 0.4, "runtime": 60.0}
    assert queue.coerce_resources(cores=4, memory=1)["memory"] == 1.0
    assert "memory" not in SlurmQueue(1, "x", {}).coerce_resources(cores=4)
