"""Memory requests of local commands are enforced, by cgroups or by measuring."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from jobmon.agent import cgroups
from jobmon.agent.recovery import read_journal
from jobmon.core import paths
from jobmon.core.configuration import JobmonConfig
from jobmon.testing.cluster_contract import ClusterContract

pytestmark = pytest.mark.timeout(30)
MIB = 1 << 20
LIMIT_GIB = 0.05
ASKED = {"memory": LIMIT_GIB, "cores": 0.1}


def program(code: str) -> str:
    return f"{sys.executable} -S -c 'import os, time; {code}'"


HOG = program("x = bytearray(100 << 20); time.sleep(60)")


class Local(ClusterContract):
    """Builds distributors; the contract itself is tested elsewhere."""

    __test__ = False

    def __init__(self, folder: Path, plugin: str = "multiprocess", *, cgroups: bool = True) -> None:
        self.plugin = plugin  # type: ignore[misc]
        self.folder = folder
        self._cgroups = cgroups

    def distributor_arguments(self, folder):
        values = {"cgroups": self._cgroups, "idle_timeout": 2}
        config = JobmonConfig(
            dict_config={
                "supervisor": values,
                "worker_node": {"command_interrupt_timeout": 0.3},
                "multiprocess": {"slots": 2},
            }
        )
        return {**super().distributor_arguments(folder), "config": config}

    def run(self, *commands: str, **values):
        """Run commands to their ends."""
        with self.direct(self.folder) as adapter:
            launches = [self.launch(self.folder, n, one, **values) for n, one in enumerate(commands, start=1)]
            adapter.spawn(launches)
            found = self.endings(adapter, len(commands))
            adapter.acknowledge(list(found))
        return found

    def output(self, identity: int = 1) -> str:
        return (self.folder / f"{identity}.log").read_text()


@pytest.fixture(scope="module")
def base():
    """Return the folder in which cgroups can be created here; skip the test only where no user could create any."""
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


def folder_of(adapter, base: Path) -> Path:
    """Return the folder of its supervisor's cgroups."""
    return base / f"{cgroups.NAME}{read_journal(adapter.paths.journal).pid}"


def is_gone(pid: int) -> bool:
    """Return whether a process has exited; without a parent that reaps it, it remains a zombie."""
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


@pytest.mark.parametrize("plugin", ["multiprocess", "sequential"])
def test_what_uses_more_than_it_asked_for_is_killed(local, plugin):
    local.plugin = plugin
    found = local.run(f"exec {HOG}", "sleep 0.3", requested_resources=ASKED)
    assert (found[1].signal, found[1].memory_limit_bytes, found[1].killed) == (9, int(LIMIT_GIB * 2**30), False)
    assert found[1].max_rss_bytes > 0.9 * LIMIT_GIB * 2**30
    assert (found[2].exit_code, found[2].memory_limit_bytes) == (0, None)


def test_its_whole_group_ends_also_where_a_child_of_the_shell_is_hit(local):
    """The shell would live on."""
    found = local.run(f"{HOG}; sleep 60; echo lived on", requested_resources=ASKED)
    assert (found[1].signal, found[1].memory_limit_bytes) == (9, int(LIMIT_GIB * 2**30))
    assert "lived on" not in local.output()


def test_memory_of_several_processes_counts_together_and_shared_pages_once(local):
    own = "[os.fork() or (bytearray(40 << 20), time.sleep(60)) for _ in range(3)]; time.sleep(60)"
    looks = "time.sleep(0.5); os.killpg(0, 15)"
    shared = f"x = bytearray(40 << 20); [os.fork() or time.sleep(60) for _ in range(3)]; {looks}"
    found = local.run(program(own), program(shared), requested_resources={"memory": 0.1, "cores": 0.1})
    assert found[1].memory_limit_bytes is not None
    assert (found[2].signal, found[2].memory_limit_bytes) == (15, None)


def test_what_cannot_start_says_why_also_with_a_limit(local, tmp_path):
    with local.direct(tmp_path) as adapter:
        adapter.spawn(
            [
                local.launch(tmp_path, 1, "true", requested_resources=ASKED, shell=("/no/shell", "-c")),
                local.launch(tmp_path, 2, "true", requested_resources=ASKED, working_directory="/dev/null/folder"),
                local.launch(tmp_path, 3, "true", requested_resources=ASKED, stdout="/dev/null/folder/out"),
                local.launch(tmp_path, 4, "true " + "x" * 200_000, requested_resources=ASKED),
                local.launch(tmp_path, 5, "exit 127", requested_resources=ASKED),
            ]
        )
        found = local.endings(adapter, 5)
    assert found[1].not_started == "'/no/shell' cannot be started: No such file or directory"
    assert "working directory '/dev/null/folder'" in found[2].not_started
    assert "output file '/dev/null/folder/out'" in found[3].not_started
    assert "longer than the system allows" in found[4].not_started
    assert (found[5].exit_code, found[5].not_started) == (127, None)


