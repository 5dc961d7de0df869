"""A partition, or a group of partitions, as a queue, and the requests it accepts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import packing
from jobmon.core import resources as resource_rules
from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.core.exceptions import JobmonError
from jobmon.plugins.slurm.commands import problems_with_options

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Slurm's names -> the names used here.
NAMES_IN_SLURM: Final[Mapping[str, str]] = {
    "account": "project",
    "cpus": "cores",
    "cpus_per_task": "cores",
    "exclude": "sbatch={'exclude': ...}",
    "gpus_per_node": "gres",
    "mem": "memory",
    "mem_per_cpu": "memory_per_cpu",
    "ntasks_per_node": "tasks_per_node",
    "partition": "queue",
    "time": "runtime",
}
EXTRA_KEYS: Final = frozenset(
    {
        "array_limit",
        "constraint",
        "exclusive",
        "gpus",
        "gres",
        "memory_per_cpu",
        "nodes",
        "qos",
        "reservation",
        "sbatch",
        "tasks_per_node",
    }
    | packing.KEYS
)
_COUNTS: Final = ("array_limit", "nodes", "tasks_per_node")
_TEXTS: Final = ("project", "qos", "reservation", "gres")
EXCLUSIVE_WORDS: Final = ("user", "mcs")
COUNT_MAX: Final = 1_000_000


class SlurmQueue(ClusterQueue):
    """A Slurm queue. Besides the limits it has the parameter `default_memory_per_core` (GiB) for memory per core.

    `memory_per_cpu` is an amount that users give instead of `memory`. It is converted to `memory`, so that it can be
    measured and increased, and `memory_per_cpu` True: the same memory is then requested from Slurm per CPU. A cluster
    that accepts nothing else has True among its queues' parameters.
    """

    extra_keys = EXTRA_KEYS
    word_keys = frozenset({"memory", "runtime"})

    def validate_resources(self, strict: bool = False, **resources: Any) -> tuple[bool, str]:
        """Return whether the partition accepts the request."""
        renamed = [
            f"Unknown resource {key!r}: Slurm's {key!r} is requested as {NAMES_IN_SLURM[key]!r}"
            for key in resources
            if key in NAMES_IN_SLURM
        ]
        known = {key: value for key, value in resources.items() if key not in NAMES_IN_SLURM}
        problems = [*renamed, *_problems_with_memory(known)]
        if not problems:
            known = _with_memory(known, self.parameters)
        _, text = super().validate_resources(strict, **known)
        problems += [*([text] if text else []), *problems_with_values(known)]
        return not problems, "; ".join(problems)

    def coerce_resources(self, **resources: Any) -> dict[str, Any]:
        """Complete the request with Slurm's own defaults, so that the values to increase are known."""
        result = super().coerce_resources(**_with_memory(resources, self.parameters))
        per_core = self.parameters.get("default_memory_per_core")
        if result.get("memory") is None and per_core is not None:
            wanted = resource_rules.memory_gib(per_core) * result.get("cores", 1)
            result["memory"] = resource_rules.Limits.read("memory", self.parameters).clamped(wanted)
        return result


def _with_memory(resources: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Convert memory per CPU into the job's memory, and record that it is requested per CPU."""
    result = dict(resources)
    by_cpu = result.pop("memory_per_cpu", None)
    if by_cpu is not None and not isinstance(by_cpu, bool):
        cores = math.ceil(resource_rules.cores_number(result.get("cores") or parameters.get("default_cores") or 1))
        result["memory"] = resource_rules.memory_gib(by_cpu) * cores
    is_asked = bool(by_cpu) or (by_cpu is None and bool(parameters.get("memory_per_cpu")))
    if is_asked and not resource_rules.is_word("memory", result.get("memory")):
        result["memory_per_cpu"] = True
    return result


def _problems_with_memory(resources: Mapping[str, Any]) -> list[str]:
    by_cpu = resources.get("memory_per_cpu")
    if by_cpu is None or isinstance(by_cpu, bool):
        return []
    if resources.get("memory") is not None:
        return [f"memory {resources['memory']!r} and memory_per_cpu {by_cpu!r} are mutually exclusive"]
    try:
        resource_rules.memory_gib(by_cpu)
        resource_rules.cores_number(resources.get("cores") or 1)
    except JobmonError as error:
        return [f"memory_per_cpu: {error}"]
    return []


def problems_with_values(resources: Mapping[str, Any]) -> list[str]:
    """Return the problems with the values of this plug-in's own keys."""
    given = {key: value for key, value in resources.items() if value is not None}
    problems = [
        f"{key} {given[key]!r} must be an integer of at least 1" for key in _COUNTS if not _is_count(given, key)
    ]
    problems += [
        f"{key} {given[key]!r} must be a string without spaces"
        for key in _TEXTS
        if key in given and not _is_word(given[key])
    ]
    problems += [
        f"{key} {given[key]!r} must be a string such as 'bigmem&ib', or a list of such strings"
        for key in ("constraint", "constraints")
        if key in given and not _is_words(given[key])
    ]
    if "gpus" in given and not (_is_count(given, "gpus") or _is_word(given["gpus"])):
        problems.append(f"gpus {given['gpus']!r} must be a number, or a string such as 'a100:2'")
    shared_gres = {"gres", "gpus_per_node"} & given.keys()
    if given.get(packing.WIDTH, 1) != 1 and shared_gres:
        problems.append(
            f"{packing.WIDTH} and {' or '.join(sorted(shared_gres))} are mutually exclusive; request 'gpus'"
        )
    if "exclusive" in given and given["exclusive"] not in (True, False, *EXCLUSIVE_WORDS):
        problems.append(f"exclusive {given['exclusive']!r} must be True, False, 'user' or 'mcs'")
    return [*problems, *packing.problems_with(given), *problems_with_options(given.get("sbatch"))]


def _is_count(given: Mapping[str, Any], key: str) -> bool:
    value = given.get(key, 1)
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= COUNT_MAX


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value != "" and not any(letter.isspace() for letter in value)


def _is_words(value: object) -> bool:
    words = value if isinstance(value, list | tuple) else [value]
    return bool(words) and all(_is_word(word) for word in words)
