"""A few crash points on real processes; `make chaos` tries all of them, and random faults."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]


def test_each_resume_ends_correctly_wherever_the_server_or_distributor_died():
    finished = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--some-crash-points"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
