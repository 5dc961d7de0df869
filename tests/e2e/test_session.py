"""Run every command against a real server with workflows in many states, with text and JSON output.

The first command of each group is a process, as it is for people, and so are those that start or stop processes; the
others run in this process, which is faster.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from tests.databases import SQLITE

from jobmon.cli.main import main
from jobmon.client.wfformat import parse_recording
from jobmon.core.wire import definition, failures, monitoring, sizing, steering

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = """
import sys
from jobmon.client.api import Tool

tool = Tool(name="day")
step = tool.get_task_template("step", command_template="{command}", node_args=["command"])
work = tool.get_task_template(
    "arbeit_作業", command_template="sh -c '{script}' {n}", node_args=["n"], op_args=["script"])

def recorded(name, **options):
    return tool.create_workflow(name=name, workflow_args=name, default_max_attempts=1, **options)
"""
ENDED = (
    STEPS
    + """
fine = recorded("fine")
fine.add_tasks([step.create_task(name=f"fine_{i}", command=f"echo fine {i}") for i in range(2)])
assert fine.run() == "D"
failed = recorded("gescheitert ✗")
bad = [work.create_task(n=i, script="echo no such file /data/$0 >&2; exit 3") for i in range(3)]
failed.add_tasks([*bad, step.create_task(name="after", command="echo never", upstream_tasks=bad)])
assert failed.run() == "E"
resting = recorded("resting")
resting.add_tasks([step.create_task(name=f"rest_{i}", command=f"echo rest {i}") for i in range(3)])
resting.bind()
print(*(w.workflow_id for w in (fine, failed, resting)), *(t.task_id for t in (bad[0], *failed.tasks.values())))
"""
)
BUSY = (
    STEPS
    + """
