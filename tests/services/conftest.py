"""Fixtures for tests with real services: the Slurm cluster and Grid Engine of this machine, started if necessary."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.e2e.conftest import Home, home  # tests that run whole workflows use a separate home
from tests.services.sharing import Shared

__all__ = ["GridEngineForTests", "Home", "SlurmForTests", "gridengine", "home", "slurm", "until"]

GRIDENGINE_SCRIPTS = Path(__file__).parent / "gridengine"
GRIDENGINE_BASE = Path(
    os.environ.get("GRIDENGINE_TEST_BASE", Path(os.environ.get("TMPDIR", "/tmp")) / "jobmon-gridengine")
)
SCRIPTS = Path(__file__).parent / "slurm"
BASE = Path(os.environ.get("SLURM_TEST_BASE", Path(os.environ.get("TMPDIR", "/tmp")) / "jobmon-slurm"))
UP_SECONDS = 400.0
DOWN_SECONDS = 180.0
SCRIPT_SECONDS = {"up": UP_SECONDS, "down": DOWN_SECONDS}
CALL_SECONDS = 60.0
TEST_SECONDS = 300.0
NODES = 4


def pytest_collection_modifyitems(items):
    """Raise the timeout: the first test waits until the services are installed and started."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(UP_SECONDS + TEST_SECONDS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run tests side by side, except those of a plug-in's interface, which share the jobs that they look at."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return super()._split_scope(nodeid) if file.endswith("_adapter.py") else nodeid

    return Scheduling(config, log)


@dataclass(frozen=True)
class SlurmForTests:
    """The Slurm cluster of this machine: its scripts and tools."""

    def run(self, *words: str, script: str = "") -> str:
        """Run a Slurm tool; return its output."""
        done = subprocess.run(words, input=script, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def node(self, what: str, number: int) -> None:
        """Make a node fail or come back."""
        subprocess.run([SCRIPTS / "node.sh", what, str(number)], timeout=CALL_SECONDS, check=True)

    def up(self) -> None:
        """Start all parts of the cluster that are not running."""
        done = subprocess.run(
            [SCRIPTS / "slurm-up.sh"], capture_output=True, text=True, timeout=UP_SECONDS, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"The Slurm cluster for tests could not be brought up; try it by hand: {SCRIPTS}/slurm-up.sh"
                f"\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )

    def daemon(self, name: str) -> int | None:
        """Return the process ID of slurmctld or slurmdbd; None if it is not running."""
        try:
            pid = int((BASE / f"run/slurm/{name}.pid").read_text())
            return pid if name in Path(f"/proc/{pid}/comm").read_text() else None
        except (OSError, ValueError):
            return None

    def stop_controller(self) -> None:
        """Stop slurmctld; `up` starts it again. It keeps its state."""
        pid = self.daemon("slurmctld")
        assert pid is not None
        os.kill(pid, 15)
        until(lambda: self.daemon("slurmctld") is None, "the controller to stop")

    def is_up(self) -> bool:
        """Return whether the controller responds and all nodes are usable."""
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


@dataclass(frozen=True)
class GridEngineForTests:
    """The Grid Engine of this machine: its scripts and tools."""

    def run(self, *words: str) -> str:
        """Run a Grid Engine tool; return its output."""
        done = subprocess.run(words, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def script(self, name: str, seconds: float) -> None:
        """Run one of the scripts that start and stop Grid Engine."""
        done = subprocess.run([GRIDENGINE_SCRIPTS / name], capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"The Grid Engine for tests: try it by hand: {GRIDENGINE_SCRIPTS}/{name}"
                f"\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )

    def is_up(self) -> bool:
        """Return whether its queues accept jobs."""
        try:
            return (
                len(self.run("qselect").split()) == 2
                and not subprocess.run(
                    ["qselect", "-qs", "uE"], capture_output=True, text=True, timeout=CALL_SECONDS, check=False
                ).stdout
            )
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            return False

    def configure(self, **values: object) -> None:
        """Change global settings of the cluster, e.g. max_u_jobs=2."""
        lines = self.run("qconf", "-sconf", "global").replace("\\\n", " ").splitlines()
        pairs = dict(line.partition(" ")[::2] for line in lines if line and not line.startswith("#"))
        pairs.update({name: str(value) for name, value in values.items()})
        path = GRIDENGINE_BASE / "changed" / "global"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{name} {' '.join(value.split())}\n" for name, value in pairs.items()))
        self.run("qconf", "-Mconf", str(path))

    def jobs(self) -> list[str]:
        """Return the lines of `qstat` for all jobs of this user."""
        return self.run("qstat").splitlines()[2:]

    def stop_master(self) -> None:
        """Stop the master; `gridengine-up.sh` starts it again. It keeps its state."""
        pid = int((GRIDENGINE_BASE / "qmaster.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        try:
            until(lambda: not Path(f"/proc/{pid}/cmdline").exists(), "the master to stop", 20)
        except AssertionError:  # it sometimes hangs while it exits
            os.kill(pid, signal.SIGKILL)
            until(lambda: not Path(f"/proc/{pid}/cmdline").exists(), "the master to be killed")


_SHARED = {"slurm": Shared(BASE), "gridengine": Shared(GRIDENGINE_BASE)}


@pytest.fixture(autouse=True)
def _turn(request):
    """Run the test beside others, or alone with its cluster if it is marked so."""
    with ExitStack() as turn:
        for name in _SHARED.keys() & set(request.fixturenames):
            shared = _SHARED[name]
            turn.enter_context(shared.alone() if request.node.get_closest_marker("alone") else shared.together())
        yield


@pytest.fixture(scope="session")
def alone():
    """Return a context manager for parts of tests in which no other test may use this cluster: `alone("slurm")`."""
    return lambda name: _SHARED[name].alone()


@pytest.fixture(scope="session")
def slurm():
    """Yield a running Slurm cluster; a cluster that was already running is not stopped."""
    cluster = SlurmForTests()

    def down() -> None:
        subprocess.run([SCRIPTS / "slurm-down.sh"], timeout=DOWN_SECONDS, check=True)

    def is_there() -> bool:
        return cluster.daemon("slurmdbd") is not None  # tests never stop slurmdbd

    with _SHARED["slurm"].running(cluster.up, down, is_up=cluster.is_up, is_there=is_there):
        yield cluster


@pytest.fixture(scope="session")
def gridengine():
    """Yield a running Grid Engine; one that was already running is not stopped."""
    cluster = GridEngineForTests()
    up, down = (partial(cluster.script, f"gridengine-{what}.sh", seconds) for what, seconds in SCRIPT_SECONDS.items())
    with _SHARED["gridengine"].running(up, down, is_up=cluster.is_up, is_there=cluster.is_up):
        yield cluster
