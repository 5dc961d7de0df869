"""Resource requests as values: units, normal form, limits, scaling. Pure functions.

In normal form, `memory` is a number of GiB, `runtime` a number of seconds, `cores` a number of CPUs. A prefix is
a power of 1024 with or without "B" or "iB", as in Slurm: "512M", "512MB" and "512MiB" are the same.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jobmon.core.constants import Cause
from jobmon.core.exceptions import InvalidMemoryFormat, InvalidMemoryUnit, InvalidResources, JobmonError

#: Keys that every cluster supports. A plug-in's queue may declare more.
COMMON_KEYS: Final = frozenset(
    {
        *("cores", "memory", "runtime", "queue", "project", "stdout", "stderr", "constraints", "shell", "env"),
        *("pack", "pack_width", "pilot"),
    }
)
#: The resources that have limits, are measured and may be "auto", with their units in normal form.
UNITS: Final = {"cores": "cores", "memory": "GiB", "runtime": "s"}
#: Upper bounds that no machine reaches: larger requests are typing errors.
MEMORY_GIB_MAX: Final = 2.0**30
RUNTIME_SECONDS_MAX: Final = 366 * 24 * 3600.0
CORES_MAX: Final = 1_000_000.0
SCALE_VALUES_MAX: Final = 1_000
#: Growth of a request after a resource error if no scale was given: 50 %.
DEFAULT_RESOURCE_SCALE: Final = 0.5
#: Without scales, memory is raised to at least the attempt's measured peak plus this share.
PEAK_MARGIN: Final = 0.2
#: The resource that ran out, by the cause of the failure.
MISSING: Final[Mapping[str | None, str]] = {Cause.OUT_OF_MEMORY: "memory", Cause.OUT_OF_TIME: "runtime"}
#: A value that means "as much as earlier tasks of the template used".
AUTO: Final = "auto"
#: Words in place of an amount, for clusters that support them: all memory of the node, no time limit.
WORDS: Final[Mapping[str, str]] = {"memory": "node", "runtime": "unlimited"}

Resources = dict[str, Any]

_MEMORY = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*$")
_MEMORY_POWERS: Final = {"": 3, "B": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_RUNTIME_PART = re.compile(
    r"([0-9]*\.?[0-9]+)\s*(days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)\s*", re.IGNORECASE
)

_RUNTIME_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_CLOCK = re.compile(r"^(?:(\d+)-)?(\d+):([0-5]?\d)(?::([0-5]?\d(?:\.\d+)?))?$")


def memory_gib(value: object) -> float:
    """Read a memory request in GiB from a number (GiB) or text ("512M", "1.5G", "2 GiB").

    Raises:
        InvalidMemoryFormat, InvalidMemoryUnit: cannot be read, not positive, or absurdly large.
    """
    if isinstance(value, str):
        amount = _memory_from_text(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        amount = float(value)
    else:
        raise InvalidMemoryFormat(f"Memory {value!r} is neither a number of GiB nor a string such as '512M' or '1.5G'.")
    if not 0 < amount <= MEMORY_GIB_MAX:
        raise InvalidMemoryFormat(f"Memory {value!r} must be more than 0 and at most {MEMORY_GIB_MAX:g} GiB.")
    return amount


def _memory_from_text(text: str) -> float:
    match = _MEMORY.match(text)
    if match is None:
        raise InvalidMemoryFormat(f"Memory {text!r} cannot be read; write a number of GiB, or e.g. '512M' or '2 GiB'.")
    unit = match[2].upper()
    prefix = unit if unit == "B" else unit.removesuffix("IB").removesuffix("B")
    if prefix not in _MEMORY_POWERS or (unit and not prefix):
        raise InvalidMemoryUnit(f"Memory {text!r} has an unknown unit, {match[2]!r}; use B, K, M, G, T or P.")
    return float(match[1]) * 1024.0 ** (_MEMORY_POWERS[prefix] - 3)


def runtime_seconds(value: object) -> float:
    """Read a runtime request in seconds from a number or text ("90s", "1h30m", "HH:MM:SS", "2d").

    Raises:
        InvalidResources: cannot be read, not positive, or longer than a year.
    """
    if isinstance(value, str):
        seconds = _runtime_from_text(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise InvalidResources(
            f"Runtime {value!r} is neither a number of seconds nor a string such as '90s' or '1h30m'."
        )
    if not 0 < seconds <= RUNTIME_SECONDS_MAX:
        raise InvalidResources(f"Runtime {value!r} must be more than 0 and at most {RUNTIME_SECONDS_MAX:g} seconds.")
    return seconds


def _runtime_from_text(text: str) -> float:
    stripped = text.strip()
    if clock := _CLOCK.match(stripped):
        days, first, second, third = clock.groups()
        hours, minutes, rest = (first, second, third) if third is not None else (first, second, "0")
        return int(days or 0) * 86_400 + int(hours) * 3_600 + int(minutes) * 60 + float(rest)
    try:
        return float(stripped)
    except ValueError:
        pass
    parts = _RUNTIME_PART.findall(stripped)
    if not parts or _RUNTIME_PART.sub("", stripped):
        raise InvalidResources(f"Runtime {text!r} cannot be read; write seconds, or e.g. '90s', '1h30m', '2d'.")
    return sum(float(number) * _RUNTIME_SECONDS[unit[0].lower()] for number, unit in parts)


def cores_number(value: object) -> float:
    """Read a request for CPUs; fractions are allowed.

    Raises:
        InvalidResources: not a positive number.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise InvalidResources(f"Cores {value!r} is not a number.") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= CORES_MAX:
        raise InvalidResources(f"Cores {value!r} must be a number above 0 and at most {CORES_MAX:g}.")
    return int(value) if float(value).is_integer() else float(value)


