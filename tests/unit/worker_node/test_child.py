"""The command of a worker."""

import subprocess
import sys

import pytest

HOUR = 3600.0
SCRIPT = """
import sys, time
from jobmon.worker_node.child import Child

output, folder = sys.argv[1] + "/log", sys.argv[1]
child = Child(["/bin/sh", "-c", "sleep 0.1"], {}, (output, output), folder, 0o022)
real = time.time
time.time = lambda: real() + float(sys.argv[2])
while (ending := child.wait(5.0)) is None:
    pass
print(ending.ended_at - ending.started_at)
"""


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_how_long_a_command_took_does_not_depend_on_a_clock_that_is_set_meanwhile(tmp_path, jump):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(jump)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert 0.05 < float(told) < 30.0
