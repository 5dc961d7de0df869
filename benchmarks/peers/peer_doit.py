"""doit: keeps its record in a file that is written at the end."""

import json
import os
import subprocess
import sys
import tempfile
import time

SETUP = "pip install doit"
PACKAGES = ["doit"]
SHAPES = ["independent", "chain", "fan"]

TASKS = """
def task_all():
    shape, count = {shape!r}, {count}
    if shape == "fan":
        yield dict(name="first", actions=["true first"])
        yield dict(name="last", actions=["true last"], task_dep=[f"all:{{n}}" for n in range(count)])
    for n in range(count):
        before = dict(independent=[], chain=[f"all:{{n - 1}}"] if n else [], fan=["all:first"])[shape]
        yield dict(name=str(n), actions=[f"true {{n}}"], task_dep=before)
"""


def main(shape, count, width):
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/dodo.py", "w") as file:
            file.write(TASKS.format(shape=shape, count=count))
        command = [sys.executable, "-m", "doit", "-n", str(width), "-P", "thread", "-v", "0"]
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ})
        print(json.dumps({"seconds": time.perf_counter() - start}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
