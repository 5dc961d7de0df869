"""The floor: `posix_spawn` of the same shell as tasks get, logs kept, from a small process. Standard library only.

`python -I -S floor.py COUNT WIDTH FOLDER` prints commands per second as JSON.
"""

import json
import os
import sys
import time


def spawn(number, folder):
    path = f"{folder}/{number // 1000}/{number}.log"
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "true"], os.environ, file_actions=actions, setpgroup=0)


def main():
    count, width, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for shard in range(count // 1000 + 1):
        os.makedirs(f"{folder}/{shard}", exist_ok=True)
    start = time.perf_counter()
    running = started = 0
    while started < count or running:
        while started < count and running < width:
            spawn(started, folder)
            started += 1
            running += 1
        os.wait4(-1, 0)
        running -= 1
    seconds = time.perf_counter() - start
    json.dump({"count": count, "width": width, "seconds": seconds, "per_second": count / seconds}, sys.stdout)


main()
