"""Identify this machine independently of its name.

Imports only modules that workers load anyway (`python -I -S`).
"""

from __future__ import annotations

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return the boot ID of this machine; "" if the system has none."""
    try:
        with open(BOOT_ID_FILE, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
