"""Identify this machine independently of its name, and write times as the server expects them.

Imports only modules that workers load anyway (`python -I -S`).
"""

from __future__ import annotations

import time

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
_texts: dict[int, str] = {}  # the last second that was written: `strftime` costs more than most of a report


def boot_id() -> str:
    """Return the boot ID of this machine; "" if the system has none."""
    try:
        with open(BOOT_ID_FILE, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def iso_time(seconds: float) -> str:
    """Return seconds since the epoch as a UTC time in ISO 8601 format."""
    whole = int(seconds)
    text = _texts.get(whole)
    if text is None:
        _texts.clear()
        text = _texts[whole] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{text}.{int((seconds - whole) * 1_000_000):06d}Z"
