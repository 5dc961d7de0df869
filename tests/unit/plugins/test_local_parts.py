"""Parts of the local clusters that need no process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from jobmon.plugins.local import attempts, commands, link, machine, supervisor
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


def test_the_machine_lets_us_use_something():
    assert 1 <= machine.usable_cpus() <= (os.cpu_count() or 1)
    assert machine.usable_memory_gib() > 0


@pytest.mark.parametrize(("content", "cpus"), [("max 100000", None), ("150000 100000", 1.5), ("", None)])
def test_quotas_of_a_cgroup(tmp_path, content, cpus):
    (tmp_path / "cpu.max").write_text(content)
    assert machine._cpu_quota(tmp_path) == cpus


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
