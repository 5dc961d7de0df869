"""The profile of `tests/conftest.py` holds in every tier."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def test_no_test_fails_because_the_machine_is_slow():
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check
