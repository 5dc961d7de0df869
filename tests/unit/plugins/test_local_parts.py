"""Parts of the local clusters that need no process."""

import os
import resource
import signal

import pytest

from jobmon.agent import cgroups, command_journal
from jobmon.agent.recovery import read_journal
from jobmon.plugins.local import machine


@pytest.fixture
def journal(tmp_path):
    one = command_journal.Journal(str(tmp_path / "journal"))
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
    journal = command_journal.Journal("/dev/null/journal")
    journal.write([started(1)])
    journal.rewrite([])
    assert journal.size == 0


def test_a_journal_that_could_not_be_made_is_made_when_it_can_be(tmp_path):
    folder = tmp_path / "missing"
    journal = command_journal.Journal(str(folder / "journal"))
    journal.write([started(1)])
    assert journal.retry_at is not None
    folder.mkdir()
    journal.retry(journal.retry_at)
    assert list(read_journal(folder / "journal").live) == [1]
    assert journal.retry_at is None
    os.close(journal._descriptor)


def test_what_could_not_be_written_is_written_without_other_news(journal, tmp_path):
    real, journal._descriptor = journal._descriptor, os.open("/dev/full", os.O_WRONLY)
    journal.write([started(1)])
    os.close(journal._descriptor)
    journal._descriptor = real
    due = journal.retry_at
    journal.retry(due - 0.001)
    assert list(read_journal(tmp_path / "journal").live) == []
    journal.retry(due)
    assert list(read_journal(tmp_path / "journal").live) == [1]


def test_a_full_disk_costs_no_descriptors_and_is_said_once_a_minute(journal, tmp_path, capsys):
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        for _ in range(50):
            journal.rewrite([started(one) for one in range(100)])
            journal.write([started(7) * 50])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not (tmp_path / "journal.new").exists()
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_a_journal_begins_anew_with_what_is_needed(journal, tmp_path):
    journal.write([started(one) for one in range(100)])
    size = journal.size
    journal.rewrite([started(7)])
    assert journal.size < size
    leftovers = read_journal(tmp_path / "journal")
    assert (list(leftovers.live), leftovers.pid) == ([7], os.getpid())


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


def test_what_could_not_be_started_and_was_then_is_not_over(tmp_path):
    path = tmp_path / "journal"
    path.write_text(f'["b",5,"boot"]\n["e",1,{{"task_instance_id":1}}]\n{started(1)}')
    leftovers = read_journal(path)
    assert (list(leftovers.live), leftovers.ended, leftovers.mark_root) == ([1], {}, "")
