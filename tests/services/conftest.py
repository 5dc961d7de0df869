"""What tests with real services share: the Slurm cluster of this machine, brought up when it is not up yet."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.conftest import Home, home  # what runs whole workflows lives in a home of its own

__all__ = ["Home", "SlurmForTests", "home", "slurm", "until"]

SCRIPTS = Path(__file__).parent / "slurm"
BASE = Path(os.environ.get("SLURM_TEST_BASE", Path(os.environ.get("TMPDIR", "/tmp")) / "jobmon-slurm"))
UP_SECONDS = 400.0
DOWN_SECONDS = 180.0
CALL_SECONDS = 60.0
TEST_SECONDS = 300.0
NODES = 4


def pytest_collection_modifyitems(items):
    """Installing and starting services takes its time, and whichever test comes first waits for it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(UP_SECONDS + TEST_SECONDS))


@dataclass(frozen=True)
class SlurmForTests:
    """The cluster of this machine: its scripts and its tools."""

    def run(self, *words: str, script: str = "") -> str:
        """Run one of Slurm's tools; return what it prints."""
        done = subprocess.run(words, input=script, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def node(self, what: str, number: int) -> None:
        """Have a node fail or come back."""
        subprocess.run([SCRIPTS / "node.sh", what, str(number)], timeout=CALL_SECONDS, check=True)

    def up(self) -> None:
        """Start whatever of the cluster does not run."""
        done = subprocess.run(
            [SCRIPTS / "slurm-up.sh"], capture_output=True, text=True, timeout=UP_SECONDS, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"The Slurm cluster for tests could not be brought up; try it by hand: {SCRIPTS}/slurm-up.sh"
                f"\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )

    def daemon(self, name: str) -> int | None:
        """Return the process of slurmctld or slurmdbd; None: it does not run."""
        try:
            pid = int((BASE / f"run/slurm/{name}.pid").read_text())
            return pid if name in Path(f"/proc/{pid}/comm").read_text() else None
        except (OSError, ValueError):
            return None

    def stop_controller(self) -> None:
        """Stop slurmctld; `up` starts it again. What it knows it keeps."""
        pid = self.daemon("slurmctld")
        assert pid is not None
        os.kill(pid, 15)
        until(lambda: self.daemon("slurmctld") is None, "the controller to stop")

    def is_up(self) -> bool:
        """Whether the controller answers and all nodes can be used."""
        try:
            states = self.run("sinfo", "--noheader", "--Node", "--partition=short", "--format=%T").split()
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            return False
        return len(states) == NODES and set(states) <= {"idle", "mixed", "allocated", "completing"}


def until(condition, what: str, seconds: float = 60.0):
    """Wait for a condition; return its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)
    return found


@contextmanager
def _one_at_a_time():
    """Only one process at a time starts or stops daemons."""
    with BASE.with_name(f"{BASE.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def slurm():
    """A Slurm cluster that is up; one that was up before stays up."""
    cluster = SlurmForTests()
    with _one_at_a_time():
        is_ours = cluster.daemon("slurmdbd") is None  # nobody stops that one in between
        if not cluster.is_up():
            cluster.up()
    yield cluster
    if is_ours:
        with _one_at_a_time():
            subprocess.run([SCRIPTS / "slurm-down.sh"], timeout=DOWN_SECONDS, check=True)
