"""Parsl with its thread executor; keeps no record by default."""

import json
import sys
import tempfile
import time

SETUP = "pip install parsl"
PACKAGES = ["parsl"]
SHAPES = ["independent", "chain", "fan"]


def main(shape, count, width):
    import parsl
    from parsl.config import Config
    from parsl.executors import ThreadPoolExecutor

    with tempfile.TemporaryDirectory() as folder:
        config = Config(executors=[ThreadPoolExecutor(max_threads=width)], run_dir=folder, usage_tracking=0)
        with parsl.load(config):

            @parsl.bash_app
            def command(number, inputs=()):
                return f"true {number}"

            start = time.perf_counter()
            if shape == "independent":
                futures = [command(number) for number in range(count)]
            elif shape == "chain":
                futures = []
                for number in range(count):
                    futures.append(command(number, inputs=futures[-1:]))
            else:
                first = command(-1)
                futures = [command(-2, inputs=[command(number, inputs=[first]) for number in range(count)])]
            for future in futures:
                future.result()
            print(json.dumps({"seconds": time.perf_counter() - start}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
