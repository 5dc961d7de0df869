"""A partition, or a group of them, as a queue: which requests it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core import packing
from jobmon.core import resources as resource_rules
from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.plugins.slurm.commands import problems_with_options

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What people who know Slurm write -> what it is called here.
NAMES_IN_SLURM: Final[Mapping[str, str]] = {
    "account": "project",
    "cpus": "cores",
    "cpus_per_task": "cores",
    "exclude": "sbatch={'exclude': ...}",
    "gpus_per_node": "gres",
    "mem": "memory",
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
    """Parameters beside the limits: `default_memory_per_core` (GiB), where memory is given by the core."""

    extra_keys = EXTRA_KEYS

    def validate_resources(self, strict: bool = False, **resources: Any) -> tuple[bool, str]:
        """Say whether the partition takes the request."""
        renamed = [
            f"Unknown resource {key!r}: Slurm's {key!r} is asked for as {NAMES_IN_SLURM[key]!r}"
            for key in resources
            if key in NAMES_IN_SLURM
        ]
        known = {key: value for key, value in resources.items() if key not in NAMES_IN_SLURM}
        _, text = super().validate_resources(strict, **known)
        problems = [*renamed, *([text] if text else []), *problems_with_values(known)]
        return not problems, "; ".join(problems)

    def coerce_resources(self, **resources: Any) -> dict[str, Any]:
        """Complete the request by what Slurm itself would give, so that it is known what to raise."""
        result = super().coerce_resources(**resources)
        per_core = self.parameters.get("default_memory_per_core")
        if result.get("memory") is None and per_core is not None:
            wanted = resource_rules.memory_gib(per_core) * result.get("cores", 1)
            result["memory"] = resource_rules.Limits.read("memory", self.parameters).clamped(wanted)
        return result


def problems_with_values(resources: Mapping[str, Any]) -> list[str]:
    """Say which values of this plug-in's own keys cannot be meant."""
    given = {key: value for key, value in resources.items() if value is not None}
    problems = [f"{key} {given[key]!r} must be a whole number from 1" for key in _COUNTS if not _is_count(given, key)]
    problems += [
        f"{key} {given[key]!r} must be a text without spaces"
        for key in _TEXTS
        if key in given and not _is_word(given[key])
    ]
    problems += [
        f"{key} {given[key]!r} must be a text such as 'bigmem&ib', or a list of such"
        for key in ("constraint", "constraints")
        if key in given and not _is_words(given[key])
    ]
    if "gpus" in given and not (_is_count(given, "gpus") or _is_word(given["gpus"])):
        problems.append(f"gpus {given['gpus']!r} must be a number, or a text such as 'a100:2'")
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
