"""Luigi with its local scheduler; it recognizes done tasks by one file per task."""

import json
import logging
import pathlib
import subprocess
import sys
import tempfile
import time

SETUP = "pip install luigi"
PACKAGES = ["luigi", "setuptools<81"]
SHAPES = ["independent", "chain", "fan"]
COUNT_MAX = 1_000


def tasks_of(shape, count, folder):
    import luigi

    class Command(luigi.Task):
        number = luigi.IntParameter()

        def requires(self):
            if shape == "chain":
                return [Command(number=self.number - 1)] if self.number else []
            if shape == "fan" and self.number == count:
                return [Command(number=number) for number in range(count)]
            return [Command(number=-1)] if shape == "fan" and self.number >= 0 else []

        def output(self):
            return luigi.LocalTarget(f"{folder}/{self.number}")

        def run(self):
            subprocess.run(["sh", "-c", f"true {self.number}"], check=True)
            pathlib.Path(self.output().path).touch()

    last = {"independent": range(count), "chain": [count - 1], "fan": [count]}[shape]
    return [Command(number=number) for number in last]


def main(shape, count, width):
    import luigi

    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        tasks = tasks_of(shape, count, folder)
        start = time.perf_counter()
        if not luigi.build(tasks, workers=width, local_scheduler=True, log_level="CRITICAL"):
            raise SystemExit("luigi says that something failed")
        print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
