"""A queue of Grid Engine, and the requests it accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jobmon.core import packing
from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.plugins.gridengine.commands import problems_with_options

#: Grid Engine's names -> the names used here.
NAMES_IN_GRID_ENGINE: Final[Mapping[str, str]] = {
    "h_rt": "runtime",
    "h_vmem": "memory",
    "l": "resources={'name': value}",
    "mem_free": "resources={'mem_free': ...}",
    "pe": "parallel_environment",
    "slots": "cores",
}
EXTRA_KEYS: Final = frozenset({"array_limit", "parallel_environment", "qsub", "resources"} | packing.KEYS)
COUNT_MAX: Final = 1_000_000


class GridEngineQueue(ClusterQueue):
    """Accept `resources` ({"mem_free": "4G"}, for `qsub -l`) and options for `qsub` in addition to the common keys."""

    extra_keys = EXTRA_KEYS

    def validate_resources(self, strict: bool = False, **resources: Any) -> tuple[bool, str]:
        """Return whether the queue accepts the request."""
        problems = [
            f"Unknown resource {key!r}: Grid Engine's {key!r} is requested as {NAMES_IN_GRID_ENGINE[key]}"
            for key in resources
            if key in NAMES_IN_GRID_ENGINE
        ]
        known = {key: value for key, value in resources.items() if key not in NAMES_IN_GRID_ENGINE}
        _, text = super().validate_resources(strict, **known)
        problems += [*([text] if text else []), *_problems_with_values(known)]
        return not problems, "; ".join(problems)


def _problems_with_values(given: Mapping[str, Any]) -> list[str]:
    problems = []
    limit = given.get("array_limit")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= COUNT_MAX):
        problems.append(f"array_limit {limit!r} must be an integer of at least 1")
    environment = given.get("parallel_environment")
    if environment is not None and not _is_word(environment):
        problems.append(f"parallel_environment {environment!r} must be a string without spaces")
    resources = given.get("resources")
    if resources is not None and not (
        isinstance(resources, Mapping) and all(_is_word(key) and _is_word(str(one)) for key, one in resources.items())
    ):
        problems.append(f"resources {resources!r} must be a dict such as {{'mem_free': '4G'}}")
    return [*problems, *problems_with_options(given.get("qsub"))]


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value != "" and not any(letter.isspace() or letter == "," for letter in value)
