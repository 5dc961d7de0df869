"""make: records only the times of files, and here not even those (phony targets)."""

import json
import subprocess
import sys
import tempfile
import time

SETUP = "apt-get install make"
SHAPES = ["independent", "chain", "fan"]


def rules(shape, count):
    yield f"all: t{count + 1}" if shape == "fan" else "all: " + " ".join(f"t{n}" for n in range(count))
    if shape == "fan":
        yield f"t{count + 1}: " + " ".join(f"t{n}" for n in range(count))
        yield "\t@true last;"
        yield "first:\n\t@true first;"
    for n in range(count):
        before = {"chain": f"t{n - 1}" if n else "", "fan": "first", "independent": ""}[shape]
        yield f"t{n}: {before}\n\t@true {n};"


def main(shape, count, width):
    with tempfile.NamedTemporaryFile("w", suffix=".mk") as file:
        file.write("\n".join(rules(shape, count)) + "\n")
        file.flush()
        start = time.perf_counter()
        subprocess.run(["make", "-s", "-f", file.name, f"-j{width}", "all"], check=True)
        print(json.dumps({"seconds": time.perf_counter() - start}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
