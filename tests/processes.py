"""Processes of this machine."""

import psutil


def is_alive(process: psutil.Process | int | str) -> bool:
    """Return whether a process is running. A zombie is not: its parent may be slow to collect it."""
    try:
        found = process if isinstance(process, psutil.Process) else psutil.Process(int(process))
        return found.is_running() and bool(found.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
