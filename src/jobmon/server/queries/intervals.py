"""Compute confidence intervals of a mean by Student's t-distribution."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Up to here the distribution is summed exactly; above, an expansion around the normal distribution is as good.
EXACT_DEGREES_MAX: Final = 100
#: Halvings of (0, pi/2): the angle is then as exact as a float can be.
_HALVINGS: Final = 54


def confidence_interval(values: Sequence[float], level: float) -> list[float] | None:
    """Return the interval that contains the mean with this probability; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    half = t_quantile(level, len(values) - 1) * statistics.stdev(values, mean) / math.sqrt(len(values))
    return [mean - half, mean + half]


def t_quantile(level: float, degrees: int) -> float:
    """Return t such that a t-distributed value lies in [-t, t] with probability `level`."""
    if degrees > EXACT_DEGREES_MAX:
        return _expanded(level, degrees)
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _probability(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(degrees)


def _probability(angle: float, degrees: int) -> float:
    """Return the probability of [-t, t], where tan(angle) = t / sqrt(degrees): Abramowitz and Stegun 26.7.3-4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2
    term = cosine if is_odd else 1.0
    total = 0.0
    for power in range(2 + is_odd, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (power - 1) / power
    return 2 / math.pi * (angle + sine * total) if is_odd else sine * total


def _expanded(level: float, degrees: int) -> float:
    """Return the quantile by the first terms of its expansion in 1 / degrees: Abramowitz and Stegun 26.7.5."""
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
