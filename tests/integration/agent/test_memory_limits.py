"""Commands are held to the memory that they asked for: by cgroups, or by watching."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import pytest
from tests.integration.agent.driver import run_apart

from jobmon.agent import cgroups, outcome
from jobmon.agent.memory import Memory
from jobmon.agent.recovery import Leftovers, kill_leftovers
from jobmon.core import paths

pytestmark = pytest.mark.timeout(60)
MIB = 1 << 20
LIMIT_GIB = 0.05


def program(code: str) -> str:
    return f"{sys.executable} -S -c 'import os, time; {code}'"


HOG = program("x = bytearray(100 << 20); time.sleep(60)")


class Local:
    """Runs commands with limits in a process of their own."""

    def __init__(self, folder: Path, *, cgroups: bool = True) -> None:
        self.folder = folder
        self._cgroups = cgroups

    def call(self, function, *arguments):
        memory = Memory()
        memory.may_use_groups = self._cgroups
        return run_apart(function, self.folder, *arguments, memory=memory)

    def run(self, *commands: str, **values):
        """Run commands to their ends; return identity -> outcome."""
        return self.call(ran, commands, {"memory": LIMIT_GIB, **values})

    def output(self, identity: int = 1) -> str:
        return (self.folder / f"{identity}.log").read_text()


def ran(driver, commands, values):
    for identity, command in enumerate(commands, start=1):
        driver.start(identity, command, **values)
    return {identity: told(attempt) for identity, attempt in driver.finish().items()}


def told(attempt):
    """How a command ended: what it is, or what killed it, and its peak."""
    if attempt.not_started is not None:
        return attempt.not_started.why, None, 0
    how = attempt.exit_code if attempt.signal is None else -attempt.signal
    return how, attempt.cause, attempt.peak_bytes


OUT_OF_MEMORY = (-9, outcome.OUT_OF_MEMORY)


@pytest.fixture(scope="module")
def base():
    """The folder in which cgroups can be made here; tests are left out only where nobody could make any."""
    groups = cgroups.found()
    if groups is None:
        own = cgroups.own_folder("memory")
        assert not (own and os.access(own, os.W_OK)), "version 1: it may be written to"
        assert not list(cgroups._candidates()) or os.getuid(), "version 2: root may"
        pytest.skip("no memory cgroup can be made here")
    groups.close()
    return Path(groups.base)


@pytest.fixture
def fenced(tmp_path, base):
    return Local(tmp_path)


@pytest.fixture(params=["cgroups", "watching"])
def local(request, tmp_path):
    if request.param == "cgroups":
        request.getfixturevalue("base")
    return Local(tmp_path, cgroups=request.param == "cgroups")


def is_gone(pid: int) -> bool:
    """Whether a process has ended; where nobody is there to bury it, it stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- either way --------------------------------------------------------------------------------------------------------


def test_what_uses_more_than_it_asked_for_is_killed(local):
    found = local.run(f"exec {HOG}", "sleep 0.3")
    assert found[1][:2] == OUT_OF_MEMORY
    assert found[1][2] > 0.9 * LIMIT_GIB * 2**30
    assert found[2][:2] == (0, None)


def test_its_whole_group_ends_also_where_a_child_of_the_shell_is_hit(local):
    """The shell would live on."""
    found = local.run(f"{HOG}; sleep 60; echo lived on")
    assert found[1][:2] == OUT_OF_MEMORY
    assert "lived on" not in local.output()


def test_memory_of_several_processes_counts_together_and_shared_pages_once(local):
    own = "[os.fork() or (bytearray(40 << 20), time.sleep(60)) for _ in range(3)]; time.sleep(60)"
    looks = "time.sleep(0.5); os.killpg(0, 15)"
    shared = f"x = bytearray(40 << 20); [os.fork() or time.sleep(60) for _ in range(3)]; {looks}"
    found = local.run(program(own), program(shared), memory=0.1)
    assert found[1][1] == outcome.OUT_OF_MEMORY
    assert found[2][:2] == (-15, None)


def test_what_cannot_start_says_why_also_with_a_limit(local):
    found = local.call(not_started)
    assert found[1][0] == "'/no/shell' cannot be started: No such file or directory"
    assert "working directory '/dev/null/folder'" in found[2][0]
    assert "output file '/dev/null/folder/out'" in found[3][0]
    assert "longer than the system allows" in found[4][0]
    assert found[5][:2] == (127, None)


def not_started(driver):
    driver.start(1, "true", memory=LIMIT_GIB, shell=("/no/shell", "-c"))
    driver.start(2, "true", memory=LIMIT_GIB, directory="/dev/null/folder")
    driver.start(3, "true", memory=LIMIT_GIB, stdout="/dev/null/folder/out")
    driver.start(4, "true " + "x" * 200_000, memory=LIMIT_GIB)
    driver.start(5, "exit 127", memory=LIMIT_GIB)
    return {identity: told(attempt) for identity, attempt in driver.finish().items()}


