"""The usable resources of this machine: CPUs by affinity and cgroup, memory by cgroup (v1 and v2)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobmon.agent.cgroups import own_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB: Final = 1024.0**3


def usable_cpus() -> float:
    """Return how many CPUs this process may use; at least one."""
    counted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1.0, float(int(min([float(counted), *_cpu_quotas()]))))


def usable_memory_gib() -> float:
    """Return how much memory this process and its children may use together, GiB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return min([total, *_memory_limits()])


def _cpu_quotas() -> Iterator[float]:
    for folder in _with_parents(own_folder()):
        yield from _quota(*_words(folder / "cpu.max"))
    for folder in _with_parents(own_folder("cpu")):
        yield from _quota(*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us"))


def _quota(*words: str) -> Iterator[float]:
    """Yield the number of CPUs in a quota of time per period; nothing if there is no quota ("max" or -1)."""
    if len(words) == 2 and words[0].isdigit():
        yield int(words[0]) / int(words[1])


def _memory_limits() -> Iterator[float]:
    for folder in _with_parents(own_folder()):
        yield from (int(word) / GIB for word in _words(folder / "memory.max") if word.isdigit())
    for folder in _with_parents(own_folder("memory")):
        yield from (int(word) / GIB for word in _words(folder / "memory.limit_in_bytes"))


def _with_parents(folder: str | None) -> tuple[Path, ...]:
    """Return a group's folder and its parents: each may set a limit. (Above the mount point nothing is found.)"""
    return (Path(folder), *Path(folder).parents) if folder else ()


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
