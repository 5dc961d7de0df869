"""The floor: `posix_spawn` of the same shell that tasks get, with logs, from a small process. Standard library only.

`python -I -S floor.py COUNT WIDTH FOLDER` prints commands per second and CPU seconds per command as JSON.
"""

import json
import os
import resource
import sys
import time

#: Number of consecutive commands in a stretch.
STRETCH = 500


def spawn(number, folder):
    path = f"{folder}/{number // 1000}/{number}.log"
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "true"], os.environ, file_actions=actions, setpgroup=0)


def best_rate(times):
    """Return the rate of the best stretch of a run, which hardly depends on occasional other load of the machine."""
    stretch = min(STRETCH, len(times) - 1)
    shortest = min(later - earlier for earlier, later in zip(times, times[stretch:], strict=False))
    return stretch / shortest if shortest else 0.0


def main():
    count, width, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for shard in range(count // 1000 + 1):
        os.makedirs(f"{folder}/{shard}", exist_ok=True)
    start = time.perf_counter()
    ended = []
    running = started = 0
    while started < count or running:
        while started < count and running < width:
            spawn(started, folder)
            started += 1
            running += 1
        os.wait4(-1, 0)
        ended.append(time.perf_counter())
        running -= 1
    seconds = time.perf_counter() - start
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used) / count
    found = {"count": count, "width": width, "seconds": seconds, "per_second": count / seconds, "cpu_seconds": cpu}
    found["best_per_second"] = best_rate(ended)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