def test_a_limit_changes_nothing_else_for_a_command(local, tmp_path, monkeypatch):
    monkeypatch.setenv("ODD", os.fsdecode(b"\xff\xfe"))
    look = "grep -i 'SigBlk' /proc/self/status; ls /proc/self/fd | wc -l; umask; ps -o pgid= -p $$; echo $$;"
    command = f'{look} env | sort | grep -v -e PWD -e ATTEMPT_MARK; cat; printf %s "$ODD"; echo err >&2'
    with local.direct(tmp_path) as adapter:
        for identity, asked in ((1, {}), (2, ASKED)):
            adapter.spawn([local.launch(tmp_path, identity, command, requested_resources=asked)])
            assert local.endings(adapter, 1)[identity].exit_code == 0
    free, held = ((tmp_path / f"{identity}.log").read_bytes().split(b"\n") for identity in (1, 2))
    pids = slice(3, 5)
    assert held[pids][0].strip() == held[pids][1], "it leads its process group"
    del free[pids], held[pids]
    assert free == held


# -- cgroups -----------------------------------------------------------------------------------------------------------


def test_a_burst_is_seen_however_short_it_is(fenced):
    found = fenced.run(*[program("bytearray(100 << 20)")] * 5, requested_resources=ASKED)
    assert all(one.memory_limit_bytes for one in found.values())


def test_a_command_that_ended_well_although_a_part_of_it_was_killed_was_out_of_memory(fenced):
    found = fenced.run(f"{HOG}; true", requested_resources=ASKED)
    assert found[1].memory_limit_bytes == int(LIMIT_GIB * 2**30)


def test_nothing_escapes_by_leaving_its_process_group(fenced, tmp_path):
    escaped = program(f'os.setsid(); open("{tmp_path}/pid", "w").write(str(os.getpid())); time.sleep(60)')
    with fenced.direct(tmp_path) as adapter:
        adapter.spawn([fenced.launch(tmp_path, 1, f"{escaped} & wait", requested_resources=ASKED)])
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        adapter.terminate_task_instances(["1"])
        assert fenced.endings(adapter, 1)[1].killed
        until(lambda: is_gone(int((tmp_path / "pid").read_text())))


def test_files_that_the_kernel_keeps_in_memory_do_not_count(fenced, tmp_path):
    if paths.file_system_type(tmp_path, paths.mounts()) == "tmpfs":
        pytest.skip("files of this folder are memory")
    found = fenced.run(
        f"head -c 100M /dev/zero > {tmp_path}/big; cat {tmp_path}/big > /dev/null", requested_resources=ASKED
    )
    assert (found[1].exit_code, found[1].memory_limit_bytes) == (0, None)
    assert found[1].max_rss_bytes < 30 * MIB


def test_the_peak_is_that_of_all_processes_together(fenced):
    both = program(
        "[os.fork() or (bytearray(30 << 20), time.sleep(0.2), os._exit(0)) for _ in range(2)]; os.wait(); os.wait()"
    )
    found = fenced.run(both, requested_resources={"memory": 0.25, "cores": 0.1})
    assert found[1].exit_code == 0
    assert 60 * MIB < found[1].max_rss_bytes < 120 * MIB


def test_no_group_is_made_for_what_asks_for_no_memory_and_none_is_left(fenced, base, tmp_path):
    with fenced.direct(tmp_path) as adapter:
        folder = folder_of(adapter, base)
        adapter.spawn([fenced.launch(tmp_path, 1, "true")])
        fenced.endings(adapter, 1)
        assert not folder.exists()
        adapter.spawn([fenced.launch(tmp_path, 2, "true", requested_resources=ASKED)])
        fenced.endings(adapter, 1)
        assert folder.exists()
        until(lambda: not list(folder.glob("*/")))
        adapter.acknowledge([1, 2])
    until(lambda: not folder.exists())


def test_what_a_command_leaves_is_ended_before_its_group_is_removed(fenced, base, tmp_path):
    with fenced.direct(tmp_path) as adapter:
        left = "setsid sleep 60 > /dev/null 2>&1 & echo $!"
        adapter.spawn([fenced.launch(tmp_path, 1, left, requested_resources=ASKED)])
        assert fenced.endings(adapter, 1)[1].exit_code == 0
        assert is_gone(int(fenced.output()))
        assert not (folder_of(adapter, base) / "1").exists()


def test_what_a_killed_supervisor_left_is_killed_and_removed(fenced, base, tmp_path):
    with fenced.direct(tmp_path) as adapter:
        escaped = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60'"
        adapter.spawn([fenced.launch(tmp_path, 1, f"{escaped} & wait", requested_resources=ASKED)])
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        leftovers = read_journal(adapter.paths.journal)
        assert leftovers.groups_folder == str(folder_of(adapter, base))
        os.kill(leftovers.pid, signal.SIGKILL)
        until(lambda: not adapter.collect_exits() and not adapter.is_connected())
        adapter.start()
        until(lambda: is_gone(int((tmp_path / "pid").read_text())))
        adapter.spawn([fenced.launch(tmp_path, 2, "true", requested_resources=ASKED)])
        assert {1, 2} == set(fenced.endings(adapter, 2))
        until(lambda: not Path(leftovers.groups_folder).exists())


def test_groups_of_a_supervisor_that_nobody_missed_are_removed_by_the_next_one(base):
    orphan = base / f"{cgroups.NAME}{2**22 + 1}"  # no process has this id
    (orphan / "7").mkdir(parents=True)
    groups = cgroups.found()
    groups.close()
    assert not orphan.exists()
