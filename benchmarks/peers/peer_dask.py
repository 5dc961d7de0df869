"""Dask distributed: one worker process with one thread per CPU; keeps no record."""

import json
import subprocess
import sys
import time

SETUP = "pip install distributed"
PACKAGES = ["distributed"]
SHAPES = ["independent", "chain", "fan"]


def command(number, *before):
    return subprocess.run(["sh", "-c", f"true {number}"], check=True, stdout=subprocess.DEVNULL).returncode


def submit(client, shape, count):
    if shape == "independent":
        return client.map(command, range(count), pure=False)
    if shape == "chain":
        last = None
        for number in range(count):
            last = client.submit(command, number, *([last] if last is not None else []), pure=False)
        return [last]
    first = client.submit(command, -1, pure=False)
    middle = [client.submit(command, number, first, pure=False) for number in range(count)]
    return [client.submit(command, -2, *middle, pure=False)]


def main(shape, count, width):
    from distributed import Client, LocalCluster, wait

    settings = {"n_workers": 1, "threads_per_worker": width, "dashboard_address": None}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        client.submit(command, "warm", pure=False).result()
        start = time.perf_counter()
        wait(submit(client, shape, count))
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