def test_a_limit_changes_nothing_else_for_a_command(local, tmp_path):
    look = "grep -i 'SigBlk' /proc/self/status; ls /proc/self/fd | wc -l; umask; ps -o pgid= -p $$; echo $$;"
    command = f"{look} env | sort | grep -v -e PWD -e ATTEMPT_MARK; cat; echo err >&2"
    assert local.call(with_and_without_limit, command) == {1: 0, 2: 0}
    free, held = ((tmp_path / f"{identity}.log").read_bytes().split(b"\n") for identity in (1, 2))
    pids = slice(3, 5)
    assert held[pids][0].strip() == held[pids][1], "it leads its process group"
    del free[pids], held[pids]
    assert free == held


def with_and_without_limit(driver, command):
    driver.start(1, command)
    driver.finish()
    driver.start(2, command, memory=LIMIT_GIB)
    return {identity: attempt.exit_code for identity, attempt in driver.finish().items()}


# -- cgroups -----------------------------------------------------------------------------------------------------------


def test_a_burst_is_seen_however_short_it_is(fenced):
    found = fenced.run(*[program("bytearray(100 << 20)")] * 5)
    assert {one[1] for one in found.values()} == {outcome.OUT_OF_MEMORY}


def test_a_command_that_ended_well_although_a_part_of_it_was_killed_was_out_of_memory(fenced):
    found = fenced.run(f"{HOG}; true")
    assert found[1][1] == outcome.OUT_OF_MEMORY


def test_nothing_escapes_by_leaving_its_process_group(fenced, tmp_path):
    escaped = program(f'os.setsid(); open("{tmp_path}/pid", "w").write(str(os.getpid())); time.sleep(60)')
    assert fenced.call(stopped, f"{escaped} & wait") == outcome.KILLED
    until(lambda: is_gone(int((tmp_path / "pid").read_text())))


def stopped(driver, command):
    driver.start(1, command, memory=LIMIT_GIB)
    driver.until(lambda: (driver.folder / "pid").exists() and (driver.folder / "pid").read_text())
    driver.commands.stop([1], outcome.KILLED, 0.3)
    return driver.finish()[1].cause


def test_files_that_the_kernel_keeps_in_memory_do_not_count(fenced, tmp_path):
    if paths.file_system_type(tmp_path, paths.mounts()) == "tmpfs":
        pytest.skip("files of this folder are memory")
    found = fenced.run(f"head -c 100M /dev/zero > {tmp_path}/big; cat {tmp_path}/big > /dev/null")
    assert found[1][:2] == (0, None), "it may use half as much"


def test_the_peak_is_that_of_all_processes_together(fenced):
    both = program(
        "[os.fork() or (bytearray(90 << 20), time.sleep(0.2), os._exit(0)) for _ in range(2)]; os.wait(); os.wait()"
    )
    found = fenced.run(both, memory=0.4)
    assert found[1][0] == 0
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # where the kernel begins to count
    assert 180 * MIB < found[1][2] < max(260 * MIB, 180 * MIB + own)


def test_no_group_is_made_for_what_asks_for_no_memory_and_none_is_left(fenced, base):
    before, during, after, pid = fenced.call(groups_seen, str(base))
    assert (before, during, after) == (False, True, [])
    assert not (base / f"{cgroups.NAME}{pid}").exists()


def groups_seen(driver, base):
    folder = Path(base, f"{cgroups.NAME}{os.getpid()}")
    driver.start(1, "true")
    driver.finish()
    before = folder.exists()
    driver.start(2, "true", memory=LIMIT_GIB)
    driver.finish()
    during = folder.exists()
    driver.commands.leave()
    return before, during, [str(one) for one in folder.glob("*/")], os.getpid()


def test_what_a_command_leaves_is_ended_before_its_group_is_removed(fenced):
    found = fenced.run("setsid sleep 60 > /dev/null 2>&1 & echo $!")
    assert found[1][0] == 0
    assert is_gone(int(fenced.output()))


def test_what_a_killed_program_left_is_killed_and_removed(fenced, base, tmp_path):
    escaped = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60'"
    remains = Leftovers()
    remains.pid, remains.boot_id, remains.live = fenced.call(killed, f"{escaped} & wait")
    folder = base / f"{cgroups.NAME}{remains.pid}"
    assert folder.exists()
    remains.groups_folder = str(folder)
    assert kill_leftovers(remains) >= 1
    until(lambda: is_gone(int((tmp_path / "pid").read_text())))
    until(lambda: not folder.exists())


def killed(driver, command):
    """Leave a command behind, as a program does that is killed; return what its journal would tell."""
    from jobmon.agent.machine import boot_id

    attempt = driver.start(1, command, memory=LIMIT_GIB)
    driver.until(lambda: (driver.folder / "pid").exists() and (driver.folder / "pid").read_text())
    return os.getpid(), boot_id(), {1: (attempt.pid, attempt.started_boot)}


def test_groups_of_a_program_that_nobody_missed_are_removed_by_the_next_one(base):
    orphan = base / f"{cgroups.NAME}{2**22 + 1}"  # no process has this id
    (orphan / "7").mkdir(parents=True)
    groups = cgroups.found()
    groups.close()
    assert not orphan.exists()
