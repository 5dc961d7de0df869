"""`jobmon workflow start`, `attach` and `wait` as users see them; a script that is killed is run again."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

JOBMON = Path(sys.executable).with_name("jobmon")
SCRIPT = """
import os, sys
from jobmon.client.api import Tool

with open("scripts", "a") as file:
    file.write(f"{os.getpid()} {' '.join(sys.argv)} {sys.path[0]}\\n")
import steps  # from the script's folder, which is not the current one

tool = Tool(name="detached")
template = tool.get_task_template("run", "{command}", node_args=["command"])
first = tool.create_workflow(name="first")  # random args
first.add_task(template.create_task(command="echo x >> first", compute_resources_callable=lambda: {"cores": 1}))
assert first.run() == "D"
second = tool.create_workflow(name="second", workflow_args=sys.argv[1])
fails = template.create_task(command="echo x >> fails; exit 3", max_attempts=1)
waits = template.create_task(command=steps.COMMAND)
second.add_tasks([fails, waits, template.create_task(command="echo x >> after", upstream_tasks=[waits])])
print("RESULT", first.workflow_id, second.run(), second.last_result.done_count, flush=True)
"""
STEPS = 'COMMAND = "echo x >> waits; while ! test -e go; do sleep 0.05; done"\n'


@pytest.fixture
def script(home):
    folder = home.folder / "scripts of mine"
    folder.mkdir()
    (folder / "steps.py").write_text(STEPS)
    path = folder / "fit.py"
    path.write_text(SCRIPT)
    return path


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_a_killed_script_is_run_again_and_continues(home, script, wait_until):
    started = home.json_of_process("workflow", "start", str(script), "2026-10", "--limit")
    wait_until(lambda: lines(home.folder / "waits") and lines(home.folder / "fails"))
    (first, second) = sorted(one["workflow_id"] for one in home.json("workflow", "status"))
    wait_until(lambda: home.json("workflow", "errors", "--list", "-w", str(second)))
    (line,) = lines(home.folder / "scripts")
    assert line.endswith(f" {script} 2026-10 --limit {script.parent}")
    os.kill(int(line.split()[0]), signal.SIGKILL)
    wait_until(lambda: len(lines(home.folder / "scripts")) == 2)
    (home.folder / "go").touch()
    waited = home.jobmon("workflow", "wait", str(second))
    assert (waited.returncode, waited.stdout.split(".")[0]) == (1, f"Workflow {second} is FAILED")
    log = Path(started["log_path"])
    wait_until(lambda: "exited with code" in log.read_text())
    # the first workflow is the same one, though its args are random, and counts as done; nothing failed is retried
    assert f"RESULT {first} E 2" in log.read_text()
    assert [lines(home.folder / name) for name in ("first", "fails", "waits", "after")] == [["x"]] * 4
    assert sorted(one["workflow_id"] for one in home.json("workflow", "status")) == [first, second]
    data = Path(home.environment["JOBMON_DATA_DIR"])
    assert log == data / "logs" / str(first) / f"run-{started['workflow_run_id']}.log"
    assert list((data / "logs" / "scripts").iterdir()) == []


def test_scripts_that_start_no_workflow_are_errors_that_show_their_output(home):
    failing = home.script("print('about to fail')\nraise ValueError('no such file: data.csv')\n")
    failed = home.jobmon("workflow", "start", str(failing))
    assert failed.returncode == 1
    assert "script.py exited with code 1 without starting a workflow. The end of its output" in failed.stderr
    assert "ValueError: no such file: data.csv" in failed.stderr
    assert "runpy" not in failed.stderr
    home.script("print('nothing to do here')\n")
    idle = home.jobmon("workflow", "start", str(failing))
    assert (idle.returncode, "exited with code 0 without starting a workflow" in idle.stderr) == (1, True)
    home.script("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    killed = home.jobmon("workflow", "start", str(failing))
    assert (killed.returncode, "was killed without starting a workflow" in killed.stderr) == (1, True)
    missing = home.jobmon("workflow", "start", "missing.py")
    assert (missing.returncode, "does not exist" in missing.stderr) == (2, True)
    slow = home.script("import time\ntime.sleep(3)\n")
    waiting = home.jobmon("workflow", "start", str(slow), "--timeout", "0")
    assert (waiting.returncode, "it has not started a workflow yet" in waiting.stdout) == (0, True)
    for command in ("attach", "wait"):
        unknown = home.jobmon("workflow", command, "99")
        assert (unknown.returncode, unknown.stderr) == (2, "Error: There is no workflow 99.\n")


def test_ctrl_c_detaches_and_a_lost_terminal_changes_nothing(home, script, wait_until):
    home.json_of_process("workflow", "start", str(script), "2026-10")
    wait_until(lambda: lines(home.folder / "waits"))
    number = str(max(one["workflow_id"] for one in home.json("workflow", "status")))
    for send, code in ((signal.SIGINT, 130), (signal.SIGHUP, -signal.SIGHUP)):
        ours, theirs = pty.openpty()
        attached = subprocess.Popen(
            [str(JOBMON), "workflow", "attach", number],
            cwd=home.folder,
            env={**home.environment, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        said = ""
        while "1 running" not in said:
            said += os.read(ours, 65_536).decode(errors="replace")
        assert f"Workflow {number} is led by process" in said
        attached.send_signal(send)
        assert attached.wait(30) == code
        if send == signal.SIGINT:
            while "continues." not in said:
                said += os.read(ours, 65_536).decode(errors="replace")
        os.close(ours)
    waiting = subprocess.Popen(
        [str(JOBMON), "workflow", "wait", number], cwd=home.folder, env=home.environment, stderr=subprocess.PIPE
    )
    wait_until(lambda: psutil.Process(waiting.pid).net_connections("all"))
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=30)
    assert (waiting.returncode, said.decode()) == (130, f"Workflow {number} continues.\n")
    (home.folder / "go").touch()
    assert home.jobmon("workflow", "wait", number).returncode == 1  # one task fails
    assert lines(home.folder / "waits") == ["x"]


def test_a_plan_of_a_script_that_starts_its_run(home):
    """The planned workflow is that of `start()`, and nothing is started."""
    path = home.script(SCRIPT.replace("import steps", "").replace("first.run()", "first.start()"))
    path.write_text(path.read_text().replace(', compute_resources_callable=lambda: {"cores": 1}', ""))
    planned = home.jobmon("workflow", "plan", str(path), "x")
    assert (planned.returncode, "1 of 1 task would run" in planned.stdout) == (0, True), planned.stderr
    assert home.json("workflow", "status") == []


def test_a_script_may_start_what_it_does_not_wait_for(home, wait_until):
    """A detached script starts a detached run and exits: both are separate."""
    path = home.script(
        "from jobmon.client.api import Tool\n"
        "tool = Tool(name='both')\n"
        "template = tool.get_task_template('run', '{command}', node_args=['command'])\n"
        "workflow = tool.create_workflow(name='both', workflow_args='x')\n"
        "workflow.add_task(template.create_task(command='while ! test -e go; do sleep 0.05; done'))\n"
        "print(workflow.start())\n"
    )
    started = home.json_of_process("workflow", "start", str(path))
    number = str(started["workflow_id"])
    wait_until(lambda: "exited with code 0" in Path(started["log_path"]).read_text())
    assert home.jobmon("workflow", "wait", number, "--timeout", "0").returncode == 124
    (home.folder / "go").touch()
    assert home.jobmon("workflow", "wait", number).returncode == 0


def test_the_module_that_runs_scripts_needs_no_current_directory(home):
    """Like `python SCRIPT`: `__main__` is the script, for pickle and multiprocessing, too."""
    path = home.script(
        "import multiprocessing, pickle, sys\n"
        "def double(x):\n    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    assert pickle.loads(pickle.dumps(double)) is double\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(double, [21]), sys.argv[1:])\n"
    )
    command = [sys.executable, "-P", "-m", "jobmon.client.script", str(path), "-x", "y z"]
    finished = subprocess.run(
        command, capture_output=True, text=True, cwd=home.folder, env=home.environment, check=False
    )
    assert (finished.returncode, finished.stdout) == (0, "[42] ['-x', 'y z']\n"), finished.stderr


def test_a_failed_workflow_is_resumed_in_the_background(home):
    """The run continues after the command has returned, and nothing of the script is needed."""
    path = home.script(
        "from jobmon.client.api import Tool\n"
        "tool = Tool(name='later')\n"
        "template = tool.get_task_template('run', '{command}', node_args=['command'])\n"
        "workflow = tool.create_workflow(name='later', workflow_args='x', default_max_attempts=1)\n"
        "workflow.add_task(template.create_task(command='test -e go'))\n"
        "print(workflow.run())\n"
    )
    subprocess.run([sys.executable, str(path)], cwd=home.folder, env=home.environment, check=True, capture_output=True)
    (number,) = [str(one["workflow_id"]) for one in home.json("workflow", "status")]
    path.unlink()
    (home.folder / "go").touch()
    resumed = home.jobmon("workflow", "resume", number, "--background")
    assert resumed.returncode == 0, resumed.stderr
    assert f"Workflow {number} runs in the background (run 2)." in resumed.stdout
    assert home.jobmon("workflow", "wait", number).returncode == 0
    again = home.jobmon("workflow", "resume", number, "--background")
    assert (again.returncode != 0, "Traceback" in again.stderr) == (True, False)
