"""The partitions and their limits, as reported by Slurm itself."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from jobmon.plugins.batch import ToolRunner
from jobmon.plugins.slurm.answers import TEXTS
from jobmon.plugins.slurm.commands import MIB_PER_GIB, SEPARATOR, tool_environment
from jobmon.plugins.slurm.parsing import NodeKind, configuration, limit_seconds, node_kinds, partitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Partition, cores, memory (MiB), number of nodes, generic resources, features.
SINFO_FIELDS: Final = ("%R", "%c", "%m", "%D", "%G", "%f")
SHOW_PARTITIONS: Final = ("scontrol", "--oneliner", "show", "partition")
SHOW_CONFIGURATION: Final = ("scontrol", "show", "config")
SHOW_NODES: Final = ("sinfo", "--noheader", "--exact", f"--format={SEPARATOR.join(SINFO_FIELDS)}")
#: The separator of partitions in a group.
GROUP_SEPARATOR: Final = ","
DISCOVERY_TIMEOUT_SECONDS: Final = 20.0
#: The minimum memory: less is not enough for a worker.
MEMORY_GIB_MIN: Final = 16 / 1024

Queues = list[tuple[str, dict[str, Any]]]


def is_here(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this host has Slurm's commands."""
    return shutil.which("sbatch", path=environment.get("PATH")) is not None


def queues_here(environment: Mapping[str, str] = os.environ) -> Queues:
    """Return the partitions of this host's Slurm cluster, the default one first.

    Raises:
        ClusterUnavailable, Refused: Slurm does not provide them.
    """
    asking = tool_environment(environment)
    runner = ToolRunner(TEXTS, asking, asking, call_timeout=DISCOVERY_TIMEOUT_SECONDS)
    found, kinds, settings = (runner.ask(command) for command in (SHOW_PARTITIONS, SHOW_NODES, SHOW_CONFIGURATION))
    return queues_of(partitions(found), node_kinds(kinds), configuration(settings))


def queues_of(found: Sequence[Mapping[str, str]], kinds: Iterable[NodeKind], settings: Mapping[str, str]) -> Queues:
    """Return queues from Slurm's answers; partitions that accept no jobs at all are left out."""
    nodes: dict[str, list[NodeKind]] = {}
    for kind in kinds:
        nodes.setdefault(kind.partition, []).append(kind)
    open_ones = [one for one in found if one.get("State", "UP") != "INACTIVE" and one.get("RootOnly") != "YES"]
    open_ones.sort(key=lambda one: one.get("Default") != "YES")
    return [
        (one["PartitionName"], parameters_of(one, nodes.get(one["PartitionName"], ()), settings)) for one in open_ones
    ]


def parameters_of(
    partition: Mapping[str, str], kinds: Sequence[NodeKind], settings: Mapping[str, str]
) -> dict[str, Any]:
    """Return limits and defaults of one partition."""
    cores = _least(max((kind.cores for kind in kinds), default=None), _number(partition.get("MaxCPUsPerNode")))
    memory = _least(max((kind.memory_mib for kind in kinds), default=None), _number(partition.get("MaxMemPerNode")))
    longest = limit_seconds(partition.get("MaxTime", ""))
    by_core = _first(partition, settings, "DefMemPerCPU")
    by_node = _first(partition, settings, "DefMemPerNode")
    values = {
        "min_memory": MEMORY_GIB_MIN,
        "max_cores": cores,
        "max_memory": _gib(memory),
        "max_runtime": longest,
        "default_cores": 1,
        "default_memory": None if by_core else _gib(by_node),
        "default_memory_per_core": _gib(by_core),
        "default_runtime": limit_seconds(partition.get("DefaultTime", "")) or longest,
        "features": sorted({word for kind in kinds for word in kind.features.split(",") if word}),
        "gres": sorted({word for kind in kinds for word in kind.gres.split(",") if word}),
    }
    return {key: value for key, value in values.items() if value not in (None, [])}


def _first(partition: Mapping[str, str], settings: Mapping[str, str], key: str) -> int | None:
    return _number(partition.get(key)) or _number(settings.get(key))


def _number(text: str | None) -> int | None:
    """Parse a number; 0, UNLIMITED, NONE and the like are None."""
    return int(text) or None if text is not None and text.isascii() and text.isdecimal() and len(text) < 19 else None


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _gib(mib: int | None) -> float | None:
    return None if mib is None else mib / MIB_PER_GIB


def group_of(name: str, queues: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any] | None:
    """Return the parameters of a partition, or of a group such as "short,long"; None if one does not exist.

    Slurm starts a job in the partition where it fits and starts first. A group therefore accepts what any of its
    partitions accepts, and has the defaults of the first one.
    """
    known = dict(queues)
    names = name.split(GROUP_SEPARATOR)
    if len(set(names)) != len(names) or not all(one in known for one in names):
        return None
    members = [known[one] for one in names]
    result = dict(members[0])
    for key in ("max_cores", "max_memory", "max_runtime"):
        limits = [member.get(key) for member in members]
        result.pop(key, None)
        if None not in limits:
            result[key] = max(limit for limit in limits if limit is not None)
    for key in ("features", "gres"):
        if found := sorted({word for member in members for word in member.get(key, ())}):
            result[key] = found
    return result
