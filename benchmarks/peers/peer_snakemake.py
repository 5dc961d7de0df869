"""Snakemake: recognizes done tasks by one output file each, which tasks touch here. Its startup is included."""

import json
import os
import subprocess
import sys
import tempfile
import time

SETUP = "pip install snakemake; start included"
PACKAGES = ["snakemake"]
SHAPES = ["independent", "chain", "fan"]
COUNT_MAX = 500

RULES = """
SHAPE, COUNT = {shape!r}, {count}

def before(wildcards):
    number = int(wildcards.number)
    if SHAPE == "chain":
        return [f"t{{number - 1}}"] if number else []
    if SHAPE == "fan" and number == COUNT + 1:
        return [f"t{{n}}" for n in range(COUNT)]
    return [f"t{{COUNT}}"] if SHAPE == "fan" and number < COUNT else []

rule all:
    input: [f"t{{COUNT + 1}}"] if SHAPE == "fan" else [f"t{{n}}" for n in range(COUNT)]

rule one:
    output: touch("t{{number}}")
    input: before
    shell: "true {{wildcards.number}}"
"""


def main(shape, count, width):
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/Snakefile", "w") as file:
            file.write(RULES.format(shape=shape, count=count))
        command = [sys.executable, "-m", "snakemake", "--cores", str(width), "--quiet", "all", "--nolock"]
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        if len(os.listdir(folder)) < count:
            raise SystemExit("snakemake left tasks out")
    print(json.dumps({"seconds": seconds}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
