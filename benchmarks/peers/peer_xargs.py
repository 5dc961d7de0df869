"""xargs: independent commands only; keeps no record."""

import json
import subprocess
import sys
import time

SETUP = "findutils, as every Debian has it"
SHAPES = ["independent"]


def main(shape, count, width):
    numbers = "\n".join(map(str, range(count)))
    start = time.perf_counter()
    subprocess.run(["xargs", "-P", str(width), "-I", "{}", "sh", "-c", "true {}"], input=numbers, text=True, check=True)
    print(json.dumps({"seconds": time.perf_counter() - start}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