_READERS: Final[Mapping[str, Callable[[object], float]]] = {
    "cores": cores_number,
    "memory": memory_gib,
    "runtime": runtime_seconds,
}


def normalized(resources: Mapping[str, Any], *, allow_auto: bool = False) -> Resources:
    """Return the request in normal form; a value of None means "not requested" and is left out.

    Args:
        resources: the request as users write it.
        allow_auto: leave "auto" unchanged instead of rejecting it.

    Raises:
        InvalidResources, InvalidMemoryFormat, InvalidMemoryUnit: a value cannot be read.
    """
    return {key: _normal(key, value, allow_auto=allow_auto) for key, value in resources.items() if value is not None}


def _normal(key: str, value: Any, *, allow_auto: bool) -> Any:
    if key not in _READERS or (allow_auto and is_auto(value)):
        return value
    return WORDS[key] if is_word(key, value) else _READERS[key](value)


def is_word(key: str, value: object) -> bool:
    """Return whether a value is the word that may replace an amount of this resource."""
    return isinstance(value, str) and key in WORDS and value.strip().lower() == WORDS[key]


def amount(value: object) -> float | None:
    """Return an amount in normal form; None: nothing or a word was requested."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def is_auto(value: object) -> bool:
    """Return whether a value is to be taken from the template's history."""
    return isinstance(value, str) and value == AUTO


