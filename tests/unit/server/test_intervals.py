"""Student's t-distribution against the tables of books."""

import pytest

from jobmon.server.queries.intervals import EXACT_DEGREES_MAX, confidence_interval, t_quantile


@pytest.mark.parametrize(
    ("level", "degrees", "expected"),
    [
        (0.95, 1, 12.7062047),
        (0.95, 2, 4.30265273),
        (0.95, 3, 3.18244631),
        (0.99, 4, 4.60409487),
        (0.95, 10, 2.22813885),
        (0.90, 30, 1.69726089),
        (0.95, 100, 1.98397152),
        (0.95, 120, 1.97993041),
        (0.99, 1000, 2.58075470),
        (0.95, 1_000_000, 1.95996636),
    ],
)
def test_quantiles_are_those_of_the_tables(level, degrees, expected):
    assert t_quantile(level, degrees) == pytest.approx(expected, rel=1e-7)


def test_the_expansion_goes_on_where_the_sum_ends():
    for level in (0.5, 0.95, 0.999):
        exact, next_one = t_quantile(level, EXACT_DEGREES_MAX), t_quantile(level, EXACT_DEGREES_MAX + 1)
        assert 0 < exact - next_one < 1e-2


def test_an_interval_lies_around_the_mean_and_needs_two_values():
    assert confidence_interval([1.0], 0.95) is None
    low, high = confidence_interval([1.0, 2.0, 3.0], 0.95)
    assert (low, high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert confidence_interval([2.0, 2.0], 0.95) == [2.0, 2.0]
