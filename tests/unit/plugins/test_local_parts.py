"""Parts of the local clusters that need no process."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from jobmon.plugins.local import attempts, cgroups, commands, link, machine, supervisor
from jobmon.plugins.local.remains import read_journal


@pytest.fixture
def journal(tmp_path):
    one = attempts.Journal(str(tmp_path / "journal"))
    yield one
    os.close(one._descriptor)


def started(identity):
    return f'["s",{identity},{identity + 100},1.0,2.0]\n'


def test_a_full_disk_delays_the_journal_and_ends_nothing(journal, tmp_path):
    journal.write([started(1)])
    real, journal._descriptor = journal._descriptor, os.open("/dev/full", os.O_WRONLY)
    journal.write([started(2)])
    os.close(journal._descriptor)
    journal._descriptor = real
    journal.write([started(3)])
    assert list(read_journal(tmp_path / "journal").live) == [1, 2, 3]


def test_a_journal_that_cannot_be_made_ends_nothing():
    journal = attempts.Journal("/no/such/folder/journal")
    journal.write([started(1)])
    journal.rewrite([])
    assert journal.size == 0


def test_a_journal_begins_anew_with_what_is_needed(journal, tmp_path):
    journal.write([started(one) for one in range(100)])
    size = journal.size
    journal.rewrite([started(7)])
    assert journal.size < size
    remains = read_journal(tmp_path / "journal")
    assert (list(remains.live), remains.supervisor_pid) == ([7], os.getpid())


def test_its_journal_is_pruned_while_commands_run(tmp_path):
    journal = attempts.Journal(str(tmp_path / "journal"))
    held = commands.Commands(journal)
    running = attempts.Running(5, 50, 1.0, 0.0)
    held.running[50] = held.live[5] = running
    journal.write([started(one) + " " * 5_000 + "\n" for one in range(1_000)])
    assert journal.size > attempts.JOURNAL_BYTES_MAX
    held.acknowledge([])
    assert journal.size < 1_000
    assert list(read_journal(tmp_path / "journal").live) == [5]
    os.close(journal._descriptor)


def test_told_endings_are_json():
    ending = json.loads(attempts.not_started(3, 'a "reason"\nof two lines'))
    assert ending[0] == 3
    assert ending[4] == 'a "reason"\nof two lines'


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_how_long_a_command_took_does_not_depend_on_a_clock_that_is_set_meanwhile(monkeypatch, jump):
    running = attempts.Running(5, 50, 1.0, 0.0)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    told = json.loads(attempts.ending(running, 0, resource.getrusage(resource.RUSAGE_SELF)))
    begin, end = told[6:8]
    assert begin == running.started
    assert 0.0 <= end - begin < 30.0


def test_the_machine_lets_us_use_something():
    assert 1 <= machine.usable_cpus() <= (os.cpu_count() or 1)
    assert machine.usable_memory_gib() > 0


@pytest.mark.parametrize(
    ("files", "cpus", "gib"),
    [
        ({"cpu.max": "max 100000", "memory.max": "max"}, 8, 64),
        ({"cpu.max": "350000 100000", "memory.max": str(3 << 30)}, 3, 3),
        ({"../cpu.max": "150000 100000", "../memory.max": str(2 << 30), "memory.max": str(3 << 30)}, 1, 2),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000", "memory.limit_in_bytes": str(2**63 - 4096)}, 8, 64),
        ({"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000", "memory.limit_in_bytes": str(5 << 30)}, 2, 5),
        ({}, 8, 64),
    ],
)
def test_limits_of_a_cgroup_are_limits_of_what_can_be_used(tmp_path, monkeypatch, files, cpus, gib):
    group = tmp_path / "group"
    group.mkdir()
    for name, content in files.items():
        (group / name).write_text(content)
    monkeypatch.setattr(machine, "own_folder", lambda controller="": str(group))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 24}.__getitem__)
    assert (machine.usable_cpus(), machine.usable_memory_gib()) == (cpus, gib)


@pytest.mark.parametrize(
    ("mounts", "own", "controller", "folder"),
    [
        ("31 23 0:28 / /cg rw - cgroup2 none rw", "0::/a/b", "", "/cg/a/b"),
        ("31 23 0:28 / /cg rw shared:4 - cgroup2 none rw", "0::/", "", "/cg"),
        ("32 31 0:29 / /cg/memory rw - cgroup cgroup rw,memory", "4:memory:/a\n0::/", "memory", "/cg/memory/a"),
        ("32 31 0:29 /docker/1 /cg/m rw - cgroup cgroup rw,memory", "4:memory:/docker/1/x", "memory", "/cg/m/x"),
        ("32 31 0:29 /docker/1 /cg/m rw - cgroup cgroup rw,memory", "4:memory:/docker/12", "memory", None),
        ("32 31 0:29 / /cg/c rw - cgroup cgroup rw,cpu,cpuacct", "4:cpu,cpuacct:/a", "cpu", "/cg/c/a"),
        ("32 31 0:29 / /cg rw - cgroup2 none rw", "0::/../outside", "", None),
        ("31 23 0:28 / /cg rw - tmpfs tmpfs rw", "0::/", "", None),
        ("31 23 0:28 / /cg rw - cgroup2 none rw", "", "", None),
    ],
)
def test_the_folder_of_the_own_cgroup(monkeypatch, mounts, own, controller, folder):
    files = {"/proc/self/mountinfo": mounts.encode(), "/proc/self/cgroup": own.encode()}
    monkeypatch.setattr(cgroups, "_read", files.__getitem__)
    assert cgroups.own_folder(controller) == folder


def test_the_supervisor_is_small():
    code = (
        "import sys; sys.path.append(sys.argv[1]); import jobmon.plugins.local.supervisor;"
        "print(*[m for m in sys.modules if m in ('typing', 'dataclasses', 'subprocess', 'threading', 'ssl', 'pathlib')"
        " or m.startswith('jobmon.core')])"
    )
    words = [sys.executable, "-I", "-S", "-c", code, str(Path(supervisor.__file__).parents[3])]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "\n"


def test_a_supervisor_that_dies_at_its_start_is_not_waited_for(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="jt-") as short:  # a socket's path may not be long
        tried_again_at_once(Path(short), monkeypatch)


def tried_again_at_once(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nmkdir {tmp_path}/failed 2> /dev/null && exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    paths = link.SupervisorPaths(*(tmp_path / name for name in ("socket", "journal", "lock", "log", "left")))
    begin = time.monotonic()
    line = link.SupervisorLink(paths, 5.0)
    line.send(["end"])
    line.close()
    assert (tmp_path / "failed").is_dir()
    assert time.monotonic() - begin < link.CONNECT_TIMEOUT_SECONDS / 2