def unknown_keys(resources: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each unknown key, with the nearest known name."""
    candidates = sorted(known)
    sentences = []
    for key in resources:
        if key not in candidates:
            near = difflib.get_close_matches(str(key), candidates, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; valid names: {', '.join(candidates)}."
            sentences.append(f"Unknown resource {key!r}{hint}")
    return sentences


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one resource in a queue. None: no bound, no default."""

    minimum: float | None = None
    maximum: float | None = None
    default: float | None = None

    @classmethod
    def read(cls, key: str, parameters: Mapping[str, Any]) -> Limits:
        """Read `min_<key>`, `max_<key>` and `default_<key>` from a queue's parameters, in the units of a request."""
        reader = _READERS[key]
        values = [parameters.get(f"{prefix}_{key}") for prefix in ("min", "max", "default")]
        return cls(*(None if value is None else reader(value) for value in values))

    def problem(self, key: str, value: float | str) -> str | None:
        """Return what is wrong with a value, or None."""
        if isinstance(value, str):
            is_above = key == "runtime" and self.maximum is not None
            return f"{key} {value!r} is above the maximum of {self.maximum:g} {UNITS[key]}" if is_above else None
        if self.maximum is not None and value > self.maximum:
            return f"{key} {value:g} {UNITS[key]} is above the maximum of {self.maximum:g} {UNITS[key]}"
        if self.minimum is not None and value < self.minimum:
            return f"{key} {value:g} {UNITS[key]} is below the minimum of {self.minimum:g} {UNITS[key]}"
        return None

    def clamped(self, value: float) -> float:
        """Return the nearest value within the limits."""
        if self.maximum is not None:
            value = min(value, self.maximum)
        return value if self.minimum is None else max(value, self.minimum)


def problems_with(resources: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """Return the objections of a queue with these parameters to a request in normal form; empty if there are none."""
    found = (
        Limits.read(key, parameters).problem(key, resources[key]) for key in UNITS if resources.get(key) is not None
    )
    return [problem for problem in found if problem is not None]


def coerced(resources: Mapping[str, Any], parameters: Mapping[str, Any]) -> Resources:
    """Return the request in normal form with defaults filled in and numbers moved within the queue's limits."""
    result = normalized(resources)
    for key in UNITS:
        limits = Limits.read(key, parameters)
        value = result.get(key, limits.default)
        if isinstance(value, str):
            result[key] = limits.maximum if key == "runtime" and limits.maximum is not None else value
        elif value is not None:
            result[key] = limits.clamped(value)
    return result


def scaled_value(value: float, scale: object, step: int) -> float:
    """Return a resource's next value after its `step`-th resource error (from 1).

    A factor adds its share (0.5 = +50 %), a callable maps old to new, a list gives the value of this step and repeats
    its last value when it is exhausted.

    Raises:
        InvalidResources: the scale has none of these forms, or its result is not a positive number.
    """
    if callable(scale):
        result: object = _called(scale, value)
    elif isinstance(scale, list | tuple) and scale:
        result = scale[min(step, len(scale)) - 1]
    elif isinstance(scale, int | float) and not isinstance(scale, bool) and scale >= 0:
        result = value * (1 + scale)
    else:
        raise InvalidResources(f"Resource scale {scale!r} is neither a factor >= 0 nor a callable nor a list.")
    if isinstance(result, bool) or not isinstance(result, int | float) or not math.isfinite(result) or result <= 0:
        raise InvalidResources(
            f"Resource scale {scale!r} turned {value!r} into {result!r}, which is not a positive number."
        )
    return result


def _called(scale: Callable[[float], Any], value: float) -> Any:
    try:
        return scale(value)
    except Exception as error:
        raise InvalidResources(
            f"Resource scale {scale!r} raised {type(error).__name__} for {value!r}: {error}"
        ) from error


def stored_scale(scale: object, length_max: int = SCALE_VALUES_MAX) -> object:
    """Return a scale as a value that can be read repeatedly: an iterator is read once, at most `length_max` values.

    Raises:
        InvalidResources: the scale is of an unknown kind, or an iterator without values.
    """
    if callable(scale) or (isinstance(scale, int | float) and not isinstance(scale, bool)):
        return scale
    if isinstance(scale, str | bytes | Mapping) or not isinstance(scale, Iterable):
        raise InvalidResources(f"Resource scale {scale!r} is neither a factor nor a callable nor an iterable.")
    values = [value for value, _ in zip(scale, range(length_max), strict=False)]
    if not values:
        raise InvalidResources("A resource scale that is an iterable needs at least one value.")
    return values


def scaled(resources: Mapping[str, Any], scales: Mapping[str, Any], step: int) -> Resources:
    """Apply every scale whose resource is in the request; values of a list are in the units of the resource.

    Raises:
        InvalidResources: a scale cannot be applied, or shrinks the resource.
    """
    result = dict(resources)
    for key, scale in scales.items():
        old = result.get(key)
        if old is None or is_word(key, old):
            continue
        reader = _READERS.get(key, float)
        readable = [reader(value) for value in scale] if isinstance(scale, list | tuple) else scale
        value = reader(scaled_value(reader(old), readable, step))
        if value < reader(old):
            raise InvalidResources(
                f"The scale of {key!r} would lower it from {old!r} to {value!r}; it must not shrink."
            )
        result[key] = value
    return result


def raised(resources: Mapping[str, Any], cause: str | None, peak_gib: float | None = None) -> Resources:
    """Return the request after a resource error without scales: only the resource that ran out grows.

    Args:
        resources: the request in normal form that was not enough.
        cause: why the attempt ended; if it is unknown, memory and runtime both grow.
        peak_gib: the attempt's measured peak memory, GiB.
    """
    missing = MISSING.get(cause)
    keys = MISSING.values() if missing is None else (missing,)
    result = scaled(resources, dict.fromkeys(keys, DEFAULT_RESOURCE_SCALE), 1)
    if missing == "memory" and peak_gib is not None and not is_word("memory", result.get("memory")):
        result["memory"] = max(result.get("memory", 0.0), peak_gib * (1 + PEAK_MARGIN))
    return result


def problems_with_scales(resources: Mapping[str, Any], scales: Mapping[str, Any]) -> list[str]:
    """Return which scales do not work on this request. Every value of a list is tried, and a function once."""
    problems = []
    for key, scale in scales.items():
        steps = len(scale) if isinstance(scale, list | tuple) else 1
        request = dict(resources)
        try:
            for value in scale if isinstance(scale, list | tuple) and key in _READERS else ():
                _READERS[key](value)  # the queue may have a default for a resource that is not requested
            for step in range(1, steps + 1):
                request = scaled(request, {key: scale}, step)
        except JobmonError as error:
            problems.append(f"resource_scales[{key!r}] = {scale!r}: {error}")
    return problems


def dry_scales(scales: Mapping[str, Any], step: int) -> list[str]:
    """Return the resources whose list of values is exhausted at this step, so that the last value is repeated."""
    return [key for key, scale in scales.items() if isinstance(scale, list | tuple) and step > len(scale)]
