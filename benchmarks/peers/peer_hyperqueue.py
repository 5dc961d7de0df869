"""HyperQueue: server and one worker inside this process (its Python package); keeps no journal by default."""

import json
import sys
import tempfile
import time

SETUP = "pip install hyperqueue"
PACKAGES = ["hyperqueue"]
SHAPES = ["independent", "chain", "fan"]


def fill(job, shape, count):
    def command(number, before=()):
        return job.program(["sh", "-c", f"true {number}"], stdout=None, stderr=None, deps=before)

    if shape == "independent":
        for number in range(count):
            command(number)
    elif shape == "chain":
        last = []
        for number in range(count):
            last = [command(number, last)]
    else:
        first = command(-1)
        command(-2, [command(number, [first]) for number in range(count)])


def main(shape, count, width):
    from hyperqueue import Job, LocalCluster
    from hyperqueue.cluster import WorkerConfig

    with tempfile.TemporaryDirectory() as folder, LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=width))
        client = cluster.client()
        job = Job(default_workdir=folder)
        fill(job, shape, count)
        start = time.perf_counter()
        client.wait_for_jobs([client.submit(job)])
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