busy = recorded("busy")
runs = step.create_task(name="runs", command="echo begun; while [ ! -e goon ]; do sleep 0.05; done; echo ended")
busy.add_tasks([runs, step.create_task(name="waits", command="echo waited", upstream_tasks=[runs])])
busy.run()
"""
)
DETACHED = """
import sys
from jobmon.client.api import Tool
tool = Tool(name="day")
step = tool.get_task_template("wait", command_template="while [ ! -e {go} ]; do sleep 0.05; done", node_args=["go"])
workflow = tool.create_workflow(name="detached", workflow_args=sys.argv[1])
workflow.add_task(step.create_task(name="waits", go=sys.argv[1]))
workflow.run()
print("done with", sys.argv[1])
"""
#: Groups and commands that start or stop processes.
ALWAYS_PROCESSES = (
    ("server",),
    ("workflow", "run"),
    ("workflow", "resume"),
    ("workflow", "stop"),
    ("workflow", "start"),
    ("workflow", "attach"),
    ("workflow", "wait"),
)
WORKFLOWS = list[monitoring.WorkflowSummary]
DETAILS = list[monitoring.TaskDetail]


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from leaves(command.get_command(context, name), (*path, name))
    else:
        yield path


class Terminal:
    """Runs commands, remembers which."""

    def __init__(self, home: Any) -> None:
        self.home = home
        self.used: set[tuple[str, ...]] = set()
        self.groups: set[str] = set()
        self.known = set(leaves(main))
        settings: dict[str, str | None] = {name: None for name in os.environ if name.startswith("JOBMON")}
        self.environment = settings | home.environment

    def text(self, line: str, pattern: str, *, code: int = 0) -> str:
        """Run a command; what it prints must match."""
        words = line.split()
        is_process = words[0] not in self.groups or self._is_process(words)
        self.groups.add(words[0])
        self.used |= {path for path in self.known if tuple(words[: len(path)]) == path}
        returned, stdout, stderr = self._as_process(words) if is_process else self._here(words)
        shown = stdout + stderr
        assert returned == code, (line, shown)
        assert "Traceback" not in shown
        assert re.search(pattern, shown), (line, shown)
        return stdout

    def _is_process(self, words: list[str]) -> bool:
        return any(tuple(words[: len(one)]) == one for one in ALWAYS_PROCESSES)

    def _as_process(self, words: list[str]) -> tuple[int, str, str]:
        finished = self.home.jobmon(*words)
        return finished.returncode, finished.stdout, finished.stderr

    def _here(self, words: list[str]) -> tuple[int, str, str]:
        result = CliRunner(env=self.environment).invoke(main, words)
        return result.exit_code, result.stdout, result.stderr

    def both(self, line: str, pattern: str, schema: Any, *, code: int = 0) -> Any:
        """Run a command as text and as JSON, which must be of a schema."""
        self.text(line, pattern, code=code)
        return self.json(line, schema, code=code)

    def json(self, line: str, schema: Any, *, code: int = 0) -> Any:
        """Run a command with `-o json`."""
        words = [*line.split(), "-o", "json"]
        returned, stdout, stderr = self._as_process(words) if self._is_process(words) else self._here(words)
        assert returned == code, (line, stdout, stderr)
        return msgspec.convert(json.loads(stdout), schema)


@pytest.mark.timeout(240)
def test_every_command(home, wait_until, databases):
    home.environment["COLUMNS"] = "100"  # where the table of workflows need not fold the names
    at = Terminal(home)
    is_embedded = databases.dialect == SQLITE
    ended = home.python(ENDED)
    assert ended.returncode == 0, ended.stderr
    fine, failed, resting, bad, *_, after = map(int, ended.stdout.split()[-8:])

    # server, settings and clusters
    at.text("version --components", r"jobmon \d.*\nserver \d")
    at.both("server status", r"running +True", dict[str, Any])
    if is_embedded:
        at.text("server start", "is already running")
        at.text("server logs -n 5", "ready at")
        at.text("server run", "Specify the database", code=1)
        at.text("server test-notifications", "Nobody is notified: set notify.urls", code=2)
    at.both("doctor", "ok   server", list[dict[str, Any]])
    at.text("config show --section http", "request_timeout: 20  # default")
    at.text("config set http.request_timeout 21", "Wrote")
    at.text("login --forget", "Your local server")
    made = at.both("token create --user ada --label day", "of ada, valid until", dict[str, Any])
    at.both("token list", r"ada +- +day", list[dict[str, Any]])
    at.text(f"token revoke {made['token']['id']}", "is revoked")
    at.text("completion bash", "_jobmon_completion")
    at.both("cluster list", "multiprocess", list[definition.Cluster])
    at.both("cluster add other --plugin sequential --yes", "Added cluster other", definition.Cluster)
    at.text("cluster remove other --yes", "Removed cluster other")
    shown = at.both("ui --no-browser", r"^http://127\.0\.0\.1:\d+/#key=[\w.-]+&", dict[str, Any])
    assert (shown["opened"], shown["tunnel"].split()[:2]) == (False, ["ssh", "-L"])
    at.both("db revision", "up to date", dict[str, Any])
    at.text("db upgrade", "nothing to do")
    if is_embedded:
        at.text(f"db backup {home.folder}/copy.sqlite", r"Copied \S+/jobmon\.sqlite to \S+/copy\.sqlite")
    else:
        at.text(f"db backup {home.folder}/copy.sqlite", "pg_dump", code=2)

    # statuses
    states = at.both("workflow status", "gescheitert ✗ +FAILED", WORKFLOWS)
    assert {one.name: one.status for one in states} == {"fine": "D", "gescheitert ✗": "F", "resting": "G"}
    at.text(f"workflow status -w {fine} --watch", r"fine +DONE")
    tasks = at.both(f"workflow tasks -w {failed} -s FATAL", r"arbeit_作業.* ERROR_FATAL", list[monitoring.TaskSummary])
    assert len(tasks) == 3
    at.both(f"task status -t {bad}", "exit code 3", DETAILS)
    at.both(f"task dependencies -t {after}", "3 upstream tasks", monitoring.DependenciesResponse)
    at.text(f"task logs {bad}", "no such file /data/0")
    at.both(f"workflow logs -w {failed}", "arbeit_作業", list[monitoring.TaskOutput])
    at.both(f"workflow outputs -w {fine}", "No task declares an output", list[dict[str, Any]])
    at.both(
        f"task explain {after}", "It cannot run, because upstream tasks failed permanently", monitoring.TaskExplanation
    )
    at.both(f"workflow versions {fine}", r"1 +", list[dict[str, Any]])
    at.both(f"workflow plan -w {failed}", r"Workflow \d+ '.*', version 1", dict[str, Any])
    explained = at.both(f"workflow explain {failed}", "FAILED; 3 ERROR_FATAL", monitoring.WorkflowExplanation)
    assert explained.blocked == 1
    groups = at.both(
        f"workflow errors -w {failed}", r"1\. 3 \(100%\)  arbeit_作業  exit code 3", failures.FailuresResponse
    )
    assert groups.group_count == 1

    # what it used
    at.both(f"workflow efficiency -w {fine}", "WASTED", sizing.SizingResponse)
    at.text(f"workflow resources yaml -w {fine}", "task_template_resources")
    at.both("workflow resources usage -t 1", "2 finished tasks", monitoring.UsageResponse)
    document = home.folder / "fine.json"
    at.text(f"db export -w {fine} --format wfformat -f {document}", "Wrote")
    assert len(parse_recording(document.read_bytes()).tasks) == 2
    at.text(f"db export -w {failed}", '^{"kind": "workflow"')
    at.text(f"workflow report -w {failed} -o {document}.html", "Wrote")
    at.text(f"workflow report -w {failed} --format csv", "^task_id,task,template,")
    ran = at.both(f"workflow run {document} --scale 0", "THIS RUN", dict[str, Any])
    assert ran["done"] == 2

    # steering what rests and what runs
    at.both(f"workflow concurrency -w {resting} -m 2 --yes", "at most 2 at once", dict[str, Any])
    (first, *_) = at.json(f"workflow tasks -w {resting}", list[monitoring.TaskSummary])
    at.text(f"task hold {first.task_id} -y", "Held: 1 task")
    at.text(f"task release {first.task_id} -y", "Released: 1 task")
    at.text(f"workflow hold -w {resting} -t step -y", "Held: 3 tasks")
    at.text(f"workflow release -w {resting} -t step -y", "Released: 3 tasks")
    at.text(f"task priority {first.task_id} -p 5 -y", "Priority 5: 1 task")
    at.text(f"workflow priority -w {resting} -t step -p -1 -y", "Priority -1: 3 tasks")
    at.text(f"task edit {first.task_id} --set cores=2 -y", "Edited: 1 task")
    at.text(f"task edit {first.task_id} --reset -y", "Edited: 1 task")
    at.text(f"task skip {first.task_id} -y", "Skipped: 1 task")
    at.text(f"task rerun {first.task_id} -y", "Will be rerun: 1 task")
    at.text(f"task rerun {first.task_id} -y", "Nothing to do: 1 task")
    at.both(f"task update -t {first.task_id} -w {resting} -s DONE -y", "will be DONE", dict[str, Any])
    at.both(f"workflow reset -w {resting} --partial -y", "was reset: 2 REGISTERING, 1 DONE", dict[str, Any])
    at.text(f"workflow resume -w {resting} -c multiprocess", "is DONE: 3 of 3 tasks done")
    trail = at.both(f"workflow history -w {resting}", "task update", list[steering.HistoryEntry])
    assert {"task update", "reset tasks"} <= {entry.action for entry in trail}

    # without a terminal
    script = home.script(DETACHED)
    at.text(f"workflow start {script} two", r"Workflow \d+ runs in the background \(run \d+\)")
    started = home.json_of_process("workflow", "start", str(script), "one")
    detached = started["workflow_id"]
    at.text(f"workflow wait {detached} --timeout 0", "is still running after 0 s; it continues", code=124)
    (home.folder / "one").touch()
    at.text(f"workflow attach {detached}", f"Workflow {detached} is DONE")
    waited = at.json(f"workflow wait {detached}", dict[str, Any])
    assert waited == {"workflow_id": detached, "status": "D", "status_name": "DONE"}
    assert "done with one" in Path(started["log_path"]).read_text()
    other = min(one["workflow_id"] for one in home.json("workflow", "status", "--name", "detached"))
    stopped = at.json(f"workflow stop {other} -y", dict[str, Any])
    assert len(stopped["run_ids"]) == 1
    at.text(f"workflow attach {other}", f"Workflow {other} is STOPPED. To see why", code=1)
    at.text(f"workflow wait {other}", f"Workflow {other} is STOPPED. To see why", code=1)

    with home.start(BUSY) as client:
        wait_until(lambda: any("R" in one["counts"] for one in home.json("workflow", "status")))
        busy = max(one["workflow_id"] for one in home.json("workflow", "status"))
        running = at.both(f"workflow status -w {busy}", r"busy +RUNNING", WORKFLOWS)
        assert running[0].counts == {"R": 1, "G": 1}
        at.text(f"workflow concurrency -w {busy} -m 0 -y", "paused")
        at.text(f"workflow explain -w {busy}", "paused")
        at.text(f"workflow stop -w {busy} --kill --yes", "is stopped")
        client.wait(timeout=60)
    at.text(f"workflow status -w {busy}", r"busy +STOPPED")
    at.text(f"workflow explain {busy}", f"Workflow {busy} busy: STOPPED; ")
    assert home.json("workflow", "explain", str(busy))["status_name"] == "STOPPED"
    (home.folder / "goon").touch()
    at.text(f"workflow concurrency -w {busy} -m 5 -y", "at most 5")
    at.text(f"workflow resume -w {busy} -c multiprocess", "2 of 2 tasks done")

    # purges
    at.text(f"db purge -w {failed} -y", "Deleted 1 workflow with 4 tasks")
    at.text(f"workflow tasks -w {failed}", f"no workflow {failed}", code=2)
    at.both("db compact", "ompact" if is_embedded else "autovacuum", dict[str, Any])
    if is_embedded:
        at.text("server stop", "Stopped")
        at.text("server status", "No server is running", code=3)
    of_a_server_of_ones_own = {path for path in at.known if path[0] == "server"}
    assert at.known - at.used <= (set() if is_embedded else of_a_server_of_ones_own)
