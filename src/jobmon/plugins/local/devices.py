"""The GPUs and other countable resources of this machine, for local commands."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent.devices import GPUS, GPUS_VARIABLE, asked_of, problem_with
from jobmon.core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.core.configuration import JobmonConfig

NONE: Final = "none"
RESOURCES: Final = "resources"
#: Maximum number of tokens of one resource.
COUNT_MAX: Final = 1_024
NAMES_MAX: Final = 32
_GPU_FILE: Final = re.compile(r"nvidia(\d{1,4})$")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}$", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_:/.-]{1,64}$", re.ASCII)


def local_devices(config: JobmonConfig) -> dict[str, list[str]]:
    """Return resource -> tokens, according to the settings; GPUs that are not configured are detected.

    Raises:
        ConfigError: a setting cannot be parsed.
    """
    found = _resources(str(config.get("multiprocess", "resources") or ""))
    gpus = _gpus(str(config.get("multiprocess", "gpus") or "").strip())
    return {**found, GPUS: gpus} if gpus else found


def problems_with(requested: Mapping[str, Any], config: JobmonConfig) -> list[str]:
    """Return which of the requested devices are invalid or not available on this machine."""
    gpus, resources = requested.get(GPUS), requested.get(RESOURCES)
    problems = [] if gpus is None or _is_count(gpus) else [f"gpus {gpus!r} must be an integer from 1 to {COUNT_MAX}"]
    is_dict = isinstance(resources, dict) and len(resources) <= NAMES_MAX
    if resources is not None and not (is_dict and all(_NAME.match(str(name)) for name in resources)):
        problems.append(f"resources {resources!r} must be a dict such as {{'licence': 1}}")
    elif resources is not None:
        problems += [
            f"resources: {name} {count!r} must be an integer from 1 to {COUNT_MAX}"
            for name, count in resources.items()
            if not _is_count(count) or name == GPUS
        ]
    if problems or (gpus is None and not resources):
        return problems
    problem = problem_with(asked_of(requested), local_devices(config))
    return [problem] if problem else []


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= COUNT_MAX


def _gpus(text: str) -> list[str]:
    if text == NONE:
        return []
    if not text:
        text = os.environ.get(GPUS_VARIABLE, "")
        return _tokens(text) if text else _found()
    tokens = _tokens(text)
    if len(set(tokens)) < len(tokens) or not all(_TOKEN.match(one) for one in tokens):
        raise ConfigError(f"Setting multiprocess.gpus: {text!r} is not a list of indices such as 0,1, nor 'none'.")
    return tokens


def _tokens(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()][:COUNT_MAX]


def _found() -> list[str]:
    """Return the indices of the GPUs reported by the driver."""
    try:
        names = os.listdir("/dev")
    except OSError:
        return []
    found = sorted(int(matched[1]) for matched in map(_GPU_FILE.match, names) if matched)
    return [str(one) for one in found]


def _resources(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, _, number = (one.strip() for one in part.partition("="))
        is_number = number.isascii() and number.isdecimal() and len(number) <= len(str(COUNT_MAX))
        if not _NAME.match(name) or name == GPUS or not is_number or int(number) > COUNT_MAX or len(found) == NAMES_MAX:
            raise ConfigError(
                f"Setting multiprocess.resources: {part!r} is not a name with a number, such as licence=3."
            )
        found[name] = [str(one) for one in range(int(number))]
    return found
