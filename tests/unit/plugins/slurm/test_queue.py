"""Which requests a partition accepts."""

import pytest

from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.core.resources import raised, scaled
from jobmon.plugins.slurm.commands import size_options
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
        ({"account": "p"}, "Slurm's 'account' is requested as 'project'"),
        ({"mem": "1G"}, "as 'memory'"),
        ({"nodes": 0}, "nodes 0 must be an integer of at least 1"),
        ({"nodes": True}, "an integer of at least"),
        ({"pack": "x"}, "pack 'x' must be"),
        ({"pilot": "yes"}, "pilot 'yes' must be True or False"),
        ({"project": "a b"}, "project 'a b' must be a string without spaces"),
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


# -- memory by the CPU, all of the node's, no limit on time ---------------------------------------------------------


def options(parameters=None, **resources):
    queue = SlurmQueue(1, "short", parameters or {})
    assert queue.validate_resources(strict=True, **resources) == (True, "")
    coerced = queue.coerce_resources(**resources)
    assert queue.coerce_resources(**coerced) == coerced, "a request that is coerced again stays as it is"
    return size_options({**coerced, "cores": coerced.get("cores")})


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory_per_cpu": "50M", "cores": 4}, ["--cpus-per-task=4", "--mem-per-cpu=50M"]),
        ({"memory_per_cpu": 1, "cores": 2}, ["--cpus-per-task=2", "--mem-per-cpu=1024M"]),
        ({"memory": "4G", "memory_per_cpu": True, "cores": 2}, ["--cpus-per-task=2", "--mem-per-cpu=2048M"]),
        ({"memory": "4G", "memory_per_cpu": False}, ["--mem=4096M"]),
        ({"memory": "node"}, ["--mem=0"]),
        ({"memory": "NODE", "memory_per_cpu": True}, ["--mem=0"]),
        ({"runtime": "UNLIMITED"}, ["--time=unlimited"]),
    ],
)
def test_slurm_is_asked_for_memory_in_one_way(resources, words):
    assert options(**resources) == words


def test_a_cluster_can_demand_memory_by_the_cpu():
    assert options({"memory_per_cpu": True}, memory="4G", cores=2) == ["--cpus-per-task=2", "--mem-per-cpu=2048M"]
    by_cpu = {"memory_per_cpu": True, "default_memory_per_core": 0.5, "default_cores": 1}
    assert options(by_cpu, cores=4) == ["--cpus-per-task=4", "--mem-per-cpu=512M"]
    assert options({**by_cpu, "max_memory": 100}, memory="node") == ["--cpus-per-task=1", "--mem=0"]


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory_per_cpu": "1G", "memory": "4G"}, "are mutually exclusive"),
        ({"memory_per_cpu": "lots"}, "cannot be read"),
        ({"sbatch": {"mem-per-cpu": "50M"}}, "use 'memory_per_cpu'"),
        ({"sbatch": ["--mem-per-gpu=1G"]}, "use 'memory'"),
        ({"sbatch": {"mem": 0}}, "memory='node'"),
        ({"mem_per_cpu": "1G"}, "'memory_per_cpu'"),
    ],
)
def test_what_slurm_would_refuse_is_refused_when_the_task_is_made(resources, words):
    is_valid, text = SlurmQueue(1, "short", {}).validate_resources(strict=False, **resources)
    assert not is_valid
    assert words in text


def test_no_limit_on_time_is_taken_where_the_partition_has_none():
    limited = SlurmQueue(1, "short", {"max_runtime": 300})
    assert "maximum of 300" in limited.validate_resources(strict=True, runtime="unlimited")[1]
    assert limited.coerce_resources(runtime="unlimited")["runtime"] == 300
    assert (
        "not supported by this kind of cluster" in ClusterQueue(1, "q", {}).validate_resources(runtime="unlimited")[1]
    )


def test_a_word_is_not_raised():
    asked = {"memory": "node", "runtime": "unlimited"}
    assert raised(asked, "out of memory", 5.0) == asked
    assert scaled(asked, {"memory": 0.5, "runtime": 0.5}, 1) == asked
