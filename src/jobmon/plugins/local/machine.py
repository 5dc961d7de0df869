"""What this machine lets us use: CPUs by affinity and cgroup, memory by cgroup."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

GIB: Final = 1024.0**3
_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


def usable_cpus() -> float:
    """Return how many CPUs this process may use; at least one."""
    counted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _cgroup_folders() if (quota := _cpu_quota(folder)) is not None]
    return max(1.0, float(int(min([float(counted), *quotas]))))


def usable_memory_gib() -> float:
    """Return how much memory this process and its children may use together, GiB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    limits = [limit for folder in _cgroup_folders() if (limit := _memory_limit(folder)) is not None]
    return min([total, *limits])


def _cgroup_folders() -> list[Path]:
    """Return our cgroup's folder (version 2) and those above it: each may set a limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = _CGROUP_ROOT / own.lstrip("/")
    return [one for one in (folder, *folder.parents) if one == _CGROUP_ROOT or _CGROUP_ROOT in one.parents]


def _cpu_quota(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    return None if len(words) != 2 or words[0] == "max" else int(words[0]) / int(words[1])


def _memory_limit(folder: Path) -> float | None:
    words = _words(folder / "memory.max")
    return None if len(words) != 1 or words[0] == "max" else int(words[0]) / GIB


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
