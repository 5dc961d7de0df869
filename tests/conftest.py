"""What holds for all tiers."""

from __future__ import annotations

import signal


def pytest_configure():
    """Hear interrupts: a shell that starts the tests in the background has them ignored, by all that we start too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
