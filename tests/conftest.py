"""What holds for all tiers.

How deep hypothesis looks: deeper in CI. Machines are shared and at times very busy: no test fails for being slow.
"""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("local", UNHURRIED, max_examples=100)
settings.register_profile("deep", UNHURRIED, max_examples=1000)
settings.load_profile("deep" if os.environ.get("CI") else "local")


def pytest_configure():
    """Hear interrupts: a shell that starts the tests in the background has them ignored, by all that we start too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
