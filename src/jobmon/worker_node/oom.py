"""Whether the kernel killed something here for want of memory: it counts that for each control group."""

from __future__ import annotations

CGROUPS_FILE = "/proc/self/cgroup"
CGROUPS_ROOT = "/sys/fs/cgroup"


class OomKills:
    """Counts what was killed so in this process's own control groups; always 0 where nobody can say."""

    def __init__(self, cgroups_file: str = CGROUPS_FILE, root: str = CGROUPS_ROOT) -> None:
        self._paths = [path for path in _counters(cgroups_file, root) if _counted(path) is not None]

    def count(self) -> int:
        """Return how many there were so far."""
        return sum(_counted(path) or 0 for path in self._paths)


def _counters(cgroups_file: str, root: str) -> list[str]:
    try:
        with open(cgroups_file, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found.append(f"{root}{path}/memory.events")
        elif "memory" in controllers.split(","):
            found.append(f"{root}/memory{path}/memory.oom_control")
    return found


def _counted(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    except (OSError, ValueError):
        return None
    return None
