"""The plug-ins for this machine fulfil the contract of all plug-ins."""

import json
import os
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import pytest

from jobmon.agent import processes
from jobmon.agent.recovery import kill_leftovers, read_journal
from jobmon.core.cluster import default_queues, load_plugin
from jobmon.core.configuration import JobmonConfig
from jobmon.plugins.local.link import supervisor_paths
from jobmon.testing.cluster_contract import ClusterContract

pytestmark = pytest.mark.timeout(30)


class LocalContract(ClusterContract):
    bad_request: ClassVar = {"cores": 100_000}

    def distributor_arguments(self, folder):
        config = JobmonConfig(
            dict_config={
                "worker_node": {"command_interrupt_timeout": 0.3},
                "supervisor": {"idle_timeout": 2},
                "multiprocess": {"slots": 2},
            }
        )
        return {**super().distributor_arguments(folder), "config": config}


class TestMultiprocess(LocalContract):
    plugin = "multiprocess"

    def test_its_files_are_private(self, tmp_path):
        with self.direct(tmp_path) as adapter:
            for path in (adapter.paths.socket, adapter.paths.journal, adapter.paths.lock):
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
            assert stat.S_IMODE(adapter.paths.socket.parent.stat().st_mode) == 0o700

    def test_a_supervisor_without_work_leaves_at_once(self, tmp_path):
        with self.direct(tmp_path) as adapter:
            adapter.spawn([self.launch(tmp_path, 1, "true")])
            adapter.acknowledge(list(self.endings(adapter, 1)))
        _until(lambda: not adapter.paths.socket.exists() and not adapter.paths.journal.exists())

    def test_what_a_dead_supervisor_left_is_found_again_until_it_is_acknowledged(self, tmp_path):
        """The process that found it first may die before it reports it."""
        with self.direct(tmp_path) as adapter:
            adapter.spawn([self.launch(tmp_path, 1, "exit 3")])
            _until(lambda: '["e",1' in adapter.paths.journal.read_text())
            os.kill(read_journal(adapter.paths.journal).pid, signal.SIGKILL)
        with self.direct(tmp_path) as first:  # finds it, starts its own supervisor, and reports nothing
            assert self.endings(first, 1)[1].exit_code == 3
        with self.direct(tmp_path) as second:
            assert self.endings(second, 1)[1].exit_code == 3
            second.acknowledge([1])
            assert not second.paths.left.exists()
        with self.direct(tmp_path) as third:
            assert third.collect_exits() == []

    @pytest.mark.parametrize("gone", ["folder", "socket", "lock", "journal"])
    def test_a_supervisor_whose_files_were_removed_is_found_again_with_what_it_runs(self, tmp_path, gone):
        command = f"echo once >> {tmp_path}/ran; while ! test -e {tmp_path}/go; do sleep 0.05; done; exit 3"
        with self.direct(tmp_path) as adapter:
            adapter.spawn([self.launch(tmp_path, 1, command)])
            _until((tmp_path / "ran").exists)
            _until(lambda: '["s",1' in adapter.paths.journal.read_text())
            supervisor_pid = read_journal(adapter.paths.journal).pid
            if gone == "folder":
                shutil.rmtree(adapter.paths.socket.parent)
            else:
                getattr(adapter.paths, gone).unlink()
        with self.direct(tmp_path) as successor:
            _until(successor.paths.journal.exists)
            _until(lambda: '["s",1' in successor.paths.journal.read_text())
            assert read_journal(successor.paths.journal).pid == supervisor_pid
            (tmp_path / "go").touch()
            assert self.endings(successor, 1)[1].exit_code == 3
            successor.acknowledge([1])
        assert (tmp_path / "ran").read_text() == "once\n"
        _until(lambda: not successor.paths.socket.exists() and not successor.paths.journal.exists())

    def test_a_supervisor_whose_folder_went_with_the_login_moves_to_the_temporary_folder(self, tmp_path, monkeypatch):
        with tempfile.TemporaryDirectory(prefix="jt-") as temporary:
            monkeypatch.setattr(tempfile, "tempdir", temporary)
            login = Path(temporary, "1000")
            login.mkdir()
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(login))
            with self.direct(tmp_path) as adapter:
                waits = f"while ! test -e {tmp_path}/go; do sleep 0.05; done"
                adapter.spawn([self.launch(tmp_path, 1, f"echo once >> {tmp_path}/ran; {waits}; exit 3")])
                _until((tmp_path / "ran").exists)
                assert adapter.paths.socket.is_relative_to(login)
                shutil.rmtree(login)
            with self.direct(tmp_path) as successor:
                assert not successor.paths.socket.is_relative_to(login)
                (tmp_path / "go").touch()
                assert self.endings(successor, 1)[1].exit_code == 3
                successor.acknowledge([1])
            assert (tmp_path / "ran").read_text() == "once\n"
            _until(lambda: not successor.paths.socket.exists())

    def test_slots_and_wide_commands(self, tmp_path):
        marks = tmp_path / "marks"
        marks.mkdir()
        count = f"touch {marks}/$$; ls {marks} | wc -l; sleep 0.05; rm {marks}/$$"
        with self.direct(tmp_path) as adapter:
            wide = {"cores": 2}
            launches = [
                self.launch(tmp_path, n, count, requested_resources=wide if n % 3 == 0 else {}) for n in range(9)
            ]
            adapter.spawn(launches)
            self.endings(adapter, 9)
        seen = {n: int((tmp_path / f"{n}.log").read_text()) for n in range(9)}
        assert max(seen.values()) <= 2
        assert {seen[n] for n in (0, 3, 6)} == {1}

    def test_memory_that_is_asked_for_is_respected(self, tmp_path):
        with self.direct(tmp_path) as adapter:
            half = {"memory": adapter.memory_gib() * 0.6, "cores": 0.1}
            adapter.spawn([self.launch(tmp_path, n, "sleep 0.1", requested_resources=half) for n in (1, 2)])
            found = self.endings(adapter, 2)
        assert found[2].started_at >= found[1].ended_at - 0.01

    def test_a_newer_distributor_wins(self, tmp_path):
        with self.direct(tmp_path) as older, self.direct(tmp_path) as newer:
            _until(lambda: older.collect_exits() == [] and older.fileno() == -1)
            newer.spawn([self.launch(tmp_path, 1, "true")])
            assert self.endings(newer, 1)[1].exit_code == 0

    def test_launching_twice_starts_once(self, tmp_path):
        with self.direct(tmp_path) as adapter:
            launch = self.launch(tmp_path, 1, f"echo once >> {tmp_path}/count")
            adapter.spawn([launch])
            adapter.spawn([launch])
            self.endings(adapter, 1)
            adapter.spawn([self.launch(tmp_path, 2, "true")])
            self.endings(adapter, 1)
        assert (tmp_path / "count").read_text() == "once\n"

    def test_recalled_work_is_given_back(self, tmp_path):
        with self.direct(tmp_path) as adapter:
            adapter.spawn([self.launch(tmp_path, n, "sleep 0.3") for n in range(5)])
            _until((tmp_path / "1.log").exists)
            adapter.recall()
            found = self.endings(adapter, 5)
        assert sorted(one.lost is None for one in found.values()) == [False, False, False, True, True]

    def test_unknown_commands_of_a_dead_supervisor_are_found_by_its_session(self, tmp_path):
        with self.direct(tmp_path) as adapter:
            pid_file = tmp_path / "pid"
            adapter.spawn([self.launch(tmp_path, 1, f"sleep 60 & echo $! > {pid_file}; wait")])
            _until(lambda: pid_file.exists() and pid_file.read_text())
            leftovers = read_journal(adapter.paths.journal)
            os.kill(leftovers.pid, signal.SIGKILL)
            leftovers.live.clear()
            assert kill_leftovers(leftovers) >= 2
            _until(lambda: not adapter.collect_exits() and not adapter.is_connected())
            adapter.start()
            assert self.endings(adapter, 1)[1].lost

    def test_what_left_the_session_of_a_dead_supervisor_is_found_by_its_mark(self, tmp_path):
        with self.direct(tmp_path) as adapter:
            pid_file = tmp_path / "pid"
            hides = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 60'"
            adapter.spawn([self.launch(tmp_path, 1, f"(setsid {hides} &); sleep 60")])
            _until(lambda: pid_file.exists() and pid_file.read_text())
            os.kill(read_journal(adapter.paths.journal).pid, signal.SIGKILL)
            _until(lambda: not adapter.collect_exits() and not adapter.is_connected())
            adapter.start()
            assert self.endings(adapter, 1)[1].lost
        assert processes.read(int(pid_file.read_text())) is None

    def test_the_server_for_which_commands_run_outlives_them_even_if_one_started_it(self, tmp_path):
        with self.direct(tmp_path) as adapter:
            access = tmp_path / "server.json"
            server = f"umask 077; setsid sleep 60 & echo '{{\"pid\": '$!'}}' > {access}"
            adapter.spawn([self.launch(tmp_path, 1, f"{server}; sleep 61 & true")])
            assert self.endings(adapter, 1)[1].exit_code == 0
            pid = json.loads(access.read_text())["pid"]
            assert processes.read(pid) is not None
            os.kill(pid, signal.SIGKILL)

    def test_bytes_that_are_no_text_in_environment_and_names(self, tmp_path, monkeypatch):
        monkeypatch.setenv("ODD", os.fsdecode(b"\xff\xfe"))
        with self.direct(tmp_path) as adapter:
            adapter.spawn([self.launch(tmp_path, 1, 'printf %s "$ODD"')])
            self.endings(adapter, 1)
        assert (tmp_path / "1.log").read_bytes() == b"\xff\xfe"

    def test_ignored_signals_do_not_reach_commands(self, tmp_path):
        with self.direct(tmp_path) as adapter:
            adapter.spawn([self.launch(tmp_path, 1, "grep -i 'SigIgn\\|SigBlk' /proc/self/status")])
            self.endings(adapter, 1)
        values = {int(line.split()[1], 16) for line in (tmp_path / "1.log").read_text().splitlines()}
        assert {value & 0x7FFFFFFF for value in values} == {0}, "of the signals that programs use"


class TestSequential(LocalContract):
    plugin = "sequential"


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


def test_paths_fit_a_socket(tmp_path):
    paths = supervisor_paths(2**63, tmp_path / ("x" * 200), "a cluster with a long name")
    assert len(str(paths.socket)) < 108


def _until(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
