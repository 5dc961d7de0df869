"""The plug-ins of this machine keep the contract of all plug-ins, and end what an earlier version left running."""

import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from typing import ClassVar

import pytest

from jobmon.agent import processes
from jobmon.agent.machine import boot_id
from jobmon.agent.recovery import kill_leftovers, read_journal
from jobmon.core import paths
from jobmon.core.cluster import default_queues, load_plugin
from jobmon.plugins.local import earlier
from jobmon.testing.cluster_contract import ClusterContract

pytestmark = pytest.mark.timeout(30)


class TestMultiprocess(ClusterContract):
    plugin = "multiprocess"
    bad_request: ClassVar = {"cores": 100_000}

    def test_workflows_of_a_data_folder_share_its_cores(self, tmp_path):
        with self.distributor(tmp_path) as adapter, self.distributor(tmp_path / "other") as other:
            assert adapter.agent_offer().pool != other.agent_offer().pool
            assert str(adapter.agent_offer().pool).startswith("under-test:")


class TestSequential(ClusterContract):
    plugin = "sequential"
    bad_request: ClassVar = {"cores": 100_000}

    def test_it_offers_one_slot_that_each_command_takes(self, tmp_path):
        with self.distributor(tmp_path) as adapter:
            offer = adapter.agent_offer()
        assert (offer.cores, offer.is_whole) == (1.0, True)


class TestDummy(ClusterContract):
    plugin = "dummy"
    runs_commands = False


def test_a_queue_refuses_more_than_the_machine_has():
    kind = load_plugin("multiprocess").get_cluster_queue_class()
    (name, parameters), *_ = default_queues("multiprocess")
    is_valid, message = kind(1, name, parameters).validate_resources(strict=True, cores=1, memory=1_000_000)
    assert not is_valid
    assert "memory" in message


def test_a_torn_journal_is_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / "journal"
    entries = [["b", 5, "boot"], ["s", 1, 10, 1.0, 2.0], ["s", 2, 11, 1.0, 2.0], ["e", 1, 10, 0]]
    path.write_text("".join(json.dumps(one) + "\n" for one in entries) + '["e", 2, 1')
    leftovers = read_journal(path)
    assert (leftovers.pid, set(leftovers.live), set(leftovers.ended)) == (5, {2}, {1})
    assert kill_leftovers(leftovers) == 0, "of another boot"
    assert read_journal(tmp_path / "none").live == {}


SUPERVISOR = """
import json, os, subprocess, sys, time
child = subprocess.Popen(["sleep", "300"], env={**os.environ, "JOBMON_ATTEMPT_MARK": "feed-1"}, start_new_session=True)
boot = open("/proc/sys/kernel/random/boot_id").read().strip()
with open(sys.argv[2] + ".new", "w") as journal:
    journal.write(json.dumps(["b", os.getpid(), boot, "feed", 0]) + chr(10))
os.rename(sys.argv[2] + ".new", sys.argv[2])
print(child.pid, flush=True)
time.sleep(300)
"""


def test_the_supervisor_of_an_earlier_version_is_ended_with_its_commands(tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="jt-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        adapter = load_plugin("multiprocess").get_cluster_distributor_class()(
            "multiprocess", workflow_id=3, data_folder=tmp_path
        )
        key = hashlib.sha256(f"{tmp_path}\0{3}\0multiprocess".encode()).hexdigest()[:16]
        journal = paths.runtime_directory() / f"supervisor-{key}.journal"
        words = [sys.executable, "-c", SUPERVISOR, "--journal", str(journal)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as old:
            command = int(old.stdout.readline())
            adapter.start()
            assert old.wait(10) == -signal.SIGKILL
        _until(lambda: processes.read(command) is None)
        assert not journal.exists()
        adapter.start()  # nothing is left to do


def test_a_process_that_has_got_the_pid_of_an_earlier_supervisor_is_spared(tmp_path):
    journal = tmp_path / "supervisor-1.journal"
    with subprocess.Popen(["sleep", "60"]) as other:
        journal.write_text(json.dumps(["b", other.pid, boot_id(), "feed", 0]) + "\n")
        assert earlier.end_supervisor(journal, ()) == 0
        assert other.poll() is None
        other.kill()
    assert not journal.exists()


def _until(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
