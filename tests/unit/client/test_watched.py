"""What a process knows about its watcher, and what it reports."""

from __future__ import annotations

import json
import os

import pytest

from jobmon.agent.watcher import VARIABLE
from jobmon.client import watched

TOKEN = "0b5c1ab8-7d7c-4cd4-9d7f-4b7a54a6c2f4"


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def watch(monkeypatch, tmp_path, pipe):
    """Make this process a watched one."""
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path))

    def pretend(**changes):
        watched._of.cache_clear()
        log = tmp_path / "logs" / watched.SCRIPTS_FOLDER / "script.log"
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        log.write_text("output\n")
        about = {
            "pid": os.getppid(),
            "report": pipe[1],
            "log": str(log),
            "token": TOKEN,
            "is_restart": False,
            "runs": {},
        }
        monkeypatch.setenv(VARIABLE, json.dumps(about | changes))

    yield pretend
    watched._of.cache_clear()


def reports(pipe):
    return [json.loads(line) for line in os.read(pipe[0], 65_536).splitlines()]


def test_a_process_without_a_watcher_reports_nothing(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    watched._of.cache_clear()
    watched.note_run(1, 2)
    watched.note_progress()
    assert (watched.is_restart(), watched.run_before(1)) == (False, None)
    assert watched.random_args() != watched.random_args()


@pytest.mark.parametrize("value", ["", "x", "[]", "7", '{"pid": 1}', '{"pid": "x", "report": "y"}'])
def test_a_variable_that_no_watcher_has_set_is_ignored(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    watched._of.cache_clear()
    assert not watched.is_restart()


def test_a_watcher_of_another_process_does_not_count(watch, pipe):
    watch(pid=1, is_restart=True, runs={"5": 7})
    assert (watched.is_restart(), watched.run_before(5)) == (False, None)
    assert VARIABLE not in os.environ


def test_commands_do_not_inherit_the_watcher(watch, pipe):
    watch()
    assert not watched.is_restart()
    assert VARIABLE not in os.environ
    assert not os.get_inheritable(pipe[1])


def test_a_restarted_script_gets_the_same_random_args_in_the_same_order(watch):
    watch()
    first = [watched.random_args() for _ in range(3)]
    watch(is_restart=True)
    assert [watched.random_args() for _ in range(3)] == first
    assert len(set(first)) == 3


def test_only_a_restarted_process_has_a_predecessor(watch):
    watch(runs={"5": 7})
    assert watched.run_before(5) is None
    watch(runs={"5": 7}, is_restart=True)
    assert (watched.run_before(5), watched.run_before(6)) == (7, None)


def test_the_log_moves_to_the_first_run_and_the_later_ones_share_it(watch, pipe, tmp_path):
    watch()
    watched.note_run(5, 7)
    watched.note_run(6, 8)
    watched.note_progress()
    first, second, progress = reports(pipe)
    path = tmp_path / "logs" / "5" / "run-7.log"
    assert first == {"workflow": 5, "run": 7, "log": str(path)}
    assert second == {"workflow": 6, "run": 8, "log": str(path)}
    assert progress == {}
    assert list((tmp_path / "logs" / watched.SCRIPTS_FOLDER).iterdir()) == []
    path.write_text("more\n")
    assert watched.log_path(6, 8).read_text() == "more\n"
    assert watched.log_path(6, 8).parent.stat().st_mode & 0o777 == 0o700


def test_a_log_that_cannot_be_named_after_its_run_stays_where_it_is(watch, pipe, tmp_path):
    watch()
    (tmp_path / "logs" / "5").write_text("a file where the folder should be")
    watched.note_run(5, 7)
    (report,) = reports(pipe)
    assert report["log"].endswith("script.log")


def test_a_dead_watcher_is_no_error(watch, pipe):
    watch()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, pipe[0])  # the other end of the pipe is closed
    os.close(null)
    watched.note_progress()
    watched.note_run(1, 2)
