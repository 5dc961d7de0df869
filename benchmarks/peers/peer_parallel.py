"""GNU parallel: independent commands only; keeps a job log only on request (--joblog), which is not used here."""

import json
import os
import subprocess
import sys
import time

SETUP = "apt-get download parallel; dpkg -x"
DEBIAN_PACKAGES = ["parallel"]
SHAPES = ["independent"]


def main(shape, count, width):
    program = os.path.join(os.environ["PEER_PLACE"], "usr", "bin", "parallel")
    numbers = "\n".join(map(str, range(count)))
    command = ["perl", program, "--will-cite", "-j", str(width), "sh -c 'true {}'"]
    start = time.perf_counter()
    subprocess.run(command, input=numbers, text=True, check=True, stdout=subprocess.DEVNULL)
    print(json.dumps({"seconds": time.perf_counter() - start}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
