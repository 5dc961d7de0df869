"""The event loop of our processes."""

import subprocess
import sys

_PROGRAM = """
import gc
gc.disable()
import asyncio, weakref
from jobmon.core import loops

class Ring:
    def __init__(self):
        self.itself = self

async def main():
    rings = [Ring() for _ in range(2 * loops.NEW_OBJECTS_PER_SEARCH)]
    gone = [weakref.ref(ring) for ring in rings]
    del rings
    more = [[] for _ in range(20 * loops.NEW_OBJECTS_PER_SEARCH)]
    return gc.isenabled(), gc.get_freeze_count() > 1000, any(ring() is None for ring in gone)

print(*loops.run_process(main()))
"""


def test_garbage_is_still_found_though_nothing_that_was_loaded_is_searched():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True"] * 3
