"""Parts of the local clusters that need no process."""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from jobmon.agent import cgroups, command_journal
from jobmon.agent.attempts import Attempt
from jobmon.agent.recovery import read_journal
from jobmon.agent.starting import Launch, NotStarted
from jobmon.plugins.local import link, machine, supervisor
from jobmon.plugins.local.commands import WaitingCommands


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


def test_a_supervisor_that_cannot_accept_waits_instead_of_spinning(tmp_path):
    """The listener stays readable while there are too few descriptors."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    lock = os.open(place / "l", os.O_RDWR | os.O_CREAT)
    server = supervisor.Supervisor((str(place / "s"), str(place / "j"), str(place / "l")), lock, "", 60.0)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(place / "s"))
        listener = server._listener
        server._listener = Refusing(listener)
        server._wait()
        assert server._timeout_milliseconds() > 0
        assert listener.fileno() not in [fd for fd, _ in server._poll.poll(0)]
        server._listener = listener
        server._accept_at = 0.0
        server._listen_again()
        server._wait()
        assert server._connection is not None
        server._hang_up()
    listener.close()
    os.close(server._bell.fileno())
    os.close(signal.set_wakeup_fd(-1))
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.close(server._journal._descriptor)
    server._files.presence.close()
    os.close(lock)


class Refusing:
    """A listener for whose connections there is no descriptor."""

    def __init__(self, real):
        self.fileno = real.fileno

    def accept(self):
        raise OSError(errno.EMFILE, "Too many open files")


def test_a_journal_begins_anew_with_what_is_needed(journal, tmp_path):
    journal.write([started(one) for one in range(100)])
    size = journal.size
    journal.rewrite([started(7)])
    assert journal.size < size
    leftovers = read_journal(tmp_path / "journal")
    assert (list(leftovers.live), leftovers.pid) == ([7], os.getpid())


def test_its_journal_is_pruned_while_commands_run(tmp_path):
    journal = command_journal.Journal(str(tmp_path / "journal"))
    held = WaitingCommands(journal)
    held.running[5] = attempt_of(5)
    held.running[5].start(50, 0.0, 1.0, 2.0)
    journal.write([started(one) + " " * 5_000 + "\n" for one in range(1_000)])
    assert journal.size > command_journal.JOURNAL_BYTES_MAX
    held.acknowledge([])
    assert journal.size < 1_000
    assert list(read_journal(tmp_path / "journal").live) == [5]
    os.close(journal._descriptor)


def attempt_of(identity):
    return Attempt(Launch(identity, ["/bin/true"], {}, "/", 0o022, "/o"))


def test_told_endings_are_json():
    attempt = attempt_of(3)
    attempt.fail(NotStarted('a "reason"\nof two lines'), 1.0)
    ending = json.loads(command_journal.ending(attempt))
    assert ending[0] == 3
    assert ending[4] == 'a "reason"\nof two lines'


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


def test_a_supervisor_that_dies_again_and_again_is_given_up_at_once_with_the_last_line_of_its_log(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="jt-") as folder:
        short = Path(folder)
        python = short / "python"
        python.write_text("#!/bin/sh\necho 'OSError: no socket for you' >&2; exit 1\n")
        python.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(python))
        paths = link.SupervisorPaths(*(short / name for name in ("socket", "journal", "lock", "log", "left")))
        with pytest.raises(link.SupervisorUnavailable, match=r"exit code 1\): OSError: no socket for you\. Its log: "):
            link.SupervisorLink(paths, 5.0)


def test_what_waits_is_killed_in_one_go(journal):
    held = WaitingCommands(journal)
    held.waiting.extend([one, ["/bin/true"], {}, "/", 0o022, "/o", None, None, 1.0, 0.0] for one in range(1, 101))
    held.kill([*range(2, 101), 777], 1.0)
    assert [row[0] for row in held.waiting] == [1]
    assert sorted(held.ended) == list(range(2, 101))


def test_what_could_not_be_started_and_was_then_is_not_over(tmp_path):
    path = tmp_path / "journal"
    attempt = attempt_of(1)
    attempt.fail(NotStarted("no folder", "directory", 2, "/work"), 1.0)
    failed = command_journal.journal_line(command_journal.ending(attempt))
    path.write_text(f'["b",5,"boot"]\n{failed}{started(1)}')
    leftovers = read_journal(path)
    assert (list(leftovers.live), leftovers.ended, leftovers.mark_root) == ([1], {}, "")
