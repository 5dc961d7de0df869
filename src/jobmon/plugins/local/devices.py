"""The GPUs and other countable resources of this machine, for local commands."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent.devices import GPUS, GPUS_VARIABLE, asked_of, problem_with
from jobmon.core.setting_values import DEVICE_NAME, DEVICE_NAMES_MAX, DEVICES_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.core.configuration import JobmonConfig

RESOURCES: Final = "resources"
_GPU_FILE: Final = re.compile(r"nvidia(\d{1,4})$")


def local_devices(config: JobmonConfig) -> dict[str, list[str]]:
    """Return resource -> tokens, according to the settings; GPUs that are not configured are detected.

    Raises:
        ConfigError: a setting cannot be parsed.
    """
    found: dict[str, list[str]] = config.parsed("multiprocess", "resources")
    gpus: list[str] | None = config.parsed("multiprocess", "gpus")
    if gpus is None:
        text = os.environ.get(GPUS_VARIABLE, "")
        gpus = _tokens(text) if text else _found()
    return {**found, GPUS: gpus} if gpus else found


def problems_with(requested: Mapping[str, Any], config: JobmonConfig) -> list[str]:
    """Return which of the requested devices are invalid or not available on this machine."""
    gpus, resources = requested.get(GPUS), requested.get(RESOURCES)
    problems = [] if gpus is None or _is_count(gpus) else [f"gpus {gpus!r} must be an integer from 1 to {DEVICES_MAX}"]
    is_dict = isinstance(resources, dict) and len(resources) <= DEVICE_NAMES_MAX
    if resources is not None and not (is_dict and all(DEVICE_NAME.fullmatch(str(name)) for name in resources)):
        problems.append(f"resources {resources!r} must be a dict such as {{'licence': 1}}")
    elif resources is not None:
        problems += [
            f"resources: {name} {count!r} must be an integer from 1 to {DEVICES_MAX}"
            for name, count in resources.items()
            if not _is_count(count) or name == GPUS
        ]
    if problems or (gpus is None and not resources):
        return problems
    problem = problem_with(asked_of(requested), local_devices(config))
    return [problem] if problem else []


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= DEVICES_MAX


def _tokens(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()][:DEVICES_MAX]


def _found() -> list[str]:
    """Return the indices of the GPUs reported by the driver."""
    try:
        names = os.listdir("/dev")
    except OSError:
        return []
    found = sorted(int(matched[1]) for matched in map(_GPU_FILE.match, names) if matched)
    return [str(one) for one in found]
