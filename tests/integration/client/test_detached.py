"""`Workflow.start` and `Workflow.wait`: real leaders, watchers and agents, and what happens if one of them dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from itertools import count

import psutil
import pytest
from tests.processes import is_alive

from jobmon.client import detached, watched
from jobmon.client.api import RunHandle, TaskStatus, Tool, WorkflowRunStatus
from jobmon.client.waiting import active_runs
from jobmon.core.exceptions import (
    InvalidResources,
    WorkflowAlreadyComplete,
    WorkflowAlreadyExists,
    WorkflowRunStateError,
)
from jobmon.core.fsm import CLOSED_RUNS

pytestmark = [pytest.mark.usefixtures("data_directory"), pytest.mark.timeout(180)]
SECONDS_MAX = 60.0
WAITING_TURNS_MAX = 4_000
_numbers = count()
#: Define a workflow in another process: its args, its commands.
STARTER = """
import sys
from jobmon.client.api import Tool
tool = Tool("detached tests")
template = tool.get_task_template("run", "{command}", node_args=["command"])
workflow = tool.create_workflow(sys.argv[1])
workflow.add_tasks(template.create_tasks(command=sys.argv[2:], max_attempts=1))
handle = workflow.start()
print(handle.workflow_id, handle.workflow_run_id, flush=True)
"""


@pytest.fixture
def tool():
    tool = Tool("detached tests")
    yield tool
    tool.requester.close()


@pytest.fixture
def args():
    return f"args {next(_numbers)}"


def define(tool, args, *commands, **kwargs):
    template = tool.get_task_template("run", "{command}", node_args=["command"])
    workflow = tool.create_workflow(args, **kwargs)
    workflow.add_tasks(template.create_tasks(command=list(commands), max_attempts=1))
    return workflow


def waiting(folder, name="one"):
    """Return a command that notes that it runs, and runs until it is told to exit, or until the test has timed out."""
    until_told = f"n=0; while ! test -e {folder}/go && test $n -lt {WAITING_TURNS_MAX}; do n=$((n+1)); sleep 0.05; done"
    return f"echo x >> {folder}/ran-{name}; {until_told}"


def until(state, what):
    deadline = time.monotonic() + SECONDS_MAX
    while not (found := state()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)
    return found


def ran(folder, name="one"):
    path = folder / f"ran-{name}"
    return len(path.read_text().split()) if path.exists() else 0


def leader_of(handle):
    """Return the process that leads a workflow, as recorded."""
    (run,) = until(lambda: active_runs(handle._requester, handle.workflow_id).runs, "an active run")
    return psutil.Process(run.pid)


def watcher_of(handle):
    watcher = leader_of(handle).parent()
    assert "watcher.py" in " ".join(watcher.cmdline())
    return watcher


def test_a_started_run_continues_without_its_starter(tool, args, tmp_path):
    commands = [waiting(tmp_path, str(n)) for n in range(3)]
    started = subprocess.run(
        [sys.executable, "-c", STARTER, args, *commands],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS_MAX,
    )
    workflow_id, run_id = map(int, started.stdout.split())
    workflow = define(tool, args, *commands)
    with pytest.raises(TimeoutError, match="still running"):
        workflow.wait(timeout=0)
    handle = RunHandle(tool.requester, workflow_id, run_id, watched.log_path(workflow_id, run_id))
    assert handle.status() in (WorkflowRunStatus.BOUND, WorkflowRunStatus.RUNNING, "I", "O")
    leader, watcher = leader_of(handle), watcher_of(handle)
    assert os.getsid(leader.pid) == leader.pid
    assert leader.cmdline()[1:4] == ["-P", "-m", "jobmon.client.leader"]
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 0.5, "a measurable duration")
    (tmp_path / "go").touch()
    assert workflow.wait() == WorkflowRunStatus.DONE
    assert workflow.last_result.done_count == 3
    assert workflow.last_result.elapsed_time > 0.5  # that of the run, not of the wait
    assert (workflow.last_result.total_tasks, workflow.last_workflow_run_id) == (3, run_id)
    assert handle.status() == WorkflowRunStatus.DONE
    until(lambda: not is_alive(leader) and not is_alive(watcher), "the end of both processes")
    assert f"Workflow {workflow_id} is done" in handle.log_path.read_text()
    assert handle.log_path.stat().st_mode & 0o777 == 0o600


def test_a_workflow_is_started_once_and_resumed_on_request(tool, args, tmp_path):
    handle = define(tool, args, "true").start()
    with pytest.raises((WorkflowAlreadyExists, WorkflowAlreadyComplete)):
        define(tool, args, "true").start()
    assert handle.wait() == WorkflowRunStatus.DONE
    with pytest.raises(WorkflowAlreadyComplete, match="nothing to do"):
        define(tool, args, "true").start(resume=True)
    same = define(tool, args, "true").start(resume=True, on_change="rerun")
    assert (same.workflow_run_id, same.wait()) == (handle.workflow_run_id, WorkflowRunStatus.DONE)
    changed = define(tool, args, "true", f"touch {tmp_path}/more").start(resume=True, on_change="rerun")
    assert changed.workflow_run_id > handle.workflow_run_id
    assert changed.wait() == WorkflowRunStatus.DONE
    assert (tmp_path / "more").exists()


def test_failed_tasks_and_options_reach_the_leader(tool, args, tmp_path):
    workflow = define(tool, args, "exit 3", f"touch {tmp_path}/other")
    template = tool.active_task_templates["run"]
    first = next(iter(workflow.tasks.values()))
    workflow.add_task(template.create_task(command=f"touch {tmp_path}/after", upstream_tasks=[first]))
    handle = workflow.start(fail_fast=True, configure_logging=True)
    assert workflow.wait() == WorkflowRunStatus.ERROR
    assert first.final_status == TaskStatus.ERROR_FATAL
    assert not (tmp_path / "after").exists()
    until(lambda: "exited with code 1." in handle.log_path.read_text(), "the exit of the leader")
    assert "INFO" in handle.log_path.read_text()


def test_a_run_that_times_out_raises_in_those_who_wait(tool, args, tmp_path):
    handle = define(tool, args, waiting(tmp_path)).start(seconds_until_timeout=1)
    with pytest.raises(RuntimeError, match="was not done when its timeout"):
        handle.wait()
    (tmp_path / "go").touch()


def test_a_handle_stops_the_run_and_nothing_restarts_it(tool, args, tmp_path):
    handle = define(tool, args, waiting(tmp_path)).start()
    until(lambda: ran(tmp_path), "the command")
    leader, watcher = leader_of(handle), watcher_of(handle)
    handle.stop()
    assert handle.wait() == WorkflowRunStatus.STOPPED
    until(lambda: not is_alive(leader) and not is_alive(watcher), "the end of both processes")
    assert handle.status() == WorkflowRunStatus.STOPPED
    (tmp_path / "go").touch()
    assert define(tool, args, waiting(tmp_path)).start(resume=True).wait() == WorkflowRunStatus.DONE
    assert ran(tmp_path) == 2


def test_sigterm_to_the_leader_stops_the_workflow(tool, args, tmp_path):
    handle = define(tool, args, waiting(tmp_path)).start()
    until(lambda: ran(tmp_path), "the command")
    watcher = watcher_of(handle)
    leader_of(handle).send_signal(signal.SIGTERM)
    assert handle.wait() == WorkflowRunStatus.STOPPED
    until(lambda: not is_alive(watcher), "the end of the watcher")


def test_a_killed_leader_is_replaced_and_each_command_runs_once(tool, args, tmp_path):
    workflow = define(tool, args, waiting(tmp_path), f"echo x >> {tmp_path}/ran-quick", "exit 3")
    first = next(iter(workflow.tasks.values()))
    template = tool.active_task_templates["run"]
    workflow.add_task(template.create_task(command=f"echo x >> {tmp_path}/ran-after", upstream_tasks=[first]))
    handle = workflow.start()
    until(lambda: ran(tmp_path) and ran(tmp_path, "quick"), "the commands")
    until(workflow.get_errors, "the failure")
    leader, watcher = leader_of(handle), watcher_of(handle)
    leader.kill()
    until(lambda: [run.pid for run in active(tool, handle)] not in ([], [leader.pid]), "another leader")
    assert watcher_of(handle).pid == watcher.pid
    (newest,) = active_runs(tool.requester, handle.workflow_id).runs
    assert watched.log_path(handle.workflow_id, newest.workflow_run_id).samefile(handle.log_path)
    (tmp_path / "go").touch()
    assert workflow.wait() == WorkflowRunStatus.ERROR  # the failed task is not retried
    assert [ran(tmp_path, name) for name in ("one", "quick", "after")] == [1, 1, 1]
    assert len(workflow.get_errors()) == 1
    assert workflow.last_result.done_count == 3
    assert "killed by signal 9; restarting it" in handle.log_path.read_text()


def test_a_leader_that_is_killed_again_and_again_is_given_up(tool, args, tmp_path):
    handle = define(tool, args, waiting(tmp_path)).start()
    until(lambda: ran(tmp_path), "the command")
    watcher, killed = watcher_of(handle), set()
    while len(killed) < 4:
        leader = until(
            lambda: next((one for one in watcher.children() if one.pid not in killed), None), "the next leader"
        )
        # not before it leads, which is when it is recorded
        until(lambda leader=leader: [run.pid for run in active(tool, handle)] == [leader.pid], "its run")
        killed.add(leader.pid)
        leader.kill()
    until(lambda: not is_alive(watcher), "the end of the watcher")
    assert active(tool, handle) == []
    assert "3 restarts in a row made no progress" in handle.log_path.read_text()
    assert handle.status() in CLOSED_RUNS
    (tmp_path / "go").touch()
    again = define(tool, args, waiting(tmp_path))
    assert again.run(resume=True, reset_running_jobs=False) == WorkflowRunStatus.DONE
    assert ran(tmp_path) == 1


def active(tool, handle):
    return active_runs(tool.requester, handle.workflow_id).runs


def test_a_leader_whose_watcher_was_killed_continues_unwatched(tool, args, tmp_path):
    handle = define(tool, args, waiting(tmp_path)).start()
    until(lambda: ran(tmp_path), "the command")
    leader, watcher = leader_of(handle), watcher_of(handle)
    watcher.kill()
    (tmp_path / "go").touch()
    assert handle.wait() == WorkflowRunStatus.DONE
    until(lambda: not is_alive(leader), "the end of the leader")


def test_a_workflow_that_was_stopped_while_its_leader_was_dead_is_not_continued(tool, args, tmp_path):
    handle = define(tool, args, waiting(tmp_path)).start()
    until(lambda: ran(tmp_path), "the command")
    leader, watcher = leader_of(handle), watcher_of(handle)
    watcher.send_signal(signal.SIGSTOP)  # so that it does not restart the leader yet
    leader.kill()
    handle.stop(kill=False)
    watcher.send_signal(signal.SIGCONT)
    until(lambda: not is_alive(watcher), "the end of the watcher")
    assert handle.status() == WorkflowRunStatus.STOPPED
    assert "Nothing to continue: the run is STOPPED." in handle.log_path.read_text()
    (tmp_path / "go").touch()


def test_a_leader_that_cannot_start_is_an_error_and_leaves_no_run(tool, args, monkeypatch):
    workflow = define(tool, args, "true")
    workflow.bind()
    monkeypatch.setattr(
        detached, "_LEADER", (sys.executable, "-P", "-c", "print('no leader today'); raise SystemExit(5)")
    )
    with pytest.raises(
        WorkflowRunStateError, match=r"(?s)was to lead run \d+ of workflow \d+ has exited.*no leader today"
    ):
        workflow.start()
    assert active_runs(tool.requester, workflow.workflow_id).runs == []
    monkeypatch.undo()
    assert define(tool, args, "true").start(resume=True).wait() == WorkflowRunStatus.DONE


def test_functions_and_unrecorded_workflows_are_refused(tool, args):
    workflow = define(tool, args, "true")
    with pytest.raises(ValueError, match="not recorded"):
        workflow.wait()
    template = tool.active_task_templates["run"]
    workflow.add_task(template.create_task(command="echo", compute_resources_callable=dict))
    with pytest.raises(InvalidResources, match="exists only in this process"):
        workflow.start()
    with pytest.raises(ValueError, match="not recorded"):
        workflow.wait()
    other = define(tool, f"{args} bound", "true")
    other.bind()
    with pytest.raises(WorkflowRunStateError, match="no run of it has been started"):
        other.wait()


def test_plan_mode_starts_nothing(tool, args, monkeypatch, capsys):
    monkeypatch.setenv("JOBMON__RUN__PLAN", "table")
    workflow = define(tool, args, "true")
    with pytest.raises(SystemExit), contextlib.suppress(KeyboardInterrupt):
        workflow.start()
    assert "1 of 1 task" in capsys.readouterr().out
    assert workflow.workflow_id is None
